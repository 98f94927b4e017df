"""The code of the documentation's pages, run from the pages themselves."""

from __future__ import annotations

import logging
import re
import sys
import textwrap
from importlib.resources import files
from types import ModuleType
from typing import Any

import prometheus_client
import pytest

from second_mw import AnalyticsUser
from second_mw.contrib.captured import CapturedEvents

_SNIPPET = re.compile(
    r"^ *<!-- snippet: (?P<name>[\w-]+) -->\s*?\n(?P<indent> *)```python\n(?P<code>.*?)^ *```",
    re.DOTALL | re.MULTILINE,
)
ADA = AnalyticsUser("u_1", email="ada@analytical.example", name="Ada")


def snippet(page: str, name: str) -> str:
    text = files("second_mw.docs").joinpath(f"{page}.md").read_text(encoding="utf-8")
    (found,) = [found for found in _SNIPPET.finditer(text) if found["name"] == name]
    return textwrap.dedent(found["code"])


@pytest.fixture
def run(captured_events: CapturedEvents, monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(page: str, name: str) -> ModuleType:
        module = ModuleType(f"docs_{page}_{name}")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        code = compile(snippet(page, name), f"{page}.md:{name}", "exec", dont_inherit=True)
        exec(code, vars(module))
        return module

    return run


def test_the_catalogue_of_the_page_takes_its_event(run: Any, captured_events: Any) -> None:
    analytics = run("migrating", "catalogue").analytics
    assert analytics.capture(ADA, "invoice paid", {"amount_cents": 12, "plan": "team"})
    assert captured_events[0].properties["plan"] == "team"


def test_the_hook_of_the_page_drops_and_adds(run: Any, captured_events: Any) -> None:
    analytics = run("migrating", "on_event").analytics
    assert analytics.capture(ADA, "page viewed", {"surface": "public"}).code == "on_event"
    assert analytics.capture(ADA, "page viewed", {"surface": "settings"})
    assert captured_events[0].properties["region"] == "eu-west"


def test_the_tests_of_the_page_pass(run: Any, captured_events: Any) -> None:
    run("testing", "test").test_a_build_is_counted_and_names_nobody(captured_events, lambda: ADA)
    captured_events.clear()
    run("testing", "flask").test_the_browsers_events_arrive(captured_events)


def test_the_routes_of_the_page_are_the_apps(run: Any, captured_events: Any) -> None:
    analytics = run("frameworks", "routes").analytics
    analytics.capture(ADA, "page viewed", {"route_shape": "/users/grace"})
    assert captured_events[0].properties["route_shape"] == "/users/:name"


def test_the_job_of_the_page_captures(run: Any, captured_events: Any) -> None:
    assert run("frameworks", "jobs").captured
    assert captured_events.names == ["build completed"]


def test_the_metrics_of_the_page_are_there(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = prometheus_client.CollectorRegistry()
    monkeypatch.setattr("second_mw.contrib.prometheus.register.__defaults__", (registry,))
    run("operating", "prometheus")
    assert b"second_mw_enabled 1.0" in prometheus_client.generate_latest(registry)


def test_the_logging_of_the_page_works(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    handler = run("operating", "structlog").handler
    try:
        logging.getLogger("second_mw").warning("as structlog would say it")
    finally:
        logging.getLogger("second_mw").removeHandler(handler)
    assert '"event": "as structlog would say it"' in capsys.readouterr().err
