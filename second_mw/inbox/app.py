"""The inbox over HTTP: PostHog's paths, the receipts' side channel, and the page that shows both.

`strict.py` judges, `store.py` keeps, `view.py` words, `guard.py` says who may ask; here is only
what a request is and what goes back. A tool for one developer's machine or one test: werkzeug's
own threaded server, a thread a connection.
"""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import threading
from collections.abc import Callable, Collection, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from werkzeug.exceptions import HTTPException
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from second_mw.inbox import strict
from second_mw.inbox.guard import Guard
from second_mw.inbox.store import MAX_BYTES, MAX_EVENTS, MAX_EXCERPT, Asked, Counts, Row, Store
from second_mw.inbox.view import shown
from second_mw.payload import rfc3339

logger: logging.Logger = logging.getLogger("second_mw.inbox")

PORT: Final = 8765
LOOPBACK: Final = "127.0.0.1"
PAGE: Final = Path(__file__).parent / "page"
#: Seconds an answer is held back in the failure mode `slow`: longer than the forwarder reads.
SLOW: Final = 20.0
#: Pages that may watch at once: each holds a thread.
MAX_STREAMS: Final = 16
#: Entries of one message, and seconds after which an idle stream says that it lives.
STREAM_ROWS: Final = 500
HEARTBEAT: Final = 10.0
#: Bytes of one post of receipts.
MAX_RECEIPTS: Final = 8 * 1024 * 1024

#: Event data is never markup: no script but ours, no inline anything, and no string becomes HTML.
CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_MEDIA: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class Failure(NamedTuple):
    """A way in which the inbox fails on purpose: what it does, and v0's and v1's refusal."""

    does: str
    v0: str = ""
    v1: str = ""


FAILURES: Final[dict[str, Failure]] = {
    "503": Failure(
        "answers 503: delivery waits and tries again", "transient", "service_unavailable"
    ),
    "400": Failure("refuses each batch: delivery halves it", "not_processable", "invalid_batch"),
    "slow": Failure("takes events, and answers too late: they come again"),
    "drop": Failure("closes the connection without an answer"),
}
_NO_ANSWER: Final = "the connection was closed on purpose"
_TOKEN: Final = re.compile(r'("(?:api_key|token)"\s*:\s*")([^"]*)')

_encode = msgspec.json.Encoder().encode
_Answering = Callable[[Request], Response]


class _Receipts(msgspec.Struct):
    receipts: list[dict[str, Any]]


class _Fail(msgspec.Struct):
    fail: str | None


