"""Many processes on one file, and processes killed at any instant."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from second_mw.outbox.sqlite import SqliteStore
from tests.delivery.build import payload

BIG = 10**9
ROOT = Path(__file__).parents[2]

#: Puts events for ever and says of each, once the store has answered, that it was accepted.
PUTS = """
number = int(sys.argv[2]) * 10**6
while True:
    number += 1
    if store.put([payload(number)]):
        print(payload(number).uuid, flush=True)
"""
#: Leases and settles for ever, and says before it settles what it will.
DRAINS = """
while True:
    leased = store.lease(5, 10**9, 60.0)
    if leased:
        print(*(each.payload.uuid for each in leased), sep="\\n", flush=True)
        store.ack([each.key for each in leased])
    else:
        print("idle", flush=True)
        time.sleep(0.01)
"""
#: Leases everything and holds it.
HOLDS = """
print(len(store.lease(1000, 10**9, 60.0)), flush=True)
time.sleep(600)
"""
#: Puts its share, and settles what it can until every process's share is settled.
WORKS = """
me, share, everything = int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
put = settled = 0
while True:
    if put < share:
        assert store.put([payload(me * 10**6 + n) for n in range(put, put + 5)]) == 5
        put += 5
    leased = store.lease(7, 10**9, 3600.0)
    if leased:
        store.ack([each.key for each in leased])
        print(*(each.payload.uuid for each in leased), sep="\\n", flush=True)
    elif put == share:
        if store.counts().delivered == everything:
            break
        time.sleep(0.02)
store.close()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


class Process:
    """A process of its own on the file; what it has said is in a file, whatever becomes of it."""

    def __init__(self, script: str, file: Path, number: int, *arguments: int) -> None:
        self.output = file.with_name(f"said-{number}")
        code = (
            "import sys, time\n"
            "from second_mw.outbox.sqlite import SqliteStore\n"
            "from tests.delivery.build import payload\n"
            f"store = SqliteStore(sys.argv[1])\n{script}"
        )
        with self.output.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code, str(file), *map(str, (number, *arguments))],
                cwd=ROOT,
                stdout=output,
            )

    @property
    def said(self) -> list[str]:
        """The whole lines it has written."""
        return self.output.read_text().rpartition("\n")[0].split()

    def wait_for(self, lines: int) -> None:
        deadline = time.monotonic() + 100
        while len(self.said) < lines:
            assert self._process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def end(self) -> int:
        return self._process.wait(110)


@pytest.fixture
def start(file: Path) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def start(script: str, *arguments: int) -> Process:
        started.append(Process(script, file, len(started), *arguments))
        return started[-1]

    yield start
    for process in started:
        process.kill()


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
    luck = random.Random(2)
    crews = {script: [start(script), start(script)] for script in (PUTS, DRAINS)}
    said: dict[str, set[str]] = {PUTS: set(), DRAINS: set()}
    for script in (PUTS, DRAINS) * 3:
        victim = crews[script].pop(0)
        victim.wait_for(luck.randint(1, 20))
        victim.kill()
        said[script].update(victim.said)
        crews[script].append(start(script))
    for script, crew in crews.items():
        for process in crew:
            process.kill()
            said[script].update(process.said)
    accepted, drained = said[PUTS], said[DRAINS] - {"idle"}
    store = opened(file)
    waiting = {entry.payload.uuid for entry in store.peek(BIG)}
    settled = store.counts().delivered
    # A drainer says what it will settle, a putter what was accepted: what is in neither is lost.
    assert settled + len(waiting) == store.counts().accepted
    assert settled <= len(drained)
    assert accepted <= waiting | drained
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
