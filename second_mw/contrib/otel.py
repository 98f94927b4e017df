"""Metrics for OpenTelemetry (spec §15; `pip install 'second_mw[otel]'`).

Only the API is needed here; what exports is the host's SDK. Every process exports its own figures
under its own resource; those of a durable outbox are the same in all of them: take the largest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

from second_mw.analytics import Analytics
from second_mw.contrib.metrics import ROWS, Recent, Row
from second_mw.version import VERSION

__all__ = ["instrument"]

_PREFIX: Final = "second_mw."


def instrument(analytics: Analytics, meter_provider: MeterProvider | None = None) -> None:
    """Let OpenTelemetry read an `Analytics`' figures whenever it collects.

    Args:
        analytics: whose figures.
        meter_provider: the global one if left out.

    >>> instrument(analytics)  # doctest: +SKIP
    """
    meter = metrics.get_meter("second_mw", VERSION, meter_provider)
    recent = Recent(analytics)
    for row in ROWS:
        name, unit = _PREFIX + row.name.removesuffix("_seconds"), _unit(row)
        make: Any = (
            meter.create_observable_counter
            if row.kind == "counter"
            else meter.create_observable_gauge
        )
        make(name, callbacks=[_callback(recent, row)], unit=unit, description=row.words)


def _unit(row: Row) -> str:
    if row.name.endswith("_seconds"):
        return "s"
    return "{event}" if row.name.startswith(("events_", "outbox_")) else "1"


def _callback(recent: Recent, row: Row) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observed(options: CallbackOptions) -> Iterable[Observation]:
        return [
            Observation(value, {row.label: label} if row.label else {})
            for label, value in recent.of(row).items()
        ]

    return observed
