"""SecondAnalytics: the glue for Flask (spec §16).

A plain resolver on `app.wsgi_app` runs outside the request context and can't see `session`, `g` or
Flask-Login's `current_user`; this one calls its callable inside it. Templates get
`{{ second_analytics() }}`, the browser client's script tag, and `{{ second_usage_data() }}`, the
Usage data settings.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from flask import request
from markupsafe import Markup

from second_mw.analytics import Analytics
from second_mw.contrib.route_templates import parameter
from second_mw.contrib.visitors import signed_in, user_for_page
from second_mw.resolver import left_by_host

if TYPE_CHECKING:
    from flask import Flask

__all__ = ["SecondAnalytics", "routes_of"]

#: A parameter of a rule: `<name>`, `<int:name>`, `<any(a, "b)"):name>`.
_PARAMETER: Final = re.compile(
    r"""<(?:(?P<kind>\w+)(?:\((?:[^()"']|"[^"]*"|'[^']*'|\([^()]*\))*\))?:)?(?P<name>\w+)>"""
)


class SecondAnalytics:
    """Wraps a Flask app.

    Args:
        app: the app; left out, `init_app` takes it later (application factories).
        analytics: the `Analytics` that takes the events. Left out, each app gets an
            `Analytics.from_env(**app.config["SECOND_ANALYTICS"])` of its own when it is wrapped.
        user: a callable without arguments, sync or async, called inside the app's request context,
            on our own paths and where a template asks for the script tag; returns an AnalyticsUser
            or None. Flask-Login's anonymous user counts as None. Left out, the host puts one into
            `environ["second_mw.user"]`.
        preprocess: whether to run the app's `before_request` functions first, for apps that load
            the user there. One that answers the request by itself leaves no user.

    >>> SecondAnalytics(app, analytics, user=lambda: g.person)  # doctest: +SKIP
    """

    def __init__(
        self,
        app: Flask | None = None,
        analytics: Analytics | None = None,
        *,
        user: Callable[[], Any] | None = None,
        preprocess: bool = False,
    ) -> None:
        self._given = analytics
        self._user = user or _left_by_host
        self._preprocess = preprocess
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask, analytics: Analytics | None = None) -> Analytics:
        """Wrap `app.wsgi_app` and return its `Analytics`.

        It is also `app.extensions["second_mw"]`.

        Args:
            app: the app.
            analytics: takes this app's events instead of the one that was given at first.

        Raises:
            RuntimeError: the app is wrapped already.
            ConfigurationError: a setting is wrong.
        """
        if "second_mw" in app.extensions:
            raise RuntimeError(f"{app!r} is wrapped by SecondAnalytics already")
        analytics = analytics or self._given
        if analytics is None:
            analytics = Analytics.from_env(**app.config.get("SECOND_ANALYTICS", {}))
        app.extensions["second_mw"] = analytics

        def user_of(environ: dict[str, Any]) -> Any:
            with app.request_context(environ):
                if self._preprocess and app.preprocess_request() is not None:
                    return None
                return self._found(app)

        app.wsgi_app = analytics.wsgi(app.wsgi_app, user=user_of)  # type: ignore[method-assign]
        self._add_globals(app, analytics)
        return analytics

    def _found(self, app: Flask) -> Any:
        return signed_in(app.ensure_sync(self._user)())

    def _add_globals(self, app: Flask, analytics: Analytics) -> None:
        def second_analytics(*, nonce: str | None = None, **data: Any) -> Markup:
            """The browser client's script tag; keyword arguments become its `data-` attributes."""
            user = user_for_page(lambda: self._found(app))
            mount = request.script_root
            return Markup(analytics.script_tag(user, mount=mount, nonce=nonce, **data))  # noqa: S704

        def second_usage_data(*, nonce: str | None = None) -> Markup:
            """The Usage data settings and their script."""
            tag = analytics.settings_tag(mount=request.script_root, nonce=nonce)
            return Markup(f"{tag}<second-usage-data></second-usage-data>")  # noqa: S704

        app.jinja_env.globals.update(
            second_analytics=second_analytics, second_usage_data=second_usage_data
        )


def _left_by_host() -> Any:
    return left_by_host(request.environ)


def routes_of(app: Flask) -> tuple[str, ...]:
    """Return an app's own routes as templates for `Settings(routes=…)`, sorted.

    Route shapes are then exact: `/users/ada` is `/users/:name` because the app says so. Call it
    when every blueprint is registered.

    >>> from flask import Flask
    >>> app = Flask("shop", static_folder=None)
    >>> app.add_url_rule("/users/<int:id>", "user")
    >>> app.add_url_rule("/tags/<any(red, green):tag>", "tag")
    >>> routes_of(app)
    ('/tags/:tag', '/users/<int:id>')
    """
    converters = app.url_map.converters
    rules = (rule.rule for rule in app.url_map.iter_rules())
    return tuple(sorted({_template("/" + rule.lstrip("/"), converters) for rule in rules}))


def _template(rule: str, converters: Mapping[str, type]) -> str:
    """Return a rule with its parameters as `:name`, or `<type:name>` where the type says more."""

    def written(found: re.Match[str]) -> str:
        kind, name = found["kind"], found["name"]
        if not getattr(converters.get(kind), "part_isolating", True):
            kind = "path"  # it matches more than one segment
        return parameter(name, kind)

    return _PARAMETER.sub(written, rule)
