"""The command line as a whole: help, versions, exit codes, and that a command costs only itself."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from second_mw.cli import COMMANDS, main, parser
from second_mw.cli.outbox import ACTIONS
from second_mw.version import VERSION


def test_help_names_every_command_and_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(re.search(rf"^    {name}\s", printed, re.MULTILINE) for name in COMMANDS)
    assert "Example: second-mw" in printed


@pytest.mark.parametrize("command", [*COMMANDS, *(f"outbox {action}" for action in ACTIONS)])
def test_each_commands_help_shows_an_example_within_eighty_columns(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*command.split(), "--help"]) == 0
    printed = capsys.readouterr().out
    example = printed.rpartition("Example: ")[2]
    assert f"second-mw {command}" in example
    assert max(map(len, printed.splitlines())) <= 80


def options() -> Iterator[tuple[str, argparse.Action]]:
    """Every option of every command, with the words that lead to it."""
    todo = [((), parser(None, whole=True))]
    while todo:
        words, found = todo.pop()
        for action in found._actions:
            if isinstance(action, argparse._SubParsersAction):
                todo += [((*words, name), sub) for name, sub in action.choices.items()]
            else:
                yield " ".join((*words, action.dest)), action


def test_each_option_says_what_it_is_for_and_what_it_is_if_left_out() -> None:
    for name, action in options():
        assert action.help, name
        if isinstance(action.default, int | float) and not isinstance(action.default, bool):
            assert re.search(rf"default {action.default:,g}|default {action.default}", action.help)


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"second-mw {VERSION}\n"


@pytest.mark.parametrize(
    "arguments",
    [[], ["nonsense"], ["explain", "--nonsense"], ["run"]],
    ids=["nothing", "no such command", "no such option", "a missing argument"],
)
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert "usage: second-mw" in printed.out + printed.err


def test_help_loads_no_library_of_a_command() -> None:
    script = (
        "import sys; from second_mw.cli import main; main(['--help']);"
        "print([m for m in ('requests', 'werkzeug', 'redis', 'sqlite3', 'rich') "
        "if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.endswith("[]\n")


def test_python_m_second_mw_is_the_same_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "second_mw", "--version"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == f"second-mw {VERSION}\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_output_that_is_not_utf_8_costs_a_dash_and_no_command(encoding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "second_mw", "catalogue"],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        check=True,
        timeout=60,
    )
    printed = done.stdout.decode(encoding)
    assert ("–" if encoding == "utf-8" else "\\u2013") in printed


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_gets_every_command_and_option_to_complete(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in COMMANDS)
    assert "--disable-telemetry" in script


def test_completion_without_the_extra_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 1
    assert "pip install 'second_mw[cli]'" in capsys.readouterr().err
