"""Every call out of a room made to raise, once each, in each of several ways.

Whatever fails: no exception of ours reaches the host, the answer has a code of the table, an event
that was not kept is never a 2xx, and what is asked next is answered as if nothing had been.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from second_mw import Analytics, ConfigurationError
from second_mw.errors import REFUSALS
from tests.abuse.drive import (
    CAPTURE,
    EVENT,
    IDENTIFY,
    JSON,
    PREFERENCES,
    Told,
    asgi_reply,
    by_asgi,
    event,
    scope_of,
    wsgi_reply,
)
from tests.delivery.build import payload
from tests.delivery.sink import Sink, running
from tests.hosts import ADA, asgi_host, wsgi_host
from tests.stores import Blocking, Kept

SECRET = "correct-horse-battery-staple"
ASKS_STORE = ADA
IDENTIFIED = replace(ADA, anonymized=False)
ONE = Told()
# Nested, which the quick way leaves to the whole walk.
NESTED = replace(ONE, parts=event(properties={"plan": {"steps": ["one two three", {"a": 1}]}}))
BATCH = replace(ONE, parts=(b'{"batch":[' + EVENT + b"," + EVENT + b"]}",))
GET = Told("GET", PREFERENCES, (), ())
PUT = Told("PUT", PREFERENCES, JSON, (b'{"anonymized":false}',))
TELL = Told("POST", IDENTIFY, JSON, (b"{}",))

#: What code of others raises; StopIteration and GeneratorExit would end a generator unseen.
RAISED: list[Callable[[], BaseException]] = [
    lambda: RuntimeError(SECRET),
    lambda: KeyError(SECRET),
    lambda: OSError(28, SECRET),
    lambda: UnicodeDecodeError("utf-8", SECRET.encode(), 0, 1, SECRET),
    lambda: StopIteration(SECRET),
    lambda: asyncio.TimeoutError(SECRET),
    lambda: RecursionError(SECRET),
    lambda: MemoryError(SECRET),
    lambda: ConfigurationError(SECRET),
]


class Fault:
    """Raises when it is called, as long as it is on."""

    def __init__(self, error: Callable[[], BaseException], instead_of: Any) -> None:
        self._error = error
        self._instead_of = instead_of
        self.on = True
        self.met = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.on:
            return self._instead_of(*args, **kwargs)
        self.met += 1
        raise self._error()


@dataclass
class Row:
    """A call out of a room.

    Args:
        call: whose what is called: a path from the `Analytics`, or from a module of the package.
        asked: the requests that lead to it, with the status that each then gets.
        kept: how many events the outbox then has all the same.
        settings: what has to be set for it to be called at all.
    """

    call: str
    asked: list[tuple[Told, int]]
    kept: int = 0
    user: Any = ADA
    settings: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.call


def passes(payload: Any) -> Any:
    return payload


TABLE = [
    # The host's own callables
    Row("resolver", [(ONE, 500), (BATCH, 500), (GET, 500), (PUT, 500), (TELL, 500)]),
    Row("settings.on_receipt", [(ONE, 204), (BATCH, 200)], kept=3,
        settings={"on_receipt": lambda receipt: None}),
    Row("pipeline._on_event", [(ONE, 422), (BATCH, 200)], settings={"on_event": passes}),
    # Stores
    Row("outbox.store.put", [(ONE, 503), (BATCH, 503)]),
    Row("outbox.store.put", [(TELL, 503)], user=IDENTIFIED),
    Row("outbox.put", [(ONE, 503), (BATCH, 503)]),
    Row("_wanted", [(ONE, 204), (BATCH, 200)], kept=3),
    Row("preferences.get", [(ONE, 204), (BATCH, 200), (GET, 200)], kept=3),
    Row("preferences.put", [(PUT, 503)]),
    Row("rates.wait", [(ONE, 204), (BATCH, 200), (GET, 200)], kept=3),
    # The privacy core
    Row("pipeline.finish", [(ONE, 422), (BATCH, 200)]),
    Row("pipeline.identify", [(TELL, 422)], user=IDENTIFIED),
    Row("pipeline.user_key", [(ONE, 422), (BATCH, 422), (GET, 422), (PUT, 422), (TELL, 422)]),
    Row("pipeline._known_of", [(ONE, 422), (BATCH, 200)]),
    Row("pipeline._gate.stops", [(ONE, 422), (BATCH, 200)]),
    Row("pipeline._identified.is_due", [(ONE, 422), (TELL, 422)], user=IDENTIFIED),
    Row("pipeline._identified.told", [(ONE, 204)], kept=2, user=IDENTIFIED),
    Row("second_mw.privacy.pipeline.Anonymizer", [(NESTED, 422)]),
    Row("pipeline._quick.properties", [(ONE, 422), (BATCH, 200)]),
    Row("second_mw.privacy.pipeline.Walk", [(ONE, 422)], user=IDENTIFIED),
    Row("second_mw.privacy.pipeline.utc_now", [(ONE, 422)]),
    Row("second_mw.privacy.pipeline.joined", [(ONE, 422), (BATCH, 200)]),
    # The endpoint's own rooms
    Row("endpoint._origins.check", [(ONE, 422), (GET, 422), (PUT, 422), (TELL, 422)]),
    Row("endpoint._origins.cors_headers", [(ONE, 422), (GET, 422)]),
    Row("second_mw.endpoint.posted_in", [(ONE, 422), (BATCH, 422)]),
    Row("second_mw.endpoint.decoded", [(PUT, 422), (TELL, 422)]),
    Row("second_mw.endpoint.standing", [(ONE, 422), (GET, 422)]),
    Row("second_mw.endpoint.workspace_named", [(ONE, 422), (TELL, 422)]),
    Row("second_mw.endpoint.own_word", [(ONE, 422)]),
    Row("second_mw.endpoint.uuids.uuid4", [(BATCH, 422)]),
    Row("endpoint._tally.add", [(Told("DELETE", CAPTURE), 422), (Told("PUT", CAPTURE), 422)]),
    # The adapters'
    Row("second_mw.adapter._request", [(ONE, 422), (GET, 422)]),
]  # fmt: skip


def break_(call: str, analytics: Any, error: Any, monkeypatch: pytest.MonkeyPatch) -> Fault:
    """Put a fault where this call leads to."""
    *way, name = call.split(".")
    if way[:1] == ["second_mw"]:
        from importlib import import_module

        depth = 3 if way[1] == "privacy" else 2
        owner: Any = import_module(".".join(way[:depth]))
        way = way[depth:]
    else:
        owner = analytics
    for step in way:
        owner = getattr(owner, step)
    fault = Fault(error, getattr(owner, name))
    if call == "settings.on_receipt":
        object.__setattr__(owner, name, fault)  # frozen, which a test may disregard
    else:
        monkeypatch.setattr(owner, name, fault)
    return fault


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error()).__name__)
@pytest.mark.parametrize("row", TABLE, ids=str)
def test_whatever_raises_the_host_hears_nothing_of_it(
    row: Row, error: Any, ask, make, monkeypatch, caplog
) -> None:
    caplog.set_level("DEBUG")
    analytics = make(**row.settings)
    user: Any = lambda _: row.user  # noqa: E731
    if row.call == "resolver":
        fault = user = Fault(error, user)
    else:
        call = row.call.replace("adapter", ask.__name__.removeprefix("by_") + "_desk")
        fault = break_(call, analytics, error, monkeypatch)
    statuses = []
    for told, _ in row.asked:
        reply = ask(analytics, told, user)
        statuses.append(reply.status)
        if reply.status >= 400:
            assert (reply.status, reply.json["message"]) == tuple(REFUSALS[reply.code])
        assert SECRET not in f"{reply.headers} {reply.body!r}"
    assert statuses == [status for _, status in row.asked]
    assert fault.met
    assert analytics.stats()["accepted"] == row.kept
    if row.call != "resolver":  # whose traceback is logged as it is: the host's own words
        assert SECRET not in caplog.text
    fault.on = False
    assert ask(analytics, ONE, user).status == 204


def test_the_table_names_every_room() -> None:
    rooms = {row.call.split(".")[0] for row in TABLE}
    assert rooms >= {"resolver", "settings", "outbox", "preferences", "rates", "pipeline"}
    assert len(TABLE) >= 30


def test_a_batch_of_which_every_event_failed_says_so_of_each(ask, make, monkeypatch) -> None:
    analytics = make()
    break_("pipeline.finish", analytics, RAISED[0], monkeypatch)
    results = ask(analytics, BATCH).json["results"]
    assert [r["error"] for r in results.values()] == ["not_taken"] * 2


def test_capture_from_server_code_never_raises_for_a_store_that_does(make, monkeypatch) -> None:
    analytics = make()
    break_("preferences.get", analytics, RAISED[0], monkeypatch)
    assert analytics.capture(ADA, "page viewed")
    assert analytics.outbox.store.events[0]["distinct_id"].startswith("anon_")


# Stores that do I/O, which an event loop asks in threads


class Waits(Blocking):
    """A store that never says whether it has kept anything."""

    def submit(self, payloads: Any) -> Future[int]:
        return Future()


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error()).__name__)
def test_a_blocking_store_that_fails_is_503(error: Any, ask, make, monkeypatch) -> None:
    class Fails(Blocking):
        def put(self, payloads: Any) -> int:
            raise error()

        def submit(self, payloads: Any) -> Future[int]:
            future: Future[int] = Future()
            failed = error()
            # A future can't hold a StopIteration.
            future.set_exception(RuntimeError() if isinstance(failed, StopIteration) else failed)
            return future

    analytics = make(outbox=Fails())
    assert [ask(analytics, told).status for told in (ONE, BATCH)] == [503, 503]


def test_no_request_hangs_on_an_outbox(make, monkeypatch) -> None:
    monkeypatch.setattr("second_mw.asking.STORE_TIMEOUT", 0.05)
    reply = by_asgi(make(outbox=Waits()), ONE)
    assert (reply.status, reply.code) == (503, "outbox_unavailable")
    assert "retry-after" in reply.headers


class HangingPreferences:
    """A preference store that hangs until the test ends."""

    blocking = True
    shared = True

    def __init__(self) -> None:
        self.end = threading.Event()
        self.asked: list[str] = []

    def get(self, user_key: str) -> Any:
        self.asked.append(threading.current_thread().name)
        self.end.wait(60)

    def put(self, user_key: str, choice: Any) -> None:
        self.end.wait(60)

    def not_alone(self) -> None: ...

    def after_fork(self) -> None: ...

    def close(self) -> None: ...


def test_a_preference_store_that_hangs_means_anonymized_and_holds_up_no_host(
    make, monkeypatch
) -> None:
    monkeypatch.setattr("second_mw.asking.STORE_TIMEOUT", 0.05)
    hanging = HangingPreferences()
    analytics = make(preferences=hanging)
    try:

        async def many() -> list[int]:
            """More requests than there are threads, and the host's own threads beside them."""
            wrapped = analytics.asgi(asgi_host, user=lambda _: ADA, user_blocks=False)

            async def one(told: Told) -> int:
                sent: list[Any] = []

                async def receive() -> Any:
                    return {"type": "http.request", "body": told.body}

                async def send(message: Any) -> None:
                    sent.append(message)

                await wrapped(scope_of(told), receive, send)
                return int(sent[0]["status"])

            statuses = await asyncio.gather(*(one(ONE) for _ in range(20)), one(PUT))
            assert await asyncio.to_thread(lambda: "the host's own") == "the host's own"
            hanging.end.set()
            return list(statuses)

        assert asyncio.run(many()) == [204] * 20 + [503]
    finally:
        hanging.end.set()
    assert all(name.startswith("second_mw-store") for name in hanging.asked)
    events = analytics.outbox.store.events
    assert len(events) == 20
    assert all(kept["distinct_id"].startswith("anon_") for kept in events)


