"""Who the user is, prepared for comparison, and the scan of a value for it (spec §8, "Identity").

Prepared once per user. The gate looks for the same identity with code of its own and shares nothing
with this scan but the list of what is exempt.

Everything is compared in compact form: folded, and nothing but letters and digits. A value that
does not hold a needle's compact form can't hold the needle, which is one cheap question for most
values. Where one does, the closer look decides: names and short ids must begin and end where words
do, a word being a run of letters or of digits, split where lower case changes to upper case too;
long ids hit anywhere as they are spelled; ids of digits hit with no digit adjoining.
"""

from __future__ import annotations

import base64
import hashlib
import re
import string
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Final, Literal

import msgspec

from second_mw.privacy.exempt import IN_MODELS, ROUTE_WORDS, domains_of
from second_mw.privacy.views import normal
from second_mw.user import AnalyticsUser

_WORDS = re.compile(r"[^\W\d_]+|\d+")
_DIGITS = re.compile(r"\d+")
_CAMEL = re.compile(r"(?<=[^\W\d_A-Z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_LOCAL_PIECE = re.compile(r"[^._-]+")
_NAME_PART = re.compile(r"[^\s\-–—'’`.,;/()_]+")
#: One half of a double name that has an apostrophe.
_OF_DOUBLE_NAME = re.compile(r"(?<![^\s\-–—'’`.,;/()_])[^\s\-–—'’`.,;/()_]+['’`][^\s\-–—.,;/()_]+")

# Scripts written without spaces, where a name has no word boundaries.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
    "\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]"
)
_NOT_ALNUM: Final = dict.fromkeys(
    (code for code in range(128) if chr(code) not in string.ascii_letters + string.digits), None
)

#: Letters that don't decompose, as they are spelled where a keyboard has none of them; a dotless i
#: is I in capitals, as i is.
_SPELLED: Final = {
    "ı": "i",
    "ł": "l",
    "ø": "o",
    "đ": "d",
    "ð": "d",
    "þ": "th",
    "æ": "ae",
    "œ": "oe",
    "ħ": "h",
    "ə": "e",
    "ɛ": "e",
    "ɔ": "o",
    "ŋ": "n",
    "ŧ": "t",
    "ɓ": "b",
    "ɗ": "d",
    "ƙ": "k",
    # Apostrophes that are letters: Oʼbrien, Kaʻahumanu.
    **dict.fromkeys("ʹʻʼʽʾʿˈꞌ", "'"),
}
_SPELLED_SO: Final = re.compile(f"[{''.join(_SPELLED)}]")
#: An acute accent of its own, which is no letter and which NFKC makes white space of.
_ACUTE: Final = "´"
#: Letters that two stand for: Müller is Mueller, and Muller.
_UMLAUTS: Final = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa", "ø": "oe"})
#: `s-ren-m-ller` is a slug of Søren Müller.
_BEYOND_SLUGS: Final = re.compile(r"[^a-z0-9]+")
#: A shorter id is compared as words where its own separators are left out.
_LONG_ID: Final = 8
#: A hexadecimal id of this many digits or more may be written as its bytes.
_LONG_HEX: Final = 16
#: Numbers are compared with ids of this many digits or more.
_LONG_NUMBER: Final = 5
#: From here on Python writes a whole number that is a float with an exponent: 1e+16.
_EXPONENTS: Final = 1e16
#: What stands before an account's own id: `auth0|…`, `did:plc:…`, `usr_…`.
#: Behind a hyphen only a number is one: `user-4815162342`.
_ISSUED_BY: Final = re.compile(r".*[|/:]|[a-z]{2,12}(?:_|-(?=\d+\Z))")
#: A name of more parts than this is a sentence.
_MOST_PARTS: Final = 8

#: An event that names more things than this is nobody's product: it is compared with so many
#: needles that all its words count as named.
MOST_NAMED: Final = 512
#: From this many texts on, they are looked up by their first characters instead of being searched
#: for one by one: an administrator may have thousands of workspaces.
_MANY: Final = 48
_FEW: Final = 24

