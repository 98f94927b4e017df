"""The demo, served in this process by either of its hosts, with the real inbox behind it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import uvicorn
from werkzeug.serving import make_server

from demos.flask_host import create_app as flask_app
from demos.product.story import Story
from demos.starlette_host import create_app as starlette_app
from second_mw import Analytics
from second_mw.inbox.app import InboxServer
from second_mw.inbox.receipts import ReceiptSender

BUILD_SECONDS = 0.3
PATIENCE = 60.0


@contextlib.contextmanager
def flask_served(analytics: Analytics, story: Story) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, flask_app(analytics, story), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def starlette_served(analytics: Analytics, story: Story) -> Iterator[str]:
    started = threading.Event()

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            started.set()

    config = uvicorn.Config(
        starlette_app(analytics, story), port=0, log_config=None, timeout_graceful_shutdown=2
    )
    server = Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert started.wait(PATIENCE)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


SERVED: dict[str, Callable[[Analytics, Story], contextlib.AbstractContextManager[str]]] = {
    "flask": flask_served,
    "starlette": starlette_served,
}
HOSTS = [*SERVED]


@dataclass
class Arrived:
    """What has arrived in the inbox behind a demo."""

    inbox: InboxServer
    analytics: Analytics

    @property
    def events(self) -> list[dict[str, Any]]:
        """Every event so far, in order, once what waits is delivered."""
        assert self.analytics.flush(PATIENCE).left == 0
        return self.inbox.events()

    def until(self, name: str, count: int = 1) -> dict[str, Any]:
        """Wait for so many events of this name, and return the first."""

        def named() -> list[dict[str, Any]]:
            return [event for event in self.inbox.events() if event["event"] == name]

        assert self.inbox.wait_for(lambda: len(named()) >= count, PATIENCE), name
        return named()[0]


@contextlib.contextmanager
def demo(host: str, **fields: Any) -> Iterator[tuple[str, Arrived]]:
    """The demo in this process, and what arrives in the inbox behind it."""
    with InboxServer(port=0) as inbox:
        receipts = ReceiptSender(f"{inbox.url}/receipts")
        # One sender keeps the order in which things happened.
        analytics = Analytics(**{
            "token": "phc_test",
            "host": inbox.url,
            "on_receipt": receipts,
            "flush_interval": 0.2,
            "max_in_flight": 1,
            **fields,
        })  # fmt: skip
        try:
            with SERVED[host](analytics, Story(build_seconds=BUILD_SECONDS)) as address:
                yield address, Arrived(inbox, analytics)
        finally:
            analytics.close(timeout=1.0)
            receipts.close()
