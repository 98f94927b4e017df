"""Calls the host's resolver, sync or async, from either world (spec §2).

The one place for asgiref's bridges. A resolver that raises is logged with its traceback and
refused, never taken as "visitor" or as "signed in".
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any, Final, TypeAlias

from second_mw.errors import Refused
from second_mw.user import AnalyticsUser

logger: logging.Logger = logging.getLogger("second_mw")

#: Given environ or scope, says who the user is.
UserCallable: TypeAlias = Callable[[Any], Any]

#: Where a host may leave the user if it gives no resolver.
USER_KEY: Final = "second_mw.user"


class Resolver:
    """The host's callable, ready to be called.

    Args:
        user: given environ or scope, returns an AnalyticsUser or None; None reads
            `environ["second_mw.user"]` or `scope["second_mw.user"]`.
        blocks: whether a sync callable may block: under ASGI it is then called in a thread.
    """

    def __init__(self, user: UserCallable | None, *, blocks: bool = True) -> None:
        if user is not None and not callable(user):
            raise TypeError("user must be a callable that takes environ or scope")
        self._user = user or left_by_host
        self._at_once = user is None or not blocks or _is_async(self._user)
        # asgiref's bridge, made with the first request that needs it.
        self._threaded: Callable[[Any], Awaitable[Any]] | None = None

    def sync(self, environ: MutableMapping[str, Any]) -> AnalyticsUser | None:
        """Return the user of a WSGI request.

        Raises:
            Refused: `user_lookup_failed`.
        """
        try:
            found = self._user(environ)
            # What nearly always comes; asking whether it can be awaited takes longer than the rest.
            if found.__class__ is not AnalyticsUser and inspect.isawaitable(found):
                found = _awaited(found)
            return _checked(found)
        except Exception as error:
            raise _failure(error) from None

    def begun(
        self, scope: MutableMapping[str, Any]
    ) -> AnalyticsUser | Coroutine[Any, Any, AnalyticsUser | None] | None:
        """Return the user of an ASGI request if that is known at once, or else a coroutine of it.

        Raises:
            Refused: `user_lookup_failed`.
        """
        try:
            found = self._user(scope) if self._at_once else self._in_thread(scope)
            if found.__class__ is AnalyticsUser or found is None:
                user: AnalyticsUser | None = found
                return user
            return self._awaited(found)
        except Exception as error:
            raise _failure(error) from None

    async def _awaited(self, found: Any) -> AnalyticsUser | None:
        try:
            # A thread may bring something to await, too.
            while inspect.isawaitable(found):
                found = await found
            return _checked(found)
        except Exception as error:
            raise _failure(error) from None

    def _in_thread(self, scope: MutableMapping[str, Any]) -> Awaitable[Any]:
        if self._threaded is None:
            from asgiref.sync import sync_to_async

            self._threaded = sync_to_async(self._user, thread_sensitive=False)
        return self._threaded(scope)


def left_by_host(environ: MutableMapping[str, Any]) -> AnalyticsUser | None:
    """Return the user that the host has put into environ or scope, None if it has put none there.

    Raises:
        TypeError: what is there is no AnalyticsUser.
    """
    said = f"environ or scope has {{}} under {USER_KEY!r}; it must be an AnalyticsUser"
    return _checked(environ.get(USER_KEY), said)


def _is_async(user: Callable[..., Any]) -> bool:
    called = getattr(user, "__call__", user)  # noqa: B004 - an object with an async __call__
    return inspect.iscoroutinefunction(user) or inspect.iscoroutinefunction(called)


def _awaited(awaitable: Awaitable[Any]) -> Any:
    from asgiref.sync import async_to_sync

    async def wait() -> Any:
        return await awaitable

    return async_to_sync(wait)()


def _checked(
    found: object, said: str = "the resolver returned {}; it must return an AnalyticsUser"
) -> AnalyticsUser | None:
    if found is None or isinstance(found, AnalyticsUser):
        return found
    raise TypeError(
        f"{said.format(type(found).__name__)} or None "
        "(see `second-mw docs readme`, 'Wrap your app')"
    )


def _failure(error: Exception) -> Refused:
    logger.error("second_mw: the resolver failed; answered 500", exc_info=error)
    return Refused("user_lookup_failed")
