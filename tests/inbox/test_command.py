"""`second-mw inbox`, as a process and in this one."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from second_mw import cli
from second_mw.cli import inbox as command
from tests.inbox.sdk import send, v0


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command with these arguments, and what it has printed once it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-m", "second_mw", "inbox", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    printed = ""
    try:
        while "Ctrl-C" not in printed:
            line = process.stdout.readline()
            assert line, process.communicate(timeout=30)[1]
            printed += line
        yield process, printed
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=30)


def address(printed: str) -> str:
    found = re.search(r"Inbox  (http://127\.0\.0\.1:\d+)", printed)
    assert found is not None, printed
    return found[1]


@pytest.mark.parametrize("seconds", ["-1", "0", "nan", "inf", "soon"])
def test_an_answer_can_be_late_by_a_span_of_time_only(
    seconds: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["inbox", "--fail", "slow", "--slow-seconds", seconds]) == 2
    assert "--slow-seconds" in capsys.readouterr().err


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_is_takes_events_and_ends_cleanly(ending: signal.Signals) -> None:
    with running() as (process, printed):
        url = address(printed)
        assert f"export SECOND_POSTHOG_HOST={url}\n" in printed
        assert "export SECOND_POSTHOG_TOKEN=phc_local\n" in printed
        assert "second-mw run your_module:app\n" in printed
        assert send(url, "POST", "/batch/", v0()).status == 200
        process.send_signal(ending)
        _, errors = process.communicate(timeout=30)
        assert (process.returncode, errors) == (0, "")


def test_a_file_and_a_failure_mode_are_used_and_said(tmp_path: Path) -> None:
    file = tmp_path / "events.sqlite"
    with running("--db", str(file)) as (process, printed):
        send(address(printed), "POST", "/batch/", v0())
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    with running("--db", str(file), "--fail", "503", "--max-events", "10") as (_, printed):
        assert "It fails on purpose (503): it answers 503" in printed
        assert len(send(address(printed), "GET", "/api/events").json) == 1
        assert send(address(printed), "POST", "/batch/", v0()).status == 503


def test_told_to_listen_elsewhere_it_says_what_that_means() -> None:
    with running("--bind", "0.0.0.0", "--allow-host", "inbox") as (_, printed):
        assert "whoever reaches this machine can read what is shown" in printed
        assert send(address(printed), "GET", "/health", Host="inbox:8765").status == 200
    with running() as (_, printed):
        assert "whoever" not in printed


def test_a_port_that_is_taken_is_an_error_with_a_way_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.main(["inbox", "--port", str(port)]) == 1
    errors = capsys.readouterr().err
    assert f"127.0.0.1 port {port} can't be listened on" in errors
    assert "Choose another with --port or --bind." in errors


def test_a_file_that_cannot_be_used_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("these are notes, and no database at all " * 40)
    assert cli.main(["inbox", "--port", "0", "--db", str(file)]) == 1
    assert "it is no SQLite database; choose another file." in capsys.readouterr().err
    assert file.read_text().startswith("these are notes")


@pytest.mark.parametrize(
    "arguments",
    [["--port", "-1"], ["--port", "70000"], ["--port", "x"], ["--fail", "504"],
     ["--max-events", "0"], ["--max-events", "x"], ["--slow-seconds", "x"]],
)  # fmt: skip
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inbox", *arguments]) == 2
    assert arguments[0] in capsys.readouterr().err


def test_its_help_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inbox", "--help"]) == 0
    assert "Example: second-mw inbox --port 8765" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "Ctrl-C ends it."),
        (["--bind", "0.0.0.0"], "It listens on 0.0.0.0"),
        (["--fail", "slow"], "It fails on purpose (slow)"),
    ],
)
def test_it_serves_in_this_process_until_a_signal_comes(
    arguments: list[str],
    says: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    say = command._say

    def say_and_end(*given: Any) -> None:
        say(*given)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(command, "_say", say_and_end)
    assert cli.main(["inbox", "--port", "0", *arguments]) == 0
    assert says in capsys.readouterr().out
    assert signal.getsignal(signal.SIGTERM) is before
