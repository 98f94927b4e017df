"""The glue for Starlette, with real apps."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jinja2
import pytest
from starlette.applications import Starlette
from starlette.authentication import (
    AuthCredentials,
    AuthenticationBackend,
    BaseUser,
    UnauthenticatedUser,
)
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Host, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates

from second_mw import Analytics, AnalyticsUser
from second_mw.contrib.captured import CapturedEvents
from second_mw.contrib.starlette import (
    AnalyticsMiddleware,
    add_globals,
    from_connection,
    routes_of,
)
from second_mw.privacy.routes import Templates
from tests.contrib.visits import PREFIX, asgi_browser, walk

ADA = AnalyticsUser("u_ada", email="ada@analytical.example", name="Ada Lovelace")
SESSIONS = Middleware(SessionMiddleware, secret_key="only for tests")


def of_session(connection: HTTPConnection) -> AnalyticsUser | None:
    return ADA if connection.session.get("id") == ADA.id else None


async def of_session_later(connection: HTTPConnection) -> AnalyticsUser | None:
    return of_session(connection)


async def sign_in(request: Request) -> Response:
    request.session["id"] = ADA.id
    return PlainTextResponse("signed in")


@pytest.mark.parametrize("user", [of_session, of_session_later])
def test_an_event_arrives_anonymized_and_after_the_switch_identified(
    captured_events: CapturedEvents, user: Any
) -> None:
    app = Starlette(routes=[Route("/", sign_in)])
    app.add_middleware(
        AnalyticsMiddleware, analytics=Analytics(token="phc_test"), user=from_connection(user)
    )
    app.add_middleware(SessionMiddleware, secret_key="only for tests")
    with asgi_browser(app) as ask:
        walk(ask, captured_events)


def test_added_after_the_sessions_middleware_it_says_why_it_can_not_work(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = Starlette(routes=[Route("/", sign_in)])
    app.add_middleware(SessionMiddleware, secret_key="only for tests")
    app.add_middleware(
        AnalyticsMiddleware, analytics=Analytics(token="phc_test"), user=from_connection(of_session)
    )
    with asgi_browser(app) as ask:
        assert ask("GET", f"{PREFIX}/preferences").status == 500
    assert "SessionMiddleware must be installed" in caplog.text


class Person(BaseUser):
    is_authenticated = True
    display_name = "Ada Lovelace"


class Backend(AuthenticationBackend):
    async def authenticate(self, conn: HTTPConnection) -> Any:
        if conn.session.get("id") != ADA.id:
            return None
        return AuthCredentials(["authenticated"]), Person()


def test_request_user_is_known_inside_the_authentication_middleware(
    captured_events: CapturedEvents,
) -> None:
    def of_user(connection: HTTPConnection) -> Any:
        if isinstance(connection.user, UnauthenticatedUser):
            return connection.user  # the glue takes it for nobody
        return ADA

    analytics = Analytics(token="phc_test")
    app = Starlette(
        routes=[Route("/", sign_in)],
        middleware=[
            SESSIONS,
            Middleware(AuthenticationMiddleware, backend=Backend()),
            Middleware(AnalyticsMiddleware, analytics=analytics, user=from_connection(of_user)),
        ],
    )
    with asgi_browser(app) as ask:
        assert ask("GET", f"{PREFIX}/preferences").status == 401
        walk(ask, captured_events)


def test_the_apps_own_lifespan_runs_and_is_followed_by_the_flush() -> None:
    said: list[str] = []

    class Watched(Analytics):
        def startup(self) -> None:
            said.append("analytics startup")

        def shutdown(self) -> None:
            said.append("analytics shutdown")

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        said.append("host startup")
        yield
        said.append("host shutdown")

    app = Starlette(
        lifespan=lifespan,
        middleware=[Middleware(AnalyticsMiddleware, analytics=Watched(token="phc_test"))],
    )
    with asgi_browser(app):
        assert said == ["host startup", "analytics startup"]
    assert said[2:] == ["host shutdown", "analytics shutdown"]


def templated(**tag: Any) -> tuple[Starlette, Analytics]:
    analytics = Analytics(token="phc_test")
    source = (
        "{{ second_analytics(user, hash=True, nonce='n1') }}|{{ second_usage_data(nonce='n2') }}"
    )
    templates = Jinja2Templates(
        env=jinja2.Environment(loader=jinja2.DictLoader({"page": source}), autoescape=True)
    )
    add_globals(templates, analytics)

    async def page(request: Request) -> Response:
        request.session["id"] = ADA.id
        return templates.TemplateResponse(request, "page", tag)

    app = Starlette(
        routes=[Route("/", page), Mount("/inner", routes=[Route("/page", page)])],
        middleware=[
            SESSIONS,
            Middleware(AnalyticsMiddleware, analytics=analytics, user=from_connection(of_session)),
        ],
    )
    return app, analytics


def test_templates_have_the_script_tag_and_the_settings(captured_events: CapturedEvents) -> None:
    app, _ = templated(user=None)
    with asgi_browser(app) as ask:
        page = walk(ask, captured_events)
        assert page.startswith(f'<script src="{PREFIX}/client.js?v=')
        assert "data-hash" in page
        assert "data-mode" not in page
        assert page.endswith("<second-usage-data></second-usage-data>")
        # A mount inside the app is none of ours.
        assert f'src="{PREFIX}/client.js' in ask("GET", "/inner/page").text


def test_a_template_that_knows_the_user_writes_the_mode_into_the_tag(
    captured_events: CapturedEvents,
) -> None:
    app, _ = templated(user=ADA)
    with asgi_browser(app) as ask:
        assert 'data-mode="anonymized"' in ask("GET", "/").text


def test_below_a_mount_the_script_tag_names_the_mount(captured_events: CapturedEvents) -> None:
    app, _ = templated(user=None)

    async def mounted(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "root_path": "/shop"}, receive, send)

    with asgi_browser(mounted) as ask:
        page = walk(ask, captured_events, page="/shop/", prefix=f"/shop{PREFIX}")
        assert f'src="/shop{PREFIX}/client.js' in page


async def nothing(request: Any) -> None: ...


ROUTED = Starlette(
    routes=[
        Route("/", nothing),
        Route("/users/{id:int}", nothing),
        Route("/users/{name}", nothing),
        Mount(
            "/teams/{team}",
            routes=[Route("/", nothing), Route("/prices/{price:float}", nothing)],
        ),
        Mount("/sub", Starlette(routes=[Route("/{key:uuid}/{rest:path}", nothing)])),
        Host("api.example", Starlette(routes=[Route("/v1/{thing}", nothing)])),
        Mount("/static", StaticFiles(directory=".")),
        WebSocketRoute("/live/{id}", nothing),
    ]
)


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/", "/"),
        ("/users/12", "/users/:id"),
        ("/users/ada", "/users/:name"),
        ("/teams/blue/", "/teams/:team"),
        ("/teams/blue/prices/2.5", "/teams/:team/prices/:price"),
        ("/sub/0190a6e4-3d5b-7c1e-8a52-0123456789ab/a/b", "/sub/:key/:rest"),
        ("/v1/thing", "/v1/:thing"),
        ("/static/app.css", "/static/:path"),
        ("/live/12", ":unknown"),
    ],
)
def test_route_shapes_are_the_apps_own_routes(path: str, shape: str) -> None:
    assert Templates(routes_of(ROUTED)).match(path) == shape
