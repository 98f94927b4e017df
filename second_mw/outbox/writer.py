"""The writer thread of a durable outbox: group commit (design.md, "Durable by group commit").

Whoever wants to write leaves a job and gets a future. One thread a process takes all jobs that
have gathered while it was busy, has them carried out in one transaction, and answers all of them
after the commit. So 64 requests at once cost one sync of the disk. How a transaction is made is
the store's business.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from threading import Condition, RLock, Thread, current_thread
from typing import Any, Final, Generic, TypeVar

from second_mw.errors import OutboxUnavailable

logger: logging.Logger = logging.getLogger("second_mw")

T = TypeVar("T")
Work = Callable[[T], Any]
#: Jobs in one transaction; more would only keep other processes from the file.
_A_GROUP: Final = 256
#: Seconds without a job after which there is time for upkeep.
_A_LULL: Final = 1.0


class Job(Generic[T]):
    """Something to do inside a transaction, and who waits for it.

    Args:
        work: given the transaction, returns the result; it may raise `OutboxUnavailable` if it
            has changed nothing.
    """

    __slots__ = ("error", "future", "result", "work")

    def __init__(self, work: Work[T]) -> None:
        self.work: Work[T] = work
        self.future: Future[Any] = Future()
        self.result: Any = None
        self.error: OutboxUnavailable | None = None

    def answer(self) -> None:
        """Tell who waits."""
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class Writer(Generic[T]):
    """Collects jobs and commits them in groups, in a thread that the first job starts.

    Args:
        commit: carries out jobs in one transaction, setting each one's `result` or `error`;
            raises nothing.
        in_a_lull: called in the thread, when a while has passed since the last job.
    """

    def __init__(
        self, commit: Callable[[list[Job[T]]], None], in_a_lull: Callable[[], None]
    ) -> None:
        self._commit = commit
        self._in_a_lull = in_a_lull
        self.after_fork()

    def after_fork(self) -> None:
        """Start with nothing: at construction, and in a child, where nobody waits for a job."""
        self._changed = Condition(RLock())
        self._jobs: deque[Job[T]] = deque()
        self._thread: Thread | None = None
        self._over = False

    def submit(self, work: Work[T]) -> Future[Any]:
        """Leave a job; the future has its result after the commit."""
        job = Job(work)
        with self._changed:
            if self._runs():
                self._jobs.append(job)
                self._changed.notify()
                return job.future
        # No thread to be had, as at interpreter exit: then the caller's does it.
        self._carry_out([job])
        return job.future

    def entered(self) -> bool:
        """Return whether the calling thread is just leaving a job: a signal handler may find it."""
        owned: bool = self._changed._is_owned()  # type: ignore[attr-defined]
        return owned

    def close(self) -> None:
        """Commit what is there and end the thread; the next job starts it again."""
        with self._changed:
            thread, self._thread = self._thread, None
            self._over = True
            self._changed.notify_all()
        if thread is not None and thread is not current_thread():
            thread.join()

    def _runs(self) -> bool:
        """Whether there is a thread, or now is one; the lock is held."""
        if self._thread is not None and self._thread.is_alive():
            return True
        thread = Thread(target=self._run, name="second_mw-outbox-writer", daemon=True)
        self._over = False
        try:
            thread.start()
        except RuntimeError as error:
            logger.debug("no outbox writer can be started: %s", error)
            return False
        self._thread = thread
        return True

    def _run(self) -> None:
        lull_is_due = False
        while True:
            with self._changed:
                if not self._jobs and not self._over:
                    self._changed.wait(_A_LULL if lull_is_due else None)
                jobs = [self._jobs.popleft() for _ in range(min(len(self._jobs), _A_GROUP))]
                if not jobs and self._over:
                    return
            if jobs:
                self._carry_out(jobs)
                lull_is_due = True
            elif lull_is_due:
                lull_is_due = False
                self._in_a_lull()

    def _carry_out(self, jobs: list[Job[T]]) -> None:
        # Whoever has stopped waiting, as a cancelled request does, gets nothing done; from here
        # on it is too late to stop.
        jobs = [job for job in jobs if job.future.set_running_or_notify_cancel()]
        if jobs:
            self._commit(jobs)
        for job in jobs:
            job.answer()
