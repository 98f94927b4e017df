"""The line between a browser and a host, and what can go wrong on it.

`Line` takes each request of the browser to the host and the answer back, whole and unchanged, and
writes down what went over it. A test can cut it, have requests to a path wait on it, or have their
answers lost. It answers nothing by itself.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, NamedTuple, TypeVar
from urllib.parse import urlsplit

from tests.browser.demo import PATIENCE

T = TypeVar("T")

#: What concerns one connection, so that each side has its own.
HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})

Trouble = Literal["held", "lost"]


class Answer(NamedTuple):
    """What the host answered."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str:
        """Return a header's value, empty if there is none."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), "")


class Exchange(NamedTuple):
    """One request that the host has answered, whether or not the answer reached the browser."""

    method: str
    path: str
    referer: str
    body: bytes
    answer: Answer


class Line:
    """A line to one host.

    Args:
        host: the host's address.

    Attributes:
        url: the address under which the browser reaches the host over this line.
        added: headers that every request gets on its way.
        exchanges: what went over it, in the order of the answers.
        waiting: bodies of the requests that are held now, or whose answers were lost.
    """

    def __init__(self, host: str) -> None:
        self.added: dict[str, str] = {}
        self.exchanges: list[Exchange] = []
        self.waiting: list[bytes] = []
        self._host = urlsplit(host).netloc
        self._troubles: dict[str, Trouble] = {}
        self._is_cut = False
        self._closed = False
        self._changed = threading.Condition()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    # Troubles

    def cut(self) -> None:
        """Carry nothing more; what is under way is lost."""
        self._is_cut = True

    def hold(self, path: str) -> None:
        """Have requests whose path ends in this wait before the host hears of them."""
        self._trouble(path, "held")

    def lose(self, path: str) -> None:
        """Have the host hear of requests whose path ends in this, and the browser no answer."""
        self._trouble(path, "lost")

    def mend(self) -> None:
        """End every trouble: what waits goes on, answers that were lost stay so."""
        with self._changed:
            self._is_cut = False
            self._troubles.clear()
            self.waiting.clear()
            self._changed.notify_all()

    def _trouble(self, path: str, trouble: Trouble) -> None:
        with self._changed:
            self._troubles[path] = trouble

    # What went over it

    def answers(self, path: str, method: str = "POST") -> list[Exchange]:
        """Return what was asked of a path, by its end, and answered."""
        with self._changed:
            return [
                each
                for each in self.exchanges
                if each.method == method and each.path.endswith(path)
            ]

    def until(self, look: Callable[[], T]) -> T:
        """Wait until something is so, and return what `look` returned then."""
        with self._changed:
            found = self._changed.wait_for(look, PATIENCE)
        assert found, f"never came true; {len(self.exchanges)} answers, {len(self.waiting)} wait"
        return found

    # What the handler calls

    def carry(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer | None:
        """Return the host's answer, None if none may reach the browser."""
        trouble = next((how for end, how in self._troubles.items() if path.endswith(end)), None)
        if self._is_cut or (trouble == "held" and not self._wait(body)):
            return None
        answer = self._ask(method, path, headers | self.added, body)
        with self._changed:
            referer = headers.get("Referer", "")
            self.exchanges.append(Exchange(method, path, referer, body, answer))
            self._changed.notify_all()
        if trouble == "lost":
            self._wait(body)
            return None
        return None if self._is_cut else answer

    def _wait(self, body: bytes) -> bool:
        """Wait until it is mended; say whether it was, or the line is closed."""
        with self._changed:
            self.waiting.append(body)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._closed or not self._troubles)
            return not self._closed

    def _ask(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        connection = http.client.HTTPConnection(self._host, timeout=PATIENCE)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                if name.lower() not in HOP_BY_HOP:
                    connection.putheader(name, value)
            if body or method != "GET":
                connection.putheader("Content-Length", str(len(body)))
            connection.putheader("Connection", "close")
            connection.endheaders(body or None)
            answer = connection.getresponse()
            return Answer(answer.status, answer.getheaders(), answer.read())
        finally:
            connection.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    #: A browser opens many at once; one that finds no room is tried again seconds later.
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a browser ends its connections as it likes."""


def _handler(line: Line) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Say nothing: a test's output is its own."""

        def carry(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer = line.carry(self.command, self.path, dict(self.headers.items()), body)
            if answer is None:
                self.close_connection = True
                return
            self.send_response_only(answer.status)
            for name, value in answer.headers:
                if name.lower() not in HOP_BY_HOP:
                    self.send_header(name, value)
            if answer.status not in (204, 304):
                self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        do_GET = do_POST = do_PUT = carry

    return Handler
