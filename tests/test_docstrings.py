"""Docstrings: every public name has one, and the examples in them run."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from typing import Any

import pytest

import second_mw

#: A framework's glue has examples of hosts, which `contrib/test_readme_snippets.py` runs.
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(second_mw.__path__, "second_mw.")
    if not module.name.endswith("__main__")
    and not module.name.startswith("second_mw.contrib.django.")
)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_a_modules_docstrings_run(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} does not say what belongs in it"
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("name", [name for name in second_mw.__all__ if name != "__version__"])
def test_every_public_name_says_what_it_is(name: str) -> None:
    thing: Any = getattr(second_mw, name)
    assert inspect.getdoc(thing), name
    if inspect.isclass(thing):
        for attribute, value in vars(thing).items():
            if not attribute.startswith("_") and callable(value):
                assert inspect.getdoc(value), f"{name}.{attribute}"
