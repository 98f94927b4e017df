"""Many processes on one file, and processes killed at any instant."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from second_mw.outbox.sqlite import SqliteStore
from tests.delivery.build import payload
from tests.delivery.processes import (
    HOLDS,
    PUTS,
    ROOT,
    WORKS,
    Process,
    assert_nothing_is_lost,
    killed_in_turn,
    starting,
)

BIG = 10**9


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


@pytest.fixture
def start(file: Path) -> Iterator[Callable[..., Process]]:
    with starting(f"sqlite:///{file}", file.parent) as start:
        yield start


def opened(file: Path, ahead: float = 0.0) -> SqliteStore:
    """Open the file, with a clock that is so many seconds ahead."""
    return SqliteStore(str(file), clock=lambda: time.time() + ahead)


def assert_accounts_hold(store: SqliteStore) -> None:
    counts = store.counts()
    assert counts.waiting == len(store.peek(BIG))
    assert counts.accepted == counts.delivered + counts.dead + counts.waiting + counts.purged
    assert store._database.damage() is None


def test_what_was_accepted_outlives_processes_killed_while_they_put(
    file: Path, start: Callable[..., Process]
) -> None:
    luck = random.Random(1)
    running = [start(PUTS) for _ in range(3)]
    killed: list[Process] = []
    for _ in range(6):
        running[0].wait_for(luck.randint(1, 25))
        running[0].kill()
        killed.append(running.pop(0))
        running.append(start(PUTS))
    for process in running:
        process.wait_for(1)
        process.kill()
    accepted = {uuid for process in (*killed, *running) for uuid in process.said}
    store = opened(file)
    found = {entry.payload.uuid for entry in store.peek(BIG)}
    assert len(accepted) > 10
    assert accepted <= found
    assert_accounts_hold(store)
    store.close()


def test_what_a_killed_process_had_leased_is_leased_again_once_its_time_is_over(
    file: Path, start: Callable[..., Process]
) -> None:
    store = opened(file)
    store.put([payload(n) for n in range(20)])
    holder = start(HOLDS)
    holder.wait_for(1)
    assert holder.said == ["20"]
    holder.kill()
    assert store.lease(100, BIG, 60.0) == []
    later = opened(file, ahead=61.0)
    assert len(later.lease(100, BIG, 60.0)) == 20
    assert_accounts_hold(later)
    store.close()
    later.close()


def test_nothing_is_lost_when_processes_are_killed_while_they_put_and_drain(
    file: Path, start: Callable[..., Process]
) -> None:
    accepted, drained = killed_in_turn(start, 3, random.Random(2))
    store = opened(file)
    assert_nothing_is_lost(store, accepted, drained)
    assert_accounts_hold(store)
    store.close()


def test_eight_processes_write_and_drain_one_file_and_every_event_is_settled_once(
    file: Path, start: Callable[..., Process]
) -> None:
    share, crew = 50, 8
    SqliteStore(str(file)).close()
    processes = [start(WORKS, share, share * crew) for _ in range(crew)]
    assert [process.end() for process in processes] == [0] * crew
    settled = [uuid for process in processes for uuid in process.said]
    expected = {payload(me * 10**6 + n).uuid for me in range(crew) for n in range(share)}
    assert len(settled) == share * crew
    assert set(settled) == expected
    store = opened(file)
    assert store.counts()[:6] == (share * crew, share * crew, 0, 0, 0, 0)
    store.close()


def test_a_process_that_ends_leaves_nothing_in_the_log(file: Path) -> None:
    code = (
        "import sys\nfrom second_mw.outbox.sqlite import SqliteStore\n"
        "from tests.delivery.build import payload\n"
        "store = SqliteStore(sys.argv[1])\nstore.put([payload(1)])\nstore.close()\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code, str(file)], cwd=ROOT, check=True)
    assert sorted(each.name for each in file.parent.iterdir()) == ["outbox.db"]
    assert file.stat().st_size > 0
