"""`second-mw forward`: what waits in a durable outbox leaves through a process of its own."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from second_mw import Analytics
from second_mw.cli import forward, main, screen
from second_mw.errors import OutboxUnavailable
from second_mw.outbox.base import Store
from second_mw.outbox.outbox import open_store
from tests.delivery.build import payload, payloads
from tests.delivery.sink import Recorded, Reply, Sink, Wire, fine, status
from tests.hosts import ADA


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'outbox.db'}"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    store = open_store(url)
    yield store
    store.close()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, sink: Sink) -> None:
    monkeypatch.setenv("SECOND_POSTHOG_TOKEN", "phc_test")
    monkeypatch.setenv("SECOND_POSTHOG_HOST", sink.url)


def forwarding(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "second_mw", "forward", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env=os.environ.copy(),
    )


def said_at_the_end(process: subprocess.Popen[str]) -> str:
    _, said = process.communicate(timeout=60)
    assert "Traceback" not in said
    return said


def test_once_drains_the_outbox_and_exits(url: str, store: Store, sink: Sink) -> None:
    store.put(payloads(1500))
    assert main(["forward", "--once", "--outbox", url]) == 0
    assert sorted(sink.delivered) == sorted(item.uuid for item in payloads(1500))
    assert store.counts()[:4] == (1500, 1500, 0, 0)


def test_the_outbox_of_the_environment_is_taken(
    url: str, store: Store, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECOND_ANALYTICS_OUTBOX", url)
    monkeypatch.setenv("SECOND_ANALYTICS_FORWARD", "off")
    store.put([payload()])
    assert main(["forward", "--once"]) == 0
    assert sink.delivered == [payload().uuid]


def test_an_empty_outbox_is_drained(url: str, sink: Sink) -> None:
    assert main(["forward", "--once", "--outbox", url]) == 0
    assert not sink.requests


def test_once_says_what_still_waits(
    url: str, store: Store, sink: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    sink.answer = status(401)
    store.put(payloads(3))
    assert main(["forward", "--once", "--outbox", url]) == 1
    assert "3 event(s) still wait" in caplog.text
    assert "SECOND_POSTHOG_TOKEN" in caplog.text
    assert store.counts()[:4] == (3, 0, 0, 3)


@pytest.mark.parametrize("arguments", [(), ("--outbox", "memory://")])
def test_a_memory_outbox_is_a_mistake_that_is_explained(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["forward", *arguments]) == 2
    assert "--outbox sqlite:///path" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variable", "value", "code"), [("DO_NOT_TRACK", "1", 0), ("SECOND_POSTHOG_TOKEN", "", 1)]
)
def test_a_forwarder_that_is_off_sends_nothing_and_says_why(
    variable: str,
    value: str,
    code: int,
    url: str,
    store: Store,
    sink: Sink,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(variable, value)
    store.put([payload()])
    assert main(["forward", "--outbox", url]) == code
    printed = capsys.readouterr()
    said = printed.err if code else printed.out
    assert "analytics is off" in said
    assert variable in said
    assert not sink.requests


def test_several_at_once_deliver_each_event_once(url: str, store: Store, sink: Sink) -> None:
    several = [forwarding("--outbox", url) for _ in range(3)]
    for process in several:
        # Its first line: it looks at the outbox, and listens for signals.
        assert process.stderr is not None
        assert "forwarded 0" in process.stderr.readline()
    store.put(payloads(3000))
    sink.wait_for(lambda: len(sink.delivered) >= 3000, timeout=60)
    for process in several:
        process.send_signal(signal.SIGTERM)
    for process in several:
        assert "stopped: forwarded" in said_at_the_end(process)
        assert process.returncode == 0
    assert sorted(sink.delivered) == sorted(item.uuid for item in payloads(3000))
    assert store.counts()[:4] == (3000, 3000, 0, 0)


def test_sigterm_finishes_the_batch_in_hand_and_leaves_the_rest(
    url: str, store: Store, sink: Sink
) -> None:
    arrived, told = threading.Event(), threading.Event()

    def answer(request: Recorded) -> Reply | Wire:
        arrived.set()
        assert told.wait(60)
        return fine(request)

    sink.answer = answer
    store.put(payloads(10))
    process = forwarding("--outbox", url)
    assert arrived.wait(60)
    process.send_signal(signal.SIGTERM)
    store.put(payloads(5, start=10))
    told.set()
    said_at_the_end(process)
    assert process.returncode == 0
    counts = store.counts()
    assert (counts.accepted, counts.dead, counts.purged) == (15, 0, 0)
    assert counts.delivered == len(sink.delivered) >= 10
    # What the process had no time for is nobody's, so the next one need not wait for a lease.
    assert counts.ready == counts.waiting
    sink.answer = None
    assert main(["forward", "--once", "--outbox", url]) == 0
    assert sorted(sink.delivered) == sorted(item.uuid for item in payloads(15))


@pytest.mark.parametrize("fails", [False, True])
def test_it_goes_on_until_sigterm_whatever_becomes_of_a_look_at_the_outbox(
    fails: bool, url: str, store: Store, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = forward._state

    def look(forwarder: Any, outbox: Any) -> Any:
        if fails and sink.delivered and threading.current_thread() is threading.main_thread():
            monkeypatch.setattr(forward, "_state", looked)
            raise OutboxUnavailable("store_failed")
        return looked(forwarder, outbox)

    def end_when_delivered() -> None:
        sink.wait_for(lambda: len(sink.delivered) == 3, timeout=60)
        # The look that fails comes after the delivery, and the end after that.
        pause = threading.Event()
        while fails and forward._state is look:
            pause.wait(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(forward, "_state", look)
    store.put(payloads(3))
    ending = threading.Thread(target=end_when_delivered)
    ending.start()
    assert main(["forward", "--outbox", url]) == 0
    ending.join()
    assert store.counts()[:4] == (3, 3, 0, 0)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_web_server_may_leave_forwarding_to_others(url: str, sink: Sink) -> None:
    before = {thread.name for thread in threading.enumerate()}
    analytics = Analytics(token="phc_test", host=sink.url, outbox=url, forward=False)
    analytics.wsgi(lambda *_: [])
    analytics.startup()
    assert analytics.capture(ADA, "page viewed")
    assert analytics.flush() == (0, 1)
    assert analytics.close() == (0, 1)
    analytics.shutdown()
    names = {thread.name for thread in threading.enumerate()} - before
    assert not [name for name in names if "dispatcher" in name or "soon" in name]
    assert not sink.requests
    assert main(["forward", "--once", "--outbox", url]) == 0
    assert len(sink.delivered) == 1
    assert analytics.stats()["delivered"] == 1


# What it shows

STATE: dict[str, Any] = {
    "forwarded": 7,
    "retried": 1,
    "waiting": 3,
    "dead": 0,
    "oldest": 2.0,
    "circuit": "closed",
}


def _on_a_terminal(monkeypatch: pytest.MonkeyPatch, *, rich: bool) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(screen, "is_rich", lambda: rich)
    monkeypatch.setattr(forward, "is_rich", lambda: rich)


@pytest.mark.parametrize("rich", [True, False])
def test_progress_on_a_terminal_is_one_line_that_changes(
    rich: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _on_a_terminal(monkeypatch, rich=rich)
    with forward._progress() as show:
        show(STATE)
        show({**STATE, "forwarded": 8})
    assert "forwarded 8" in capsys.readouterr().out or rich


def test_elsewhere_a_line_is_logged_when_something_has_changed_and_not_at_each_look(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "second_mw")
    now = [1000.0]
    monkeypatch.setattr(forward.time, "monotonic", lambda: now[0])
    with forward._progress() as show:
        for forwarded, passed in ((7, 0.0), (8, 1.0), (8, 60.0), (8, 60.0), (9, 60.0)):
            now[0] += passed
            show({**STATE, "forwarded": forwarded, "oldest": now[0]})
    said = [record.getMessage().split(",")[0] for record in caplog.records]
    assert said == ["forwarded 7", "forwarded 8", "forwarded 9"]