#: Where a value stands, as far as it makes a difference.
Place = Literal["anywhere", "model", "route"]


#: An empty frozenset of one's own takes 216 bytes.
_NOTHING: Final[frozenset[str]] = frozenset()


class Identity(msgspec.Struct, frozen=True):
    """What identifies one user, in the forms in which it is looked for.

    Args:
        anywhere: folded texts that hit as a part of any value: ids of 8 or more characters, the
            e-mail address, names in scripts without spaces.
        digits: ids of digits only, which hit with no digit adjoining.
        names: compact texts that hit from the beginning of a word to the end of one.
        names_in_models: those of them that are not all family words of models.
        names_in_routes: those of them that are no word of route shapes.
        compactly: compact texts that hit anywhere, whatever separates their parts: ids of 8 or more
            letters and digits, base64 of the bytes of hexadecimal ids, and of hashes of the id and
            the address. (Hexadecimal ones have a shape, as most of these have.)
        whole: ids of fewer than 4 characters, which hit as the whole value only.
        compacts: the compact forms of all these but `whole`: the cheap question.
        everything: whether any value at all is taken for identity.
    """

    anywhere: tuple[str, ...] = ()
    digits: frozenset[str] = frozenset()
    names: tuple[str, ...] = ()
    names_in_models: tuple[str, ...] = ()
    names_in_routes: tuple[str, ...] = ()
    compactly: tuple[str, ...] = ()
    whole: frozenset[str] = frozenset()
    compacts: Pieces | tuple[str, ...] = ()
    everything: bool = False


