"""AnalyticsMiddleware for WSGI (PEP 3333): bytes in, bytes out. The endpoint decides.

A request that is not ours costs one look-up and passes with the very same environ and
start_response (spec §2).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any, TypeAlias

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

Environ: TypeAlias = dict[str, Any]
StartResponse: TypeAlias = Callable[..., Any]
WSGIApp: TypeAlias = Callable[[Environ, StartResponse], Iterable[bytes]]


class AnalyticsMiddleware:
    """Wraps a WSGI app.

    Args:
        app: the host.
        analytics: the `Analytics` that takes the events.
        user: the resolver, sync or async, given environ and nothing else; None reads
            `environ["second_mw.user"]`.
    """

    def __init__(self, app: WSGIApp, analytics: Wiring, user: UserCallable | None = None) -> None:
        self.app = app
        self._analytics = analytics
        self._resolver = Resolver(user)
        self._routes: Mapping[str, Route] = dict(analytics.endpoint.routes)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        route = self._routes.get(environ.get("PATH_INFO", ""))
        if route is None:
            return self.app(environ, start_response)
        answer = self._answer(route, environ)
        start_response(_status_line(answer.status), _headers(answer))
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else answer.body]

    def _answer(self, route: Route, environ: Environ) -> Answer:
        steps = route(_request(environ))
        try:
            need = next(steps)
            while True:
                try:
                    got = self._perform(need, environ)
                except Exception as error:
                    need = steps.throw(error)
                else:
                    need = steps.send(got)
        except StopIteration as done:
            answer: Answer = done.value
            return answer
        except ClientDisconnected:
            # Nobody is left to read it, but a WSGI app has to answer something.
            return Answer(400, [])

    def _perform(self, need: Need, environ: Environ) -> Any:
        match need:
            case NeedUser():
                return self._resolver.sync(environ)
            case NeedBody(limit):
                return _read_body(environ, limit)
            case NeedChoice(user_key):
                self._learn_of_processes(environ)
                return self._choice(user_key)
            case SaveChoice(user_key, choice):
                self._learn_of_processes(environ)
                return self._analytics.preferences.put(user_key, choice)
            case Put(payloads):
                return self._analytics.outbox.put(payloads)
            case NeedRate():
                return None

    def _choice(self, user_key: str) -> Any:
        try:
            return self._analytics.preferences.get(user_key)
        except PreferencesUnavailable:
            return STORE_FAILED

    def _learn_of_processes(self, environ: Environ) -> None:
        if environ.get("wsgi.multiprocess"):
            self._analytics.preferences.not_alone()


def _request(environ: Environ) -> Request:
    def header(name: str) -> str | None:
        if name == "content-type":
            return environ.get("CONTENT_TYPE") or None
        return environ.get("HTTP_" + name.upper().replace("-", "_"))

    host = environ.get("HTTP_HOST") or f"{environ['SERVER_NAME']}:{environ['SERVER_PORT']}"
    return Request(
        environ["REQUEST_METHOD"],
        header,
        environ["wsgi.url_scheme"],
        host,
        environ.get("QUERY_STRING", ""),
    )


def _read_body(environ: Environ, limit: int) -> bytes:
    """Return the body; never read past a Content-Length, never block without one (spec §4, 411)."""
    from werkzeug.exceptions import BadRequest, RequestEntityTooLarge
    from werkzeug.wsgi import get_input_stream

    has_length = environ.get("CONTENT_LENGTH", "").isdigit()
    if environ.get("HTTP_TRANSFER_ENCODING", "").strip().lower() == "chunked":
        has_length = False
    if not has_length and not environ.get("wsgi.input_terminated"):
        raise Refused("length_required")
    try:
        # One byte more than allowed tells a body that is too large from one that just fits.
        body: bytes = get_input_stream(environ, max_content_length=limit + 1).read()
    except RequestEntityTooLarge:
        raise Refused("payload_too_large") from None
    except (BadRequest, OSError):
        raise ClientDisconnected from None
    if len(body) > limit:
        raise Refused("payload_too_large")
    return body


def _status_line(status: int) -> str:
    return f"{status} {HTTPStatus(status).phrase}"


def _headers(answer: Answer) -> list[tuple[str, str]]:
    if answer.status in (204, 304):
        return answer.headers
    return [*answer.headers, ("Content-Length", str(len(answer.body)))]
