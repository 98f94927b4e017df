"""A request that is not ours passes untouched; mounts, lifespan, hosts that stream or raise."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import Any

import pytest
from asgiref.testing import ApplicationCommunicator

from second_mw import AnalyticsUser
from tests.hosts import ADA, Asgi, Wsgi

CAPTURE = "/api/analytics/capture"
EVENT = b'{"event":"page viewed"}'
NOT_OURS = [
    "/",
    "/api/analytics",
    "/api/analytics/",
    "/api/analytics/capture/",
    "/api/analytics//capture",
    "/api/analytics/other",
    "/api/analytics/capture/more",
    "/x/api/analytics/capture",
    "/API/analytics/capture",
    "/api/analytics%2fcapture",
]


def never(_: Any) -> AnalyticsUser:
    raise AssertionError("the resolver is called on our own paths only")


@pytest.mark.parametrize("path", NOT_OURS)
def test_every_other_path_goes_to_the_host(path: str, adapter, make) -> None:
    reply = adapter(make(), never)("POST", path, b"the body")
    assert (reply.status, reply.body) == (200, b"the host's own")


class Unread:
    """A body that nobody may read."""

    def read(self, *args: Any) -> bytes:
        raise AssertionError("the body of another request was read")

    readline = readlines = __iter__ = read


# PEP 3333: a server may leave out what is empty.
@pytest.mark.parametrize("path", [{"PATH_INFO": "/"}, {}])
def test_a_wsgi_host_gets_the_very_same_objects(make, path: dict[str, str]) -> None:
    seen: list[Any] = []

    def host(environ: Any, start_response: Any) -> Any:
        seen.extend((environ, start_response, dict(environ)))
        return iterable

    def start_response(*args: Any) -> None: ...

    iterable = object()
    environ = {**path, "wsgi.input": Unread(), "REQUEST_METHOD": "POST"}
    before = dict(environ)
    answered = make().wsgi(host, user=never)(environ, start_response)
    assert seen[0] is environ
    assert seen[1] is start_response
    assert seen[2] == before
    assert answered is iterable


@pytest.mark.parametrize(
    "scope",
    [
        {"type": "http", "path": "/", "method": "GET", "headers": []},
        {"type": "websocket", "path": CAPTURE, "headers": []},
        {"type": "websocket", "path": "/"},
        {"type": "something.new"},
    ],
    ids=lambda scope: f"{scope['type']} {scope.get('path')}",
)
def test_an_asgi_host_gets_the_very_same_objects(scope: dict[str, Any], make) -> None:
    seen: list[Any] = []

    async def host(*args: Any) -> None:
        seen.extend(args)

    async def receive() -> Any:
        raise AssertionError("the body of another request was read")

    async def send(_: Any) -> None: ...

    before = dict(scope)
    asyncio.run(make().asgi(host, user=never)(scope, receive, send))
    assert seen[0] is scope
    assert scope == before
    assert seen[1] is receive
    assert seen[2] is send


def test_an_exception_of_the_host_passes_through_unchanged(make) -> None:
    error = RuntimeError("the host's own")

    def wsgi(environ: Any, start_response: Any) -> Any:
        raise error

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        raise error

    with pytest.raises(RuntimeError) as caught:
        make().wsgi(wsgi)({"PATH_INFO": "/"}, lambda *_: None)
    assert caught.value is error

    async def call() -> None:
        await make().asgi(asgi)({"type": "http", "path": "/"}, None, None)

    with pytest.raises(RuntimeError) as caught:
        asyncio.run(call())
    assert caught.value is error


def test_a_host_that_streams_is_not_buffered(make) -> None:
    told: list[str] = []

    def wsgi(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        for part in ("one", "two"):
            told.append(part)
            yield part.encode()

    stream = iter(make().wsgi(wsgi)({"PATH_INFO": "/"}, lambda *_: None))
    assert next(stream) == b"one"
    assert told == ["one"]
    assert list(stream) == [b"two"]


def test_what_a_host_says_in_a_context_is_heard_around_it(make) -> None:
    word = contextvars.ContextVar("word", default="none")
    heard: list[str] = []

    async def host(scope: Any, receive: Any, send: Any) -> None:
        heard.append(word.get())
        word.set("the host's")

    async def around() -> None:
        word.set("before")
        await make().asgi(host)({"type": "http", "path": "/"}, None, None)
        heard.append(word.get())

    asyncio.run(around())
    assert heard == ["before", "the host's"]


# Mounts


def test_under_script_name_the_rest_of_the_path_counts(make) -> None:
    wrapped = make().wsgi(lambda *_: [b"host"], user=lambda _: None)
    answers: list[str] = []
    environ = {
        "SCRIPT_NAME": "/sub",
        "PATH_INFO": CAPTURE,
        "REQUEST_METHOD": "GET",
        "SERVER_NAME": "x",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
    }
    wrapped(environ, lambda status, headers: answers.append(status))
    assert answers == ["405 Method Not Allowed"]


@pytest.mark.parametrize(
    ("root_path", "path", "ours"),
    [
        ("", CAPTURE, True),
        ("/sub", "/sub" + CAPTURE, True),  # ASGI: path includes root_path
        ("/sub", CAPTURE, True),  # servers that leave it out
        ("/sub", "/subway" + CAPTURE, False),
        ("/sub", "/other/sub" + CAPTURE, False),
        ("/api/analytics", CAPTURE, False),  # the mount's own path is /capture
        ("/sub", "/sub", False),
    ],
)
def test_under_root_path_the_path_below_the_mount_counts(
    root_path: str, path: str, ours: bool, make
) -> None:
    ask = Asgi(make(), lambda _: None)
    wrapped = ask.analytics.asgi(ask.app, user=ask.user)
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "root_path": root_path,
        "headers": [],
        "scheme": "http",
    }

    async def call() -> int:
        communicator = ApplicationCommunicator(wrapped, scope)
        start = await communicator.receive_output(5)
        await communicator.receive_output(5)
        await communicator.wait(5)
        return start["status"]

    assert asyncio.run(call()) == (405 if ours else 200)


def test_the_prefix_can_be_set(adapter, make) -> None:
    ask = adapter(make(prefix="/e/v1"), lambda _: ADA)
    assert ask("POST", "/e/v1/capture", EVENT, content_type="application/json").status == 204
    assert ask("POST", CAPTURE, EVENT, content_type="application/json").body == b"the host's own"


# Lifespan


async def _lifespan(app: Any, *messages: str) -> list[str]:
    communicator = ApplicationCommunicator(app, {"type": "lifespan"})
    answers = []
    for message in messages:
        await communicator.send_input({"type": message})
        answers.append((await communicator.receive_output(5))["type"])
    await communicator.wait(5)
    return answers


async def _living(scope: Any, receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


def test_a_host_with_lifespan_behaves_as_unwrapped(make) -> None:
    messages = ("lifespan.startup", "lifespan.shutdown")
    bare = asyncio.run(_lifespan(_living, *messages))
    assert asyncio.run(_lifespan(make().asgi(_living), *messages)) == bare


def test_the_end_of_a_shutdown_is_held_back_until_the_flush_has_ended(make, monkeypatch) -> None:
    analytics = make()
    order: list[str] = []
    monkeypatch.setattr(analytics, "shutdown", lambda: order.append("flushed"))

    async def call() -> None:
        wrapped = analytics.asgi(_living)
        communicator = ApplicationCommunicator(wrapped, {"type": "lifespan"})
        await communicator.send_input({"type": "lifespan.startup"})
        order.append((await communicator.receive_output(5))["type"])
        await communicator.send_input({"type": "lifespan.shutdown"})
        order.append((await communicator.receive_output(5))["type"])
        await communicator.wait(5)

    asyncio.run(call())
    assert order == ["lifespan.startup.complete", "flushed", "lifespan.shutdown.complete"]


def test_a_host_without_lifespan_behaves_as_unwrapped(make) -> None:
    async def host(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise ValueError("only http here")

    async def outcome(app: Any) -> str:
        with pytest.raises(ValueError) as caught:
            await _lifespan(app, "lifespan.startup")
        return str(caught.value)

    assert asyncio.run(outcome(make().asgi(host))) == asyncio.run(outcome(host))


def test_nothing_depends_on_lifespan(make) -> None:
    analytics = make()
    reply = Asgi(analytics, lambda _: ADA)("POST", CAPTURE, EVENT, content_type="application/json")
    assert (reply.status, analytics.stats()["accepted"]) == (204, 1)


# Resolvers under ASGI


def test_a_sync_resolver_runs_in_a_thread_unless_it_says_that_it_does_not_block(make) -> None:
    threads: list[bool] = []

    def user(_: Any) -> AnalyticsUser:
        threads.append(threading.current_thread() is threading.main_thread())
        return ADA

    async def call(**options: Any) -> None:
        wrapped = make().asgi(lambda *_: None, user=user, **options)
        scope = {
            "type": "http",
            "method": "POST",
            "path": CAPTURE,
            "headers": [(b"content-type", b"application/json")],
            "scheme": "http",
        }
        communicator = ApplicationCommunicator(wrapped, scope)
        await communicator.send_input({"type": "http.request", "body": EVENT})
        assert (await communicator.receive_output(5))["status"] == 204
        await communicator.receive_output(5)
        await communicator.wait(5)

    asyncio.run(call())
    asyncio.run(call(user_blocks=False))
    assert threads == [False, True]


@pytest.mark.parametrize("ask", [Wsgi, Asgi])
def test_a_host_may_leave_the_user_in_environ_or_scope(ask, make, caplog) -> None:
    """Without a resolver; anything there that is no AnalyticsUser is an error that says so."""
    analytics = make()
    kwargs = {"user": None}

    def left(value: Any) -> int:
        adapter = ask(analytics, **kwargs)
        original = analytics.wsgi, analytics.asgi

        def wsgi(app: Any, user: Any = None) -> Any:
            inner = original[0](app, user)
            return lambda environ, start: inner({**environ, "second_mw.user": value}, start)

        def asgi(app: Any, user: Any = None, **options: Any) -> Any:
            inner = original[1](app, user, **options)

            async def wrapped(scope: Any, receive: Any, send: Any) -> None:
                await inner({**scope, "second_mw.user": value}, receive, send)

            return wrapped

        analytics.wsgi, analytics.asgi = wsgi, asgi  # type: ignore[method-assign]
        try:
            return adapter("POST", CAPTURE, EVENT, content_type="application/json").status
        finally:
            del analytics.wsgi, analytics.asgi

    assert [left(ADA), left(None), left({"id": "u_1"})] == [204, 401, 500]
    (record,) = [r for r in caplog.records if r.exc_info]
    assert "dict under 'second_mw.user'" in str(record.exc_info[1])


def test_a_user_that_is_no_callable_is_refused_at_start_up(make) -> None:
    with pytest.raises(TypeError, match="user must be a callable"):
        make().wsgi(lambda *_: [], user=ADA)