@pytest.mark.parametrize("adapter", ["wsgi", "asgi"])
def test_a_store_that_hangs_keeps_a_few_threads_and_is_then_not_asked_at_all(
    adapter: str, make, monkeypatch
) -> None:
    """The threads are all there is to lose."""
    monkeypatch.setattr("second_mw.asking.CHOICE_TIMEOUT", 0.02)
    hanging = HangingPreferences()
    analytics = make(preferences=hanging)
    if adapter == "wsgi":
        wsgi = analytics.wsgi(wsgi_host, user=lambda _: ADA)
        replies = (wsgi_reply(wsgi, ONE) for _ in range(30))
    else:
        asgi = analytics.asgi(asgi_host, user=lambda _: ADA, user_blocks=False)
        replies = (asyncio.run(asgi_reply(asgi, ONE)) for _ in range(30))
    try:
        assert [reply.status for reply in replies] == [204] * 30
        assert 1 <= len(hanging.asked) <= 8
        assert all(name.startswith("second_mw-store") for name in hanging.asked)
        events = analytics.outbox.store.events
        assert all(kept["distinct_id"].startswith("anon_") for kept in events)
        assert analytics.stats()["preferences_failed"] == 30
    finally:
        hanging.end.set()


# The forwarder: what fails there never reaches a request, and ends nothing


