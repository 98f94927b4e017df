"""What the outbox's protocol promises, of every store that keeps it (`second_mw.outbox.base`)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from second_mw.errors import OutboxUnavailable
from second_mw.outbox.base import Counts, DeadLetter, Entry, Store
from tests.delivery.build import payload, payloads
from tests.stores import SUBJECTS, Subject

BIG = 10**9


@pytest.fixture(params=sorted(SUBJECTS))
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    made = SUBJECTS[request.param](tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def store(subject: Subject) -> Iterator[Store]:
    """The subject's store; whatever a test does, its accounts are right at the end."""
    yield subject.store
    assert_accounts_hold(subject.store)


@pytest.fixture
def passes(subject: Subject) -> Callable[[float], None]:
    return subject.passes


def assert_accounts_hold(store: Store) -> None:
    counts = store.counts()
    assert counts.waiting == len(store.peek(BIG))
    assert counts.accepted == counts.delivered + counts.dead + counts.waiting + counts.purged


def keys(store: Store, limit: int = 100, ttl: float = 60.0) -> list[str]:
    return [entry.key for entry in store.lease(limit, BIG, ttl)]


def numbers(store: Store, limit: int = 100, ttl: float = 60.0) -> list[bytes]:
    return [entry.payload.properties for entry in store.lease(limit, BIG, ttl)]


def buried(store: Store, reason: str = "refused: 400", count: int = 1) -> None:
    store.bury(dict.fromkeys(keys(store, count), reason))


# Taking in


def test_what_is_put_is_leased_whole_and_oldest_first(store: Store) -> None:
    put = [*payloads(2), payload(2, options={"process_person_profile": False}, event="größer")]
    assert store.put(put) == 3
    entries = store.lease(10, BIG, 60.0)
    assert [entry.payload for entry in entries] == put
    assert {entry.rounds for entry in entries} == {0}


def test_an_entry_knows_when_it_was_accepted(store: Store, passes) -> None:
    store.put([payload(0)])
    passes(7)
    store.put([payload(1)])
    first, second = store.lease(10, BIG, 60.0)
    assert second.accepted_at - first.accepted_at == 7


def test_a_full_store_keeps_all_of_a_put_or_none(store: Store) -> None:
    store.put(payloads(8))
    with pytest.raises(OutboxUnavailable) as caught:
        store.put(payloads(3, start=8))
    assert caught.value.reason == "full"
    assert store.counts().waiting == 8
    assert store.put(payloads(2, start=8)) == 2


def test_leased_entries_still_take_their_room(store: Store) -> None:
    store.put(payloads(10))
    keys(store)
    with pytest.raises(OutboxUnavailable):
        store.put([payload(10)])


def test_settled_entries_make_room(store: Store) -> None:
    store.put(payloads(10))
    store.ack(keys(store, 1))
    assert store.put([payload(10)]) == 1


def test_the_same_event_waits_once_also_within_one_put(store: Store) -> None:
    assert store.put([payload(1), payload(1)]) == 1
    assert store.put([payload(1), payload(2)]) == 1
    keys(store)
    assert store.put([payload(1)]) == 0
    assert store.counts().accepted == 2


def test_a_full_store_takes_what_waits_already(store: Store) -> None:
    store.put(payloads(10))
    assert store.put(payloads(10)) == 0
    with pytest.raises(OutboxUnavailable):
        store.put(payloads(11))


def test_the_same_uuid_of_another_distinct_id_is_another_event(store: Store) -> None:
    assert store.put([payload(1), payload(1, distinct_id="anon_2")]) == 2


@pytest.mark.parametrize("settle", ["ack", "bury", "purge", "erase"])
def test_a_settled_event_may_come_again(store: Store, settle: str) -> None:
    store.put([payload(1)])
    leased = keys(store)
    {
        "ack": lambda: store.ack(leased),
        "bury": lambda: store.bury(dict.fromkeys(leased, "refused")),
        "purge": store.purge,
        "erase": lambda: store.erase(["anon_1"]),
    }[settle]()
    assert store.put([payload(1)]) == 1


def test_submit_answers_with_the_result_or_the_exception(store: Store) -> None:
    assert store.submit(payloads(10)).result(timeout=30) == 10
    assert isinstance(store.submit([payload(10)]).exception(timeout=30), OutboxUnavailable)


def test_an_empty_put_keeps_nothing(store: Store) -> None:
    assert store.put([]) == 0
    assert store.counts() == Counts(0, 0, 0, 0, 0, 0, 0.0)


# Lending and settling


def test_a_lease_takes_no_more_than_asked_and_nobody_elses(store: Store) -> None:
    store.put(payloads(5))
    assert numbers(store, 2) == [b'{"n":0}', b'{"n":1}']
    assert numbers(store, 10) == [b'{"n":2}', b'{"n":3}', b'{"n":4}']
    assert numbers(store) == []


