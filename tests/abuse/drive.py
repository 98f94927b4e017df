"""One request, told in WSGI's words and in ASGI's: method, path, headers, and the body in parts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from second_mw import Analytics
from tests.hosts import ADA, Reply, asgi_host, wsgi_host

CAPTURE, PREFERENCES, IDENTIFY = (
    f"/api/analytics/{name}" for name in ("capture", "preferences", "identify")
)
EVENT = b'{"event":"page viewed"}'
JSON = (("content-type", "application/json"),)


@dataclass(frozen=True)
class Told:
    """A request.

    Args:
        headers: names in lower case; Content-Length apart.
        parts: the body, as it arrives.
        length: the Content-Length: `right` for the true one, None for none (the server then ends
            the body, as with chunks), else what is sent whether it is true or not.
        host, scheme, peer: as the server sees them.
    """

    method: str = "POST"
    path: str = CAPTURE
    headers: Sequence[tuple[str, str]] = JSON
    parts: Sequence[bytes] = (EVENT,)
    length: str | None = "right"
    host: str = "app.example"
    scheme: str = "https"
    peer: str | None = "192.0.2.7"

    def but(self, **changed: Any) -> Told:
        """The same request but for these headers; None leaves one out."""
        names = {name.replace("_", "-"): value for name, value in changed.items()}
        kept = [(name, value) for name, value in self.headers if name not in names]
        added = [(name, value) for name, value in names.items() if value is not None]
        return replace(self, headers=(*kept, *added))

    @property
    def body(self) -> bytes:
        return b"".join(self.parts)

    @property
    def content_length(self) -> str | None:
        return str(len(self.body)) if self.length == "right" else self.length


class Stream:
    """A body that comes in parts; a read returns no more than one of them."""

    def __init__(self, parts: Sequence[bytes], limit: int | None) -> None:
        self._parts = [part for part in parts if part]
        #: How many bytes may be read; one more would block for ever.
        self._limit = limit

    def read(self, size: int = -1) -> bytes:
        if self._limit is not None:
            assert 0 <= size <= self._limit, "reading past Content-Length blocks for ever"
        if not self._parts:
            return b""
        part = self._parts.pop(0)
        if 0 <= size < len(part):
            self._parts.insert(0, part[size:])
            part = part[:size]
        if self._limit is not None:
            self._limit -= len(part)
        return part


def environ_of(told: Told) -> dict[str, Any]:
    environ: dict[str, Any] = {
        "REQUEST_METHOD": told.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": told.path.partition("?")[0],
        "QUERY_STRING": told.path.partition("?")[2],
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "HTTP_HOST": told.host,
        "wsgi.url_scheme": told.scheme,
    }
    if told.peer is not None:
        environ["REMOTE_ADDR"] = told.peer
    for name, value in told.headers:
        key = name.upper().replace("-", "_")
        key = key if key == "CONTENT_TYPE" else f"HTTP_{key}"
        environ[key] = f"{environ[key]}, {value}" if key in environ else value
    length = told.content_length
    limit = None
    if length is None:
        environ["wsgi.input_terminated"] = True
    else:
        environ["CONTENT_LENGTH"] = length
        # Of a length that is none, or none that fits in memory, nothing may be read.
        is_one = length.isascii() and length.isdigit() and len(length) < 19
        limit = int(length) if is_one else 0
    environ["wsgi.input"] = Stream(told.parts, limit)
    return environ


def scope_of(told: Told) -> dict[str, Any]:
    headers = [("host", told.host), *told.headers]
    if told.content_length is not None:
        headers.append(("content-length", told.content_length))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": told.method,
        "scheme": told.scheme,
        "path": told.path.partition("?")[0],
        "query_string": told.path.partition("?")[2].encode("latin-1"),
        "root_path": "",
        "server": ("127.0.0.1", 8000),
        "client": None if told.peer is None else (told.peer, 4711),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
    }


def by_wsgi(analytics: Analytics, told: Told, user: Any = lambda _: ADA) -> Reply:
    """Ask a wrapped WSGI host."""
    return wsgi_reply(analytics.wsgi(wsgi_host, user=user), told)


def wsgi_reply(wrapped: Any, told: Told) -> Reply:
    started: list[Any] = []
    body = b"".join(wrapped(environ_of(told), lambda *args: started.append(args)))
    ((status, headers),) = started
    return Reply(int(status[:3]), {name.lower(): value for name, value in headers}, body)


def by_asgi(analytics: Analytics, told: Told, user: Any = lambda _: ADA) -> Reply:
    """Ask a wrapped ASGI host."""
    wrapped = analytics.asgi(asgi_host, user=user, user_blocks=False)
    return asyncio.run(asgi_reply(wrapped, told))


async def asgi_reply(wrapped: Any, told: Told) -> Reply:
    parts = list(told.parts) or [b""]
    messages = [
        {"type": "http.request", "body": part, "more_body": i + 1 < len(parts)}
        for i, part in enumerate(parts)
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await wrapped(scope_of(told), receive, send)
    start, *bodies = sent
    headers = {name.decode(): value.decode("latin-1") for name, value in start["headers"]}
    return Reply(start["status"], headers, b"".join(part.get("body", b"") for part in bodies))


BOTH = {"wsgi": by_wsgi, "asgi": by_asgi}


@dataclass
class Attack:
    """One row of a table: what is sent, and what it is answered."""

    name: str
    told: Told
    status: int
    code: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


def event(**fields: Any) -> tuple[bytes, ...]:
    """The parts of a body with one event."""
    return (json.dumps({"event": "page viewed", **fields}).encode(),)


def check(attack: Attack, ask: Any, analytics: Analytics) -> None:
    """Send it; nothing is queued unless the answer says so, and the answer tells nothing."""
    reply = ask(analytics, attack.told)
    code = reply.code if reply.status >= 400 else None
    assert (reply.status, code) == (attack.status, attack.code)
    assert analytics.stats()["accepted"] == (1 if attack.status == 204 else 0)
    told = f"{reply.headers} {reply.body!r}"
    for secret in (ADA.id, ADA.email, "phc_test", "w_engine", "Traceback", "second_mw", "Python"):
        assert secret is not None
        assert secret not in told