@pytest.fixture
def sink() -> Any:
    with running() as sink:
        yield sink


FORWARDER = [
    ("_store.lease", "not leased"),
    ("_store.counts", "not counted"),
    ("_store.next_ready_in", "not told when"),
    ("_connect", "no transport"),
    ("_delivery.run", "not delivered"),
    ("_delivery._codec.request", "not encoded"),
    ("_delivery._codec.judge", "not judged"),
    ("_store.ack", "not settled"),
]


@pytest.mark.parametrize("call", [call for call, _ in FORWARDER])
def test_a_fault_in_the_forwarder_ends_no_thread_and_costs_no_request(
    call: str, make, sink: Sink, monkeypatch, ask
) -> None:
    from second_mw.forwarder import dispatcher, exchange  # noqa: F401
    from second_mw.outbox.memory import MemoryStore

    monkeypatch.setattr("second_mw.forwarder.dispatcher._AFTER_A_FAULT", 0.05)
    analytics = make(
        outbox=MemoryStore(), host=sink.url, flush_at=1, flush_interval=0.05, gzip=False
    )
    assert ask(analytics, ONE).status == 204
    sink.wait_for(lambda: len(sink.delivered) == 1)
    forwarder: Any = analytics._forwarder
    *way, name = call.split(".")
    owner = forwarder
    for step in way:
        owner = getattr(owner, step)
    real = getattr(owner, name)
    failures: list[int] = []

    def once(*args: Any, **kwargs: Any) -> Any:
        if not failures:
            failures.append(1)
            raise RuntimeError(SECRET)
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, once)
    if call == "_connect":
        # The senders have theirs; a new shift makes a new one.
        analytics._forwarder._shift.over = True
    assert ask(analytics, ONE).status == 204
    stop = threading.Event()
    for _ in range(600):
        # What was in flight when it failed is leased until the lease runs out: others go on.
        assert ask(analytics, ONE).status == 204
        if failures and len(sink.delivered) >= 3:
            break
        stop.wait(0.05)
    assert failures
    assert len(sink.delivered) >= 3
    assert forwarder._shift.alive
    counts = analytics.outbox.counts()
    assert counts.accepted == counts.delivered + counts.dead + counts.waiting + counts.purged


