"""AnalyticsMiddleware for ASGI 3: the same as `wsgi`, awaited. The endpoint decides.

A request that is not ours costs one look-up and passes with the very same scope, receive and send;
only lifespan's `send` is wrapped, so that a server waits for the flush (spec §2).
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeAlias

from asgiref.sync import markcoroutinefunction

from second_mw.endpoint import (
    COMMON_HEADERS,
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
    Steps,
    fallen,
)
from second_mw.errors import ClientDisconnected, Refused
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
#: Seconds after which a store that must be written to has failed: no request hangs on it.
_STORE_TIMEOUT: Final = 10.0
#: Threads that ask stores which do I/O. Our own: one that hangs takes none of the host's.
_STORE_THREADS: Final = 8
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
        self._routes: dict[Any, Route] = {**analytics.endpoint.routes}
        self._body_timeout = analytics.settings.body_timeout
        self._threads: tuple[int, ThreadPoolExecutor] | None = None
        analytics.wrapped()

    # Not `async def`: the host's own coroutine is handed on, which costs one frame less on every
    # request. The mark tells uvicorn and asgiref that this is ASGI 3 all the same.
    @markcoroutinefunction
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        path = scope.get("path")
        if scope.get("root_path") and path is not None:
            path = _below(scope["root_path"], path)
        # `in` is the cheapest look-up there is, and all that most requests pay.
        if path in self._routes:
            if scope["type"] == "http":
                return self._serve(self._routes[path], scope, receive, send)
        elif path is None and scope["type"] == "lifespan":
            return self.app(scope, receive, self._lifespan_send(send))
        return self.app(scope, receive, send)

    async def _serve(self, route: Route, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            answer = await self._answer(route, scope, receive)
        except ClientDisconnected:
            return
        body = b"" if scope["method"] == "HEAD" else answer.body
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": answer.status,
                    "headers": _headers(answer),
                }
            )
            await send({"type": "http.response.body", "body": body})
        except OSError:
            # ASGI's word for a client that has gone; what was accepted stays accepted.
            return

    async def _answer(self, route: Route, scope: Scope, receive: Receive) -> Answer:
        try:
            return await self._driven(route(_request(scope)), scope, receive)
        except ClientDisconnected:
            raise
        except Exception as error:
            return fallen(error)

    async def _driven(self, steps: Steps, scope: Scope, receive: Receive) -> Answer:
        """Give the endpoint what it needs until it answers."""
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
            case NeedRate(key):
                rates = self._analytics.rates
                if rates.blocking:
                    return await self._in_thread(_STORE_TIMEOUT, rates.wait, key)
                return rates.wait(key)
            case NeedBody(limit):
                return await _read_body(scope, receive, limit, self._body_timeout)
            case NeedChoice(user_key):
                preferences = self._analytics.preferences
                if preferences.blocking:
                    return await self._in_thread(_CHOICE_TIMEOUT, preferences.get, user_key)
                return preferences.get(user_key)
            case Put(payloads):
                outbox = self._analytics.outbox
                if outbox.blocking:
                    kept = asyncio.wrap_future(outbox.submit(payloads))
                    return await asyncio.wait_for(kept, _STORE_TIMEOUT)
                return outbox.put(payloads)
            case SaveChoice(user_key, choice):
                preferences = self._analytics.preferences
                if preferences.blocking:
                    return await self._in_thread(_STORE_TIMEOUT, preferences.put, user_key, choice)
                return preferences.put(user_key, choice)

    async def _in_thread(self, timeout: float, ask: Callable[..., Any], *values: object) -> Any:
        """Ask a store that does I/O; one that takes longer than `timeout` seconds has failed."""
        if self._threads is None or self._threads[0] != os.getpid():
            # A forked child has none of its parent's threads.
            pool = ThreadPoolExecutor(_STORE_THREADS, thread_name_prefix="second_mw-store")
            self._threads = (os.getpid(), pool)
        asked = asyncio.get_running_loop().run_in_executor(self._threads[1], ask, *values)
        return await asyncio.wait_for(asked, timeout)

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
    raw = scope["headers"]
    headers: dict[bytes, bytes] = dict(raw)
    if len(headers) != len(raw):
        headers = _joined(raw)

    def header(name: str) -> str | None:
        value = headers.get(name.encode())
        return None if value is None else value.decode("latin-1")

    host = header("host")
    if host is None:
        name, port = scope.get("server") or ("localhost", None)
        host = name if port is None else f"{name}:{port}"
    client = scope.get("client")
    return Request(
        scope["method"],
        header,
        scope.get("scheme", "http"),
        host,
        scope.get("query_string", b"").decode("latin-1"),
        client[0] if client else None,
    )


def _joined(raw: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return headers of which some were sent twice: as one list, as WSGI servers join it."""
    headers: dict[bytes, bytes] = {}
    for name, value in raw:
        headers[name] = headers[name] + b", " + value if name in headers else value
    return headers


async def _read_body(scope: Scope, receive: Receive, limit: int, timeout: float) -> bytes:
    """Return the body, read no further than the limit whatever Content-Length says.

    Args:
        timeout: seconds after which a body that trickles in is given up.

    Raises:
        Refused: `payload_too_large`; `invalid_payload` for one that did not arrive in time.
        ClientDisconnected: there is nobody left to answer.
    """
    if _declared_length(scope) > limit:
        raise Refused("payload_too_large")
    try:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
    except RuntimeError:
        # Another event loop than asyncio's: its server has to watch slow clients itself.
        return await _received(receive, limit)
    if task is None:
        return await _received(receive, limit)
    deadline = _Deadline(task)
    timer = loop.call_later(timeout, deadline.end)
    try:
        return await _received(receive, limit)
    except asyncio.CancelledError:
        if not deadline.was_cause():
            raise
        raise Refused("invalid_payload", counted="slow_bodies") from None
    finally:
        timer.cancel()


async def _received(receive: Receive, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise Refused("payload_too_large")
        if not message.get("more_body", False):
            return b"".join([*parts, part]) if parts else part
        # One list of empty parts can grow without the body growing.
        if part:
            parts.append(part)


class _Deadline:
    """Ends a task's waiting; what `asyncio.timeout` does, which Python 3.10 has not."""

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task
        self._has_ended = False

    def end(self) -> None:
        self._has_ended = True
        self._task.cancel()

    def was_cause(self) -> bool:
        """Whether it was this deadline that cancelled the task, and nobody else besides."""
        if not self._has_ended:
            return False
        uncancel = getattr(self._task, "uncancel", None)
        return uncancel is None or uncancel() <= 0


def _declared_length(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length":
            # More digits than any size has must not become a number.
            return int(value[:19]) if value.isdigit() else 0
    return 0


_COMMON_RAW: Final = [(name.lower().encode(), value.encode()) for name, value in COMMON_HEADERS]


def _headers(answer: Answer) -> list[tuple[bytes, bytes]]:
    if answer.headers is COMMON_HEADERS:
        headers = [*_COMMON_RAW]
    else:
        headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in answer.headers
        ]
    if answer.status not in (204, 304):
        headers.append((b"content-length", str(len(answer.body)).encode()))
    return headers
