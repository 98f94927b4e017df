"""The gate: the last look at an anonymized payload, on the bytes that would leave (spec §8).

It looks for the same identity as `identity`, with code of its own, so that it does not share the
scan's mistakes: the scan cuts values into words and compares sets; the gate searches the encoded
bytes for each needle, and only where one occurs looks closer, with patterns. What it exempts is
what the scan exempts, from the one list (`exempt`, the catalogue's words and vocabularies).

It sees only what came from the request: the server's own properties are joined afterwards. A hit
means a bug in the rules before it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any, Final, Literal, NamedTuple

import msgspec

from second_mw.payload import Payload
from second_mw.privacy.catalogue import Catalogue, Event, Kind
from second_mw.privacy.exempt import IN_MODELS, PLACEHOLDERS, ROUTE_WORDS, is_public_mail
from second_mw.user import AnalyticsUser

_PLACEHOLDER = re.compile("|".join(map(re.escape, sorted(PLACEHOLDERS))))
_UPPER_AFTER_LOWER = re.compile(r"([a-z0-9])([A-Z])")
_PIECES = re.compile(r"[^\s'’`.,()\-]+")
_LETTERS = re.compile(r"[^\W\d_]+")
_CJK = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"
)
_encode = msgspec.json.Encoder().encode
#: From this many needles on, they are looked up by their first characters, so that an
#: administrator of thousands of workspaces costs little more than anybody else.
_MANY: Final = 48
_FEW: Final = 24
#: So much of a name is looked for before the whole of it.
_BEGINNING: Final = 4
#: What so many characters of a needle occur in is looked at closer.
_ENOUGH: Final = 12


#: `anywhere` any occurrence counts, `alone` no letter stands next to its letters and no digit next
#: to its digits, `whole` the value is nothing else.
Stands = Literal["anywhere", "alone", "whole"]


#: No shorter text is an id that leaves: those are UUIDs, the hyphens left out.
_UUID_LENGTH: Final = 32


class Needle(NamedTuple):
    """One text to search for.

    What more there is to know of it is asked when it occurs, which it hardly ever does.

    Args:
        text: folded.
        stands: where it has to stand to be a hit.
        spelled: as it stands in JSON, where a quotation mark has a backslash before it.
    """

    text: str
    stands: Stands
    spelled: str

    @property
    def in_models(self) -> bool:
        """Whether it is compared with models, too: not if it is nothing but family words."""
        bare, words = _bare(self.text), _LETTERS.findall(self.text)
        only_words = bool(words) and "".join(words) == bare and IN_MODELS.issuperset(words)
        return not only_words and bare not in IN_MODELS

    @property
    def in_routes(self) -> bool:
        """Whether it is compared with route shapes: not if it is one of their own words."""
        return _bare(self.text) not in ROUTE_WORDS

    @property
    def in_numbers(self) -> bool:
        """Whether it is an id of 5 digits or more, which numbers are compared with."""
        return len(self.text) >= 5 and self.text.isdecimal()


class Wanted:
    """One user's needles, prepared once.

    Args:
        needles: what is looked for.
    """

    def __init__(self, needles: Iterable[Needle]) -> None:
        self.needles: tuple[Needle, ...] = tuple(dict.fromkeys(needles))
        ids = {id for needle in self.needles for id in _as_ids(needle.text)}
        #: The needles that a uuid or a distinct_id may be.
        self.ids: frozenset[str] = frozenset((*ids, *(f"anon_{id}" for id in ids)))
        #: Those that are looked for one by one.
        self._few = self.needles
        #: Of many, the long ones without a quotation mark by their first characters.
        self._many: dict[str, dict[int, dict[str, list[Needle]]]] = {}
        self._beginning = 1
        if len(self.needles) >= _MANY:
            ordered = sorted(
                self.needles, key=lambda each: ('"' not in each.spelled, len(each.spelled))
            )
            few = max(_FEW, sum('"' in needle.spelled for needle in ordered))
            self._few = tuple(ordered[:few])
            many = ordered[few:]
            self._beginning = min((len(needle.spelled) for needle in many), default=1)
            for needle in many:
                spelled = needle.spelled
                same = self._many.setdefault(spelled[: self._beginning], {})
                same.setdefault(len(spelled), {}).setdefault(spelled, []).append(needle)
        self._signs = _signs([needle.spelled for needle in self._few])

    def occurring_in(self, text: str) -> list[Needle]:
        """Return the needles that occur in a folded text, wherever they stand."""
        found: list[Needle] = []
        for sign in self._signs:
            if sign in text:
                found = [needle for needle in self._few if needle.spelled in text]
                break
        known, size = self._many, self._beginning
        if known:
            for part in text.split('"'):
                for start in range(len(part) - size + 1):
                    same = known.get(part[start : start + size])
                    if same is not None:
                        for length, spelled in same.items():
                            found += spelled.get(part[start : start + length], ())
        return found


def _signs(texts: Iterable[str]) -> tuple[str, ...]:
    """Return a few texts of which one occurs wherever one of the texts does.

    A name's spellings have its parts in common, and ids that were made together their beginnings:
    one look for those spares many.
    """
    signs: list[str] = []
    for text in sorted({text[:_ENOUGH] for text in texts}, key=len):
        for sign in signs:
            if sign in text:
                break
        else:
            signs.append(text)
    return tuple(signs)


class Gate:
    """Looks for a user in what is about to leave.

    Args:
        catalogue: its words, vocabularies and declared keys are exempt.
        routes: the host's own route shapes, which are exempt as values of a vocabulary are.
    """

    def __init__(self, catalogue: Catalogue, routes: frozenset[str] = frozenset()) -> None:
        self._catalogue = catalogue
        self._routes = routes

    def wanted(self, user: AnalyticsUser) -> Wanted:
        """Return what is looked for of a user; to be kept, since it costs a hundred looks."""
        needles = [
            *_ids((user.id, *user.aliases, *(user.workspaces or ()))),
            *_of_email(user.email or ""),
            *_of_name(user.name or ""),
        ]
        return Wanted(needle for needle in needles if not self._is_exempt(needle.text))

    def holds(
        self, payload: Payload, user: AnalyticsUser | Wanted, named: Iterable[str] = ()
    ) -> bool:
        """Whether the payload carries this user, or what the event's Ident properties named.

        Args:
            payload: its properties are those that came from the request, without the server's.
            user: the user, or what `wanted` returned for the user.
            named: the values of the event's Ident properties, 4 characters or longer.
        """
        if isinstance(user, AnalyticsUser):
            user = self.wanted(user)
        return self.stops(
            payload.event, payload.properties, payload.uuid, payload.distinct_id, user, named
        )

    def stops(
        self,
        event: str,
        properties: bytes,
        uuid: str,
        distinct_id: str,
        wanted: Wanted,
        named: Iterable[str],
    ) -> bool:
        """Whether these may not leave: see `holds`."""
        if uuid in wanted.ids or distinct_id in wanted.ids:
            return True
        text = properties.decode()
        text = text.lower() if text.isascii() else _fold(text)
        suspects = wanted.occurring_in(text)
        of_event = [] if not named else self._of_event(named, text)
        if not suspects and not of_event:
            return False
        return self._look_closer(self._catalogue.events[event], properties, suspects, of_event)

    def _look_closer(
        self, event: Event, properties: bytes, suspects: list[Needle], of_event: list[Needle]
    ) -> bool:
        both = [*suspects, *of_event]
        for key, value in msgspec.json.decode(properties).items():
            kind = event.properties.get(key)
            if kind is None and _hits(both, key):
                return True
            if isinstance(value, str) and kind is not None and value in kind.vocabulary:
                continue
            # An event's own names are not compared with models (spec §8).
            needles = both
            if kind is not None and kind.name == "model":
                needles = [needle for needle in suspects if needle.in_models]
            elif kind is not None and kind.name == "route":
                if isinstance(value, str) and value in self._routes:
                    continue
                needles = [needle for needle in both if needle.in_routes]
            if any(_hits(needles, leaf) for leaf in _leaves(value, kind)):
                return True
        return False

    def _is_exempt(self, text: str) -> bool:
        words = self._catalogue.words
        return text in words or _bare(text) in words

    def _of_event(self, named: Iterable[str], text: str) -> list[Needle]:
        # Whole spellings only: what an event names is free text, and its single words are common.
        found: list[Needle] = []
        is_ascii = text.isascii()
        for raw in named:
            if raw.isascii():
                beginning = raw[:_BEGINNING].lower()
                if beginning not in text and beginning.isalnum():
                    # Nearly every name ends here.
                    continue
                name = raw.lower().strip()
            elif is_ascii and not _fold(raw.strip()[:1]).isascii():
                # Its first character alone is not there.
                continue
            else:
                name = _fold(raw).strip()
            # The first question is the one that nearly every name answers with no.
            if name not in text and '"' not in name and "\\" not in name:
                continue
            if len(name) >= 4 and _spelled(name) in text and not self._is_exempt(name):
                found.extend(_needle(name, "alone"))
        return found


def _fold(text: str) -> str:
    return text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()


def _bare(text: str) -> str:
    """Return the letters and digits alone: `page.` is the catalogue's `page`."""
    return text if text.isalnum() else "".join(filter(str.isalnum, text))