def test_the_hooks_of_the_host_can_fail_without_ending_delivery(make, sink: Sink) -> None:
    from second_mw.outbox.memory import MemoryStore
    from tests.delivery.sink import status

    def fails(reason: str, count: int) -> None:
        raise RuntimeError(SECRET)

    analytics = make(
        outbox=MemoryStore(), host=sink.url, flush_at=1, flush_interval=0.05, on_drop=fails
    )
    sink.script.extend([status(400, body=b"{}")] * 1)
    analytics.capture(ADA, "page viewed")
    sink.wait_for(lambda: len(sink.requests) >= 1)
    analytics.capture(ADA, "page viewed")
    analytics.flush(30.0)
    counts = analytics.outbox.counts()
    assert (counts.waiting, counts.delivered + counts.dead) == (0, 2)


@pytest.mark.parametrize("error", [SystemExit(), KeyboardInterrupt(), GeneratorExit()])
def test_whatever_is_raised_in_the_dispatcher_it_is_logged_and_goes_on(
    error: BaseException, make, sink: Sink, monkeypatch, caplog
) -> None:
    """SystemExit from a library, for one."""
    from second_mw.outbox.memory import MemoryStore

    store = MemoryStore()
    analytics = make(outbox=store, host=sink.url, flush_at=1, flush_interval=0.05)
    analytics.capture(ADA, "page viewed")
    sink.wait_for(lambda: len(sink.delivered) == 1)
    real, raised = store.counts, []

    def fails() -> Any:
        if threading.current_thread().name == "second_mw-dispatcher" and not raised:
            raised.append(threading.current_thread())
            raise error
        return real()

    monkeypatch.setattr(store, "counts", fails)
    analytics.capture(ADA, "page viewed")
    # Without another event to wake it.
    sink.wait_for(lambda: len(sink.delivered) == 2)
    assert raised[0].is_alive()
    assert "the outbox can't be read" in caplog.text


