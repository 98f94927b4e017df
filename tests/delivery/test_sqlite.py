"""The SQLite outbox's file: whose it is, who may read it, what is in it, and what goes wrong."""

from __future__ import annotations

import gc
import os
import signal
import sqlite3
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from second_mw import Analytics, AnalyticsUser, Choice, ConfigurationError, database
from second_mw.contrib.metrics import readings
from second_mw.database import APPLICATION_ID, MIGRATIONS, network_file_system
from second_mw.errors import OutboxUnavailable
from second_mw.outbox import sqlite as room
from second_mw.outbox import writer
from second_mw.outbox.base import Counts
from second_mw.outbox.outbox import open_store
from second_mw.outbox.sqlite import SqliteStore
from second_mw.preferences.opening import open_preferences
from tests.delivery.build import payload, payloads
from tests.stores import Moment

BIG = 10**9


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


@pytest.fixture
def moment() -> Moment:
    return Moment()


@pytest.fixture
def opened(file: Path, moment: Moment) -> Iterator[Callable[..., SqliteStore]]:
    """Opens the file as often as asked, and closes all at the end."""
    stores: list[SqliteStore] = []

    def opened(**options: Any) -> SqliteStore:
        stores.append(SqliteStore(str(file), **{"clock": moment, **options}))
        return stores[-1]

    yield opened
    for store in stores:
        store.close()


def keys(store: SqliteStore, limit: int = 100, ttl: float = 60.0) -> list[str]:
    return [entry.key for entry in store.lease(limit, BIG, ttl)]


def raw(file: Path) -> bytes:
    """Every byte of the file, its log and its shared memory."""
    parts = [file, *file.parent.glob(f"{file.name}-*")]
    # Another process reads it: closing it in this one would take SQLite's locks away.
    return subprocess.run(["cat", *parts], check=True, capture_output=True).stdout


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# The URL and the setting


@pytest.mark.parametrize("url", ["redis://h", "rediss://h", "redis+sentinel://h"])
def test_a_missing_library_is_named_with_the_extra_that_brings_it(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named 'redis', by {name}", name="redis")

    monkeypatch.setattr("second_mw.schemes.import_module", missing)
    for open_ in (open_store, lambda url, setting: open_preferences(url, setting=setting)):
        with pytest.raises(ConfigurationError, match=r"X needs .*'redis'.*second_mw\[redis\]"):
            open_(url, "X")


def test_a_scheme_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="X names no store"):
        open_store("file:///x", "X")


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///outbox.db", "outbox.db"),
        ("sqlite:///sub/outbox.db", "sub/outbox.db"),
        ("sqlite:////var/lib/outbox.db", "/var/lib/outbox.db"),
        ("sqlite:///C:/data/outbox.db", "C:/data/outbox.db"),
        (r"sqlite:///C:\data\outbox.db", r"C:\data\outbox.db"),
        ("sqlite:///with space%20.db", "with space%20.db"),
    ],
)
def test_the_url_is_read_as_sqlalchemy_reads_it(url: str, path: str) -> None:
    assert database.file_of(url, "outbox", ()) == (path, {})


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite://h/x"])
def test_a_url_without_a_file_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="four slashes"):
        open_store(url, "SECOND_ANALYTICS_OUTBOX")


@pytest.mark.parametrize("query", ["max=0", "max=-1", "max=x", "max=", "maxx=1", "max=1&max_bytes"])
def test_an_option_that_is_none_is_refused_by_name(query: str, file: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"has the option 'max.*\?keep_dead="):
        open_store(f"sqlite:///{file}?{query}")
    assert not file.exists()


def test_the_options_set_the_bounds(file: Path) -> None:
    store = open_store(f"sqlite:///{file}?max=2&max_bytes=1000000&keep_dead=7")
    assert isinstance(store, SqliteStore)
    assert (store.max_events, store.max_bytes, store.keep_dead) == (2, 1_000_000, 7)
    store.put(payloads(2))
    with pytest.raises(OutboxUnavailable):
        store.put(payloads(3))
    store.close()


def test_a_relative_path_is_taken_from_where_the_process_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store("sqlite:///here.db")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    store.put([payload()])
    store.close()
    assert (tmp_path / "here.db").stat().st_size
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("given", ["sqlite:///{}", "SQLite:///{}", " sqlite:///{} "])
def test_a_setting_opens_it_and_an_event_of_server_code_is_in_it(given: str, file: Path) -> None:
    analytics = Analytics(
        token="phc_test", host="http://127.0.0.1:9", outbox=given.format(file), flush_at=1000,
        flush_interval=3600.0,
    )  # fmt: skip
    try:
        assert analytics.capture(AnalyticsUser("u_1"), "page viewed")
        assert analytics.stats()["waiting"] == 1
    finally:
        analytics.close(timeout=0.0)


