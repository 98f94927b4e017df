"""The acceptance suite once more, from the outside: `Analytics` with the options that such a suite
sets, `outbox.put`, `flush`, `close` and `stats`, a socket, and nothing replaced in between."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from email.utils import formatdate
from typing import Any

import pytest

from second_mw import Analytics
from second_mw.version import VERSION
from tests.delivery.sink import Sink, Wire, results, status
from tests.hosts import ADA

PROTOCOLS = ("v0", "v1")
Sdk = Callable[..., Analytics]


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def sdk(sink: Sink, protocol: str) -> Iterator[Sdk]:
    """Makes an Analytics as an adapter of the suite does."""
    made: list[Analytics] = []

    def make(**options: Any) -> Analytics:
        given = {"token": "phc_test", "host": sink.url, "protocol": protocol}
        made.append(Analytics(**{**given, "flush_interval": 3600.0, **options}))
        return made[-1]

    yield make
    for analytics in made:
        analytics.close(timeout=0.2)


def event(**fields: Any) -> dict[str, Any]:
    return {"event": "test event", "distinct_id": "user-1", **fields}


def sent(sink: Sink) -> list[dict[str, Any]]:
    return [each for request in sink.requests for each in request.batch]


def test_an_event_has_what_it_needs_and_its_own_properties_unchanged(sdk: Sdk, sink: Sink) -> None:
    custom = {
        "text": "ä 😀 \\ \"",
        "n": 1,
        "x": 0.5,
        "yes": True,
        "no": None,
        "list": [1, [2]],
        "deep": {"a": {"b": 1}},
        "$current_url": "https://example.org/?q=1",
        "email": "ada@example.org",
    }  # fmt: skip
    analytics = sdk()
    assert analytics.outbox.put([event(properties=custom)]) == 1
    assert analytics.flush() == (1, 0)
    (one,) = sent(sink)
    assert (one["event"], one["distinct_id"]) == ("test event", "user-1")
    assert str(uuid.UUID(one["uuid"])) == one["uuid"]
    assert {key: one["properties"][key] for key in custom} == custom
    assert one["properties"]["$lib"] == "second-mw"
    assert one["properties"]["$lib_version"] == VERSION
    assert one["properties"]["$ip"] == "0.0.0.0"
    assert datetime.strptime(one["timestamp"], "%Y-%m-%dT%H:%M:%S.%fZ")


def test_a_timestamp_of_another_zone_is_the_same_instant_in_utc(sdk: Sdk, sink: Sink) -> None:
    analytics = sdk()
    there = datetime(2026, 11, 24, 1, 2, 3, 456000, tzinfo=timezone(timedelta(hours=-5)))
    for stamp in (
        there,
        there.isoformat(),
        "2026-11-24T06:02:03.456Z",
        "2026-11-24T07:02:03.456+01:00",
    ):
        analytics.outbox.put([event(timestamp=stamp)])
    analytics.flush()
    assert {one["timestamp"] for one in sent(sink)} == {"2026-11-24T06:02:03.456Z"}


def test_a_given_uuid_is_kept_and_equal_events_have_uuids_of_their_own(
    sdk: Sdk, sink: Sink
) -> None:
    own = str(uuid.uuid4())
    analytics = sdk()
    analytics.outbox.put([event(uuid=own), *(event() for _ in range(20))])
    analytics.flush()
    (request,) = sink.requests
    assert request.uuids[0] == own
    assert len(set(request.uuids)) == 21


@pytest.mark.parametrize(("disable", "said"), [(True, True), (False, None)])
def test_geoip_is_disabled_unless_told_otherwise(
    sdk: Sdk, sink: Sink, disable: bool, said: bool | None
) -> None:
    analytics = sdk(disable_geoip=disable)
    analytics.outbox.put([event()])
    analytics.flush()
    assert sent(sink)[0]["properties"].get("$geoip_disable") is said


def test_reaching_flush_at_sends_without_a_flush_or_the_interval(sdk: Sdk, sink: Sink) -> None:
    analytics = sdk(flush_at=3)
    analytics.outbox.put([event()])
    analytics.outbox.put([event()])
    assert analytics.stats()["waiting"] == 2
    assert not sink.requests
    analytics.outbox.put([event()])
    sink.wait_for(lambda: len(sent(sink)) == 3, timeout=60)
    assert len(sink.requests) == 1


def test_the_interval_sends_what_is_less_than_flush_at(sdk: Sdk, sink: Sink) -> None:
    analytics = sdk(flush_interval=0.1)
    analytics.outbox.put([event()])
    sink.wait_for(lambda: len(sent(sink)) == 1, timeout=60)


def test_a_flush_of_nothing_sends_nothing(sdk: Sdk, sink: Sink) -> None:
    analytics = sdk()
    assert analytics.flush() == (0, 0)
    analytics.outbox.put([])
    assert analytics.flush() == (0, 0)
    assert not sink.requests


def test_closing_sends_what_waits(sdk: Sdk, sink: Sink) -> None:
    analytics = sdk()
    analytics.outbox.put([event() for _ in range(3)])
    assert analytics.close() == (3, 0)
    assert len(sent(sink)) == 3


@pytest.mark.parametrize("code", [408, 500, 502, 503, 504])
def test_a_passing_failure_is_tried_again_with_the_same_events(
    sdk: Sdk, sink: Sink, code: int
) -> None:
    sink.script.append(status(code))
    analytics = sdk()
    analytics.outbox.put([event(), event()])
    assert analytics.flush(60.0) == (2, 0)
    first, second = sink.requests
    assert first.batch == second.batch


def test_a_connection_that_breaks_is_tried_again(sdk: Sdk, sink: Sink) -> None:
    sink.script.append(lambda _: Wire(b""))
    analytics = sdk()
    analytics.outbox.put([event()])
    assert analytics.flush(60.0) == (1, 0)
    assert sink.requests[0].batch == sink.requests[1].batch


@pytest.mark.parametrize("code", [400, 401, 402, 403, 404, 413, 415, 422, 429])
def test_other_failures_are_not_tried_again_at_once(sdk: Sdk, sink: Sink, code: int) -> None:
    sink.answer = status(code)
    analytics = sdk()
    analytics.outbox.put([event()])
    assert analytics.flush(2.0) == (0, 1)
    assert len(sink.requests) == 1
    stats = analytics.stats()
    # What is refused is dead, with its reason; what is our own fault waits for better days.
    assert (stats["dead"], stats["waiting"]) == ((1, 0) if code in (400, 413) else (0, 1))


@pytest.mark.parametrize("retries", [0, 1, 2])
def test_max_retries_bounds_the_attempts_and_loses_nothing(
    sdk: Sdk, sink: Sink, retries: int
) -> None:
    sink.answer = status(503)
    analytics = sdk(max_retries=retries)
    analytics.outbox.put([event()])
    assert analytics.flush(60.0) == (0, 1)
    assert len(sink.requests) == retries + 1
    stats = analytics.stats()
    assert (stats["waiting"], stats["dead"], stats["delivered"]) == (1, 0, 0)
    # Nor is it sent again by a further flush: the next round is half a minute away.
    assert analytics.flush(0.5) == (0, 1)
    assert len(sink.requests) == retries + 1


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_never_undercut(sdk: Sdk, sink: Sink, as_date: bool) -> None:
    arrived: list[float] = []

    def note(request: Any) -> Any:
        arrived.append(time.time())
        after = formatdate(arrived[0] + 2, usegmt=True) if as_date else "2"
        return status(503, Retry_After=after)(request)

    sink.script.append(note)
    sink.script.append(lambda request: (arrived.append(time.time()), _fine(request))[1])
    analytics = sdk()
    analytics.outbox.put([event()])
    assert analytics.flush(60.0) == (1, 0)
    # Only that it is not earlier: how much later is the machine's affair. A date has whole seconds,
    # so it may be up to one earlier than what was meant.
    assert arrived[1] - arrived[0] >= (1.0 if as_date else 2.0)


def _fine(request: Any) -> Any:
    words = dict.fromkeys(request.uuids, "ok")
    return (
        results(words)(request)
        if request.path.startswith("/i/v1/")
        else status(200, body=b'{"status":1}')(request)
    )


@pytest.mark.parametrize("protocol", ["v0"], indirect=True)
def test_v0_asks_again_when_a_rate_limit_says_when(sdk: Sdk, sink: Sink) -> None:
    sink.script.append(status(429, Retry_After="1"))
    analytics = sdk()
    analytics.outbox.put([event(), event()])
    assert analytics.flush(60.0) == (2, 0)
    first, second = sink.requests
    assert first.batch == second.batch


@pytest.mark.parametrize("packed", [True, False])
def test_gzip_is_said_when_it_is_done(sdk: Sdk, sink: Sink, packed: bool) -> None:
    analytics = sdk(gzip=packed)
    analytics.outbox.put([event()])
    analytics.flush()
    (request,) = sink.requests
    assert request.headers.get("content-encoding") == ("gzip" if packed else None)
    assert (request.raw[:2] == b"\x1f\x8b") is packed
    assert len(request.batch) == 1


@pytest.mark.parametrize("given", [True, False])
def test_a_historical_migration_is_said(sdk: Sdk, sink: Sink, given: bool, protocol: str) -> None:
    analytics = sdk(historical_migration=given)
    analytics.outbox.put([event()])
    analytics.flush()
    expected = given if protocol == "v0" else (True if given else None)
    assert sink.requests[0].json.get("historical_migration") is expected


def test_the_token_is_where_the_protocol_wants_it(sdk: Sdk, sink: Sink, protocol: str) -> None:
    analytics = sdk()
    analytics.outbox.put([event()])
    analytics.flush()
    (request,) = sink.requests
    if protocol == "v0":
        assert (request.path, request.json["api_key"]) == ("/batch/", "phc_test")
        assert "sent_at" in request.json
    else:
        assert request.path == "/i/v1/analytics/events"
        assert request.headers["authorization"] == "Bearer phc_test"
        assert set(request.json) == {"created_at", "batch"}


OPTIONS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"options": {"process_person_profile": False}}, {"process_person_profile": False}),
    ({"properties": {"$process_person_profile": False}}, {"process_person_profile": False}),
    (
        {
            "options": {
                "cookieless_mode": True,
                "product_tour_id": "t1",
                "process_person_profile": None,
            }
        },
        {"cookieless_mode": True, "product_tour_id": "t1"},
    ),
    ({"properties": {"$ignore_sent_at": None}}, {}),
    (
        {
            "options": {"process_person_profile": True},
            "properties": {"$process_person_profile": False},
        },
        {"process_person_profile": True},
    ),
    ({"options": {}}, {}),
    ({}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("given", "carried"), OPTIONS)
def test_options_are_carried_and_unset_ones_left_out(
    sdk: Sdk, sink: Sink, protocol: str, given: dict[str, Any], carried: dict[str, Any]
) -> None:
    analytics = sdk()
    analytics.outbox.put([event(**given)])
    analytics.flush()
    (one,) = sent(sink)
    if protocol == "v1":
        assert one.get("options", {}) == carried
        assert ("options" in one) is bool(carried)
        assert not [key for key in one["properties"] if key.startswith("$process")]
    else:
        assert "options" not in one
        for option, value in carried.items():
            assert one["properties"][f"${option}"] == value


def test_a_property_that_can_be_no_option_stays_a_property_and_costs_no_event(
    sdk: Sdk, sink: Sink
) -> None:
    given = {"$process_person_profile": "no", "$ignore_sent_at": 1, "$product_tour_id": True}
    analytics = sdk()
    analytics.outbox.put([event(properties=given)])
    analytics.flush()
    (one,) = sent(sink)
    assert "options" not in one
    assert {key: one["properties"][key] for key in given} == given


@pytest.mark.parametrize("protocol", ["v1"], indirect=True)
def test_v1_has_every_header_on_every_attempt(sdk: Sdk, sink: Sink) -> None:
    sink.script.append(status(503))
    analytics = sdk()
    analytics.outbox.put([event()])
    analytics.flush(60.0)
    analytics.outbox.put([event()])
    analytics.flush(60.0)
    seen = [request.headers for request in sink.requests]
    assert [headers["posthog-attempt"] for headers in seen] == ["1", "2", "1"]
    ids = [headers["posthog-request-id"] for headers in seen]
    assert ids[0] == ids[1] != ids[2]
    assert {uuid.UUID(one).version for one in ids} == {4}
    for headers in seen:
        assert headers["content-type"] == "application/json"
        assert headers["user-agent"]
        assert headers["posthog-sdk-info"] == f"second-mw/{VERSION}"
        assert datetime.strptime(headers["posthog-request-timestamp"], "%Y-%m-%dT%H:%M:%S.%fZ")
    first, second = (request.json["created_at"] for request in sink.requests[:2])
    assert first == second


@pytest.mark.parametrize("protocol", ["v1"], indirect=True)
def test_v1_sends_again_only_what_is_to_be_tried_again(sdk: Sdk, sink: Sink) -> None:
    words = ["ok", "warning", "drop", "limited", "brand new word", "retry"]
    own = [str(uuid.uuid4()) for _ in words]
    sink.script.append(results(dict(zip(own, words, strict=True))))
    analytics = sdk()
    analytics.outbox.put([event(uuid=one) for one in own])
    assert analytics.flush(60.0) == (3, 3)
    assert sink.requests[1].uuids == [own[5]]
    assert len(sink.requests) == 2
    stats = analytics.stats()
    assert (stats["delivered"], stats["dead"], stats["waiting"]) == (3, 3, 0)
    reasons = {
        letter.payload.uuid: letter.reason for letter in analytics.outbox.store.dead_letters(9)
    }
    assert {one: reasons[one].partition(":")[0] for one in own[2:5]} == {
        own[2]: "dropped", own[3]: "limited", own[4]: "unknown_result",
    }  # fmt: skip


WRONG: list[tuple[dict[str, Any], type[Exception]]] = [
    ({"event": ""}, ValueError),
    ({"distinct_id": 5}, TypeError),
    ({"distinct_id": " "}, ValueError),
    ({"uuid": "nope"}, ValueError),
    ({"timestamp": "yesterday"}, ValueError),
    ({"timestamp": datetime(2026, 11, 24)}, ValueError),
    ({"properties": [1]}, TypeError),
    ({"options": {"process_person_profile": 3}}, TypeError),
    ({"options": {"process_person_profile": "no"}}, TypeError),
    ({"options": {"cookieless_mode": "true"}}, TypeError),
    ({"options": {"product_tour_id": True}}, TypeError),
    ({"options": {"of_tomorrow": 1.5}}, TypeError),
    ({"options": ["x"]}, TypeError),
    ({"options": {1: True}}, TypeError),
    ({"kind": "x"}, ValueError),
]


@pytest.mark.parametrize(("wrong", "error"), WRONG)
def test_a_finished_event_that_is_none_is_said_at_once_and_takes_no_other_with_it(
    sdk: Sdk, sink: Sink, wrong: dict[str, Any], error: type[Exception]
) -> None:
    analytics = sdk()
    with pytest.raises(error):
        analytics.outbox.put([event(), event(**wrong)])
    assert analytics.stats()["accepted"] == 0
    assert json.dumps(analytics.stats())


@pytest.mark.parametrize("wrong", [event(), "page viewed", [None], [5], [[event()]]])
def test_what_is_no_list_of_events_is_said(sdk: Sdk, wrong: Any) -> None:
    analytics = sdk()
    with pytest.raises(TypeError, match=r"in a list, put\(\[event\]\)"):
        analytics.outbox.put(wrong)
    assert analytics.stats()["accepted"] == 0


WHOSE = "b7c1-the-browsers-own"
HEADERS = {
    "cookie": f"session={WHOSE}",
    "authorization": f"Bearer {WHOSE}",
    "referer": f"https://app.example/{WHOSE}",
    "user_agent": f"Browser/{WHOSE}",
    "accept_language": WHOSE,
    "x_forwarded_for": f"203.0.113.77, {WHOSE}",
    "x_real_ip": "203.0.113.77",
    "forwarded": f"for=203.0.113.77;host={WHOSE}",
    "x_request_id": WHOSE,
}


@pytest.mark.parametrize("anonymized", [True, False])
def test_no_header_and_no_address_of_the_browsers_request_goes_along(
    sdk: Sdk, sink: Sink, adapter: Any, protocol: str, anonymized: bool
) -> None:
    analytics = sdk(gzip=False)
    user = replace(ADA, anonymized=anonymized)
    body = b'{"event":"page viewed"}'
    reply = adapter(analytics, lambda _: user)(
        "POST", "/api/analytics/capture", body, content_type="application/json", **HEADERS
    )
    assert reply.status == 204
    assert analytics.flush(60.0).left == 0
    (request,) = sink.requests
    own = {"host", "accept-encoding", "content-type", "user-agent", "content-length"}
    if protocol == "v1":
        own |= {"authorization", "posthog-sdk-info", "posthog-attempt"}
        own |= {"posthog-request-id", "posthog-request-timestamp"}
    assert set(request.headers) == own
    everything = repr(request.headers).encode() + request.raw
    # 192.0.2.7 is the peer that the tests' ASGI requests come from.
    for word in (WHOSE, "203.0.113.77", "192.0.2.7"):
        assert word.encode() not in everything


def test_wrapped_more_than_once_it_is_one_sender_and_each_event_leaves_once(
    sdk: Sdk, sink: Sink, adapter: Any
) -> None:
    before = set(threading.enumerate())
    analytics = sdk(flush_at=1)
    hosts = [adapter(analytics, lambda _: ADA) for _ in range(3)]
    for host in hosts:
        reply = host(
            "POST", "/api/analytics/capture", b'{"event":"page viewed"}',
            content_type="application/json",
        )  # fmt: skip
        assert reply.status == 204
    sink.wait_for(lambda: len(sent(sink)) == 3, timeout=60)
    names = [each.name for each in threading.enumerate() if each not in before]
    assert names.count("second_mw-dispatcher") == 1
    assert len({each["uuid"] for each in sent(sink)}) == 3