class Inbox:
    """The WSGI app.

    Args:
        store: where everything is kept.
        guard: who may ask.
        url: the address that apps are pointed to.
        fail: a key of `FAILURES`, or None.
        slow: seconds that the failure mode `slow` takes.
    """

    def __init__(
        self,
        store: Store,
        guard: Guard,
        url: str,
        *,
        fail: str | None = None,
        slow: float = SLOW,
    ) -> None:
        self.store = store
        self._guard = guard
        self._url = url
        self._slow = slow
        self._fail: str | None = None
        self._protocols: set[str] = set()
        self._streams = 0
        self._closing = threading.Event()
        self._answers: dict[tuple[str, str], _Answering] = {
            ("GET", "/"): lambda _: _file("inbox.html"),
            ("GET", "/health"): lambda _: Response("ok\n", mimetype="text/plain"),
            ("GET", "/api/stream"): self._stream,
            ("GET", "/api/events"): lambda _: _json(_encode(self.store.events())),
            ("POST", "/api/clear"): self._clear,
            ("POST", "/api/fail"): self._set_fail,
            ("POST", "/receipts"): self._take_receipts,
        }
        self.fail = fail

    @property
    def fail(self) -> str | None:
        """The failure mode, a key of `FAILURES`, or None; may be set at any time."""
        return self._fail

    @fail.setter
    def fail(self, mode: str | None) -> None:
        if mode is not None:
            _check_mode(mode)
        with self.store.changed:
            self._fail = mode
            self.store.changed.notify_all()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        """Answer one request."""
        request = Request(environ)
        try:
            response = self._answer(request)
        except HTTPException as error:
            response = _text(error.description or error.name, error.code or 400)
        except ConnectionError:
            # The failure mode `drop`, or a client that went away. The server itself may keep the
            # connection for a next request.
            if (connection := environ.get("werkzeug.socket")) is not None:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            raise
        except Exception:
            logger.exception("the inbox could not answer %s", request.path)
            response = _text("The inbox could not answer. Its log says why.", 500)
        response.headers.extend(HEADERS)
        return response(environ, start_response)

    def _answer(self, request: Request) -> Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        objection = self._guard.objection(request.method, headers)
        if objection is not None:
            return _text(objection, 403)
        method = "GET" if request.method == "HEAD" else request.method
        answer = self._answers.get((method, request.path))
        if answer is not None:
            return answer(request)
        for start, look in (("/page/", self._page), ("/api/entries/", self._entry)):
            if method == "GET" and request.path.startswith(start):
                return look(request.path.removeprefix(start))
        return self._ingest(request)

    def close(self) -> None:
        """End what hangs: streams and slow answers."""
        self._closing.set()
        with self.store.changed:
            self.store.changed.notify_all()
        self.store.wait_for(lambda: not self._streams, 2.0)

    # As PostHog

    def _ingest(self, request: Request) -> Response:
        now = datetime.now(timezone.utc)
        body = request.stream.read(strict.MAX_BODY + 1)
        sent = dict(request.headers.items())
        reply = strict.answer(request.method, request.path, sent, body, now=now)
        if reply.request.protocol is None:
            # A stray request of a browser or a scanner is no batch.
            return _written(reply)
        self._protocols.add(reply.request.protocol.partition(" ")[0])
        mode = self._fail
        if mode == "drop":
            reply = strict.Reply(0, (), b"", reply.request, refused=_NO_ANSWER)
        elif mode in ("503", "400"):
            failure = FAILURES[mode]
            code = failure.v1 if reply.request.protocol == "v1" else failure.v0
            reply = strict.refuse(reply.request, code, "the inbox was told to fail")
        excerpt = _excerpt(body) if reply.refused is not None else None
        self.store.keep(reply, rfc3339(now), excerpt=excerpt)
        if mode == "drop":
            raise ConnectionAbortedError(_NO_ANSWER)
        if mode == "slow":
            self._closing.wait(self._slow)
        return _written(reply)

    def _take_receipts(self, request: Request) -> Response:
        body = request.stream.read(MAX_RECEIPTS + 1)
        if len(body) > MAX_RECEIPTS:
            return _text("Too many receipts at once.", 413)
        try:
            self.store.keep_receipts(msgspec.json.decode(body, type=_Receipts).receipts)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return _text("Expected JSON.", 400)
        except (AttributeError, KeyError, TypeError):
            return _text('Expected {"receipts": [receipt, …]}.', 400)
        return Response(status=204)

    # The page

    def _page(self, name: str) -> Response:
        known = {path.name for path in PAGE.iterdir()}
        return _file(name) if name in known else _text("Nothing here.", 404)

    def _entry(self, number: str) -> Response:
        # More digits than an id has are no id, and SQLite would not take them.
        opened = self.store.open(int(number)) if re.fullmatch("[0-9]{1,18}", number) else None
        return _json(shown(opened)) if opened is not None else _text("It is gone.", 404)

    def _clear(self, request: Request) -> Response:
        if not request.is_json:
            return _text("Expected JSON.", 415)
        self.store.clear()
        return Response(status=204)

    def _set_fail(self, request: Request) -> Response:
        if not request.is_json:
            return _text("Expected JSON.", 415)
        try:
            self.fail = msgspec.json.decode(request.stream.read(1_000), type=_Fail).fail
        except (msgspec.DecodeError, ValueError) as error:
            return _text(str(error), 400)
        return Response(status=204)

    def _stream(self, request: Request) -> Response:
        with self.store.changed:
            if self._streams >= MAX_STREAMS:
                return _text("Too many pages watch already.", 503)
            self._streams += 1
        epoch, _, version = request.headers.get("Last-Event-ID", "").partition(".")
        since = int(version) if re.fullmatch("[0-9]{1,18}", version) else None
        response = Response(
            self._messages(epoch, since) if request.method == "GET" else (),
            mimetype="text/event-stream",
        )
        response.call_on_close(self._stream_ended)
        return response

    def _stream_ended(self) -> None:
        with self.store.changed:
            self._streams -= 1
            self.store.changed.notify_all()

    def _messages(self, epoch: str, since: int | None) -> Iterator[bytes]:
        """Every entry that changed after `since`, for ever; all of them if that is not known."""
        store = self.store
        told: dict[str, Any] = {}
        if since is None or epoch != store.epoch or since > store.version:
            epoch, since = "", 0
        while not self._closing.is_set():
            with store.changed:
                is_new = epoch != store.epoch
                if is_new:
                    epoch, since = store.epoch, 0
                rows = store.since(since, STREAM_ROWS)
                state = self._state()
            if is_new:
                yield _message("reset", {}, f"{epoch}.0")
            if rows:
                since = rows[-1].version
                yield _message("rows", rows, f"{epoch}.{since}")
            if state != told:
                told = state
                yield _message("state", state)
            if len(rows) < STREAM_ROWS and not self._has_news(epoch, since, state):
                yield b": still here\n\n"

    def _has_news(self, epoch: str, since: int, state: dict[str, Any]) -> bool:
        """Wait for a change; False if there was none for a while."""
        # What comes in a burst goes out together.
        self._closing.wait(0.05)

        def has_news() -> bool:
            store = self.store
            return (
                self._closing.is_set()
                or store.version > since
                or store.epoch != epoch
                or self._fail != state["fail"]
            )

        return self.store.wait_for(has_news, HEARTBEAT)

    def _state(self) -> dict[str, Any]:
        return {
            "url": self._url,
            "open_to_network": self._guard.open_to_network,
            "fail": self._fail,
            "failures": {mode: failure.does for mode, failure in FAILURES.items()},
            "protocols": sorted(self._protocols),
            **msgspec.structs.asdict(self.store.counts()),
        }


