"""The glue for FastAPI, with real apps."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Cookie, Depends, FastAPI, HTTPException, Request, Response, WebSocket
from fastapi.security import HTTPBearer
from starlette.middleware.sessions import SessionMiddleware

from second_mw import Analytics, AnalyticsUser
from second_mw.contrib.captured import CapturedEvents
from second_mw.contrib.fastapi import (
    AnalyticsMiddleware,
    from_connection,
    from_dependency,
    routes_of,
)
from second_mw.privacy.routes import Templates
from tests.contrib.visits import PREFIX, asgi_browser, walk

ADA = AnalyticsUser("u_ada", email="ada@analytical.example", name="Ada Lovelace")


def app_with(user: Any) -> FastAPI:
    app = FastAPI()
    app.state.people = {ADA.id: ADA}
    app.add_middleware(AnalyticsMiddleware, analytics=Analytics(token="phc_test"), user=user)
    app.add_middleware(SessionMiddleware, secret_key="only for tests")

    @app.get("/")
    def home(request: Request, response: Response) -> None:
        request.session["id"] = ADA.id
        response.set_cookie("person", ADA.id)

    return app


def test_an_event_arrives_anonymized_and_after_the_switch_identified(
    captured_events: CapturedEvents,
) -> None:
    user = from_connection(lambda connection: ADA if connection.session.get("id") else None)
    with asgi_browser(app_with(user)) as ask:
        walk(ask, captured_events)


def person_id(request: Request, person: Annotated[str | None, Cookie()] = None) -> str:
    assert request.session.get("id", person) == person
    if person is None:
        raise HTTPException(401, "Sign in first")
    return person


async def current_user(request: Request, person: Annotated[str, Depends(person_id)]) -> Any:
    return request.app.state.people[person]


def test_the_routes_own_dependency_says_who_is_signed_in(captured_events: CapturedEvents) -> None:
    with asgi_browser(app_with(from_dependency(current_user))) as ask:
        assert ask("GET", f"{PREFIX}/preferences").status == 401
        walk(ask, captured_events)


def test_a_dependency_that_cleans_up_is_cleaned_up() -> None:
    said: list[str] = []

    def database() -> Any:
        said.append("opened")
        yield "a connection"
        said.append("closed")

    def user(database: Annotated[str, Depends(database)]) -> AnalyticsUser:
        said.append(database)
        return ADA

    user.__annotations__["database"] = Annotated[str, Depends(database)]
    with asgi_browser(app_with(from_dependency(user))) as ask:
        assert ask("GET", f"{PREFIX}/preferences").status == 200
    assert said == ["opened", "a connection", "closed"]


def test_a_dependency_that_reads_a_body_finds_none_and_leaves_the_events_alone(
    captured_events: CapturedEvents,
) -> None:
    async def user(request: Request) -> AnalyticsUser:
        assert await request.body() == b""
        return ADA

    with asgi_browser(app_with(from_dependency(user))) as ask:
        assert ask("POST", f"{PREFIX}/capture", {"event": "page viewed"}).status == 204
    assert captured_events.names == ["page viewed"]


def test_without_an_app_around_it_a_dependency_is_asked_all_the_same() -> None:
    async def bare(scope: Any, receive: Any, send: Any) -> None: ...

    app = Analytics(token="phc_test").asgi(bare, user=from_dependency(lambda: ADA))
    with asgi_browser(app, lifespan=False) as ask:
        assert ask("GET", f"{PREFIX}/preferences").status == 200


def test_an_overridden_dependency_is_overridden_here_too() -> None:
    app = app_with(from_dependency(current_user))
    app.dependency_overrides[current_user] = lambda: ADA
    with asgi_browser(app) as ask:
        assert ask("GET", f"{PREFIX}/preferences").status == 200


def test_a_security_scheme_that_refuses_means_that_nobody_is_signed_in() -> None:
    bearer = HTTPBearer()

    def user(token: Any = Depends(bearer)) -> AnalyticsUser:  # noqa: B008 - FastAPI's own way
        return ADA

    app = app_with(from_dependency(user))
    with asgi_browser(app) as ask:
        assert ask("GET", f"{PREFIX}/preferences").status == 401
    with asgi_browser(app, authorization="Bearer x") as ask:
        assert ask("GET", f"{PREFIX}/preferences").status == 200


def breaks() -> AnalyticsUser:
    raise LookupError("no database")


def is_busy() -> AnalyticsUser:
    raise HTTPException(503)


def wants_more(page: int) -> AnalyticsUser:
    return ADA


@pytest.mark.parametrize(
    ("dependency", "said"),
    [(breaks, "no database"), (is_busy, "503"), (wants_more, "given a request it can't take")],
)
def test_a_dependency_that_fails_is_the_resolvers_failure(
    dependency: Any, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with asgi_browser(app_with(from_dependency(dependency))) as ask:
        reply = ask("GET", f"{PREFIX}/preferences")
    assert (reply.status, reply.json["error"]) == (500, "user_lookup_failed")
    assert said in caplog.text


def test_route_shapes_are_the_apps_own_routes() -> None:
    app = FastAPI(openapi_url=None)
    inner = APIRouter(prefix="/orders")
    inner.add_api_route("/{order_id}", lambda: None)
    outer = APIRouter(prefix="/shops/{shop}")
    outer.include_router(inner)
    app.include_router(outer)
    sub = FastAPI(openapi_url=None)
    sub.include_router(inner)
    app.mount("/sub", sub)

    @app.websocket("/live/{id}")
    async def live(socket: WebSocket) -> None: ...

    assert routes_of(app) == ("/shops/:shop/orders/:order_id", "/sub/orders/:order_id")
    assert Templates(routes_of(app)).match("/shops/blue/orders/7") == (
        "/shops/:shop/orders/:order_id"
    )
