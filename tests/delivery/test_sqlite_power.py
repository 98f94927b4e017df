"""The power fails at any moment: no event that was answered for is missing."""

from __future__ import annotations

import itertools
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from second_mw.errors import ConfigurationError, OutboxUnavailable
from second_mw.outbox.sqlite import SqliteStore
from tests.delivery.build import payload, payloads
from tests.delivery.power import Disk

BIG = 10**9
_names = itertools.count()


@pytest.fixture
def disk() -> Iterator[Callable[..., Disk]]:
    disks: list[Disk] = []

    def disk(writes: int | None = None) -> Disk:
        disks.append(Disk(f"power{next(_names)}", writes))
        return disks[-1]

    yield disk
    for each in disks:
        each.close()


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory in memory, where there is one: the disk under test is another."""
    ram = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=ram) as made:
        yield Path(made)


def put_until_the_cut(store: SqliteStore, luck: random.Random) -> tuple[set[str], set[str]]:
    """Put, lease and settle until the power fails; return the uuids accepted and settled."""
    accepted: set[str] = set()
    settled: set[str] = set()
    for start in itertools.count(0, 10):
        events = payloads(luck.randint(1, 10), start=start)
        try:
            store.put(events)
            accepted.update(each.uuid for each in events)
            if luck.random() < 0.3:
                leased = store.lease(luck.randint(1, 20), BIG, 60.0)
                # Whether it is settled when the answer is lost, nobody can say.
                settled.update(each.payload.uuid for each in leased)
                store.ack([each.key for each in leased])
        except OutboxUnavailable:
            return accepted, settled
        if start > 20_000:
            raise AssertionError("the power never failed")
    raise AssertionError


def found_after(disk: Disk, place: Path, luck: random.Random, share: float) -> set[str]:
    """Return the uuids in what the disk has after the cut, opened as any file is."""
    name = "after.db"
    for old in place.glob("*.db*"):
        old.unlink()
    disk.leave(place, luck, share)
    store = SqliteStore(str(place / name))
    try:
        counts, entries = store.counts(), store.peek(BIG)
        assert counts.waiting == len(entries)
        assert store._database.damage() is None
        assert counts.accepted == (counts.delivered + counts.dead + counts.waiting + counts.purged)
        return {entry.payload.uuid for entry in entries}
    finally:
        store.close()


def cut(
    disk: Callable[..., Disk], place: Path, seed: int, share: float, synchronous: str
) -> tuple[set[str], set[str], set[str]]:
    """Run until a cut; return what was accepted, what may have been settled, what is found."""
    luck = random.Random(seed)
    (place / "before").mkdir(exist_ok=True)
    drive = disk()
    made = place / "before" / "after.db"
    made.unlink(missing_ok=True)
    store = SqliteStore(str(made), connect=drive.connect(synchronous=synchronous))
    # Not before the first commit: a host that can't start has promised nothing.
    drive.left = luck.randint(100, 3000)
    accepted, settled = put_until_the_cut(store, luck)
    store._writer.close()
    return accepted, settled, found_after(drive, place, luck, share)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(8))
def test_no_accepted_event_is_missing_after_a_power_cut(
    disk: Callable[..., Disk], place: Path, seed: int, share: float
) -> None:
    accepted, settled, found = cut(disk, place, seed, share, "FULL")
    assert accepted
    assert accepted - settled <= found


@pytest.mark.parametrize("synchronous", ["OFF", "NORMAL"])
def test_without_a_sync_at_each_commit_the_same_cuts_lose_events(
    disk: Callable[..., Disk], place: Path, synchronous: str
) -> None:
    """Shows that the disk above can tell."""
    lost = 0
    for seed in range(8):
        try:
            accepted, settled, found = cut(disk, place, seed, 0.0, synchronous)
        except (ConfigurationError, OutboxUnavailable):
            lost += 1
        else:
            lost += not accepted - settled <= found
    assert lost > 4


def test_a_full_disk_takes_nothing_and_recovers_by_itself(
    disk: Callable[..., Disk], place: Path
) -> None:
    drive = disk()
    store = SqliteStore(str(place / "full.db"), connect=drive.connect())
    store.put(payloads(5))
    drive.is_full = True
    for _ in range(3):
        with pytest.raises(OutboxUnavailable) as caught:
            store.put([payload(5)])
        assert caught.value.reason == "store_failed"
    assert store.counts()[:4] == (5, 0, 0, 5)
    drive.is_full = False
    assert store.put([payload(5)]) == 1
    assert [entry.payload for entry in store.peek(9)] == payloads(6)
    store.close()


def test_each_commit_is_synced_and_a_group_of_puts_is_one(
    disk: Callable[..., Disk], place: Path
) -> None:
    drive = disk()
    store = SqliteStore(str(place / "count.db"), connect=drive.connect())
    store.put([payload(0)])
    before = drive.syncs
    for number in range(1, 11):
        store.put([payload(number)])
    assert drive.syncs - before >= 10
    store.close()
