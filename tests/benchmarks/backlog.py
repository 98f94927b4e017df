"""Draining a backlog: does an event cost the same whether thousands wait or a million?

A batch is leased, then settled, as the forwarder does; nothing is sent. What is shown is the time
an event takes in each part of the way, so that a scan anywhere would show as a rising line.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from second_mw.outbox.base import Store
from second_mw.outbox.memory import MemoryStore
from second_mw.outbox.sqlite import SqliteStore
from tests.benchmarks.outboxes import event, on_disk
from tests.benchmarks.table import Curve, Table, spread

TITLE = "Draining a backlog"

_BATCH = 1_000


def filled(store: Store, count: int) -> float:
    """Put so many events; return the seconds it took."""
    took = 0.0
    for start in range(0, count, 500):
        events = [event(number) for number in range(start, min(count, start + 500))]
        started = time.perf_counter()
        store.put(events)
        took += time.perf_counter() - started
    return took


def drained(store: Store) -> list[float]:
    """Drain the store as the dispatcher does; return the µs an event of each batch took."""
    took = []
    while True:
        started = time.perf_counter()
        store.counts()
        leased = store.lease(_BATCH, 10**9, 60.0)
        if not leased:
            return took
        store.ack([each.key for each in leased])
        took.append((time.perf_counter() - started) / len(leased) * 1e6)


@contextmanager
def _opened(name: str, place: str) -> Iterator[Store]:
    """Open a store that is empty, in a directory of its own."""
    with ExitStack() as stack:
        store: Store
        if name == "memory":
            store = MemoryStore(max_events=10**7)
        elif name == "SQLite":
            store = SqliteStore(f"{place}/backlog.db", max_events=10**7)
        else:
            from second_mw.outbox.redis import from_url
            from tests.delivery.redis_server import patient, running

            server = stack.enter_context(running(Path(place)))
            store = from_url(patient(f"{server.url}?max=10000000"))
        stack.callback(store.close)
        yield store


def measure(short: bool) -> Table:
    """Measure; short is a hundredth of the backlog."""
    small, large = (1_000, 10_000) if short else (100_000, 1_000_000)
    rows = []
    curves = []
    for name in ("memory", "SQLite", *(["Redis"] if shutil.which("redis-server") else [])):
        costs: dict[int, float] = {}
        for count in (small, large):
            with on_disk() as made, _opened(name, made) as store:
                filling = filled(store, count)
                batches = drained(store)
                assert store.counts().delivered == count
            costs[count] = sum(batches) / len(batches)
            fifth = max(1, len(batches) // 5)
            rows.append(
                [
                    f"{name}, {count:,} wait",
                    filling / count * 1e6,
                    sum(batches) * _BATCH / 1e6,
                    spread(batches),
                    sum(batches[:fifth]) / fifth,
                    sum(batches[-fifth:]) / fifth,
                    costs[count] / costs[small],
                ]
            )
            if count == large:
                step = max(1, len(batches) // 100)
                points = [(float(at * _BATCH), batches[at]) for at in range(0, len(batches), step)]
                curves.append(Curve(name, "events drained", "µs an event", points))
    return Table(
        columns=[
            "backlog",
            "put, µs an event",
            "drained in s",
            "drain, µs an event",
            "the first fifth",
            "the last fifth",
            "to the small one",
        ],
        rows=rows,
        notes=[f"Batches of {_BATCH:,}: counts, lease, ack. 1.0 in the last column is linear."],
        curves=curves,
    )
