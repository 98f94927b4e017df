"""The demo product as a Starlette app: the same pages, the same middleware, awaited.

What to look at: `create_app`, where `AnalyticsMiddleware` is added before the session's, because
the last one added is the outermost and the session has to be there when the user is looked up.
The pages themselves are `demos/product/`.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware.sessions import SessionMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount
from starlette.routing import Route as StarletteRoute
from starlette.staticfiles import StaticFiles

from demos.product.desk import HEADERS, HOST_NAMES, ROUTES, Desk, Reply, Route, Visit, fields_of
from demos.product.story import Story
from second_mw import Analytics, AnalyticsUser
from second_mw.asgi import AnalyticsMiddleware

STATIC = Path(__file__).parent / "product" / "static"


def create_app(
    analytics: Analytics, story: Story | None = None, inbox: str | None = None
) -> Starlette:
    """Return the demo as a Starlette app.

    Args:
        analytics: where its events go.
        story: what happens in it; None begins a new one.
        inbox: the address of an inbox beside it, for the link to it.
    """
    story = story or Story()

    def user_from_scope(scope: MutableMapping[str, Any]) -> AnalyticsUser | None:
        return story.analytics_user(scope["session"].get("person"))

    settings = analytics.settings
    desk = Desk(story, prefix=settings.prefix, client_name=settings.client_name, inbox=inbox)

    def not_found(request: Request, error: Exception) -> Response:
        return _written(request, desk.not_found(Visit(request.session.get("person"))))

    app = Starlette(
        routes=[
            *(
                StarletteRoute(each.path, _view(desk, each), methods=[each.method])
                for each in ROUTES
            ),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        exception_handlers={404: not_found},
    )
    app.add_middleware(
        AnalyticsMiddleware,
        analytics=analytics,
        user=user_from_scope,
        user_blocks=False,  # it only looks into memory, so it needs no thread
    )
    app.add_middleware(
        SessionMiddleware,
        secret_key=secrets.token_hex(32),  # signs who is signed in; a restart signs all out
        session_cookie="second_demo_starlette",
        same_site="lax",
    )
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(HOST_NAMES))
    return app


def _view(desk: Desk, route: Route) -> Callable[[Request], Awaitable[Response]]:
    async def view(request: Request) -> Response:
        sent = fields_of(request.headers.get("content-type", ""), await request.body())
        visit = Visit(
            request.session.get("person"), request.path_params, {**request.query_params, **sent}
        )
        # The desk holds a lock and does no I/O: quick enough to answer on the loop.
        return _written(request, desk.answer(route, visit))

    return view


def _written(request: Request, reply: Reply) -> Response:
    if reply.session != "keep":
        request.session.clear()
        if reply.session != "clear":
            request.session["person"] = reply.session.id
    headers = dict(HEADERS)
    if reply.to is not None:
        headers["Location"] = reply.to
    return Response(reply.body, reply.status, headers, media_type=reply.media)
