"""What the memory outbox promises beyond every store's promises (`test_stores.py`).

It answers at once, keeps its order whatever happens, its times are exact, and it is bounded in all.
"""

from __future__ import annotations

import random
import threading

import pytest

from second_mw.errors import OutboxUnavailable
from second_mw.outbox.base import Counts, Store
from second_mw.outbox.memory import MAX_DEAD_LETTERS, MemoryStore
from tests.delivery.build import Clock, payload, payloads

BIG = 10**9


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(max_events=10, clock=clock, wall=lambda: 5.0)


def keys(store: MemoryStore, limit: int = 100, ttl: float = 60.0) -> list[str]:
    return [entry.key for entry in store.lease(limit, BIG, ttl)]


def numbers(store: MemoryStore, limit: int = 100, ttl: float = 60.0) -> list[bytes]:
    return [entry.payload.properties for entry in store.lease(limit, BIG, ttl)]


def test_it_is_a_store_that_neither_blocks_nor_survives(store: MemoryStore) -> None:
    kept: Store = store
    assert (kept.blocking, kept.durable) == (False, False)


def test_submit_is_done_at_once_with_the_result_or_the_exception(store: MemoryStore) -> None:
    assert store.submit(payloads(10)).result(timeout=0) == 10
    assert isinstance(store.submit([payload(10)]).exception(timeout=0), OutboxUnavailable)


def test_what_is_released_at_once_goes_before_what_is_younger(store: MemoryStore) -> None:
    store.put(payloads(3))
    store.release(keys(store, 1), not_before=0.0)
    assert numbers(store) == [b'{"n":0}', b'{"n":1}', b'{"n":2}']


def test_times_of_day_are_the_wall_clocks(store: MemoryStore) -> None:
    store.put([payload()])
    (entry,) = store.lease(1, BIG, 60.0)
    store.bury({entry.key: "refused"})
    (letter,) = store.dead_letters(1)
    assert (entry.accepted_at, letter.buried_at) == (5.0, 5.0)


def test_waiting_times_are_exact(store: MemoryStore, clock: Clock) -> None:
    store.put(payloads(2))
    clock.now += 7
    store.put(payloads(2, start=2))
    assert store.counts() == Counts(4, 0, 0, 4, 0, 4, 7.0)
    first, second = keys(store, 2, ttl=60.0)
    store.release(keys(store), not_before=30.0)
    assert store.next_ready_in() == 30.0
    store.renew([first], 20.0)
    assert store.next_ready_in() == 20.0
    clock.now += 19.9
    assert keys(store) == []
    clock.now += 0.1
    assert keys(store) == [first]
    store.ack([first, second])
    assert store.counts() == Counts(4, 2, 0, 2, 0, 0, 20.0)


def test_dead_letters_are_bounded_and_their_count_is_not() -> None:
    store = MemoryStore(max_events=MAX_DEAD_LETTERS + 5)
    store.put(payloads(MAX_DEAD_LETTERS + 5))
    store.bury(dict.fromkeys(keys(store, BIG), "refused"))
    assert len(store.dead_letters(BIG)) == MAX_DEAD_LETTERS
    assert store.counts().dead == MAX_DEAD_LETTERS + 5


def test_a_forked_child_starts_empty_with_a_lock_of_its_own(store: MemoryStore) -> None:
    store.put(payloads(3))
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with store._lock:
            held.set()
            done.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert held.wait(20)
        store.after_fork()
        assert store.counts() == Counts(0, 0, 0, 0, 0, 0, 0.0)
        assert store.put(payloads(1)) == 1
    finally:
        done.set()
        holder.join()
    store.close()


def test_stale_heap_items_do_not_pile_up(clock: Clock) -> None:
    store = MemoryStore(clock=clock)
    store.put(payloads(100))
    leased = keys(store, 50)
    for _ in range(1000):
        clock.now += 1
        store.renew(leased, 60.0)
        store.release(keys(store, 50), 0.0)
    store.ack(leased)
    assert store._held_items + len(store._fresh) + len(store._back) < 500
    assert len(store._held) < 500
    assert len(keys(store)) == 50


def test_a_long_life_of_any_order_keeps_the_accounts(clock: Clock) -> None:
    """A model beside the store: who waits, who is held until when."""
    rng = random.Random(7)
    store = MemoryStore(max_events=50, clock=clock)
    waits: dict[str, float] = {}
    settled = buried = accepted = 0
    for turn in range(4000):
        clock.now += rng.choice((0.0, 0.1, 3.0))
        known = list(waits)
        some = rng.sample(known, min(len(known), rng.randrange(6)))
        match rng.randrange(6):
            case 0 | 1:
                new = payloads(rng.randrange(1, 9), start=turn * 10)
                try:
                    store.put(new)
                except OutboxUnavailable:
                    assert len(waits) + len(new) > 50
                else:
                    assert len(waits) + len(new) <= 50
                    waits |= {f"{each.uuid}\n{each.distinct_id}": 0.0 for each in new}
                    accepted += len(new)
            case 2:
                # In the order in which they came.
                ready = [key for key, until in waits.items() if until <= clock.now]
                limit = rng.randrange(1, 9)
                assert keys(store, limit, ttl=5.0) == ready[:limit]
                waits |= dict.fromkeys(ready[:limit], clock.now + 5.0)
            case 3:
                store.release(some, 2.0)
                waits |= dict.fromkeys(some, clock.now + 2.0)
            case 4:
                store.renew(some, 8.0)
                waits |= dict.fromkeys(some, clock.now + 8.0)
            case _:
                if rng.random() < 0.5:
                    store.ack(some)
                    settled += len(some)
                else:
                    store.bury(dict.fromkeys(some, "refused"))
                    buried += len(some)
                for key in some:
                    del waits[key]
        counts = store.counts()
        assert counts[:5] == (accepted, settled, buried, len(waits), 0)
        assert counts.ready == sum(until <= clock.now for until in waits.values())
