"""The circuit: whether anything may be sent at all, and the two judgements that open it.

Open means that events wait in the outbox and one small batch a while tries the way. Nothing is
lost by it: it opens when the fault is not the events'. No I/O and no thread lives here.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final, Literal

#: Between two probes while the fault is the sender's (token, host, proxy, billing).
PROBE_AFTER: Final = 60.0
#: So many events refused alone in a row, and none taken between, are no longer about the events.
REFUSALS_IN_A_ROW: Final = 20
#: How long events that were refused so are put off, for the next probes to try others.
SUSPECTS_WAIT: Final = 600.0
_REMEMBERED: Final = 1_000


class Circuit:
    """Open or closed, and when the next probe may go.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._probe_at: float | None = None
        self._interval = PROBE_AFTER
        self._probing = False
        self._causes: set[str] = set()

    @property
    def state(self) -> Literal["closed", "open"]:
        """`closed` is the good state, as in electricity."""
        return "closed" if self._probe_at is None else "open"

    def wait(self) -> float:
        """Seconds until something may be sent; infinite while a probe is on its way."""
        with self._lock:
            if self._probe_at is None:
                return 0.0
            if self._probing:
                return math.inf
            return max(0.0, self._probe_at - self._clock())

    def begin_probe(self) -> bool:
        """Return whether what is sent now is the probe, to be ended by `end_probe`."""
        with self._lock:
            self._probing = self._probe_at is not None
            return self._probing

    def end_probe(self, *, sent: bool) -> None:
        """End the probe; if it was sent and decided nothing, the next one is an interval away."""
        with self._lock:
            self._probing = False
            if sent and self._probe_at is not None:
                self._probe_at = max(self._probe_at, self._clock() + self._interval)

    def open(self, cause: str, interval: float = PROBE_AFTER) -> bool:
        """Open it for `interval` seconds; return whether the cause is new since it was closed."""
        with self._lock:
            self._probe_at = self._clock() + interval
            self._interval = interval
            new = cause not in self._causes
            self._causes.add(cause)
            return new

    def close(self) -> bool:
        """Close it; return whether it was open."""
        if self._probe_at is None:
            return False
        with self._lock:
            self._probe_at = None
            self._causes.clear()
            return True


class Refusals:
    """Tells bad events from a bad sender, by counting those that are refused alone in a row."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._in_a_row = 0
        self._successes = 0
        self._suspects: OrderedDict[str, int] = OrderedDict()

    def succeeded(self) -> None:
        """PostHog took an event: refusals before it were about the events."""
        with self._lock:
            self._in_a_row = 0
            self._successes += 1

    def about_sender(self, key: str) -> bool:
        """Count an event that was refused alone; return whether the sender is to blame.

        One that was suspected before, when since then others were taken, is to blame itself: else
        the same twenty bad events would stop delivery again whenever they come round.
        """
        with self._lock:
            before = self._suspects.pop(key, None)
            if before is not None and before < self._successes:
                return False
            self._in_a_row += 1
            return self._in_a_row >= REFUSALS_IN_A_ROW

    def suspect(self, keys: Iterable[str]) -> None:
        """Remember events that go back because the sender was to blame."""
        with self._lock:
            for key in keys:
                self._suspects[key] = self._successes
            while len(self._suspects) > _REMEMBERED:
                self._suspects.popitem(last=False)
