"""The table "attack → test" says the truth."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.abuse import ATTACKS

_HERE = Path(__file__).parent


def named_in(file: str) -> set[str]:
    tree = ast.parse((_HERE / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("attack", ATTACKS)
def test_every_attack_has_a_test_that_exists(attack: str) -> None:
    file, _, test = ATTACKS[attack].partition("::")
    assert test.startswith("test_")
    assert test in named_in(file)


def test_there_are_forty_and_more() -> None:
    assert len(ATTACKS) >= 40