def _check_mode(mode: str) -> None:
    if mode not in FAILURES:
        raise ValueError(f"no failure mode {mode!r}; there are {', '.join(FAILURES)}")


def _message(kind: str, data: Any, number: str | None = None) -> bytes:
    head = f"id: {number}\n" if number is not None else ""
    return f"{head}event: {kind}\ndata: {_encode(data).decode()}\n\n".encode()


def _excerpt(body: bytes) -> str:
    """Return the beginning of a body as text, its token masked."""
    try:
        text = strict.inflate(body, "gzip") if body.startswith(b"\x1f\x8b") else body
    except ValueError:
        text = None
    readable = (text or b"")[: 4 * MAX_EXCERPT].decode("utf-8", "replace")[:MAX_EXCERPT]
    return _TOKEN.sub(lambda found: found[1] + (strict.masked(found[2]) or ""), readable)


def _written(reply: strict.Reply) -> Response:
    response = Response(reply.body, status=reply.status)
    for name, value in reply.headers:
        response.headers[name] = value
    return response


def _text(sentence: str, status: int) -> Response:
    return Response(f"{sentence}\n", status=status, mimetype="text/plain")


def _json(text: bytes) -> Response:
    return Response(text, mimetype="application/json")


def _file(name: str) -> Response:
    path = PAGE / name
    return Response(path.read_bytes(), content_type=_MEDIA[path.suffix])


class _Handler(WSGIRequestHandler):
    """One connection, one request, no line in a log for each."""

    server_version = "second_mw"
    sys_version = ""
    #: Seconds that a client may take between two bytes.
    timeout = 60

    def log(self, type: str, message: str, *args: Any) -> None:
        logger.debug(message, *args)


