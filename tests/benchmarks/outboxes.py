"""Accepting events: what a durable outbox costs, and what group commit gives back.

Threads stand for concurrent requests: each puts one event, waits until the store has answered, and
puts the next. Beside the stores stand the same file with a commit of its own for every event, and
how often the disk can write and sync at all. Redis is a real server on this machine, where there is
one: its work and its syncs are in the figures, the network between machines is not.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from second_mw.outbox import writer
from second_mw.outbox.base import Store
from second_mw.outbox.memory import MemoryStore
from second_mw.outbox.sqlite import SqliteStore
from second_mw.payload import Payload
from tests.benchmarks.table import Curve, Table, interleaved, ratios, spread

TITLE = "Accepted events a second"

CONCURRENT = (1, 8, 64)
#: About what a build completed weighs.
_PROPERTIES = b'{"%s":1}' % (b"a" * 700)


def on_disk() -> tempfile.TemporaryDirectory[str]:
    """Return a directory on the disk one works on, since /tmp may be memory; out of sight."""
    return tempfile.TemporaryDirectory(prefix=".benchmark-", dir=Path.cwd())


def event(number: int) -> Payload:
    """Return an event of a page's usual size, another one for each number."""
    own = str(uuid.UUID(int=number * 2**64 + number, version=4))
    return Payload("build completed", own, f"anon_{own}", "2026-11-24T04:03:00.000Z", _PROPERTIES)


class _Numbers:
    """Numbers that no other event of this run has."""

    def __init__(self) -> None:
        self._next = 0

    def take(self, count: int) -> range:
        self._next += count
        return range(self._next - count, self._next)


_numbers = _Numbers()


