"""Fixtures that every room's tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from second_mw import Analytics
from second_mw.settings import FIELDS, OFF_SWITCHES
from tests.hosts import Asgi, Wsgi
from tests.stores import Kept

# A busy machine draws and runs slowly: no property fails for that.
settings.register_profile("second_mw", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("second_mw")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--chaos-minutes", default="0", help="how long the chaos test goes on, beyond its minimum"
    )
    parser.addoption(
        "--fuzz-minutes",
        type=float,
        default=0.0,
        help="fuzz for so long with examples of this run's own, instead of the usual ones",
    )
    parser.addoption(
        "--load-requests",
        type=int,
        default=2_000,
        help="how many requests the load test sends; 10000 for the whole of it",
    )


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the machine reaches a test."""
    for name in OFF_SWITCHES:
        monkeypatch.delenv(name, raising=False)
    for field in FIELDS:
        for name in field.variables:
            monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)


@pytest.fixture
def make() -> Iterator[Callable[..., Analytics]]:
    """Makes an Analytics over a store that keeps everything, closed when the test ends."""
    made: list[Analytics] = []

    def make(**fields: Any) -> Analytics:
        given = {"token": "phc_test", "host": "http://127.0.0.1:9", "outbox": Kept(), **fields}
        made.append(Analytics(**given))
        return made[-1]

    yield make
    for analytics in made:
        analytics.close(timeout=1.0)


@pytest.fixture(params=[Wsgi, Asgi], ids=["wsgi", "asgi"])
def adapter(request: pytest.FixtureRequest) -> type[Wsgi] | type[Asgi]:
    """Either adapter, so that one table drives both."""
    return request.param
