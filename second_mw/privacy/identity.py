"""Who the user is, prepared for comparison, and the scan of a value for it (spec §8, "Identity").

Prepared once per user; a scan costs one pass over the value's words, whatever the number of names.
The gate looks for the same identity with code of its own and shares nothing with this scan but the
list of what is exempt.

A value is compared as words: runs of letters and runs of digits, split where lower case changes to
upper case too. A name hits as a whole word; a name of several words hits when its words follow one
another, whatever stands between them, or nothing. Ids hit anywhere.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

import msgspec

from second_mw.privacy.exempt import PUBLIC_MAIL
from second_mw.privacy.names import visible
from second_mw.user import AnalyticsUser

_WORDS = re.compile(r"[^\W\d_]+|\d+")
_CAMEL = re.compile(r"(?<=[^\W\d_A-Z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_LETTERS = re.compile(r"[^\W\d_]+")
_NAME_PART = re.compile(r"[^\s\-–—'’`.,;/()_]+")

# Scripts written without spaces, where a name has no word boundaries.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
    "\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]"
)

#: The longest run of words that is compared with names of several words.
_LONGEST_NAME: Final = 8


class Identity(msgspec.Struct, frozen=True):
    """What identifies one user, in the forms in which it is looked for.

    Args:
        anywhere: folded texts that hit as a part of any value: ids of 8 or more characters, the
            e-mail address, its domain, names in scripts without spaces.
        digits: ids of digits only, which hit with no digit adjoining.
        words: folded words that hit as whole words.
        phrases: folded words joined by nothing, which hit as a run of words.
        whole: ids of fewer than 4 characters, which hit as the whole value only.
    """

    anywhere: tuple[str, ...] = ()
    digits: tuple[str, ...] = ()
    words: frozenset[str] = frozenset()
    phrases: frozenset[str] = frozenset()
    whole: frozenset[str] = frozenset()


NOBODY: Final = Identity()


def folded(text: str) -> str:
    """Return the text as identities are compared: NFKC, visible, case-folded, accents left out.

    >>> folded("Ａda"), folded("José"), folded("J\u200bosé")
    ('ada', 'jose', 'jose')
    """
    if text.isascii():
        return text.lower()
    bare = unicodedata.normalize("NFKD", visible(text).casefold())
    return "".join(ch for ch in bare if not unicodedata.combining(ch))


class Needles:
    """Collects what identifies, and sorts it by how it is looked for."""

    def __init__(self, exempt: frozenset[str]) -> None:
        self._exempt = exempt
        self._anywhere: dict[str, None] = {}
        self._digits: dict[str, None] = {}
        self._words: set[str] = set()
        self._phrases: set[str] = set()
        self._whole: set[str] = set()

    def identity(self) -> Identity:
        """Return what was collected."""
        return Identity(
            tuple(self._anywhere),
            tuple(self._digits),
            frozenset(self._words - self._exempt),
            frozenset(self._phrases),
            frozenset(self._whole - self._exempt),
        )

    def add_id(self, text: str) -> None:
        """Take an id, an alias or a workspace id."""
        word = folded(text).strip()
        if word.isdigit():
            if len(word) >= 4:
                self._digits[word] = None
            elif word:
                self._whole.add(word)
        elif len(word) < 4:
            if word:
                self._whole.add(word)
        elif len(word) < 8 or _LETTERS.fullmatch(word):
            self._add_words(word)
        else:
            self._anywhere[word] = None

    def add_email(self, text: str) -> None:
        """Take an e-mail address, its local part and, unless many share it, its domain."""
        address = folded(text).strip()
        local, at, domain = address.rpartition("@")
        if not at:
            self.add_name(text)
            return
        bare = local.partition("+")[0]
        for part in {local, bare}:
            if part:
                self._anywhere[f"{part}@{domain}"] = None
            if len(part) >= 4:
                self._add_words(part)
        if domain and domain not in PUBLIC_MAIL:
            self._anywhere[domain] = None

    def add_name(self, text: str) -> None:
        """Take a full name and its parts."""
        name = folded(text).strip()
        if _UNSPACED.search(name):
            compact = "".join(_NAME_PART.findall(name))
            if len(compact) >= 2:
                self._anywhere[compact] = None
        if len(name) >= 2:
            self._add_words(name)
        for part in _NAME_PART.findall(name):
            if len(part) >= 3:
                self._add_words(part)
        for part in name.split():
            # O'Brien is also obrien, Jean-Luc also jeanluc.
            if len(part) >= 3:
                self._add_words(part)

    def add_value(self, text: str) -> None:
        """Take the value of an Ident property of this event, at least 4 characters long."""
        value = folded(text).strip()
        if value.isdigit():
            self._digits[value] = None
        elif _UNSPACED.search(value) or (
            len(value) >= 8 and " " not in value and any(ch.isdigit() for ch in value)
        ):
            self._anywhere[value] = None
        self._add_words(value)

    def _add_words(self, text: str) -> None:
        words = _WORDS.findall(text)
        if len(words) == 1:
            self._words.add(words[0])
        elif words:
            self._phrases.add("".join(words))


def identity_of(user: AnalyticsUser, exempt: frozenset[str]) -> Identity:
    """Return what identifies this user; the catalogue's own words (`exempt`) are no identity."""
    needles = Needles(exempt)
    needles.add_id(user.id)
    for text in (*user.aliases, *(user.workspaces or ())):
        needles.add_id(text)
    for alias in user.aliases:
        if "@" in alias:
            needles.add_email(alias)
        elif len(alias) >= 4:
            needles.add_value(alias)
    if user.email:
        needles.add_email(user.email)
    if user.name:
        needles.add_name(user.name)
    return needles.identity()


