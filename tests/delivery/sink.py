"""A scripted PostHog look-alike on 127.0.0.1: records what it gets, answers from a script.

Not strict: it says what a test tells it to. A step of the script is called with the recorded
request and returns a `Reply`, or a `Wire` for what is no proper HTTP answer. When the script is
used up, every request is answered as PostHog would on a good day.
"""

from __future__ import annotations

import gzip
import json
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Recorded(NamedTuple):
    """One request as it arrived; header names are lower-case."""

    path: str
    headers: dict[str, str]
    raw: bytes

    @property
    def json(self) -> Any:
        packed = self.headers.get("content-encoding") == "gzip"
        return json.loads(gzip.decompress(self.raw) if packed else self.raw)

    @property
    def batch(self) -> list[dict[str, Any]]:
        return list(self.json["batch"])

    @property
    def uuids(self) -> list[str]:
        return [event["uuid"] for event in self.batch]


class Reply(NamedTuple):
    status: int
    body: bytes = b"{}"
    headers: tuple[tuple[str, str], ...] = ()


class Wire(NamedTuple):
    """Bytes put on the wire as they are, whereupon the connection is closed."""

    data: bytes


Step = Callable[[Recorded], Reply | Wire]


def status(code: int, *, body: bytes = b"{}", **headers: str) -> Step:
    """Answer with a status; `retry_after="1"` becomes `Retry-After: 1`."""
    named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return lambda _: Reply(code, body, named)


def fine(request: Recorded) -> Reply:
    """Answer as PostHog does when it takes everything."""
    if request.path.startswith("/i/v1/"):
        return results(dict.fromkeys(request.uuids, "ok"))(request)
    return Reply(200, b'{"status":1}')


def results(words: dict[str, str], **headers: str) -> Step:
    """Answer as v1 does: uuid → result."""
    document = {"results": {uuid: {"result": word} for uuid, word in words.items()}}
    return status(200, body=json.dumps(document).encode(), **headers)


class Sink:
    """The server: `url`, what it `requests` got, and how it answers.

    `answer` replaces the script: it is called for every request.
    """

    def __init__(self, *script: Step) -> None:
        self.requests: list[Recorded] = []
        self.script = deque(script)
        self.answer: Step | None = None
        self.changed = threading.Condition()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.sink = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def delivered(self) -> list[str]:
        """Every uuid that arrived, over all requests."""
        return [uuid for request in self.requests for uuid in request.uuids]

    def take(self, request: Recorded) -> Reply | Wire:
        with self.changed:
            self.requests.append(request)
            step = self.answer or (self.script.popleft() if self.script else fine)
            self.changed.notify_all()
        return step(request)

    def wait_for(self, condition: Callable[[], bool], timeout: float = 20.0) -> None:
        """Wait until the condition holds; looked at after every request, and now and then."""
        with self.changed:
            if not self.changed.wait_for(condition, timeout):
                raise AssertionError(f"not so after {len(self.requests)} requests")

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    sink: Sink

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is what some tests are about, and no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet: else each answer waits for a delayed ACK
    server: _Server

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        headers = {name.lower(): value for name, value in self.headers.items()}
        reply = self.server.sink.take(Recorded(self.path, headers, raw))
        if isinstance(reply, Wire):
            self.wfile.write(reply.data)
            self.close_connection = True
            return
        self.send_response(reply.status)
        for name, value in reply.headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def running(*script: Step) -> Iterator[Sink]:
    """Run a sink for as long as the block lasts."""
    sink = Sink(*script)
    try:
        yield sink
    finally:
        sink.close()


@contextmanager
def black_hole() -> Iterator[str]:
    """Yield the URL of a port that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def closed_port() -> str:
    """Return a URL at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"
