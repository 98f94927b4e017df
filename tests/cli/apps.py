"""Apps that the command line's tests name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask
from starlette.applications import Starlette

from second_mw import Analytics, AnalyticsUser
from second_mw.asgi import AnalyticsMiddleware
from second_mw.contrib.flask import SecondAnalytics


def plain_wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"wsgi"]


async def plain_asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"asgi"})


class AsgiObject:
    """An ASGI app as frameworks have it: an object with an async `__call__`."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await plain_asgi(scope, receive, send)


class WsgiObject:
    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        return plain_wsgi(environ, start_response)


asgi_object = AsgiObject()
wsgi_object = WsgiObject()


def user(_: Any) -> AnalyticsUser:
    return AnalyticsUser("u_ada_1815", email="ada@analytical.example")


_off = Analytics(token=None)
wrapped_wsgi = _off.wsgi(plain_wsgi, user=user)
wrapped_asgi = _off.asgi(plain_asgi, user=user)

flask_app = Flask("apps")
SecondAnalytics(flask_app, _off, user=lambda: None)

starlette_app = Starlette()
starlette_app.add_middleware(AnalyticsMiddleware, analytics=_off, user=user)

nothing = None


async def async_page(request: Any) -> None:
    """What a framework routes to, which is no ASGI app."""


def make_wsgi() -> Any:
    """A factory, as `--factory` calls it."""
    return wsgi_object


app = plain_wsgi
