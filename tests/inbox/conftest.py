"""An inbox of each test's own, on a free port."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from second_mw.inbox.app import InboxServer


@pytest.fixture
def inbox() -> Iterator[InboxServer]:
    with InboxServer(port=0) as started:
        yield started
