"""The app that `second-mw run` serves: found by its name, told apart, and wrapped unless it is.

A server's worker imports `second_mw.cli.served:asgi` or `:wsgi`; which app that is stands in
variables that the command has set, because a worker shares nothing else with it.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final, Literal, NamedTuple

from second_mw.errors import AnalyticsError

Interface = Literal["wsgi", "asgi"]

#: What a worker reads: `module:app`, the interface and the resolver, as the command was given them.
APP: Final = "SECOND_MW_RUN_APP"
INTERFACE: Final = "SECOND_MW_RUN_INTERFACE"
USER: Final = "SECOND_MW_RUN_USER"

#: Where frameworks and middlewares keep what they wrap.
_INNER: Final = ("wsgi_app", "app", "application", "asgi_handler", "asgi_app", "_app", "wrapped")
_MIDDLEWARES: Final = ("user_middleware", "asgi_middleware")


class AppNotFound(AnalyticsError):
    """`module:app` names nothing that can be served; the message says what was looked for."""


class Served(NamedTuple):
    """An app, ready to be served."""

    app: Any
    interface: Interface
    #: Whether the host had wrapped itself, so that it was left as it is.
    is_wrapped: bool


def found(name: str) -> Any:
    """Return what `module:attribute` names; the attribute is `app` or `application` if left out.

    Raises:
        AppNotFound: there is no such module or attribute.
    """
    module_name, _, path = name.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")  # as `python -m` does: apps live where one stands
    try:
        value: Any = import_module(module_name)
    except ImportError as error:
        if error.name is not None and not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there, and something that it imports is not
        raise AppNotFound(
            f"there is no module {module_name!r} here: name the app as module:app, such as "
            "shop.web:app, and run from the folder that holds it"
        ) from None
    attributes = path.split(".") if path else [_only_app(value, module_name)]
    for attribute in attributes:
        try:
            value = getattr(value, attribute)
        except AttributeError:
            raise AppNotFound(f"{module_name!r} has no {path!r}") from None
    return value


def _only_app(module: Any, name: str) -> str:
    for attribute in ("app", "application"):
        if hasattr(module, attribute):
            return attribute
    raise AppNotFound(f"{name!r} has no app and no application: name it, as in {name}:my_app")


def interface_of(app: Any) -> Interface:
    """Tell WSGI and ASGI apart: by what the call takes, and whether it is awaited.

    Raises:
        AppNotFound: it is neither.

    >>> async def asgi(scope, receive, send): ...
    >>> def wsgi(environ, start_response): ...
    >>> interface_of(asgi), interface_of(wsgi)
    ('asgi', 'wsgi')
    """
    if not callable(app):
        raise AppNotFound(f"a {type(app).__name__} can't be served: it is not callable")
    call = app if inspect.isroutine(app) else type(app).__call__
    wanted = _required(app)
    if inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(call):
        if wanted in (0, 3):  # 0: it takes *args, or can't be asked
            return "asgi"
    elif wanted == 3:
        return "asgi"
    elif wanted == 2:
        return "wsgi"
    raise AppNotFound(
        "this is neither a WSGI app, called with (environ, start_response), nor an ASGI app, "
        "called with (scope, receive, send); is it a factory? Then name it with --factory"
    )


def _required(app: Callable[..., Any]) -> int:
    """Return how many arguments a call needs; a host may take more with defaults."""
    try:
        parameters = inspect.signature(app).parameters.values()
    except (TypeError, ValueError):
        return 0
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(1 for p in parameters if p.kind in kinds and p.default is p.empty)


def is_wrapped(app: Any) -> bool:
    """Whether our middleware stands anywhere in the app's stack."""
    from second_mw.asgi import AnalyticsMiddleware as OverASGI
    from second_mw.wsgi import AnalyticsMiddleware as OverWSGI

    ours = (OverASGI, OverWSGI)
    seen: set[int] = set()
    todo = [app]
    while todo:
        layer = todo.pop()
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        if isinstance(layer, ours) or (isinstance(layer, type) and issubclass(layer, ours)):
            return True
        if isinstance(getattr(layer, "__self__", None), ours):
            return True  # a bound method of ours, as Flask's glue leaves it in wsgi_app
        todo += [getattr(layer, name, None) for name in _INNER if hasattr(layer, name)]
        for name in _MIDDLEWARES:
            for item in getattr(layer, name, None) or ():
                todo.append(getattr(item, "cls", item))
    return False


def served(
    name: str, *, interface: Interface | None = None, user: str | None = None, factory: bool = False
) -> Served:
    """Return the app that `module:app` names, wrapped with `Analytics.from_env()` unless it is.

    Args:
        interface: None tells by itself.
        user: `module:callable` of a resolver; None takes what the host leaves in environ or scope.
        factory: whether `module:app` is called, without arguments, to get the app.

    Raises:
        AppNotFound: there is none, or it is no app.
        ConfigurationError: a variable is wrong.
    """
    app = found(name)
    if factory:
        app = app()
    interface = interface or interface_of(app)
    if is_wrapped(app):
        return Served(app, interface, True)
    from second_mw.analytics import Analytics

    analytics = Analytics.from_env()
    resolver = found(user) if user else None
    wrap: Any = analytics.asgi if interface == "asgi" else analytics.wsgi
    return Served(wrap(app, user=resolver), interface, False)


def __getattr__(name: str) -> Any:
    """`asgi` and `wsgi`, made when a worker asks for the one it serves."""
    if name not in ("asgi", "wsgi") or APP not in os.environ:
        raise AttributeError(name)
    spec, _, factory = os.environ[APP].partition("|")
    interface: Interface = "asgi" if name == "asgi" else "wsgi"
    app = served(
        spec, interface=interface, user=os.environ.get(USER) or None, factory=factory == "factory"
    ).app
    globals()[name] = app
    return app
