"""Metrics for StatsD, through the `statsd` client (spec §15; `pip install 'second_mw[statsd]'`)."""

from __future__ import annotations

from typing import Final, Protocol

from second_mw.analytics import Analytics
from second_mw.contrib.metrics import Increments, Ticker, readings

__all__ = ["Reporter", "report"]

_PREFIX: Final = "second_mw."


class Client(Protocol):
    """What of `statsd.StatsClient` this needs."""

    def incr(self, stat: str, count: float = 1) -> object:
        """Count up."""
        ...

    def gauge(self, stat: str, value: float) -> object:
        """Say what is."""
        ...


def report(analytics: Analytics, client: Client, *, every: float = 10.0) -> Ticker:
    """Report an `Analytics`' figures regularly, from a thread of its own, in forked workers too.

    Args:
        analytics: whose figures.
        client: a `statsd.StatsClient`, with the host's own prefix if it has one.
        every: seconds between two reports.

    >>> report(analytics, statsd.StatsClient("localhost", 8125))  # doctest: +SKIP
    """
    ticker = Ticker(Reporter(analytics, client).report, every)
    _running.append(ticker)
    return ticker


# A ticker is told of forks and of the exit for as long as it is held.
_running: Final[list[Ticker]] = []


class Reporter:
    """Sends what changed since it last did; for hosts with a scheduler of their own.

    Args:
        analytics: whose figures.
        client: a `statsd.StatsClient`.
    """

    def __init__(self, analytics: Analytics, client: Client) -> None:
        self._analytics = analytics
        self._client = client
        self._increments = Increments()

    def report(self) -> None:
        """Send counters as their growth and gauges as they are."""
        for reading in readings(self._analytics):
            name = _PREFIX + reading.row.name
            if reading.row.kind == "counter":
                for label, grown in self._increments.of(reading):
                    self._client.incr(f"{name}.{label}" if label else name, int(grown))
            else:
                for value in reading.values.values():
                    self._client.gauge(name, value)
