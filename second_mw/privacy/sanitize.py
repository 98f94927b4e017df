"""Bounds and cleaning, in both modes, and the one walk over an event's properties (spec §6).

`Walk` is what identified mode needs; `anonymize` makes each of its steps stricter. A walk belongs
to one event. Nothing here knows the user.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, Literal, NamedTuple

import msgspec

from second_mw.privacy import names, routes, shapes, urls
from second_mw.privacy.catalogue import Event, Kind
from second_mw.privacy.receipt import Line, Result
from second_mw.privacy.secrets import PREFIXES, is_plain, is_quiet

MAX_KEYS: Final = 80
MAX_ITEMS: Final = 20
MAX_DEPTH: Final = 8
#: How deep values are looked into for what an event names; a body that is deeper is refused.
DEEPEST: Final = 64
#: Values within one property; a body of JSON that is taken can't hold as many.
MAX_NODES: Final = 2**18
MAX_KEY: Final = 80
#: Beyond it JavaScript, and so an analyst's browser, no longer holds a whole number exactly.
MAX_WHOLE: Final = 2**53
#: How often a text is cut before it is given up: a placeholder may be longer than what it is for.
_CUTS: Final = 4
#: How many keys and shapes are remembered.
_REMEMBERED: Final = 4096
#: What no card number reaches.
_SMALL: Final = 10**11
#: A receipt is bounded like everything else: an event of 20 lists of 20 has 400 lines.
MAX_LINES: Final = 500

# Control characters but tab and newline, unpaired surrogates, and all that renders as nothing.
_UNWANTED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff" + names.INVISIBLE.pattern[1:-1] + "]"
)
_RESERVED_UNSEPARATED = names.unseparated(names.RESERVED)

#: What the server says of the user in identified mode (spec §9); no property can claim another.
CLAIMS: Final = frozenset({"user_id", "user_email", "user_name", "workspace_id", "workspace_role"})
_CLAIMS_UNSEPARATED = names.unseparated(CLAIMS)

# The anonymous id never leaves in identified mode, where it would join the two (spec §9).
_ANONYMOUS_ID_KEYS = frozenset({"anonymousdistinctid", "anonymousid", "anondistinctid"})
_ANONYMOUS_ID = re.compile(
    r"anon_[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}", re.IGNORECASE
)


class Dropped(NamedTuple):
    """A property, or an item, that does not leave, and the rule that says so."""

    rule: str


class Kept(NamedTuple):
    """A value as it leaves, what was done to it, and the rule that says so."""

    value: Any
    result: Result
    rule: str


class Key(NamedTuple):
    """A key as it leaves, with the kind that is known of it.

    `rule` is set if the property is dropped, or redacted where `secret` is. `shown` is the key as
    a receipt or a log may name it.
    """

    name: str
    shown: str
    kind: Kind | None = None
    rule: str | None = None
    secret: bool = False
    normal: str = ""


def is_bounded(value: Any) -> bool:
    """Whether a value has no more values within than a body can have.

    Server code may hand over what holds itself, or one list many times over.
    """
    left = MAX_NODES
    level = [value]
    # No rule looks deeper than this.
    for _ in range(DEEPEST):
        below: list[Any] = []
        for outer in level:
            if isinstance(outer, Mapping):
                below += outer.values()
            elif isinstance(outer, list | tuple | set | frozenset):
                below += outer
            if len(below) > left:
                return False
        left -= len(below)
        level = below
        if not level:
            break
    return True


def clean_text(text: str) -> str:
    """Return the text without control, invisible and unpaired characters (spec §6)."""
    return text if text.isascii() and text.isprintable() else _UNWANTED.sub("", text)


def clean_key(key: str, *, top: bool) -> Key:
    """Return what both modes make of a key; it is judged whole, and again once it is cut.

    Args:
        top: whether it stands at the top level, where some keys are the server's own.
    """
    name = clean_text(key).strip()
    seen = names.visible(name).strip()
    normal = names.normal_form(name)
    rule = None
    if not seen:
        rule = "empty_key"
    elif seen.startswith("$"):
        rule = "posthog_key"
    elif seen in names.UNSAFE:
        rule = "unsafe_key"
    elif top and normal.replace("_", "") in _RESERVED_UNSEPARATED:
        rule = "reserved"
    elif names.holds_secret(normal):
        return Key(name[:MAX_KEY], ":key", None, "secret_key", secret=True, normal=normal)
    if rule is None and len(name) > MAX_KEY:
        # What was cut in its middle may be another key.
        return clean_key(cut_key(name), top=top)._replace(normal=normal)
    # The reserved names are ours and identify nobody.
    shown = normal if rule == "reserved" and normal in names.RESERVED else ":key"
    return Key(cut_key(name), shown, None, rule, normal=normal)


def cut_key(name: str) -> str:
    """Return a key of the allowed length."""
    return name[:MAX_KEY].rstrip()


#: Longer texts are asked together whether there is anything to clean in them.
_LONG: Final = 256
#: What no rule of identified mode tells apart: a text under any key but a route's.
_ANY_KEY: Final = Key("", ":key")


Way = Literal["as it is", "route", "gone", "secret"]

#: So many values are looked at one by one sooner than together.
_FEW: Final = 4
NUMBERS: Final = frozenset({int, float})
_LABELS: Final = frozenset({"label", "model"})
#: Plans remembered for each event, by the keys that it had: a product posts a few sets of keys.
PLANS: Final = 64
Taker = Callable[[Mapping[str, Any]], tuple[Any, ...]]


class Plan(msgspec.Struct, frozen=True, gc=False):
    """What becomes of an event with keys that are known, so that numbers are looked at together.

    Args:
        leaves_out: the keys that go.
        numbers, flags: take the values under declared numbers and flags; None without any.
        labels: takes the values under declared labels and models, and undeclared texts, which are
            few words over and over.
        others: the keys of the other values.
        named: those of the labels, and the others.
    """

    leaves_out: tuple[str, ...]
    numbers: Taker | None
    flags: Taker | None
    labels: Taker | None
    others: tuple[str, ...]
    named: tuple[str, ...]


def taker_of(keys: list[str]) -> Taker | None:
    """Return what takes the values of these keys out of an event that has them."""
    if len(keys) == 1:
        # An itemgetter of one key gives no tuple.
        return lambda posted: (posted[keys[0]],)
    return itemgetter(*keys) if keys else None


def are_small(values: tuple[Any, ...]) -> bool:
    """Whether these are numbers that nobody would take for a card's, nor many of them together.

    The bound is one that Python compares fastest with; what is beyond is looked at one by one.
    """
    if len(values) <= _FEW:
        for value in values:
            if (type(value) is not int and type(value) is not float) or not (
                -0x3FFFFFFF <= value <= 0x3FFFFFFF
            ):
                return False
        return True
    if not NUMBERS.issuperset(map(type, values)):
        return False
    try:
        total: float = sum(map(abs, values))
    except OverflowError:
        # A whole number that no float holds, beside a fraction.
        return False
    # A NaN makes the sum one, and is not smaller than anything.
    return total <= 0x3FFFFFFF


def are_flags(values: tuple[Any, ...]) -> bool:
    """Whether these are flags, known or not."""
    for value in values:
        if value is not True and value is not False and value is not None:
            return False
    return True


class Remembered:
    """What identified mode remembers of earlier events: keys, labels and route shapes that passed.

    Each is worth a pattern or two: a look-up costs a twentieth.
    """

    def __init__(self) -> None:
        self._ways: dict[str, dict[str, Way]] = {}
        self._plans: dict[str, dict[tuple[str, ...], Plan]] = {}
        #: Event → undeclared keys that left: not reserved, so they tell no workspace and no mode.
        self.silent: dict[str, set[str]] = {}
        self.labels: set[str] = set()
        self.shapes: set[str] = set()

    def ways(self, event: Event) -> dict[str, Way]:
        """Return what becomes of the values under the keys of this event, as far as is known."""
        ways = self._ways.get(event.name)
        if ways is None:
            ways = self._ways[event.name] = {
                name: "route" if kind.name == "route" else "as it is"
                for name, kind in event.properties.items()
                if name not in CLAIMS
            }
        return ways

    def plans(self, event: Event) -> dict[tuple[str, ...], Plan]:
        """Return what becomes of this event by the keys that it had, as far as is known."""
        return self._plans.setdefault(event.name, {})

    def keep(self, table: set[str], text: str) -> None:
        """Remember a short text that passed, in one of these tables."""
        if len(text) <= _LONG:
            if len(table) >= _REMEMBERED:
                table.clear()
            table.add(text)

    def passes(self, text: str) -> bool:
        """Whether there is nothing to clean in a short label, in a few words or in an id."""
        if not _is_id(text) and not is_plain(text.replace(" ", "_")):
            return False
        self.keep(self.labels, text)
        return True


def _plan(event: Event, ways: Mapping[str, Way], posted: Mapping[str, Any]) -> Plan:
    left = {key: event.properties.get(key) for key, way in ways.items() if way == "as it is"}
    numbers = [key for key, kind in left.items() if is_number_kind(kind)]
    flags = [key for key, kind in left.items() if kind is not None and kind.name == "flag"]
    labels = [
        key
        for key, kind in left.items()
        # What this event has text under, the next ones will have text under.
        if (kind.name in _LABELS if kind is not None else isinstance(posted[key], str))
    ]
    leaves_out = [key for key, way in ways.items() if way == "gone"]
    named = [key for key in ways if key not in {*numbers, *flags, *leaves_out}]
    return Plan(
        tuple(leaves_out),
        taker_of(numbers),
        taker_of(flags),
        taker_of(labels),
        tuple(key for key in named if key not in labels),
        tuple(named),
    )


class Walk:
    """One event's way through the rules of identified mode (spec §6).

    Args:
        event: the event's entry in the catalogue.
        templates: the host's own routes, None for the product's and the heuristics.
        lines: collects the receipt, None to keep none.
        remembered: what passed in earlier events.
    """

    #: Whether what is not declared doesn't leave, whatever it is.
    drops_undeclared = False

    def __init__(
        self,
        event: Event,
        templates: routes.Templates | None,
        lines: list[Line] | None,
        remembered: Remembered | None = None,
    ) -> None:
        self._event = event
        self._remembered = remembered or Remembered()
        self._is_quick = lines is None and event.max_text >= _LONG
        self._ways = self._remembered.ways(event)
        self._plans = self._remembered.plans(event)
        self.templates = templates
        self._lines = lines

    def properties(self, posted: Mapping[str, Any], keys: tuple[str, ...] = ()) -> dict[str, Any]:
        """Return the properties as they leave.

        Args:
            keys: those that were posted, empty if nobody has listed them yet.
        """
        if self._is_quick:
            quick = self._quickly(posted, keys)
            if quick is not None:
                return quick
        return self._object(self._bounded(posted), 1, "")

    def _bounded(self, posted: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the properties without values that have no end, or as good as none."""
        kept = {name: value for name, value in posted.items() if is_bounded(value)}
        if len(kept) == len(posted):
            return posted
        for name in posted:
            if name not in kept:
                shown = self.key(name, top=True).shown if isinstance(name, str) else ":key"
                self._note(shown, "dropped", "too_many_items")
        return kept

    def _quickly(self, posted: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any] | None:
        """Return the properties as they leave, None if a key is not clean as it was posted.

        The same as `_object` at the top level without a receipt. What it saves: declared keys are
        looked up and not judged, and all texts are asked at once whether there is anything to clean
        in them.
        """
        remembered, ways = self._remembered, self._ways
        labels = remembered.labels
        kept: dict[str, Any] = {}
        long: list[str] = []
        to_do: Iterable[str] = posted
        plan = None
        if type(posted) is dict and len(posted) <= MAX_KEYS:
            keys = keys or tuple(posted)
            plan = self._plans.get(keys) or self._planned(keys, posted)
        if (
            plan is not None
            and (plan.numbers is None or are_small(plan.numbers(posted)))
            and (plan.flags is None or are_flags(plan.flags(posted)))
        ):
            to_do, kept = plan.named, {**posted}
            if plan.labels is not None and _are_among(labels, plan.labels(posted)):
                to_do = plan.others
            for name in plan.leaves_out:
                del kept[name]
        else:
            plan = None
        for name in to_do:
            value = posted[name]
            if plan is None and len(kept) >= MAX_KEYS:
                if not isinstance(name, str) or cut_key(clean_text(name).strip()) != name:
                    return None
                continue
            way = ways.get(name)
            if way is None:
                way = self._way(name, ways)
                if way is None:
                    return None
            if way == "gone":
                continue
            cls = value.__class__
            if way == "secret":
                kept[name] = None if value is None else "[redacted:secret]"
            elif cls is str:
                if way == "route":
                    kept[name] = value if value in remembered.shapes else self._route(value)
                elif value in labels:
                    kept[name] = value
                elif len(value) > _LONG:
                    kept[name] = value
                    long.append(name)
                else:
                    kept[name] = self._cleaned(value)
            elif (
                value is None
                or cls is bool
                or ((cls is int or cls is float) and -_SMALL < value < _SMALL)
            ) or (cls is list and len(value) <= MAX_ITEMS and _are_among(labels, value)):
                kept[name] = value
            elif cls is list and len(value) <= MAX_ITEMS and _are_texts(value):
                kept[name] = [item if item in labels else self._cleaned(item) for item in value]
            elif not is_bounded(value):
                return None
            else:
                verdict = self._value(value, self._judged(name, value, {}, top=True), 1, "")
                if not isinstance(verdict, Dropped):
                    kept[name] = verdict.value
                elif plan is not None:
                    del kept[name]
        if long and not self._are_quiet([kept[name] for name in long]):
            for name in long:
                kept[name] = self.text(kept[name], _ANY_KEY).value
        return kept

    def _planned(self, keys: tuple[str, ...], posted: Mapping[str, Any]) -> Plan | None:
        """Return what becomes of an event with such keys, None if one of them is not known."""
        ways, plans = self._ways, self._plans
        if not posted.keys() <= ways.keys():
            return None
        if len(plans) >= PLANS:
            plans.clear()
        plan = plans[keys] = _plan(self._event, {key: ways[key] for key in keys}, posted)
        return plan

    def _cleaned(self, text: str) -> str:
        """Return a short text, or an item of a list, as it leaves; one that passes is kept."""
        if self._remembered.passes(text):
            return text
        cleaned: str = self.text(text, _ANY_KEY).value
        if cleaned == text:
            self._remembered.keep(self._remembered.labels, text)
        return cleaned

    def _are_quiet(self, texts: list[str]) -> bool:
        return max(map(len, texts)) <= self._event.max_text and is_quiet("\n".join(texts))

    def _way(self, name: Any, ways: dict[str, Way]) -> Way | None:
        """Return what becomes of an undeclared key, None if it is not clean as it was posted."""
        if not isinstance(name, str):
            return None
        key = self.key(name, top=True)
        if key.name != name and key.rule is None:
            return None
        way: Way = "secret" if key.secret else "as it is" if key.rule is None else "gone"
        # No cache holds what did not leave (spec §17); the claims are the rules' own words.
        if (key.rule is None or name in CLAIMS) and len(ways) < _REMEMBERED:
            ways[name] = way
            if way == "as it is":
                self._remembered.silent.setdefault(self._event.name, set()).add(name)
        return way

    def _route(self, text: str) -> str:
        """Return a route's shape; that of a shape is itself and is found for next to nothing."""
        shape = routes.route_shape(clean_text(text), self.templates)
        if shape == text:
            self._remembered.keep(self._remembered.shapes, text)
        return shape

    # Keys

    def key(self, key: str, *, top: bool) -> Key:
        """Return what becomes of a key."""
        if top and key not in CLAIMS and (kind := self._event.properties.get(key)):
            return Key(key, key, kind, normal=key)
        judged = clean_key(key, top=top)
        bare = judged.normal.replace("_", "")
        if top and bare in _CLAIMS_UNSEPARATED:
            return judged._replace(rule="reserved")
        if bare in _ANONYMOUS_ID_KEYS:
            return judged._replace(rule="anonymous_id", secret=False)
        return judged._replace(shown=judged.name) if judged.rule is None else judged

    # Containers

    def _object(
        self, posted: Mapping[str, Any], depth: int, path: str, known: Kind | None = None
    ) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        spelled: dict[str, str] = {}
        fields = dict(known.fields) if known else {}
        for posted_key, value in posted.items():
            if not isinstance(posted_key, str):
                self._note(f"{path}:key", "dropped", "unknown_type")
                continue
            if len(kept) >= MAX_KEYS and cut_key(clean_text(posted_key).strip()) not in kept:
                self._note(f"{path}:key", "dropped", "too_many_keys")
                continue
            key = self._judged(posted_key, value, fields, top=depth == 1)
            where = path + key.shown
            if key.rule is not None and not key.secret:
                self._note(where, "dropped", key.rule)
                continue
            verdict = self._value(value, key, depth, where)
            if isinstance(verdict, Dropped):
                self._note(where, "dropped", verdict.rule)
                continue
            # Two keys can be one when trimmed: the one that was spelled so wins, in any order.
            if (
                key.name not in kept
                or (posted_key == key.name)
                or (spelled[key.name] != key.name and posted_key < spelled[key.name])
            ):
                kept[key.name] = verdict.value
                spelled[key.name] = posted_key
            self._note(where, verdict.result, verdict.rule)
        return kept

    def _judged(self, posted_key: str, value: Any, fields: Mapping[str, Kind], *, top: bool) -> Key:
        """Return what becomes of a key with this value: of another kind it is as undeclared."""
        declared = fields.get(posted_key)
        if declared is not None:
            key = self.declared(posted_key, declared)
        else:
            key = self.key(posted_key, top=top)
        if key.kind is None or (kind := key.kind.of(value)) is key.kind:
            return key
        return self.of_wrong_kind(posted_key, top=top) if kind is None else key._replace(kind=kind)

    def of_wrong_kind(self, key: str, *, top: bool) -> Key:
        """Return what becomes of a declared key whose value is of another kind."""
        return Key(key, key, normal=key)

    def _list(self, posted: Iterable[Any], key: Key, depth: int, path: str) -> list[Any]:
        kept: list[Any] = []
        item_kind = key.kind.item if key.kind is not None and key.kind.name == "list" else None
        for index, item in enumerate(posted):
            where = f"{path}[{index}]"
            if len(kept) >= MAX_ITEMS:
                self._note(where, "dropped", "too_many_items")
                break
            kind = item_kind.of(item) if item_kind is not None else None
            if self.drops_undeclared and kind is None:
                self._note(where, "dropped", "undeclared")
                continue
            verdict = self._value(item, key._replace(kind=kind), depth, where)
            if isinstance(verdict, Dropped):
                self._note(where, "dropped", verdict.rule)
                continue
            kept.append(verdict.value)
            if verdict.result != "kept":
                self._note(where, verdict.result, verdict.rule)
        return kept

    # Values

    def _value(self, value: Any, key: Key, depth: int, path: str) -> Kept | Dropped:
        if value is None:
            return Kept(None, "kept", "empty")
        if key.secret:
            return Kept("[redacted:secret]", "redacted", "secret_key")
        if isinstance(value, str):
            return self.text(value, key)
        if isinstance(value, bool):
            return Kept(bool(value), "kept", "flag")
        if isinstance(value, int | float):
            return self.number(value, key)
        if isinstance(value, Mapping):
            if depth >= MAX_DEPTH:
                return Dropped("too_deep")
            known = key.kind if key.kind is not None and key.kind.name == "object" else None
            inner = self._object(value, depth + 1, f"{path}.", known)
            return Kept(inner, "kept", "container")
        if isinstance(value, list | tuple | set | frozenset):
            if depth >= MAX_DEPTH:
                return Dropped("too_deep")
            return Kept(self._list(value, key, depth + 1, path), "kept", "container")
        return Dropped("unknown_type")

    def declared(self, key: str, kind: Kind) -> Key:
        """Return what becomes of a key that an Object's kind declares."""
        return Key(key, key, kind, normal=names.normal_form(key))

    def text(self, value: str, key: Key) -> Kept:
        """Return a string as it leaves."""
        if key.kind is not None and key.kind.name == "route":
            return Kept(self._route(value), "kept", "route")
        most = self._event.max_text
        if len(value) <= most and (
            value in self._remembered.labels or is_plain(value) or _is_id(value) or is_quiet(value)
        ):
            return Kept(value, "kept", "identified")
        text = clean_text(value)
        cleaned, secrets, addresses = _safe(text)
        bounded = cleaned[:most]
        for _ in range(_CUTS):
            if len(cleaned) <= most:
                break
            # What was cut in its middle may read as something else.
            cleaned, more, _ = _safe(bounded)
            bounded, secrets = cleaned[:most], secrets or more
        else:
            bounded = "" if len(cleaned) > most else bounded
        if secrets:
            return Kept(bounded, "redacted", "secret")
        if addresses:
            return Kept(bounded, "bounded", "url")
        if len(text) > most:
            return Kept(bounded, "bounded", "cut")
        if text != value:
            return Kept(bounded, "bounded", "cleaned")
        self._remembered.keep(self._remembered.labels, text)
        return Kept(bounded, "kept", "identified")

    def number(self, value: float, key: Key) -> Kept | Dropped:
        """Return a number as it leaves."""
        if isinstance(value, float):
            if not math.isfinite(value):
                return Dropped("not_finite")
        elif not -MAX_WHOLE <= value <= MAX_WHOLE:
            return Dropped("too_large_number")
        # What the catalogue declares a count is one, whatever its digits.
        if not is_number_kind(key.kind) and (kind := shapes.number_shape(value)):
            return Kept(f"[redacted:{kind}]", "redacted", "shape")
        plain = float(value) if isinstance(value, float) else int(value)
        return Kept(plain, "kept", self._rule_of(key))

    def _rule_of(self, key: Key) -> str:
        return key.kind.name if key.kind is not None and is_number_kind(key.kind) else "number"

    # The receipt

    def _note(self, path: str, result: Result, rule: str) -> None:
        if self._lines is not None and len(self._lines) < MAX_LINES:
            self._lines.append(Line(path, result, rule))


