"""`memory://` preferences: for one process, and closed where there are more (spec §7).

A second process would not see what a user chose in the first. So after a fork, in a
multiprocessing child, or where a server declares more than one worker, nothing is taken for
chosen (everybody is anonymized), nothing can be chosen, and one warning says what to set.
"""

from __future__ import annotations

import logging
import os
import sys
from threading import Lock, main_thread
from typing import Final

from second_mw.errors import ConfigurationError, PreferencesUnavailable
from second_mw.user import Choice

logger: logging.Logger = logging.getLogger("second_mw")

#: Choices kept; a further user's is refused (503), never taken in silence.
MAX_CHOICES: Final = 100_000


class MemoryPreferences:
    """Keeps choices in this process, for as long as it lives."""

    blocking = False
    shared = False

    def __init__(self) -> None:
        self._lock = Lock()
        self._choices: dict[str, Choice] = {}
        self._alone = not (_is_child() or _declares_workers())
        self._warned = False

    def get(self, user_key: str) -> Choice | None:
        """Return a user's choice, None if there is none or more processes serve."""
        if not self._alone:
            self._warn()
            return None
        return self._choices.get(user_key)

    def put(self, user_key: str, choice: Choice) -> None:
        """Keep a user's choice."""
        if not self._alone:
            self._warn()
            if choice == Choice():
                return
            raise PreferencesUnavailable("memory:// preferences serve one process")
        with self._lock:
            if choice == Choice():
                self._choices.pop(user_key, None)
            elif user_key in self._choices or len(self._choices) < MAX_CHOICES:
                self._choices[user_key] = choice
            else:
                raise PreferencesUnavailable("memory:// preferences are full")

    def not_alone(self) -> None:
        """Learn that other processes serve the same host."""
        self._alone = False

    def after_fork(self) -> None:
        """Close in a forked child, which the parent would not hear of."""
        self._lock = Lock()
        self._choices = {}
        self._alone = False

    def close(self) -> None:
        """Nothing to let go of."""

    def _warn(self) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(
                "second_mw keeps users' choices in memory://, but more than one process serves "
                "this host: everybody stays anonymized. Set SECOND_ANALYTICS_PREFERENCES to a "
                "store that the processes share (see `second-mw docs delivery`)"
            )


def _is_child() -> bool:
    """Whether this is a child of multiprocessing, which is then loaded; else it need not be."""
    multiprocessing = sys.modules.get("multiprocessing")
    return multiprocessing is not None and multiprocessing.parent_process() is not None


def _declares_workers() -> bool:
    """Whether the usual variable, or gunicorn, declares more than one worker process."""
    declared = os.environ.get("WEB_CONCURRENCY", "").strip()
    return (declared.isdigit() and int(declared) > 1) or _workers_of_gunicorn() > 1


def _workers_of_gunicorn() -> int:
    """Return how many workers the gunicorn has that runs this process, 0 if none does.

    Its workers are forked before they load the app, and only a WSGI app is told of the others with
    each request; an ASGI app never. What is declared stands in the settings of the worker, whose
    method the main thread is in for as long as the worker lives.
    """
    if "gunicorn.arbiter" not in sys.modules:
        return 0
    frame = sys._current_frames().get(main_thread().ident or 0)
    while frame is not None:
        if str(frame.f_globals.get("__name__")).startswith("gunicorn."):
            workers = getattr(getattr(frame.f_locals.get("self"), "cfg", None), "workers", None)
            if isinstance(workers, int):
                return workers
        frame = frame.f_back
    return 0


def from_url(url: str, setting: str = "preferences") -> MemoryPreferences:
    """Return the store of `memory://`, which has no options.

    Raises:
        ConfigurationError: the URL says more.
    """
    if url != "memory://":
        raise ConfigurationError(f"{setting} must be memory:// and nothing behind it.")
    return MemoryPreferences()
