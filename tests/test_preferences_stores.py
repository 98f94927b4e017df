"""Where users' choices are kept: every store alike, and which one a setting means."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from second_mw import Analytics, AnalyticsUser, Choice, ConfigurationError, PreferencesUnavailable
from second_mw.preferences.callables import CallablePreferences
from second_mw.preferences.memory import MemoryPreferences
from second_mw.preferences.opening import open_preferences
from second_mw.preferences.sqlite import SqlitePreferences
from tests.hosts import ADA

ROOT = Path(__file__).parents[1]
KEY, OTHER = "a" * 64, "b" * 64


class Table:
    """A host's own table of choices."""

    def __init__(self) -> None:
        self.rows: dict[str, Choice] = {}

    def get(self, key: str) -> Choice | None:
        return self.rows.get(key)

    def put(self, key: str, choice: Choice | None) -> None:
        if choice is None:
            self.rows.pop(key, None)
        else:
            self.rows[key] = choice


#: Name → what makes a store in a directory. A further store is one more line.
STORES: dict[str, Callable[[Path], Any]] = {
    "memory": lambda _: open_preferences("memory://"),
    "sqlite": lambda place: open_preferences(f"sqlite:///{place}/preferences.db"),
    "callables": lambda _: open_preferences((lambda table: (table.get, table.put))(Table())),
    "object": lambda _: open_preferences(Table()),
}


@pytest.fixture(params=sorted(STORES))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    made = STORES[request.param](tmp_path)
    yield made
    made.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "choices.db"


def rows(file: Path) -> list[Any]:
    db = sqlite3.connect(file)
    found = db.execute("SELECT * FROM preferences ORDER BY user_key").fetchall()
    db.close()
    return found


# Every store


@pytest.mark.parametrize("sharing", [None, True, False])
@pytest.mark.parametrize("anonymized", [None, True, False])
def test_a_choice_is_kept_as_it_was_made(store, sharing, anonymized) -> None:
    chosen = Choice(sharing, anonymized)
    store.put(KEY, chosen)
    assert store.get(KEY) == (None if chosen == Choice() else chosen)
    assert store.get(OTHER) is None


def test_the_last_choice_counts_and_nobody_elses(store) -> None:
    store.put(KEY, Choice(anonymized=False))
    store.put(OTHER, Choice(sharing=False))
    store.put(KEY, Choice(True, True))
    assert (store.get(KEY), store.get(OTHER)) == (Choice(True, True), Choice(sharing=False))


def test_a_choice_that_no_longer_differs_is_none(store) -> None:
    store.put(KEY, Choice(anonymized=False))
    store.put(KEY, Choice())
    store.put(OTHER, Choice())
    assert (store.get(KEY), store.get(OTHER)) == (None, None)


def test_many_threads_choose_at_once(store) -> None:
    failed: list[BaseException] = []

    def choose(number: int) -> None:
        try:
            for turn in range(10):
                store.put(f"{number:064d}", Choice(anonymized=bool(turn % 2)))
                store.get(f"{number:064d}")
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=choose, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert [store.get(f"{number:064d}") for number in range(4)] == [Choice(anonymized=True)] * 4


def test_a_closed_store_may_be_asked_again(store) -> None:
    store.put(KEY, Choice(sharing=False))
    store.close()
    assert store.get(KEY) == Choice(sharing=False)


# SQLite


def test_a_row_exists_only_for_a_choice_that_differs(file: Path) -> None:
    store = SqlitePreferences(str(file))
    store.put(KEY, Choice(anonymized=False))
    store.put(OTHER, Choice(sharing=False))
    assert rows(file) == [(KEY, None, 0), (OTHER, 0, None)]
    store.put(KEY, Choice())
    assert rows(file) == [(OTHER, 0, None)]
    store.close()


