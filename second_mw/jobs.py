"""Whose events deeper code captures: a user for a block of code, and for a background job.

`as_user` keeps the user in a context variable, so that it follows the code through threads of
`asyncio.to_thread`, tasks and awaits. Into a background job (Celery, RQ, Dramatiq or any other) a
user travels as a ticket: the id and the mode at that moment. When the job runs, the host is asked
for the user anew and the preference store for the mode, which can only have become stricter.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, TypeVar

from second_mw.privacy.mode import standing
from second_mw.user import AnalyticsUser

if TYPE_CHECKING:
    from second_mw.analytics import Analytics
    from second_mw.server_code import Captured

logger: logging.Logger = logging.getLogger("second_mw")

_Function = TypeVar("_Function", bound=Callable[..., Any])

_current: ContextVar[AnalyticsUser | None] = ContextVar("second_mw user", default=None)

#: The keyword argument under which a ticket travels.
TICKET: Final = "second_mw_user"


@dataclass(frozen=True)
class Bound:
    """An `Analytics` for one user: captures without naming the user each time.

    Args:
        analytics: takes the events.
        user: whose they are; None is nobody, whose events are refused as `not_authenticated`.
    """

    analytics: Analytics
    user: AnalyticsUser | None

    def capture(
        self, event: str, properties: Mapping[str, Any] | None = None, **given: Any
    ) -> Captured:
        """`Analytics.capture` for this user."""
        return self.analytics.capture(self.user, event, properties, **given)

    async def acapture(
        self, event: str, properties: Mapping[str, Any] | None = None, **given: Any
    ) -> Captured:
        """`Analytics.acapture` for this user."""
        return await self.analytics.acapture(self.user, event, properties, **given)


def current_user() -> AnalyticsUser | None:
    """Return the user of the innermost `as_user` around this code, None outside of any."""
    return _current.get()


@contextmanager
def as_user(analytics: Analytics, user: AnalyticsUser | None) -> Iterator[Bound]:
    """Let `analytics.here` mean this user until the block ends.

    Raises:
        TypeError: `user` is neither an AnalyticsUser nor None.
    """
    if not isinstance(user, AnalyticsUser | None):
        raise TypeError(f"user must be an AnalyticsUser or None, not {type(user).__name__}")
    token = _current.set(user)
    try:
        yield Bound(analytics, user)
    finally:
        _current.reset(token)


class Jobs:
    """Background jobs that capture events for whoever asked for them.

    Args:
        analytics: takes the events.
        user: the host's callable that finds a user by id when a job runs; returns an
            AnalyticsUser, or None if there is no such user any more.

    >>> jobs = Jobs(analytics, user=find_user)  # doctest: +SKIP
    >>> @celery.task  # the job queue's own decorator comes first
    ... @jobs.carried
    ... def build(app_id):
    ...     analytics.here.capture("build completed", {"file_count": 12})  # doctest: +SKIP
    >>> build.delay("a_1", **jobs.ticket(user))  # doctest: +SKIP
    """

    def __init__(self, analytics: Analytics, user: Callable[[str], AnalyticsUser | None]) -> None:
        if not callable(user):
            raise TypeError("user must be a callable that takes a user's id")
        self._analytics = analytics
        self._find = user

    def ticket(self, user: AnalyticsUser | None = None) -> dict[str, dict[str, str] | None]:
        """Return the keyword argument that takes a user along, for the job queue to carry.

        It is plain JSON: the user's id, and the mode at this moment, which the preference store
        is asked for. Nothing else of the user waits in the queue.

        Args:
            user: whose events the job's are; the one of `as_user` if left out.
        """
        user = user if user is not None else current_user()
        if user is None:
            return {TICKET: None}
        settings = self._analytics.settings
        choice = self._analytics.choice_of(user)
        where = standing(settings, user, choice, gpc=False, dnt=False)
        return {TICKET: {"id": user.id, "mode": where.mode if where.shares else "none"}}

    def user_of(self, ticket: object) -> AnalyticsUser | None:
        """Return the user of a ticket, found anew, with a mode that is no laxer than the ticket's.

        Args:
            ticket: what `ticket` put under `second_mw_user`. Anything else is nobody's, and any
                mode but `identified` means anonymized.

        Raises:
            TypeError: the host's callable returned neither an AnalyticsUser nor None.
        """
        if not isinstance(ticket, Mapping) or not isinstance(ticket.get("id"), str):
            return None
        user = self._find(ticket["id"])
        if user is None:
            return None
        if not isinstance(user, AnalyticsUser):
            raise TypeError(f"the user callable returned {type(user).__name__}")
        mode = ticket.get("mode")
        if mode == "identified":
            return user
        return replace(user, anonymized=True, sharing=False if mode == "none" else user.sharing)

    def carried(self, job: _Function) -> _Function:
        """Decorate a job, sync or async: it runs `as_user` of the ticket that came with it.

        The ticket is taken out of the keyword arguments. A job without one runs as nobody, whose
        events are refused. A user who can't be looked up does not stop the job.
        """
        if inspect.iscoroutinefunction(job):

            @wraps(job)
            async def awaited(*args: Any, **given: Any) -> Any:
                user = self._looked_up(given.pop(TICKET, None))
                with self._analytics.as_user(user):
                    return await job(*args, **given)

            return awaited  # type: ignore[return-value]

        @wraps(job)
        def called(*args: Any, **given: Any) -> Any:
            user = self._looked_up(given.pop(TICKET, None))
            with self._analytics.as_user(user):
                return job(*args, **given)

        return called  # type: ignore[return-value]

    def _looked_up(self, ticket: object) -> AnalyticsUser | None:
        try:
            return self.user_of(ticket)
        except Exception:
            # The job itself is the host's business, and goes on; its events are refused.
            logger.exception("second_mw: the user of a background job can't be told")
            return None
