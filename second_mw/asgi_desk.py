"""The ASGI adapter's desk: answers the requests that are ours, awaited. The endpoint decides.

Apart from `asgi`, because this and all that it needs is loaded with the first request of ours: a
host without events does not owe the memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final

import msgspec

from second_mw import asking
from second_mw.asking import Askers
from second_mw.endpoint import (
    ACCEPTED,
    READ_HEADERS,
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
    fallen,
)
from second_mw.errors import ClientDisconnected, Refused
from second_mw.payload import Payload
from second_mw.resolver import Resolver
from second_mw.wiring import OutboxDoor, Wiring

if TYPE_CHECKING:
    from second_mw.asgi import Receive, Scope, Send


class Desk:
    """Answers requests on our paths.

    Args:
        analytics: the `Analytics` that takes the events.
        resolver: says who asks.
    """

    def __init__(self, analytics: Wiring, resolver: Resolver) -> None:
        self._analytics = analytics
        self._resolver = resolver
        self._routes = analytics.endpoint.routes
        self._body_timeout = analytics.settings.body_timeout
        self._askers = Askers()
        self._deadlines: _Deadlines | None = None
        self._performers: dict[type[Need], Callable[[Any, _Call], Any]] = {
            NeedUser: self._user,
            NeedRate: self._rate,
            NeedBody: self._body,
            NeedChoice: self._choice,
            Put: self._put,
            SaveChoice: self._save,
        }

    async def serve(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request on one of our paths."""
        try:
            answer = await self._answer(self._routes[path], scope, receive)
        except ClientDisconnected:
            return
        try:
            # Fresh dictionaries and lists: middlewares further out may change them.
            await send(
                {
                    "type": "http.response.start",
                    "status": answer.status,
                    "headers": [*_ACCEPTED_RAW] if answer is ACCEPTED else _headers(answer),
                }
            )
            body = b"" if scope["method"] == "HEAD" else answer.body
            await send({"type": "http.response.body", "body": body})
        except OSError:
            # ASGI's word for a client that has gone; what was accepted stays accepted.
            return

    async def _answer(self, route: Route, scope: Scope, receive: Receive) -> Answer:
        """Give the endpoint what it needs until it answers."""
        performers = self._performers
        try:
            call = _Call(scope, receive, _headers_read(scope["headers"]))
            steps = route(_request(call))
            try:
                need = next(steps)
                while True:
                    try:
                        got = performers[need.__class__](need, call)
                        # What is at hand is not awaited: a coroutine for each need took 4 µs more.
                        if got.__class__ is CoroutineType:
                            got = await got
                    except Exception as error:
                        need = steps.throw(error)
                    else:
                        need = steps.send(got)
            except StopIteration as done:
                answer: Answer = done.value
                return answer
        except ClientDisconnected:
            raise
        except Exception as error:
            return fallen(error)

    # What the endpoint needs: the thing itself, or a coroutine that brings it

    def _user(self, need: NeedUser, call: _Call) -> Any:
        return self._resolver.begun(call.scope)

    def _rate(self, need: NeedRate, call: _Call) -> Any:
        rates = self._analytics.rates
        if rates.blocking:
            return self._askers.awaited(asking.STORE_TIMEOUT, rates.wait, need.key)
        return rates.wait(need.key)

    def _body(self, need: NeedBody, call: _Call) -> Any:
        return self._read_body(call, need.limit)

    def _choice(self, need: NeedChoice, call: _Call) -> Any:
        preferences = self._analytics.preferences
        if preferences.blocking:
            return self._askers.awaited(asking.CHOICE_TIMEOUT, preferences.get, need.user_key)
        return preferences.get(need.user_key)

    def _put(self, need: Put, call: _Call) -> Any:
        outbox = self._analytics.outbox
        if outbox.blocking:
            return _kept(outbox, need.payloads)
        return outbox.put(need.payloads)

    def _save(self, need: SaveChoice, call: _Call) -> Any:
        preferences, values = self._analytics.preferences, (need.user_key, need.choice)
        if preferences.blocking:
            return self._askers.awaited(asking.STORE_TIMEOUT, preferences.put, *values)
        return preferences.put(*values)

    async def _read_body(self, call: _Call, limit: int) -> bytes:
        """Return the body, read no further than the limit whatever Content-Length says.

        Raises:
            Refused: `payload_too_large`; `invalid_payload` for one that did not arrive in time.
            ClientDisconnected: there is nobody left to answer.
        """
        declared = call.headers.get("content-length")
        # More digits than any size has must not become a number.
        if declared is not None and declared.isdecimal() and int(declared[:19]) > limit:
            raise Refused("payload_too_large")
        deadlines = self._watching()
        task = None if deadlines is None else deadlines.begin()
        receive = call.receive
        parts: list[bytes] = []
        size = 0
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnected
                part: bytes = message.get("body", b"")
                size += len(part)
                if size > limit:
                    raise Refused("payload_too_large")
                # One list of empty parts can grow without the body growing.
                if part:
                    parts.append(part)
                if not message.get("more_body"):
                    break
        except asyncio.CancelledError:
            if deadlines is None or not deadlines.were_cause(task):
                raise
            raise Refused("invalid_payload", counted="slow_bodies") from None
        finally:
            if deadlines is not None:
                deadlines.end(task)
        if deadlines is not None:
            # The dear part comes now. What of the host is ready goes first: its p99 beside 500
            # captures a second is a seventh higher without this, and under load captures are no
            # slower for it.
            await asyncio.sleep(0)
        return b"".join(parts)

    def _watching(self) -> _Deadlines | None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            # Another event loop than asyncio's: its server has to watch slow clients itself.
            return None
        deadlines = self._deadlines
        if deadlines is None or deadlines.loop is not loop:
            deadlines = self._deadlines = _Deadlines(loop, self._body_timeout)
        return deadlines


