"""The memory outbox keeps, lends, takes back and counts."""

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


def test_what_is_put_is_leased_oldest_first(store: MemoryStore) -> None:
    assert store.put(payloads(3)) == 3
    entries = store.lease(10, BIG, 60.0)
    assert [entry.payload for entry in entries] == payloads(3)
    assert {(entry.rounds, entry.accepted_at) for entry in entries} == {(0, 5.0)}


def test_a_lease_takes_no_more_than_asked_and_nobody_elses(store: MemoryStore) -> None:
    store.put(payloads(5))
    assert numbers(store, 2) == [b'{"n":0}', b'{"n":1}']
    assert numbers(store, 10) == [b'{"n":2}', b'{"n":3}', b'{"n":4}']
    assert numbers(store) == []


def test_a_lease_stops_before_the_bytes_are_exceeded_and_leaves_the_rest(
    store: MemoryStore,
) -> None:
    store.put(payloads(4))
    size = payload().size
    assert len(store.lease(10, 2 * size, 60.0)) == 2
    assert len(store.lease(10, 10 * size, 60.0)) == 2


def test_one_entry_is_leased_however_large(store: MemoryStore) -> None:
    store.put(payloads(2))
    assert len(store.lease(10, 1, 60.0)) == 1


def test_a_full_store_keeps_all_of_a_put_or_none(store: MemoryStore) -> None:
    store.put(payloads(8))
    with pytest.raises(OutboxUnavailable) as caught:
        store.put(payloads(3, start=8))
    assert caught.value.reason == "full"
    assert store.counts().waiting == 8
    assert store.put(payloads(2, start=8)) == 2


def test_leased_entries_still_take_their_room(store: MemoryStore) -> None:
    store.put(payloads(10))
    keys(store)
    with pytest.raises(OutboxUnavailable):
        store.put([payload(10)])


def test_settled_entries_make_room(store: MemoryStore) -> None:
    store.put(payloads(10))
    store.ack(keys(store, 1))
    assert store.put([payload(10)]) == 1


def test_the_same_event_waits_once_also_within_one_put(store: MemoryStore) -> None:
    assert store.put([payload(1), payload(1)]) == 1
    assert store.put([payload(1), payload(2)]) == 1
    keys(store)
    assert store.put([payload(1)]) == 0
    assert store.counts().accepted == 2


def test_a_full_store_takes_what_waits_already(store: MemoryStore) -> None:
    store.put(payloads(10))
    assert store.put(payloads(10)) == 0


def test_the_same_uuid_of_another_distinct_id_is_another_event(store: MemoryStore) -> None:
    assert store.put([payload(1), payload(1, distinct_id="anon_2")]) == 2


@pytest.mark.parametrize("settle", ["ack", "bury"])
def test_a_settled_event_may_come_again(store: MemoryStore, settle: str) -> None:
    store.put([payload(1)])
    leased = keys(store)
    if settle == "ack":
        store.ack(leased)
    else:
        store.bury(dict.fromkeys(leased, "refused"))
    assert store.put([payload(1)]) == 1


def test_submit_is_done_at_once_with_the_result_or_the_exception(store: MemoryStore) -> None:
    assert store.submit(payloads(10)).result(timeout=0) == 10
    assert isinstance(store.submit([payload(10)]).exception(timeout=0), OutboxUnavailable)


def test_a_lease_that_runs_out_gives_its_entries_back(store: MemoryStore, clock: Clock) -> None:
    store.put(payloads(2))
    first = keys(store, ttl=60.0)
    clock.now += 59.9
    assert keys(store) == []
    clock.now += 0.1
    assert keys(store) == first


def test_a_renewed_lease_holds_on(store: MemoryStore, clock: Clock) -> None:
    store.put(payloads(2))
    first = keys(store, ttl=60.0)
    clock.now += 50
    store.renew(first[:1], 60.0)
    clock.now += 50
    assert keys(store) == first[1:]


def test_a_lease_renewed_after_it_ran_out_is_taken_again(store: MemoryStore, clock: Clock) -> None:
    store.put([payload()])
    leased = keys(store, ttl=1.0)
    clock.now += 2
    assert store.counts().ready == 1
    store.renew(leased, 60.0)
    assert store.counts().ready == 0
    assert keys(store) == []