def _plain(text: str) -> str:
    """Return a folded text without its accents and with a dot on every i."""
    letters = unicodedata.normalize("NFKD", text.replace("ı", "i"))
    return "".join(letter for letter in letters if unicodedata.category(letter) != "Mn")


def _spelled(text: str) -> str:
    if '"' in text or "\\" in text:
        # An unpaired surrogate has no place in JSON, nor in what leaves.
        return _encode(text.encode("utf-8", "replace").decode()).decode()[1:-1]
    return text


def _as_ids(text: str) -> Iterator[str]:
    """Yield how a text can be all of an id that leaves: as it is, or with hyphens as a UUID has."""
    bare = text.replace("-", "")
    if len(bare) >= _UUID_LENGTH:
        head, id = bare[:-_UUID_LENGTH], bare[-_UUID_LENGTH:]
        yield text
        yield bare
        yield f"{head}{id[:8]}-{id[8:12]}-{id[12:16]}-{id[16:20]}-{id[20:]}"


def _needle(text: str, stands: Stands) -> Iterator[Needle]:
    """Yield the needle of a text, none of a text without a letter or a digit."""
    if _bare(text):
        yield Needle(text, stands, _spelled(text))


def _pattern(needle: Needle) -> re.Pattern[str]:
    """Return what finds a needle where it stands so; made only when its text has been found."""
    text = needle.text
    if needle.stands == "whole":
        return re.compile(r"\A\s*" + re.escape(text) + r"\s*\Z")
    before = r"(?<!\d)" if text[:1].isdigit() else r"(?<![^\W\d_])"
    after = r"(?!\d)" if text[-1:].isdigit() else r"(?![^\W\d_])"
    return re.compile(before + re.escape(text) + after)


