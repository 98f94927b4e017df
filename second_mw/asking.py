"""Askers: a few daemon threads that ask stores which may hang (spec §7). A leaf.

Whoever asks waits so long and no longer; a question that is not answered then keeps its thread
until it comes back, and once all threads are kept so, every further question fails at once. So a
store that hangs costs a few threads, no request more than its time, and no exit anything.
"""

from __future__ import annotations

import contextvars
import os
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, Final

from second_mw.errors import PreferencesUnavailable

#: A preference store that takes longer than this, in seconds, has failed (spec §7).
CHOICE_TIMEOUT: Final = 0.25
#: Seconds after which a store that must be written to has failed: no request hangs on it.
STORE_TIMEOUT: Final = 10.0
_THREADS: Final = 8


class Askers:
    """Asks in threads of its own, so that one that hangs takes none of the host's.

    Args:
        threads: how many there are at the most; they start when they are needed.
    """

    def __init__(self, threads: int = _THREADS) -> None:
        self._most = threads
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = Lock()
        self._questions: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._threads = 0
        self._idle = 0
        #: Threads whose question nobody waits for any more.
        self._kept = 0

    def ask(self, timeout: float, ask: Callable[..., Any], *values: object) -> Any:
        """Return the answer, waiting for it.

        Args:
            timeout: seconds.

        Raises:
            Exception: what `ask` raised; one of the kinds of TimeoutError if it took too long.
            PreferencesUnavailable: all threads hang.
        """
        answer = self._submit(ask, values)
        try:
            return answer.result(timeout)
        finally:
            self._leave(answer)

    async def awaited(self, timeout: float, ask: Callable[..., Any], *values: object) -> Any:
        """The same, awaited."""
        # Imported here: a WSGI host has no use for it, and it takes 2 MB.
        import asyncio

        answer = self._submit(ask, values)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(answer), timeout)
        finally:
            self._leave(answer)

    def _submit(self, ask: Callable[..., Any], values: tuple[object, ...]) -> Future[Any]:
        if self._pid != os.getpid():
            # A forked child has none of its parent's threads.
            self._begin()
        answer: Future[Any] = Future()
        # A host's store may look at what its request has set: Flask's app, for one.
        context = contextvars.copy_context()

        def answered() -> None:
            if answer.set_running_or_notify_cancel():
                try:
                    answer.set_result(context.run(ask, *values))
                except BaseException as error:
                    answer.set_exception(error)

        with self._lock:
            if self._kept >= self._most:
                raise PreferencesUnavailable("every thread that asks hangs")
            if self._idle:
                self._idle -= 1
            elif self._threads < self._most:
                name = f"second_mw-store-{self._threads + 1}"
                Thread(target=self._work, args=(self._questions,), name=name, daemon=True).start()
                self._threads += 1
            self._questions.put(answered)
        return answer

    def _work(self, questions: SimpleQueue[Callable[[], None]]) -> None:
        while True:
            questions.get()()
            with self._lock:
                self._idle += 1

    def _leave(self, answer: Future[Any]) -> None:
        """Hear that nobody waits for this answer any more."""
        if answer.done() or answer.cancel():
            return
        with self._lock:
            self._kept += 1
        answer.add_done_callback(self._came_back)

    def _came_back(self, answer: Future[Any]) -> None:
        with self._lock:
            self._kept -= 1
