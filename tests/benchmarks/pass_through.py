"""What wrapping adds to a request that is not ours, beside a minimal class and well-known peers.

Seconds of this thread's processor, so that a busy machine tells the same.

The bar: within 1.3 times of what a hand-written class adds that compares one path and delegates.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from asgiref.sync import markcoroutinefunction

from second_mw import Analytics
from tests.benchmarks.table import Spread, Table, interleaved, ratios, spread

TITLE: Final = "a request that is not ours"
_BAR: Final = "the bar: second_mw within 1.3× of the minimal class"


class MinimalWSGI:
    """One comparison, and the host's."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def __call__(self, environ: Any, start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/api/analytics/capture":
            return [b""]
        return self.app(environ, start_response)


class MinimalASGI:
    """The same; not `async def`, which would cost a frame more."""

    def __init__(self, app: Any) -> None:
        self.app = app

    @markcoroutinefunction
    def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        if scope.get("path") == "/api/analytics/capture":
            return _nothing()
        return self.app(scope, receive, send)


async def _nothing() -> None: ...


def _wsgi_host(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [])
    return [b""]


async def _asgi_host(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def measure(short: bool) -> list[Table]:
    """Return one table for WSGI and one for ASGI."""
    analytics = Analytics(token="phc_bench", host="http://127.0.0.1:9")
    try:
        wsgi = {"second_mw": analytics.wsgi(_wsgi_host), "minimal": MinimalWSGI(_wsgi_host)}
        asgi = {"second_mw": analytics.asgi(_asgi_host), "minimal": MinimalASGI(_asgi_host)}
        return [
            _table("WSGI", _wsgi_host, {**wsgi, **dict(_wsgi_peers())}, _time_wsgi, short),
            _table("ASGI", _asgi_host, {**asgi, **dict(_asgi_peers())}, _time_asgi, short),
        ]
    finally:
        analytics.close(0.0)


def _table(
    world: str,
    host: Any,
    wrapped: dict[str, Any],
    timed: Callable[[Any, int], float],
    short: bool,
) -> Table:
    rounds, calls = (2, 1_000) if short else (15, 2_000)

    def task(name: str, app: Any) -> Callable[[], float]:
        # A peer of fifty microseconds needs fewer calls for the same certainty.
        is_quick = name in ("host", "second_mw", "minimal")
        count, tries = (calls, 30) if is_quick else (200, 3)
        # Of a few nanoseconds, only the undisturbed runs say anything: the quickest of thirty.
        return lambda: min(timed(app, count) for _ in range(tries))

    figures = interleaved(
        rounds, **{name: task(name, app) for name, app in {"host": host, **wrapped}.items()}
    )
    added = {
        name: [max(1e-9, a - b) for a, b in zip(times, figures["host"], strict=True)]
        for name, times in figures.items()
        if name != "host"
    }
    rows = [
        (name, spread([t * 1e6 for t in times], " µs"), _ratio(times, added["minimal"]))
        for name, times in sorted(added.items(), key=lambda item: spread(item[1]).median)
    ]
    return Table(
        ("middleware", "adds to a request", "to the minimal class"),
        rows,
        notes=(_BAR, *_missing(world, set(wrapped))),
        title=world,
    )


def _ratio(times: list[float], to: list[float]) -> Spread:
    return ratios(times, to)


def _time_wsgi(app: Any, calls: int) -> float:
    """Return seconds for one call."""
    environ = _environ()
    start_response = _start_response
    if calls < 500:
        # Peers write into environ; each call of theirs gets one of its own, as a server gives it.
        environs = [_environ() for _ in range(calls)]
        began = time.thread_time()
        for environ in environs:
            for _ in app(environ, start_response):
                pass
        return (time.thread_time() - began) / calls
    began = time.thread_time()
    for _ in range(calls):
        app(environ, start_response)
    return (time.thread_time() - began) / calls


def _start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
    return None


def _environ() -> dict[str, Any]:
    import io

    return {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/orders/7",
        "QUERY_STRING": "",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "app.example",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": io.StringIO(),
        "wsgi.version": (1, 0),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }


def _time_asgi(app: Any, calls: int) -> float:
    """Return seconds for one call; every coroutine here ends without waiting."""
    if calls < 500:
        return _time_awaited(app, calls)
    scope = _scope()
    began = time.thread_time()
    for _ in range(calls):
        try:
            app(scope, _receive, _send).send(None)
        except StopIteration:
            pass
    return (time.thread_time() - began) / calls


def _time_awaited(app: Any, calls: int) -> float:
    """The same on an event loop, which peers with tasks and context variables need."""
    import asyncio

    async def run() -> float:
        scopes = [_scope() for _ in range(calls)]
        began = time.thread_time()
        for scope in scopes:
            await app(scope, _receive, _send)
        return (time.thread_time() - began) / calls

    return asyncio.run(run())


def _scope() -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/orders/7",
        "raw_path": b"/orders/7",
        "query_string": b"",
        "root_path": "",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 4711),
        "headers": [(b"host", b"app.example"), (b"origin", b"http://app.example")],
        "state": {},
    }


async def _receive() -> Any:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(message: Any) -> None: ...


# Peers, where they are installed

_PEERS: Final = {
    "WSGI": ("sentry", "opentelemetry"),
    "ASGI": ("CORSMiddleware", "BaseHTTPMiddleware", "posthog", "sentry", "opentelemetry"),
}


def _missing(world: str, found: set[str]) -> list[str]:
    absent = [name for name in _PEERS[world] if name not in found]
    return [f"not installed: {', '.join(absent)} (requirements-peers.txt)"] if absent else []


def _wsgi_peers() -> Iterator[tuple[str, Any]]:
    try:
        from sentry_sdk.integrations.wsgi import SentryWsgiMiddleware

        _start_sentry()
        yield "sentry", SentryWsgiMiddleware(_wsgi_host)
    except ImportError:
        pass
    try:
        from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware

        yield "opentelemetry", OpenTelemetryMiddleware(_wsgi_host)
    except ImportError:
        pass


def _asgi_peers() -> Iterator[tuple[str, Any]]:
    try:
        from starlette.middleware.base import BaseHTTPMiddleware
        from starlette.middleware.cors import CORSMiddleware

        async def dispatch(request: Any, call_next: Any) -> Any:
            return await call_next(request)

        yield "CORSMiddleware", CORSMiddleware(_asgi_host, allow_origins=["http://app.example"])
        yield "BaseHTTPMiddleware", BaseHTTPMiddleware(_asgi_host, dispatch)
    except ImportError:
        pass
    try:
        from posthog.integrations.asgi import PosthogContextMiddleware

        yield "posthog", PosthogContextMiddleware(_asgi_host)
    except ImportError:
        pass
    try:
        from sentry_sdk.integrations.asgi import SentryAsgiMiddleware

        _start_sentry()
        yield "sentry", SentryAsgiMiddleware(_asgi_host)
    except ImportError:
        pass
    try:
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

        yield "opentelemetry", OpenTelemetryMiddleware(_asgi_host)
    except ImportError:
        pass


def _start_sentry() -> None:
    import sentry_sdk

    # No project to send to: what is measured is the middleware, not the network.
    sentry_sdk.init(dsn=None, traces_sample_rate=1.0)
