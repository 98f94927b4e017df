"""URLs as they may leave in both modes: no userinfo, no fragment, `utm_*` as the only query keys,
and `:token` for each long opaque part of the path, such as a password reset's.

`clean_url` takes a value that is one URL or a path, `clean_urls` a text with URLs in it. Route
shapes, which say nothing but the kind of page, are in routes.py; secrets outside of URLs in
secrets.py. Both functions take any string, raise nothing, and return the same object when there is
nothing to clean.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

from second_mw.privacy.shapes import Kind, shape_of

_OPAQUE: Final = ":token"

#: Whatever a URL in a text may consist of. Brackets stay inside: they stand in addresses and
#: queries; the punctuation at its end is the sentence's.
_CHARACTERS: Final = r"[^\s<>\"`]"
_URL_IN_TEXT: Final = re.compile(
    rf"[A-Za-z][A-Za-z0-9+.-]?://{_CHARACTERS}+"  # any scheme: its last two characters will do
    rf"|(?<![^\s\"'`(\[{{<>=,;|])//?[^\s<>\"`/*]{_CHARACTERS}*"  # //host/path and /path
    rf"|(?<![\w@./:%-])(?:[\w-]{{1,63}}\.){{1,8}}[^\W\d_]{{2,24}}(?::\d{{1,5}})?"
    rf"(?:/|\?(?=[^\s=]{{1,64}}=)){_CHARACTERS}+"  # host.name/path, host.name?key=value
)
#: The same with its slashes escaped, as in JSON in a string, or percent-encoded.
_ENCODED_URL: Final = re.compile(
    rf"[A-Za-z]:(?:\\+/){{2}}{_CHARACTERS}+"
    rf"|[A-Za-z](?::|%(?:25)*3[Aa])(?:%(?:25)*2[Ff]){{2}}{_CHARACTERS}+"
)
_ENCODED_HINTS: Final = ("\\/", "%2")
#: A host without a dot or a scheme: localhost, one with its port, an address.
_BARE_HOST: Final = re.compile(
    rf"(?<![\w@./:%-])(?:localhost|\d{{1,3}}(?:\.\d{{1,3}}){{3}}|\[[0-9A-Fa-f:.]{{2,45}}\]"
    rf"|[A-Za-z][\w.-]{{0,63}}(?=:\d))(?::\d{{2,5}})?(?:/|\?(?=[^\s=]{{1,64}}=)){_CHARACTERS}+"
)
_BARE_HINT: Final = re.compile(r"[0-9\]][/?]")
#: A query, wherever it stands: behind what is no address in any spelling that is known above.
_QUERY: Final = re.compile(
    rf"(?<![\s<>\"`])[?#](?=([\w.%\[\]-]{{1,64}})(?:=|%3[Dd])){_CHARACTERS}*"
)
#: Keys of queries that hold a secret, whatever stands before them.
_TELLING: Final = re.compile(
    r"code|token|otp|jwt|ticket|sig(?:nature)?|(?:.*[_.-])?(?:key|pass(?:word|wd)?|pwd|secret"
    r"|session|sid|auth)|.*token|.*key"
)
#: What makes an address of the text before a query, and what none of it has.
_PLACE: Final = re.compile(r"[/\\]|%2[Ff]|:\d|[^\W\d_]:\w")
_CODE: Final = re.compile(r"[(){};,*]")
_LOOKED_BACK: Final = 256
_HINTS: Final = ("/", "?", "#", "%2")
_PUNCTUATION: Final = ".,;:!?'\")]}>*\\"
_ESCAPED_SLASH: Final = re.compile(r"\\+/")
_BEGINNING: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*:)?//([^/?#\\]*)")
_END_OF_HOST: Final = re.compile(r"[/?#\\]")
_PORT: Final = re.compile(r":\d*\Z")
_QUERY_KEY: Final = re.compile(r"utm_[a-z_]{1,32}")
_PARAMETERS: Final = re.compile(r";[\w.-]{1,64}=.*", re.DOTALL)
_PAIRS: Final = re.compile(r"[&;]")
#: How many of a query's pairs are looked at; the rest go.
_MOST_PAIRS: Final = 100
#: How deep a value may be percent-encoded and still be understood; deeper ones are dropped.
_LAYERS: Final = 3

#: Shapes that make a path's segment a token. UUIDs and ObjectIds are the product's own ids, which
#: identified events may carry; ULIDs and KSUIDs can't be told from tokens.
_TOKEN_SHAPES: Final[frozenset[Kind | None]] = frozenset(
    {"jwt", "secret", "ulid", "ksuid", "hex", "token", "card", "iban"}
)
#: After one of these words any id is a token, whatever its shape.
_ANNOUNCING: Final = frozenset(
    "accept activate activation auth callback confirm confirmation download invitation invitations"
    " invite invites join joinchat key login magic magiclink otp password recover recovery reset"
    " resets session sessions share shared signed sso token tokens unlock unsubscribe verification"
    " verify".split()
)
#: What may stand beside one of them: `accept_invite`, `verify-email`, `password-reset-link`.
_BESIDE_ANNOUNCING: Final = _ANNOUNCING | frozenset(
    "account accounts code codes email link links one pass time url user".split()
)
_COMPOUND: Final = re.compile(r"[-_]")
_SHORTEST_ID: Final = 8
#: A shorter one, such as is sent to a telephone: digits, or letters of both cases and digits.
_SHORT_CODE: Final = re.compile(r"\d{5,7}|(?=.*\d)(?=.*[a-z])(?=.*[A-Z])[A-Za-z\d]{6,7}", re.ASCII)
#: What a download is for: words, platforms and versions, as in `mac-arm64` or `app-1.2.3.tar.gz`.
#: A plain number is none: `brave-fox-42` may be a token that people can read.
_RELEASE_PART: Final = (
    r"(?:[A-Za-z][a-z]+|x86_64|x(?:64|86|32)|amd64|arm64|armv[678]l?|aarch64|i[36]86|win(?:32|64)"
    r"|v?\d{1,2}(?:\.\d{1,4}){1,3})"
)
_RELEASE: Final = re.compile(
    rf"{_RELEASE_PART}(?:[-_]{_RELEASE_PART}){{0,7}}(?:\.[a-z]{{2,8}}){{0,2}}", re.ASCII
)


def clean_urls(text: str) -> str:
    """Return the text with every URL and every path in it clean.

    >>> clean_urls("see https://ada:pw@x.org/reset/d41d8cd98f00b204e9800998ecf8427e?next=/a#b.")
    'see https://x.org/reset/:token.'
    """
    if not any(map(text.__contains__, _HINTS)):
        return text
    cleaned = text
    if any(map(text.__contains__, _ENCODED_HINTS)):
        cleaned = _ENCODED_URL.sub(_clean_encoded, cleaned)
    cleaned = _URL_IN_TEXT.sub(_clean_match, cleaned)
    if "localhost" in cleaned or _BARE_HINT.search(cleaned):
        cleaned = _BARE_HOST.sub(_clean_match, cleaned)
    if "=" in cleaned or "%3" in cleaned:
        cleaned = _QUERY.sub(_without_query, cleaned)
    return text if cleaned == text else cleaned


def _clean_match(found: re.Match[str]) -> str:
    whole = found[0]
    url = whole.rstrip(_PUNCTUATION)
    return clean_url(url) + whole[len(url) :]


def _clean_encoded(found: re.Match[str]) -> str:
    """Return a URL as it was written if it is clean, else clean with its slashes so written."""
    whole = found[0]
    url = whole.rstrip(_PUNCTUATION)
    is_escaped = "\\" in url
    plain = _ESCAPED_SLASH.sub("/", url) if is_escaped else _decoded(url)
    cleaned = _OPAQUE if plain is None else clean_url(plain)
    if cleaned == plain:
        return whole
    return (cleaned.replace("/", "\\/") if is_escaped else cleaned) + whole[len(url) :]


def _without_query(found: re.Match[str]) -> str:
    """Return a query as it may leave, if it is one and not a condition in a program."""
    whole = found[0]
    if not _TELLING.fullmatch(found[1].lower()):
        before = found.string[max(0, found.start() - _LOOKED_BACK) : found.start()].split()
        if not before or not _PLACE.search(before[-1]) or _CODE.search(before[-1]):
            return whole
    query = whole.rstrip(_PUNCTUATION)
    return clean_url(query) + whole[len(query) :]


def clean_url(text: str) -> str:
    """Return one URL, absolute or not, as it may leave.

    >>> clean_url("/reset/eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOjF9.c2ln?next=%2Fhome&utm_source=mail")
    '/reset/:token?utm_source=mail'
    """
    origin, rest = "", text
    if beginning := _BEGINNING.match(text):
        origin, rest = _without_userinfo(beginning, text)
    rest, _, _ = rest.partition("#")
    rest, _, query = rest.partition("?")
    path = _clean_path(rest)
    pairs = _PAIRS.split(query, _MOST_PAIRS)[:_MOST_PAIRS] if query else ()
    kept = "&".join([pair for pair in pairs if _may_stay(pair)])
    cleaned = origin + path + (f"?{kept}" if kept else "")
    return text if cleaned == text else cleaned


def _without_userinfo(beginning: re.Match[str], url: str) -> tuple[str, str]:
    """Return scheme and host, and what follows.

    A password may hold `/`, `?` or `#`, which end the host by the book: then what stands for a
    port is none, and the host comes after the last @.
    """
    host, rest = _host(beginning[2]), url[beginning.end() :]
    if ":" in host and "@" in rest and not _is_host_and_port(host):
        rest = rest.rpartition("@")[2]
        end = _END_OF_HOST.search(rest)
        place = end.start() if end else len(rest)
        host, rest = _host(rest[:place]), rest[place:]
    if ";" in host and _PARAMETERS.search(host):
        # jdbc:sqlserver://db:1433;user=sa;password=… has nothing else behind its host.
        host, rest = _PARAMETERS.sub("", host), ""
    return f"{beginning[1] or ''}//{host}", rest


def _host(authority: str) -> str:
    return authority.replace("%40", "@").rpartition("@")[2]


def _is_host_and_port(authority: str) -> bool:
    return authority.endswith("]") or bool(_PORT.search(authority))


def _clean_path(path: str) -> str:
    cleaned: list[str] = []
    before = "/"
    for segment in path.split("/"):
        kept = _clean_segment(before, segment)
        before = kept if cleaned else kept or "/"
        cleaned.append(kept)
    return "/".join(cleaned)


def _clean_segment(before: str, segment: str) -> str:
    """Return a path's segment without its parameters (`;jsessionid=…`).

    Behind an empty one, as in `/https://…`, userinfo goes too. `before` is the segment before it,
    `/` for the first.
    """
    if "=" in segment:
        segment = _PARAMETERS.sub("", segment)
    if not before and "@" in segment:
        segment = segment.rpartition("@")[2] or _OPAQUE
    if len(segment) < _SHORTEST_ID:
        return _OPAQUE if is_announced(before, segment) else segment
    decoded = _decoded(segment)
    if decoded is None or "://" in decoded or (decoded != segment and "?" in decoded):
        return _OPAQUE
    if is_announced(before, decoded):
        return _OPAQUE
    if "/" in decoded and _clean_path(decoded) != decoded:
        return _OPAQUE
    return _OPAQUE if shape_of(decoded, version=True) in _TOKEN_SHAPES else segment


def is_announced(before: str, segment: str) -> bool:
    """Whether a segment is a token by the word before it, whatever its shape.

    >>> [is_announced("download", part) for part in ("aBcdEfgh", "a1b2c3d4", "mac-arm64")]
    [True, True, False]
    >>> is_announced("auth", "callback")
    False
    """
    if not _announces(before.casefold()):
        return False
    if len(segment) < _SHORTEST_ID:
        return _SHORT_CODE.fullmatch(segment) is not None
    if any(map(str.isdecimal, segment)):
        return _RELEASE.fullmatch(segment) is None
    return not (segment.islower() or segment.istitle())


def _announces(word: str) -> bool:
    if word in _ANNOUNCING:
        return True
    parts = _COMPOUND.split(word)
    return (
        len(parts) > 1
        and _BESIDE_ANNOUNCING.issuperset(parts)
        and not _ANNOUNCING.isdisjoint(parts)
    )


def _may_stay(pair: str) -> bool:
    """Whether a query's `key=value` is a campaign's parameter that holds nothing else."""
    key, _, value = pair.partition("=")
    if not _QUERY_KEY.fullmatch(key):
        return False
    decoded = _decoded(value.replace("+", " "))
    return (
        decoded is not None
        and not any(sign in decoded for sign in ("//", "?", "=", "\\"))
        and shape_of(decoded) is None
    )


def _decoded(text: str) -> str | None:
    """Return the text without percent-encoding, None if it is encoded too often to tell."""
    for _ in range(_LAYERS):
        if "%" not in text:
            return text
        plain = unquote(text)
        if plain == text:
            return text
        text = plain
    return None if "%" in text and unquote(text) != text else text
