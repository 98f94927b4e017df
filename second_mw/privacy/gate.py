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
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec

from second_mw.payload import Payload
from second_mw.privacy.catalogue import Catalogue, Kind
from second_mw.privacy.exempt import IN_MODELS, PUBLIC_MAIL
from second_mw.user import AnalyticsUser

_PREPARED: Final = 2048
_PLACEHOLDER = re.compile(r"\[redacted:[a-z]+\]")
_UPPER_AFTER_LOWER = re.compile(r"([a-z0-9])([A-Z])")
_CJK = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"
)


class Needle(NamedTuple):
    """One text to search for.

    Args:
        text: folded.
        pattern: decides, where the text occurs, whether it stands there as a whole; None if any
            occurrence counts.
        is_name: whether it is not compared with family words inside a Model.
    """

    text: str
    pattern: re.Pattern[str] | None
    is_name: bool


class Gate:
    """Looks for a user in what is about to leave.

    Args:
        catalogue: its words, vocabularies and declared keys are exempt.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._needles_of = lru_cache(_PREPARED)(self._prepared)

    def holds(self, payload: Payload, user: AnalyticsUser, named: Iterable[str] = ()) -> bool:
        """Whether the payload carries this user, or what the event's Ident properties named.

        Args:
            payload: its properties are those that came from the request, without the server's.
            named: the values of the event's Ident properties, 4 characters or longer.
        """
        needles = self._needles_of(user)
        if any(_is_whole(needle.text, payload) for needle in needles):
            return True
        text = _fold(payload.properties.decode())
        suspects = [needle for needle in needles if needle.text in text]
        of_event = [needle for needle in self._of_event(named) if needle.text in text]
        if not suspects and not of_event:
            return False
        return self._look_closer(payload, suspects, of_event)

    def _look_closer(
        self, payload: Payload, suspects: list[Needle], of_event: list[Needle]
    ) -> bool:
        declared = self._catalogue.events[payload.event].properties
        for key, value in msgspec.json.decode(payload.properties).items():
            kind = declared.get(key)
            if kind is None and _hits([*suspects, *of_event], key):
                return True
            if isinstance(value, str) and kind is not None and value in kind.vocabulary:
                continue
            if kind is not None and kind.name == "model":
                # An event's own names are not compared with models (spec §8).
                if any(_hits(suspects, leaf, in_model=True) for leaf in _leaves(value)):
                    return True
            elif any(_hits([*suspects, *of_event], leaf) for leaf in _leaves(value, kind)):
                return True
        return False

    def _prepared(self, user: AnalyticsUser) -> tuple[Needle, ...]:
        needles = dict.fromkeys(_ids((user.id, *user.aliases, *(user.workspaces or ()))))
        needles.update(dict.fromkeys(_of_email(user.email or "")))
        needles.update(dict.fromkeys(_of_name(user.name or "")))
        return tuple(n for n in needles if n.text and n.text not in self._catalogue.words)

    def _of_event(self, named: Iterable[str]) -> list[Needle]:
        # Whole spellings only: what an event names is free text, and its single words are common.
        texts = {_fold(text).strip() for text in named}
        return [
            Needle(text, _standing_alone(text), is_name=True)
            for text in texts
            if len(text) >= 4 and text not in self._catalogue.words
        ]


def _fold(text: str) -> str:
    return text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()


def _standing_alone(text: str) -> re.Pattern[str]:
    """Return a pattern for the text with no letter next to its letters, no digit to its digits."""
    before = r"(?<!\d)" if text[:1].isdigit() else r"(?<![^\W\d_])"
    after = r"(?!\d)" if text[-1:].isdigit() else r"(?![^\W\d_])"
    return re.compile(before + re.escape(text) + after)


def _ids(texts: Iterable[str]) -> Iterator[Needle]:
    for raw in texts:
        text = _fold(raw).strip()
        if len(text) < 4:
            yield Needle(text, re.compile(r"\A\s*" + re.escape(text) + r"\s*\Z"), is_name=False)
        elif text.isdigit() or len(text) < 8 or text.isalpha():
            yield Needle(text, _standing_alone(text), is_name=False)
        else:
            yield Needle(text, None, is_name=False)


def _of_email(email: str) -> Iterator[Needle]:
    address = _fold(email).strip()
    local, at, domain = address.rpartition("@")
    if not at:
        return
    yield Needle(address, None, is_name=False)
    for part in {local, local.split("+")[0]}:
        if len(part) >= 4:
            yield Needle(part, _standing_alone(part), is_name=True)
    if domain and domain not in PUBLIC_MAIL:
        yield Needle(domain, None, is_name=False)


def _of_name(name: str) -> Iterator[Needle]:
    text = _fold(name).strip()
    parts = text.split()
    for spelling in {sep.join(parts) for sep in ("", " ", "-", "_", ".")}:
        if len(spelling) >= 2:
            pattern = None if _CJK.search(spelling) else _standing_alone(spelling)
            yield Needle(spelling, pattern, is_name=True)
    for part in parts:
        if len(part) >= 3:
            yield Needle(part, _standing_alone(part), is_name=True)


def _is_whole(needle: str, payload: Payload) -> bool:
    """Whether the payload's uuid or distinct_id is this needle, hyphens left out."""
    bare = needle.replace("-", "")
    ids = (payload.uuid, payload.distinct_id, payload.distinct_id.removeprefix("anon_"))
    return bool(bare) and any(bare == one.replace("-", "") for one in ids)


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


def _hits(needles: Iterable[Needle], raw: str, *, in_model: bool = False) -> bool:
    if raw.startswith("\x00"):
        number = raw[1:]
        return any(
            n.text.isdigit() and len(n.text) >= 5 and n.pattern and n.pattern.search(number)
            for n in needles
        )
    bare = _PLACEHOLDER.sub(" ", raw)
    folded, split = _fold(bare), _fold(_UPPER_AFTER_LOWER.sub(r"\1 \2", bare))
    for needle in needles:
        if in_model and needle.is_name and needle.text in IN_MODELS:
            continue
        if needle.pattern is None:
            if needle.text in folded:
                return True
        elif needle.pattern.search(folded) or needle.pattern.search(split):
            return True
    return False