class _Call(msgspec.Struct, frozen=True, gc=False):
    """One request to us: its scope, where its body comes from, and the headers that are read."""

    scope: Scope
    receive: Receive
    headers: dict[str, str]


def _request(call: _Call) -> Request:
    scope, headers = call.scope, call.headers
    host = headers.get("host")
    if host is None:
        name, port = scope.get("server") or ("localhost", None)
        host = name if port is None else f"{name}:{port}"
    client = scope.get("client")
    query = scope.get("query_string")
    return Request(
        scope["method"],
        headers.get,
        scope.get("scheme", "http"),
        host,
        query.decode("latin-1") if query else "",
        client[0] if client else None,
    )


_READ: Final = {name.encode(): name for name in (*READ_HEADERS, "host", "content-length")}


def _headers_read(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return the headers that anything reads; of one sent twice a list, as WSGI servers join it."""
    headers: dict[str, str] = {}
    for key, value in raw:
        name = _READ.get(key)
        if name is not None:
            text = value.decode("latin-1")
            headers[name] = f"{headers[name]}, {text}" if name in headers else text
    return headers


async def _kept(outbox: OutboxDoor, payloads: Sequence[Payload]) -> int:
    return await asyncio.wait_for(
        asyncio.wrap_future(outbox.submit(payloads)), asking.STORE_TIMEOUT
    )


class _Deadlines:
    """Ends the waiting for bodies that trickle in: one timer for all of a loop's requests.

    A timer for each (what `asyncio.timeout` does, which Python 3.10 has not) cost 15 µs a request.
    All have the same time, so who began first is over first, and a dict keeps that order.

    Args:
        loop: the event loop whose requests these are.
        timeout: seconds that a body may take.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout: float) -> None:
        self.loop = loop
        self._timeout = timeout
        self._waiting: dict[asyncio.Task[Any], float] = {}
        self._ended: set[asyncio.Task[Any]] = set()
        self._is_armed = False

    def begin(self) -> asyncio.Task[Any] | None:
        """Give the task that asks its time; return which one that is, None outside of any."""
        task = asyncio.current_task(self.loop)
        if task is not None:
            self._waiting[task] = self.loop.time() + self._timeout
            if not self._is_armed:
                self._arm(self._timeout)
        return task

    def end(self, task: asyncio.Task[Any] | None) -> None:
        """Hear that this task waits no more."""
        # What is not there any more was over, and was taken out.
        if task is not None and self._waiting.pop(task, None) is None:
            self._ended.discard(task)

    def were_cause(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether it was its deadline that cancelled this task, and nobody else besides."""
        if task is None or task not in self._ended:
            return False
        uncancel = getattr(task, "uncancel", None)
        return uncancel is None or uncancel() <= 0

    def _arm(self, seconds: float) -> None:
        self._is_armed = True
        self.loop.call_later(seconds, self._look)

    def _look(self) -> None:
        self._is_armed = False
        now = self.loop.time()
        while self._waiting:
            task, until = next(iter(self._waiting.items()))
            if until > now:
                self._arm(until - now)
                return
            del self._waiting[task]
            self._ended.add(task)
            task.cancel()


def _headers(answer: Answer) -> list[tuple[bytes, bytes]]:
    headers = [
        (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers
    ]
    if answer.status not in (204, 304):
        headers.append((b"content-length", str(len(answer.body)).encode()))
    return headers


_ACCEPTED_RAW: Final = _headers(ACCEPTED)
