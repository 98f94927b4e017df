"""The outbox's protocol: what a store of waiting payloads must do (spec §11, design.md).

An entry leaves a store only by `ack` (PostHog has it), `bury` (it will never be delivered) or
`purge`. A lease that is neither settled nor renewed runs out and its entries wait again. Stores
are thread-safe; every method may block, except `put` of a store whose `blocking` is False.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import NamedTuple, Protocol

import msgspec

from second_mw.payload import Payload


class Entry(msgspec.Struct, frozen=True):
    """One leased payload.

    Args:
        key: the store's own name for the entry.
        payload: the finished event.
        rounds: how many rounds of delivery have ended without settling it.
        accepted_at: when it was accepted, seconds since the epoch.
    """

    key: str
    payload: Payload
    rounds: int
    accepted_at: float


class DeadLetter(msgspec.Struct, frozen=True):
    """A payload that will never be delivered, and why.

    Args:
        payload: the finished event.
        reason: a short machine word with an optional detail, such as `refused: 400 …`.
        buried_at: seconds since the epoch.
    """

    payload: Payload
    reason: str
    buried_at: float


class Counts(NamedTuple):
    """A store's accounts; accepted = delivered + dead + waiting + purged, at any moment.

    `oldest_age` is the age in seconds of the oldest entry that waits, 0.0 if none does; leased
    entries wait too. `ready` is how many could be leased now.
    """

    accepted: int
    delivered: int
    dead: int
    waiting: int
    purged: int
    ready: int
    oldest_age: float


class Store(Protocol):
    """Where payloads wait. `memory://` is one; `sqlite://` and `redis://` are others."""

    #: Whether entries outlive the process.
    durable: bool
    #: Whether `put` does I/O; an event loop then awaits `submit` instead.
    blocking: bool

    def put(self, payloads: Sequence[Payload]) -> int:
        """Keep all payloads or none; return how many are new.

        One whose (distinct_id, uuid) waits already is taken as the one that waits.

        Raises:
            OutboxUnavailable: none was kept.
        """
        ...

    def submit(self, payloads: Sequence[Payload]) -> Future[int]:
        """Like `put`, without blocking: the future has its result or its exception."""
        ...

    def lease(self, limit: int, max_bytes: int, ttl: float) -> list[Entry]:
        """Take up to `limit` entries of together at most `max_bytes` for `ttl` seconds.

        Oldest first; at least one if any is ready, however large; empty if none is.
        """
        ...

    def renew(self, keys: Sequence[str], ttl: float) -> None:
        """Hold these leases for another `ttl` seconds."""
        ...

    def ack(self, keys: Sequence[str]) -> None:
        """Settle these entries as delivered; keys that are gone already are passed over."""
        ...

    def release(self, keys: Sequence[str], not_before: float) -> None:
        """Give these entries back, to be leased again no sooner than in `not_before` seconds.

        Counts as one more round for each.
        """
        ...

    def bury(self, reasons: Mapping[str, str]) -> None:
        """Move entries to the dead letters: key → reason."""
        ...

    def dead_letters(self, limit: int) -> list[DeadLetter]:
        """Return up to `limit` dead letters, newest first."""
        ...

    def next_ready_in(self) -> float | None:
        """Seconds until an entry that waits for its time, or for its lease's end, is ready.

        0.0 if one is ready now, None if nothing waits.
        """
        ...

    def counts(self) -> Counts:
        """Return the accounts."""
        ...

    def after_fork(self) -> None:
        """Become usable in a forked child: new locks, none of the parent's entries."""
        ...

    def close(self) -> None:
        """Let go of files, sockets and threads."""
        ...
