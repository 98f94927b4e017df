"""The hosts that the tests wrap, and one way of asking either: `Wsgi` and `Asgi` answer alike.

WSGI goes through webtest, ASGI through asgiref's ApplicationCommunicator.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import webtest
from asgiref.testing import ApplicationCommunicator

from second_mw import Analytics, AnalyticsUser

ADA = AnalyticsUser(
    "65f0c0ffee65f0c0ffee65f0",
    email="ada.lovelace@analytical.example",
    name="Ada Lovelace",
    workspaces={"w_engine": "admin", "w_looms": "member"},
)


@dataclass
class Reply:
    """What either adapter answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        import msgspec

        return msgspec.json.decode(self.body)

    @property
    def code(self) -> str | None:
        """The error's code, None if the body is no error."""
        return self.json.get("error") if self.body else None


def wsgi_host(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """A host that answers everything with its own words."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"the host's own"]


async def asgi_host(scope: Any, receive: Any, send: Any) -> None:
    """The same for ASGI."""
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", b"text/plain")],
        }
    )
    await send({"type": "http.response.body", "body": b"the host's own"})


class _Request(webtest.TestRequest):
    # webob would else park larger bodies in a temporary file that nothing closes.
    request_body_tempfile_limit = 1 << 30


@dataclass
class Wsgi:
    """Asks a wrapped WSGI host."""

    analytics: Analytics
    user: Any
    app: Any = field(default=wsgi_host)
    name = "wsgi"

    def __call__(self, method: str, path: str, body: bytes = b"", **headers: str | None) -> Reply:
        environ: dict[str, Any] = {
            "PATH_INFO": path.partition("?")[0],
            "QUERY_STRING": path.partition("?")[2],
            "REQUEST_METHOD": method,
            "HTTP_HOST": "app.example",
            "wsgi.url_scheme": "https",
        }
        for name, value in headers.items():
            if value is not None:
                key = name.upper()
                environ[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = value
        if method not in ("GET", "HEAD"):
            environ["wsgi.input"] = io.BytesIO(body)
            environ.setdefault("CONTENT_LENGTH", str(len(body)))
        wrapped = self.analytics.wsgi(self.app, user=self.user)
        request = _Request.blank("/", environ=environ)
        response = webtest.TestApp(wrapped, lint=True).request(request, expect_errors=True)
        return Reply(
            response.status_int, {k.lower(): v for k, v in response.headers.items()}, response.body
        )


@dataclass
class Asgi:
    """Asks a wrapped ASGI host."""

    analytics: Analytics
    user: Any
    app: Any = field(default=asgi_host)
    name = "asgi"

    def __call__(self, method: str, path: str, body: bytes = b"", **headers: str | None) -> Reply:
        raw = {"host": "app.example", "content_length": str(len(body)), **headers}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": method,
            "scheme": "https",
            "path": path.partition("?")[0],
            "raw_path": path.encode(),
            "query_string": path.partition("?")[2].encode(),
            "root_path": "",
            "server": ("app.example", 443),
            "client": ("192.0.2.7", 4711),
            "headers": [
                (name.replace("_", "-").encode(), value.encode("latin-1"))
                for name, value in raw.items()
                if value is not None
            ],
        }
        return asyncio.run(self._ask(scope, body))

    async def _ask(self, scope: dict[str, Any], body: bytes) -> Reply:
        wrapped = self.analytics.asgi(self.app, user=self.user, user_blocks=False)
        communicator = ApplicationCommunicator(wrapped, scope)
        await communicator.send_input({"type": "http.request", "body": body, "more_body": False})
        start = await communicator.receive_output(5)
        end = await communicator.receive_output(5)
        await communicator.wait(5)
        headers = {k.decode(): v.decode("latin-1") for k, v in start["headers"]}
        return Reply(start["status"], headers, end.get("body", b""))
