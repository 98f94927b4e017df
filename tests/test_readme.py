"""The README against the code: a table that says something else than the code is a bug."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from second_mw.cli import COMMANDS
from second_mw.docs import PAGES
from second_mw.errors import REFUSALS
from second_mw.settings import FIELDS, OFF_SWITCHES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def section(heading: str) -> str:
    found = re.search(rf"^##+ {heading}$(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
    assert found is not None, f"README has no section {heading!r}"
    return found[1]


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_every_setting_stands_in_the_table_with_its_variables(field) -> None:
    rows = [line for line in section("Settings").splitlines() if line.startswith("|")]
    (row,) = [row for row in rows if f"`{field.name}`" in row.split("|")[1]]
    for variable in field.variables:
        assert f"`{variable}`" in row
    if isinstance(field.default, str):
        assert f"`{field.default}`" in row


def test_every_off_switch_is_named() -> None:
    assert all(f"`{name}`" in section("Switching it off") for name in OFF_SWITCHES)


def test_every_refusal_is_named_with_its_status() -> None:
    answers = section("What the endpoint answers")
    for code, refusal in REFUSALS.items():
        (line,) = [line for line in answers.splitlines() if f"`{code}`" in line]
        assert str(refusal.status) in line


def test_every_command_is_named() -> None:
    assert all(f"second-mw {name}" in section("The command line") for name in COMMANDS)


def test_every_page_of_the_documentation_is_named() -> None:
    pages = section("Further pages")
    assert all(f"`{page}`" in pages for page in PAGES if page != "readme")


def test_pictures_and_files_that_are_named_exist() -> None:
    for path in re.findall(r"\]\(((?!http)[^)#]+)\)", README):
        assert (ROOT / path).exists(), path


def test_both_commands_are_one_line_each_from_a_fresh_clone() -> None:
    commands = re.findall(r"^python3 -m venv .*$", README, re.MULTILINE)
    assert [command.rpartition("&& ")[2] for command in commands] == [
        ".venv/bin/python -m demos",
        ".venv/bin/pytest",
    ]
