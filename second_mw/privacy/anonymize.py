"""Anonymized mode: the walk of `sanitize` with every step made stricter (spec §8).

A rule says what may leave, never what may not: a string that no rule knows is redacted, a key that
no rule knows is judged like a value. What a key means is decided once per event and key
(`Rulebook`); only values are looked at every time.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from second_mw.privacy import identity as identities
from second_mw.privacy import names, routes, shapes, views
from second_mw.privacy.catalogue import Catalogue, Event, Kind
from second_mw.privacy.exempt import FAMILIES, IN_MODELS
from second_mw.privacy.identity import Identity
from second_mw.privacy.receipt import Line
from second_mw.privacy.sanitize import (
    Dropped,
    Kept,
    Key,
    Walk,
    clean_key,
    clean_text,
    is_number_kind,
)

logger = logging.getLogger("second_mw")

#: One short machine word (spec §8); nothing with white space, nothing with an `@`.
_MACHINE_LABEL = re.compile(r"[A-Za-z0-9][\w.:/+-]{0,63}", re.ASCII)
#: The same for a key, which may be longer (it is cut later) and begin with a `_`.
_MACHINE_KEY = re.compile(r"[A-Za-z0-9_][\w.:/+-]*", re.ASCII)
_PLACEHOLDER = re.compile(r"\[redacted:[a-z]{2,12}\]")
_FINE_TUNE = re.compile(r"(ft:[^:\s]+):.*", re.IGNORECASE | re.DOTALL)
_BRACKETED = re.compile(r"[\[(]([A-Za-z0-9.+-]{1,24})[\])]")
_LEADING_FAMILY = re.compile(r"o\d(?![^\W_])|[a-z]+")
_SPACED_SHAPES: Final = frozenset({"phone", "card", "iban"})

#: Keys whose value may look like an address of the network and is a version.
_VERSION_ENDING: Final = "_version"
#: What `precision="coarse"` rounds to two significant digits, and to 20 px (spec §8, Policies).
_COARSE_ENDINGS: Final = ("_bytes", "_length", "_ms", "_duration")
_COARSE_PIXELS: Final = frozenset({"viewport_width", "viewport_height"})

#: How many (event, key) decisions are remembered, and how many warnings.
_REMEMBERED: Final = 4096

#: How deep Ident values are looked for; the endpoint refuses bodies that are nested deeper.
_DEEPEST: Final = 64


class Rulebook:
    """What every key of the catalogue means, decided before the first event.

    Args:
        catalogue: the events that are taken.
        undeclared: `label` judges what is not declared like a machine label, `drop` drops it.
        precision: `exact`, or `coarse` to round sizes and durations.
        templates: the host's own routes, None for the product's and the heuristics.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        *,
        undeclared: Literal["label", "drop"] = "label",
        precision: Literal["exact", "coarse"] = "exact",
        templates: routes.Templates | None = None,
    ) -> None:
        self.catalogue = catalogue
        self.drops_undeclared = undeclared == "drop"
        self.coarse = precision == "coarse"
        self.templates = templates
        self.words = catalogue.words
        self._declared = {
            event.name: {key: _declared_key(key, kind) for key, kind in event.properties.items()}
            for event in catalogue
        }
        # Only keys that passed are remembered: no cache holds what was redacted (spec §17).
        self._passed: dict[tuple[str, bool], Key] = {}
        self._warned: set[tuple[str, str]] = set()

    def key(self, event: str, key: str, *, top: bool) -> Key:
        """Return what a key means, before its own text is judged."""
        if top and (declared := self._declared[event].get(key)) is not None:
            return declared
        if (passed := self._passed.get((key, top))) is not None:
            return passed
        judged = self.undeclared_key(key, top=top)
        if judged.rule is None and len(self._passed) < _REMEMBERED:
            self._passed[key, top] = judged
        return judged

    def undeclared_key(self, key: str, *, top: bool) -> Key:
        """Return what a key means that no event declares."""
        judged = clean_key(key, top=top)
        if judged.rule is not None and not judged.secret:
            return judged
        normal = judged.normal
        bare = normal.replace("_", "")
        if not {normal, bare}.isdisjoint(self.catalogue.text_keys):
            return judged._replace(rule="free_text", shown=normal, secret=False)
        is_ident = not {normal, bare}.isdisjoint(self.catalogue.ident_keys)
        if is_ident or names.identifies(normal):
            # A receipt may say the rules' own words; any other spelling is data of the browser's.
            shown = normal if is_ident or normal in names.EXACT else ":key"
            return judged._replace(rule="identifying_key", shown=shown, secret=False)
        if top and self.drops_undeclared:
            return judged._replace(rule="undeclared", secret=False)
        whole = clean_text(key).strip()
        if not _MACHINE_KEY.fullmatch(whole) or shapes.shape_of(whole):
            return judged._replace(rule="identifying_value_in_key", secret=False)
        return judged._replace(shown=judged.name)

    def is_ident(self, event: str, key: str, *, top: bool) -> bool:
        """Whether a key is of kind Ident, in any spelling."""
        if top and (declared := self._declared[event].get(key)) is not None:
            return declared.kind is not None and declared.kind.name == "ident"
        if (key, top) in self._passed:
            return False
        normal = names.normal_form(key)
        return not {normal, normal.replace("_", "")}.isdisjoint(self.catalogue.ident_keys)

    def warn_once(self, event: str, key: Key) -> None:
        """Say, once for an event and key, that an undeclared string was redacted."""
        if key.shown == ":key" or (event, key.shown) in self._warned:
            return
        if len(self._warned) < _REMEMBERED:
            self._warned.add((event, key.shown))
            logger.warning(
                "second_mw redacted a value of the undeclared property %r of %r in an anonymized "
                'event. Say in the catalogue what it is: Event(%r, {%r: Label("known", "values")}), '
                "or Model, Text or Ident",
                key.shown,
                event,
                event,
                key.shown,
            )


