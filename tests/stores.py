"""A store that keeps what it is given and hands out nothing, and one that takes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import msgspec

from second_mw.errors import OutboxUnavailable
from second_mw.outbox.base import Counts, DeadLetter, Entry
from second_mw.payload import Payload


class Kept:
    """Keeps payloads in the order in which they came; nothing ever leaves."""

    durable = False
    blocking = False

    def __init__(self) -> None:
        self.payloads: list[Payload] = []
        self.puts: list[int] = []

    @property
    def events(self) -> list[dict[str, Any]]:
        """The payloads as plain data, properties decoded."""
        return [
            {
                "event": p.event,
                "uuid": p.uuid,
                "distinct_id": p.distinct_id,
                "timestamp": p.timestamp,
                "options": p.options,
                "properties": msgspec.json.decode(p.properties),
            }
            for p in self.payloads
        ]

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