class Pieces:
    """Many texts to search for: a search costs about the same however many they are.

    Args:
        texts: compact ones, so that none goes over the end of a line.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        by_length = sorted(frozenset(texts), key=len)
        #: The shortest are searched for one by one: the others' beginnings can be the longer.
        self._few = by_length[:_FEW]
        many = by_length[_FEW:]
        self._beginning = len(many[0]) if many else 1
        #: First characters → length → texts.
        self._many: dict[str, dict[int, set[str]]] = {}
        for text in many:
            same = self._many.setdefault(text[: self._beginning], {})
            same.setdefault(len(text), set()).add(text)

    def stand_in(self, text: str) -> bool:
        """Whether any of them is a part of the text."""
        for few in self._few:
            if few in text:
                return True
        known, size = self._many, self._beginning
        for line in text.split("\n"):
            for start in range(len(line) - size + 1):
                same = known.get(line[start : start + size])
                if same is not None and any(
                    line[start : start + length] in texts for length, texts in same.items()
                ):
                    return True
        return False


def searched(texts: Iterable[str]) -> Pieces | tuple[str, ...]:
    """Return texts in the form in which so many are found fastest."""
    unique = frozenset(texts)
    return _shortest(unique) if len(unique) < _MANY else Pieces(unique)


def _shortest(texts: Iterable[str]) -> tuple[str, ...]:
    """Return those that hold none of the others: wherever a text stands, one of these does."""
    found: list[str] = []
    for text in sorted(sorted(texts), key=len):
        for shorter in found:
            if shorter in text:
                break
        else:
            found.append(text)
    return tuple(found)


NOBODY: Final = Identity()


def folded(text: str) -> str:
    """Return the text as identities are compared: NFKC, visible, case-folded, accents left out.

    >>> folded("Ａda"), folded("José"), folded("J\u200bosé")
    ('ada', 'jose', 'jose')
    """
    if text.isascii():
        return text.lower()
    return _SPELLED_SO.sub(_spelled, normal(normal(text).casefold()))


def _spelled(found: re.Match[str]) -> str:
    return _SPELLED[found[0]]


def compact(text: str) -> str:
    """Return nothing but the letters and digits of a folded text.

    >>> compact("payroll-helper_2")
    'payrollhelper2'
    """
    if not text.isascii():
        return "".join(_WORDS.findall(text))
    if text.isalnum():
        return text
    # Three replacements cost less than a translation, and most labels need no more.
    text = text.replace("-", "").replace("_", "").replace(".", "")
    return text if text.isalnum() else text.translate(_NOT_ALNUM)


class Needles:
    """Collects what identifies, and sorts it by how it is looked for.

    Args:
        exempt: words that are no identity.
    """

    def __init__(self, exempt: frozenset[str]) -> None:
        self._exempt = exempt
        self._anywhere: dict[str, None] = {}
        self._digits: set[str] = set()
        #: Compact form → the words that it consists of.
        self._names: dict[str, list[str]] = {}
        self._whole: set[str] = set()
        self._compactly: dict[str, None] = {}

    def identity(self) -> Identity:
        """Return what was collected."""
        names = tuple(name for name in self._names if name not in self._exempt)
        compacts = dict.fromkeys(
            (*map(compact, self._anywhere), *self._digits, *names, *self._compactly)
        )
        return Identity(
            tuple(self._anywhere),
            frozenset(self._digits) if self._digits else _NOTHING,
            names,
            tuple(name for name in names if not IN_MODELS.issuperset(self._names[name])),
            tuple(name for name in names if name not in ROUTE_WORDS),
            tuple(self._compactly),
            frozenset(self._whole - self._exempt) if self._whole else _NOTHING,
            searched(compacts),
        )

    def add_id(self, text: str) -> None:
        """Take an id, an alias or a workspace id."""
        word = folded(text).strip()
        if len(word) < 4:
            if word:
                self._whole.add(word)
        elif len(word) < 8 or word.isalpha() or word.isdecimal():
            self._add_words(word)
        else:
            self._anywhere[word] = None
            bare = compact(word)
            self._add_compactly(bare)
            if len(bare) >= _LONG_HEX and len(bare) % 2 == 0 and not bare.strip(string.hexdigits):
                # A UUID's or an ObjectId's bytes are as good as its digits.
                self._add_base64(bytes.fromhex(bare))
            issuer = _ISSUED_BY.match(word)
            issued = word[issuer.end() :] if issuer else ""
            if len(issued) >= _LONG_ID and any(map(str.isdecimal, issued)):
                self.add_id(issued)

    def _add_compactly(self, bare: str) -> None:
        """Take an id whose parts may be separated otherwise, or not at all."""
        if len(bare) >= _LONG_ID and not bare.isalpha() and not bare.isdecimal():
            self._compactly[bare] = None
        else:
            self._add_words(bare)

    def add_digests_of(self, text: str) -> None:
        """Take what usual hashes make of an address or an id: it says as much as the text."""
        raw = text.encode(errors="replace")
        for new in (hashlib.md5, hashlib.sha1, hashlib.sha256):
            self._add_base64(new(raw, usedforsecurity=False).digest())

    def _add_base64(self, raw: bytes) -> None:
        encoded = base64.b64encode(raw).decode().lower()
        self._compactly[encoded.replace("+", "").replace("/", "").rstrip("=")] = None

    def add_email(self, text: str) -> None:
        """Take an e-mail address, its local part and, unless many share it, its domain."""
        address = folded(text).strip()
        local, at, domain = address.rpartition("@")
        if not at:
            self.add_name(text)
            return
        for part in {local, local.partition("+")[0]}:
            if part:
                self._anywhere[f"{part}@{domain}"] = None
                # What makes a slug of it leaves the signs out.
                self._add_words(f"{part}{domain}")
            if len(part) >= 4:
                self._add_words(part)
        for own in domains_of(text.rpartition("@")[2].strip().lower()):
            if len(own) >= 4:
                self._add_words(folded(own))

    def add_name_in(self, email: str) -> None:
        """Take the names in an e-mail address: ada.lovelace@ says one that the host doesn't."""
        pieces = _LOCAL_PIECE.findall(folded(email).rpartition("@")[0].partition("+")[0])
        if len(pieces) > 1:
            for piece in pieces:
                if len(piece) >= 4 and piece.isalpha():
                    self._add_words(piece)

    def add_name(self, text: str) -> None:
        """Take a full name and its parts, in each of its spellings."""
        for name in _spellings(text):
            self._add_name(name)
        for slug in _slugs_of(text):
            self._add_words(slug)

    def _add_name(self, name: str) -> None:
        if _UNSPACED.search(name):
            joined = "".join(_NAME_PART.findall(name))
            if len(joined) >= 2:
                self._anywhere[joined] = None
        if len(name) >= 2:
            self._add_words(name)
        # O'Brien is also obrien, Jean-Luc also jeanluc, O'Neil-Smith oneil; J.R. is two initials.
        for part in (*_NAME_PART.findall(name), *_OF_DOUBLE_NAME.findall(name), *name.split()):
            if len("".join(_NAME_PART.findall(part))) >= 3:
                self._add_words(part)
                # Ada77 is Ada.
                for word in _WORDS.findall(part):
                    if len(word) >= 3 and not word.isdecimal():
                        self._add_words(word)
        parts = [part for part in _NAME_PART.findall(name) if len(part) >= 2]
        self._add_joined(parts)
        if "," in name and parts:
            self._add_joined([parts[-1], parts[0]])  # Lovelace, Ada

    def _add_joined(self, parts: list[str]) -> None:
        """Take neighbouring parts of a name as one, and first and last: titles may be left out."""
        parts = parts[:_MOST_PARTS]
        for first in range(len(parts) - 1):
            for last in range(first + 1, len(parts)):
                self._add_words("".join(parts[first : last + 1]))
        if len(parts) > 2:
            self._add_words(parts[0] + parts[-1])

    def add_value(self, text: str) -> None:
        """Take the value of an Ident property of this event, at least 4 characters long."""
        value = folded(text).strip()
        if _UNSPACED.search(value) or (
            len(value) >= 8 and " " not in value and any(ch.isdigit() for ch in value)
        ):
            self._anywhere[value] = None
        self._add_words(value)

    def _add_words(self, text: str) -> None:
        words = _WORDS.findall(text)
        is_number = len(words) == 1 and words[0].isdecimal()
        if is_number:
            self._digits.add(words[0])
            # As a number it has no zeros before it.
            bare = words[0].lstrip("0")
            if len(bare) >= _LONG_NUMBER:
                self._digits.add(bare)
        # A long number is the same in groups: 4815-162-342.
        if words and (not is_number or len(words[0]) >= _LONG_ID):
            self._names["".join(words)] = words


