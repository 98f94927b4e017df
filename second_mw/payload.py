"""Payload: the finished event, as it waits in an outbox and travels to PostHog (spec §11).

A leaf. A payload is final and already private; nothing behind this type looks into it again, and
the protocols only join its bytes. `finish` makes one from a finished event that server code hands
to `analytics.outbox.put([event])`.
"""

from __future__ import annotations

import re
import time
import uuid as uuids
from collections.abc import Mapping
from datetime import datetime, timezone
from functools import lru_cache
from typing import Any

import msgspec

from second_mw.user import REFUSED_DISTINCT_IDS

_encode = msgspec.json.Encoder().encode

#: `properties` keys of PostHog's v0 that are options of its v1 (posthog-contract.md, v1).
OPTION_OF_PROPERTY = {
    "$process_person_profile": "process_person_profile",
    "$cookieless_mode": "cookieless_mode",
    "$ignore_sent_at": "disable_skew_correction",
    "$product_tour_id": "product_tour_id",
}

#: Of which type PostHog takes an option, in words too; it drops the event for one of another.
_OPTIONS: dict[str, tuple[Any, str]] = {
    "process_person_profile": (bool, "True or False"),
    "cookieless_mode": (bool, "True or False"),
    "disable_skew_correction": (bool, "True or False"),
    "product_tour_id": (str, "text"),
}
_OTHER_OPTION = (bool | str, "True, False or text")


class Payload(msgspec.Struct, frozen=True, gc=False):
    """One finished event.

    Args:
        event: the event's name.
        uuid: a UUID in its 36-character form, in lower case; with event, timestamp and distinct_id
            it is what PostHog deduplicates on, so it never changes on a retry.
        distinct_id: at most 200 characters, never empty.
        timestamp: RFC 3339, UTC, milliseconds, `2026-11-24T04:03:00.123Z`.
        properties: a JSON object as encoded UTF-8 bytes.
        options: PostHog's v1 options that are set, such as `{"process_person_profile": False}`.
    """

    event: str
    uuid: str
    distinct_id: str
    timestamp: str
    properties: bytes
    options: dict[str, Any] = {}

    @property
    def size(self) -> int:
        """About how many bytes this payload takes in a batch."""
        return len(self.properties) + len(self.event) + len(self.distinct_id) + 160


def as_data(payload: Payload) -> dict[str, Any]:
    """Return a payload as JSON-ready data, its properties decoded: for people to look at."""
    return {
        "event": payload.event,
        "uuid": payload.uuid,
        "distinct_id": payload.distinct_id,
        "timestamp": payload.timestamp,
        "options": payload.options,
        "properties": msgspec.json.decode(payload.properties),
    }


def rfc3339(moment: datetime) -> str:
    """Return an aware datetime as UTC with milliseconds (spec §4).

    >>> rfc3339(datetime(2026, 11, 24, 4, 3, 0, 123456, tzinfo=timezone.utc))
    '2026-11-24T04:03:00.123Z'
    """
    # A format string costs ten times as much; what is cut off is always "+00:00".
    return moment.astimezone(timezone.utc).isoformat(timespec="milliseconds")[:-6] + "Z"


def utc_now() -> str:
    """Return the time it is, as `rfc3339` writes it; most of the text is the second's."""
    now = time.time()
    second = int(now)
    # A thousand more has the zeros in front that a format would write, for twice the cost.
    return f"{_second(second)}.{str(1000 + int((now - second) * 1000))[1:]}Z"


@lru_cache(maxsize=4)
def _second(since_epoch: int) -> str:
    return datetime.fromtimestamp(since_epoch, timezone.utc).isoformat()[:19]


def joined(first: bytes, tail: bytes) -> bytes:
    """Join two encoded JSON objects into one without decoding either.

    >>> joined(b'{"a":1}', tail_of(b'{"b":2}'))
    b'{"a":1,"b":2}'
    """
    return first[:-1] + tail if first != b"{}" else b"{" + tail.lstrip(b",")


def tail_of(second: bytes) -> bytes:
    """Return how an encoded JSON object goes on behind another, to be kept for many joints."""
    return b"," + second[1:] if second != b"{}" else b"}"


_REQUIRED = ("event", "distinct_id")
_KNOWN = {"event", "distinct_id", "properties", "uuid", "timestamp", "options"}
_SURROGATES = re.compile("[\ud800-\udfff]")
#: What joins two ids in PostHog, which nothing here ever does: events, and a property.
_JOINING_EVENTS = frozenset({"$create_alias", "$merge_dangerously"})
_JOINING_PROPERTY = "$anon_distinct_id"


