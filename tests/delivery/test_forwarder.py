"""The forwarder in good and in bad days: when batches leave, outages, refusals, faults, the end.

After each of them the accounts hold: what was accepted is delivered, dead or waits.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from second_mw.forwarder import dispatcher
from second_mw.forwarder.circuit import (
    PROBE_AFTER,
    REFUSALS_IN_A_ROW,
    SUSPECTS_WAIT,
    Circuit,
    Refusals,
)
from second_mw.forwarder.dispatcher import Forwarder
from second_mw.forwarder.exchange import NoAnswer, Request
from second_mw.forwarder.losses import Ledger
from second_mw.forwarder.retry import BETWEEN_ROUNDS, backoff
from second_mw.outbox.base import Entry
from second_mw.outbox.memory import MemoryStore
from second_mw.settings import Settings
from tests.delivery.build import Clock, payload, payloads
from tests.delivery.conftest import Line
from tests.delivery.sink import (
    Recorded,
    Reply,
    Sink,
    Wire,
    black_hole,
    closed_port,
    fine,
    results,
    status,
)

Lay = Callable[..., Line]


def refusing(*bad: int, code: int = 400) -> Callable[[Recorded], Reply | Wire]:
    """Refuse every request that holds one of these payloads, as PostHog does."""
    uuids = {payload(n).uuid for n in bad}

    def answer(request: Recorded) -> Reply | Wire:
        if uuids & set(request.uuids):
            return Reply(code, b'{"error":"invalid"}')
        return fine(request)

    return answer


# When a batch leaves


def test_a_batch_leaves_when_its_oldest_event_is_old_enough(
    lay: Lay, sink: Sink, clock: Clock
) -> None:
    line = lay(clock=clock, flush_interval=2.0)
    line.put(payloads(3))
    _until(lambda: line.forwarder._ready_since is not None)
    clock.now += 1.9
    line.forwarder.notify()
    assert not sink.requests
    clock.now += 0.1
    line.forwarder.notify()
    sink.wait_for(lambda: len(sink.delivered) == 3)
    assert len(sink.requests) == 1


def test_a_batch_leaves_by_itself_after_the_interval(lay: Lay, sink: Sink) -> None:
    lay(flush_interval=0.05).put(payloads(2))
    sink.wait_for(lambda: len(sink.delivered) == 2)


def test_events_of_an_uncounted_put_leave_at_flush_at(lay: Lay, sink: Sink) -> None:
    line = lay(flush_at=10)
    line.put([payload()])
    line.store.put(payloads(9, start=1))
    line.forwarder.notify()
    sink.wait_for(lambda: len(sink.delivered) == 10)


def test_what_comes_while_a_batch_flies_leaves_together_when_it_has_landed(
    lay: Lay, sink: Sink
) -> None:
    arrived, landing = threading.Event(), threading.Event()

    def answer(request: Recorded) -> Reply | Wire:
        arrived.set()
        landing.wait(30)
        return fine(request)

    sink.answer = answer
    line = lay(flush_at=10)
    line.put(payloads(10))
    assert arrived.wait(30)
    line.put(payloads(10, start=10))
    line.put(payloads(10, start=20))
    landing.set()
    sink.wait_for(lambda: len(sink.delivered) == 30)
    assert [len(request.batch) for request in sink.requests] == [10, 20]


def test_a_batch_that_is_not_full_waits_a_breath_behind_the_one_before(
    lay: Lay, sink: Sink, clock: Clock
) -> None:
    line = lay(clock=clock, flush_at=10, max_batch_events=30)

    def all_landed(count: int) -> bool:
        return len(sink.delivered) == count and line.forwarder.stats()["in_flight"] == 0

    line.put(payloads(10))
    _until(lambda: all_landed(10))
    for start in (10, 20, 30):
        line.put(payloads(10, start=start))
        # The dispatcher has looked, and waits for more than it has heard of.
        _until(lambda: line.forwarder._wake_at > line.forwarder._heard)
    # The third of these fills a batch, which waits for nothing.
    _until(lambda: all_landed(40))
    line.put(payloads(10, start=40))
    clock.now += dispatcher._BREATH
    line.forwarder.notify()
    _until(lambda: all_landed(50))
    assert [len(request.batch) for request in sink.requests] == [10, 30, 10]


def test_no_batch_leaves_sooner_than_asked_for_where_more_is_wanted_than_it_holds(
    lay: Lay, sink: Sink, clock: Clock
) -> None:
    line = lay(clock=clock, flush_at=50, max_batch_events=10)
    line.put(payloads(50))
    _until(lambda: len(sink.delivered) == 50 and line.forwarder.stats()["in_flight"] == 0)
    line.put(payloads(12, start=50))
    _until(lambda: line.forwarder._wake_at > line.forwarder._heard)
    assert len(sink.delivered) == 50
    assert line.forwarder.flush(60).left == 0
    assert len(sink.delivered) == 62


def test_but_a_whole_batch_does_not_wait_for_the_one_that_flies(lay: Lay, sink: Sink) -> None:
    together = threading.Barrier(2)

    def answer(request: Recorded) -> Reply | Wire:
        together.wait(30)
        return fine(request)

    sink.answer = answer
    line = lay(flush_at=10, max_batch_events=20)
    line.put(payloads(20))
    line.put(payloads(20, start=20))
    sink.wait_for(lambda: len(sink.delivered) == 40)


def test_a_backlog_leaves_in_batches_of_the_allowed_size(lay: Lay, sink: Sink) -> None:
    line = lay(flush_at=10, max_batch_events=40, max_in_flight=1)
    line.put(payloads(100))
    sink.wait_for(lambda: len(sink.delivered) == 100)
    assert [len(request.batch) for request in sink.requests] == [40, 40, 20]


def test_a_batch_stays_below_the_allowed_bytes(lay: Lay, sink: Sink) -> None:
    line = lay(max_batch_bytes=10_000, max_in_flight=1)
    big = [payload(n, properties=b'{"t":"%s"}' % (b"x" * 4000)) for n in range(5)]
    assert line.send(big) == (5, 0)
    assert [len(request.batch) for request in sink.requests] == [2, 2, 1]
    assert all(len(request.raw) < 10_000 for request in sink.requests)


def test_several_batches_are_in_flight_at_once_and_no_more_than_allowed(
    lay: Lay, sink: Sink
) -> None:
    others = set(threading.enumerate())
    together = threading.Barrier(3)

    def answer(request: Recorded) -> Reply | Wire:
        together.wait(20)
        return fine(request)

    sink.answer = answer
    line = lay(max_batch_events=1, max_in_flight=3)
    assert line.send(payloads(6)) == (6, 0)
    began = set(threading.enumerate()) - others
    senders = [each for each in began if "second_mw-sender" in each.name]
    assert len(senders) == 3


def test_a_flush_takes_what_is_too_young_to_leave(lay: Lay, sink: Sink) -> None:
    line = lay()
    line.put([payload(1)])
    assert line.forwarder.flush(20.0) == (1, 0)
    assert len(sink.requests) == 1


def test_a_flush_starts_a_forwarder_that_was_not_started(lay: Lay, sink: Sink) -> None:
    line = lay()
    line.store.put(payloads(3))
    assert line.forwarder.flush(20.0) == (3, 0)


def test_a_flush_ends_though_new_events_keep_coming(lay: Lay, sink: Sink) -> None:
    line = lay()
    number = iter(range(1, 10_000))

    def answer(request: Recorded) -> Reply | Wire:
        line.store.put([payload(next(number))])
        return fine(request)

    sink.answer = answer
    assert line.send([payload(0)]) == (1, 0)


def test_starting_again_changes_nothing(lay: Lay) -> None:
    line = lay()
    line.forwarder.start()
    before = threading.active_count()
    assert all(line.forwarder.start() for _ in range(10))
    assert threading.active_count() == before


def test_a_notice_before_the_start_is_harmless(lay: Lay) -> None:
    line = lay()
    line.forwarder.notify()
    assert line.forwarder.stats()["in_flight"] == 0


def test_a_disabled_forwarder_sends_nothing_and_has_no_thread(
    sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DO_NOT_TRACK", "1")
    store = MemoryStore()
    forwarder = Forwarder(store, Settings.load({"token": "phc_test", "host": sink.url}))
    store.put(payloads(2))
    before = threading.active_count()
    assert forwarder.start() is False
    assert forwarder.flush(20.0) == (0, 2)
    assert forwarder.close(20.0) == (0, 2)
    assert threading.active_count() == before
    assert not sink.requests


def test_two_forwarders_share_a_store_without_doubling(lay: Lay, sink: Sink) -> None:
    first, second = lay(max_batch_events=5), lay(max_batch_events=5)
    second.forwarder._store = first.store
    second.forwarder._delivery._store = first.store
    first.store.put(payloads(100))
    results = []
    threads = [
        threading.Thread(target=lambda each=each: results.append(each.forwarder.flush(20.0)))
        for each in (first, second)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sink.wait_for(lambda: len(sink.delivered) >= 100)
    assert sorted(sink.delivered) == sorted(item.uuid for item in payloads(100))
    assert first.accounts == (100, 0, 0)


def test_stats_tell_what_this_process_did(lay: Lay, sink: Sink) -> None:
    line = lay()
    assert line.forwarder.stats() == {
        "forwarded": 0,
        "retried": 0,
        "dead": {},
        "circuit": "closed",
        "in_flight": 0,
        "latency": None,
        "last_success": None,
    }
    sink.script.append(status(503))
    line.send(payloads(3))
    stats = line.forwarder.stats()
    assert (stats["forwarded"], stats["retried"], stats["in_flight"]) == (3, 3, 0)
    assert stats["latency"] is not None
    assert stats["last_success"] is not None


# Refused events


@pytest.mark.parametrize(("code", "word"), [(400, "refused"), (413, "too_large")])
@pytest.mark.parametrize("protocol", ["v0", "v1"])
def test_one_bad_event_of_a_hundred_is_buried_alone(
    lay: Lay, sink: Sink, protocol: str, code: int, word: str
) -> None:
    sink.answer = refusing(37, code=code)
    line = lay(protocol=protocol)
    assert line.send(payloads(100)) == (99, 1)
    (letter,) = line.store.dead_letters(10)
    assert letter.payload == payload(37)
    assert letter.reason == f'{word}: {code} {{"error":"invalid"}}'
    assert line.accounts == (99, 1, 0)
    assert line.lost == [(word, 1)]
    assert line.forwarder.stats()["dead"] == {word: 1}
    assert len(sink.requests) < 20


def test_a_single_event_that_is_too_large_is_buried_once_and_the_rest_flows(
    lay: Lay, sink: Sink
) -> None:
    sink.answer = refusing(0, code=413)
    line = lay()
    assert line.send([payload(0)]) == (0, 1)
    assert len(sink.requests) == 1
    assert line.send([payload(1)]) == (1, 0)
    assert line.accounts == (1, 1, 0)


def test_a_batch_that_is_too_large_only_as_a_whole_arrives_in_pieces(lay: Lay, sink: Sink) -> None:
    sink.answer = lambda request: fine(request) if len(request.batch) <= 7 else Reply(413)
    line = lay()
    assert line.send(payloads(50)) == (50, 0)
    taken = [uuid for request in sink.requests if len(request.batch) <= 7 for uuid in request.uuids]
    assert taken == [item.uuid for item in payloads(50)]
    assert line.accounts == (50, 0, 0)


def test_halves_of_a_batch_are_retried_too(lay: Lay, sink: Sink) -> None:
    seen: set[str] = set()

    def answer(request: Recorded) -> Reply | Wire:
        if request.uuids[0] not in seen:
            seen.add(request.uuids[0])
            return Reply(503)
        return refusing(5)(request)

    sink.answer = answer
    line = lay()
    assert line.send(payloads(8)) == (7, 1)


def test_events_that_cant_be_encoded_are_buried_without_asking_anybody(
    lay: Lay, sink: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    line = lay()
    bad = [payload(n, event="\ud800 secret") for n in range(30)]
    assert line.send([*bad, payload(90)]) == (1, 30)
    assert len(sink.requests) == 1
    assert line.forwarder.stats()["dead"] == {"unencodable": 30}
    assert line.forwarder.stats()["circuit"] == "closed"
    assert "secret" not in caplog.text


def test_what_the_quota_limits_is_dead_counted_and_reported(
    lay: Lay, sink: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    sink.answer = status(200, body=b'{"status":1,"quota_limited":["events"]}')
    line = lay()
    assert line.send(payloads(4)) == (0, 4)
    assert line.accounts == (0, 4, 0)
    assert line.lost == [("quota_limited", 4)]
    assert "4 event(s) will not be delivered: quota_limited" in caplog.text


# Refusals in a row


def test_twenty_refusals_in_a_row_are_about_the_sender_and_bury_nothing(
    lay: Lay, sink: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    sink.answer = status(400)
    line = lay()
    assert line.send(payloads(100)) == (0, 100)
    assert line.accounts == (0, 0, 100)
    assert line.forwarder.stats()["circuit"] == "open"
    assert not line.lost
    assert "SECOND_POSTHOG_HOST" in caplog.text
    assert len(sink.requests) < 60


def test_nineteen_refusals_and_a_success_are_nineteen_bad_events(lay: Lay, sink: Sink) -> None:
    sink.answer = refusing(*range(REFUSALS_IN_A_ROW - 1))
    line = lay()
    assert line.send(payloads(REFUSALS_IN_A_ROW)) == (1, 19)
    assert line.accounts == (1, 19, 0)
    assert line.forwarder.stats()["circuit"] == "closed"


def test_twenty_bad_events_at_the_head_of_the_queue_do_not_block_it(
    lay: Lay, sink: Sink, clock: Clock
) -> None:
    sink.answer = refusing(*range(25))
    line = lay(clock=clock)
    line.send(payloads(60))
    assert line.forwarder.stats()["circuit"] == "open"
    for _ in range(10):
        clock.now += PROBE_AFTER
        line.forwarder.flush(20.0)
        if line.forwarder.stats()["circuit"] == "closed":
            break
    line.forwarder.flush(20.0)
    clock.now += SUSPECTS_WAIT
    line.forwarder.flush(20.0)
    assert line.accounts == (35, 25, 0)
    assert line.forwarder.stats()["circuit"] == "closed"


def test_suspects_are_remembered_within_bounds() -> None:
    refusals = Refusals()
    refusals.suspect(str(n) for n in range(5000))
    assert len(refusals._suspects) == 1000
    refusals.succeeded()
    assert not any(refusals.about_sender("4999") for _ in range(REFUSALS_IN_A_ROW))
    assert refusals.about_sender("0")


# Faults of the sender

FAULTS: list[tuple[str, Callable[[Recorded], Reply | Wire], str]] = [
    ("401", status(401), "SECOND_POSTHOG_TOKEN"),
    ("402", status(402), "billing"),
    ("403", status(403), "SECOND_POSTHOG_TOKEN"),
    ("404", status(404), "SECOND_POSTHOG_HOST"),
    ("405", status(405), "SECOND_POSTHOG_HOST"),
    ("407", status(407), "HTTPS_PROXY"),
    ("415", status(415), "SECOND_POSTHOG_HOST"),
    ("422", status(422), "SECOND_POSTHOG_TOKEN"),
    ("redirect", status(302, Location="https://us.posthog.com/login"), "SECOND_POSTHOG_HOST"),
    ("login page", status(200, body=b"<html>Sign in</html>"), "SECOND_POSTHOG_HOST"),
    ("another json", status(200, body=b'{"ok":true}'), "SECOND_POSTHOG_HOST"),
    ("created", status(201, body=b'{"status":1}'), "SECOND_POSTHOG_HOST"),
]


@pytest.mark.parametrize(("name", "step", "look_at"), FAULTS, ids=[fault[0] for fault in FAULTS])
@pytest.mark.parametrize("protocol", ["v0", "v1"])
def test_a_fault_of_the_sender_costs_no_event_and_mends_itself(
    lay: Lay,
    sink: Sink,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    protocol: str,
    name: str,
    step: Callable[[Recorded], Reply | Wire],
    look_at: str,
) -> None:
    sink.answer = step
    line = lay(clock=clock, protocol=protocol)
    assert line.send(payloads(50)) == (0, 50)
    assert line.accounts == (0, 0, 50)
    assert line.forwarder.stats()["circuit"] == "open"
    assert (len(sink.requests), line.pauses, line.lost) == (1, [], [])
    (record,) = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert record.levelno == logging.ERROR
    assert look_at in record.getMessage()
    assert "phc_test" not in caplog.text

    # One probe a minute, of one event, and no second word about the same cause.
    line.put(payloads(50, start=50))
    assert line.forwarder.flush(20.0) == (0, 100)
    clock.now += PROBE_AFTER
    assert line.forwarder.flush(20.0) == (0, 100)
    assert [len(request.batch) for request in sink.requests] == [50, 1]
    assert len([each for each in caplog.records if each.levelno >= logging.WARNING]) == 1

    sink.answer = None
    clock.now += PROBE_AFTER
    assert line.forwarder.flush(20.0) == (100, 0)
    assert line.accounts == (100, 0, 0)
    assert line.forwarder.stats()["circuit"] == "closed"
    assert len(sink.requests[2].batch) == 1


@pytest.mark.parametrize(
    ("protocol", "says"), [("v0", {}), ("v1", {}), ("v1", {"Retry_After": "1"})]
)
def test_a_rate_limit_is_left_alone_for_half_a_minute(
    lay: Lay,
    sink: Sink,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    protocol: str,
    says: dict[str, str],
) -> None:
    sink.answer = status(429, **says)
    line = lay(clock=clock, protocol=protocol, max_batch_events=10, max_in_flight=1)
    assert line.send(payloads(50)) == (0, 50)
    clock.now += 29
    assert line.forwarder.flush(0.5) == (0, 50)
    assert (len(sink.requests), line.pauses) == (1, [])
    assert [each.levelname for each in caplog.records if each.levelno > logging.INFO] == ["WARNING"]
    sink.answer = None
    clock.now += 1
    assert line.forwarder.flush(20.0) == (50, 0)


def test_a_rate_limit_of_v0_that_says_when_is_asked_again_then_and_no_oftener_than_an_outage(
    lay: Lay, sink: Sink, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    sink.answer = status(429, Retry_After="5")
    line = lay(clock=clock, protocol="v0", max_retries=2)
    assert line.send(payloads(3)) == (0, 3)
    assert line.pauses == [5.0, 5.0]
    assert [request.batch for request in sink.requests] == [sink.requests[0].batch] * 3
    assert [each.levelname for each in caplog.records if each.levelno > logging.INFO] == ["WARNING"]
    clock.now += 29
    assert line.forwarder.flush(0.5) == (0, 3)
    assert len(sink.requests) == 3
    sink.answer = None
    clock.now += 1
    assert line.forwarder.flush(20.0) == (3, 0)


@pytest.mark.parametrize("protocol", ["v0", "v1"])
def test_a_long_retry_after_of_a_rate_limit_is_kept(
    lay: Lay, sink: Sink, clock: Clock, protocol: str
) -> None:
    sink.script.append(status(429, Retry_After="300"))
    line = lay(clock=clock, protocol=protocol)
    line.send(payloads(2))
    clock.now += 299
    assert line.forwarder.flush(0.5) == (0, 2)
    clock.now += 1
    assert line.forwarder.flush(20.0) == (2, 0)


# Outages


def test_an_outage_of_seconds_is_bridged_by_retries_below_a_warning(
    lay: Lay, sink: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "second_mw")
    sink.script.extend([status(503)] * 5)
    line = lay()
    assert line.send(payloads(10)) == (10, 0)
    assert line.accounts == (10, 0, 0)
    levels = {each.levelno for each in caplog.records if each.name == "second_mw"}
    assert levels == {logging.DEBUG}


def test_a_long_outage_ends_the_round_and_the_next_one_delivers(
    lay: Lay, sink: Sink, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    sink.answer = status(503)
    line = lay(clock=clock, max_retries=2)
    assert line.send(payloads(10)) == (0, 10)
    assert line.forwarder.stats()["circuit"] == "open"
    assert line.accounts == (0, 0, 10)
    assert len(sink.requests) == 3
    assert [each.levelname for each in caplog.records if each.levelno > logging.INFO] == ["WARNING"]
    # Its own time comes no sooner than 30 s later; a probe is one attempt.
    clock.now += 29.9
    assert line.forwarder.flush(0.05) == (0, 10)
    assert len(sink.requests) == 3
    clock.now += 0.1
    assert line.forwarder.flush(20.0) == (0, 10)
    assert [len(request.batch) for request in sink.requests[3:]] == [1]
    sink.answer = None
    clock.now += 30
    assert line.forwarder.flush(20.0) == (10, 0)
    assert line.accounts == (10, 0, 0)


def test_rounds_go_on_for_as_long_as_the_process_lives(lay: Lay, sink: Sink, clock: Clock) -> None:
    sink.answer = status(503)
    line = lay(clock=clock, max_retries=0)
    line.send([payload()])
    for _ in range(50):
        clock.now += 30
        line.forwarder.flush(20.0)
    assert len(sink.requests) == 51
    assert line.accounts == (0, 0, 1)
    (entry,) = _ready(line, clock)
    assert entry.rounds == 51


def _ready(line: Line, clock: Clock) -> list[Entry]:
    line.forwarder.close(0.0)
    clock.now += 30
    return line.store.lease(10, 10**9, 60.0)


def test_an_event_that_makes_posthog_fail_stands_alone_in_the_end_and_the_rest_is_delivered(
    lay: Lay, sink: Sink, clock: Clock
) -> None:
    bad = payload(37).uuid
    sink.answer = lambda request: Reply(500) if bad in request.uuids else fine(request)
    line = lay(clock=clock, max_retries=1, max_batch_events=100)
    line.send(payloads(100))
    for _ in range(6):
        clock.now += BETWEEN_ROUNDS + 1
        line.forwarder.flush(20.0)
    assert line.accounts == (99, 0, 1)
    sizes = [len(request.batch) for request in sink.requests if bad in request.uuids]
    assert sizes[0] == 100
    assert sizes[-1] == 1
    assert sizes == sorted(sizes, reverse=True)


def test_a_round_in_vain_does_not_stop_the_others_while_posthog_takes_them(
    lay: Lay, sink: Sink, clock: Clock
) -> None:
    bad = payload(0).uuid
    line = lay(clock=clock, max_retries=2, max_batch_events=1, max_in_flight=1)

    def answer(request: Recorded) -> Reply | Wire:
        if bad not in request.uuids:
            return fine(request)
        # Another process's or another sender's success, in the middle of this round.
        line.forwarder._ledger.delivered(1)
        return Reply(500)

    sink.answer = answer
    assert line.send(payloads(5)) == (4, 1)
    assert line.forwarder.stats()["circuit"] == "closed"
    assert line.accounts == (4, 0, 1)


@pytest.mark.parametrize(("durable", "accounts"), [(True, (0, 3, 0)), (False, (0, 0, 3))])
def test_what_was_tried_in_vain_for_too_long_is_given_up_in_a_durable_outbox_only(
    lay: Lay, sink: Sink, clock: Clock, durable: bool, accounts: tuple[int, int, int]
) -> None:
    class Durable(MemoryStore):
        pass

    Durable.durable = durable
    store = Durable(clock=clock, wall=lambda: time.time() - 72 * 3600 - 1)
    lost: list[tuple[str, int]] = []
    sink.answer = status(503)
    forwarder = Forwarder(
        store,
        Settings.load({"token": "phc_test", "host": sink.url, "max_retries": 1}),
        on_loss=lambda reason, count: lost.append((reason, count)),
        clock=clock,
        pause=lambda _: None,
    )
    store.put(payloads(3))
    forwarder.flush(20.0)
    counts = store.counts()
    assert (counts.delivered, counts.dead, counts.waiting) == accounts
    if durable:
        assert lost == [("too_old", 3)]
        assert {each.reason for each in store.dead_letters(9)} == {"too_old: server_error: 503"}
    store.durable = True  # so that closing reports nothing
    forwarder.close(0.0)


def test_a_fault_of_the_sender_makes_nothing_too_old(lay: Lay, sink: Sink, clock: Clock) -> None:
    store = MemoryStore(clock=clock, wall=lambda: time.time() - 96 * 3600)
    store.durable = True
    sink.answer = status(401)
    settings = Settings.load({"token": "phc_test", "host": sink.url})
    forwarder = Forwarder(store, settings, clock=clock, pause=lambda _: None)
    store.put(payloads(3))
    forwarder.flush(20.0)
    assert store.counts()[:4] == (3, 0, 0, 3)
    # With another token, as after a restart, everything that waits is sent, however old.
    sink.answer = None
    again = Forwarder(store, settings, clock=clock, pause=lambda _: None)
    assert again.close(20.0) == (3, 0)
    forwarder.close(0.0)


def test_finishing_settles_what_is_in_hand_and_leases_nothing_more(lay: Lay, sink: Sink) -> None:
    arrived, told = threading.Event(), threading.Event()

    def answer(request: Recorded) -> Reply | Wire:
        arrived.set()
        assert told.wait(60)
        return fine(request)

    sink.answer = answer
    line = lay(max_batch_events=2, max_in_flight=1, flush_at=1)
    line.put(payloads(5))
    assert arrived.wait(60)
    finished = threading.Thread(target=line.forwarder.finish, args=(60.0,))
    finished.start()
    _until(lambda: line.forwarder._shift is None)
    told.set()
    finished.join()
    assert line.accounts == (2, 0, 3)
    assert line.counts.ready == 3
    line.forwarder.finish(0.0)
    assert line.send([]) == (3, 0)


def test_a_port_where_nobody_listens_keeps_every_event(lay: Lay) -> None:
    line = lay(host=closed_port(), max_retries=3)
    assert line.send(payloads(5)) == (0, 5)
    assert line.accounts == (0, 0, 5)
    assert line.forwarder.stats()["retried"] == 15


def test_half_an_answer_is_no_delivery(lay: Lay, sink: Sink) -> None:
    half = b'HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{"stat'
    sink.script.append(lambda _: Wire(half))
    line = lay()
    assert line.send(payloads(3)) == (3, 0)
    assert sink.requests[0].batch == sink.requests[1].batch
    assert line.accounts == (3, 0, 0)


def test_an_answer_that_is_late_is_no_delivery(lay: Lay, sink: Sink) -> None:
    release = threading.Event()

    def late(request: Recorded) -> Reply | Wire:
        release.wait(20)
        return fine(request)

    sink.script.append(late)
    line = lay(read_timeout=0.1)
    assert line.send(payloads(3)) == (3, 0)
    assert len(sink.requests) == 2
    release.set()


def test_a_lease_is_held_while_its_batch_waits(lay: Lay, sink: Sink, clock: Clock) -> None:
    sink.script.append(status(503, Retry_After="3000"))
    stolen: list[list[Entry]] = []

    def pause(seconds: float) -> None:
        # Minutes pass in which another forwarder looks for leases that ran out.
        line.pauses.append(seconds)
        clock.now += seconds
        stolen.append(line.store.lease(10, 10**9, 60.0))

    line = lay(clock=clock, pause=pause)
    assert line.send([payload()]) == (1, 0)
    assert sum(line.pauses) == pytest.approx(3000.0)
    assert stolen == [[]] * len(line.pauses)
    assert len(sink.requests) == 2


# The end


def test_closing_sends_what_waits_and_ends_the_threads(lay: Lay, sink: Sink) -> None:
    line = lay()
    line.put(payloads(250))
    shift = line.forwarder._shift
    assert line.forwarder.close(20.0) == (250, 0)
    # This forwarder's own: a test before may have left one that hangs in a socket.
    mine = [shift.dispatcher, *shift.senders]
    assert len(mine) > 1
    assert not any(each.is_alive() for each in mine)
    assert line.accounts == (250, 0, 0)


def test_closing_twice_is_closing_once(lay: Lay, sink: Sink) -> None:
    line = lay()
    line.send(payloads(2))
    assert line.forwarder.close(20.0) == (0, 0)
    assert line.forwarder.close(20.0) == (0, 0)


def test_after_closing_it_can_start_again(lay: Lay, sink: Sink) -> None:
    line = lay()
    line.send([payload(1)])
    line.forwarder.close(20.0)
    assert line.send([payload(2)]) == (1, 0)


def test_closing_before_a_posthog_that_never_answers_ends(lay: Lay) -> None:
    with black_hole() as url:
        line = lay(host=url, read_timeout=3600.0, connect_timeout=3600.0)
        line.put(payloads(5))
        assert line.forwarder.close(0.2) == (0, 5)
        assert line.accounts == (0, 0, 5)
        assert line.lost == [("shutdown", 5)]


def test_a_flush_before_a_posthog_that_never_answers_ends(lay: Lay) -> None:
    with black_hole() as url:
        line = lay(host=url, read_timeout=3600.0)
        line.put(payloads(5))
        assert line.forwarder.flush(0.2) == (0, 5)


def test_closing_cuts_a_wait_between_retries_short_for_a_last_attempt(lay: Lay, sink: Sink) -> None:
    sink.script.append(status(503))
    line = lay(pause=None)
    # The first wait would last half an hour.
    line.forwarder._delivery._random = lambda: 7200.0
    line.put(payloads(3))
    assert line.forwarder.flush(0.01).left == 3
    sink.wait_for(lambda: len(sink.requests) == 1)
    _until(lambda: line.forwarder.stats()["latency"] is not None)
    assert line.forwarder.close(5.0) == (3, 0)
    assert len(sink.requests) == 2
    assert not line.lost


def test_closing_does_not_come_back_before_retry_after(lay: Lay, sink: Sink) -> None:
    sink.script.append(status(503, Retry_After="1800"))
    line = lay(pause=None)
    line.put(payloads(3))
    line.forwarder.flush(0.01)
    _until(lambda: line.forwarder.stats()["latency"] is not None)
    assert line.forwarder.close(5.0) == (0, 3)
    assert len(sink.requests) == 1
    assert line.store.next_ready_in() > 1700  # type: ignore[operator]


def test_closing_while_posthog_refuses_connections_tries_a_few_times_and_ends(lay: Lay) -> None:
    attempts: list[Request] = []

    class Refused:
        def send(self, request: Request, within: float | None) -> NoAnswer:
            attempts.append(request)
            return NoAnswer("connection_error")

        def close(self) -> None: ...

    line = lay(pause=None, connect=Refused)
    line.put(payloads(3))
    assert line.forwarder.close(0.7) == (0, 3)
    assert 1 <= len(attempts) <= 4
    assert line.lost == [("shutdown", 3)]


def _until(condition: Callable[[], bool]) -> None:
    """Wait, without sleeping for long, until the condition holds."""
    tick = threading.Event()
    for _ in range(4000):
        if condition():
            return
        tick.wait(0.005)
    raise AssertionError("not so in 20 s")


def test_what_a_memory_outbox_holds_at_the_end_is_reported_once(
    lay: Lay, sink: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    sink.answer = status(401)
    line = lay()
    line.send(payloads(3))
    line.forwarder.close(20.0)
    line.forwarder.close(20.0)
    assert line.lost == [("shutdown", 3)]
    assert "3 event(s) will not be delivered: shutdown" in caplog.text


def test_what_a_durable_outbox_holds_at_the_end_is_no_loss(lay: Lay, sink: Sink) -> None:
    sink.answer = status(401)
    line = lay()
    line.store.durable = True
    line.send(payloads(3))
    line.forwarder.close(20.0)
    assert not line.lost


class NoThreads(threading.Thread):
    """What starting a thread is at interpreter exit."""

    def start(self) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "Thread", NoThreads)


@pytest.mark.usefixtures("no_threads")
def test_closing_delivers_in_the_calling_thread_where_none_can_be_started(
    lay: Lay, sink: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    line = lay(max_batch_events=40)
    line.put(payloads(100))
    line.put(payloads(1, start=100))
    assert line.forwarder.close(20.0) == (101, 0)
    assert [len(request.batch) for request in sink.requests] == [40, 40, 21]
    assert caplog.text.count("no thread can be started") == 1


@pytest.mark.usefixtures("no_threads")
def test_closing_in_the_calling_thread_is_bounded_too(lay: Lay) -> None:
    with black_hole() as url:
        line = lay(host=url, read_timeout=3600.0, pause=None)
        line.store.put(payloads(5))
        assert line.forwarder.close(0.3) == (0, 5)
        assert line.lost == [("shutdown", 5)]


@pytest.mark.usefixtures("no_threads")
def test_closing_in_the_calling_thread_stops_at_a_fault_of_the_sender(lay: Lay, sink: Sink) -> None:
    sink.answer = status(401)
    line = lay(max_batch_events=10)
    line.store.put(payloads(50))
    assert line.forwarder.close(20.0) == (0, 50)
    assert len(sink.requests) == 1


@pytest.mark.usefixtures("no_threads")
def test_closing_in_the_calling_thread_leaves_what_others_lease(lay: Lay, sink: Sink) -> None:
    line = lay()
    line.store.put(payloads(2))
    line.store.lease(1, 10**9, 60.0)
    assert line.forwarder.close(20.0) == (1, 1)


def test_the_dispatcher_delivers_itself_where_no_sender_can_be_started(
    lay: Lay, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = lay()
    line.forwarder.start()
    monkeypatch.setattr(dispatcher, "Thread", NoThreads)
    assert line.send(payloads(3)) == (3, 0)


# Things that must not happen


class Shaky(MemoryStore):
    """Fails as often as a test says, in the method that it names."""

    fails: dict[str, int]

    def __init__(self) -> None:
        self.fails = {}
        super().__init__()

    def _maybe(self, name: str) -> None:
        if self.fails.get(name, 0):
            self.fails[name] -= 1
            raise OSError("disk I/O error")

    def lease(self, limit: int, max_bytes: int, ttl: float) -> list[Entry]:
        self._maybe("lease")
        return super().lease(limit, max_bytes, min(ttl, 0.05))

    def ack(self, keys: Any) -> None:
        self._maybe("ack")
        super().ack(keys)


@pytest.mark.parametrize("method", ["lease", "ack"])
def test_a_store_that_fails_once_is_logged_and_delivery_goes_on(
    sink: Sink, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(dispatcher, "_AFTER_A_FAULT", 0.01)
    store = Shaky()
    settings = Settings.load({"token": "phc_test", "host": sink.url, "flush_interval": 0.01})
    forwarder = Forwarder(store, settings)
    store.fails[method] = 1
    store.put([payload()])
    forwarder.start()
    _until(lambda: store.counts().delivered == 1)
    (record,) = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert record.exc_info is not None
    assert forwarder.close(20.0) == (0, 0)
    assert set(sink.delivered) == {payload().uuid}


def test_a_transport_that_cant_be_made_costs_no_event(
    sink: Sink, caplog: pytest.LogCaptureFixture, lay: Lay
) -> None:
    def connect() -> Any:
        raise ImportError("no module named requests")

    line = lay(connect=connect)
    assert line.send(payloads(2)) == (0, 2)
    assert line.send(payloads(2, start=2)) == (0, 4)
    assert line.accounts == (0, 0, 4)
    assert caplog.text.count("no connection can be prepared") == 1


def test_a_hook_that_raises_is_logged_and_changes_nothing(
    sink: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    def hook(reason: str, count: int) -> None:
        raise ValueError("mine")

    sink.answer = refusing(1)
    store = MemoryStore()
    forwarder = Forwarder(
        store, Settings.load({"token": "phc_test", "host": sink.url}), on_loss=hook
    )
    store.put(payloads(3))
    assert forwarder.close(20.0) == (2, 1)
    assert "the on_drop hook failed" in caplog.text
    assert store.counts()[:4] == (3, 2, 1, 0)


def test_losses_are_logged_once_a_minute_and_summed_up(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger(None, clock)
    for _ in range(5):
        ledger.buried("refused", 2)
    ledger.buried("too_large", 1)
    clock.now += 60
    ledger.buried("refused", 2)
    ledger.buried("refused", 7)
    ledger.settle_log()
    ledger.settle_log()
    assert [each.getMessage() for each in caplog.records] == [
        "2 event(s) will not be delivered: refused",
        "1 event(s) will not be delivered: too_large",
        "10 event(s) will not be delivered: refused",
        "7 event(s) will not be delivered: refused",
    ]
    assert {each.levelname for each in caplog.records} == {"WARNING"}
    assert ledger.dead == {"refused": 19, "too_large": 1}


def test_no_log_line_holds_a_value_an_id_or_the_token(
    lay: Lay, sink: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "second_mw")
    sink.script.extend(
        [status(503, body=b"u_secret"), status(400, body=b"u_secret"), status(401), status(401)]
    )
    line = lay(token="phc_whole_token")
    line.send([payload(n, distinct_id="u_secret", properties=b'{"a":"hush"}') for n in range(2)])
    line.forwarder.close(20.0)
    mine = [each.getMessage() for each in caplog.records if each.name == "second_mw"]
    assert len(mine) > 2
    assert not any(word in " ".join(mine) for word in ("u_secret", "hush", "phc_whole_token"))


@pytest.mark.parametrize(
    ("opt", "warned"),
    [({}, True), ({b"enable-threads": True}, False), ({b"threads": b"2"}, False)],
)
def test_uwsgi_without_threads_is_named_once(
    lay: Lay,
    sink: Sink,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    opt: dict[bytes, object],
    warned: bool,
) -> None:
    monkeypatch.setitem(sys.modules, "uwsgi", SimpleNamespace(opt=opt))  # type: ignore[arg-type]
    line = lay()
    line.send([payload(1)])
    line.forwarder.close(20.0)
    line.send([payload(2)])
    assert caplog.text.count("enable-threads") == int(warned)


# Small parts


def test_the_backoff_doubles_with_jitter_up_to_its_cap() -> None:
    lowest = [backoff(n, lambda: 0.0) for n in range(1, 9)]
    highest = [backoff(n, lambda: 1.0) for n in range(1, 9)]
    assert lowest == [0.375, 0.75, 1.5, 3.0, 6.0, 12.0, 24.0, 30.0]
    assert highest == [0.625, 1.25, 2.5, 5.0, 10.0, 20.0, 30.0, 30.0]
    assert backoff(5000, lambda: 0.5) == 30.0


def test_a_circuit_lets_one_probe_through_at_a_time(clock: Clock) -> None:
    circuit = Circuit(clock)
    assert (circuit.state, circuit.wait(), circuit.begin_probe()) == ("closed", 0.0, False)
    assert circuit.open("unauthorized") is True
    assert circuit.open("unauthorized") is False
    assert (circuit.state, circuit.wait()) == ("open", PROBE_AFTER)
    clock.now += PROBE_AFTER
    assert circuit.wait() == 0.0
    assert circuit.begin_probe() is True
    assert circuit.wait() == float("inf")
    circuit.end_probe(sent=False)
    assert circuit.wait() == 0.0
    circuit.begin_probe()
    circuit.end_probe(sent=True)
    assert circuit.wait() == PROBE_AFTER
    assert circuit.close() is True
    assert circuit.close() is False
    assert circuit.open("unauthorized") is True


def test_an_answer_of_v1_is_not_read_by_v0(lay: Lay, sink: Sink) -> None:
    sink.answer = results({payload().uuid: "ok"})
    line = lay(protocol="v0")
    assert line.send([payload()]) == (0, 1)
    assert json.loads(sink.requests[0].raw)["api_key"] == "phc_test"
