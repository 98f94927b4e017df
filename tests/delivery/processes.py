"""Processes of their own that work on one store and can be killed at any instant.

What a process does is a script, given `store` and `sys.argv[2:]`; what it has said is in a file,
whatever becomes of it. The same scripts work on every store that several processes can share.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from second_mw.outbox.base import Store

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


class Process:
    """A script at work.

    Args:
        script: what it does.
        url: of the store that it opens.
        output: the file that it writes to.
        arguments: `sys.argv[2:]`, of which the first is the process's own number.
    """

    def __init__(self, script: str, url: str, output: Path, *arguments: int) -> None:
        self.output = output
        code = (
            "import sys, time\n"
            "from second_mw.outbox.outbox import open_store\n"
            "from tests.delivery.build import payload\n"
            f"store = open_store(sys.argv[1])\n{script}"
        )
        with output.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code, url, *map(str, arguments)], cwd=ROOT, stdout=file
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


@contextmanager
def starting(url: str, place: Path) -> Iterator[Callable[..., Process]]:
    """Yield what starts a script on a store; whatever still runs in the end is killed."""
    started: list[Process] = []

    def start(script: str, *arguments: int) -> Process:
        number = len(started)
        started.append(Process(script, url, place / f"said-{number}", number, *arguments))
        return started[-1]

    yield start
    for process in started:
        process.kill()


def killed_in_turn(
    start: Callable[..., Process], rounds: int, luck: random.Random
) -> tuple[set[str], set[str]]:
    """Let two put and two drain, and kill one of either after the other, so many times.

    Return the uuids that the ones said were accepted, and that the others said they would settle.
    """
    crews = {script: [start(script), start(script)] for script in (PUTS, DRAINS)}
    said: dict[str, set[str]] = {PUTS: set(), DRAINS: set()}
    for script in (PUTS, DRAINS) * rounds:
        victim = crews[script].pop(0)
        victim.wait_for(luck.randint(1, 20))
        victim.kill()
        said[script].update(victim.said)
        crews[script].append(start(script))
    for script, crew in crews.items():
        for process in crew:
            process.kill()
            said[script].update(process.said)
    return said[PUTS], said[DRAINS] - {"idle"}


def assert_nothing_is_lost(store: Store, accepted: set[str], drained: set[str]) -> None:
    """Nothing is, if what was accepted waits, or somebody was about to settle it."""
    counts = store.counts()
    waiting = {entry.payload.uuid for entry in store.peek(counts.accepted + 1)}
    assert len(accepted) > 10
    assert counts.delivered + len(waiting) == counts.accepted
    assert counts.delivered <= len(drained)
    assert accepted <= waiting | drained
