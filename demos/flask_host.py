"""The demo product as a Flask app: a host like any other, wrapped in two lines.

What to look at: `create_app`, where `SecondAnalytics` is given the app, the analytics and a
callable that says who is signed in. The pages themselves are `demos/product/`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

from flask import Flask, Response, abort, request, session
from werkzeug.sansio.utils import host_is_trusted

from demos.product.desk import (
    HEADERS,
    HOST_NAMES,
    MAX_BODY,
    ROUTES,
    Desk,
    Reply,
    Route,
    Visit,
    fields_of,
)
from demos.product.story import Story
from second_mw import Analytics, AnalyticsUser
from second_mw.contrib.flask import SecondAnalytics

STATIC = Path(__file__).parent / "product" / "static"


def create_app(analytics: Analytics, story: Story | None = None, inbox: str | None = None) -> Flask:
    """Return the demo as a Flask app.

    Args:
        analytics: where its events go.
        story: what happens in it; None begins a new one.
        inbox: the address of an inbox beside it, for the link to it.
    """
    story = story or Story()
    app = Flask("demos", static_folder=STATIC, static_url_path="/static")
    app.secret_key = secrets.token_bytes(32)  # signs who is signed in; a restart signs all out
    app.config.update(
        SESSION_COOKIE_NAME="second_demo_flask",
        SESSION_COOKIE_SAMESITE="Lax",
        MAX_CONTENT_LENGTH=MAX_BODY,
    )

    def current_user() -> AnalyticsUser | None:
        return story.analytics_user(session.get("person"))

    SecondAnalytics(app, analytics, user=current_user)

    @app.before_request
    def only_this_machine() -> None:
        if not host_is_trusted(request.host, HOST_NAMES):
            abort(400)

    settings = analytics.settings
    desk = Desk(story, prefix=settings.prefix, client_name=settings.client_name, inbox=inbox)
    for route in ROUTES:
        app.add_url_rule(
            route.path.replace("{", "<").replace("}", ">"),
            endpoint=f"{route.method} {route.answer.__name__}",
            view_func=_view(desk, route),
            methods=[route.method],
        )

    @app.errorhandler(404)
    def not_found(error: Exception) -> Response:
        return _written(desk.not_found(Visit(session.get("person"))))

    return app


def _view(desk: Desk, route: Route) -> Callable[..., Response]:
    def view(**places: str) -> Response:
        sent = fields_of(request.content_type or "", request.get_data())
        fields = {**request.args, **sent}
        return _written(desk.answer(route, Visit(session.get("person"), places, fields)))

    return view


def _written(reply: Reply) -> Response:
    if reply.session != "keep":
        session.clear()
        if reply.session != "clear":
            session["person"] = reply.session.id
    response = Response(reply.body, status=reply.status, mimetype=reply.media, headers=HEADERS)
    if reply.to is not None:
        response.headers["Location"] = reply.to
    return response
