"""Many processes on one Redis, processes killed at any instant, and forks."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from second_mw.outbox.redis import RedisStore, from_url
from tests.delivery.build import payload
from tests.delivery.processes import (
    HOLDS,
    WORKS,
    Process,
    assert_nothing_is_lost,
    killed_in_turn,
    starting,
)
from tests.delivery.redis_server import Server, patient, running

BIG = 10**9
pytestmark = pytest.mark.redis

#: Puts events for ever, each until it is accepted, as a browser does that is answered 503.
PUTS_ON = """
from second_mw.errors import OutboxUnavailable
number = int(sys.argv[2]) * 10**6
while True:
    number += 1
    while True:
        try:
            store.put([payload(number)])
            break
        except OutboxUnavailable:
            time.sleep(0.02)
    print(payload(number).uuid, flush=True)
"""
#: Puts in a parent and in its forked child, which has no thread and no connection of its own yet.
FORKS = """
import os
store.put([payload(1)])
child = os.fork()
if child == 0:
    store.after_fork()
    store.put([payload(2)])
    store.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
store.put([payload(3)])
print(store.counts().waiting, flush=True)
store.close()
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with running(tmp_path) as server:
        yield server


@pytest.fixture
def store(server: Server) -> Iterator[RedisStore]:
    """The test's own look at what is kept; whatever a test does, the accounts are right."""
    store = from_url(patient(server.url))
    yield store
    counts = store.counts()
    assert counts.waiting == len(store.peek(BIG))
    assert counts.accepted == counts.delivered + counts.dead + counts.waiting + counts.purged
    store.close()


@pytest.fixture
def start(server: Server, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    with starting(patient(server.url), tmp_path) as start:
        yield start


def test_what_a_killed_process_had_leased_is_leased_again_once_its_time_is_over(
    store: RedisStore, start: Callable[..., Process], server: Server
) -> None:
    store.put([payload(n) for n in range(20)])
    holder = start(HOLDS)
    holder.wait_for(1)
    assert holder.said == ["20"]
    holder.kill()
    assert store.lease(100, BIG, 60.0) == []
    later = RedisStore(server.client, clock=lambda: time.time() + 61)
    assert len(later.lease(100, BIG, 60.0)) == 20
    later.close()


def test_nothing_is_lost_when_processes_are_killed_while_they_put_and_drain(
    store: RedisStore, start: Callable[..., Process]
) -> None:
    assert_nothing_is_lost(store, *killed_in_turn(start, 2, random.Random(3)))


def test_eight_processes_write_and_drain_one_redis_and_every_event_is_settled_once(
    store: RedisStore, start: Callable[..., Process]
) -> None:
    share, crew = 50, 8
    processes = [start(WORKS, share, share * crew) for _ in range(crew)]
    assert [process.end() for process in processes] == [0] * crew
    settled = [uuid for process in processes for uuid in process.said]
    expected = {payload(me * 10**6 + n).uuid for me in range(crew) for n in range(share)}
    assert len(settled) == share * crew
    assert set(settled) == expected
    assert store.counts()[:6] == (share * crew, share * crew, 0, 0, 0, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_has_connections_of_its_own_and_leaves_its_parents_alone(
    store: RedisStore, start: Callable[..., Process]
) -> None:
    parent = start(FORKS)
    assert parent.end() == 0
    assert parent.said == ["3"]


def test_what_was_accepted_is_there_when_the_server_is_killed_under_load(
    store: RedisStore, start: Callable[..., Process], server: Server
) -> None:
    putters = [start(PUTS_ON) for _ in range(3)]
    for _ in range(3):
        server.kill()
        server.start()
        counted = [len(each.said) for each in putters]
        for putter, count in zip(putters, counted, strict=True):
            putter.wait_for(count + 10)
    for putter in putters:
        putter.kill()
    accepted = {uuid for putter in putters for uuid in putter.said}
    waiting = {entry.payload.uuid for entry in store.peek(BIG)}
    assert len(accepted) >= 90
    assert accepted <= waiting