def test_what_is_released_comes_back_at_its_time_with_one_more_round(
    store: MemoryStore, clock: Clock
) -> None:
    store.put(payloads(2))
    store.release(keys(store), not_before=30.0)
    assert keys(store) == []
    assert store.next_ready_in() == 30.0
    clock.now += 30
    assert [entry.rounds for entry in store.lease(10, BIG, 60.0)] == [1, 1]


def test_what_is_released_at_once_goes_before_what_is_younger(store: MemoryStore) -> None:
    store.put(payloads(3))
    store.release(keys(store, 1), not_before=0.0)
    assert numbers(store) == [b'{"n":0}', b'{"n":1}', b'{"n":2}']


def test_what_is_settled_after_its_lease_ran_out_is_settled(
    store: MemoryStore, clock: Clock
) -> None:
    store.put(payloads(2))
    late = keys(store, ttl=1.0)
    clock.now += 2
    assert store.counts().ready == 2
    store.ack(late[:1])
    store.bury({late[1]: "refused"})
    assert store.counts()[:6] == (2, 1, 1, 0, 0, 0)
    assert keys(store) == []


def test_keys_that_are_gone_are_passed_over(store: MemoryStore) -> None:
    store.put([payload()])
    gone = keys(store)
    store.ack(gone)
    before = store.counts()
    store.ack(gone)
    store.bury({gone[0]: "refused"})
    store.release(gone, 0.0)
    store.renew([*gone, "never"], 60.0)
    assert store.counts() == before


def test_dead_letters_have_their_reason_and_the_newest_comes_first(store: MemoryStore) -> None:
    store.put(payloads(3))
    for number, key in enumerate(keys(store)):
        store.bury({key: f"refused: {number}"})
    letters = store.dead_letters(2)
    assert [letter.reason for letter in letters] == ["refused: 2", "refused: 1"]
    assert (letters[0].payload, letters[0].buried_at) == (payload(2), 5.0)
    assert len(store.dead_letters(10)) == 3


def test_dead_letters_are_bounded_and_their_count_is_not() -> None:
    store = MemoryStore(max_events=MAX_DEAD_LETTERS + 5)
    store.put(payloads(MAX_DEAD_LETTERS + 5))
    store.bury(dict.fromkeys(keys(store, BIG), "refused"))
    assert len(store.dead_letters(BIG)) == MAX_DEAD_LETTERS
    assert store.counts().dead == MAX_DEAD_LETTERS + 5


def test_counts_tell_waiting_from_ready_and_know_the_oldest(
    store: MemoryStore, clock: Clock
) -> None:
    assert store.counts() == Counts(0, 0, 0, 0, 0, 0, 0.0)
    store.put(payloads(2))
    clock.now += 7
    store.put(payloads(2, start=2))
    leased = keys(store, 2)
    assert store.counts() == Counts(4, 0, 0, 4, 0, 2, 7.0)
    store.ack(leased)
    assert store.counts() == Counts(4, 2, 0, 2, 0, 2, 0.0)


def test_the_next_entry_is_ready_now_later_or_never(store: MemoryStore, clock: Clock) -> None:
    assert store.next_ready_in() is None
    store.put(payloads(2))
    assert store.next_ready_in() == 0.0
    first = keys(store, 1, ttl=60.0)
    keys(store, 1, ttl=20.0)
    assert store.next_ready_in() == 20.0
    store.renew(first, 5.0)
    assert store.next_ready_in() == 5.0


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
                    waits |= {str(accepted + n + 1): 0.0 for n in range(len(new))}
                    accepted += len(new)
            case 2:
                ready = sorted((k for k in waits if waits[k] <= clock.now), key=int)
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


def test_many_threads_lose_and_double_nothing() -> None:
    store = MemoryStore()
    taken: list[str] = []

    def feed(start: int) -> None:
        for n in range(start, start + 200):
            store.put([payload(n)])

    def eat() -> None:
        while len(taken) < 800:
            leased = keys(store, 7)
            store.ack(leased)
            taken.extend(leased)

    threads = [threading.Thread(target=feed, args=(n * 200,)) for n in range(4)]
    threads += [threading.Thread(target=eat) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == len(set(taken)) == 800
    assert store.counts()[:4] == (800, 800, 0, 0)
