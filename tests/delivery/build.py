"""Small builders for what the delivery tests are about."""

from __future__ import annotations

import uuid
from typing import Any

from second_mw.forwarder.exchange import Batch
from second_mw.outbox.base import Entry
from second_mw.payload import Payload, finish

NOW = 1795492980.5  # 2026-11-24T04:03:00.500Z
STAMP = "2026-11-24T04:03:00.000Z"


class Clock:
    """Monotonic seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def payload(n: int = 0, **fields: Any) -> Payload:
    """Return the nth payload; equal n, equal payload."""
    return Payload(
        **{
            "event": "page viewed",
            "uuid": str(uuid.UUID(int=n + 1, version=4)),
            "distinct_id": "anon_1",
            "timestamp": STAMP,
            "properties": b'{"n":%d}' % n,
            **fields,
        }
    )


def payloads(count: int, start: int = 0) -> list[Payload]:
    return [payload(n) for n in range(start, start + count)]


def batch(*items: Payload) -> Batch:
    """Return a batch of these payloads, with keys "0", "1" and so on."""
    entries = [Entry(str(n), item, 0, NOW) for n, item in enumerate(items)]
    return Batch.of(entries, NOW)


def captured(properties: dict[str, Any] | None = None, **fields: Any) -> Payload:
    """Return a payload as `analytics.outbox.put` makes one of a finished event."""
    added = {"$lib": "second-mw", "$lib_version": "1.0", "$geoip_disable": True}
    event = {"event": "page viewed", "distinct_id": "u_1", "properties": properties or {}}
    return finish({**event, **fields}, added)