def _declared_key(key: str, kind: Kind) -> Key:
    rule = None if kind.is_safe else ("free_text" if kind.name == "text" else "identifying_key")
    return Key(key, key, kind, rule, normal=names.normal_form(key))


class Anonymizer(Walk):
    """One event's way through the rules of anonymized mode.

    Args:
        rules: what every key means.
        event: the event's entry in the catalogue.
        user: what identifies the user.
        lines: collects the receipt, None to keep none.
    """

    def __init__(
        self, rules: Rulebook, event: Event, user: Identity, lines: list[Line] | None
    ) -> None:
        super().__init__(event, rules.templates, lines)
        self._rules = rules
        self._user = user
        self._named = identities.NOBODY
        #: What the event's own Ident properties named, once `properties` has run.
        self.named: list[str] = []

    def properties(self, posted: Mapping[str, Any]) -> dict[str, Any]:
        """Return the properties as they leave."""
        self.named = self._named_in(posted)
        if self.named:
            needles = identities.Needles(self._rules.words)
            for text in self.named:
                needles.add_value(text)
            self._named = needles.identity()
        return super().properties(posted)

    # What the event itself names: the values of its Ident properties join the identity.

    def _named_in(self, posted: Mapping[str, Any]) -> list[str]:
        found: list[str] = []
        for key, value in posted.items():
            if isinstance(key, str):
                self._collect(key, value, found, top=True, depth=1)
        return [text for text in found if len(text) >= 4]

    def _collect(self, key: str, value: Any, found: list[str], *, top: bool, depth: int) -> None:
        if self._rules.is_ident(self._event.name, key, top=top):
            found.extend(_named_by(value, self._fails, depth))
        elif depth < _DEEPEST and not (top and key in self._event.properties):
            self._collect_inside(value, found, depth)

    def _collect_inside(self, value: Any, found: list[str], depth: int) -> None:
        if isinstance(value, Mapping):
            for key, item in value.items():
                if isinstance(key, str):
                    self._collect(key, item, found, top=False, depth=depth + 1)
        elif isinstance(value, list | tuple) and depth < _DEEPEST:
            for item in value:
                self._collect_inside(item, found, depth + 1)

    def _fails(self, key: str) -> bool:
        return self._rules.key(self._event.name, key, top=False).rule is not None

    # Keys

    def key(self, key: str, *, top: bool) -> Key:
        """Return what becomes of a key: its meaning, then its own text."""
        judged = self._rules.key(self._event.name, key, top=top)
        if judged.rule is not None or (judged.kind is not None and top):
            return judged
        if self._identifies(key) or self._decoded(key, self._identifies):
            return judged._replace(rule="identifying_value_in_key", shown=":key")
        return judged

    def declared(self, key: str, kind: Kind) -> Key:
        """Return what becomes of a key that an Object's kind declares."""
        return _declared_key(key, kind)

    # Values

    def text(self, value: str, key: Key) -> Kept | Dropped:
        """Return a string as it leaves."""
        text = clean_text(value)
        if not text:
            return Kept("", "kept", "empty")
        if key.kind is not None and text in key.kind.vocabulary:
            return Kept(text, "kept", "vocabulary")
        if _PLACEHOLDER.fullmatch(text):
            return Kept(text, "redacted", "text")
        if key.kind is not None and key.kind.name == "route":
            return self._route(text)
        fine_tune = _FINE_TUNE.fullmatch(text)
        if fine_tune:
            text = fine_tune[1]
        verdict = self._model(text) if _is_model(key.kind) else self._label(text, key)
        if verdict.result == "redacted" and key.kind is None:
            self._rules.warn_once(self._event.name, key)
        if fine_tune and verdict.result == "kept":
            return Kept(text, "bounded", "fine_tune")
        return verdict

    def number(self, value: float, key: Key) -> Kept | Dropped:
        """Return a number as it leaves."""
        verdict = super().number(value, key)
        if isinstance(verdict, Dropped) or verdict.result != "kept":
            return verdict
        if identities.holds_number(self._user, value) or identities.holds_number(
            self._named, value
        ):
            return _REDACTED_TEXT
        if self._rules.coarse:
            rounded = _coarse(verdict.value, key)
            if rounded != verdict.value:
                return Kept(rounded, "bounded", "coarse")
        return verdict

    def _route(self, text: str) -> Kept:
        shape = routes.route_shape(text, self._templates)
        if self._identifies(shape):
            return _REDACTED_TEXT
        return Kept(shape, "kept", "route")

    def _label(self, text: str, key: Key) -> Kept:
        if not _MACHINE_LABEL.fullmatch(text):
            return _redacted(_kind_of(text))
        is_version = key.normal == "version" or key.normal.endswith(_VERSION_ENDING)
        if kind := shapes.shape_of(text, version=is_version):
            return _redacted(kind)
        if self._identifies(text):
            return _REDACTED_TEXT
        return self._decoded(text, self._identifies) or Kept(text, "kept", "label")

    def _model(self, text: str) -> Kept:
        plain = _BRACKETED.sub(r" \1", text, count=1)
        if "@" in text or "arn:" in text.lower():
            return _REDACTED_TEXT
        if text.split() == [text]:
            if not _MACHINE_LABEL.fullmatch(plain.replace(" ", ":")):
                return _redacted(_kind_of(text))
        elif not _is_spaced_model(plain):
            return _redacted(_kind_of(text))
        if kind := shapes.shape_of(text, version=True):
            return _redacted(kind)
        if self._identifies_in_model(text):
            return _REDACTED_TEXT
        return self._decoded(text, self._identifies_in_model) or Kept(text, "kept", "model")

    def _decoded(self, text: str, identifies: Callable[[str], bool]) -> Kept | None:
        """Return the placeholder if a decoded view of the text identifies, None if none does."""
        for view in views.views(text):
            if kind := shapes.shape_of(view):
                return _redacted(kind)
            if identifies(view):
                return _REDACTED_TEXT
        return None

    def _identifies(self, text: str) -> bool:
        return identities.holds(self._user, text) or (
            self._named is not identities.NOBODY and identities.holds(self._named, text)
        )

    def _identifies_in_model(self, text: str) -> bool:
        return identities.holds(self._user, text, exempt=IN_MODELS)