def words_of(text: str) -> list[str]:
    """Return the folded words of a value, each change to upper case beginning a new one."""
    return _WORDS.findall(folded(_CAMEL.sub(" ", text)))


def holds(identity: Identity, text: str, *, exempt: frozenset[str] = frozenset()) -> bool:
    """Whether a value holds this identity.

    Args:
        exempt: words that are not compared in this value (the family words of a Model).

    >>> ada = identity_of(AnalyticsUser("42", name="Ada Lovelace"), frozenset())
    >>> [holds(ada, t) for t in ("by-adaLovelace", "ada_1", "Canada", "lovelaceada")]
    [True, True, False, False]
    """
    plain = folded(text)
    for needle in identity.anywhere:
        if needle in plain:
            return True
    for needle in identity.digits:
        if _stands_alone(needle, plain):
            return True
    if identity.whole and plain.strip() in identity.whole:
        return True
    if not (identity.words or identity.phrases):
        return False
    words = _WORDS.findall(plain)
    if _any_of(identity, words, exempt):
        return True
    if plain == text:
        return False
    split = words_of(text)
    return split != words and _any_of(identity, split, exempt)


def holds_number(identity: Identity, value: float) -> bool:
    """Whether a number's decimal text holds an id of 5 or more digits (spec §8)."""
    text = repr(value)
    return any(len(needle) >= 5 and _stands_alone(needle, text) for needle in identity.digits)


def _any_of(identity: Identity, words: list[str], exempt: frozenset[str]) -> bool:
    if exempt:
        words = [word for word in words if word not in exempt]
    if not identity.words.isdisjoint(words):
        return True
    return bool(identity.phrases) and not identity.phrases.isdisjoint(_runs(words))


def _runs(words: list[str]) -> Iterator[str]:
    """Yield every run of up to `_LONGEST_NAME` words, joined by nothing."""
    count = len(words)
    for start in range(count):
        run = ""
        for word in words[start : start + _LONGEST_NAME]:
            run += word
            yield run


def _stands_alone(needle: str, text: str) -> bool:
    """Whether the digits of `needle` stand in the text with no digit before or after them."""
    start = text.find(needle)
    while start >= 0:
        end = start + len(needle)
        if not text[start - 1 : start].isdigit() and not text[end : end + 1].isdigit():
            return True
        start = text.find(needle, start + 1)
    return False
