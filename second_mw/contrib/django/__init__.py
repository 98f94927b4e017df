"""The glue for Django (spec §16): wraps its WSGI or ASGI application.

    # settings.py
    INSTALLED_APPS = [..., "second_mw.contrib.django"]
    SECOND_ANALYTICS = {"user": "shop.people.analytics_user"}  # and any setting of `Settings`

    # wsgi.py
    application = wrap_wsgi(get_wsgi_application())

The wrapper stands before Django's own middleware, so that a request that is not ours costs one
look-up. On our own paths it makes a request of the environ or scope and lets the project's session
and authentication middleware put `session` and `user` on it; nothing else of the project runs.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from second_mw.analytics import Analytics
from second_mw.contrib.django.configuration import configured
from second_mw.contrib.visitors import signed_in
from second_mw.user import AnalyticsUser

if TYPE_CHECKING:
    from django.http import HttpRequest

    from second_mw.asgi import AnalyticsMiddleware as ASGIMiddleware
    from second_mw.wsgi import AnalyticsMiddleware as WSGIMiddleware

__all__ = ["get_analytics", "routes_of", "user_of", "wrap_asgi", "wrap_wsgi"]


@cache
def get_analytics() -> Analytics:
    """Return the project's `Analytics`, made of the environment and `settings.SECOND_ANALYTICS`.

    `"routes": "urlconf"` stands for the project's own routes. `get_analytics.cache_clear()` lets
    the next call make another, as a test that overrides settings needs.

    Raises:
        ConfigurationError: a setting is wrong; `manage.py check` says the same.
    """
    fields, _ = configured()
    if fields.get("routes") == "urlconf":
        fields["routes"] = routes_of()
    return Analytics.from_env(**fields)


def wrap_wsgi(application: Any, analytics: Analytics | None = None) -> WSGIMiddleware:
    """Return a WSGI application that answers our paths and hands everything else to Django.

    Args:
        application: what `get_wsgi_application()` returns.
        analytics: `get_analytics()` if left out.
    """
    from django.core.handlers.wsgi import WSGIRequest

    return (analytics or get_analytics()).wsgi(
        application, user=lambda environ: _looked_up(WSGIRequest(environ))
    )


def wrap_asgi(application: Any, analytics: Analytics | None = None) -> ASGIMiddleware:
    """Return an ASGI application that answers our paths and hands everything else to Django.

    Args:
        application: what `get_asgi_application()` returns.
        analytics: `get_analytics()` if left out.
    """
    from django.core.handlers.asgi import ASGIRequest

    # A sync callable: Django's ORM may block, and the middleware calls it in a thread.
    return (analytics or get_analytics()).asgi(
        application, user=lambda scope: _looked_up(ASGIRequest(scope, io.BytesIO()))
    )


def user_of(request: HttpRequest) -> AnalyticsUser | None:
    """Return the AnalyticsUser of a request that has `session` and `user`.

    It is what `SECOND_ANALYTICS["user"]` returns or, if that is left out, made of `request.user`:
    its primary key, e-mail, full name and, as an alias, its user name.
    """
    user: AnalyticsUser | None = signed_in(_user_callable()(request))
    return user


def _user_callable() -> Callable[[HttpRequest], Any]:
    from django.utils.module_loading import import_string

    _, user = configured()
    if user is None:
        return _of_auth
    found: Callable[[HttpRequest], Any] = import_string(user) if isinstance(user, str) else user
    return found


def _of_auth(request: HttpRequest) -> AnalyticsUser | None:
    person = getattr(request, "user", None)
    if person is None or not person.is_authenticated:
        return None
    name = person.get_full_name() if hasattr(person, "get_full_name") else None
    email = getattr(person, person.get_email_field_name(), None)
    return AnalyticsUser(
        str(person.pk), email=email or None, name=name or None, aliases=(person.get_username(),)
    )


def _looked_up(request: HttpRequest) -> AnalyticsUser | None:
    """Return the user of a request that Django itself does not see."""
    from django.db import close_old_connections

    # Django does both around a request of its own.
    close_old_connections()
    try:
        for middleware in _sign_in_middleware():
            middleware.process_request(request)
        return user_of(request)
    finally:
        close_old_connections()


def _sign_in_middleware() -> Iterator[Any]:
    """Yield the project's session and authentication middleware, in its own order."""
    from django.conf import settings
    from django.contrib.auth.middleware import AuthenticationMiddleware
    from django.contrib.sessions.middleware import SessionMiddleware
    from django.utils.module_loading import import_string

    for path in settings.MIDDLEWARE:
        kind = import_string(path)
        if isinstance(kind, type) and issubclass(
            kind, (SessionMiddleware, AuthenticationMiddleware)
        ):
            # Only its `process_request` is used, so it has nobody to ask for a response.
            yield kind(lambda request: None)


# Routes


def routes_of(urlconf: str | None = None) -> tuple[str, ...]:
    """Return the project's own routes as templates for `Settings(routes=…)`, sorted.

    Args:
        urlconf: a URLconf module's dotted path; `settings.ROOT_URLCONF` if left out.
    """
    from django.urls import get_resolver

    return tuple(sorted(set(_templates(get_resolver(urlconf).url_patterns, "/"))))


def _templates(patterns: Iterable[Any], above: str) -> Iterator[str]:
    for pattern in patterns:
        for path in _paths(pattern.pattern, above):
            inner = getattr(pattern, "url_patterns", None)
            if inner is None:
                yield path
            else:
                yield from _templates(inner, path)


def _paths(pattern: Any, above: str) -> Iterator[str]:
    """Yield the templates of one pattern below the path above it."""
    from django.urls.resolvers import LocalePrefixPattern, RoutePattern

    if isinstance(pattern, LocalePrefixPattern):
        yield f"{above}:language/"
        if not pattern.prefix_default_language:
            yield above
    elif isinstance(pattern, RoutePattern):
        # Its own spelling, `<int:pk>`, is one that templates know.
        yield above + str(pattern)
    else:
        yield above + _of_regex(str(pattern))


def _of_regex(regex: str) -> str:
    from django.contrib.admindocs.views import simplify_regex

    return str(simplify_regex(regex)).lstrip("/")
