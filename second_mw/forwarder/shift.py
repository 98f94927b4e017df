"""A shift: the forwarder's threads between one start and one close, and what they share.

State and waiting only; what the threads do stands in `dispatcher.py`. A forked child leaves its
parent's shift behind and makes its own.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from second_mw.forwarder.exchange import Transport
from second_mw.outbox.base import Entry


class Job(NamedTuple):
    """A lease on its way to a sender."""

    entries: list[Entry]
    probe: bool


class Shift:
    """The threads of one `start`, what they share, and when they have to be done.

    Args:
        lock: the forwarder's.
        pause: waits instead of the clock on the wall, for tests.
    """

    def __init__(self, lock: threading.RLock, pause: Callable[[float], object] | None) -> None:
        self._injected_pause = pause
        self.dispatcher: threading.Thread | None = None
        self.senders: list[threading.Thread] = []
        # Kept so that a forked child can leave the parent's connections alone, open and unused.
        self.transports: list[Transport] = []
        self.jobs: deque[Job] = deque()
        self.in_flight = 0
        #: When `close` gives up, by `time.monotonic`; None while nobody closes.
        self.deadline: float | None = None
        self.over = False
        #: Whether the dispatcher may lease; a forwarder that finishes settles what it has.
        self.leases = True
        self.to_dispatch: threading.Condition = threading.Condition(lock)
        self.to_send: threading.Condition = threading.Condition(lock)
        #: Something was settled, or the shift's end has come into sight.
        self.changed: threading.Condition = threading.Condition(lock)

    @property
    def alive(self) -> bool:
        """Whether there is a dispatcher and it runs."""
        return self.dispatcher is not None and self.dispatcher.is_alive()

    def time_left(self) -> float | None:
        """Seconds until `close` gives up, None if nobody closes."""
        if self.over:
            return 0.0
        return None if self.deadline is None else self.deadline - time.monotonic()

    def pause(self, seconds: float) -> bool:
        """Wait, unless the time left is shorter than that."""
        if self._injected_pause is not None:
            self._injected_pause(seconds)
            return not self.over
        end = time.monotonic() + seconds
        with self.changed:
            while (wait := end - time.monotonic()) > 0:
                left = self.time_left()
                if left is not None and left <= wait:
                    return False
                self.changed.wait(wait)
        return True
