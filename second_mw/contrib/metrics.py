"""What operators see of an `Analytics`, read from `stats()`: one table for every meter (spec §15).

Prometheus, OpenTelemetry and StatsD each have a file that says these readings in their words. No
reading carries a user: the labels are codes and reasons, closed lists of machine words.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from threading import Event, Lock, Thread
from typing import Any, Final, Literal, NamedTuple

from second_mw import process
from second_mw.analytics import Analytics

logger: logging.Logger = logging.getLogger("second_mw")


class Row(NamedTuple):
    """One thing to read.

    Args:
        name: in snake case, without a prefix; ends in its unit if it has one.
        kind: a counter only grows while the process lives.
        words: what it says, for a dashboard.
        path: where it stands in `stats()`.
        label: the label whose values are the keys there; None for a single number.
        of_outbox: whether the store counts it: a durable one does so for all processes together.
        across: what it is for several processes that each have their own.
    """

    name: str
    kind: Literal["counter", "gauge"]
    words: str
    path: tuple[str, ...]
    label: str | None = None
    of_outbox: bool = False
    across: Literal["sum", "max"] = "sum"


ROWS: Final[tuple[Row, ...]] = (
    Row("events_accepted", "counter", "Events the outbox took", ("accepted",), of_outbox=True),
    Row("events_delivered", "counter", "Events PostHog has", ("delivered",), of_outbox=True),
    Row("events_dead", "counter", "Events that went to dead letters", ("dead",), of_outbox=True),
    Row("events_purged", "counter", "Events thrown away by hand", ("purged",), of_outbox=True),
    Row("events_rejected", "counter", "Refusals by code", ("rejected",), label="code"),
    Row("events_suppressed", "counter", "Events of users who share none", ("suppressed",)),
    Row("privacy_gate_stops", "counter", "Events the last look stopped", ("privacy_gate",)),
    Row("rules_failed", "counter", "Events whose rules failed; none was taken", ("rule_failed",)),
    Row("preferences_failed", "counter", "Choices not to be had", ("preferences_failed",)),
    Row("events_forwarded", "counter", "Events this process delivered", ("forwarder", "forwarded")),
    Row("events_retried", "counter", "Events this process sent again", ("forwarder", "retried")),
    Row(
        "events_buried",
        "counter",
        "Events this process gave up, by reason",
        ("forwarder", "dead"),
        label="reason",
    ),
    Row("outbox_waiting", "gauge", "Events that wait", ("waiting",), of_outbox=True),
    Row("outbox_ready", "gauge", "Events that could leave now", ("ready",), of_outbox=True),
    Row(
        "outbox_oldest_age_seconds",
        "gauge",
        "Age of the oldest event that waits",
        ("oldest_age",),
        of_outbox=True,
        across="max",
    ),
    Row("batches_in_flight", "gauge", "Batches on their way", ("forwarder", "in_flight")),
    Row(
        "forward_latency_seconds",
        "gauge",
        "How long PostHog took for its last answer",
        ("forwarder", "latency"),
        across="max",
    ),
    Row(
        "last_success_timestamp_seconds",
        "gauge",
        "When PostHog last took events",
        ("forwarder", "last_success"),
        across="max",
    ),
    Row(
        "circuit_open",
        "gauge",
        "1 while delivery is stopped by a fault that is not the events'",
        ("forwarder", "circuit"),
        across="max",
    ),
    Row("enabled", "gauge", "1 unless analytics is switched off", ("enabled",), across="max"),
)

#: What a word in `stats()` is as a number.
_NUMBER_OF: Final[Mapping[object, float]] = {"open": 1.0, "closed": 0.0, True: 1.0, False: 0.0}


class Reading(NamedTuple):
    """What a row says now: label value → number; the one number of a row without label is at ""."""

    row: Row
    values: dict[str, float]


def readings(analytics: Analytics) -> Iterator[Reading]:
    """Yield what there is to read now, in the table's order.

    A row without a number is left out: the latency before the first answer, and the outbox's
    accounts while it can't be asked, which shows as a gap in the dashboard.
    """
    try:
        stats = analytics.stats()
    except Exception as error:
        # A scrape must not fail with a store of the host's own.
        logger.debug("second_mw: the outbox can't be read for metrics: %s", type(error).__name__)
        return
    for row in ROWS:
        values = _values(row, stats)
        if values:
            yield Reading(row, values)


def _values(row: Row, stats: Mapping[str, Any]) -> dict[str, float]:
    found: Any = stats
    for name in row.path:
        found = found[name]
    if found is None:
        return {}
    if row.label is not None:
        return {label: float(count) for label, count in sorted(found.items())}
    return {"": _NUMBER_OF[found] if isinstance(found, str | bool) else float(found)}


def is_shared(analytics: Analytics) -> bool:
    """Whether the outbox's figures are those of all processes together."""
    store = analytics.outbox.store
    return store is not None and store.durable


class Increments:
    """How much each counter has grown since it was last asked for.

    A counter that is lower than before belongs to a forked child, which counts from zero.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], float] = {}

    def of(self, reading: Reading) -> Iterator[tuple[str, float]]:
        """Yield label value and growth, where there is any."""
        for label, value in reading.values.items():
            key = (reading.row.name, label)
            before = self._seen.get(key, 0.0)
            self._seen[key] = value
            grown = value if value < before else value - before
            if grown:
                yield label, grown


class Recent:
    """The readings, read at most once a second, for meters that ask for each one by itself."""

    _FRESH: Final = 1.0

    def __init__(self, analytics: Analytics, clock: Callable[[], float] = time.monotonic) -> None:
        self._analytics = analytics
        self._clock = clock
        self._lock = Lock()
        self._read_at: float | None = None
        self._values: dict[str, dict[str, float]] = {}

    def of(self, row: Row) -> dict[str, float]:
        """Return label value → number of a row."""
        with self._lock:
            now = self._clock()
            if self._read_at is None or now - self._read_at >= self._FRESH:
                self._values = {r.row.name: r.values for r in readings(self._analytics)}
                self._read_at = now
            return self._values.get(row.name, {})


class Ticker:
    """Calls something again and again from a thread of its own, in a forked child too.

    Args:
        call: what is called; one that raises is logged and called again.
        every: seconds between two calls.
    """

    #: Seconds for which it may hold an exit, for its last call.
    exit_timeout: Final = 1.0

    def __init__(self, call: Callable[[], object], every: float) -> None:
        self._call = call
        self._every = every
        self._begin()
        process.enroll(self)

    def _begin(self) -> None:
        self._over = Event()
        self._thread = Thread(
            target=self._run, args=(self._over,), name="second_mw-metrics", daemon=True
        )
        self._thread.start()

    def _run(self, over: Event) -> None:
        while not over.wait(self._every):
            self._once()

    def _once(self) -> None:
        try:
            self._call()
        except Exception:
            logger.exception("second_mw: metrics can't be reported")

    def stop(self) -> None:
        """Call once more, and end the thread."""
        if not self._over.is_set():
            self._over.set()
            self._thread.join()
            self._once()

    def before_fork(self) -> None:
        """Nothing is half done between two calls."""

    def after_fork(self) -> None:
        """Begin anew in a forked child, where the thread is not."""
        if not self._over.is_set():
            self._begin()

    def at_exit(self, timeout: float) -> None:
        """Report what was counted last."""
        if not self._over.is_set():
            self._over.set()
            self._once()
