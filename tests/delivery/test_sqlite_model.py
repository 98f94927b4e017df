"""Stores against a model of what the protocol promises: any sequence of calls, the same answers."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from second_mw.errors import OutboxUnavailable
from second_mw.payload import Payload
from tests.delivery.build import payload
from tests.stores import SUBJECTS

BIG = 10**9
ROOM = 10
PEOPLE = ("anon_1", "anon_2", "u_3")

numbers = st.integers(0, 14)
people = st.sampled_from(PEOPLE)
few = st.integers(1, 4)
seconds = st.sampled_from([5.0, 30.0, 60.0])


@dataclass
class Waiting:
    """What the model knows of an entry; `until` is when its lease or its delay ends."""

    payload: Payload
    rounds: int = 0
    until: float = 0.0
    key: str | None = None


def one(number: int, person: str) -> Payload:
    return payload(number, distinct_id=person)


def name(item: Payload) -> tuple[str, str]:
    return item.distinct_id, item.uuid


class StoreMachine(RuleBasedStateMachine):
    """Drives a store of room for ten events, and the model beside it."""

    kind = ""

    def __init__(self) -> None:
        super().__init__()
        # On a disk in memory where there is one: nothing here is about the disk.
        place = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self.place = Path(tempfile.mkdtemp(dir=place))
        subject = SUBJECTS[self.kind](self.place)
        self.store, self.passes = subject.store, subject.passes
        self.now = 0.0
        self.waiting: dict[tuple[str, str], Waiting] = {}
        self.dead: list[tuple[Payload, str]] = []
        self.accepted = self.delivered = self.died = self.purged = 0

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.place)

    def ready(self) -> list[Waiting]:
        return [each for each in self.waiting.values() if each.until <= self.now]

    def leased(self, count: int) -> list[Waiting]:
        return [each for each in self.waiting.values() if each.key is not None][:count]

    # Taking in

    @rule(numbers=st.lists(numbers, max_size=4), person=people)
    def put(self, numbers: list[int], person: str) -> None:
        given = {name(item): item for item in (one(number, person) for number in numbers)}
        new = {each: item for each, item in given.items() if each not in self.waiting}
        if len(self.waiting) + len(new) > ROOM:
            with pytest.raises(OutboxUnavailable):
                self.store.put([one(number, person) for number in numbers])
            return
        assert self.store.put([one(number, person) for number in numbers]) == len(new)
        self.waiting.update({each: Waiting(item) for each, item in new.items()})
        self.accepted += len(new)

    # Lending and settling

    @rule(limit=few, ttl=seconds)
    def lease(self, limit: int, ttl: float) -> None:
        ready = self.ready()
        entries = self.store.lease(limit, BIG, ttl)
        assert len(entries) == min(limit, len(ready))
        fresh = [each.payload for each in ready if each.key is None and not each.rounds]
        if len(fresh) == len(ready):
            assert [entry.payload for entry in entries] == fresh[:limit]
        for entry in entries:
            known = self.waiting[name(entry.payload)]
            assert (entry.payload, entry.rounds) == (known.payload, known.rounds)
            assert known.until <= self.now
            known.until, known.key = self.now + ttl, entry.key

    @rule(count=few, ttl=seconds)
    def renew(self, count: int, ttl: float) -> None:
        held = self.leased(count)
        self.store.renew([str(each.key) for each in held], ttl)
        for each in held:
            each.until = self.now + ttl

    @rule(count=few)
    def ack(self, count: int) -> None:
        held = self.leased(count)
        self.store.ack([str(each.key) for each in held])
        for each in held:
            del self.waiting[name(each.payload)]
        self.delivered += len(held)

    @rule(count=few, wait=st.sampled_from([0.0, 30.0]))
    def release(self, count: int, wait: float) -> None:
        held = self.leased(count)
        self.store.release([str(each.key) for each in held], wait)
        for each in held:
            each.rounds, each.until, each.key = each.rounds + 1, self.now + wait, None

    @rule(count=few, reason=st.sampled_from(["refused: 400", "expired"]))
    def bury(self, count: int, reason: str) -> None:
        held = self.leased(count)
        self.store.bury({str(each.key): reason for each in held})
        for each in held:
            del self.waiting[name(each.payload)]
            self.dead.append((each.payload, reason))
        self.died += len(held)

    # Operators

    @rule(word=st.sampled_from([None, "refused", "expired"]))
    def retry(self, word: str | None) -> None:
        chosen = [each for each in self.dead if word in (None, each[1].partition(":")[0])]
        fresh = {name(item): item for item, _ in chosen if name(item) not in self.waiting}
        if len(self.waiting) + len(chosen) > ROOM:
            # Whether it counts those that wait already before it refuses is its own business.
            if len(self.waiting) + len(fresh) > ROOM:
                with pytest.raises(OutboxUnavailable):
                    self.store.retry(word)
            return
        assert self.store.retry(word) == len(fresh)
        self.dead = [each for each in self.dead if each not in chosen]
        self.waiting.update({each: Waiting(item) for each, item in fresh.items()})
        self.died -= len(chosen)
        self.purged += len(chosen) - len(fresh)

    @rule()
    def purge(self) -> None:
        assert self.store.purge() == len(self.waiting)
        self.purged += len(self.waiting)
        self.waiting.clear()

    @rule()
    def purge_the_dead(self) -> None:
        assert self.store.purge("dead") == len(self.dead)
        self.dead.clear()

    @rule(person=people)
    def erase(self, person: str) -> None:
        gone = [each for each in self.waiting if each[0] == person]
        dead = [each for each in self.dead if each[0].distinct_id == person]
        assert self.store.erase([person]) == len(gone) + len(dead)
        for each in gone:
            del self.waiting[each]
        self.dead = [each for each in self.dead if each not in dead]
        self.purged += len(gone)

    @rule(by=seconds)
    def time_passes(self, by: float) -> None:
        self.passes(by)
        self.now += by

    @rule()
    def reopen(self) -> None:
        self.store.close()

    # What holds after any of it

    @invariant()
    def the_accounts_hold(self) -> None:
        counts = self.store.counts()
        assert counts[:6] == (
            self.accepted, self.delivered, self.died, len(self.waiting), self.purged,
            len(self.ready()),
        )  # fmt: skip
        assert counts.accepted == counts.delivered + counts.dead + counts.waiting + counts.purged

    @invariant()
    def nothing_is_lost_or_made_up(self) -> None:
        def sort(items: list[Any]) -> list[Any]:
            return sorted(items, key=repr)

        assert sort([each.payload for each in self.store.peek(BIG)]) == sort(
            [each.payload for each in self.waiting.values()]
        )
        letters = self.store.dead_letters(BIG)
        assert sort([(each.payload, each.reason) for each in letters]) == sort(self.dead)

    @invariant()
    def the_next_is_ready_when_the_model_says(self) -> None:
        waits = self.store.next_ready_in()
        if not self.waiting:
            assert waits is None
        else:
            soonest = min(each.until for each in self.waiting.values())
            assert waits == pytest.approx(max(0.0, soonest - self.now), abs=0.001)


@pytest.mark.parametrize(
    ("kind", "examples"),
    [("memory", 60), ("sqlite", 60), pytest.param("redis", 40, marks=pytest.mark.redis)],
)
def test_a_store_does_what_the_model_does(kind: str, examples: int) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    machine = type(f"{kind}Machine", (StoreMachine,), {"kind": kind})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            derandomize=True,
            database=None,
        ),
    )