def test_a_disabled_analytics_makes_no_file(file: Path) -> None:
    Analytics(token=None, outbox=f"sqlite:///{file}", preferences=f"sqlite:///{file}").close()
    assert not file.exists()


# What there is before the first event


def test_opening_starts_no_thread_and_keeps_no_file_open(opened, file: Path) -> None:
    threads = threading.active_count()
    opened()
    assert threading.active_count() == threads
    assert [each.name for each in file.parent.iterdir()] == ["outbox.db"]


def test_looking_starts_no_thread_either(opened) -> None:
    store = opened()
    threads = threading.active_count()
    assert (store.counts().waiting, store.next_ready_in(), store.peek(1)) == (0, None, [])
    assert threading.active_count() == threads


def test_nobody_but_the_owner_may_read_the_file_or_what_belongs_to_it(opened, file: Path) -> None:
    umask = os.umask(0)
    try:
        opened().put([payload()])
    finally:
        os.umask(umask)
    found = {each.name: stat.S_IMODE(each.stat().st_mode) for each in file.parent.iterdir()}
    assert found == dict.fromkeys(("outbox.db", "outbox.db-wal", "outbox.db-shm"), 0o600)


@pytest.mark.parametrize(
    ("pragma", "value"),
    [("journal_mode", "wal"), ("auto_vacuum", 2), ("application_id", APPLICATION_ID),
     ("user_version", len(MIGRATIONS))],
)  # fmt: skip
def test_the_file_says_what_it_is(opened, file: Path, pragma: str, value: object) -> None:
    opened()
    db = sqlite3.connect(file)
    assert db.execute(f"PRAGMA {pragma}").fetchone()[0] == value
    db.close()


def test_every_connection_syncs_at_each_commit_and_deletes_for_good(opened) -> None:
    store = opened()
    store.put([payload()])
    db = store._database._writer
    asked = ("synchronous", "secure_delete", "fullfsync", "checkpoint_fullfsync")
    assert [db.execute(f"PRAGMA {each}").fetchone()[0] for each in asked[:3]] == [2, 1, 1]


# Files that are not ours, or no more


def a_file_of_another_program(file: Path) -> None:
    db = sqlite3.connect(file)
    db.execute("CREATE TABLE theirs (x)")
    db.commit()
    db.close()


def a_file_with_anothers_mark(file: Path) -> None:
    db = sqlite3.connect(file)
    db.execute("PRAGMA application_id=1234")
    db.commit()
    db.close()


def a_file_of_the_future(file: Path) -> None:
    SqliteStore(str(file)).close()
    db = sqlite3.connect(file)
    db.execute(f"PRAGMA user_version={len(MIGRATIONS) + 1}")
    db.close()


def a_text(file: Path) -> None:
    file.write_text("notes of mine\n" * 1000)


def a_short_text(file: Path) -> None:
    file.write_text("notes\n")


def a_damaged_file(file: Path) -> None:
    store = SqliteStore(str(file))
    store.put(payloads(500))
    store.close()
    with file.open("r+b") as bytes_:
        bytes_.seek(4096 * 3)
        bytes_.write(b"\xa5" * 4096 * 6)


def a_file_with_a_damaged_schema(file: Path) -> None:
    a_damaged_file(file)
    found = file.read_bytes()
    file.write_bytes(found.replace(b"CREATE TABLE dead", b"CREATE TAB\xbe\xff dead"))


def a_cut_file(file: Path) -> None:
    a_damaged_file(file)
    os.truncate(file, 5000)


WRONG: list[tuple[Callable[[Path], None], str]] = [
    (a_file_of_another_program, "another program"),
    (a_file_with_anothers_mark, "another program"),
    (a_file_of_the_future, "newer second_mw"),
    (a_text, "is no SQLite file"),
    (a_short_text, "is no SQLite file"),
    (a_damaged_file, "is damaged"),
    (a_cut_file, "damaged"),
    (a_file_with_a_damaged_schema, "is damaged"),
]


