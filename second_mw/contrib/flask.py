"""SecondAnalytics: the glue for Flask (spec §16).

A plain resolver on `app.wsgi_app` runs outside the request context and can't see `session`, `g` or
Flask-Login's `current_user`; this one calls its callable inside it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from second_mw.analytics import Analytics

if TYPE_CHECKING:
    from flask import Flask


class SecondAnalytics:
    """Wraps a Flask app.

    Args:
        app: the app; left out, `init_app` takes it later (application factories).
        analytics: the `Analytics` that takes the events; `Analytics.from_env()` if left out.
        user: a callable without arguments, sync or async, called inside the app's request context
            on our own paths only; returns an AnalyticsUser or None.
        preprocess: whether to run the app's `before_request` functions first, for apps that load
            the user there.

    >>> SecondAnalytics(app, analytics, user=lambda: current_user)  # doctest: +SKIP
    """

    def __init__(
        self,
        app: Flask | None = None,
        analytics: Analytics | None = None,
        *,
        user: Callable[[], Any],
        preprocess: bool = False,
    ) -> None:
        self.analytics = analytics if analytics is not None else Analytics.from_env()
        self._user = user
        self._preprocess = preprocess
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Wrap `app.wsgi_app`; `app.extensions["second_mw"]` is this object."""

        def user_of(environ: dict[str, Any]) -> Any:
            with app.request_context(environ):
                if self._preprocess:
                    app.preprocess_request()
                return app.ensure_sync(self._user)()

        app.extensions["second_mw"] = self
        app.wsgi_app = self.analytics.wsgi(app.wsgi_app, user=user_of)  # type: ignore[method-assign]