class InboxServer:
    """A running inbox: for `second-mw inbox`, for the demos, and as PostHog in a test.

    Args:
        port: 0 takes any free one.
        bind: the address to listen on; anything but loopback lets others read what it shows.
        db: a file that keeps what arrived over a restart; None keeps it in memory.
        max_events, max_bytes: what is kept at most; the oldest events go first.
        fail: a key of `FAILURES`: fail on purpose.
        slow: seconds that the failure mode `slow` takes.
        allow_hosts: further host names under which it may be asked for.
        listening: a socket that listens already, instead of `port` and `bind`.

    Raises:
        OSError: the port is taken, or the address is not this machine's.
        StoreUnusable: `db` can't be used.

    >>> with InboxServer(port=0) as inbox:
    ...     inbox.events()
    []
    """

    def __init__(
        self,
        port: int = PORT,
        *,
        bind: str = LOOPBACK,
        db: str | Path | None = None,
        max_events: int = MAX_EVENTS,
        max_bytes: int = MAX_BYTES,
        fail: str | None = None,
        slow: float = SLOW,
        allow_hosts: Collection[str] = (),
        listening: socket.socket | None = None,
    ) -> None:
        if fail is not None:
            _check_mode(fail)
        family = socket.AF_INET6 if ":" in bind else socket.AF_INET
        bound = listening or socket.create_server((bind, port), family=family, backlog=128)
        address, number = bound.getsockname()[:2]
        guard = Guard(address, allow_hosts)
        self.port: int = number
        self.url: str = f"http://{_reachable(address)}:{number}"
        #: Whether others than this machine can reach it.
        self.is_open: bool = guard.open_to_network
        try:
            self._store = Store(
                Path(db) if db is not None else None, max_events=max_events, max_bytes=max_bytes
            )
            self._inbox = Inbox(self._store, guard, self.url, fail=fail, slow=slow)
            # The server takes a copy of the socket.
            self._server = make_server(
                address,
                number,
                self._inbox,
                threaded=True,
                request_handler=_Handler,
                fd=bound.fileno(),
            )
        finally:
            bound.close()
        self._closed = False
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="second_mw inbox", daemon=True
        )
        self._thread.start()

    def __enter__(self) -> InboxServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End every answer that hangs, and the server; a second time does nothing."""
        if self._closed:
            return
        self._closed = True
        self._inbox.close()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._store.close()

    @property
    def fail(self) -> str | None:
        """The failure mode, a key of `FAILURES`, or None; may be set at any time."""
        return self._inbox.fail

    @fail.setter
    def fail(self, mode: str | None) -> None:
        self._inbox.fail = mode

    def events(self) -> list[dict[str, Any]]:
        """Return every stored event whole, each once, in the order in which they came."""
        return self._store.events()

    def requests(self) -> list[Asked]:
        """Return every request with the answer that it was given, in order."""
        return self._store.requests()

    def receipts(self) -> list[dict[str, Any]]:
        """Return every receipt, in order."""
        return self._store.receipts()

    def rows(self) -> list[Row]:
        """Return every entry as the page's list has it, in the order of their last change."""
        return self._store.since(0, 1_000_000)

    def counts(self) -> Counts:
        """Return how much is kept."""
        return self._store.counts()

    def clear(self) -> None:
        """Forget everything."""
        self._store.clear()

    def wait_for(self, condition: Callable[[], object], timeout: float = 30.0) -> bool:
        """Wait until a condition holds, looked at after each change; say whether it does.

        Args:
            condition: such as `lambda: len(inbox.events()) == 19`.
            timeout: seconds.
        """
        return self._store.wait_for(condition, timeout)


def _reachable(address: str) -> str:
    """Return the address under which this machine itself reaches what listens on `address`."""
    here = {"0.0.0.0": LOOPBACK, "::": "::1"}.get(address, address)  # noqa: S104 - read, not bound
    return f"[{here}]" if ":" in here else here