def test_another_process_reads_what_this_one_wrote_at_once(file: Path) -> None:
    store = SqlitePreferences(str(file))
    code = (
        "import sys\nfrom second_mw.preferences.sqlite import SqlitePreferences\n"
        "store = SqlitePreferences(sys.argv[1])\n"
        "for line in sys.stdin:\n    print(store.get(line.strip()), flush=True)\n"
        "store.close()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(file)],
        cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip

    def asked() -> str:
        other.stdin.write(f"{KEY}\n")
        other.stdin.flush()
        return other.stdout.readline().strip()

    try:
        assert asked() == "None"
        for anonymized in (False, True, False):
            store.put(KEY, Choice(anonymized=anonymized))
            assert asked() == str(Choice(anonymized=anonymized))
    finally:
        other.communicate()
        store.close()


def test_a_read_does_not_wait_for_a_write(file: Path) -> None:
    store = SqlitePreferences(str(file))
    store.put(KEY, Choice(sharing=False))
    writing = sqlite3.connect(file, isolation_level=None)
    writing.execute("BEGIN IMMEDIATE")
    writing.execute("DELETE FROM preferences")
    assert store.get(KEY) == Choice(sharing=False)
    writing.close()
    store.close()


def test_what_can_not_be_written_is_said_and_not_kept(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("second_mw.preferences.sqlite._WRITE_TIMEOUT", 0.01)
    store = SqlitePreferences(str(file))
    writing = sqlite3.connect(file, isolation_level=None)
    writing.execute("BEGIN IMMEDIATE")
    with pytest.raises(PreferencesUnavailable):
        store.put(KEY, Choice(anonymized=False))
    writing.close()
    assert store.get(KEY) is None
    store.put(KEY, Choice(anonymized=False))
    assert store.get(KEY) == Choice(anonymized=False)
    store.close()


def test_a_file_that_is_damaged_is_a_store_that_fails(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = SqlitePreferences(str(file))
    store.put(KEY, Choice(anonymized=False))
    store.close()
    file.write_bytes(b"\xff" * 8192)
    for _ in range(2):
        with pytest.raises(PreferencesUnavailable):
            store.get(KEY)
        with pytest.raises(PreferencesUnavailable):
            store.put(KEY, Choice())
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert KEY not in caplog.text


def test_a_thread_that_reads_for_too_long_holds_nobody_up(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("second_mw.preferences.sqlite._READ_TIMEOUT", 0.01)
    store = SqlitePreferences(str(file))
    reads, may_end = threading.Event(), threading.Event()

    def read() -> None:
        with store._database.reading():
            reads.set()
            may_end.wait(60)

    reader = threading.Thread(target=read)
    reader.start()
    assert reads.wait(60)
    try:
        with pytest.raises(PreferencesUnavailable):
            store.get(KEY)
    finally:
        may_end.set()
        reader.join()
    store.close()


def test_only_a_clear_no_of_a_row_lifts_anonymity(file: Path) -> None:
    store = SqlitePreferences(str(file))
    db = sqlite3.connect(file)
    db.execute("INSERT INTO preferences VALUES (?, 'x', 'x')", (KEY,))
    db.commit()
    db.close()
    assert store.get(KEY) == Choice(True, True)
    store.close()


# The host's own


def test_callables_are_given_none_where_nothing_differs() -> None:
    table = Table()
    store = CallablePreferences(table.get, table.put)
    store.put(KEY, Choice(sharing=False))
    assert table.rows == {KEY: Choice(sharing=False)}
    store.put(KEY, Choice())
    assert table.rows == {}


def failing(*_: object) -> Any:
    raise LookupError("ada@example.org is not there")


@pytest.mark.parametrize(
    "answer", [0, False, "identified", {"anonymized": False}, Choice(anonymized=0), Choice(1, None)]
)
def test_an_answer_that_is_no_clear_choice_is_a_failure(answer: Any) -> None:
    store = CallablePreferences(lambda _: answer, failing)
    with pytest.raises(PreferencesUnavailable):
        store.get(KEY)


def test_a_callable_that_raises_is_a_store_that_fails_logged_once_without_a_value(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = CallablePreferences(failing, failing)
    for _ in range(2):
        with pytest.raises(PreferencesUnavailable):
            store.get(KEY)
        with pytest.raises(PreferencesUnavailable):
            store.put(KEY, Choice(sharing=True))
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "LookupError" in caplog.text
    assert "ada@example.org" not in caplog.text


def test_a_callable_may_say_itself_that_it_is_unavailable(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def away(_: str) -> Choice | None:
        raise PreferencesUnavailable("later")

    with pytest.raises(PreferencesUnavailable, match="later"):
        CallablePreferences(away, failing).get(KEY)
    assert caplog.records == []


async def later(*_: object) -> None: ...


@pytest.mark.parametrize("pair", [(later, failing), (failing, later), ("get", failing)])
def test_callables_that_are_none_or_async_are_refused(pair: Any) -> None:
    with pytest.raises(ConfigurationError, match="preferences"):
        CallablePreferences(*pair)


def test_an_object_may_say_that_it_does_not_block() -> None:
    table = Table()
    assert open_preferences(table).blocking is True
    table.blocking = False
    assert open_preferences(table).blocking is False


def test_a_whole_store_of_the_hosts_own_is_taken_as_it_is() -> None:
    own = MemoryPreferences()
    assert open_preferences(own) is own


# Which store a setting means


def test_left_out_it_is_where_durable_events_are_with_a_table_of_its_own(file: Path) -> None:
    analytics = Analytics(
        token="phc_x", host="http://127.0.0.1:9", outbox=f"sqlite:///{file}?max=9"
    )
    try:
        assert isinstance(analytics.preferences, SqlitePreferences)
        assert analytics.outbox.counts().waiting == 0
        analytics.preferences.put(KEY, Choice(anonymized=False))
        assert rows(file) == [(KEY, None, 0)]
    finally:
        analytics.close(timeout=0.0)


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({}, MemoryPreferences),
        ({"preferences": (failing, failing)}, CallablePreferences),
        ({"preferences": [failing, failing]}, CallablePreferences),
        ({"preferences": "memory://", "outbox": "sqlite:///{file}"}, MemoryPreferences),
        ({"preferences": "sqlite:///{file}"}, SqlitePreferences),
        ({"preferences": "sqlite:///{file}", "token": None}, MemoryPreferences),
    ],
)
def test_the_setting_says_which(given: dict[str, Any], kind: type, file: Path) -> None:
    filled = {
        name: value.format(file=file) if isinstance(value, str) else value
        for name, value in given.items()
    }
    analytics = Analytics(**{"token": "phc_x", "host": "http://127.0.0.1:9", **filled})
    try:
        assert isinstance(analytics.preferences, kind)
    finally:
        analytics.close(timeout=0.0)


@pytest.mark.parametrize(
    "given", ["memory://?max=3", "sqlite:///x.db?max=3", "sqlite:///", "file:///x", 5, (failing,)]
)
def test_a_setting_that_names_no_store_is_refused(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="preferences"):
        Analytics(token="phc_x", preferences=given)


@pytest.mark.parametrize("url", ["nothing://x", "memory://x"])
def test_a_url_that_names_no_store_is_refused_whoever_asks(url: str) -> None:
    with pytest.raises(ConfigurationError, match="SECOND_ANALYTICS_PREFERENCES"):
        open_preferences(url, setting="SECOND_ANALYTICS_PREFERENCES")


def test_the_error_names_the_variable(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("not ours")
    monkeypatch.setenv("SECOND_POSTHOG_TOKEN", "phc_x")
    for variable in ("SECOND_ANALYTICS_OUTBOX", "SECOND_ANALYTICS_PREFERENCES"):
        monkeypatch.setenv(variable, f"sqlite:///{file}")
        with pytest.raises(ConfigurationError, match=f"^{variable}: .*no SQLite file"):
            Analytics.from_env()
        monkeypatch.delenv(variable)


# memory:// in gunicorn, which tells an ASGI app nothing of its other workers

GUNICORNS_APP = """
from pathlib import Path
from second_mw import Analytics, Choice
try:
    Analytics(token="phc_x", host="http://127.0.0.1:9").preferences.put("k", Choice(False))
    word = "kept"
except Exception as error:
    word = type(error).__name__
Path("word").write_text(word)
raise RuntimeError("that is all: gunicorn ends where its workers do not start")
"""


@pytest.mark.parametrize(("workers", "word"), [(1, "kept"), (2, "PreferencesUnavailable")])
@pytest.mark.parametrize("kind", ["sync", "asgi"])
def test_gunicorns_other_workers_close_memory_preferences(
    kind: str, workers: int, word: str, tmp_path: Path
) -> None:
    if find_spec("gunicorn") is None or (kind == "asgi" and not find_spec("gunicorn.asgi")):
        pytest.skip("this gunicorn has no such workers")
    (tmp_path / "once.py").write_text(GUNICORNS_APP)
    command = [sys.executable, "-m", "gunicorn", "once:app", "--bind", "127.0.0.1:0"]
    subprocess.run(
        [*command, "--workers", str(workers), "--worker-class", kind],
        cwd=tmp_path,
        timeout=120,
        capture_output=True,
        check=False,
    )
    assert (tmp_path / "word").read_text() == word


#: A worker's method, in which the main thread is for as long as the worker lives.
IN_GUNICORN: dict[str, Any] = {"__name__": "gunicorn.workers.base"}
exec("def run(self, work): return work()", IN_GUNICORN)


@pytest.mark.parametrize(
    ("cfg", "alone"),
    [({"workers": 1}, True), ({"workers": 3}, False), ({"workers": "3"}, True), ({}, True)],
)
@pytest.mark.parametrize("is_gunicorn", [True, False])
def test_how_many_workers_there_are_stands_in_gunicorns_settings(
    is_gunicorn: bool, cfg: dict[str, Any], alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "gunicorn.arbiter", raising=False)
    if is_gunicorn:
        monkeypatch.setitem(sys.modules, "gunicorn.arbiter", ModuleType("gunicorn.arbiter"))
    worker = SimpleNamespace(cfg=SimpleNamespace(**cfg))
    store = IN_GUNICORN["run"](worker, MemoryPreferences)
    if alone or not is_gunicorn:
        store.put(KEY, Choice(anonymized=False))
    else:
        with pytest.raises(PreferencesUnavailable):
            store.put(KEY, Choice(anonymized=False))


# What follows for a user


def test_identified_is_read_for_each_request_and_shared_by_every_process(file: Path) -> None:
    """Two instances on one file are as good as two processes: neither has a cache."""
    settings: dict[str, Any] = {
        "token": "phc_x", "host": "http://127.0.0.1:9", "outbox": f"sqlite:///{file}",
        "flush_interval": 3600.0, "flush_at": 1000,
    }  # fmt: skip
    here, there = Analytics(**settings), Analytics(**settings)
    key = here.pipeline.user_key(ADA.id)

    def mode() -> str:
        there.outbox.store.purge()
        there.capture(ADA, "page viewed")
        (*_, last) = there.outbox.store.peek(10)
        return "identified" if last.payload.distinct_id == ADA.id else "anonymized"

    try:
        assert mode() == "anonymized"
        here.preferences.put(key, Choice(anonymized=False))
        assert mode() == "identified"
        here.preferences.put(key, Choice())
        assert mode() == "anonymized"
        here.preferences.put(key, Choice(sharing=False))
        assert there.capture(ADA, "page viewed").code == "suppressed"
        assert there.capture(AnalyticsUser("u_2"), "page viewed")
    finally:
        here.close(timeout=0.0)
        there.close(timeout=0.0)
