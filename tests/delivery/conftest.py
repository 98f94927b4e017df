"""Fixtures of the delivery tests: a sink, and a store with its forwarder before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from second_mw.forwarder.dispatcher import Forwarder
from second_mw.outbox.base import Counts
from second_mw.outbox.memory import MemoryStore
from second_mw.payload import Payload
from second_mw.settings import Settings
from tests.delivery.build import Clock
from tests.delivery.sink import Sink, running


class Line:
    """A memory outbox and its forwarder; retries wait for nobody, but are remembered."""

    def __init__(self, host: str, clock: Clock | None, **fields: Any) -> None:
        self.pauses: list[float] = []
        self.lost: list[tuple[str, int]] = []
        given = {"token": "phc_test", "host": host, "flush_interval": 3600.0, "gzip": False}
        clocked = {"clock": clock} if clock is not None else {}
        self.store = MemoryStore(**clocked)
        own = {name: fields.pop(name) for name in ("pause", "connect") if name in fields}
        self.forwarder = Forwarder(
            self.store,
            Settings.load({**given, **fields}),
            on_loss=lambda reason, count: self.lost.append((reason, count)),
            **{"pause": self.pauses.append, **clocked, **own},
        )

    def put(self, payloads: Sequence[Payload]) -> None:
        self.store.put(payloads)
        self.forwarder.start()
        self.forwarder.notify(len(payloads))

    def send(self, payloads: Sequence[Payload]) -> tuple[int, int]:
        """Put and flush; return how many are out and how many are not."""
        self.put(payloads)
        return tuple(self.forwarder.flush(20.0))

    @property
    def counts(self) -> Counts:
        counts = self.store.counts()
        assert counts.accepted == counts.delivered + counts.dead + counts.waiting + counts.purged
        return counts

    @property
    def accounts(self) -> tuple[int, int, int]:
        """Delivered, dead, waiting: what was accepted is in exactly one of them."""
        counts = self.counts
        return counts.delivered, counts.dead, counts.waiting


@pytest.fixture(autouse=True)
def _unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A put may stand in the queue before Redis for as long as a loaded machine lets it."""
    monkeypatch.setattr("second_mw.outbox.redis._QUEUED_FOR", 600.0)


@pytest.fixture
def sink() -> Iterator[Sink]:
    with running() as sink:
        yield sink


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lay(sink: Sink) -> Iterator[Callable[..., Line]]:
    """Lays a line to the sink, or to another `host`; closed when the test ends."""
    laid: list[Line] = []

    def lay(*, host: str | None = None, clock: Clock | None = None, **fields: Any) -> Line:
        laid.append(Line(host or sink.url, clock, **fields))
        return laid[-1]

    yield lay
    for line in laid:
        line.forwarder.close(timeout=0.0)
