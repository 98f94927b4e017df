"""The pytest plugin (spec §16): what a host's own tests see of its analytics, and no network.

    def test_a_build_is_counted(captured_events, client):
        client.post("/builds")
        assert captured_events.names == ["build completed"]

`captured_events` collects what would be sent by every `Analytics` of the process, with receipts,
and fails the test at its end if an anonymized event names its user. `fake_user` makes users that
are easily found in what leaves. Only names are in this file: what they need is imported by the
first test that uses them, so that a project pays nothing for having the plugin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from second_mw.contrib.captured import CapturedEvents
    from second_mw.user import AnalyticsUser


@pytest.fixture
def captured_events() -> Iterator[CapturedEvents]:
    """What every `Analytics` would send during the test, in order; see `CapturedEvents`.

    An `Analytics` that was disabled for want of a project token is enabled while the test runs,
    the off switches of the machine's environment are lifted, and nothing touches a network, a
    file or a thread. An off switch that the test itself sets holds.
    """
    from second_mw.contrib.captured import CapturedEvents, capturing

    events = CapturedEvents()
    with capturing(events):
        yield events
    events.assert_nothing_identifying()


@pytest.fixture
def fake_user() -> Callable[..., AnalyticsUser]:
    """Makes AnalyticsUsers, each another person; keyword arguments replace fields."""
    from second_mw.contrib.captured import FakeUsers

    users = FakeUsers()

    def fake_user(**fields: Any) -> AnalyticsUser:
        return users.next(**fields)

    return fake_user
