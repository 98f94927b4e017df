"""The process's life: what every living `Analytics` is told when its process forks or ends.

A leaf, and the one place that knows of atexit, of `os.register_at_fork` and of the two process
libraries whose children run no atexit. No hook is installed before the first `enroll`.
"""

from __future__ import annotations

import atexit
import os
import sys
import time
import weakref
from collections.abc import Callable
from threading import RLock, Timer
from typing import Any, Final, Protocol


class Living(Protocol):
    """What has to hear of its process's life."""

    @property
    def exit_timeout(self) -> float:
        """Seconds for which it may hold the exit."""
        ...

    def before_fork(self) -> None:
        """Stop what a child should not find half done."""
        ...

    def after_fork(self) -> None:
        """Become a forked child's own."""
        ...

    def at_exit(self, timeout: float) -> None:
        """Finish within `timeout` seconds; no new thread can be started any more."""
        ...


_living: Final[weakref.WeakSet[Any]] = weakref.WeakSet()
#: Children of these end by `os._exit` and run what is registered here instead of atexit.
_PROCESS_LIBRARIES: Final = ("multiprocessing.util", "billiard.util")
_state: Final[dict[str, Any]] = {"installed": False, "watched": None, "exit_began": None}


#: Held while modules are imported late, and by a fork: a child that is forked in the middle of an
#: import would wait for ever for the thread that was to end it.
importing: Final = RLock()


def enroll(living: Living) -> None:
    """Tell this one, for as long as it lives."""
    _living.add(living)
    if _state["installed"]:
        return
    _state["installed"] = True
    atexit.register(_at_exit)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=_before_fork,
            after_in_parent=importing.release,
            after_in_child=_after_fork,
        )


def living() -> list[Any]:
    """Return everyone enrolled who still lives."""
    return list(_living)


def watch_child_exit() -> None:
    """Hear of the exit of a child that runs no atexit (multiprocessing, Celery's billiard).

    To be called when there is something to finish: such a child clears, as it begins, what was
    registered before.
    """
    if _state["watched"] == os.getpid():
        return
    _state["watched"] = os.getpid()
    for name in _PROCESS_LIBRARIES:
        library = sys.modules.get(name)
        if library is not None:
            library.Finalize(None, _at_exit, exitpriority=0)
    signals = sys.modules.get("celery.signals")
    if signals is not None:
        # A child of Celery's pool ends by os._exit even before its finalizers, and says so here.
        signals.worker_process_shutdown.connect(_at_celerys_exit, weak=False)


def soon(seconds: float, work: Callable[[], object]) -> Timer | None:
    """Call `work` in a thread of its own after so many seconds; None if no thread can start."""
    timer = Timer(seconds, work)
    timer.name = "second_mw-soon"
    timer.daemon = True
    try:
        timer.start()
    except RuntimeError:
        return None
    return timer


def _before_fork() -> None:
    for living in list(_living):
        living.before_fork()
    importing.acquire()


def _after_fork() -> None:
    importing.release()
    _state["exit_began"] = None
    for living in list(_living):
        living.after_fork()


def _at_celerys_exit(**_: object) -> None:
    _at_exit()


def _at_exit() -> None:
    # One bound for all of them together, and for both ways in which an exit is heard of.
    if _state["exit_began"] is None:
        _state["exit_began"] = time.monotonic()
    for living in list(_living):
        passed = time.monotonic() - _state["exit_began"]
        living.at_exit(max(0.0, living.exit_timeout - passed))
