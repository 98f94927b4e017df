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
from second_mw.privacy.exempt import FAMILIES, IN_MODELS, PLACEHOLDERS
from second_mw.privacy.identity import Identity
from second_mw.privacy.receipt import Line
from second_mw.privacy.sanitize import (
    DEEPEST,
    MAX_KEY,
    Dropped,
    Kept,
    Key,
    Walk,
    clean_key,
    clean_text,
)

logger: logging.Logger = logging.getLogger("second_mw")

#: One short machine word (spec §8); nothing with white space, nothing with an `@`.
_MACHINE_LABEL = re.compile(r"[A-Za-z0-9][\w.:/+-]{0,63}", re.ASCII)
#: The same for a key, which may be longer (it is cut later) and begin with a `_`.
_MACHINE_KEY = re.compile(r"[A-Za-z0-9_][\w.:/+-]*", re.ASCII)
#: `ft:<base>:<organisation>:<suffix>:<id>`, wherever it stands.
_FINE_TUNE = re.compile(r"(?<![A-Za-z0-9])(ft:[^:\s]+):.*", re.IGNORECASE | re.DOTALL)
_ARN = re.compile(r"(?<![A-Za-z0-9])arn:", re.IGNORECASE)
_BRACKETED = re.compile(r"[\[(]([A-Za-z0-9.+-]{1,24})[\])]")
_LEADING_FAMILY = re.compile(r"o\d(?![^\W_])|[a-z]+")
_SPACED_SHAPES: Final = frozenset({"phone", "card", "iban"})

#: Keys whose value may look like an address of the network and is a version.
_VERSION_ENDING: Final = "_version"
#: What `precision="coarse"` rounds to two significant digits, and to 20 px (spec §8, Policies).
_COARSE_ENDINGS: Final = ("_bytes", "_length", "_ms", "_duration")
_COARSE_WORDS: Final = frozenset({"bytes", "length", "ms", "duration"})
_COARSE_PIXELS: Final = frozenset({"viewport_width", "viewport_height"})

#: How much of a key is decoded: what leaves of it, and as much again, so that nothing is cut in
#: two that begins in what leaves.
_READ_OF_A_KEY: Final = 2 * MAX_KEY
#: How many (event, key) decisions are remembered, and how many warnings.
_REMEMBERED: Final = 4096

#: Keys, in bare form, of which the endpoint has to know.
_TELLING: Final = frozenset({"anonymized", "workspaceid"})


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
        self.drops_undeclared: bool = undeclared == "drop"
        self.coarse: bool = precision == "coarse"
        self.templates = templates
        self.words: frozenset[str] = catalogue.words
        self._declared = {
            event.name: {key: _declared_key(key, kind) for key, kind in event.properties.items()}
            for event in catalogue
        }
        #: Event → keys that tell neither its mode nor its workspace.
        self.silent: dict[str, set[str]] = {
            event.name: {key for key in event.properties if names.bare_form(key) not in _TELLING}
            for event in catalogue
        }
        # Only keys that passed are remembered: no cache holds what was redacted (spec §17). They
        # are remembered per event where the event declares them (`_declared`), else for all.
        self._passed: dict[tuple[str, bool], Key] = {}
        self._warned: set[tuple[str, str]] = set()

    def key(self, event: str, key: str, *, top: bool) -> Key:
        """Return what a key means, before its own text is judged."""
        if top and (declared := self._declared[event].get(key)) is not None:
            return declared
        if (passed := self._passed.get((key, top))) is not None:
            return passed
        judged = self.undeclared_key(key, top=top)
        if judged.rule is None and len(key) <= MAX_KEY and len(self._passed) < _REMEMBERED:
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
            known = is_ident or normal in names.EXACT
            return judged._replace(
                rule="identifying_key" if known else "identifying_ending",
                shown=normal if known else ":key",
                secret=False,
            )
        if self.drops_undeclared:
            return judged._replace(rule="undeclared", secret=False)
        whole = clean_text(key).strip()
        if not _MACHINE_KEY.fullmatch(whole) or shapes.shape_of(whole):
            return judged._replace(rule="identifying_value_in_key", secret=False)
        if len(judged.name) < len(whole):
            # What was cut in its middle may be another key.
            return self.undeclared_key(judged.name, top=top)
        return judged._replace(shown=judged.name)

    def is_ident(self, event: str, key: str, *, top: bool) -> bool:
        """Whether a key is of kind Ident, in any spelling."""
        if top and (declared := self._declared[event].get(key)) is not None:
            return declared.kind is not None and declared.kind.danger == "ident"
        if (key, top) in self._passed:
            return False
        return names.bare_form(key) in self.catalogue.ident_keys

    def has_warned(self, event: str, key: Key) -> bool:
        """Whether there is nothing more to say of an undeclared key whose value is redacted."""
        return (
            key.shown == ":key"
            or (event, key.shown) in self._warned
            or len(self._warned) >= _REMEMBERED
        )

    def warn_once(self, event: str, key: Key) -> None:
        """Say, once for an event and key, that an undeclared string was redacted.

        Args:
            key: one that was found to hold nothing of the user: it is named.
        """
        if not self.has_warned(event, key):
            self._warned.add((event, key.shown))
            logger.warning(
                "second_mw redacted a value of the undeclared property %r of %r in an anonymized "
                'event. Say in the catalogue what it is: Event(%r, {%r: Label("known", "values")})'
                ", or Model, Text or Ident",
                key.shown,
                event,
                event,
                key.shown,
            )


