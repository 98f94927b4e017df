"""AnalyticsMiddleware for WSGI (PEP 3333): which requests are ours. `wsgi_desk` answers them.

A request that is not ours costs one look-up and passes with the very same environ and
start_response (spec §2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

from second_mw import process
from second_mw.resolver import Resolver, UserCallable
from second_mw.wiring import Wiring

if TYPE_CHECKING:
    from second_mw.wsgi_desk import Desk

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
        self._paths = analytics.paths
        self._desk: Desk | None = None
        analytics.wrapped()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        # A subscript and `in` are the cheapest look-ups there are, and all that most requests pay.
        try:
            path = environ["PATH_INFO"]
        except KeyError:
            path = ""  # A server may leave out what is empty (PEP 3333).
        if path not in self._paths:
            return self.app(environ, start_response)
        desk = self._desk or self._opened()
        return desk.serve(path, environ, start_response)

    def _opened(self) -> Desk:
        with process.importing:
            from second_mw.wsgi_desk import Desk

            if self._desk is None:
                self._desk = Desk(self._analytics, self._resolver)
            return self._desk