def accepted_a_second(store: Store, threads: int, count: int) -> float:
    """Return how many events a second so many threads put, one at a time each."""
    shares = [
        [event(number) for number in _numbers.take(max(1, count // threads))]
        for _ in range(threads)
    ]
    begin = threading.Barrier(threads + 1)

    def post(share: list[Payload]) -> None:
        begin.wait()
        for each in share:
            store.put([each])

    workers = [threading.Thread(target=post, args=(share,)) for share in shares]
    for worker in workers:
        worker.start()
    begin.wait()
    started = time.perf_counter()
    for worker in workers:
        worker.join()
    took = time.perf_counter() - started
    store.purge()
    return sum(map(len, shares)) / took


@contextmanager
def one_commit_an_event() -> Iterator[None]:
    """Let the writer take one job at a time."""
    usual = writer._A_GROUP
    writer._A_GROUP = 1
    try:
        yield
    finally:
        writer._A_GROUP = usual


def syncs_a_second(place: Path, count: int) -> float:
    """Return how often the disk can take 4 KiB and say that it has them."""
    handle = os.open(place / "sync", os.O_CREAT | os.O_WRONLY, 0o600)
    started = time.perf_counter()
    for _ in range(count):
        os.pwrite(handle, b"x" * 4096, 0)
        os.fsync(handle)
    took = time.perf_counter() - started
    os.close(handle)
    return count / took


_HELD = """
import os, sys
from second_mw.outbox.outbox import open_store
from tests.benchmarks.outboxes import event
def held():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
store = open_store(sys.argv[1])
store.put([event(10**9)])
before = held()
for start in range(0, 10_000, 100):
    store.put([event(number) for number in range(start, start + 100)])
print(held() - before)
store.close()
"""


def bytes_held(url: str) -> float:
    """Return by how many bytes a process grows that has 10,000 events waiting."""
    done = subprocess.run(
        [sys.executable, "-c", _HELD, url], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def measure(short: bool) -> list[Table]:
    """Measure; short is one round of a few hundred events."""
    rounds, count = (1, 64) if short else (5, 2000)
    with on_disk() as made, ExitStack() as stack:
        place = Path(made)
        stores: dict[str, Store] = {
            "memory": MemoryStore(max_events=10**7),
            "sqlite": SqliteStore(str(place / "group.db")),
            "single": SqliteStore(str(place / "single.db")),
            **_redis_stores(place, stack),
        }
        for store in stores.values():
            stack.callback(store.close)
        return [_rates(stores, place, rounds, count), _held(place, stores, short)]


#: Redis's setting of when its file is synced → what it is called here.
_SYNCED: Final = {"always": "Redis, synced /s", "everysec": "Redis, synced each second /s"}


def _redis_stores(place: Path, stack: ExitStack) -> dict[str, Store]:
    """Return a store on a server of its own for each way of syncing; none without a server."""
    if shutil.which("redis-server") is None:
        return {}
    from second_mw.outbox.redis import from_url
    from tests.delivery.redis_server import patient, running

    stores: dict[str, Store] = {}
    for synced in _SYNCED:
        (place / synced).mkdir()
        server = stack.enter_context(running(place / synced, appendfsync=synced))
        stores[synced] = from_url(patient(server.url))
    return stores


def _rates(stores: dict[str, Store], place: Path, rounds: int, count: int) -> Table:
    redis = [synced for synced in _SYNCED if synced in stores]
    rows = []
    points = []
    for threads in CONCURRENT:
        few = max(threads, count // (1 if threads > 1 else 4))

        def alone(threads: int = threads, few: int = few) -> float:
            with one_commit_an_event():
                return accepted_a_second(stores["single"], threads, max(threads, few // 4))

        tasks: dict[str, Callable[[], float]] = {
            **{
                name: lambda t=threads, n=few, s=stores[name]: accepted_a_second(s, t, n)
                for name in ("memory", "sqlite", *redis)
            },
            "alone": alone,
            "syncs": lambda n=few: syncs_a_second(place, max(20, n // 8)),
        }
        found = interleaved(rounds, **tasks)
        points.append((float(threads), spread(found["sqlite"]).median))
        rows.append(
            [
                threads,
                spread(found["memory"]),
                spread(found["sqlite"]),
                *(spread(found[synced]) for synced in redis),
                spread(found["alone"]),
                spread(found["syncs"]),
                ratios(found["sqlite"], found["alone"]),
                ratios(found["sqlite"], found["syncs"]),
            ]
        )
    return Table(
        columns=[
            "concurrent",
            "memory /s",
            "SQLite /s",
            *(_SYNCED[synced] for synced in redis),
            "SQLite, a commit an event /s",
            "the disk's syncs /s",
            "group commit gains",
            "events a sync of the disk",
        ],
        rows=rows,
        notes=[
            "Each thread waits for its event's answer before it puts the next; 700 B an event.",
            "SQLite: every commit is synced (WAL, synchronous=FULL). Redis: appendonly, with "
            "appendfsync always or everysec.",
        ],
        curves=[Curve("SQLite", "concurrent requests", "events a second", points)],
        title="Accepted events a second",
    )


def bytes_held_by_redis(store: Store) -> float:
    """Return by how many bytes a Redis grows that has 10,000 events waiting."""
    from second_mw.outbox.redis import RedisStore

    assert isinstance(store, RedisStore)

    def held() -> float:
        return float(store._do(lambda server: server.info("memory")["used_memory_dataset"]))

    before = held()
    filled = [event(number) for number in _numbers.take(10_000)]
    for start in range(0, 10_000, 100):
        store.put(filled[start : start + 100])
    grown = held() - before
    store.purge()
    return grown


def _held(place: Path, stores: dict[str, Store], short: bool) -> Table:
    rounds = 1 if short else 5
    tasks: dict[str, Callable[[], float]] = {}
    if "always" in stores:
        tasks["redis"] = lambda: bytes_held_by_redis(stores["always"]) / 2**20
    found = interleaved(
        rounds,
        memory=lambda: bytes_held("memory://?max=20000") / 2**20,
        sqlite=lambda: bytes_held(f"sqlite:///{place}/{uuid.uuid4().hex}.db") / 2**20,
        **tasks,
    )
    redis = [["Redis, the server", spread(found["redis"], " MiB")]] if tasks else []
    return Table(
        columns=["10,000 events wait", "the process grows by"],
        rows=[
            ["memory", spread(found["memory"], " MiB")],
            ["SQLite", spread(found["sqlite"], " MiB")],
            *redis,
        ],
        notes=[
            "Resident memory of a process of its own, or what Redis says of its data; 700 B an "
            "event."
        ],
        title="Memory held for 10,000 waiting events",
    )
