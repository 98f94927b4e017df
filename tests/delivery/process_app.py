"""The app that the process tests serve, and what their children do."""

from __future__ import annotations

import os
from typing import Any

from second_mw import Analytics, AnalyticsUser

USER = AnalyticsUser("u_1", anonymized=True, sharing=True)


def made() -> Analytics:
    """Return an Analytics of the environment that sends nothing before it is flushed."""
    return Analytics.from_env(flush_interval=float(os.environ.get("INTERVAL", "3600")))


def host(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


async def async_host(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        for word in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{word}.complete"})
    elif scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})


def __getattr__(name: str) -> Any:
    """Wrap `app` (WSGI) and `async_app` (ASGI) when a server asks for them."""
    if name == "app":
        return made().wsgi(host, user=lambda _: USER)
    if name == "async_app":
        return made().asgi(async_host, user=lambda _: USER, user_blocks=False)
    raise AttributeError(name)


def capture_in_child() -> None:
    """What a child process does: capture, and end."""
    assert made().capture(USER, "page viewed")