def test_a_lease_stops_before_the_bytes_are_exceeded_and_leaves_the_rest(store: Store) -> None:
    store.put(payloads(4))
    size = payload().size
    assert len(store.lease(10, 2 * size, 60.0)) == 2
    assert len(store.lease(10, 10 * size, 60.0)) == 2


def test_one_entry_is_leased_however_large(store: Store) -> None:
    store.put(payloads(2))
    assert len(store.lease(10, 1, 60.0)) == 1


def test_a_lease_that_runs_out_gives_its_entries_back(store: Store, passes) -> None:
    store.put(payloads(2))
    first = numbers(store, ttl=60.0)
    passes(59)
    assert numbers(store) == []
    passes(1)
    assert numbers(store) == first


def test_a_renewed_lease_holds_on(store: Store, passes) -> None:
    store.put(payloads(2))
    first = store.lease(10, BIG, 60.0)
    passes(50)
    store.renew([first[0].key], 60.0)
    passes(50)
    assert numbers(store) == [first[1].payload.properties]


def test_a_lease_renewed_after_it_ran_out_is_taken_again(store: Store, passes) -> None:
    store.put([payload()])
    leased = keys(store, ttl=10.0)
    passes(20)
    assert store.counts().ready == 1
    store.renew(leased, 60.0)
    assert store.counts().ready == 0
    assert keys(store) == []


def test_what_is_released_comes_back_at_its_time_with_one_more_round(store: Store, passes) -> None:
    store.put(payloads(2))
    store.release(keys(store), not_before=30.0)
    assert keys(store) == []
    passes(30)
    assert [entry.rounds for entry in store.lease(10, BIG, 60.0)] == [1, 1]


def test_what_is_put_off_is_put_off_over_a_closing_too(store: Store, passes) -> None:
    store.put(payloads(2))
    store.release(keys(store), not_before=30.0)
    store.close()
    passes(29)
    assert keys(store) == []
    passes(1)
    assert len(keys(store)) == 2


def test_what_is_released_at_once_may_be_leased_at_once(store: Store) -> None:
    store.put(payloads(3))
    store.release(keys(store, 1), not_before=0.0)
    assert sorted(numbers(store)) == [b'{"n":0}', b'{"n":1}', b'{"n":2}']


def test_what_is_settled_after_its_lease_ran_out_is_settled(store: Store, passes) -> None:
    store.put(payloads(2))
    late = keys(store, ttl=10.0)
    passes(20)
    assert store.counts().ready == 2
    store.ack(late[:1])
    store.bury({late[1]: "refused"})
    assert store.counts()[:6] == (2, 1, 1, 0, 0, 0)
    assert keys(store) == []


def test_keys_that_are_gone_are_passed_over(store: Store) -> None:
    store.put([payload()])
    gone = keys(store)
    store.ack(gone)
    before = store.counts()
    for strange in (gone, ["never"], ["9" * 40], ["-1"], [""]):
        store.ack(strange)
        store.bury(dict.fromkeys(strange, "refused"))
        store.release(strange, 0.0)
        store.renew(strange, 60.0)
    assert store.counts() == before


def test_a_key_never_names_a_later_event(store: Store) -> None:
    store.put([payload(0)])
    slow = keys(store)
    store.ack(slow)
    store.put([payload(1)])
    store.ack(slow)
    assert store.counts().waiting == 1


def test_the_next_entry_is_ready_now_later_or_never(store: Store, passes) -> None:
    assert store.next_ready_in() is None
    store.put(payloads(2))
    assert store.next_ready_in() == 0.0
    first = keys(store, 1, ttl=60.0)
    keys(store, 1, ttl=20.0)
    assert store.next_ready_in() == pytest.approx(20.0, abs=1.0)
    store.renew(first, 5.0)
    assert store.next_ready_in() == pytest.approx(5.0, abs=1.0)
    passes(5)
    assert store.next_ready_in() == 0.0


# The dead


def test_dead_letters_have_their_reason_and_the_newest_comes_first(store: Store, passes) -> None:
    store.put(payloads(3))
    for number in range(3):
        passes(1)
        buried(store, f"refused: {number}")
    newest, middle = store.dead_letters(2)
    assert [newest.reason, middle.reason] == ["refused: 2", "refused: 1"]
    assert newest.payload == payload(2)
    assert newest.buried_at - middle.buried_at == 1
    assert len(store.dead_letters(10)) == 3


def test_dead_letters_are_counted_by_their_machine_word(store: Store) -> None:
    assert store.dead_reasons() == {}
    store.put(payloads(3))
    for reason in ("refused: 400 bad", "refused: 413 large", "expired"):
        buried(store, reason)
    assert store.dead_reasons() == {"refused": 2, "expired": 1}


def test_dead_letters_can_be_tried_again_in_round_0(store: Store) -> None:
    store.put(payloads(2))
    store.release(keys(store), 0.0)
    buried(store, count=2)
    assert store.retry() == 2
    assert store.counts()[:6] == (2, 0, 0, 2, 0, 2)
    assert store.dead_letters(10) == []
    entries = store.lease(10, BIG, 60.0)
    assert [(entry.payload, entry.rounds) for entry in entries] == [
        (payload(0), 0),
        (payload(1), 0),
    ]


