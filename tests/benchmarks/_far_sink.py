"""A PostHog that is as cheap as Python allows, in a process of its own: `python -m … [delay]`.

Prints its port. It keeps bodies as they came and counts their events when `/stats` is asked for,
after the run, so that counting takes nothing from what is measured.
"""

from __future__ import annotations

import gzip
import json
import socket
import sys
import threading
import time
from typing import Any, ClassVar

_ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{"status":1}'


class _Seen:
    bodies: ClassVar[list[bytes]] = []
    moments: ClassVar[list[float]] = []


def _serve(connection: socket.socket, delay: float) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    reader = connection.makefile("rb", buffering=1 << 20)
    while line := reader.readline():
        length = 0
        while (header := reader.readline()) not in (b"\r\n", b""):
            if header.lower().startswith(b"content-length:"):
                length = int(header.split(b":")[1])
        body = reader.read(length)
        if line.split()[1] == b"/stats":
            text = json.dumps(_stats()).encode()
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text) + text)
            continue
        if delay:
            time.sleep(delay)
        _Seen.bodies.append(body)
        _Seen.moments.append(time.time())
        connection.sendall(_ANSWER)


def _stats() -> dict[str, Any]:
    """Return what came since the last time, and forget it."""
    bodies, moments = _Seen.bodies, _Seen.moments
    _Seen.bodies, _Seen.moments = [], []
    plain = [gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body for body in bodies]
    return {
        "requests": len(bodies),
        "events": sum(body.count(b'"distinct_id":') for body in plain),
        "bytes": sum(map(len, plain)),
        "first": min(moments, default=0.0),
        "last": max(moments, default=0.0),
    }


def main() -> None:
    delay = float(sys.argv[1]) if len(sys.argv) > 1 else 0.0
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        print(server.getsockname()[1], flush=True)
        while True:
            connection, _ = server.accept()
            threading.Thread(target=_serve, args=(connection, delay), daemon=True).start()


if __name__ == "__main__":
    main()
