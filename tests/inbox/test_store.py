"""What is kept, how much of it, and that a file outlives its inbox."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from second_mw.inbox import strict
from second_mw.inbox.app import InboxServer
from second_mw.inbox.store import Store, StoreUnusable
from tests.inbox.sdk import UUID, event, send, v0

AT = "2026-11-24T04:03:00.123Z"


def reply(*events: dict[str, Any]) -> strict.Reply:
    return strict.answer("POST", "/batch/", {}, v0(*events))


def uuid(number: int) -> str:
    return f"{UUID[:-4]}{number:04x}"


@pytest.fixture
def make() -> Iterator[Callable[..., Store]]:
    made: list[Store] = []

    def make(path: Path | None = None, **bounds: int) -> Store:
        made.append(Store(path, **bounds))
        return made[-1]

    yield make
    for store in made:
        store.close()


def test_the_oldest_events_go_first(make: Callable[..., Store]) -> None:
    store = make(max_events=3)
    for number in range(10):
        store.keep(reply(event(uuid=uuid(number))), AT)
    assert [each["uuid"] for each in store.events()] == [uuid(7), uuid(8), uuid(9)]
    assert (store.counts().events, store.counts().oldest) == (3, 8)
    assert len(store.requests()) == 3


def test_requests_and_receipts_that_brought_no_event_are_bounded_too(
    make: Callable[..., Store],
) -> None:
    store = make(max_events=3)
    receipt = {"distinct_id": "anon_1", "properties": []}
    for number in range(10):
        store.keep(reply(), AT)
        store.keep_receipts([{**receipt, "uuid": str(number)}])
    assert (len(store.events()), len(store.requests()), len(store.receipts())) == (1, 3, 6)


def test_bytes_are_bounded_and_the_newest_event_always_stays(make: Callable[..., Store]) -> None:
    store = make(max_bytes=1_000)
    for number in range(5):
        store.keep(reply(event(uuid=uuid(number), properties={"text": "x" * 400})), AT)
    assert len(store.events()) == 2
    store.keep(reply(event(uuid=uuid(9), properties={"text": "x" * 5_000})), AT)
    assert [each["uuid"] for each in store.events()] == [uuid(9)]


def test_refused_requests_and_receipts_are_bounded_in_bytes_too(
    make: Callable[..., Store],
) -> None:
    store = make(max_bytes=50_000)
    line = {"key": "x" * 1_000, "result": "kept", "rule": "count"}
    for number in range(100):
        store.keep(reply(event(event="")), AT, excerpt="x" * 5_000)
        receipt = {"uuid": str(number % 90), "distinct_id": "anon_1", "properties": [line]}
        store.keep_receipts([receipt])
    assert 5 < len(store.requests()) < 10
    assert 40 < len(store.receipts()) < 50
    # What is counted along is what a count finds.
    for table, held in store._held.items():
        found = store._db.execute(f"SELECT count(*), sum(length(document)) FROM {table}")
        assert found.fetchone() == held or held == (0, 0), table


def test_an_event_whose_request_is_gone_still_opens(make: Callable[..., Store]) -> None:
    store = make(max_events=2)
    store.keep(reply(event()), AT)
    for _ in range(3):
        store.keep(reply(event()), AT)
    opened = store.open(1)
    assert opened is not None
    assert (opened.asked, opened.batch) == (None, ())


def test_a_batch_names_its_other_events(make: Callable[..., Store]) -> None:
    store = make()
    store.keep(reply(event(), event(uuid=uuid(1), event="page viewed")), AT)
    opened = store.open(1)
    assert opened is not None
    assert [row.event for row in opened.batch] == ["build completed", "page viewed"]
    assert store.open(7) is None


def test_a_change_that_fails_changes_nothing(make: Callable[..., Store]) -> None:
    store = make()
    store.keep(reply(event()), AT)
    before = (store.version, store.counts())
    with pytest.raises(KeyError):
        store.keep_receipts([{"uuid": UUID, "distinct_id": "anon_1", "properties": []}, {}])
    assert (store.version, store.counts(), store.receipts()) == (*before, [])


def test_a_file_outlives_its_inbox(tmp_path: Path) -> None:
    file = tmp_path / "events.sqlite"
    with InboxServer(port=0, db=file) as inbox:
        send(inbox.url, "POST", "/batch/", v0())
        send(inbox.url, "POST", "/batch/", v0(event(event="")))
        before = (inbox.events(), inbox.requests(), inbox.rows())
    with InboxServer(port=0, db=file) as inbox:
        assert (inbox.events(), inbox.requests(), inbox.rows()) == before
        # What it had is still known: the same event is not stored a second time.
        send(inbox.url, "POST", "/batch/", v0())
        assert len(inbox.events()) == 1
        send(inbox.url, "POST", "/batch/", v0(event(uuid=uuid(1))))
        assert [row.id for row in inbox.rows()] == [2, 1, 3]


def test_a_page_that_watched_before_a_restart_resumes_after_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "events.sqlite")
    store.keep(reply(event()), AT)
    before = (store.epoch, store.version)
    store.close()
    store = Store(tmp_path / "events.sqlite")
    assert (store.epoch, store.version) == before
    store.close()


def test_the_file_is_its_owners_alone(tmp_path: Path, make: Callable[..., Store]) -> None:
    make(tmp_path / "events.sqlite")
    assert stat.S_IMODE((tmp_path / "events.sqlite").stat().st_mode) == 0o600


def test_a_bound_holds_for_what_a_file_brings_along(
    tmp_path: Path, make: Callable[..., Store]
) -> None:
    first = make(tmp_path / "events.sqlite")
    for number in range(5):
        first.keep(reply(event(uuid=uuid(number))), AT)
    first.close()
    second = make(tmp_path / "events.sqlite", max_events=2)
    second.keep(reply(event(uuid=uuid(9))), AT)
    assert [each["uuid"] for each in second.events()] == [uuid(4), uuid(9)]


def test_a_file_in_use_is_an_error_that_says_so(tmp_path: Path, make: Callable[..., Store]) -> None:
    make(tmp_path / "events.sqlite")
    with pytest.raises(StoreUnusable, match="can't be used: another inbox uses it"):
        Store(tmp_path / "events.sqlite")


def no_database(path: Path) -> None:
    path.write_text("nothing of the kind, and long enough to be looked at " * 40)


def another_programs(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE bookmarks (url TEXT)")
    db.close()


def another_layout(path: Path) -> None:
    Store(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()


@pytest.mark.parametrize(
    ("make_file", "says"),
    [
        (no_database, "it is no SQLite database; choose another file"),
        (another_programs, "it holds something else; choose another file"),
        (another_layout, "it holds something else; choose another file"),
        (lambda path: path.mkdir(), "can't be used"),
    ],
)
def test_a_file_of_something_else_is_left_alone(
    tmp_path: Path, make_file: Callable[[Path], None], says: str
) -> None:
    path = tmp_path / "events.sqlite"
    make_file(path)
    with pytest.raises(StoreUnusable, match=says):
        Store(path)


def test_a_folder_that_does_not_exist_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable, match="can't be made: No such file or directory"):
        Store(tmp_path / "nowhere" / "events.sqlite")