def _spellings(text: str) -> Iterator[str]:
    """Yield the folded spellings of a name: as it is, with two letters for one, without camel case.

    >>> list(_spellings("Jörg Weiß")), list(_spellings("AdaLovelace"))
    (['jorg weiss', 'joerg weiss'], ['adalovelace', 'ada lovelace'])
    """
    # D´Angelo is D'Angelo.
    text = text.replace(_ACUTE, "'")
    name = folded(text).strip()
    yield name
    if not text.isascii():
        other = folded(unicodedata.normalize("NFKC", text).casefold().translate(_UMLAUTS)).strip()
        if other != name:
            yield other
    if len(text.split()) == 1 and min(map(len, words := words_of(text)), default=0) >= 3:
        split = " ".join(words)
        if split != name:
            yield split


def _slugs_of(text: str) -> Iterator[str]:
    """Yield what is left of a full name where slugs keep nothing but ASCII.

    >>> list(_slugs_of("Søren Müller"))
    ['srenmller', 'srenmuller']
    """
    if text.isascii():
        return
    slugs = [
        _BEYOND_SLUGS.sub("", unicodedata.normalize(form, text).casefold())
        for form in ("NFC", "NFKD")
    ]
    for slug in dict.fromkeys(slugs):
        if len(slug) >= _LONG_ID:
            yield slug