@pytest.mark.parametrize(("spoil", "said"), WRONG, ids=[spoil.__name__ for spoil, _ in WRONG])
def test_a_file_that_is_not_ours_or_damaged_is_refused_and_left_as_it_is(
    spoil: Callable[[Path], None], said: str, file: Path
) -> None:
    spoil(file)
    before = file.read_bytes()
    with pytest.raises(ConfigurationError) as caught:
        open_store(f"sqlite:///{file}", "SECOND_ANALYTICS_OUTBOX")
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"SECOND_ANALYTICS_OUTBOX: {file}")
    assert "left as it is" in str(caught.value) or "left as it was" in str(caught.value)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("missing/outbox.db", "directory does not exist.*absolute path takes four slashes"),
        ("", "is no file"),
        ("a-file/outbox.db", "directory does not exist"),
    ],
)
def test_a_place_where_no_file_can_be_is_a_clear_error(
    path: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "a-file").write_bytes(b"")
    with pytest.raises(ConfigurationError, match=said):
        SqliteStore(str(tmp_path / path))


def test_a_directory_that_can_not_be_written_is_a_clear_error(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(database.os, "open", refused)
    with pytest.raises(ConfigurationError, match=r"Permission denied.*write the file and its dir"):
        SqliteStore(str(file))


def test_a_file_without_its_log_being_writable_is_a_clear_error(file: Path) -> None:
    SqliteStore(str(file)).close()
    # A directory in the log's place: as good as one that can't be written, for root too.
    file.with_name("outbox.db-wal").mkdir()
    with pytest.raises(ConfigurationError, match="can't be used"):
        SqliteStore(str(file))


def test_a_file_damaged_while_it_is_used_takes_nothing_and_says_so_once(
    opened, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened()
    store.put(payloads(400))
    store.close()
    with file.open("r+b") as bytes_:
        bytes_.write(b"\xff" * file.stat().st_size)
    for _ in range(2):
        with pytest.raises(OutboxUnavailable) as caught:
            store.put([payload(500)])
        assert caught.value.reason == "store_failed"
        with pytest.raises(OutboxUnavailable):
            store.counts()
    assert len(store.check()) == 1
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_a_file_that_is_removed_while_it_is_used_is_made_anew(opened, file: Path) -> None:
    store = opened()
    store.put([payload(0)])
    for part in (file, *file.parent.glob("outbox.db-*")):
        part.unlink()
    store.put([payload(1)])
    assert [entry.payload for entry in opened().peek(5)] == [payload(1)]
    assert [entry.payload for entry in store.peek(5)] == [payload(1)]


def test_a_look_makes_a_file_that_was_removed_anew_too(opened, file: Path) -> None:
    store = opened()
    file.unlink()
    assert store.counts().accepted == 0


def test_a_look_that_fails_is_said_and_the_next_one_works(opened, counting: Counting) -> None:
    store = opened(connect=counting)
    store.put([payload()])
    counting.fails = "SELECT accepted"
    with pytest.raises(OutboxUnavailable):
        store.counts()
    counting.fails = ""
    assert store.counts().waiting == 1


def test_a_file_that_can_not_be_looked_at_is_a_clear_error(
    opened, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened()

    def gone(*_: object) -> Any:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(database.Database, "_migrate", gone)
    with pytest.raises(ConfigurationError, match=r"can't be read .Input/output error"):
        SqliteStore(str(file))


def without_a_log(file: Path) -> sqlite3.Connection:
    """Take a file's write-ahead log away, and keep a reader on it."""
    SqliteStore(str(file)).close()
    db = sqlite3.connect(file, isolation_level=None)
    db.execute("PRAGMA journal_mode=DELETE")
    db.execute("BEGIN")
    db.execute("SELECT count(*) FROM entries").fetchone()
    return db


def test_the_switch_to_a_log_is_tried_again_when_others_are_in_the_way(
    file: Path, counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_a_log(file).close()
    counting.fails = "PRAGMA journal_mode=WAL"
    monkeypatch.setattr(database.time, "sleep", lambda _: setattr(counting, "fails", ""))
    store = SqliteStore(str(file), connect=counting)
    assert counting.fails == ""
    assert store.put([payload()]) == 1
    assert file.with_name("outbox.db-wal").exists()
    store.close()


def test_a_switch_that_never_comes_about_is_a_clear_error(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = without_a_log(file)
    monkeypatch.setattr(database, "_START_TIMEOUT", 0.0)
    with pytest.raises(ConfigurationError, match=r"can't be used .database is locked"):
        SqliteStore(str(file))
    reader.close()


def test_a_place_without_shared_memory_is_a_clear_error(
    opened, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_a_log(file).close()
    usual = database._value
    refused = "PRAGMA journal_mode"
    monkeypatch.setattr(
        database, "_value", lambda db, sql: "delete" if sql.startswith(refused) else usual(db, sql)
    )
    with pytest.raises(ConfigurationError, match="can't have a write-ahead log"):
        opened()


# Versions


def test_a_file_of_an_older_version_is_brought_up_with_all_that_is_in_it(
    opened, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened()
    store.put(payloads(3))
    store.close()
    step = ("ALTER TABLE entries ADD COLUMN later TEXT", "CREATE TABLE further (x)")
    monkeypatch.setattr(database, "MIGRATIONS", (*MIGRATIONS, step))
    newer = opened()
    assert [entry.payload for entry in newer.peek(5)] == payloads(3)
    newer.put([payload(3)])
    assert opened().counts().waiting == 4
    monkeypatch.undo()
    with pytest.raises(ConfigurationError, match="newer second_mw"):
        SqliteStore(str(file))


def test_a_step_that_fails_leaves_the_older_version_whole(
    opened, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened().put([payload()])
    step = ("CREATE TABLE further (x)", "NO SQL")
    monkeypatch.setattr(database, "MIGRATIONS", (*MIGRATIONS, step))
    with pytest.raises(ConfigurationError):
        SqliteStore(str(file))
    monkeypatch.undo()
    assert opened().counts().waiting == 1


@pytest.mark.parametrize("_again", range(12))
def test_processes_that_make_the_file_at_once_make_one(file: Path, _again: int) -> None:
    errors: list[BaseException] = []

    def make() -> None:
        try:
            store = SqliteStore(str(file))
            store.put([payload(threading.get_ident() % 2**60)])
            store.close()
        except BaseException as error:
            errors.append(error)

    makers = [threading.Thread(target=make) for _ in range(8)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    assert errors == []
    store = SqliteStore(str(file))
    assert store.counts().accepted == len(store.peek(10))
    store.close()


# Group commit


class Counting:
    """Opens connections that count commits, and can be told to hold a transaction's begin."""

    def __init__(self) -> None:
        self.commits = 0
        self.may_begin = threading.Event()
        self.may_begin.set()
        self.fails = ""

    def __call__(self, path: str, timeout: float) -> Any:
        return _Counted(self, database.connected(path, timeout))


class _Counted:
    def __init__(self, counting: Counting, db: Any) -> None:
        self._counting = counting
        self._db = db

    def execute(self, sql: str, parameters: Any = (), /) -> Any:
        counting = self._counting
        if counting.fails and sql.startswith(counting.fails):
            raise sqlite3.OperationalError("database or disk is full")
        if sql == "BEGIN IMMEDIATE":
            counting.may_begin.wait(60)
        counting.commits += sql == "COMMIT" and self._db.in_transaction and self._wrote
        self._wrote = sql == "BEGIN IMMEDIATE" or (self._wrote and sql != "COMMIT")
        return self._db.execute(sql, parameters)

    _wrote = False

    def close(self) -> None:
        self._db.close()


@pytest.fixture
def counting() -> Counting:
    return Counting()


def test_what_comes_during_a_commit_shares_the_next_one(
    opened, counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Upkeep commits too.
    monkeypatch.setattr(writer, "_A_LULL", 3600.0)
    store = opened(connect=counting)
    store.put([payload(0)])
    counting.may_begin.clear()
    before = counting.commits
    futures = [store.submit([payload(n)]) for n in range(1, 101)]
    assert not any(future.done() for future in futures[1:])
    counting.may_begin.set()
    assert [future.result(timeout=60) for future in futures] == [1] * 100
    # The writer may have taken the first alone.
    assert counting.commits - before <= 2


def test_one_of_a_group_that_finds_no_room_takes_no_other_with_it(opened, counting) -> None:
    store = opened(connect=counting, max_events=5)
    store.put([payload(0)])
    counting.may_begin.clear()
    futures = [store.submit(payloads(count, start=count * 10)) for count in (2, 4, 1, 3)]
    counting.may_begin.set()
    said = [future.exception(timeout=60) or future.result() for future in futures]
    assert isinstance(said[1], OutboxUnavailable)
    assert isinstance(said[3], OutboxUnavailable)
    assert (said[0], said[2]) == (2, 1)
    assert store.counts()[:4] == (4, 0, 0, 4)
    assert len(store.peek(10)) == 4


def test_a_request_that_is_cancelled_before_its_turn_puts_nothing(opened, counting) -> None:
    store = opened(connect=counting)
    store.put([payload(0)])
    counting.may_begin.clear()
    first, second, third = (store.submit([payload(n)]) for n in (1, 2, 3))
    assert second.cancel()
    counting.may_begin.set()
    assert (first.result(timeout=60), third.result(timeout=60)) == (1, 1)
    assert store.counts().waiting == 3


@pytest.mark.parametrize("fails", ["BEGIN IMMEDIATE", "INSERT", "UPDATE accounts", "COMMIT"])
def test_a_disk_that_is_full_takes_nothing_and_recovers_by_itself(
    opened, counting: Counting, fails: str
) -> None:
    store = opened(connect=counting)
    store.put([payload(0)])
    counting.fails = fails
    for _ in range(3):
        with pytest.raises(OutboxUnavailable) as caught:
            store.put([payload(1)])
        assert caught.value.reason == "store_failed"
    counting.fails = ""
    assert store.counts()[:4] == (1, 0, 0, 1)
    assert store.put([payload(1)]) == 1
    assert [entry.payload for entry in store.peek(5)] == payloads(2)


def test_a_file_that_may_not_grow_takes_nothing_and_recovers_by_itself(opened) -> None:
    limit = {"pages": 60}

    def connect(path: str, timeout: float) -> Any:
        db = database.connected(path, timeout)
        db.execute(f"PRAGMA max_page_count={limit['pages']}")
        return db

    store = opened(connect=connect)
    futures = [store.submit(payloads(50, start=50 * n)) for n in range(100)]
    accepted = sum(future.result() for future in futures if future.exception(60) is None)
    assert 0 < accepted < 5000
    assert store.counts()[:4] == (accepted, 0, 0, accepted)
    limit["pages"] = 1_000_000
    store.close()
    assert store.put([payload(10**6)]) == 1
    assert store.counts().waiting == len(store.peek(BIG)) == accepted + 1


def test_a_fault_of_our_own_answers_everybody(opened) -> None:
    store = opened()
    with pytest.raises(OutboxUnavailable):
        store._do(lambda books: books.nothing_of_the_kind)
    assert store.put([payload()]) == 1


def test_where_no_thread_can_be_started_the_caller_writes(
    opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(_: object) -> None:
        raise RuntimeError("can't start new thread")

    store = opened()
    monkeypatch.setattr(writer.Thread, "start", no_thread)
    assert store.put(payloads(2)) == 2
    store.ack(keys(store))
    assert store.counts().delivered == 2


# Bounds, and giving back


def test_a_store_is_full_when_its_bytes_are(opened) -> None:
    size = payload().size
    store = opened(max_bytes=3 * size)
    store.put(payloads(3))
    with pytest.raises(OutboxUnavailable) as caught:
        store.put([payload(3)])
    assert caught.value.reason == "full"
    assert store.put(payloads(3)) == 0
    store.ack(keys(store, 1))
    assert store.put([payload(3)]) == 1


def test_the_file_gets_smaller_again(opened, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_A_LULL", 0.01)
    store = opened()
    store.put([payload(n, properties=b'{"x":"%s"}' % (b"y" * 2000)) for n in range(2000)])
    store.close()
    large = file.stat().st_size
    store.ack(keys(store, 3000))
    until(lambda: store._database.free_pages() <= 256)
    store.close()
    assert file.stat().st_size < large / 2


def test_dead_letters_go_after_their_time_and_stay_counted(
    opened, moment: Moment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_A_LULL", 0.01)
    store = opened(keep_dead=30)
    store.put(payloads(2))
    store.bury({keys(store, 1)[0]: "refused"})
    moment.passes(29 * 86_400)
    store.bury({keys(store, 1)[0]: "refused"})
    assert len(store.dead_letters(5)) == 2
    moment.passes(1 * 86_400 + 1)
    assert [letter.payload for letter in store.dead_letters(5)] == [payload(1)]
    assert store.dead_reasons() == {"refused": 1}
    store.put([payload(2)])
    until(lambda: len(store.export(["anon_1"])) == 2)
    assert store.counts()[:5] == (3, 0, 2, 1, 0)


def test_dead_letters_are_bounded_and_the_log_says_so(
    opened, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(room, "MAX_DEAD_LETTERS", 3)
    store = opened()
    store.put(payloads(5))
    store.bury(dict.fromkeys(keys(store), "refused"))
    store._expire()
    assert [letter.payload for letter in store.dead_letters(9)] == payloads(3, start=2)[::-1]
    assert store.counts().dead == 5
    assert "dropped the 2 oldest dead letters" in caplog.text


def test_upkeep_that_fails_hurts_nobody(opened, counting: Counting) -> None:
    store = opened(connect=counting)
    store.put([payload()])
    counting.fails = "DELETE FROM dead"
    store._keep_up()
    assert store.put([payload(1)]) == 1


def test_much_is_dropped_in_steps(opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_A_STEP", 3)
    store = opened()
    store.put(payloads(10))
    store.bury(dict.fromkeys(keys(store, 7), "refused"))
    assert store.retry() == 7
    assert store.purge() == 10
    assert store.counts()[:5] == (10, 0, 0, 0, 10)


def test_ready_entries_are_counted_right_when_very_many_are_held(
    opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_FEW", 3)
    store = opened()
    store.put(payloads(10))
    keys(store, 4)
    assert store.counts().ready == 6


def test_a_clock_that_was_put_back_holds_nothing_up_for_long(opened, moment: Moment) -> None:
    store = opened()
    store.put(payloads(2))
    keys(store, 1)
    moment.passes(-365 * 86_400)
    store.put([payload(2)])
    assert len(keys(store)) == 3
    assert store.counts().oldest_age == 0.0


# What is in the file

ADA = AnalyticsUser(
    "65f0c0ffee65f0c0ffee65f0",
    email="ada.lovelace@analytical.example",
    name="Ada Lovelace",
    workspaces={"w_engine_room": "admin"},
    aliases=("countess-1815",),
)
OF_ADA = [b"65f0c0ffee", b"ada.lovelace", b"analytical.example", b"Lovelace", b"lovelace",
          b"w_engine_room", b"countess-1815"]  # fmt: skip


def test_nothing_in_the_file_names_an_anonymized_user(file: Path) -> None:
    url = f"sqlite:///{file}"
    analytics = Analytics(
        token="phc_test", host="http://127.0.0.1:9", outbox=url, flush_interval=3600.0,
        flush_at=10_000,
    )  # fmt: skip
    try:
        for event in analytics.pipeline.catalogue.events:
            analytics.capture(
                ADA,
                event,
                {
                    "message": "Ada Lovelace writes",
                    "user_email": ADA.email,
                    "workspace_id": "w_engine_room",
                    "label": "countess-1815",
                    "page_url": f"https://h.example/{ADA.id}",
                    "note": {"deep": ["ada.lovelace@analytical.example"]},
                },
            )
        store = analytics.outbox.store
        assert isinstance(store, SqliteStore)
        assert store.counts().waiting > 10
        store.bury(dict.fromkeys(keys(store, 5), "refused: 400"))
        key = analytics.pipeline.user_key(ADA.id)
        analytics.preferences.put(key, Choice(sharing=True))
        found = raw(file)
        assert key.encode() in found
        assert [each for each in OF_ADA if each in found] == []
    finally:
        analytics.close(timeout=0.0)


def test_what_is_erased_is_in_none_of_the_files(opened, file: Path) -> None:
    store = opened()
    # Rare enough to be found nowhere else, common enough to be on many pages.
    person, secret = "u_zebra_4711", b'{"a":"quagga-0815-%d"}'
    store.put([payload(n, distinct_id=person, properties=secret % n) for n in range(200)])
    store.put([payload(n, distinct_id="u_other") for n in range(200)])
    store.bury(dict.fromkeys(keys(store, 50), "refused"))
    assert b"quagga-0815" in raw(file)
    assert person.encode() in raw(file)
    assert store.erase([person]) == 200
    assert b"quagga" not in raw(file)
    assert person.encode() not in raw(file)
    assert store.counts()[:5] == (400, 0, 50, 200, 150)


def test_an_erasure_whose_log_can_not_be_emptied_has_failed(
    opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> bool:
        raise sqlite3.OperationalError("disk I/O error")

    store = opened()
    monkeypatch.setattr(store._database, "truncate_log", fails)
    with pytest.raises(OutboxUnavailable):
        store.erase(["u_zebra"])


def test_an_erasure_that_a_reader_holds_up_is_said_to_be_unfinished(
    opened, file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room.time, "sleep", lambda _: None)
    store = opened()
    store._database._write_timeout = 0.01
    store.put([payload(0, distinct_id="u_zebra")])
    reader = sqlite3.connect(file, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM entries").fetchone()
    assert store.erase(["u_zebra"]) == 1
    assert "Erase again" in caplog.text
    reader.close()
    assert store.erase(["u_zebra"]) == 0
    assert b"u_zebra" not in raw(file)


# What an operator is told


def mounts(tmp_path: Path, *lines: str) -> str:
    listed = tmp_path / "mounts"
    listed.write_text("".join(f"{line}\n" for line in ("/dev/vda / ext4 rw 0 0", "broken", *lines)))
    return str(listed)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("server:/x {} nfs4 rw 0 0", "nfs4"),
        ("//server/x {} cifs rw 0 0", "cifs"),
        ("u@h:/x {} fuse.sshfs rw 0 0", "fuse.sshfs"),
        ("drive {} 9p rw 0 0", "9p"),
        ("/dev/vdb {} ext4 rw 0 0", None),
        ("tmpfs {}-beside nfs rw 0 0", None),
    ],
)
def test_a_network_file_system_is_known_by_its_mount(
    line: str, kind: str | None, tmp_path: Path
) -> None:
    place = tmp_path / "a b"
    place.mkdir()
    listed = mounts(tmp_path, line.format(str(place).replace(" ", "\\040")))
    assert network_file_system(place / "outbox.db", listed) == kind


def test_where_no_mounts_are_listed_nothing_is_known(tmp_path: Path) -> None:
    assert network_file_system(tmp_path, str(tmp_path / "none")) is None


def test_a_network_file_system_is_warned_of(
    opened, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for module in (database, room):
        monkeypatch.setattr(module, "network_file_system", lambda _: "nfs4")
    store = opened()
    assert "network file system (nfs4)" in caplog.text
    assert ["network file system (nfs4)" in said for said in store.check()] == [True]


def test_check_tells_of_every_fault_it_finds(
    opened, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(max_events=10)
    store.put(payloads(8))
    file.chmod(0o644)
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(store._database, "damage", lambda: "page 3 is never used")
    said = store.check()
    with monkeypatch.context() as patched:
        patched.setattr(database.sys, "platform", "win32")
        assert not database.open_to_others(file)
    assert [word in text for word, text in zip(
        ("damaged (page 3", "read by others", "100 MB", "8 of at most 10"), said, strict=True
    )] == [True] * 4  # fmt: skip


def test_a_store_that_is_forgotten_leaves_no_file_open(file: Path) -> None:
    closed: list[str] = []

    class Noticed(_Counted):
        def close(self) -> None:
            closed.append("closed")
            super().close()

    def connect(path: str, timeout: float) -> Any:
        return Noticed(Counting(), database.connected(path, timeout))

    forgotten = database.Database(file, setting="outbox", connect=connect)
    with forgotten.reading(), forgotten.writing():
        pass
    before = len(closed)
    del forgotten
    gc.collect()
    assert len(closed) == before + 2


def test_a_connection_that_can_not_be_closed_hurts_nobody(file: Path) -> None:
    class Stuck(_Counted):
        def close(self) -> None:
            super().close()
            raise sqlite3.OperationalError("unable to close")

    store = SqliteStore(
        str(file),
        connect=lambda path, timeout: Stuck(Counting(), database.connected(path, timeout)),
    )
    store.put([payload()])
    store.close()
    assert store.counts().waiting == 1
    store.close()


# Forks


def in_a_child(work: Callable[[], None]) -> int:
    """Fork, do this in the child, and return the child's exit code."""
    child = os.fork()
    if not child:
        code = 1
        try:
            signal.alarm(60)
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded, use of fork:DeprecationWarning"
)


def test_parent_and_child_use_one_file_and_lose_nothing(opened, file: Path) -> None:
    store = opened()
    store.put(payloads(10))

    def child() -> None:
        assert store.put(payloads(10, start=10)) == 10
        store.ack(keys(store, 5))

    assert in_a_child(child) == 0
    assert store.put(payloads(10, start=20)) == 10
    assert store.counts()[:4] == (30, 5, 0, 25)
    assert len(store.peek(50)) == 25
    assert b"SQLite" in file.read_bytes()[:16]


def test_a_child_that_outlives_its_parents_connection_loses_nothing(opened, file: Path) -> None:
    """The parent's last close deletes the log, unless the child's lock is a real one."""
    store = opened()
    store.put([payload(0)])
    parent_closed, child_has_put = os.pipe(), os.pipe()

    def child() -> None:
        assert store.put([payload(1)]) == 1
        os.write(child_has_put[1], b"x")
        os.read(parent_closed[0], 1)
        assert store.put([payload(2)]) == 1

    forked = threading.Thread(target=lambda: results.append(in_a_child(child)))
    results: list[int] = []
    forked.start()
    os.read(child_has_put[0], 1)
    store.close()
    os.write(parent_closed[1], b"x")
    forked.join()
    assert results == [0]
    assert [entry.payload for entry in opened().peek(5)] == payloads(3)


def test_a_fork_waits_for_no_reader_and_leaves_no_lock_behind(opened) -> None:
    store = opened()
    stop = threading.Event()
    failed: list[BaseException] = []

    def busy(number: int) -> None:
        at = number * 10**6
        while not stop.is_set():
            try:
                at += store.put([payload(at)])
                store.counts()
            except BaseException as error:
                failed.append(error)

    threads = [threading.Thread(target=busy, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    try:
        codes = [in_a_child(lambda: store.put([payload(os.getpid())])) for _ in range(5)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert (codes, failed) == ([0] * 5, [])
    assert store.counts().accepted == len(store.peek(BIG))


def test_in_a_child_nothing_is_locked_and_nothing_inherited(opened) -> None:
    """What the hooks do, one after the other in one process."""
    store = opened()
    store.put([payload(0)])
    database._before_fork()
    assert (store._database._reader, store._database._writer) == (None, None)
    store._database._pid = -1
    database._after_fork_in_child()
    store.after_fork()
    assert not store.entered()
    assert store.put([payload(1)]) == 1
    database._before_fork()
    assert store.entered()
    database._after_fork_in_parent()
    assert not store.entered()
    assert store.counts().waiting == 2


def test_a_signal_handler_may_look_while_its_own_thread_does(opened) -> None:
    store = opened()
    store.put([payload()])
    with store._reading() as db:
        assert store.entered()
        assert store.counts().waiting == 1
        assert db.execute("SELECT count(*) FROM entries").fetchone() == (1,)
    assert not store.entered()
    with store._writer._changed:
        assert store.entered()


def test_a_file_inherited_open_behind_pythons_back_is_left_alone_and_nothing_is_taken(
    opened, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened()
    store.put([payload(0)])
    inherited = store._database._writer
    store._database._pid = -1
    store.after_fork()
    assert inherited in database._left_behind
    assert "lazy-apps" in caplog.text
    with pytest.raises(OutboxUnavailable):
        store.put([payload(1)])
    with pytest.raises(OutboxUnavailable):
        store.counts()
    database._left_behind.remove(inherited)
    inherited.close()
    assert [entry.payload for entry in opened().peek(5)] == [payload(0)]


def test_a_file_that_fails_turns_no_end_of_the_host_into_a_traceback(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    analytics = Analytics(
        token="phc_test", host="http://127.0.0.1:9", outbox=f"sqlite:///{file}",
        flush_interval=3600.0, preferences="memory://",
    )  # fmt: skip
    assert analytics.capture(AnalyticsUser("u_1"), "page viewed")
    turned_into_a_directory(file, analytics.outbox.store)
    assert analytics.capture(AnalyticsUser("u_1"), "page viewed").code == "outbox_unavailable"
    analytics.shutdown()
    analytics.at_exit(1.0)
    assert caplog.text.count("could not flush at the end") == 2
    stats = analytics.stats()
    assert stats["outbox"] == "unavailable"
    assert {stats[name] for name in Counts._fields} == {None}
    with pytest.raises(OutboxUnavailable):
        analytics.flush()
    analytics.close(0.1)


def test_closing_over_a_file_that_fails_raises_nothing_ends_the_threads_and_says_what_is_left(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    analytics = Analytics(
        token="phc_test", host="http://127.0.0.1:9", outbox=f"sqlite:///{file}",
        flush_interval=3600.0, preferences="memory://",
    )  # fmt: skip
    for _ in range(3):
        assert analytics.capture(AnalyticsUser("u_1"), "page viewed")
    assert (analytics.stats()["outbox"], analytics.stats()["waiting"]) == ("available", 3)
    dispatcher = analytics._forwarder._shift.dispatcher
    assert dispatcher.is_alive()
    turned_into_a_directory(file, analytics.outbox.store)
    assert analytics.close(timeout=1.0) == (0, 3)
    assert "could not flush at the end" in caplog.text
    dispatcher.join(30)
    assert not dispatcher.is_alive()
    assert list(readings(analytics))
    assert not {reading.row.path for reading in readings(analytics)} & {("waiting",), ("accepted",)}


def turned_into_a_directory(file: Path, store: Any) -> None:
    """Put a directory where the file was, which nobody holds open any more."""
    store.close()
    while not file.is_dir():
        # A thread that looks meanwhile makes the file again.
        for part in (file, *file.parent.glob("outbox.db-*")):
            part.unlink(missing_ok=True)
        with suppress(FileExistsError):
            file.mkdir()
    store.close()
