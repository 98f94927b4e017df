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


def signed(app: Any) -> Any:
    """Say in every answer which process gave it (WSGI)."""

    def answering(environ: Any, start_response: Any) -> Any:
        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            return start_response(status, [*headers, ("X-Process", str(os.getpid()))], *more)

        return app(environ, start)

    return answering


def async_signed(app: Any) -> Any:
    """The same for ASGI."""

    async def answering(scope: Any, receive: Any, send: Any) -> None:
        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                signature = (b"x-process", str(os.getpid()).encode())
                message = {**message, "headers": [*message["headers"], signature]}
            await send(message)

        await app(scope, receive, sending)

    return answering


def __getattr__(name: str) -> Any:
    """Wrap `app` (WSGI) and `async_app` (ASGI) when a server asks for them."""
    if name == "app":
        return signed(made().wsgi(host, user=lambda _: USER))
    if name == "async_app":
        wrapped = made().asgi(async_host, user=lambda _: USER, user_blocks=False)
        return async_signed(wrapped)
    raise AttributeError(name)


def capture_in_child() -> None:
    """What a child process does: capture, and end."""
    assert made().capture(USER, "page viewed")
