"""A client that costs little beside what it asks: bytes out, a status back, seconds between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple


class Load(NamedTuple):
    """What one run of requests took."""

    rate: float
    p50: float
    p99: float
    good: int


class _Connection(asyncio.Protocol):
    def __init__(self, requests: Iterator[bytes], waits: list[float], done: Callable[[], None]):
        self._requests = requests
        self._waits = waits
        self._done = done
        self._buffer = b""
        self.good = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._next()

    def _next(self) -> None:
        request = next(self._requests, None)
        if request is None:
            self._transport.close()
            return
        self._began = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, body = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return
        if b" 204 " not in head[:16]:
            _, _, length = head.lower().partition(b"content-length:")
            if len(body) < int(length.partition(b"\r\n")[0] or 0):
                return
        self._waits.append(time.perf_counter() - self._began)
        self.good += head[9:12] in (b"200", b"204")
        self._buffer = b""
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        self._done()


async def _run(port: int, requests: Iterator[bytes], connections: int) -> Load:
    waits: list[float] = []
    loop = asyncio.get_running_loop()
    left, over = connections, loop.create_future()

    def done() -> None:
        nonlocal left
        left -= 1
        if not left:
            over.set_result(None)

    began = time.perf_counter()
    made = [
        (
            await loop.create_connection(
                lambda: _Connection(requests, waits, done), "127.0.0.1", port
            )
        )
        for _ in range(connections)
    ]
    await over
    took = time.perf_counter() - began
    waits.sort()
    good = sum(opened.good for _, opened in made)
    return Load(good / took, waits[len(waits) // 2], waits[int(len(waits) * 0.99)], good)


def load(port: int, requests: Iterator[bytes], connections: int = 16) -> Load:
    """Send all requests over some connections kept alive; return what that took."""
    return asyncio.run(_run(port, requests, connections))


def post(port: int, body: bytes, user: int) -> bytes:
    """Return one POST of a body, as a browser sends it."""
    return (
        f"POST /api/analytics/capture HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        f"Origin: http://127.0.0.1:{port}\r\nSec-Fetch-Site: same-origin\r\n"
        "Accept: */*\r\nAccept-Encoding: gzip, deflate, br\r\nAccept-Language: en\r\n"
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64) Chrome/130 Safari/537.36\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nX-User: {user}\r\n\r\n"
    ).encode() + body