#: An id of the product's databases, unless it begins as an IBAN of this length does (Andorra).
_OBJECT_ID = re.compile(r"(?:([a-z]{2,12}_))?(?!ad\d\d)[0-9a-f]{24}")
#: With one word before it: `call_…`, `run_…`.
_LONGEST_ID: Final = 37


_TEXT: Final = frozenset({str})


def _are_among(labels: set[str], values: Sequence[Any]) -> bool:
    """Whether all values are among these labels: one question for all of them."""
    try:
        return labels.issuperset(values)
    except TypeError:
        # A list or an object where a label is declared.
        return False


def _are_texts(items: list[Any]) -> bool:
    return _TEXT.issuperset(map(type, items))


def _is_id(text: str) -> bool:
    if not 24 <= len(text) <= _LONGEST_ID:
        return False
    found = _OBJECT_ID.fullmatch(text)
    return found is not None and found[1] not in PREFIXES


def _safe(text: str) -> tuple[str, bool, bool]:
    """Return a text without secrets and with clean addresses, and whether it had any of either."""
    without, secrets = shapes.redact_secrets(text)
    if "anon_" in without:
        without = _ANONYMOUS_ID.sub("[redacted:uuid]", without)
    cleaned = urls.clean_urls(without)
    return cleaned, bool(secrets), cleaned != without


def is_number_kind(kind: Kind | None) -> bool:
    """Whether a number is what the catalogue declares here."""
    return kind is not None and kind.name in ("count", "duration")
