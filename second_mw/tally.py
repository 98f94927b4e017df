"""Tally: thread-safe counters for `analytics.stats()` (spec §15); none names a user. A leaf."""

from __future__ import annotations

from threading import Lock


class Tally:
    """Counts by name."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._counts: dict[str, int] = {}

    def add(self, name: str, count: int = 1) -> None:
        """Add to a counter."""
        with self._lock:
            self._counts[name] = self._counts.get(name, 0) + count

    def counts(self) -> dict[str, int]:
        """Return every counter that has been added to."""
        with self._lock:
            return dict(self._counts)

    def after_fork(self) -> None:
        """Start from zero in a forked child, with a lock of its own."""
        self._lock = Lock()
        self._counts = {}