def test_only_those_of_one_reason_are_tried_again_if_one_is_named(store: Store) -> None:
    store.put(payloads(3))
    for reason in ("refused: 400", "expired", "refused"):
        buried(store, reason)
    assert store.retry("expired") == 1
    assert store.retry("refuse") == 0
    assert store.dead_reasons() == {"refused": 2}
    assert numbers(store) == [b'{"n":1}']


def test_a_letter_whose_event_waits_again_is_not_kept_twice(store: Store) -> None:
    store.put([payload(1)])
    buried(store)
    store.put([payload(1)])
    assert store.retry() == 0
    assert store.counts()[:6] == (2, 0, 0, 1, 1, 1)


def test_letters_that_find_no_room_stay_dead(store: Store) -> None:
    store.put(payloads(2))
    buried(store, count=2)
    store.put(payloads(9, start=2))
    with pytest.raises(OutboxUnavailable):
        store.retry()
    assert store.counts()[:4] == (11, 0, 2, 9)
    assert len(store.dead_letters(10)) == 2


# Looking, dropping


def test_a_look_leases_nothing_and_sees_what_is_leased(store: Store) -> None:
    store.put(payloads(3))
    keys(store, 1)
    assert [entry.payload for entry in store.peek(2)] == payloads(2)
    assert numbers(store) == [b'{"n":1}', b'{"n":2}']


def test_purging_drops_what_waits_leased_or_not_and_leaves_the_dead(store: Store) -> None:
    store.put(payloads(4))
    buried(store)
    leased = keys(store, 1)
    assert store.purge() == 3
    store.ack(leased)
    assert store.counts() == Counts(4, 0, 1, 0, 3, 0, 0.0)
    assert len(store.dead_letters(10)) == 1
    assert store.purge() == 0


def test_purging_the_dead_leaves_what_waits_and_the_accounts(store: Store) -> None:
    store.put(payloads(4))
    buried(store, count=2)
    assert store.purge("dead") == 2
    assert store.dead_letters(10) == []
    assert store.counts()[:5] == (4, 0, 2, 2, 0)


def people(store: Store) -> None:
    """Two events of ada and one of bob, waiting, and one of each, dead."""
    store.put([payload(0, distinct_id="ada"), payload(1, distinct_id="bob")])
    buried(store, count=2)
    store.put(
        [
            payload(2, distinct_id="ada"),
            payload(3, distinct_id="bob"),
            payload(4, distinct_id="ada"),
        ]
    )
    keys(store, 1)


def test_a_persons_events_can_be_read_waiting_and_dead(store: Store) -> None:
    people(store)
    found = store.export(["ada"])
    assert [type(each) for each in found] == [Entry, Entry, DeadLetter]
    assert [each.payload.properties for each in found] == [b'{"n":2}', b'{"n":4}', b'{"n":0}']
    assert store.export(["nobody"]) == []
    assert len(store.export(["ada", "bob"])) == 5


def test_a_persons_events_can_be_erased_and_nobody_elses(store: Store) -> None:
    people(store)
    assert store.erase(["ada", "nobody"]) == 3
    assert store.export(["ada"]) == []
    assert len(store.export(["bob"])) == 2
    assert store.counts()[:6] == (5, 0, 2, 1, 2, 1)


# Accounts


def test_counts_tell_waiting_from_ready_and_know_the_oldest(store: Store, passes) -> None:
    store.put(payloads(2))
    passes(7)
    store.put(payloads(2, start=2))
    leased = keys(store, 2)
    counts = store.counts()
    assert counts[:6] == (4, 0, 0, 4, 0, 2)
    assert counts.oldest_age == pytest.approx(7.0, abs=1.0)
    store.ack(leased)
    assert store.counts()[:6] == (4, 2, 0, 2, 0, 2)


def test_a_store_in_order_has_nothing_to_be_told_of(subject: Subject) -> None:
    assert subject.wide().check() == []


def test_a_closed_store_may_be_used_again(store: Store) -> None:
    store.put([payload(0)])
    store.close()
    store.put([payload(1)])
    assert store.counts().accepted == 2
    store.close()
    store.close()


def test_many_threads_lose_nothing_and_settle_nothing_twice(subject: Subject) -> None:
    store = subject.wide()
    each, threads = 60, 8
    settled: list[str] = []

    def work(number: int) -> None:
        for at in range(each):
            assert store.put([payload(number * each + at)]) == 1
            leased = keys(store, 3)
            store.ack(leased)
            settled.extend(leased)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    rest = keys(store, BIG)
    store.ack(rest)
    assert len(settled) + len(rest) == len({*settled, *rest}) == each * threads
    assert store.counts()[:6] == (each * threads, each * threads, 0, 0, 0, 0)
    store.close()