def finish(event: Mapping[str, Any], added: Mapping[str, Any]) -> Payload:
    """Return the payload of a finished event (spec §11, `analytics.outbox.put`).

    Args:
        event: `{"event", "distinct_id", "properties"?, "uuid"?, "timestamp"?, "options"?}`. A
            missing uuid is made (version 4); a timestamp is an aware `datetime` or RFC 3339 text
            and leaves as the same instant in UTC; a missing one is now.
        added: properties that every payload carries; the event's own values win.

    Raises:
        TypeError: a field has the wrong type.
        ValueError: a field is missing, empty, too long, unknown or can't be encoded as JSON; the
            distinct_id is one that PostHog merges strangers under; or the event joins two ids.
    """
    if unknown := sorted(set(event) - _KNOWN):
        raise ValueError(f"unknown field in a finished event: {', '.join(map(repr, unknown))}")
    for name in _REQUIRED:
        value = event.get(name)
        if not isinstance(value, str):
            raise TypeError(f"{name!r} of a finished event must be a string")
        if not value.strip() or len(value) > 200:
            raise ValueError(f"{name!r} of a finished event must have 1 to 200 characters")
    if event["distinct_id"].strip().casefold() in REFUSED_DISTINCT_IDS:
        raise ValueError(
            f"'distinct_id' of a finished event is {event['distinct_id']!r}, a word under which "
            "PostHog would merge strangers into one person: give each an id of its own"
        )
    properties = event.get("properties") or {}
    if not isinstance(properties, Mapping):
        raise TypeError("'properties' of a finished event must be a mapping")
    if event["event"].strip() in _JOINING_EVENTS or _JOINING_PROPERTY in properties:
        raise ValueError(
            "a finished event may not join two ids ($create_alias, $merge_dangerously, "
            f"{_JOINING_PROPERTY}): what was anonymous stays so"
        )
    options = _options_of(event.get("options"))
    kept = {**added, **properties}
    for key, option in OPTION_OF_PROPERTY.items():
        if key in kept and (option in options or isinstance(kept[key], _OPTIONS[option][0] | None)):
            options.setdefault(option, kept.pop(key))
    return Payload(
        event=_SURROGATES.sub("\ufffd", event["event"]),
        uuid=_uuid_of(event.get("uuid")),
        distinct_id=_SURROGATES.sub("\ufffd", event["distinct_id"]),
        timestamp=_timestamp_of(event.get("timestamp")),
        properties=_encoded(kept),
        options=options,
    )


def _options_of(value: object) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise TypeError("'options' of a finished event must be a mapping of names")
    for name, option in value.items():
        kind, words = _OPTIONS.get(name, _OTHER_OPTION)
        if not isinstance(option, kind | None):
            raise TypeError(f"option {name!r} of a finished event must be {words}, or None")
    return dict(value)


def _encoded(properties: dict[str, Any]) -> bytes:
    try:
        return _encode(properties)
    except UnicodeEncodeError:
        return _encode(_mended(properties))


def _mended(value: Any) -> Any:
    """Return the value with unpaired surrogates, which UTF-8 can't hold, as U+FFFD."""
    if isinstance(value, str):
        return _SURROGATES.sub("\ufffd", value)
    if isinstance(value, Mapping):
        return {_mended(key): _mended(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_mended(item) for item in value]
    return value


def _uuid_of(value: object) -> str:
    if value is None:
        return str(uuids.uuid4())
    if isinstance(value, uuids.UUID):
        return str(value)
    if not isinstance(value, str):
        raise TypeError("'uuid' of a finished event must be a string or a UUID")
    try:
        return str(uuids.UUID(value))
    except ValueError:
        raise ValueError("'uuid' of a finished event is no UUID") from None


def _timestamp_of(value: object) -> str:
    if value is None:
        return utc_now()
    if isinstance(value, str):
        try:
            value = msgspec.convert(value, datetime)
        except msgspec.ValidationError:
            raise ValueError("'timestamp' of a finished event is not RFC 3339") from None
    if not isinstance(value, datetime):
        raise TypeError("'timestamp' of a finished event must be a datetime or RFC 3339 text")
    if value.tzinfo is None:
        raise ValueError("'timestamp' of a finished event needs a time zone")
    try:
        return rfc3339(value)
    except OverflowError:
        raise ValueError("'timestamp' of a finished event is out of range in UTC") from None
