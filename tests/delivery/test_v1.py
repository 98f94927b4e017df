"""v1 without a socket: the bytes of a request, and what an answer means for each event."""

from __future__ import annotations

import gzip
import json
import uuid

import pytest

from second_mw.forwarder.exchange import Answer
from second_mw.forwarder.v1 import V1
from second_mw.version import VERSION
from tests.delivery.build import NOW, STAMP, batch, payload


def codec(*, gzip: bool = False, historical_migration: bool = False) -> V1:
    return V1("phc_test", gzip=gzip, historical_migration=historical_migration)


def answer(results: dict[str, object], **headers: str) -> Answer:
    return Answer(200, headers, json.dumps({"results": results}).encode())


def test_a_batch_is_one_post_with_every_header_that_v1_requires() -> None:
    items = batch(payload(1), payload(2))
    request = codec().request(items, 3, NOW)
    assert request.path == "/i/v1/analytics/events"
    assert request.headers == {
        "Authorization": "Bearer phc_test",
        "Content-Type": "application/json",
        "User-Agent": f"second-mw/{VERSION}",
        "PostHog-Sdk-Info": f"second-mw/{VERSION}",
        "PostHog-Attempt": "3",
        "PostHog-Request-Id": items.request_id,
        "PostHog-Request-Timestamp": "2026-11-24T04:03:00.500Z",
    }
    assert str(uuid.UUID(items.request_id)) == items.request_id
    assert json.loads(request.body) == {
        "created_at": "2026-11-24T04:03:00.500Z",
        "batch": [
            {
                "event": "page viewed",
                "uuid": payload(n).uuid,
                "distinct_id": "anon_1",
                "timestamp": STAMP,
                "properties": {"n": n},
            }
            for n in (1, 2)
        ],
    }


def test_a_retry_has_the_same_id_and_body_and_its_own_attempt_and_time() -> None:
    one = batch(payload(1))
    first, second = codec().request(one, 1, NOW), codec().request(one, 2, NOW + 8)
    assert second.body == first.body
    changed = {name for name, value in second.headers.items() if first.headers[name] != value}
    assert changed == {"PostHog-Attempt", "PostHog-Request-Timestamp"}


def test_halves_are_requests_of_their_own() -> None:
    whole = batch(payload(1), payload(2), payload(3))
    first, second = whole.halves(NOW + 1)
    assert (first.keys, second.keys) == (["0"], ["1", "2"])
    assert len({whole.request_id, first.request_id, second.request_id}) == 3
    assert first.created_at == "2026-11-24T04:03:01.500Z"


def test_set_options_travel_beside_the_properties_and_unset_ones_are_left_out() -> None:
    options = {"process_person_profile": False, "product_tour_id": None}
    body = codec().request(batch(payload(1, options=options), payload(2)), 1, NOW).body
    first, second = json.loads(body)["batch"]
    assert first["options"] == {"process_person_profile": False}
    assert first["properties"] == {"n": 1}
    assert "options" not in second


def test_a_historical_migration_is_said_only_when_set() -> None:
    body = codec(historical_migration=True).request(batch(payload()), 1, NOW).body
    assert json.loads(body)["historical_migration"] is True
    assert b"historical_migration" not in codec().request(batch(payload()), 1, NOW).body


def test_gzip_packs_the_same_body_and_says_so() -> None:
    one = batch(payload(1))
    packed = codec(gzip=True).request(one, 1, NOW)
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.body) == codec().request(one, 1, NOW).body


@pytest.mark.parametrize(
    ("result", "verdict"),
    [
        ({"result": "ok"}, ("delivered", "")),
        ({"result": "warning", "details": "old client"}, ("delivered", "")),
        ({"result": "retry"}, ("retry", "")),
        ({"result": "retry", "details": "busy"}, ("retry", "")),
        ({"result": "drop"}, ("dead", "dropped")),
        ({"result": "drop", "details": "invalid_options"}, ("dead", "dropped: invalid_options")),
        ({"result": "drop", "details": {"code": 7}}, ("dead", 'dropped: {"code":7}')),
        ({"result": "limited", "details": "quota"}, ("dead", "limited: quota")),
        ({"result": "postponed"}, ("dead", "unknown_result")),
        ({"result": "drop", "details": "a\nb"}, ("dead", "dropped: a b")),
    ],
)
def test_every_result_has_its_verdict(result: object, verdict: tuple[str, str]) -> None:
    one = batch(payload(1))
    ruling = codec().judge(answer({payload(1).uuid: result}), one, NOW)
    assert (ruling.about, ruling.verdicts) == ("events", {"0": verdict})


@pytest.mark.parametrize("result", [{"result": 1}, {"result": None}, {}, "ok", None, ["ok"]])
def test_what_is_no_result_is_foreign_and_buries_nothing(result: object) -> None:
    said: dict[str, object] = {payload(1).uuid: result, payload(2).uuid: {"result": "ok"}}
    ruling = codec().judge(answer(said), batch(payload(1), payload(2)), NOW)
    assert (ruling.about, ruling.verdicts) == ("sender", {})


def test_a_detail_is_kept_short() -> None:
    long = {payload(1).uuid: {"result": "drop", "details": "x" * 5000}}
    verdict = codec().judge(answer(long), batch(payload(1)), NOW).verdicts["0"]
    assert len(verdict.reason) < 250


def test_each_event_has_its_own_verdict_and_an_unnamed_one_is_sent_again() -> None:
    three = batch(payload(1), payload(2), payload(3))
    said: dict[str, object] = {
        payload(1).uuid.upper(): {"result": "ok"},
        payload(2).uuid: {"result": "drop"},
        "of nobody": {"result": "ok"},
    }
    ruling = codec().judge(answer(said, **{"retry-after": "4"}), three, NOW)
    assert {key: verdict.result for key, verdict in ruling.verdicts.items()} == {
        "0": "delivered",
        "1": "dead",
        "2": "retry",
    }
    assert ruling.retry_after == 4.0


@pytest.mark.parametrize("field", ["error", "code", "type"])
def test_missing_headers_are_about_the_sender_and_not_about_the_events(field: str) -> None:
    body = json.dumps({field: "missing_required_headers"}).encode()
    ruling = codec().judge(Answer(400, {}, body), batch(payload()), NOW)
    assert ruling.about == "sender"
    assert "proxy" in ruling.look_at
