"""second_mw: a privacy-first analytics endpoint of its own for any WSGI or ASGI app.

    from second_mw import Analytics, AnalyticsUser

    analytics = Analytics.from_env()
    app = analytics.wsgi(app, user=user_from_environ)

The names below load when they are first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from second_mw.version import VERSION as __version__

if TYPE_CHECKING:
    from second_mw.analytics import Analytics
    from second_mw.errors import (
        AnalyticsError,
        ConfigurationError,
        OutboxUnavailable,
        PreferencesUnavailable,
        Refused,
    )
    from second_mw.forwarder.dispatcher import Flushed
    from second_mw.jobs import Bound, Jobs
    from second_mw.payload import Payload
    from second_mw.privacy.catalogue import (
        Catalogue,
        Count,
        Duration,
        Event,
        Flag,
        Ident,
        Kind,
        Label,
        List,
        Model,
        Object,
        Route,
        Text,
    )
    from second_mw.privacy.receipt import Receipt
    from second_mw.server_code import Capture, Captured
    from second_mw.settings import Settings
    from second_mw.user import AnalyticsUser, Choice

_HOME = {
    "second_mw.analytics": ("Analytics",),
    "second_mw.errors": (
        "AnalyticsError",
        "ConfigurationError",
        "OutboxUnavailable",
        "PreferencesUnavailable",
        "Refused",
    ),
    "second_mw.forwarder.dispatcher": ("Flushed",),
    "second_mw.payload": ("Payload",),
    "second_mw.privacy.catalogue": (
        "Catalogue",
        "Count",
        "Duration",
        "Event",
        "Flag",
        "Ident",
        "Kind",
        "Label",
        "List",
        "Model",
        "Object",
        "Route",
        "Text",
    ),
    "second_mw.jobs": ("Bound", "Jobs"),
    "second_mw.privacy.receipt": ("Receipt",),
    "second_mw.server_code": ("Capture", "Captured"),
    "second_mw.settings": ("Settings",),
    "second_mw.user": ("AnalyticsUser", "Choice"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Analytics",
    "AnalyticsError",
    "AnalyticsUser",
    "Bound",
    "Capture",
    "Captured",
    "Catalogue",
    "Choice",
    "ConfigurationError",
    "Count",
    "Duration",
    "Event",
    "Flag",
    "Flushed",
    "Ident",
    "Jobs",
    "Kind",
    "Label",
    "List",
    "Model",
    "Object",
    "OutboxUnavailable",
    "Payload",
    "PreferencesUnavailable",
    "Receipt",
    "Refused",
    "Route",
    "Settings",
    "Text",
    "__version__",
]


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