def _declared_key(key: str, kind: Kind) -> Key:
    return Key(key, key, kind, _RULE_OF_DANGER[kind.danger], normal=names.normal_form(key))


_RULE_OF_DANGER: Final = {None: None, "text": "free_text", "ident": "identifying_key"}


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
        self.drops_undeclared: bool = rules.drops_undeclared
        self._user = user
        self._named = identities.NOBODY
        #: What the event's own Ident properties named, once `properties` has run.
        self.named: list[str] = []

    def properties(self, posted: Mapping[str, Any], keys: tuple[str, ...] = ()) -> dict[str, Any]:
        """Return the properties as they leave."""
        posted = self._bounded(posted)
        self.named = self._named_in(posted)
        if self.named:
            self._named = identities.identity_of_named(self.named, self._rules.words)
        return self._object(posted, 1, "")

    # What the event itself names: the values of its Ident properties join the identity.

    def _named_in(self, posted: Mapping[str, Any]) -> list[str]:
        found: list[str] = []
        for key, value in posted.items():
            if isinstance(key, str):
                self._collect(key, value, found, top=True, depth=1)
        return list(dict.fromkeys(text for text in found if len(text) >= 4))

    def _collect(self, key: str, value: Any, found: list[str], *, top: bool, depth: int) -> None:
        if self._rules.is_ident(self._event.name, key, top=top):
            found.extend(named_by(value, self._fails, depth))
        elif top and (kind := self._event.properties.get(key)) is not None:
            if kind.of(value) is None:
                self._collect_inside(value, found, depth)
            else:
                _collect_declared(kind, value, self._fails, found)
        elif depth < DEEPEST:
            self._collect_inside(value, found, depth)

    def _collect_inside(self, value: Any, found: list[str], depth: int) -> None:
        if isinstance(value, Mapping):
            for key, item in value.items():
                if isinstance(key, str):
                    self._collect(key, item, found, top=False, depth=depth + 1)
        elif isinstance(value, list | tuple | set | frozenset) and depth < DEEPEST:
            for item in value:
                self._collect_inside(item, found, depth + 1)

    def _fails(self, key: str) -> bool:
        return self._rules.key(self._event.name, key, top=False).rule is not None

    # Keys

    def key(self, key: str, *, top: bool) -> Key:
        """Return what becomes of a key: its meaning, then its own text."""
        judged = self._rules.key(self._event.name, key, top=top)
        if judged.rule is not None or judged.kind is not None:
            return judged
        return self._clear_of_identity(key, judged)

    def of_wrong_kind(self, key: str, *, top: bool) -> Key:
        """Return what becomes of a declared key whose value is of another kind: undeclared."""
        judged = self._rules.undeclared_key(key, top=top)
        return judged if judged.rule is not None else self._clear_of_identity(key, judged)

    def _clear_of_identity(self, key: str, judged: Key) -> Key:
        if self._identifies(key) or self._decoded(clean_text(key).strip()[:_READ_OF_A_KEY]):
            return judged._replace(rule="identifying_value_in_key", shown=":key")
        return judged

    def declared(self, key: str, kind: Kind) -> Key:
        """Return what becomes of a key that an Object's kind declares."""
        return _declared_key(key, kind)

    # Values

    def text(self, value: str, key: Key) -> Kept:
        """Return a string as it leaves."""
        verdict = judged_text(value, key, self.templates)
        if verdict.result != "redacted" and verdict.rule not in _NOT_COMPARED:
            place = place_of(key.kind)
            if self._identifies(verdict.value, place):
                verdict = _REDACTED_TEXT
            else:
                verdict = self._decoded(verdict.value, place) or verdict
        if verdict.result == "redacted" and key.kind is None:
            self._rules.warn_once(self._event.name, key)
        return verdict

    def number(self, value: float, key: Key) -> Kept | Dropped:
        """Return a number as it leaves."""
        verdict = super().number(value, key)
        if isinstance(verdict, Dropped) or verdict.result != "kept":
            return verdict
        if self._identifies_number(value):
            return _REDACTED_TEXT
        if self._rules.coarse:
            rounded = _coarse(verdict.value, key)
            if rounded != verdict.value:
                if self._identifies_number(rounded):
                    return _REDACTED_TEXT
                return Kept(rounded, "bounded", "coarse")
        return verdict

    def _identifies_number(self, value: float) -> bool:
        return identities.holds_number(self._user, value) or identities.holds_number(
            self._named, value
        )

    def _decoded(self, text: str, place: identities.Place = "anywhere") -> Kept | None:
        """Return the placeholder if a decoded view of the text identifies, None if none does."""
        seen = views.views(text)
        for view in seen:
            if kind := shapes.shape_of(view):
                return _redacted(kind)
            if self._identifies(view, place):
                return _REDACTED_TEXT
        for outer in (text, *seen):
            # Nearly always all of them together say that it is none of them.
            said = list(views.readings(outer))
            if self._may_identify(said) and any(self._identifies(one, place) for one in said):
                return _REDACTED_TEXT
        return None

    def _may_identify(self, texts: list[str]) -> bool:
        """Whether one of several texts could identify, asked for the price of one."""
        return bool(texts) and (
            identities.may_hold(self._user, texts)
            or (self._named is not identities.NOBODY and identities.may_hold(self._named, texts))
        )

    def _identifies(self, text: str, place: identities.Place = "anywhere") -> bool:
        # An event's own names are not compared with models (spec §8).
        return identities.holds(self._user, text, place) or (
            self._named is not identities.NOBODY
            and place != "model"
            and identities.holds(self._named, text, place)
        )


