"""Which values identify by their shape alone: an e-mail address, an id, a phone number, a path
into somebody's home, a secret. `SHAPES` is the table, in the order in which they are looked for.

Whether a value is *this user's* is identity.py's question; what a key means is names.py's. Secrets,
cards and IBANs, which must not leave in any mode, are in secrets.py. Shapes are looked for in a
text as it stands: views.py decodes it. Everything here takes any string, raises nothing and takes
time in proportion to the length.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import AddressValueError, IPv6Address
from typing import Final, Literal, NamedTuple

from second_mw.privacy.secrets import (
    SEPARATOR,
    UUID,
    SecretKind,
    card_of_number,
    changes_too_often,
    first_secret,
    is_plain,
    long_words,
    redact_secrets,
)

__all__ = ["SHAPES", "Kind", "Shape", "number_shape", "redact_secrets", "shape_of"]

Kind = (
    SecretKind
    | Literal[
        "email",
        "url",
        "uuid",
        "objectid",
        "ulid",
        "ksuid",
        "ip",
        "mac",
        "phone",
        "hex",
        "token",
        "path",
    ]
)

# Addresses

# One character before the @ is enough. A domain needs a last label of letters: `react@18.2.0` is a
# package's version. A host without a dot counts too: `ada@intranet`.
_EMAIL: Final = re.compile(
    r"[^\s@<>()\[\],;:\"'/\\]\"?@(?:(?:[^\W_][\w-]*\.)+(?:xn--[\w-]+|[^\W\d_]{2,})|[^\W\d_][\w-]*|\[)"
)
# A scheme with its slashes, `//host.name`, `www.`, or a scheme that needs no slashes.
_URL: Final = re.compile(
    r"[a-z][\w+.-]?://[^\s/]|:///[^\s]|(?<![\w:/.])//[\w-]+(?:\.[\w-]+)*\.[^\W\d_]{2}"
    r"|\bwww\d?\.\w|\b(?:data:\w{1,20}/|mailto:\w|blob:\w)",
    re.IGNORECASE,
)
_URL_HINTS: Final = ("//", ":", "ww", "WW")


def _email(text: str) -> Kind | None:
    return "email" if "@" in text and _EMAIL.search(text) else None


def _url(text: str) -> Kind | None:
    return "url" if any(map(text.__contains__, _URL_HINTS)) and _URL.search(text) else None


# Ids

_RUN: Final = re.compile(r"[^\W_]{16,}")
_HEX_RUN: Final = re.compile(r"[0-9a-f]{16,}", re.IGNORECASE | re.ASCII)
#: A run of nothing but digits is a number (a time in microseconds, a snowflake), unless it is as
#: long as an ObjectId.
_HEX_OF_DIGITS: Final = 24
_OBJECTID_LENGTH: Final = 24
_ULID: Final = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}", re.IGNORECASE | re.ASCII)
_OPAQUE_LENGTH: Final = 20
_KSUID_LENGTH: Final = 27
# 1.2345678901234567e-05: the digits and the e of a number are no hexadecimal id.
_EXPONENT: Final = re.compile(r"\d+[eE]\d*")
#: Words of camel or Pascal case of two letters or more, of which one may be an abbreviation, as in
#: `SSLCertVerificationError`, and closing digits.
_WORDS: Final = re.compile(
    r"(?:[a-z]{2,})?(?:[A-Z][a-z]+)*(?:[A-Z]{2,5}(?:[A-Z][a-z]+)+)?(?:\d{1,3})?"
)
#: No name of an error or a class is longer; what is has no exemption.
_LONGEST_WORDS: Final = 128


def _uuid(text: str) -> Kind | None:
    hyphens = text.count("-") + text.count("_")
    return "uuid" if hyphens >= 4 and UUID.search(text) else None


def _run(text: str) -> Kind | None:
    """Judge each unbroken run of letters and digits."""
    for run in _RUN.finditer(text):
        if kind := _kind_of_run(
            run[0], text[max(0, run.start() - 1) : run.start()], text[run.end() : run.end() + 1]
        ):
            return kind
    return None


#: Base64 of either alphabet, where its own signs break the run.
_BASE64_RUN: Final = re.compile(r"[A-Za-z0-9+/_-]{20,}", re.ASCII)


def _digest(text: str) -> Kind | None:
    """Find a digest in base64 that its own signs break: runs that change too often for words."""
    return "token" if any(map(changes_too_often, _BASE64_RUN.findall(text))) else None


def _kind_of_run(run: str, before: str, after: str) -> Kind | None:
    length = len(run)
    if length == 26 and _ULID.fullmatch(run) and not run.isdecimal():
        return "ulid"
    for found in _HEX_RUN.finditer(run):
        digits = found[0]
        if digits.isdecimal():
            if len(digits) < _HEX_OF_DIGITS or before == ".":
                continue
        elif _EXPONENT.fullmatch(digits) and (after in ("+", "-") or before == "."):
            continue
        return "objectid" if len(digits) == length == _OBJECTID_LENGTH else "hex"
    if length >= _OPAQUE_LENGTH and _is_opaque(run):
        return "ksuid" if length == _KSUID_LENGTH else "token"
    return None


def _is_opaque(run: str) -> bool:
    """Whether a run mixes two of upper case, lower case and digits, and is not words."""
    if len(run) <= _LONGEST_WORDS and _WORDS.fullmatch(run if run.isascii() else _as_ascii(run)):
        return False
    upper, lower = run != run.lower(), run != run.upper()
    return upper + lower + any(map(str.isdecimal, run)) >= 2


def _as_ascii(run: str) -> str:
    """Return ASCII letters and digits of the same case as these of any script."""
    return "".join(
        "0" if letter.isdecimal() else "A" if letter.isupper() else "a" for letter in run
    )


# Machines

_OCTET: Final = r"(?:25[0-5]|2[0-4]\d|[01]?\d?\d)"
# Chrome/142.0.0.0 is what browsers say of their version: nobody's address ends so.
_IPV4: Final = re.compile(
    r"(?<!\d)(?<!\d\.)(?!(?<=[A-Za-z]/)\d{2,3}\.0\.0\.0(?!\d))"
    rf"{_OCTET}(?:\.{_OCTET}){{3}}(?!\d)(?!\.\d)"
)
_FOUR_NUMBERS: Final = re.compile(r"\d\.\d{1,3}\.\d{1,3}\.\d")
# How clouds write an address into the name of a host.
_IP_HOST: Final = re.compile(
    rf"(?:ip|ec2)(?<![^\W_]ip)(?<![^\W_]ec2)(?:[-_]{_OCTET}){{4}}(?!\d)", re.IGNORECASE
)
_IPV6: Final = re.compile(
    r"(?<![0-9A-Za-z:])[0-9a-f]{0,4}:[0-9a-f:]{1,36}(?![0-9A-Za-z:])", re.IGNORECASE | re.ASCII
)
#: Behind a name, as in `ip6:2001:db8::1`.
_NAMED_IPV6: Final = re.compile(
    r"(?:[g-z][0-9a-z]{0,15}|[0-9a-z]{0,15}[g-z][0-9]{0,3}|[0-9a-f]{5,16}):"
    r"([0-9a-f]{1,4}:[0-9a-f:]{1,36})(?![0-9A-Za-z:])",
    re.IGNORECASE | re.ASCII,
)
_GROUPS_OF_IPV6: Final = 8
#: Three hexadecimal digits or more, one of them no letter.
_LONG_GROUP: Final = re.compile(r"(?=[a-f]{0,3}[0-9])[0-9a-f]{3,4}", re.IGNORECASE)
_MAC: Final = re.compile(
    r"(?<![0-9a-f])[0-9a-f]{2}([:-])(?:[0-9a-f]{2}\1){4}[0-9a-f]{2}(?![0-9a-f])",
    re.IGNORECASE | re.ASCII,
)
_MAC_IN_FOURS: Final = re.compile(
    r"\.[0-9a-f]{4}\.(?<=[0-9a-f]{4}\.[0-9a-f]{4}\.)(?<![0-9a-f]{5}\.[0-9a-f]{4}\.)"
    r"[0-9a-f]{4}(?![0-9a-f])",
    re.IGNORECASE | re.ASCII,
)


def _mac(text: str) -> Kind | None:
    if (text.count(":") >= 5 or text.count("-") >= 5) and _MAC.search(text):
        return "mac"
    return "mac" if _MAC_IN_FOURS.search(text) else None


def _ipv4(text: str) -> Kind | None:
    if _FOUR_NUMBERS.search(text) and _IPV4.search(text):
        return "ip"
    hyphens = text.count("-") + text.count("_")
    return "ip" if hyphens >= 4 and _IP_HOST.search(text) else None


def _ipv6(text: str) -> Kind | None:
    if text.count(":") < 2:
        return None
    if any(map(_is_ipv6, _IPV6.findall(text))):
        return "ip"
    # A time has fewer colons.
    if "::" not in text and text.count(":") < _GROUPS_OF_IPV6:
        return None
    return "ip" if any(map(_is_named_ipv6, _NAMED_IPV6.finditer(text))) else None


def _is_named_ipv6(found: re.Match[str]) -> bool:
    """Whether what stands behind a word and a colon is an address: no `std::add` and no time is."""
    written = found[1]
    return _LONG_GROUP.search(written) is not None and _is_ipv6(written)


def _is_ipv6(written: str) -> bool:
    if not written.strip(":"):
        return False
    try:
        IPv6Address(written)
    except AddressValueError:
        return False
    return True


# Phones

_BETWEEN: Final = SEPARATOR[:-1] + "()/]"
#: Seven digits near each other: less is no phone number.
_SEVEN_DIGITS: Final = re.compile(rf"\d(?:{_BETWEEN}{{0,3}}\d){{6}}")
_PLUS: Final = re.compile(rf"(?:\+|\btel:)[\s(]{{0,2}}\d(?:{_BETWEEN}{{0,3}}\d){{6,14}}(?!\d)")
_GROUPS: Final = re.compile(rf"(?<!\d)\d+(?:{_BETWEEN}{{1,3}}\d+)+")
_DIGITS: Final = re.compile(r"\d+")
#: An ISO 8601 date with or without a time, in the spellings of file names and logs too.
_DATE: Final = re.compile(
    r"(?<!\d)(?:19|20)\d\d([-./_]?)(?:0[1-9]|1[0-2])\1(?:0[1-9]|[12]\d|3[01])"
    r"(?:(?:T|[ _-](?=\d\d[:_-]))(?:[01]\d|2[0-3])([:_-]?)[0-5]\d(?:\2[0-6]\d(?:[.,_-]?\d{1,9})?)?"
    r"(?:Z|[+-]\d\d:?\d\d)?)?(?!\d)"
)


def _phone(text: str) -> Kind | None:
    if not _SEVEN_DIGITS.search(text):
        return None
    text = _DATE.sub("x", text)
    if _PLUS.search(text):
        return "phone"
    for run in _GROUPS.finditer(text):
        before = text[max(0, run.start() - 1) : run.start()]
        groups = _DIGITS.findall(run[0])
        if _is_phone(groups) or _has_area_code(groups, before == "("):
            return "phone"
    return None


def _is_phone(groups: list[str]) -> bool:
    """Whether nine digits or more stand in three or more groups of 2 to 5 each.

    More than fifteen are two numbers, unless all in fours: so are cards written (secrets.py).
    """
    sizes: list[int] = []
    for size in (*map(len, groups), 0):
        if 2 <= size <= 5:
            sizes.append(size)
            continue
        total = sum(sizes)
        if len(sizes) >= 3 and total >= 9 and not (total >= 16 and set(sizes) == {4}):
            return True
        sizes = []
    return False


def _has_area_code(groups: list[str], opened: bool) -> bool:
    """Whether the first of two groups is an area code, which begins with `(` or `0`."""
    area, number = groups[:2]
    return (
        (opened or area[0] == "0")
        and 2 <= len(area) <= 6
        and len(number) >= 3
        and 9 <= len(area) + len(number) <= 15
    )


# Homes

_HOME: Final = re.compile(
    r"(?:(?<![\w.])|(?<=-\w)|/(?:var|usr|export|data|mnt/\w))/+home/+[^/\s:]"
    r"|/Users/+[^/\s:]"
    r"|[A-Za-z]:[\\/]{1,4}(?i:users|home|documents and settings)[\\/]{1,4}[^\\/\s]"
    r"|(?<![\w~])~[^\W\d][\w.-]*"
)
_HOME_HINTS: Final = ("~", "home/", "/Users/", ":\\", ":/")


def _home(text: str) -> Kind | None:
    return "path" if any(map(text.__contains__, _HOME_HINTS)) and _HOME.search(text) else None


# The table


class Shape(NamedTuple):
    """One way to look for shapes, and the kinds that it finds.

    `in_words`: they hold no white space, so the long words are all that has to be looked at.
    `in_versions`: False where a version would be taken for the shape, as 1.2.3.4 for an address.
    """

    kinds: tuple[Kind, ...]
    find: Callable[[str], Kind | None]
    in_words: bool = False
    in_versions: bool = True


SHAPES: Final = (
    Shape(("jwt", "secret", "iban", "card"), first_secret),
    Shape(("email",), _email),
    Shape(("url",), _url),
    Shape(("uuid",), _uuid, in_words=True),
    Shape(("ulid", "ksuid", "objectid", "hex", "token"), _run, in_words=True),
    Shape(("token",), _digest, in_words=True),
    Shape(("mac",), _mac, in_words=True),
    Shape(("ip",), _ipv6),
    Shape(("ip",), _ipv4, in_versions=False),
    Shape(("phone",), _phone, in_versions=False),
    Shape(("path",), _home),
)
_FINDERS: Final = tuple((shape.find, shape.in_words) for shape in SHAPES)
_FINDERS_IN_VERSIONS: Final = tuple(
    (shape.find, shape.in_words) for shape in SHAPES if shape.in_versions
)


def shape_of(text: str, *, version: bool = False) -> Kind | None:
    """Return the kind of an identifying shape that stands anywhere in the text, None if none does.

    Args:
        text: a value, or one of its decoded views.
        version: the key says that this is a version, where `1.2.3.4` is no address.

    >>> shape_of("mail ada@example.org"), shape_of("claude-sonnet-4-5-20250929")
    ('email', None)
    """
    if is_plain(text):
        return None
    words = long_words(text)
    for find, in_words in _FINDERS_IN_VERSIONS if version else _FINDERS:
        if kind := find(words if in_words else text):
            return kind
    return None


def number_shape(value: float) -> Kind | None:
    """Return `card` for a whole number that is a card's; no other number has a shape."""
    return "card" if card_of_number(value) else None
