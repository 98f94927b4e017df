"""The receipt: what the privacy core did to each property, and by which rule, in words (spec §8).

A receipt holds no value, and a key only if the catalogue declares it or it passes the key tests;
any other key is `:key`. It carries the uuid and distinct_id of the payload, never the user.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

Result = Literal["kept", "dropped", "redacted", "bounded"]

#: Rule → what it says to a privacy officer. The result a rule leads to stands before the colon.
RULES: Final[dict[str, str]] = {
    # kept
    "count": "a count",
    "duration": "a duration",
    "flag": "a yes or no",
    "number": "a number",
    "empty": "nothing in it",
    "vocabulary": "a known word",
    "label": "a machine word",
    "model": "a model's name",
    "route": "a route's shape",
    "host_route": "one of the host's own routes",
    "container": "judged value by value",
    "identified": "the user chose to be identified",
    # dropped
    "empty_key": "the key is empty",
    "unsafe_key": "the key is unsafe in JavaScript",
    "posthog_key": "keys with $ are PostHog's own",
    "anonymous_id": "the anonymous id would join this event with anonymous ones",
    "reserved": "the server writes this itself",
    "identifying_key": "names a person, a workspace or a thing of theirs",
    "identifying_ending": (
        "its ending (_name, _id, _url, …) says that it identifies; if it doesn't, declare it"
    ),
    "free_text": "free text",
    "identifying_value_in_key": "the key itself identifies",
    "undeclared": "not declared, and only declared properties leave here",
    "not_finite": "not a finite number",
    "too_large_number": "a number beyond what JavaScript can hold",
    "too_many_keys": "more keys than allowed",
    "too_many_items": "more items than allowed",
    "too_deep": "nested deeper than allowed",
    "unknown_type": "not a JSON value",
    # redacted
    "secret_key": "the key names a secret",
    "secret": "a secret",
    "text": "free text or something that identifies",
    "shape": "looks like something that identifies",
    # bounded
    "cut": "cut to the allowed length",
    "cleaned": "invisible or control characters removed",
    "url": "the address was cleaned",
    "coarse": "rounded",
    "fine_tune": "a fine-tuned model's name, cut to its base",
}


class Line(msgspec.Struct, frozen=True):
    """What became of one property: its key (or a dotted path), the result and the rule."""

    key: str
    result: Result
    rule: str

    @property
    def words(self) -> str:
        """The rule as a person reads it."""
        return RULES[self.rule]


class Receipt(msgspec.Struct, frozen=True):
    """What the privacy core did to one event.

    Args:
        uuid, distinct_id: those of the payload.
        event: the event's name.
        mode: `anonymized` or `identified`.
        lines: one for each property that was posted.
    """

    uuid: str
    distinct_id: str
    event: str
    mode: Literal["anonymized", "identified"]
    lines: tuple[Line, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the receipt as JSON-ready data, each rule with its words."""
        return {
            "uuid": self.uuid,
            "distinct_id": self.distinct_id,
            "event": self.event,
            "mode": self.mode,
            "properties": [
                {"key": line.key, "result": line.result, "rule": line.rule, "words": line.words}
                for line in self.lines
            ],
        }
