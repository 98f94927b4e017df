"""The memory outbox: waiting payloads of one process, bounded, gone with it (spec §11).

Only the keeping lives here: what may enter was decided before, what becomes of an entry is the
forwarder's business. An entry is *ready* or *held*; it is held until a moment, be that the end of
its lease or the time it was put off to, and both end alike: it is ready again. What was put stands
in a queue; what comes back, in a heap of sequence numbers, for "oldest first". What is held at once
(a lease of a thousand) is one item in a heap of moments, not a thousand: that halved the cost of a
drain. All delete lazily and are rebuilt when more than half of them is stale, which keeps every
operation cheap, amortised, and memory bounded.
"""

from __future__ import annotations

import heapq
import math
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from itertools import islice
from typing import Final, Literal

import msgspec
from msgspec.structs import replace

from second_mw.errors import ConfigurationError, OutboxUnavailable
from second_mw.outbox.base import Counts, DeadLetter, Entry
from second_mw.payload import Payload

#: Dead letters are for looking at; a process that lives for months must not collect them.
MAX_DEAD_LETTERS: Final = 1_000
#: Below this many stale heap items a rebuild costs more than it saves.
_SLACK: Final = 64
#: A moment that no lease lasts until.
_GONE: Final = -math.inf


class _Item(msgspec.Struct, gc=False):
    """A payload that waits: `until` is None while it is ready, else when it becomes so.

    What was settled but still stands in the queues is held until `_GONE`, for ever. A Struct,
    because it is made for every event, and out of the collector's sight, because it can't be part
    of a cycle.
    """

    sequence: int
    entry: Entry
    size: int
    since: float
    until: float | None = None


