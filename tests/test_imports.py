"""What importing the package loads: next to nothing."""

from __future__ import annotations

import subprocess
import sys

import second_mw

HEAVY = ("requests", "redis", "sqlite3", "werkzeug", "asgiref", "limits", "flask", "starlette")


def loaded_after(code: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after running the code."""
    script = f"{code}\nimport sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_importing_the_package_loads_none_of_the_heavy_libraries() -> None:
    assert loaded_after("import second_mw").isdisjoint(HEAVY)


def test_nor_does_importing_every_name_it_offers() -> None:
    assert loaded_after("from second_mw import *").isdisjoint(HEAVY)


def test_nor_does_making_a_disabled_analytics() -> None:
    code = "from second_mw import Analytics; Analytics()"
    assert loaded_after(code).isdisjoint(HEAVY)


def test_nor_does_making_an_enabled_one_before_its_first_event() -> None:
    code = "from second_mw import Analytics; Analytics(token='phc_x').wsgi(lambda *_: [])"
    assert loaded_after(code).isdisjoint(HEAVY)


def test_nor_does_it_load_the_privacy_core_before_its_first_event() -> None:
    code = "from second_mw import Analytics; Analytics(token='phc_x').wsgi(lambda *_: [])"
    script = f"{code}\nimport sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    loaded = {name for name in done.stdout.split() if name.startswith("second_mw.")}
    assert loaded.isdisjoint({"second_mw.endpoint", "second_mw.privacy", "second_mw.forwarder"})


def test_every_public_name_is_there() -> None:
    for name in second_mw.__all__:
        assert getattr(second_mw, name) is not None
    assert set(dir(second_mw)) == set(second_mw.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    assert not hasattr(second_mw, "Analytic")
