"""What PostHog's own acceptance suite checks of an SDK, for both protocols, on the wire.

Events go the whole way here: a finished event, the memory outbox, the forwarder, requests, a
socket. What only one protocol has stands at the end.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from email.utils import formatdate
from itertools import pairwise

import pytest

from second_mw.version import VERSION
from tests.delivery.build import captured, payload, payloads
from tests.delivery.conftest import Line
from tests.delivery.sink import Sink, Wire, fine, results, status

Lay = Callable[..., Line]
TRANSIENT = [408, 500, 502, 503, 504]
FINAL = [400, 401, 402, 403, 404, 405, 410, 413, 415, 418, 422]


@pytest.fixture(params=["v0", "v1"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def line(lay: Lay, protocol: str) -> Line:
    return lay(protocol=protocol)


# Event format


def test_an_event_has_every_required_field(line: Line, sink: Sink) -> None:
    line.send([captured()])
    (event,) = sink.requests[0].batch
    assert {"event", "uuid", "distinct_id", "timestamp", "properties"} == set(event)


def test_the_uuid_is_one(line: Line, sink: Sink) -> None:
    line.send([captured()])
    (text,) = sink.requests[0].uuids
    assert str(uuid.UUID(text)) == text


def test_the_library_is_named(line: Line, sink: Sink) -> None:
    line.send([captured()])
    properties = sink.requests[0].batch[0]["properties"]
    assert (properties["$lib"], properties["$lib_version"]) == ("second-mw", "1.0")
    assert properties["$geoip_disable"] is True


def test_the_distinct_id_is_a_string_at_the_root(line: Line, sink: Sink) -> None:
    line.send([captured(distinct_id="u_7")])
    event = sink.requests[0].batch[0]
    assert event["distinct_id"] == "u_7"
    assert "distinct_id" not in event["properties"]


def test_the_token_is_present(line: Line, sink: Sink, protocol: str) -> None:
    line.send([captured()])
    (request,) = sink.requests
    if protocol == "v0":
        assert request.json["api_key"] == "phc_test"
        assert "authorization" not in request.headers
    else:
        assert request.headers["authorization"] == "Bearer phc_test"
        assert not {"api_key", "sent_at"} & set(request.json)


def test_custom_properties_are_unchanged(line: Line, sink: Sink) -> None:
    custom = {
        "text": 'ä "quoted" \\ \u2028 😀',
        "whole": 2**53,
        "part": 0.1,
        "yes": True,
        "nothing": None,
        "list": [1, "two", [3.5]],
        "object": {"a": {"b": []}},
        "": "empty key",
    }
    line.send([captured(custom)])
    properties = sink.requests[0].batch[0]["properties"]
    assert {key: properties[key] for key in custom} == custom


def test_a_timestamp_is_rfc_3339_in_utc(line: Line, sink: Sink) -> None:
    line.send([captured()])
    text = sink.requests[0].batch[0]["timestamp"]
    assert datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ")


def test_a_timestamp_elsewhere_is_the_same_instant_in_utc(line: Line, sink: Sink) -> None:
    there = datetime(2026, 11, 24, 9, 33, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    line.send([captured(timestamp=there), captured(timestamp="2026-11-23T20:03:00-08:00")])
    assert [event["timestamp"] for event in sink.requests[0].batch] == [
        "2026-11-24T04:03:00.000Z"
    ] * 2


# Batches


def test_several_events_travel_in_one_request_in_their_order(line: Line, sink: Sink) -> None:
    assert line.send(payloads(5)) == (5, 0)
    (request,) = sink.requests
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"] == f"second-mw/{VERSION}"
    assert request.uuids == [item.uuid for item in payloads(5)]


def test_a_flush_of_nothing_sends_nothing(line: Line, sink: Sink) -> None:
    assert line.forwarder.flush(20.0) == (0, 0)
    line.forwarder.start()
    assert line.forwarder.flush(20.0) == (0, 0)
    assert not sink.requests


def test_reaching_flush_at_sends(lay: Lay, sink: Sink, protocol: str) -> None:
    line = lay(protocol=protocol, flush_at=5)
    for item in payloads(4):
        line.put([item])
    assert not sink.requests
    line.put([payload(4)])
    sink.wait_for(lambda: len(sink.requests) == 1)
    assert len(sink.requests[0].batch) == 5


# UUIDs


def test_equal_events_have_uuids_of_their_own(line: Line, sink: Sink) -> None:
    line.send([captured({"n": 1}) for _ in range(10)])
    assert len(set(sink.delivered)) == 10


def test_a_retry_repeats_the_same_events(line: Line, sink: Sink) -> None:
    sink.script.extend([status(503), status(500)])
    assert line.send(payloads(3)) == (3, 0)
    assert len(sink.requests) == 3
    assert sink.requests[0].batch == sink.requests[1].batch == sink.requests[2].batch


def test_a_uuid_is_never_twice_in_a_batch(line: Line, sink: Sink) -> None:
    twice = [payload(1, distinct_id=f"anon_{n}") for n in range(3)]
    assert line.send([*twice, payload(2)]) == (4, 0)
    assert [len(request.batch) for request in sink.requests] == [2, 1, 1]
    assert all(len(set(request.uuids)) == len(request.uuids) for request in sink.requests)


# Retries


@pytest.mark.parametrize("code", TRANSIENT)
def test_it_tries_again_after(line: Line, sink: Sink, code: int) -> None:
    sink.script.append(status(code))
    assert line.send([payload()]) == (1, 0)
    assert len(sink.requests) == 2
    assert line.forwarder.stats()["retried"] == 1


@pytest.mark.parametrize("code", FINAL)
def test_it_does_not_try_again_after(line: Line, sink: Sink, code: int) -> None:
    sink.answer = status(code)
    assert line.send([payload()]) == (0, 1)
    assert len(sink.requests) == 1
    assert not line.pauses


def test_a_broken_connection_is_tried_again(line: Line, sink: Sink) -> None:
    sink.script.append(lambda _: Wire(b""))
    assert line.send([payload()]) == (1, 0)
    assert len(sink.requests) == 2


def test_it_backs_off_from_under_a_second_to_half_a_minute(line: Line, sink: Sink) -> None:
    sink.answer = status(503)
    assert line.send([payload()]) == (0, 1)
    assert len(sink.requests) == 11
    # Long waits are waited in pieces, to hold the lease on between them.
    first = line.pauses[:6]
    assert 0.1 <= first[0] <= 1.0
    assert all(b > a for a, b in pairwise(first))
    assert max(line.pauses) <= 30.0
    assert 100.0 < sum(line.pauses) <= 10 * 30.0


@pytest.mark.parametrize("code", TRANSIENT)
def test_retry_after_in_seconds_is_respected(line: Line, sink: Sink, code: int) -> None:
    sink.script.append(status(code, Retry_After="7"))
    line.send([payload()])
    assert line.pauses == [7.0]


def test_retry_after_as_a_date_is_respected(line: Line, sink: Sink) -> None:
    date = formatdate(datetime.now(timezone.utc).timestamp() + 11, usegmt=True)
    sink.script.append(status(503, Retry_After=date))
    line.send([payload()])
    assert 9.0 < sum(line.pauses) <= 11.0


def test_a_long_retry_after_is_waited_to_its_end(line: Line, sink: Sink) -> None:
    sink.script.append(status(503, Retry_After="100"))
    assert line.send([payload()]) == (1, 0)
    assert sum(line.pauses) == pytest.approx(100.0)


def test_a_short_retry_after_does_not_shorten_the_backoff(line: Line, sink: Sink) -> None:
    sink.script.append(status(503, Retry_After="0"))
    line.send([payload()])
    assert line.pauses[0] >= 0.1


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_max_retries_is_respected(lay: Lay, sink: Sink, protocol: str, retries: int) -> None:
    line = lay(protocol=protocol, max_retries=retries)
    sink.answer = status(503)
    assert line.send([payload()]) == (0, 1)
    assert len(sink.requests) == 1 + retries
    assert line.accounts == (0, 0, 1)


# Compression


def test_gzip_when_enabled(lay: Lay, sink: Sink, protocol: str) -> None:
    lay(protocol=protocol, gzip=True).send([payload()])
    (request,) = sink.requests
    assert request.headers["content-encoding"] == "gzip"
    assert request.raw[:2] == b"\x1f\x8b"
    assert request.uuids == [payload().uuid]


def test_no_content_encoding_when_not(line: Line, sink: Sink) -> None:
    line.send([payload()])
    assert "content-encoding" not in sink.requests[0].headers
    assert json.loads(sink.requests[0].raw)


# v0 only


def test_v0_says_when_each_attempt_was_sent(lay: Lay, sink: Sink) -> None:
    sink.script.append(status(503))
    lay(protocol="v0").send([payload()])
    first, second = (request.json for request in sink.requests)
    assert sink.requests[0].path == "/batch/"
    assert first["sent_at"] <= second["sent_at"]
    assert first["historical_migration"] is False
    assert first["batch"] == second["batch"]


def test_v0_carries_options_as_properties(lay: Lay, sink: Sink) -> None:
    lay(protocol="v0").send([captured({"$process_person_profile": False})])
    event = sink.requests[0].batch[0]
    assert event["properties"]["$process_person_profile"] is False
    assert "options" not in event


@pytest.mark.parametrize("after", ["3", "0"])
def test_v0_keeps_to_the_retry_after_of_a_rate_limit(lay: Lay, sink: Sink, after: str) -> None:
    sink.script.append(status(429, Retry_After=after))
    line = lay(protocol="v0")
    assert line.send(payloads(2)) == (2, 0)
    assert sink.requests[0].batch == sink.requests[1].batch
    (pause,) = line.pauses
    assert pause >= max(float(after), 0.1)


# v1 only


def test_v1_has_every_header_and_counts_attempts(lay: Lay, sink: Sink) -> None:
    sink.script.extend([status(503), status(502)])
    line = lay(protocol="v1")
    line.send([payload(1)])
    line.send([payload(2)])
    headers = [request.headers for request in sink.requests]
    assert [request.path for request in sink.requests] == ["/i/v1/analytics/events"] * 4
    assert [each["posthog-attempt"] for each in headers] == ["1", "2", "3", "1"]
    ids = [each["posthog-request-id"] for each in headers]
    assert ids[0] == ids[1] == ids[2] != ids[3]
    assert {str(uuid.UUID(each)) for each in ids} == set(ids)
    for each in headers:
        assert each["posthog-sdk-info"] == f"second-mw/{VERSION}"
        assert datetime.strptime(each["posthog-request-timestamp"], "%Y-%m-%dT%H:%M:%S.%fZ")


def test_v1_keeps_created_at_over_retries(lay: Lay, sink: Sink) -> None:
    sink.script.append(status(503))
    lay(protocol="v1").send([payload()])
    assert sink.requests[0].raw == sink.requests[1].raw


def test_v1_sends_only_the_retried_events_again_in_the_same_request(lay: Lay, sink: Sink) -> None:
    words = ["ok", "retry", "drop", "limited", "unheard of", "warning", "retry"]
    items = payloads(7)
    sink.script.append(
        results({item.uuid: word for item, word in zip(items, words, strict=True)}, Retry_After="3")
    )
    line = lay(protocol="v1")
    assert line.send(items) == (4, 3)
    first, second = sink.requests
    assert second.uuids == [items[1].uuid, items[6].uuid]
    assert second.headers["posthog-request-id"] == first.headers["posthog-request-id"]
    assert second.json["created_at"] == first.json["created_at"]
    assert second.headers["posthog-attempt"] == "2"
    assert line.pauses == [3.0]
    assert line.forwarder.stats()["dead"] == {"dropped": 1, "limited": 1, "unknown_result": 1}
    assert line.accounts == (4, 3, 0)


def test_v1_gives_up_a_round_in_which_an_event_is_always_to_be_retried(
    lay: Lay, sink: Sink
) -> None:
    sink.answer = lambda request: results(dict.fromkeys(request.uuids, "retry"))(request)
    line = lay(protocol="v1", max_retries=2)
    assert line.send([payload()]) == (0, 1)
    assert len(sink.requests) == 3
    assert line.accounts == (0, 0, 1)
    assert line.forwarder.stats()["circuit"] == "closed"


def test_v1_carries_options_beside_the_properties(lay: Lay, sink: Sink) -> None:
    line = lay(protocol="v1")
    line.send([captured({"$process_person_profile": False, "a": 1}), captured()])
    first, second = sink.requests[0].batch
    assert first["options"] == {"process_person_profile": False}
    assert "$process_person_profile" not in first["properties"]
    assert "options" not in second


@pytest.mark.parametrize("given", [True, False])
def test_v1_says_historical_migration_only_when_set(lay: Lay, sink: Sink, given: bool) -> None:
    lay(protocol="v1", historical_migration=given).send([payload()])
    assert sink.requests[0].json.get("historical_migration") is (True if given else None)


def test_the_sink_itself_answers_as_posthog_does(line: Line, sink: Sink) -> None:
    sink.answer = fine
    assert line.send(payloads(2)) == (2, 0)
