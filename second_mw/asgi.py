"""AnalyticsMiddleware for ASGI 3: which requests are ours. `asgi_desk` answers them.

A request that is not ours costs one look-up and passes with the very same scope, receive and send;
only lifespan's `send` is wrapped, so that a server waits for the flush (spec §2).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from asgiref.sync import markcoroutinefunction

from second_mw import process
from second_mw.resolver import Resolver, UserCallable
from second_mw.wiring import Wiring

if TYPE_CHECKING:
    from second_mw.asgi_desk import Desk

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

_SHUTDOWN_ENDS: Final = ("lifespan.shutdown.complete", "lifespan.shutdown.failed")


class AnalyticsMiddleware:
    """Wraps an ASGI app.

    Args:
        app: the host.
        analytics: the `Analytics` that takes the events.
        user: the resolver, sync or async, given scope; None reads `scope["second_mw.user"]`.
        user_blocks: whether a sync resolver may block; it then runs in a thread of its own.
    """

    def __init__(
        self,
        app: ASGIApp,
        analytics: Wiring,
        user: UserCallable | None = None,
        *,
        user_blocks: bool = True,
    ) -> None:
        self.app = app
        self._analytics = analytics
        self._resolver = Resolver(user, blocks=user_blocks)
        self._paths = analytics.paths
        self._desk: Desk | None = None
        analytics.wrapped()

    # Not `async def`: the host's own coroutine is handed on, which costs one frame less on every
    # request. The mark tells uvicorn and asgiref that this is ASGI 3 all the same.
    @markcoroutinefunction
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        path = scope.get("path")
        if scope.get("root_path") and path is not None:
            path = _below(scope["root_path"], path)
        # `in` is the cheapest look-up there is, and all that most requests pay.
        if path in self._paths:
            if scope["type"] == "http":
                if self._desk is None:
                    return self._serve_first(path, scope, receive, send)
                return self._desk.serve(path, scope, receive, send)
        elif path is None and scope["type"] == "lifespan":
            return self.app(scope, receive, self._lifespan_send(send))
        return self.app(scope, receive, send)

    async def _serve_first(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve while the desk is not open yet; opening it imports modules, which takes long."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            # Another event loop than asyncio's: it stands still once.
            desk = self._opened()
        else:
            desk = await asyncio.to_thread(self._opened)
        await desk.serve(path, scope, receive, send)

    def _opened(self) -> Desk:
        with process.importing:
            from second_mw.asgi_desk import Desk

            if self._desk is None:
                self._desk = Desk(self._analytics, self._resolver)
            return self._desk

    def _lifespan_send(self, send: Send) -> Send:
        async def sent(message: Message) -> None:
            kind = message["type"]
            if kind == "lifespan.startup.complete":
                self._analytics.startup()
            elif kind in _SHUTDOWN_ENDS:
                await asyncio.to_thread(self._analytics.shutdown)
            await send(message)

        return sent


def _below(root_path: str, path: str) -> str:
    """Return the path below a mount, as Starlette takes it (ASGI: path includes root_path)."""
    if not path.startswith(root_path):
        return path
    below = path[len(root_path) :]
    return below if below.startswith("/") or not below else path