def identity_of(user: AnalyticsUser, exempt: frozenset[str]) -> Identity:
    """Return what identifies this user; the catalogue's own words (`exempt`) are no identity."""
    needles = Needles(exempt)
    for text in (user.id, *user.aliases, *(user.workspaces or ())):
        needles.add_id(text)
    for text in (user.id, *user.aliases):
        if "@" in text:
            needles.add_email(text)
            if not user.name:
                needles.add_name_in(text)
    for text in {user.id, user.email or user.id, (user.email or user.id).strip().lower()}:
        needles.add_digests_of(text)
    for alias in user.aliases:
        if "@" not in alias and len(alias) >= 4:
            needles.add_value(alias)
    if user.email:
        needles.add_email(user.email)
        if not user.name:
            needles.add_name_in(user.email)
    if user.name:
        (needles.add_email if "@" in user.name else needles.add_name)(user.name)
    return needles.identity()


def identity_of_named(texts: list[str], exempt: frozenset[str]) -> Identity:
    """Return what an event's own Ident values identify (spec §8)."""
    if len(texts) > MOST_NAMED:
        return Identity(everything=True)
    needles = Needles(exempt)
    for text in texts:
        needles.add_value(text)
    return needles.identity()


def holds(identity: Identity, text: str, place: Place = "anywhere") -> bool:
    """Whether a value holds this identity.

    Args:
        place: in a model's name its family words are no identity, in a route shape its own words.

    >>> ada = identity_of(AnalyticsUser("42", name="Ada Lovelace"), frozenset())
    >>> [holds(ada, t) for t in ("by-adaLovelace", "ada_1", "Canada", "lovelaceada")]
    [True, True, False, False]
    """
    if identity.everything:
        return True
    plain = folded(text)
    if identity.whole and plain.strip() in identity.whole:
        return True
    if not stands_in(identity.compacts, compact(plain)):
        return False
    return _holds_closely(identity, text, plain, place)


def may_hold(identity: Identity, texts: list[str]) -> bool:
    """Whether one of several texts could hold this identity; False is certain."""
    if identity.everything or identity.whole:
        return True
    return stands_in(identity.compacts, compact(folded("\n".join(texts))))


def stands_in(compacts: Pieces | tuple[str, ...], text: str) -> bool:
    """Whether any needle's compact form is a part of a compact text."""
    if isinstance(compacts, Pieces):
        return compacts.stand_in(text)
    for needle in compacts:  # noqa: SIM110 - any() with a generator costs twice as much
        if needle in text:
            return True
    return False


def _holds_closely(identity: Identity, text: str, plain: str, place: Place) -> bool:
    if any(needle in plain for needle in identity.anywhere):
        return True
    if identity.compactly:
        bare = compact(plain)
        if any(needle in bare for needle in identity.compactly):
            return True
    if identity.digits and not identity.digits.isdisjoint(_DIGITS.findall(plain)):
        return True
    names = identity.names
    if place != "anywhere":
        names = identity.names_in_models if place == "model" else identity.names_in_routes
    if not names:
        return False
    words = words_of(text)
    joined = "".join(words)
    ends = set(accumulate(map(len, words), initial=0))
    return any(_from_word_to_word(name, joined, ends) for name in names)


def _from_word_to_word(name: str, joined: str, ends: set[int]) -> bool:
    start = joined.find(name)
    while start >= 0:
        if start in ends and start + len(name) in ends:
            return True
        start = joined.find(name, start + 1)
    return False


def words_of(text: str) -> list[str]:
    """Return the folded words of a value, each change to upper case beginning a new one."""
    return _WORDS.findall(folded(_CAMEL.sub(" ", text)))


def holds_number(identity: Identity, value: float) -> bool:
    """Whether a number's decimal text holds an id of 5 or more digits (spec §8)."""
    if not identity.digits:
        return False
    if any(
        len(digits) >= _LONG_NUMBER and digits in identity.digits
        for digits in _DIGITS.findall(repr(value))
    ):
        return True
    # A long id may have lost its last digits on the way: 175928847299117057 is that of a float.
    size = abs(value)
    return size >= _EXPONENTS and any(
        len(digits) >= _LONG_NUMBER and float(digits) == size for digits in identity.digits
    )
