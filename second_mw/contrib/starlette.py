"""The glue for Starlette (spec §16): what a host needs beside `second_mw.asgi.AnalyticsMiddleware`.

`scope["session"]` and `scope["user"]` exist only inside their middlewares. Starlette puts the
middleware that was added last outermost, so add ours first, theirs after it. Templates get
`{{ second_analytics() }}`, the browser client's script tag, and `{{ second_usage_data() }}`, the
Usage data settings.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from starlette.requests import HTTPConnection
from starlette.routing import Mount, WebSocketRoute

from second_mw.asgi import AnalyticsMiddleware
from second_mw.contrib.route_templates import parameter
from second_mw.contrib.visitors import signed_in

if TYPE_CHECKING:
    from markupsafe import Markup
    from starlette.applications import Starlette
    from starlette.templating import Jinja2Templates

    from second_mw.analytics import Analytics
    from second_mw.user import AnalyticsUser

__all__ = ["AnalyticsMiddleware", "add_globals", "from_connection", "routes_of"]

#: A parameter of a path: `{id}` or `{rest:path}`.
_PARAMETER: Final = re.compile(r"\{(?P<name>\w+)(?::(?P<kind>\w+))?\}")


def from_connection(
    user: Callable[[HTTPConnection], Any],
) -> Callable[[Any], Any]:
    """Return a resolver of scope for a callable that takes Starlette's connection instead.

    Args:
        user: given an `HTTPConnection`, so that `.session`, `.user` and `.cookies` work; sync or
            async; returns an AnalyticsUser or None. Starlette's unauthenticated user counts as
            None.

    >>> app.add_middleware(
    ...     AnalyticsMiddleware,
    ...     analytics=analytics,
    ...     user=from_connection(lambda connection: connection.session.get("user")),
    ... )  # doctest: +SKIP
    """
    if inspect.iscoroutinefunction(user):

        async def awaited(scope: Any) -> Any:
            return signed_in(await user(HTTPConnection(scope)))

        return awaited

    def called(scope: Any) -> Any:
        return signed_in(user(HTTPConnection(scope)))

    return called


def add_globals(templates: Jinja2Templates, analytics: Analytics) -> None:
    """Give templates `{{ second_analytics() }}` and `{{ second_usage_data() }}`.

    Both read the page's `request` from the template's context, for the path below which the app
    is mounted. `second_analytics(user=…)` writes the user's mode into the tag, which spares the
    browser a request but asks the preference store, on the event loop; without it the client asks.

    Args:
        templates: the app's `Jinja2Templates`.
        analytics: the app's `Analytics`.
    """
    from jinja2 import pass_context
    from markupsafe import Markup

    @pass_context
    def second_analytics(
        context: Any, user: AnalyticsUser | None = None, *, nonce: str | None = None, **data: Any
    ) -> Markup:
        mount = _mount(context)
        return Markup(analytics.script_tag(user, mount=mount, nonce=nonce, **data))  # noqa: S704

    @pass_context
    def second_usage_data(context: Any, *, nonce: str | None = None) -> Markup:
        tag = analytics.settings_tag(mount=_mount(context), nonce=nonce)
        return Markup(f"{tag}<second-usage-data></second-usage-data>")  # noqa: S704

    templates.env.globals.update(
        second_analytics=second_analytics, second_usage_data=second_usage_data
    )


def _mount(context: Any) -> str:
    """Return the path that the outermost app is mounted below; a `Mount` inside it adds to it."""
    scope = context["request"].scope
    mount: str = scope.get("app_root_path", scope.get("root_path", ""))
    return mount


def routes_of(app: Starlette) -> tuple[str, ...]:
    """Return an app's own routes as templates for `Settings(routes=…)`, sorted.

    Mounted apps' routes are among them; what is mounted and has no routes, such as static files,
    is one template. Call it when every route is added.

    >>> from starlette.routing import Mount, Route
    >>> from starlette.applications import Starlette
    >>> users = Mount("/users", routes=[Route("/{id:int}", print), Route("/{name}/files", print)])
    >>> routes_of(Starlette(routes=[users]))
    ('/users/:name/files', '/users/<int:id>')
    """
    return tuple(sorted(set(templates_of(app.routes))))


def templates_of(
    routes: Iterable[Any],
    above: str = "",
    each: Callable[[Any], Iterable[Any]] = iter,
) -> Iterator[str]:
    """Yield the template of every page of these routes.

    Args:
        routes: Starlette's, or any that look like them.
        above: the path that they are mounted below.
        each: yields routes one by one, for a framework that keeps some folded.
    """
    for route in each(routes):
        path = above + (getattr(route, "path", None) or "")
        inner = getattr(route, "routes", None)
        if isinstance(getattr(route, "original_route", route), WebSocketRoute):
            continue
        if inner:
            yield from templates_of(inner, path, each)
        elif isinstance(route, Mount):
            yield _template(path + "/{path:path}")
        elif path.startswith("/"):
            yield _template(path)


def _template(path: str) -> str:
    return _PARAMETER.sub(lambda found: parameter(found["name"], found["kind"]), path)