def test_whatever_is_raised_in_a_sender_it_is_logged_and_goes_on(
    make, sink: Sink, monkeypatch, caplog
) -> None:
    from second_mw.forwarder.delivery import Delivery

    analytics = make(host=sink.url, outbox="memory://", flush_at=1, flush_interval=0.05)
    real, raised, has_raised = Delivery.run, [], threading.Event()

    def exits(self: Any, *values: Any, **named: Any) -> Any:
        if not raised:
            raised.append(threading.current_thread())
            has_raised.set()
            raise SystemExit
        return real(self, *values, **named)

    monkeypatch.setattr(Delivery, "run", exits)
    analytics.capture(ADA, "page viewed")
    assert has_raised.wait(30)
    # What it had stays leased; what comes now is delivered.
    analytics.capture(ADA, "page viewed")
    sink.wait_for(lambda: len(sink.delivered) == 1)
    assert raised[0].is_alive()
    assert "a sender was to end" in caplog.text


def end_dispatcher(analytics: Analytics) -> None:
    """End the dispatcher as no exception does: as if its thread had died in C."""
    dead = threading.Thread(target=lambda: None)
    dead.start()
    dead.join()
    shift = analytics._forwarder._shift
    running, shift.dispatcher = shift.dispatcher, dead
    with shift.to_dispatch:
        shift.over = True
        shift.to_dispatch.notify_all()
        shift.to_send.notify_all()
    for thread in (running, *shift.senders):
        thread.join(30)
    shift.over = False  # nobody had wanted it


def test_a_put_after_a_dead_dispatcher_starts_another_and_says_so(make, sink: Sink, caplog) -> None:
    analytics = make(outbox="memory://", host=sink.url, flush_at=1, flush_interval=0.05)
    analytics.capture(ADA, "page viewed")
    sink.wait_for(lambda: len(sink.delivered) == 1)
    end_dispatcher(analytics)
    analytics.capture(ADA, "page viewed")
    sink.wait_for(lambda: len(sink.delivered) == 2)
    assert "another one runs" in caplog.text


def test_a_look_at_the_figures_after_a_dead_dispatcher_starts_another_too(
    make, sink: Sink, caplog
) -> None:
    analytics = make(outbox="memory://", host=sink.url, flush_at=1, flush_interval=0.05)
    analytics.capture(ADA, "page viewed")
    sink.wait_for(lambda: len(sink.delivered) == 1)
    end_dispatcher(analytics)
    analytics.outbox.store.put([payload(1)])  # and nobody is told of it
    assert analytics.stats()["waiting"] == 1
    sink.wait_for(lambda: len(sink.delivered) == 2)
    assert "another one runs" in caplog.text
    # After an end that was wanted there is none.
    analytics.close()
    analytics.stats()
    assert analytics._forwarder._shift is None


def test_what_is_kept_although_the_forwarder_can_not_be_woken_is_told_as_kept(
    ask, make, monkeypatch, caplog
) -> None:
    analytics = make(outbox=Kept())

    def fails() -> Any:
        raise RuntimeError(SECRET)

    monkeypatch.setattr(analytics, "_wanted", fails)
    assert ask(analytics, replace(ONE, parts=event())).status == 204
    assert "could not be woken" in caplog.text
    assert SECRET not in caplog.text
    monkeypatch.undo()
    assert json.loads(EVENT)["event"] == analytics.outbox.store.events[0]["event"]
