"""The WSGI adapter's desk: answers the requests that are ours. Bytes in, bytes out; the endpoint
decides.

Apart from `wsgi`, because this and all that it needs is loaded with the first request of ours: a
host without events does not owe the memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from second_mw import asking
from second_mw.asking import Askers
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
    Steps,
    cut_short,
    fallen,
)
from second_mw.errors import ClientDisconnected, Refused
from second_mw.preferences.base import may_hang
from second_mw.resolver import Resolver
from second_mw.wiring import Wiring

if TYPE_CHECKING:
    from second_mw.wsgi import Environ, StartResponse


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
        self._askers = Askers()
        self._performers: dict[type[Need], Callable[[Any, Environ], Any]] = {
            NeedUser: self._user,
            NeedRate: self._rate,
            NeedBody: self._body,
            NeedChoice: self._choice,
            Put: self._put,
            SaveChoice: self._save,
        }

    def serve(self, path: str, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request on one of our paths."""
        answer = self._answer(self._routes[path], environ)
        start_response(_STATUS_LINES[answer.status], _headers(answer))
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else answer.body]

    def _answer(self, route: Route, environ: Environ) -> Answer:
        try:
            return self._driven(route(_request(environ)), environ)
        except ClientDisconnected:
            # Hardly anybody is left to read it, but a WSGI app has to answer something.
            return cut_short()
        except Exception as error:
            return fallen(error)

    def _driven(self, steps: Steps, environ: Environ) -> Answer:
        """Give the endpoint what it needs until it answers."""
        performers = self._performers
        try:
            need = next(steps)
            while True:
                try:
                    got = performers[need.__class__](need, environ)
                except Exception as error:
                    need = steps.throw(error)
                else:
                    need = steps.send(got)
        except StopIteration as done:
            answer: Answer = done.value
            return answer

    # What the endpoint needs

    def _user(self, need: NeedUser, environ: Environ) -> Any:
        return self._resolver.sync(environ)

    def _rate(self, need: NeedRate, environ: Environ) -> Any:
        return self._analytics.rates.wait(need.key)

    def _body(self, need: NeedBody, environ: Environ) -> Any:
        return _read_body(environ, need.limit)

    def _choice(self, need: NeedChoice, environ: Environ) -> Any:
        self._learn_of_processes(environ)
        preferences = self._analytics.preferences
        if may_hang(preferences):
            return self._askers.ask(asking.CHOICE_TIMEOUT, preferences.get, need.user_key)
        return preferences.get(need.user_key)

    def _put(self, need: Put, environ: Environ) -> Any:
        return self._analytics.outbox.put(need.payloads)

    def _save(self, need: SaveChoice, environ: Environ) -> Any:
        self._learn_of_processes(environ)
        preferences, values = self._analytics.preferences, (need.user_key, need.choice)
        if may_hang(preferences):
            return self._askers.ask(asking.STORE_TIMEOUT, preferences.put, *values)
        return preferences.put(*values)

    def _learn_of_processes(self, environ: Environ) -> None:
        if environ.get("wsgi.multiprocess"):
            self._analytics.preferences.not_alone()


class _Keys(dict[str, str]):
    """Header name → its key in environ; names come from our own code, so there are few."""

    def __missing__(self, name: str) -> str:
        self[name] = key = "HTTP_" + name.upper().replace("-", "_")
        return key


_KEYS: Final = _Keys({"content-type": "CONTENT_TYPE"})


def _request(environ: Environ) -> Request:
    def header(name: str) -> str | None:
        value = environ.get(_KEYS[name])
        # Servers write an absent type as an empty one.
        return value if value or name != "content-type" else None

    host = environ.get("HTTP_HOST") or f"{environ['SERVER_NAME']}:{environ['SERVER_PORT']}"
    return Request(
        environ["REQUEST_METHOD"],
        header,
        environ["wsgi.url_scheme"],
        host,
        environ.get("QUERY_STRING", ""),
        environ.get("REMOTE_ADDR"),
    )


def _read_body(environ: Environ, limit: int) -> bytes:
    """Return the body; never read past a Content-Length, never block without one (spec §4, 411).

    Where both Transfer-Encoding and Content-Length are sent, the length means nothing (RFC 9112,
    6.3): the body is what the server says it is, if it says where it ends.
    """
    length = environ.get("CONTENT_LENGTH", "")
    is_chunked = environ.get("HTTP_TRANSFER_ENCODING", "").strip().lower() == "chunked"
    if is_chunked or not (length.isascii() and length.isdigit()):
        if not environ.get("wsgi.input_terminated"):
            raise Refused("length_required")
        # One byte more than allowed tells a body that is too large from one that just fits.
        body = _read(environ["wsgi.input"], limit + 1)
        if len(body) > limit:
            raise Refused("payload_too_large")
        return body
    # A length of more digits than any size has must not become a number.
    if len(length) > 18 or int(length) > limit:
        raise Refused("payload_too_large")
    size = int(length)
    body = _read(environ["wsgi.input"], size)
    if len(body) < size:
        raise ClientDisconnected
    return body


def _read(stream: Any, size: int) -> bytes:
    """Return up to `size` bytes of a stream, fewer only at its end."""
    try:
        part: bytes = stream.read(size)
        if len(part) == size:
            return part
        parts = []
        while part:
            parts.append(part)
            size -= len(part)
            part = stream.read(size) if size else b""
    except Exception:
        # What a broken connection or a malformed chunk raises is each server's own.
        raise ClientDisconnected from None
    return b"".join(parts)


_STATUS_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}


def _headers(answer: Answer) -> list[tuple[str, str]]:
    """Return the headers in a list of their own, which middlewares further out may change."""
    if answer.status in (204, 304):
        return [*answer.headers]
    return [*answer.headers, ("Content-Length", str(len(answer.body)))]
