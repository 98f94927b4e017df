"""The glue for Starlette (spec §16): what a host needs beside `second_mw.asgi.AnalyticsMiddleware`.

`scope["session"]` and `scope["user"]` exist only inside their middlewares. Starlette puts the
middleware that was added last outermost, so add ours first, theirs after it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from second_mw.asgi import AnalyticsMiddleware

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

__all__ = ["AnalyticsMiddleware", "from_connection"]


def from_connection(
    user: Callable[[HTTPConnection], Any],
) -> Callable[[Any], Any]:
    """Return a resolver of scope for a callable that takes Starlette's connection instead.

    Args:
        user: given an `HTTPConnection`, so that `.session`, `.user` and `.cookies` work; sync or
            async; returns an AnalyticsUser or None.

    >>> app.add_middleware(
    ...     AnalyticsMiddleware,
    ...     analytics=analytics,
    ...     user=from_connection(lambda connection: connection.session.get("user")),
    ... )  # doctest: +SKIP
    """
    import inspect

    from starlette.requests import HTTPConnection

    if inspect.iscoroutinefunction(user):

        async def awaited(scope: Any) -> Any:
            return await user(HTTPConnection(scope))

        return awaited

    def called(scope: Any) -> Any:
        return user(HTTPConnection(scope))

    return called
