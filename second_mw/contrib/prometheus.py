"""Metrics for Prometheus (spec §15; `pip install 'second_mw[prometheus]'`).

One process: `register(analytics)`, and the default registry's page has them. Several processes
behind one address (`PROMETHEUS_MULTIPROC_DIR` is set): a scrape reaches any one of them, so each
process writes its own figures into that directory, `publish(analytics)`, while what they share, a
durable outbox, is read once, by whoever answers the scrape: `register(analytics, registry)`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from second_mw.analytics import Analytics
from second_mw.contrib.metrics import Increments, Reading, Ticker, is_shared, readings

__all__ = ["AnalyticsCollector", "publish", "register"]

_PREFIX: Final = "second_mw_"
_FAMILIES: Final = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}


def register(analytics: Analytics, registry: CollectorRegistry = REGISTRY) -> AnalyticsCollector:
    """Let a registry have an `Analytics`' figures, read at each scrape.

    With `PROMETHEUS_MULTIPROC_DIR` set, those are the figures that all processes share; each
    process has to `publish` its own besides.

    Args:
        analytics: whose figures.
        registry: the one that the metrics page is made of.
    """
    collector = AnalyticsCollector(analytics, only_shared=_many_processes())
    registry.register(collector)
    return collector


class AnalyticsCollector:
    """Reads an `Analytics` when Prometheus asks.

    Args:
        analytics: whose figures.
        only_shared: leaves out what every process has of its own.
    """

    def __init__(self, analytics: Analytics, *, only_shared: bool = False) -> None:
        self._analytics = analytics
        self._only_shared = only_shared

    def describe(self) -> list[Metric]:
        """Nothing: to be registered must not read the outbox."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield every figure."""
        shared = is_shared(self._analytics)
        for reading in readings(self._analytics):
            if self._only_shared and not (reading.row.of_outbox and shared):
                continue
            row = reading.row
            labels = [row.label] if row.label else None
            family: Any = _FAMILIES[row.kind](_PREFIX + row.name, row.words, labels=labels)
            for label, value in reading.values.items():
                family.add_metric([label] if row.label else [], value)
            yield family


def publish(analytics: Analytics, *, every: float = 5.0) -> Ticker:
    """Write this process's own figures into `PROMETHEUS_MULTIPROC_DIR`, now and regularly.

    Call it once, before or after the server forks: forked workers go on by themselves. Let your
    server call `prometheus_client.multiprocess.mark_process_dead(pid)` when a worker ends, as for
    any gauge.

    Args:
        analytics: whose figures.
        every: seconds between two writings.

    Raises:
        RuntimeError: the variable is not set, or was set after prometheus_client was imported.
    """
    if not _many_processes():
        raise RuntimeError("publish() is for several processes: set PROMETHEUS_MULTIPROC_DIR first")
    publisher = _Publisher(analytics)
    publisher.write()
    ticker = Ticker(publisher.write, every)
    _running.append(ticker)
    return ticker


# A ticker is told of forks and of the exit for as long as it is held.
_running: Final[list[Ticker]] = []


class _Publisher:
    """Keeps this process's figures in prometheus_client's own, which lie in the directory."""

    def __init__(self, analytics: Analytics) -> None:
        self._analytics = analytics
        self._increments = Increments()
        self._pid = os.getpid()
        self._metrics: dict[str, Any] = {}

    def write(self) -> None:
        """Write what changed."""
        if self._pid != os.getpid():
            self._pid, self._increments = os.getpid(), Increments()
        shared = is_shared(self._analytics)
        for reading in readings(self._analytics):
            if not (reading.row.of_outbox and shared):
                self._write(reading)

    def _write(self, reading: Reading) -> None:
        row = reading.row
        metric = self._metrics.get(row.name)
        if metric is None:
            metric = self._metrics[row.name] = _made(reading)
        if row.kind == "counter":
            for label, grown in self._increments.of(reading):
                (metric.labels(label) if row.label else metric).inc(grown)
            return
        for value in reading.values.values():
            metric.set(value)


def _made(reading: Reading) -> Any:
    row = reading.row
    labels = [row.label] if row.label else []
    name = _PREFIX + row.name
    if row.kind == "counter":
        return Counter(name, row.words, labels, registry=None)
    mode: Any = f"live{row.across}"
    return Gauge(name, row.words, labels, registry=None, multiprocess_mode=mode)


def _many_processes() -> bool:
    return "PROMETHEUS_MULTIPROC_DIR" in os.environ
