"""Real hosts under real servers: Flask under waitress, Starlette under uvicorn, before an inbox.

What is asked and answered here went over sockets; nothing of the package is replaced.
"""

from __future__ import annotations

import http.client
import json
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NamedTuple

import pytest
import uvicorn
import waitress
import waitress.wasyncore
from flask import Flask, request
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from second_mw import Analytics, AnalyticsUser
from second_mw.contrib.flask import SecondAnalytics
from second_mw.inbox.app import InboxServer

Serve = Callable[[Analytics], Any]


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


def ask(port: int, method: str, path: str, document: Any = None, user: str = "u_1") -> Answer:
    """Ask over a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        body = json.dumps(document) if document is not None else None
        headers = {"Content-Type": "application/json", "X-User": user}
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        named = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, named, response.read())
    finally:
        connection.close()


def capture(port: int, user: str = "u_1") -> tuple[Answer, str]:
    """Post one event; return the answer and the event's uuid."""
    own = str(uuid.uuid4())
    event = {"event": "page viewed", "uuid": own, "properties": {"route_shape": "/app/:id"}}
    return ask(port, "POST", "/api/analytics/capture", event, user), own


@contextmanager
def flask_under_waitress(analytics: Analytics) -> Iterator[int]:
    app = Flask(__name__)
    app.add_url_rule("/", view_func=lambda: "the host's own")
    SecondAnalytics(app, analytics, user=lambda: AnalyticsUser(request.headers["X-User"]))
    server = waitress.create_server(app, host="127.0.0.1", port=0, threads=8)

    def run() -> None:
        # It ends when nothing is left to wait for, or when what it waits for is closed meanwhile.
        with suppress(OSError):
            server.run()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield int(server.effective_port)
    finally:
        # Those that answer first: at their end they still tell the one that waits.
        server.task_dispatcher.shutdown()
        server.close()
        thread.join()
        # Connections whose end the thread did not live to read.
        waitress.wasyncore.close_all(server._map)


@contextmanager
def starlette_under_uvicorn(analytics: Analytics) -> Iterator[int]:
    async def page(_: Any) -> PlainTextResponse:
        return PlainTextResponse("the host's own")

    async def user(scope: Any) -> AnalyticsUser:
        return AnalyticsUser(dict(scope["headers"])[b"x-user"].decode())

    app = analytics.asgi(Starlette(routes=[Route("/", page)]), user=user)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on"))
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()


SERVED = pytest.mark.parametrize(
    "serve",
    [flask_under_waitress, starlette_under_uvicorn],
    ids=["flask-waitress", "starlette-uvicorn"],
)


@SERVED
@pytest.mark.parametrize("protocol", ["v0", "v1"])
def test_a_thousand_events_from_several_threads_are_exactly_these_in_the_inbox(
    serve: Serve, protocol: str
) -> None:
    with InboxServer(port=0) as inbox:
        analytics = Analytics(token="phc_test", host=inbox.url, protocol=protocol, rate=None)
        with serve(analytics) as port, ThreadPoolExecutor(8) as browsers:
            posted = list(browsers.map(lambda n: capture(port, f"u_{n % 7}"), range(1000)))
            assert analytics.flush(60.0).left == 0
        assert {answer.status for answer, _ in posted} == {204}
        events = inbox.events()
        assert len(events) == 1000
        assert {event["uuid"] for event in events} == {own for _, own in posted}
        assert analytics.stats()["delivered"] == 1000
        analytics.close(0.0)


@SERVED
def test_what_waits_when_a_server_stops_is_sent_before_it_has_stopped(serve: Serve) -> None:
    with InboxServer(port=0) as inbox:
        analytics = Analytics(token="phc_test", host=inbox.url, flush_interval=3600.0)
        with serve(analytics) as port:
            answer, own = capture(port)
            assert (answer.status, inbox.events()) == (204, [])
        if serve is flask_under_waitress:
            # WSGI has no end that an app hears of; a process's exit closes what is open.
            analytics.close()
        assert [event["uuid"] for event in inbox.events()] == [own]
        analytics.close(0.0)


# PostHog is down


@contextmanager
def refusing() -> Iterator[tuple[str, Callable[[], InboxServer]]]:
    """Yield the URL of a port that nobody listens at, and what makes an inbox of it."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", 0))

    def mend() -> InboxServer:
        bound.listen(128)
        return InboxServer(listening=bound)

    with bound:
        yield f"http://127.0.0.1:{bound.getsockname()[1]}", mend


@contextmanager
def hanging() -> Iterator[tuple[str, Callable[[], InboxServer]]]:
    """Yield the URL of a port that takes connections and never answers until it is mended."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    with listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        yield url, lambda: InboxServer(listening=listener)


@contextmanager
def unavailable() -> Iterator[tuple[str, Callable[[], InboxServer]]]:
    """Yield the URL of an inbox that answers 503."""
    with InboxServer(port=0, fail="503") as inbox:

        def mend() -> InboxServer:
            inbox.fail = None
            return inbox

        yield inbox.url, mend


@SERVED
@pytest.mark.parametrize("outage", [refusing, hanging, unavailable])
def test_while_posthog_is_down_the_host_answers_and_nothing_is_lost_while_there_is_room(
    serve: Serve, outage: Callable[[], Any]
) -> None:
    with ExitStack() as stack:
        url, mend = stack.enter_context(outage())
        analytics = Analytics(
            token="phc_test",
            host=url,
            outbox="memory://?max=50",
            flush_at=1,
            connect_timeout=1.0,
            read_timeout=1.0,
        )
        port = stack.enter_context(serve(analytics))
        browsers = stack.enter_context(ThreadPoolExecutor(4))

        taken = list(browsers.map(lambda _: capture(port), range(50)))
        full, too_many = capture(port)
        page = ask(port, "GET", "/")

        # PostHog has not answered for a single event, and every answer above has come.
        stats = analytics.stats()
        assert (stats["waiting"], stats["delivered"], stats["dead"]) == (50, 0, 0)
        assert {answer.status for answer, _ in taken} == {204}
        assert (page.status, page.body) == (200, b"the host's own")
        assert (full.status, json.loads(full.body)["error"]) == (503, "outbox_unavailable")
        assert int(full.headers["retry-after"]) > 0

        inbox = stack.enter_context(mend())
        _until_delivered(analytics, 50)
        arrived = [event["uuid"] for event in inbox.events()]
        assert sorted(arrived) == sorted(own for _, own in taken)
        assert too_many not in arrived
        assert capture(port)[0].status == 204
        analytics.close(30.0)


def _until_delivered(analytics: Analytics, count: int) -> None:
    """Flush until so many are delivered: an outage that has just ended may ask for patience."""
    pause = threading.Event()
    for _ in range(600):
        analytics.flush(1.0)
        if analytics.stats()["delivered"] >= count:
            return
        pause.wait(0.1)
    raise AssertionError(analytics.stats())
