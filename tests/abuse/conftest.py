"""Both adapters, asked in the same words."""

from __future__ import annotations

from typing import Any

import pytest

from tests.abuse.drive import BOTH


@pytest.fixture(params=list(BOTH))
def ask(request: pytest.FixtureRequest) -> Any:
    """Asks through one adapter: `ask(analytics, told, user)`."""
    return BOTH[request.param]
