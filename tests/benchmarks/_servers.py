"""What the endpoint's benchmark serves, in processes of their own, and the sink that counts.

`python -m tests.benchmarks._servers sink` or `… uvicorn KIND SINK_URL` print their port. Under
gunicorn the WSGI apps are made by `wsgi_app(KIND, SINK_URL)`. Every app has a path `/flush`, which
is answered once its client has sent what waits.
"""

from __future__ import annotations

import asyncio
import gzip
import socket
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import msgspec

from second_mw import Analytics, AnalyticsUser

# As many users as a busy minute of a default rate allows; each is a person with a name.
USERS = [
    AnalyticsUser(f"user-{i:04d}-c0ffee", email=f"person{i}@company.example", name=f"Jo Person{i}")
    for i in range(2_000)
]


def user_of(number: str | bytes) -> AnalyticsUser:
    return USERS[int(number) % len(USERS)]


def analytics(sink: str) -> Analytics:
    return Analytics(token="phc_bench", host=sink, outbox="memory://?max=200000")


# ASGI


async def noop(scope: Any, receive: Any, send: Any) -> None:
    """Read the body and answer 204: what no endpoint can do without."""
    while (await receive()).get("more_body"):
        pass
    await _answer_204(send)


async def _answer_204(send: Any) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def _flushing(flush: Callable[[], object]) -> Any:
    """Return a host that sends what waits when it is asked to."""

    async def host(scope: Any, receive: Any, send: Any) -> None:
        if scope.get("path") == "/flush":
            await asyncio.to_thread(flush)
        await noop(scope, receive, send)

    return host


def _number_of(scope: Any) -> bytes:
    for name, value in scope["headers"]:
        if name == b"x-user":
            return bytes(value)
    return b"0"


def asgi_app(kind: str, sink: str) -> Any:
    if kind == "no-op":
        return noop
    if kind == "posthog":
        return _starlette_with_posthog(sink)

    def user(scope: Any) -> AnalyticsUser:
        return user_of(_number_of(scope))

    async def user_awaited(scope: Any) -> AnalyticsUser:
        return user_of(_number_of(scope))

    ours = analytics(sink)
    host = _flushing(ours.flush)
    if kind == "async":
        return ours.asgi(host, user=user_awaited)
    return ours.asgi(host, user=user, user_blocks=kind == "thread")


def _posthog(sink: str) -> Any:
    from posthog import Posthog

    return Posthog("phc_bench", host=sink, gzip=True, disable_geoip=True, max_queue_size=200_000)


def _starlette_with_posthog(sink: str) -> Any:
    """What one would write today: a route that hands the event to posthog-python."""
    from starlette.applications import Starlette
    from starlette.responses import Response
    from starlette.routing import Route

    client = _posthog(sink)

    async def capture(request: Any) -> Response:
        event = await request.json()
        user = user_of(request.headers["x-user"])
        client.capture(
            event["event"], distinct_id=user.id, properties=event["properties"], uuid=event["uuid"]
        )
        return Response(status_code=204)

    async def flush(request: Any) -> Response:
        await asyncio.to_thread(client.flush)
        return Response(status_code=204)

    return Starlette(
        routes=[
            Route("/api/analytics/capture", capture, methods=["POST"]),
            Route("/flush", flush, methods=["POST"]),
        ]
    )


# WSGI


def wsgi_noop(environ: Any, start_response: Any) -> Any:
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response("204 No Content", [])
    return [b""]


def wsgi_app(kind: str, sink: str) -> Any:
    if kind == "no-op":
        return wsgi_noop
    if kind == "posthog":
        return _flask_with_posthog(sink)
    ours = analytics(sink)

    def host(environ: Any, start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/flush":
            ours.flush()
        return wsgi_noop(environ, start_response)

    return ours.wsgi(host, user=lambda environ: user_of(environ.get("HTTP_X_USER", "0")))


def _flask_with_posthog(sink: str) -> Any:
    from flask import Flask, request

    client = _posthog(sink)
    app = Flask("bench")

    @app.post("/api/analytics/capture")
    def capture() -> Any:
        event = request.get_json()
        user = user_of(request.headers["x-user"])
        client.capture(
            event["event"], distinct_id=user.id, properties=event["properties"], uuid=event["uuid"]
        )
        return "", 204

    @app.post("/flush")
    def flush() -> Any:
        client.flush()
        return "", 204

    return app


# The sink


class _Sink(BaseHTTPRequestHandler):
    """Takes batches as PostHog does, and says how many different events it has seen."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    seen: ClassVar[set[str]] = set()
    lock: ClassVar = threading.Lock()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip" or body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        uuids = {str(event["uuid"]) for event in msgspec.json.decode(body)["batch"]}
        with self.lock:
            self.seen.update(uuids)
        self._say(b'{"status":1}')

    def do_GET(self) -> None:
        self._say(str(len(self.seen)).encode())

    def _say(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def main(what: str, kind: str = "", sink: str = "") -> None:
    if what == "sink":
        server = ThreadingHTTPServer(("127.0.0.1", 0), _Sink)
        _say_port(server.server_address[1])
        server.serve_forever()
    import uvicorn

    # With its protocol named, or asyncio would leave Nagle's algorithm on, as it is not under
    # `uvicorn app`: an answer of two writes then waits 40 ms for an ACK.
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.bind(("127.0.0.1", 0))
    bound.listen(512)
    _say_port(bound.getsockname()[1])
    config = uvicorn.Config(asgi_app(kind, sink), log_level="critical", access_log=False)
    uvicorn.Server(config).run(sockets=[bound])


def _say_port(port: int) -> None:
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
