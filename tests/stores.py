"""The stores that tests put events into.

`Kept` keeps what it is given and hands out nothing, `Full` takes nothing. `SUBJECTS` are the real
ones, each made so that a test can let time pass: whatever the protocol promises is tested against
all of them (`delivery/test_stores.py`).
"""

from __future__ import annotations

import atexit
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from second_mw.errors import OutboxUnavailable
from second_mw.outbox.base import Counts, DeadLetter, Entry, Store
from second_mw.payload import Payload, as_data
from tests.delivery.redis_server import Server


class Kept:
    """Keeps payloads in the order in which they came; nothing ever leaves."""

    durable = False
    blocking = False
    key_of_user: Callable[[str], str] | None = None

    def __init__(self) -> None:
        self.payloads: list[Payload] = []
        self.puts: list[int] = []

    @property
    def events(self) -> list[dict[str, Any]]:
        """The payloads as plain data, properties decoded."""
        return [as_data(payload) for payload in self.payloads]

    def put(self, payloads: Sequence[Payload]) -> int:
        known = {(p.distinct_id, p.uuid) for p in self.payloads}
        new = [p for p in payloads if (p.distinct_id, p.uuid) not in known]
        self.payloads.extend(new)
        self.puts.append(len(payloads))
        return len(new)

    def submit(self, payloads: Sequence[Payload]) -> Future[int]:
        future: Future[int] = Future()
        try:
            future.set_result(self.put(payloads))
        except OutboxUnavailable as error:
            future.set_exception(error)
        return future

    def lease(self, limit: int, max_bytes: int, ttl: float) -> list[Entry]:
        return []

    def renew(self, keys: Sequence[str], ttl: float) -> None: ...

    def ack(self, keys: Sequence[str]) -> None: ...

    def release(self, keys: Sequence[str], not_before: float) -> None: ...

    def bury(self, reasons: Mapping[str, str]) -> None: ...

    def dead_letters(self, limit: int) -> list[DeadLetter]:
        return []

    def dead_reasons(self) -> dict[str, int]:
        return {}

    def retry(self, reason: str | None = None) -> int:
        return 0

    def peek(self, limit: int) -> list[Entry]:
        return []

    def purge(self, what: str = "waiting") -> int:
        return 0

    def erase(self, distinct_ids: Collection[str]) -> int:
        return 0

    def export(self, distinct_ids: Collection[str]) -> list[Entry | DeadLetter]:
        return []

    def check(self) -> list[str]:
        return []

    def next_ready_in(self) -> float | None:
        return None

    def counts(self) -> Counts:
        return Counts(len(self.payloads), 0, 0, len(self.payloads), 0, 0, 0.0)

    def after_fork(self) -> None: ...

    def close(self) -> None: ...


class Full(Kept):
    """Takes nothing."""

    def put(self, payloads: Sequence[Payload]) -> int:
        raise OutboxUnavailable("full", retry_after=7)


class Blocking(Kept):
    """Says that its `put` would block, as a store with a file does."""

    blocking = True


@dataclass
class Subject:
    """A real store under test.

    Args:
        store: empty, of room for ten events.
        passes: lets that many seconds pass.
        wide: the same without a bound that a test could meet.
    """

    store: Store
    passes: Callable[[float], None]
    wide: Callable[[], Store]


class Moment:
    """Seconds since the epoch that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1_795_492_980.5

    def __call__(self) -> float:
        return self.now

    def passes(self, seconds: float) -> None:
        self.now += seconds


def _memory(place: Path) -> Subject:
    from second_mw.outbox.memory import MemoryStore

    moment = Moment()

    def made(**bounds: int) -> MemoryStore:
        return MemoryStore(clock=moment, wall=moment, **bounds)

    return Subject(made(max_events=10), moment.passes, made)


def _sqlite(place: Path) -> Subject:
    from second_mw.outbox.sqlite import SqliteStore

    moment = Moment()

    def made(name: str = "wide.db", **bounds: int) -> SqliteStore:
        return SqliteStore(str(place / name), clock=moment, **bounds)

    return Subject(made("outbox.db", max_events=10), moment.passes, made)


def _redis(place: Path) -> Subject:
    import redis

    from second_mw.outbox.redis import RedisStore

    server = redis_server()
    server.flush()
    moment = Moment()

    def made(database: int = 1, **bounds: int) -> RedisStore:
        return RedisStore(
            lambda: redis.Redis(port=server.port, db=database), clock=moment, **bounds
        )

    return Subject(made(0, max_events=10), moment.passes, made)


@cache
def redis_server() -> Server:
    """A redis-server for all tests of this process; a test that shakes one starts its own."""
    folder = tempfile.TemporaryDirectory()
    server = Server(Path(folder.name))
    server.start()
    atexit.register(lambda: (server.kill(), folder.cleanup()))
    return server


#: Name → what makes it, given a directory of its own. A further store is one more line here.
SUBJECTS: dict[str, Callable[[Path], Subject]] = {
    "memory": _memory,
    "redis": _redis,
    "sqlite": _sqlite,
}
