"""The processes of the chaos test: web servers' app and forwarder, in a time that runs faster.

Waits and leases that are made for real outages (a minute and more) are cut to seconds here, so
that an outage, and what follows it, fits into the test. Nothing else differs from production.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from second_mw import Analytics, AnalyticsUser
from second_mw.cli import forward, main
from second_mw.forwarder import delivery, dispatcher, retry
from second_mw.settings import Settings

TIMEOUTS = {"connect_timeout": 0.5, "read_timeout": 1.0, "shutdown_timeout": 1.0}
FAST: dict[str, Any] = {**TIMEOUTS, "flush_interval": 0.2, "max_batch_events": 100}


def hurry() -> None:
    """Cut the waits of this process."""
    delivery.BETWEEN_ROUNDS = 1.0  # type: ignore[misc]
    delivery.PROBE_AFTER = 0.5  # type: ignore[misc]
    delivery.SUSPECTS_WAIT = 1.0  # type: ignore[misc]
    dispatcher._SHORTEST_LEASE = 1.0  # type: ignore[misc]
    retry._FIRST, retry._CAP = 0.05, 0.5  # type: ignore[misc]


def say_that_it_is_up() -> None:
    """Leave a file named after this process; only what is up is worth killing."""
    (Path(os.environ["CHAOS_UP"]) / str(os.getpid())).touch()


def user(of: dict[str, Any]) -> AnalyticsUser:
    """Return the user whom the load names in a header, of environ or of scope."""
    named = of.get("HTTP_X_USER") or dict(of["headers"])[b"x-user"].decode()
    return AnalyticsUser(named, anonymized=True, sharing=True)


def host(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


async def async_host(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})


def __getattr__(name: str) -> Any:
    """Wrap `app` (WSGI) and `async_app` (ASGI) when a server asks for them."""
    if name not in ("app", "async_app"):
        raise AttributeError(name)
    hurry()
    # Else every worker that replaces a killed one would spend its short life importing it.
    import_module("second_mw.forwarder.transport")
    analytics = Analytics.from_env(rate=None, **FAST)
    say_that_it_is_up()
    if name == "app":
        return analytics.wsgi(host, user=user)
    return analytics.asgi(async_host, user=user, user_blocks=False)


if __name__ == "__main__":
    hurry()
    forward.Settings = SimpleNamespace(  # type: ignore[assignment, misc]
        load=lambda given, environ: Settings.load({**FAST, **given}, environ)
    )
    say_that_it_is_up()
    sys.exit(main(["forward", "--outbox", os.environ["SECOND_ANALYTICS_OUTBOX"]]))