class MemoryStore:
    """Keep up to `max_events` payloads, leased ones included, in memory.

    Args:
        max_events: how many may wait; a put that would exceed it keeps nothing.
        clock: monotonic seconds, for leases, delays and ages.
        wall: seconds since the epoch, for `Entry.accepted_at` and `DeadLetter.buried_at`.

    >>> store = MemoryStore(max_events=2)
    >>> store.put([Payload("page viewed", "7d9f…", "anon_1", "2026-11-24T04:03:00.000Z", b"{}")])
    1
    >>> [entry.payload.event for entry in store.lease(10, 5_000_000, ttl=60.0)]
    ['page viewed']
    """

    durable = False
    blocking = False
    #: It remembers nobody.
    key_of_user: Callable[[str], str] | None = None

    def __init__(
        self,
        max_events: int = 10_000,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.max_events = max_events
        self._clock = clock
        self._wall = wall
        self._begin()

    def _begin(self) -> None:
        """Start with nothing: at construction, and in a forked child, which inherits no lock."""
        # Re-entrant: a signal handler may look into the store that its own thread is changing.
        self._lock = threading.RLock()
        #: By uuid and distinct_id, which an entry waits under once (spec §11).
        self._items: dict[str, _Item] = {}
        # All in the order in which they came. The oldest is asked for at every look, for which a
        # plain dict that loses its first items must search, and an ordered one costs more than this
        # at every put and ack.
        self._order: deque[_Item] = deque()
        self._fresh: deque[_Item] = deque()
        self._back: list[tuple[int, _Item]] = []
        # Until when, a number that makes it unlike every other, and what is held.
        self._held: list[tuple[float, int, list[_Item]]] = []
        self._held_items = 0
        self._turn = 0
        self._ready_count = 0
        self._sequence = 0
        self._accepted = self._delivered = self._dead = self._purged = 0
        self._letters: deque[DeadLetter] = deque(maxlen=MAX_DEAD_LETTERS)

    def put(self, payloads: Sequence[Payload]) -> int:
        """Keep all payloads or none; return how many are new.

        Raises:
            OutboxUnavailable: `full`; none was kept.
        """
        with self._lock:
            items = self._items
            if len(items) + len(payloads) > self.max_events:
                self._check_room(payloads)
            since, accepted_at = self._clock(), self._wall()
            kept = 0
            for payload in payloads:
                key = _key_of(payload)
                if key not in items:
                    kept += 1
                    self._sequence = sequence = self._sequence + 1
                    item = _Item(sequence, Entry(key, payload, 0, accepted_at), payload.size, since)
                    items[key] = item
                    self._order.append(item)
                    self._fresh.append(item)
            self._ready_count += kept
            self._accepted += kept
            return kept

    def _check_room(self, payloads: Sequence[Payload]) -> None:
        """Raise OutboxUnavailable if those of them that are new are too many."""
        fresh = {_key_of(payload) for payload in payloads}.difference(self._items)
        if len(self._items) + len(fresh) > self.max_events:
            raise OutboxUnavailable("full")

    def submit(self, payloads: Sequence[Payload]) -> Future[int]:
        """Like `put`; memory never blocks, so the future is done already."""
        future: Future[int] = Future()
        try:
            future.set_result(self.put(payloads))
        except OutboxUnavailable as error:
            future.set_exception(error)
        return future

    def lease(self, limit: int, max_bytes: int, ttl: float) -> list[Entry]:
        """Take up to `limit` entries of together at most `max_bytes` for `ttl` seconds."""
        with self._lock:
            now = self._clock()
            self._let_go(now)
            leased: list[_Item] = []
            until = now + ttl
            fresh, back = self._fresh, self._back
            size = 0
            while len(leased) < limit:
                if back and not (fresh and fresh[0].sequence < back[0][0]):
                    item = heapq.heappop(back)[1]
                elif fresh:
                    item = fresh.popleft()
                else:
                    break
                if item.until is not None:
                    continue
                size += item.size
                if size > max_bytes and leased:
                    # Whichever queue it came from: it is as old as what comes back.
                    heapq.heappush(back, (item.sequence, item))
                    break
                leased.append(item)
                # At once: one that was held and came back stands in both queues.
                item.until = until
            self._ready_count -= len(leased)
            self._keep_till(until, leased)
            return [item.entry for item in leased]

    def renew(self, keys: Sequence[str], ttl: float) -> None:
        """Hold these leases for another `ttl` seconds; a lease that ran out is taken again."""
        with self._lock:
            self._hold(self._found(keys), self._clock() + ttl)

    def ack(self, keys: Sequence[str]) -> None:
        """Settle these entries as delivered."""
        with self._lock:
            self._delivered += len(self._removed(keys))

    def release(self, keys: Sequence[str], not_before: float) -> None:
        """Give these entries back, to be leased again no sooner than in `not_before` seconds."""
        with self._lock:
            now = self._clock()
            found = self._found(keys)
            for item in found:
                item.entry = replace(item.entry, rounds=item.entry.rounds + 1)
            self._hold(found, now + not_before)
            self._let_go(now)

    def bury(self, reasons: Mapping[str, str]) -> None:
        """Move entries to the dead letters: key → reason."""
        with self._lock:
            buried_at = self._wall()
            for item in self._removed(reasons):
                letter = DeadLetter(item.entry.payload, reasons[item.entry.key], buried_at)
                self._letters.append(letter)
                self._dead += 1

    def dead_letters(self, limit: int) -> list[DeadLetter]:
        """Return up to `limit` of the last dead letters, newest first."""
        with self._lock:
            newest_first = reversed(self._letters)
            return [letter for letter, _ in zip(newest_first, range(limit), strict=False)]

    def dead_reasons(self) -> dict[str, int]:
        """Return how many dead letters are at hand by the reason's machine word."""
        with self._lock:
            return dict(Counter(_word(letter.reason) for letter in self._letters))

    def retry(self, reason: str | None = None) -> int:
        """Let dead letters wait again, all or those of one machine word; return how many do.

        Raises:
            OutboxUnavailable: `full`; all stay dead.
        """
        with self._lock:
            again = [each for each in self._letters if reason in (None, _word(each.reason))]
            returned = self.put([letter.payload for letter in again])
            self._letters = deque(
                (each for each in self._letters if reason not in (None, _word(each.reason))),
                maxlen=MAX_DEAD_LETTERS,
            )
            # They were accepted once already.
            self._accepted -= returned
            self._dead -= len(again)
            self._purged += len(again) - returned
            return returned

    def peek(self, limit: int) -> list[Entry]:
        """Return up to `limit` entries that wait, leased ones too, oldest first; lease none."""
        with self._lock:
            return [item.entry for item in islice(self._items.values(), limit)]

    def purge(self, what: Literal["waiting", "dead"] = "waiting") -> int:
        """Drop everything that waits, leased or not, or every dead letter; return how many."""
        with self._lock:
            if what == "waiting":
                return self._purge(list(self._items))
            dropped = len(self._letters)
            self._letters.clear()
            return dropped

    def erase(self, distinct_ids: Collection[str]) -> int:
        """Drop what waits and what is dead under these distinct_ids; return how many."""
        with self._lock:
            erased = [
                key
                for key, item in self._items.items()
                if item.entry.payload.distinct_id in distinct_ids
            ]
            kept = [each for each in self._letters if each.payload.distinct_id not in distinct_ids]
            dropped = len(self._letters) - len(kept)
            self._letters = deque(kept, maxlen=MAX_DEAD_LETTERS)
            return self._purge(erased) + dropped

    def export(self, distinct_ids: Collection[str]) -> list[Entry | DeadLetter]:
        """Return what waits, then what is dead, under these distinct_ids; each oldest first."""
        with self._lock:
            everything: list[Entry | DeadLetter] = [
                *(item.entry for item in self._items.values()),
                *self._letters,
            ]
            return [each for each in everything if each.payload.distinct_id in distinct_ids]

    def next_ready_in(self) -> float | None:
        """Seconds until an entry is ready: 0.0 if one is, None if nothing waits."""
        with self._lock:
            now = self._clock()
            self._let_go(now)
            if self._ready_count:
                return 0.0
            while self._held:
                until, _, items = self._held[0]
                if any(item.until == until for item in items):
                    break
                heapq.heappop(self._held)
                self._held_items -= len(items)
            return self._held[0][0] - now if self._held else None

    def counts(self) -> Counts:
        """Return the accounts, all of one moment."""
        with self._lock:
            now = self._clock()
            self._let_go(now)
            order = self._order
            while order and order[0].until == _GONE:
                order.popleft()
            return Counts(
                accepted=self._accepted,
                delivered=self._delivered,
                dead=self._dead,
                waiting=len(self._items),
                purged=self._purged,
                ready=self._ready_count,
                oldest_age=now - order[0].since if order else 0.0,
            )

    def entered(self) -> bool:
        """Return whether the calling thread is inside this store: a signal handler may be."""
        # What threading.Condition asks a lock, too; there is no public way.
        owned: bool = self._lock._is_owned()  # type: ignore[attr-defined]
        return owned

    def check(self) -> list[str]:
        """Return what an operator should change about this store: nothing."""
        return []

    def after_fork(self) -> None:
        """Become the child's own: what waited is the parent's to send."""
        self._begin()

    def close(self) -> None:
        """Nothing to let go of: memory holds no file, socket or thread."""

    def _purge(self, keys: Iterable[str]) -> int:
        purged = len(self._removed(keys))
        self._purged += purged
        return purged

    def _found(self, keys: Iterable[str]) -> list[_Item]:
        return [item for key in keys if (item := self._items.get(key)) is not None]

    def _removed(self, keys: Iterable[str]) -> list[_Item]:
        """Take these items out, whether leased, put off or ready again."""
        take = self._items.pop
        removed = [item for key in keys if (item := take(key, None)) is not None]
        for item in removed:
            if item.until is None:
                self._ready_count -= 1
            item.until = _GONE
        self._tidy()
        return removed

    def _hold(self, items: list[_Item], until: float) -> None:
        for item in items:
            if item.until is None:
                self._ready_count -= 1
            item.until = until
        self._keep_till(until, items)

    def _keep_till(self, until: float, items: list[_Item]) -> None:
        if items:
            self._turn += 1
            heapq.heappush(self._held, (until, self._turn, items))
            self._held_items += len(items)
            self._tidy()

    def _let_go(self, now: float) -> None:
        """Make ready what was held until now."""
        while self._held and self._held[0][0] <= now:
            until, _, items = heapq.heappop(self._held)
            self._held_items -= len(items)
            for item in items:
                if item.until == until:
                    item.until = None
                    self._ready_count += 1
                    heapq.heappush(self._back, (item.sequence, item))

    def _tidy(self) -> None:
        """Rebuild what is stale by more than half, from itself: that much is paid for already."""
        held = len(self._items) - self._ready_count
        if not held:
            self._held.clear()
            self._held_items = 0
        elif self._held_items > 2 * held + _SLACK:
            groups = [
                (until, turn, [item for item in items if item.until == until])
                for until, turn, items in self._held
            ]
            self._held = [group for group in groups if group[2]]
            heapq.heapify(self._held)
            self._held_items = sum(len(items) for _, _, items in self._held)
        if len(self._fresh) + len(self._back) > 2 * self._ready_count + _SLACK:
            queued = (*self._fresh, *(item for _, item in self._back))
            ready = {item.sequence: item for item in queued if item.until is None}
            self._fresh, self._back = deque(), sorted(ready.items())
        if len(self._order) > 2 * len(self._items) + _SLACK:
            self._order = deque(self._items.values())


def _key_of(payload: Payload) -> str:
    # One text, whose hash is taken once; no uuid has a line's end in it.
    return f"{payload.uuid}\n{payload.distinct_id}"


def _word(reason: str) -> str:
    return reason.partition(":")[0]


def from_url(url: str, setting: str = "outbox") -> MemoryStore:
    """Return the store of `memory://` or `memory://?max=10000`.

    Raises:
        ConfigurationError: the URL is wrong.
    """
    found = re.fullmatch(r"memory://(?:\?max=([1-9][0-9]{0,8}))?", url)
    if found is None:
        raise ConfigurationError(f"{setting} must be memory:// or such as memory://?max=10000.")
    return MemoryStore(max_events=int(found[1])) if found[1] else MemoryStore()
