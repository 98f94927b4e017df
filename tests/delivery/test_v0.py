"""v0 without a socket: the bytes of a request, and what an answer means."""

from __future__ import annotations

import gzip
import json

import pytest

from second_mw.forwarder.exchange import Answer
from second_mw.forwarder.v0 import V0
from second_mw.version import VERSION
from tests.delivery.build import NOW, STAMP, batch, payload


def codec(*, gzip: bool = False, historical_migration: bool = False) -> V0:
    return V0("phc_test", gzip=gzip, historical_migration=historical_migration)


def test_a_batch_is_one_post_with_nothing_but_its_own_headers() -> None:
    request = codec().request(batch(payload(1), payload(2)), 1, NOW)
    assert request.path == "/batch/"
    assert request.headers == {
        "Content-Type": "application/json",
        "User-Agent": f"second-mw/{VERSION}",
    }
    assert json.loads(request.body) == {
        "api_key": "phc_test",
        "sent_at": "2026-11-24T04:03:00.500Z",
        "historical_migration": False,
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


def test_encoded_properties_travel_as_the_bytes_they_are() -> None:
    odd = b'{ "b":1.0,"a":1e2 ,"u":"\\u00e4\xc3\xa4"}'
    assert odd in codec().request(batch(payload(properties=odd)), 1, NOW).body


def test_text_is_escaped_as_json() -> None:
    item = payload(event='a "b" \\ \n \u2028', distinct_id='ü"')
    event = json.loads(codec().request(batch(item), 1, NOW).body)["batch"][0]
    assert (event["event"], event["distinct_id"]) == (item.event, item.distinct_id)


def test_options_become_dollar_properties_and_unset_or_unknown_ones_do_not() -> None:
    options = {
        "process_person_profile": False,
        "cookieless_mode": True,
        "disable_skew_correction": True,
        "product_tour_id": None,
        "of_tomorrow": 1,
    }
    body = codec().request(batch(payload(1, options=options)), 1, NOW).body
    (event,) = json.loads(body)["batch"]
    assert event["properties"] == {
        "$process_person_profile": False,
        "$cookieless_mode": True,
        "$ignore_sent_at": True,
        "n": 1,
    }
    assert "options" not in event


def test_options_without_properties_and_properties_without_options_are_whole() -> None:
    item = payload(properties=b"{}", options={"process_person_profile": False})
    events = json.loads(codec().request(batch(item, payload(1, properties=b"{}")), 1, NOW).body)
    properties = [event["properties"] for event in events["batch"]]
    assert properties == [{"$process_person_profile": False}, {}]


def test_only_sent_at_tells_a_retry_from_the_first_attempt() -> None:
    one = batch(payload(1))
    first = json.loads(codec().request(one, 1, NOW).body)
    second = json.loads(codec().request(one, 2, NOW + 8).body)
    assert second.pop("sent_at") == "2026-11-24T04:03:08.500Z"
    first.pop("sent_at")
    assert first == second


def test_a_historical_migration_is_said() -> None:
    body = codec(historical_migration=True).request(batch(payload()), 1, NOW).body
    assert json.loads(body)["historical_migration"] is True


def test_gzip_packs_the_same_body_and_says_so() -> None:
    one = batch(payload(1))
    packed = codec(gzip=True).request(one, 1, NOW)
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.body) == codec().request(one, 1, NOW).body
    assert packed == codec(gzip=True).request(one, 1, NOW)


def test_an_event_that_cant_be_encoded_raises() -> None:
    with pytest.raises(UnicodeEncodeError):
        codec().request(batch(payload(event="\ud800")), 1, NOW)


@pytest.mark.parametrize(
    "body",
    [
        b'{"status":1}',
        # What PostHog's own service has answered since it is no longer written in Python.
        b'{"status":"Ok"}',
        b'{"status":"Ok","quota_limited":["recordings"]}',
        b'{"status": 1, "quota_limited": []}',
        b'{"status":1,"quota_limited":["recordings"]}',
    ],
)
def test_a_200_delivers_every_event(body: bytes) -> None:
    ruling = codec().judge(Answer(200, {}, body), batch(payload(1), payload(2)), NOW)
    assert (ruling.about, ruling.verdicts) == ("delivered", {})


@pytest.mark.parametrize(
    "body",
    [
        b'{"status":"Ok","quota_limited":["events"]}',
        b'{"status":1,"quota_limited":["events"]}',
        b'{"quota_limited":["recordings","events"]}',
    ],
)
def test_a_200_past_the_quota_delivers_none(body: bytes) -> None:
    ruling = codec().judge(Answer(200, {}, body), batch(payload(1), payload(2)), NOW)
    assert ruling.about == "events"
    assert ruling.verdicts == dict.fromkeys("01", ("dead", "quota_limited"))
