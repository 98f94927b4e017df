"""The outbox's protocol: what a store of waiting payloads must do (spec §11, design.md).

An entry leaves a store only by `ack` (PostHog has it), `bury` (it will never be delivered),
`purge` or `erase`. A lease that is neither settled nor renewed runs out and its entries wait
again. Stores are thread-safe; every method may block, except `put` of a store whose `blocking` is
False. Any method of a durable store may raise `OutboxUnavailable`; nothing was changed then.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from typing import Literal, NamedTuple, Protocol

import msgspec

from second_mw.payload import Payload


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One payload that waits, as it is leased or looked at.

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

    `dead` counts events, not the letters at hand: it stays when a letter is dropped because of its
    age, purged or erased, and falls when one is tried again. `oldest_age` is the age in seconds of
    the oldest entry that waits, 0.0 if none does; leased entries wait too. `ready` is how many
    could be leased now.
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
    #: Returns the key that stands for a user, or None; set by whoever knows the server key. A store
    #: that several machines share remembers under it whom PostHog was told of, for all of them.
    key_of_user: Callable[[str], str] | None

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

        Oldest first, where entries that were held may come later than their age; at least one if
        any is ready, however large; empty if none is.
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

    def dead_reasons(self) -> dict[str, int]:
        """Return how many dead letters are at hand by the reason's machine word."""
        ...

    def retry(self, reason: str | None = None) -> int:
        """Let dead letters wait again, all or those of one machine word; return how many do.

        They begin anew, in round 0. A letter whose event waits already is dropped (purged).

        Raises:
            OutboxUnavailable: `full`; it may have taken some of them back.
        """
        ...

    def peek(self, limit: int) -> list[Entry]:
        """Return up to `limit` entries that wait, leased ones too, oldest first; lease none."""
        ...

    def purge(self, what: Literal["waiting", "dead"] = "waiting") -> int:
        """Drop everything that waits, leased or not, or every dead letter; return how many."""
        ...

    def erase(self, distinct_ids: Collection[str]) -> int:
        """Drop what waits and what is dead under these distinct_ids, for good; return how many.

        What waited counts as purged. Nothing of it can be read from the store afterwards.
        """
        ...

    def export(self, distinct_ids: Collection[str]) -> list[Entry | DeadLetter]:
        """Return what waits, then what is dead, under these distinct_ids; each oldest first."""
        ...

    def next_ready_in(self) -> float | None:
        """Seconds until an entry that waits for its time, or for its lease's end, is ready.

        0.0 if one is ready now, None if nothing waits.
        """
        ...

    def counts(self) -> Counts:
        """Return the accounts."""
        ...

    def check(self) -> list[str]:
        """Return what an operator should change about this store, in sentences; empty if nothing.

        Reaches for the store: what can't be read or written is the first sentence.
        """
        ...

    def after_fork(self) -> None:
        """Become usable in a forked child: new locks, none of the parent's entries."""
        ...

    def close(self) -> None:
        """Let go of files, sockets and threads; the next call takes hold of them again."""
        ...
