"""The glue for FastAPI (spec §16): Starlette's, and a resolver made of a dependency.

A middleware knows nothing of `Depends(…)`; `from_dependency` asks the very dependency that the
app's own routes ask, with its sub-dependencies, security schemes and overrides.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final

import fastapi.routing
from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import HTTPException

from second_mw.asgi import AnalyticsMiddleware
from second_mw.contrib.starlette import add_globals, from_connection, templates_of
from second_mw.contrib.visitors import signed_in

__all__ = ["AnalyticsMiddleware", "add_globals", "from_connection", "from_dependency", "routes_of"]

#: Where the dependency's value is left, and the app that is wrapped.
_FOUND: Final = "second_mw.found"
_HOST: Final = "second_mw.host"


def from_dependency(
    dependency: Callable[..., Any],
) -> Callable[[MutableMapping[str, Any]], Awaitable[Any]]:
    """Return a resolver of scope that asks a FastAPI dependency who the user is.

    Args:
        dependency: what routes name in `Depends(…)`; returns an AnalyticsUser or None. A 401 or
            403 that it raises means that nobody is signed in; any other exception is the
            resolver's failure. It sees the request's headers, cookies and query, never its body.

    >>> app.add_middleware(
    ...     AnalyticsMiddleware, analytics=analytics, user=from_dependency(current_user)
    ... )  # doctest: +SKIP
    """
    inner = FastAPI(openapi_url=None)
    asked = Depends(dependency)

    @inner.get("/")
    async def leave(request: Request, found: Any = asked) -> None:
        request.scope[_FOUND].append(found)

    @inner.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        if error.status_code not in (401, 403):
            raise error
        request.scope[_FOUND].append(None)
        return Response()

    inner.add_middleware(_AsHost)

    async def resolver(scope: MutableMapping[str, Any]) -> Any:
        host = scope.get("app")
        inner.dependency_overrides = getattr(host, "dependency_overrides", {})
        found: list[Any] = []
        asking = {**scope, "method": "GET", "path": "/", "raw_path": b"/", "root_path": ""}
        await inner({**asking, _FOUND: found, _HOST: host}, _no_body, _unheard)
        if not found:
            raise RuntimeError(f"the dependency {dependency!r} was given a request it can't take")
        return signed_in(found[0])

    return resolver


class _AsHost:
    """Lets dependencies see the host as `request.app`, with its `state`."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope.get(_HOST) is not None:
            scope["app"] = scope[_HOST]
        await self._app(scope, receive, send)


async def _no_body() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _unheard(message: Any) -> None:
    """Take what the inner app answers; what counts was left in the scope."""


def routes_of(app: FastAPI) -> tuple[str, ...]:
    """Return an app's own routes as templates for `Settings(routes=…)`, sorted.

    >>> from fastapi import APIRouter, FastAPI
    >>> app = FastAPI(openapi_url=None)
    >>> router = APIRouter(prefix="/users")
    >>> router.add_api_route("/{user_id}", lambda: None)
    >>> app.include_router(router)
    >>> routes_of(app)
    ('/users/:user_id',)
    """
    # Newer releases keep an included router as it is and unfold it on request.
    unfolded: Callable[[Any], Iterable[Any]] = getattr(fastapi.routing, "iter_route_contexts", iter)
    return tuple(sorted(set(templates_of(app.routes, each=unfolded))))
