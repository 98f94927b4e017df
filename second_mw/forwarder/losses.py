"""The forwarder's own accounts, and how a host and an operator hear of a loss.

The store counts what it holds; here stands what this process has sent, sent again and buried, by
reason. Every loss reaches the hook and, summed up, the log.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

logger: logging.Logger = logging.getLogger("second_mw")

#: One line a minute and reason: a loss must be seen, and must not bury the log.
_LOG_EVERY: Final = 60.0


class Ledger:
    """Counts and reports.

    Args:
        on_loss: called with (reason, count) for every event that will not be delivered.
        clock: monotonic seconds.
    """

    def __init__(
        self, on_loss: Callable[[str, int], object] | None, clock: Callable[[], float]
    ) -> None:
        self._on_loss = on_loss
        self._clock = clock
        self._lock = threading.RLock()
        self._unlogged: Counter[str] = Counter()
        self._logged_at: dict[str, float] = {}
        self.forwarded: int = 0
        self.retried: int = 0
        self.dead: Counter[str] = Counter()
        self.latency: float | None = None
        self.last_success: float | None = None

    def answered(self, latency: float) -> None:
        """Remember how many seconds PostHog took to answer, whatever it said."""
        self.latency = latency

    def delivered(self, count: int) -> None:
        """Count events that PostHog has taken."""
        with self._lock:
            self.forwarded += count
            self.last_success = time.time()

    def sent_again(self, count: int) -> None:
        """Count events that are about to be sent once more."""
        with self._lock:
            self.retried += count

    def buried(self, reason: str, count: int) -> None:
        """Count events that went to the dead letters for this machine word, and report them."""
        with self._lock:
            self.dead[reason] += count
        self.report(reason, count)

    def report(self, reason: str, count: int) -> None:
        """Tell the hook and the log of a loss."""
        if self._on_loss is not None:
            try:
                self._on_loss(reason, count)
            except Exception:
                logger.exception("the on_drop hook failed")
        with self._lock:
            self._unlogged[reason] += count
            now = self._clock()
            if now - self._logged_at.get(reason, -_LOG_EVERY) < _LOG_EVERY:
                return
            self._logged_at[reason] = now
            total = self._unlogged.pop(reason)
        _warn(reason, total)

    def settle_log(self) -> None:
        """Write the losses that the rate limit has held back."""
        with self._lock:
            held_back, self._unlogged = self._unlogged, Counter()
        for reason, total in held_back.items():
            _warn(reason, total)


def _warn(reason: str, total: int) -> None:
    logger.warning("%d event(s) will not be delivered: %s", total, reason)
