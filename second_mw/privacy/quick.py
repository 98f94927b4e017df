"""The quick way through the rules, for events in which there is nothing to look at closely.

Nearly every event of a product is declared counts and flags, known words, keys that go, and a few
labels that have been seen before. For those this module gives the very properties that `anonymize`
and `sanitize` would give, at a fraction of the cost; as soon as anything is unusual (a container,
an odd character, a word that might be somebody's name, a value of another kind) it gives None, and
the careful walk begins from the start. So a mistake here can only be one of being too sure: the
tests compare both ways over arbitrary events. Receipts are kept by the careful walk alone.

What it remembers: per event and key, what the key means (of a key that goes only its hash, for the
key may be data); for the keys that an event had together, which of them mean the same; and labels
that passed for somebody. Tables are bounded, and emptied when full.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import msgspec

from second_mw.privacy import identity as identities
from second_mw.privacy import views
from second_mw.privacy.anonymize import Rulebook, is_version, judged_text
from second_mw.privacy.catalogue import Kind
from second_mw.privacy.identity import Identity, compact, folded
from second_mw.privacy.sanitize import (
    MAX_KEYS,
    NUMBERS,
    PLANS,
    Key,
    Taker,
    are_flags,
    are_small,
    clean_text,
    cut_key,
    taker_of,
)
from second_mw.privacy.secrets import is_plain
from second_mw.privacy.shapes import shape_of

#: Labels remembered for each way of judging, and keys for each event.
_REMEMBERED: Final = 4096
#: Longer values are judged anew each time.
_LONGEST: Final = 64
#: Values with nothing within.
_SCALARS: Final = frozenset({str, int, float, bool, type(None)})
_TEXT: Final = frozenset({str})
#: How many events' words are remembered to hold nothing of a user.
_CLEAR: Final = 32
#: So much of a name is looked for before its compact form is made.
_BEGINNING: Final = 4
_DIGITS: Final = re.compile(r"\d+")
#: A shorter text names nobody.
_NAMED: Final = 4
#: What no card number reaches.
_SMALL: Final = 10**11

Means = Literal["gone", "ident", "number", "flag", "word", "undeclared", "look"]


class Rule(NamedTuple):
    """What a key means.

    Args:
        means: `gone` is dropped; `ident` is, and its values are looked for; `look` is for the
            careful walk.
        key: as the careful walk knows it.
        passed: the labels that passed under keys like this, with their compact form.
        compact: the key's own compact form, empty where the catalogue declares it.
    """

    means: Means
    key: Key
    vocabulary: frozenset[str]
    passed: dict[str, str]
    compact: str = ""


_MEANS: Final[dict[str, Means]] = {
    "count": "number",
    "duration": "number",
    "flag": "flag",
    "label": "word",
    "model": "word",
    "route": "word",
}
_WORDS: Final = frozenset({"word", "undeclared"})
_LOOK: Final = Rule("look", Key("", ":key"), frozenset(), {})
_GONE: Final = Rule("gone", Key("", ":key"), frozenset(), {})
_GONE_IDENT: Final = Rule("ident", Key("", ":key"), frozenset(), {})


class Plan(msgspec.Struct, frozen=True, gc=False):
    """What the keys mean that an event has, all of them declared or known to leave.

    With it the values of one meaning are looked at together, by functions that are not Python's:
    a third of the cost of one after the other. A Struct, as all whose attributes are asked for at
    each event: on CPython 3.13 a NamedTuple's cost three times as much.

    Args:
        leaves_out: the keys that go.
        numbers, flags, gone, idents, words: take the values under keys that mean so; None without
            any.
        rules: of the words, each with its key, its vocabulary and the labels that it knows.
        forms: compact forms of the keys that the catalogue doesn't declare.
        together: the words that left together as they were → their compact forms.
    """

    leaves_out: tuple[str, ...]
    numbers: Taker | None
    flags: Taker | None
    gone: Taker | None
    idents: Taker | None
    words: Taker | None
    rules: tuple[tuple[str, frozenset[str], dict[str, str], Rule], ...]
    forms: tuple[str, ...]
    together: dict[tuple[str, ...], str]


class Read(msgspec.Struct, frozen=True, gc=False):
    """What the words of one event say.

    Args:
        forms: compact forms of what leaves, the keys' own first.
        new: the labels that have not passed before: the table to keep each in, the label, its form.
        numbers: numbers that stood in a word's place.
        left_as_they_were: whether each word is text and leaves as it is.
    """

    forms: list[str]
    new: list[tuple[dict[str, str], str, str]]
    numbers: list[float]
    left_as_they_were: bool


class Quick:
    """The quick way of anonymized mode.

    Args:
        rules: what every key means.
    """

    def __init__(self, rules: Rulebook) -> None:
        self._rules = rules
        #: One table of labels that passed for each way of judging them.
        self._passed: dict[str, dict[str, str]] = {
            name: {} for name in ("label", "version", "model", "route")
        }
        self._routes = self._passed["route"]
        self._known = {
            event.name: {
                key: self._rule(rules.key(event.name, key, top=True)) for key in event.properties
            }
            for event in rules.catalogue
        }
        # Keys that go, by their hashes: what was dropped is not remembered itself (spec §17).
        self._gone: dict[str, set[int]] = {event: set() for event in self._known}
        #: The same of keys beyond the bound that name nothing.
        self._surplus: dict[str, set[int]] = {event: set() for event in self._known}
        self._plans: dict[str, dict[tuple[str, ...], Plan]] = {event: {} for event in self._known}
        #: How many words are remembered to have been together.
        self._together = 0

    def properties(
        self,
        event: str,
        posted: Mapping[str, Any],
        user: Identity,
        clear: set[str],
        keys: tuple[str, ...] = (),
    ) -> tuple[dict[str, Any], list[str]] | None:
        """Return the properties as they leave and what Ident values named, None if in doubt.

        Args:
            clear: for this user's next events; compact forms that were together in an event before
                and hold nothing of the user.
            keys: those that were posted, empty if nobody has listed them yet.
        """
        if not isinstance(posted, dict) or len(posted) > MAX_KEYS:
            return self._one_by_one(event, posted, user)
        keys = keys or tuple(posted)
        plan = self._plans[event].get(keys)
        if plan is None:
            found = self._one_by_one(event, posted, user)
            if posted.keys() <= self._known[event].keys():
                self._plan(event, keys)
            return found
        named = _named(plan.idents(posted)) if plan.idents is not None else []
        numbers = plan.numbers(posted) if plan.numbers is not None else ()
        if (
            named is None
            or (numbers and not are_small(numbers))
            or (plan.flags is not None and not are_flags(plan.flags(posted)))
            or (plan.gone is not None and not _name_nothing(plan.gone(posted)))
        ):
            return self._one_by_one(event, posted, user)
        kept = posted.copy()
        for key in plan.leaves_out:
            del kept[key]
        words = plan.words(posted) if plan.words is not None else ()
        try:
            said = plan.together.get(words)
        except TypeError:
            # A list or an object where a word is declared.
            said = None
        if said is not None:
            for word in words:
                if type(word) is not str:
                    # It equals one that passed, and may be encoded otherwise.
                    said = None
                    break
        if said is not None:
            if (said or numbers) and self._is_doubtful(kept, said, numbers, named, user, clear):
                return None
            return kept, named
        read = self._read(event, plan, words, kept)
        if read is None:
            return self._one_by_one(event, posted, user)
        said = "\n".join(read.forms)
        if self._is_doubtful(kept, said, (*numbers, *read.numbers), named, user, None):
            return None
        if read.new:
            _keep(read.new)
        elif read.left_as_they_were:
            # Each had been seen; next time they are seen together.
            self._keep_together(plan, words, said)
        return kept, named

    def _read(
        self, event: str, plan: Plan, words: tuple[Any, ...], kept: dict[str, Any]
    ) -> Read | None:
        """Look at the words of an event one by one, None if one is to be looked at closely.

        Args:
            kept: what leaves; a word that leaves otherwise than it was is put into it.
        """
        forms = list(plan.forms)
        new: list[tuple[dict[str, str], str, str]] = []
        numbers: list[Any] = []
        left_as_they_were = True
        for (key, vocabulary, passed, rule), value in zip(plan.rules, words, strict=True):
            if value.__class__ is str:
                if value in vocabulary:
                    continue
                form = passed.get(value)
                if form is None:
                    leaves = self._judged(event, rule, value)
                    if leaves is None:
                        return None
                    kept[key], form = leaves
                    if not form:
                        left_as_they_were = False
                        continue
                    new.append((passed, value, form))
                forms.append(form)
                continue
            left_as_they_were = False
            if value is None:
                continue
            if rule.means != "undeclared":
                return None
            if value.__class__ is not bool:
                if value.__class__ not in NUMBERS or not are_small((value,)):
                    return None
                numbers.append(value)
        return Read(forms, new, numbers, left_as_they_were)

    def _keep_together(self, plan: Plan, words: tuple[Any, ...], said: str) -> None:
        if self._together >= _REMEMBERED:
            self._together = 0
            for plans in self._plans.values():
                for other in tuple(plans.values()):
                    other.together.clear()
        self._together += 1
        plan.together[words] = said

    def _plan(self, event: str, keys: tuple[str, ...]) -> None:
        """Remember what these keys mean together, if each is declared or known to leave."""
        known, plans = self._known[event], self._plans[event]
        rules = {key: known[key] for key in keys}
        if any(rule.means == "look" for rule in rules.values()):
            return
        if len(plans) >= PLANS:
            plans.clear()

        def taker(means: Means) -> Taker | None:
            return taker_of([key for key, rule in rules.items() if rule.means == means])

        words = {key: rule for key, rule in rules.items() if rule.means in _WORDS}
        plans[keys] = Plan(
            tuple(key for key, rule in rules.items() if rule.means in ("gone", "ident")),
            taker("number"),
            taker("flag"),
            taker("gone"),
            taker("ident"),
            taker_of(list(words)),
            tuple((key, rule.vocabulary, rule.passed, rule) for key, rule in words.items()),
            tuple(rule.compact for rule in rules.values() if rule.compact),
            {},
        )

    def _one_by_one(
        self, event: str, posted: Mapping[str, Any], user: Identity
    ) -> tuple[dict[str, Any], list[str]] | None:
        known = self._known[event]
        kept: dict[str, Any] = {}
        named: list[str] = []
        #: Compact forms of whatever leaves and could be somebody's.
        said: list[str] = []
        new: list[tuple[dict[str, str], str, str]] = []
        numbers: list[float] = []
        # One loop with everything in it: a call for each property costs as much as its decision.
        for key, value in posted.items():
            if len(kept) >= MAX_KEYS and key not in known:
                # What is too much only tells what is not to leave.
                if value.__class__ not in _SCALARS or not self._is_surplus(event, key):
                    return None
                continue
            rule = known.get(key)
            if rule is None:
                rule = self._learned(event, key)
            means, _, vocabulary, passed, key_form = rule
            if means == "gone":
                if not _name_nothing((value,)):
                    return None
                continue
            if means == "ident":
                texts = _named((value,))
                if texts is None:
                    return None
                named += texts
                continue
            if means == "look":
                return None
            if len(kept) >= MAX_KEYS:
                if value.__class__ not in _SCALARS:
                    return None
                continue
            kind = value.__class__
            if kind is str:
                if value in vocabulary:
                    kept[key] = value
                    continue
                if means == "number" or means == "flag":
                    return None
                form = passed.get(value)
                if form is None:
                    leaves = self._judged(event, rule, value)
                    if leaves is None:
                        return None
                    kept[key], form = leaves
                    if form:
                        new.append((passed, value, form))
                        said.append(form)
                else:
                    kept[key] = value
                    said.append(form)
            elif kind is int or kind is float:
                if not -_SMALL < value < _SMALL or (means != "number" and means != "undeclared"):
                    return None
                kept[key] = value
                numbers.append(value)
            elif value is None:
                kept[key] = None
            elif kind is bool:
                if means != "flag" and means != "undeclared":
                    return None
                kept[key] = value
            else:
                return None
            if key_form:
                said.append(key_form)
        together = "\n".join(said)
        if self._is_doubtful(kept, together, numbers, named, user, None):
            return None
        _keep(new)
        return kept, named

    def _is_doubtful(
        self,
        kept: dict[str, Any],
        said: str,
        numbers: Sequence[float],
        named: list[str],
        user: Identity,
        clear: set[str] | None,
    ) -> bool:
        """Whether anything that leaves could hold identity: asked once for all of it.

        Args:
            said: the compact forms of the words and keys that leave, one a line.
            clear: what was found to hold nothing of this user; None if `said` is seen once.
        """
        if said and (clear is None or said not in clear):
            if identities.stands_in(user.compacts, said):
                return True
            if clear is not None:
                if len(clear) >= _CLEAR:
                    clear.clear()
                clear.add(said)
        if user.digits and not user.digits.isdisjoint(_DIGITS.findall(repr(numbers))):
            return True
        if user.whole and self._are_whole(kept, said, user.whole):
            return True
        if not named:
            return False
        if len(named) > identities.MOST_NAMED:
            return True
        for text in named:
            beginning = text[:_BEGINNING].lower()
            if (
                beginning not in said
                and text.isascii()
                and beginning.isalnum()
                and not beginning.isdecimal()
            ):
                # Nearly every name ends here.
                continue
            is_id = text.isascii() and text.isalnum()
            form = text.lower() if is_id else compact(folded(text))
            if not form:
                if not text.isascii():
                    return True
            elif form in said or (form.isdecimal() and form in repr(numbers)):
                return True
        return False

    def _are_whole(self, kept: dict[str, Any], said: str, whole: frozenset[str]) -> bool:
        """Whether one of a user's short ids is all of a key, a value or what it reads as."""
        if not set(map(compact, whole)).isdisjoint(said.split("\n")):
            return True
        return any(
            isinstance(value, str) and folded(value).strip() in whole
            for value in (*kept.values(), *kept)
        )

    def _judged(self, event: str, rule: Rule, value: str) -> tuple[str, str] | None:
        """Return a string as it leaves with its compact form, which a placeholder has none of."""
        if not value:
            return "", ""
        key = rule.key
        if not is_plain(value) or rule.passed is self._routes:
            verdict = judged_text(value, key, self._rules.templates)
            if verdict.result == "redacted":
                if key.kind is None and not self._rules.has_warned(event, key):
                    # The warning names the key, which has not been compared with the user yet.
                    return None
                return verdict.value, ""
            if verdict.value != value or len(value) > _LONGEST or not value.isascii():
                return None
        form = _form_with_views(value)
        return None if form is None else (value, form)

    # Keys

    def _is_surplus(self, event: str, key: object) -> bool:
        """Whether a key beyond the bound is spelled as it would leave, and names nothing."""
        surplus = self._surplus[event]
        hashed = hash(key)
        if hashed in surplus:
            return True
        if not isinstance(key, str) or cut_key(clean_text(key).strip()) != key:
            return False
        if self._rules.is_ident(event, key, top=True):
            return False
        if len(surplus) >= _REMEMBERED:
            surplus.clear()
        surplus.add(hashed)
        return True

    def _rule(self, key: Key) -> Rule:
        kind = key.kind
        if key.rule is not None:
            is_ident = kind is not None and kind.danger == "ident"
            return Rule("ident" if is_ident else "gone", key, frozenset(), {})
        if kind is None or kind.alternative is not None or kind.name not in _MEANS:
            return Rule("look", key, frozenset(), {})
        return Rule(_MEANS[kind.name], key, kind.vocabulary, self._passed.get(_way(kind, key), {}))

    def _learned(self, event: str, key: object) -> Rule:
        """Return what a key means that the catalogue does not declare."""
        if not isinstance(key, str):
            return _LOOK
        gone = self._gone[event]
        hashed = hash(key)
        if hashed in gone:
            return _GONE
        judged = self._rules.key(event, key, top=True)
        if judged.secret:
            return _LOOK
        if judged.rule is not None:
            if self._rules.is_ident(event, key, top=True):
                return _GONE_IDENT
            if len(gone) >= _REMEMBERED:
                gone.clear()
            gone.add(hashed)
            return _GONE
        # One that is cut, too, is looked at closely, and so read once only.
        form = _form_with_views(key) if key.isascii() and judged.name == key else None
        if form is None:
            return _LOOK
        way = "version" if is_version(judged) else "label"
        rule = Rule("undeclared", judged, frozenset(), self._passed[way], form or "\n")
        known = self._known[event]
        if len(known) < _REMEMBERED:
            known[key] = rule
            # What passed is no id and not reserved, so it tells no workspace and no mode.
            self._rules.silent[event].add(key)
        return rule