def _ids(texts: Iterable[str]) -> Iterator[Needle]:
    for raw in texts:
        text = _fold(raw).strip()
        if len(text) < 4:
            yield from _needle(text, "whole")
        elif text.isdigit() or len(text) < 8 or text.isalpha():
            yield from _needle(text, "alone")
        else:
            yield from _needle(text, "anywhere")
            # An id of words is as common as words are, a number stands in longer ones by chance.
            bare = _bare(text)
            is_mixed = len(bare) >= 8 and not bare.isalpha() and not bare.isdecimal()
            if bare != text and len(bare) >= 4:
                yield from _needle(bare, "anywhere" if is_mixed else "alone")


def _of_email(email: str) -> Iterator[Needle]:
    address = _fold(email).strip()
    local, at, domain = address.rpartition("@")
    if not at:
        return
    yield from _needle(address, "anywhere")
    for part in {local, local.split("+")[0], _bare(local)}:
        if len(part) >= 4:
            yield from _needle(part, "alone")
    if len(domain) >= 4 and not is_public_mail(domain):
        yield from _needle(domain, "alone")


def _of_name(name: str) -> Iterator[Needle]:
    text = _fold(name).strip()
    if "@" in text:
        yield from _of_email(text)
        return
    parts = text.split()
    for spelling in {sep.join(parts) for sep in ("", " ", "-", "_", ".")}:
        if len(spelling) >= 2:
            yield from _needle(spelling, "anywhere" if _CJK.search(spelling) else "alone")
    # O'Brien is obrien and brien, José is jose.
    parts += [piece for part in parts for piece in (_bare(part), *_PIECES.findall(part))]
    parts += [_plain(part) for part in parts if not part.isascii()]
    for part in dict.fromkeys(parts):
        # Initials, as J.R., are no match.
        if len(_bare(part)) >= 3:
            yield from _needle(part, "alone")


def _leaves(value: Any, kind: Kind | None = None) -> Iterator[str]:
    """Yield every string and number of a value, and every key below it, as text."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, bool) or value is None:
        return
    elif isinstance(value, int | float):
        # Short ids stand in numbers by chance: only 5 digits and more are compared (spec §8).
        yield f"\x00{value!r}"
    elif isinstance(value, list):
        for item in value:
            item_kind = kind.item if kind is not None else None
            if not (isinstance(item, str) and item_kind and item in item_kind.vocabulary):
                yield from _leaves(item, item_kind)
    else:
        fields = dict(kind.fields) if kind is not None else {}
        for key, item in value.items():
            known = fields.get(key)
            if known is None:
                yield key
            if not (isinstance(item, str) and known and item in known.vocabulary):
                yield from _leaves(item, known)


def _hits(needles: Iterable[Needle], raw: str) -> bool:
    if raw.startswith("\x00"):
        number = raw[1:]
        return any(
            needle.in_numbers and needle.text in number and _pattern(needle).search(number)
            for needle in needles
        )
    bare = _PLACEHOLDER.sub(" ", raw)
    folded, split = _fold(bare), _fold(_UPPER_AFTER_LOWER.sub(r"\1 \2", bare))
    for needle in needles:
        if needle.stands == "anywhere":
            if needle.text in folded:
                return True
        elif needle.text in folded or needle.text in split:
            pattern = _pattern(needle)
            if pattern.search(folded) or pattern.search(split):
                return True
    return False
