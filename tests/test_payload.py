"""Finished events of server code: what is filled in, and what is refused."""

from __future__ import annotations

import uuid as uuids
from datetime import datetime, timezone
from typing import Any

import msgspec
import pytest

from second_mw.payload import Payload, finish, joined, tail_of
from second_mw.user import REFUSED_DISTINCT_IDS

EVENT = {"event": "job done", "distinct_id": "u_1"}


def test_uuid_timestamp_and_library_properties_are_filled_in() -> None:
    before = datetime.now(timezone.utc)
    payload = finish({**EVENT, "properties": {"n": 1}}, {"$lib": "second-mw"})
    assert uuids.UUID(payload.uuid).version == 4
    stamped = msgspec.convert(payload.timestamp, datetime)
    assert before.replace(microsecond=0) <= stamped <= datetime.now(timezone.utc)
    assert msgspec.json.decode(payload.properties) == {"n": 1, "$lib": "second-mw"}
    assert payload.size > len(payload.properties)


def test_an_events_own_values_win() -> None:
    payload = finish({**EVENT, "properties": {"$lib": "mine"}}, {"$lib": "second-mw"})
    assert msgspec.json.decode(payload.properties) == {"$lib": "mine"}


@pytest.mark.parametrize(
    ("given", "leaves"),
    [
        ("2026-11-24T06:03:00.5+02:00", "2026-11-24T04:03:00.500Z"),
        (datetime(2026, 11, 24, 4, 3, tzinfo=timezone.utc), "2026-11-24T04:03:00.000Z"),
    ],
)
def test_a_timestamp_leaves_as_the_same_instant_in_utc(given: Any, leaves: str) -> None:
    assert finish({**EVENT, "timestamp": given}, {}).timestamp == leaves


def test_a_uuid_is_kept_in_its_plain_form() -> None:
    given = uuids.uuid4()
    assert finish({**EVENT, "uuid": given}, {}).uuid == str(given)
    assert finish({**EVENT, "uuid": given.hex}, {}).uuid == str(given)


def test_options_are_carried_and_properties_that_are_options_become_them() -> None:
    payload = finish(
        {
            **EVENT,
            "options": {"cookieless_mode": True},
            "properties": {"$process_person_profile": False, "n": 1},
        },
        {},
    )
    assert payload.options == {"cookieless_mode": True, "process_person_profile": False}
    assert msgspec.json.decode(payload.properties) == {"n": 1}


def test_an_unpaired_surrogate_is_mended_wherever_it_stands() -> None:
    payload = finish(
        {"event": "x\ud800", "distinct_id": "u\ud800", "properties": {"a\ud800": ["\udfff", 1]}}, {}
    )
    assert (payload.event, payload.distinct_id) == ("x\ufffd", "u\ufffd")
    assert msgspec.json.decode(payload.properties) == {"a\ufffd": ["\ufffd", 1]}


@pytest.mark.parametrize(
    ("event", "error", "said"),
    [
        ({"event": "x"}, TypeError, "distinct_id"),
        ({"event": 5, "distinct_id": "u"}, TypeError, "event"),
        ({"event": " ", "distinct_id": "u"}, ValueError, "1 to 200"),
        ({"event": "x", "distinct_id": "u" * 201}, ValueError, "1 to 200"),
        ({**EVENT, "properties": [1]}, TypeError, "properties"),
        ({**EVENT, "uuid": "x"}, ValueError, "no UUID"),
        ({**EVENT, "uuid": 5}, TypeError, "uuid"),
        ({**EVENT, "timestamp": "yesterday"}, ValueError, "RFC 3339"),
        ({**EVENT, "timestamp": 5}, TypeError, "timestamp"),
        ({**EVENT, "timestamp": datetime(2026, 1, 1)}, ValueError, "time zone"),
        ({**EVENT, "timestamp": "0001-01-01T00:00:00+05:00"}, ValueError, "out of range"),
        ({**EVENT, "props": {}}, ValueError, "'props'"),
        ({"event": "$create_alias", "distinct_id": "u_1"}, ValueError, "join two ids"),
        ({"event": "$merge_dangerously", "distinct_id": "u_1"}, ValueError, "join two ids"),
        (
            {
                "event": "$identify",
                "distinct_id": "u_1",
                "properties": {"$anon_distinct_id": "anon_1", "$set": {"plan": "pro"}},
            },
            ValueError,
            "join two ids",
        ),
    ],
)
def test_an_event_that_is_not_finished_is_refused(
    event: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        finish(event, {})


@pytest.mark.parametrize("refused", sorted(REFUSED_DISTINCT_IDS))
def test_no_event_leaves_under_a_word_that_merges_strangers(refused: str) -> None:
    for spelling in (refused, f" {refused.upper()}\n"):
        with pytest.raises(ValueError, match="merge strangers"):
            finish({**EVENT, "distinct_id": spelling}, {})
    # A word that only holds one is an id like any other.
    for own in (f"{refused}_1", f"my {refused}"):
        assert finish({**EVENT, "distinct_id": own}, {}).distinct_id == own


def test_a_host_may_say_itself_who_a_person_is() -> None:
    told = {"event": "$identify", "distinct_id": "u_1", "properties": {"$set": {"plan": "pro"}}}
    assert msgspec.json.decode(finish(told, {}).properties) == {"$set": {"plan": "pro"}}


def test_joining_objects_without_decoding_them() -> None:
    one = b'{"a":1}'
    assert joined(b"{}", tail_of(one)) == joined(one, tail_of(b"{}")) == one
    assert joined(b"{}", tail_of(b"{}")) == b"{}"


def test_a_payload_is_frozen() -> None:
    payload = Payload("x", "u", "d", "t", b"{}")
    with pytest.raises(AttributeError):
        payload.event = "y"  # type: ignore[misc]