def _redacted(kind: str) -> Kept:
    return Kept(f"[redacted:{kind}]", "redacted", "text" if kind == "text" else "shape")


_REDACTED_TEXT: Final = _redacted("text")


def _kind_of(text: str) -> str:
    """Return the shape of a string that is no machine label, `text` for free text."""
    if len(text) > 512:
        return "text"
    kind = shapes.shape_of(text)
    if kind is None or (any(ch.isspace() for ch in text) and kind not in _SPACED_SHAPES):
        return "text"
    return kind


def _is_model(kind: Kind | None) -> bool:
    return kind is not None and kind.name == "model"


def _is_spaced_model(text: str) -> bool:
    """Whether a text with spaces is a model's name: `gpt-5 mini`, `Claude Sonnet 4.5`."""
    words = text.casefold().split()
    if not 1 <= len(words) <= 4:
        return False
    family = _LEADING_FAMILY.match(words[0])
    if family is None or family[0] not in FAMILIES:
        return False
    if not all(_MACHINE_LABEL.fullmatch(word) for word in words):
        return False
    return any(ch.isdigit() for ch in text) or all(
        word in IN_MODELS for piece in words for word in re.findall(r"[a-z]+|o\d", piece)
    )


def _named_by(value: Any, fails: Callable[[str], bool], depth: int) -> list[str]:
    """Return what an Ident property names: strings, and below objects what fails the key test."""
    if isinstance(value, str):
        return [clean_text(value)]
    found: list[str] = []
    if depth >= _DEEPEST:
        return found
    if isinstance(value, list | tuple):
        for item in value:
            found.extend(_named_by(item, fails, depth + 1))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(key, str) and (isinstance(item, Mapping) or fails(key)):
                found.extend(_named_by(item, fails, depth + 1))
    return found


def _coarse(value: float, key: Key) -> float:
    """Return a size or duration with two significant digits, a viewport to 20 px."""
    if key.normal in _COARSE_PIXELS:
        return round(value / 20) * 20
    is_size = key.normal.endswith(_COARSE_ENDINGS) or (
        key.kind is not None and key.kind.name == "duration"
    )
    if not is_size or value == 0 or not is_number_kind(key.kind):
        return value
    digits = 1 - math.floor(math.log10(abs(value)))
    return round(value, digits)
