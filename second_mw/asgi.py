"""AnalyticsMiddleware for ASGI 3: the same as `wsgi`, awaited. The endpoint decides.

A request that is not ours costs one look-up and passes with the very same scope, receive and send;
only lifespan's `send` is wrapped, so that a server waits for the flush (spec §2).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final, TypeAlias

from asgiref.sync import markcoroutinefunction

from second_mw.endpoint import (
    Answer,
    Need,
    NeedBody,
    NeedChoice,
    NeedRate,
    NeedUser,
    Put,
    Request,
    Route,
    SaveChoice,
)
from second_mw.errors import ClientDisconnected, PreferencesUnavailable, Refused
from second_mw.privacy.mode import STORE_FAILED
from second_mw.resolver import Resolver, UserCallable
from second_mw.wiring import Wiring

logger = logging.getLogger("second_mw")

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

#: A preference store that takes longer than this, in seconds, has failed (spec §7).
_CHOICE_TIMEOUT: Final = 0.25
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
        self._routes: Mapping[str, Route] = dict(analytics.endpoint.routes)

    # Not `async def`: the host's own coroutine is handed on, which costs one frame less on every
    # request. The mark tells uvicorn and asgiref that this is ASGI 3 all the same.
    @markcoroutinefunction
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        path = scope.get("path")
        if path is not None:
            root_path = scope.get("root_path")
            route = self._routes.get(_below(root_path, path) if root_path else path)
            if route is not None and scope["type"] == "http":
                return self._serve(route, scope, receive, send)
        elif scope["type"] == "lifespan":
            return self.app(scope, receive, self._lifespan_send(send))
        return self.app(scope, receive, send)

    async def _serve(self, route: Route, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            answer = await self._answer(route, scope, receive)
        except ClientDisconnected:
            return
        await send(
            {"type": "http.response.start", "status": answer.status, "headers": _headers(answer)}
        )
        body = b"" if scope["method"] == "HEAD" else answer.body
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, route: Route, scope: Scope, receive: Receive) -> Answer:
        steps = route(_request(scope))
        try:
            need = next(steps)
            while True:
                try:
                    got = await self._perform(need, scope, receive)
                except Exception as error:
                    need = steps.throw(error)
                else:
                    need = steps.send(got)
        except StopIteration as done:
            answer: Answer = done.value
            return answer

    async def _perform(self, need: Need, scope: Scope, receive: Receive) -> Any:
        match need:
            case NeedUser():
                return await self._resolver.awaited(scope)
            case NeedBody(limit):
                return await _read_body(scope, receive, limit)
            case NeedChoice(user_key):
                return await self._choice(user_key)
            case SaveChoice(user_key, choice):
                return await self._save(user_key, choice)
            case Put(payloads):
                outbox = self._analytics.outbox
                if outbox.blocking:
                    return await asyncio.wrap_future(outbox.submit(payloads))
                return outbox.put(payloads)
            case NeedRate():
                return None

    async def _choice(self, user_key: str) -> Any:
        preferences = self._analytics.preferences
        try:
            if preferences.blocking:
                asked = asyncio.to_thread(preferences.get, user_key)
                return await asyncio.wait_for(asked, _CHOICE_TIMEOUT)
            return preferences.get(user_key)
        except (PreferencesUnavailable, asyncio.TimeoutError):
            return STORE_FAILED

    async def _save(self, user_key: str, choice: Any) -> None:
        preferences = self._analytics.preferences
        if preferences.blocking:
            await asyncio.to_thread(preferences.put, user_key, choice)
        else:
            preferences.put(user_key, choice)

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


def _request(scope: Scope) -> Request:
    headers: dict[bytes, str] = {}
    for name, value in scope["headers"]:
        key = name.lower()
        text = value.decode("latin-1")
        # A header that is sent twice is one list, as WSGI servers join it.
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    host = headers.get(b"host")
    if host is None:
        name, port = scope.get("server") or ("localhost", None)
        host = name if port is None else f"{name}:{port}"
    query = scope.get("query_string", b"").decode("latin-1")
    return Request(
        scope["method"],
        lambda name: headers.get(name.encode()),
        scope.get("scheme", "http"),
        host,
        query,
    )


async def _read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """Return the body, read no further than the limit whatever Content-Length says."""
    if _declared_length(scope) > limit:
        raise Refused("payload_too_large")
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise Refused("payload_too_large")
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def _declared_length(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name.lower() == b"content-length":
            return int(value) if value.isdigit() else 0
    return 0


def _headers(answer: Answer) -> list[tuple[bytes, bytes]]:
    headers = [
        (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers
    ]
    if answer.status not in (204, 304):
        headers.append((b"content-length", str(len(answer.body)).encode()))
    return headers