def _keep(passed: list[tuple[dict[str, str], str, str]]) -> None:
    """Remember labels that passed, each in its table with its compact form."""
    for table, text, form in passed:
        if len(table) >= _REMEMBERED:
            table.clear()
        table[text] = form


def _named(values: Iterable[Any]) -> list[str] | None:
    """Return the texts long enough to name somebody among Ident values, None if one is deeper."""
    named: list[str] = []
    for value in values:
        if type(value) is str:
            if len(value) >= _NAMED:
                named.append(value)
        elif _are_texts(value):
            named += [text for text in value if len(text) >= _NAMED]
        elif value.__class__ not in _SCALARS:
            return None
    return named


def _name_nothing(values: tuple[Any, ...]) -> bool:
    """Whether there is nothing named within values that go."""
    if _SCALARS.issuperset(map(type, values)):
        return True
    return all(value.__class__ in _SCALARS or _are_texts(value) for value in values)


def _are_texts(value: Any) -> bool:
    return value.__class__ is list and _TEXT.issuperset(map(type, value))


def _way(kind: Kind, key: Key) -> str:
    if kind.name != "label":
        return kind.name
    return "version" if is_version(key) else "label"


def _form_with_views(text: str) -> str | None:
    """Return the compact forms of an ASCII text and its views, None if a view has a shape.

    What short words decode to by chance (alpha is base64 of jZa) is somebody's name as seldom.
    """
    if views.says_no_more(text):
        return compact(text.lower())
    forms = [compact(text.lower())]
    seen = views.views(text)
    for view in seen:
        if shape_of(view):
            return None
        forms.append(compact(folded(view)))
    for outer in (text, *seen):
        forms += [compact(folded(reading)) for reading in views.readings(outer)]
    return "\n".join(forms)