#: Rules of what is no identity, whatever it says.
_NOT_COMPARED: Final = frozenset({"empty", "vocabulary", "host_route"})


def place_of(kind: Kind | None) -> identities.Place:
    """Return where a value of this kind stands, as far as its comparison goes."""
    if kind is None:
        return "anywhere"
    return "model" if kind.name == "model" else "route" if kind.name == "route" else "anywhere"


def judged_text(value: str, key: Key, templates: routes.Templates | None) -> Kept:
    """Return what becomes of a string whoever posts it: all but the comparison with identity.

    Its rule says what it was taken for; `fine_tune` is compared like a label.
    """
    text = clean_text(value)
    kind = key.kind
    if not text:
        return Kept("", "kept", "empty")
    if kind is not None and text in kind.vocabulary:
        return Kept(text, "kept", "vocabulary")
    if text in PLACEHOLDERS:
        return Kept(text, "redacted", "text")
    if kind is not None and kind.name == "route":
        shape = routes.route_shape(text, templates)
        if templates is not None:
            return Kept(shape, "kept", "host_route")
        return Kept(shape, "kept", "route")
    if _ARN.search(text):
        return _REDACTED_TEXT
    base = _FINE_TUNE.sub(r"\1", text)
    verdict = _model(base) if kind is not None and kind.name == "model" else _label(base, key)
    if base != text and verdict.result == "kept":
        return Kept(base, "bounded", "fine_tune")
    return verdict


def _label(text: str, key: Key) -> Kept:
    if not _MACHINE_LABEL.fullmatch(text):
        return _redacted(_kind_of(text))
    if kind := shapes.shape_of(text, version=is_version(key)):
        return _redacted(kind)
    return Kept(text, "kept", "label")


def is_version(key: Key) -> bool:
    """Whether a key says that its value is a version, where `1.2.3.4` is no address."""
    return key.normal == "version" or key.normal.endswith(_VERSION_ENDING)


def _model(text: str) -> Kept:
    plain = _BRACKETED.sub(r" \1", text, count=1)
    if "@" in text:
        return _REDACTED_TEXT
    if text.split() == [text]:
        if not _MACHINE_LABEL.fullmatch(plain.replace(" ", ":")):
            return _redacted(_kind_of(text))
    elif not _is_spaced_model(plain):
        return _redacted(_kind_of(text))
    if kind := shapes.shape_of(text, version=True):
        return _redacted(kind)
    return Kept(text, "kept", "model")


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


def named_by(value: Any, fails: Callable[[str], bool], depth: int = 1) -> list[str]:
    """Return what an Ident property names: strings, and below objects what fails the key test."""
    if isinstance(value, str):
        return [clean_text(value)]
    found: list[str] = []
    if depth >= DEEPEST:
        return found
    if isinstance(value, list | tuple | set | frozenset):
        for item in value:
            found.extend(named_by(item, fails, depth + 1))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(key, str) and (isinstance(item, Mapping) or fails(key)):
                found.extend(named_by(item, fails, depth + 1))
    return found


def _collect_declared(
    kind: Kind, value: Any, fails: Callable[[str], bool], found: list[str]
) -> None:
    """Add what the declared Ident fields of an object name, at any depth of the declaration."""
    if kind.danger == "ident":
        found.extend(named_by(value, fails))
    elif kind.name == "list" and kind.item is not None and isinstance(value, list | tuple):
        for item in value:
            _collect_declared(kind.item, item, fails, found)
    elif kind.name == "object" and isinstance(value, Mapping):
        for key, inner in kind.fields:
            if key in value:
                _collect_declared(inner, value[key], fails, found)


def _coarse(value: float, key: Key) -> float:
    """Return a size or duration with two significant digits, a viewport to 20 px."""
    if key.normal in _COARSE_PIXELS:
        return round(value / 20) * 20
    is_size = (
        key.normal in _COARSE_WORDS
        or key.normal.endswith(_COARSE_ENDINGS)
        or (key.kind is not None and key.kind.name == "duration")
    )
    if not is_size or value == 0:
        return value
    digits = 1 - math.floor(math.log10(abs(value)))
    return round(value, digits)
