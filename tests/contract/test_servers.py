"""Under real servers: what they take the wrapped app for, and that a request arrives either way."""

from __future__ import annotations

import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
import uvicorn
from asgiref.compatibility import guarantee_single_callable, is_double_callable
from asgiref.sync import iscoroutinefunction

from tests.hosts import ADA, asgi_host
from tests.stores import Kept

CAPTURE = "/api/analytics/capture"


def test_asgiref_takes_the_wrapped_app_for_asgi_3(make) -> None:
    wrapped = make().asgi(asgi_host)
    assert not is_double_callable(wrapped)
    assert guarantee_single_callable(wrapped) is wrapped


def test_the_mark_is_on_the_function_in_the_class_where_everybody_looks(make) -> None:
    """Marking the instance does nothing: uvicorn, asgiref and Sentry look at `__call__`."""
    wrapped = make().asgi(asgi_host)
    assert iscoroutinefunction(wrapped.__call__)
    assert iscoroutinefunction(type(wrapped).__call__)


def test_uvicorns_auto_takes_it_for_asgi_3(make) -> None:
    config = uvicorn.Config(make().asgi(asgi_host), interface="auto")
    config.load()
    assert config.interface == "asgi3"


@pytest.fixture
def serve() -> Any:
    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def serve(app: Any, **options: Any) -> str:
        bound = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(app, log_level="critical", **options)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        running.append((server, thread))
        return f"http://127.0.0.1:{bound.getsockname()[1]}"

    yield serve
    for server, thread in running:
        server.should_exit = True
        thread.join(60)


def status_of(url: str, body: bytes | None = None) -> int:
    headers = {"Content-Type": "application/json"}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, body, headers), timeout=60
        ) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return int(error.code)


@pytest.mark.parametrize("prefix", ["", "/sub"])
def test_uvicorn_serves_both_ours_and_the_hosts_under_a_root_path_too(
    prefix: str, make, serve: Callable[..., str]
) -> None:
    analytics = make(outbox=Kept())
    wrapped = analytics.asgi(asgi_host, user=lambda _: ADA, user_blocks=False)
    url = serve(wrapped, root_path=prefix)
    assert status_of(f"{url}{CAPTURE}", b'{"event":"page viewed"}') == 204
    assert status_of(f"{url}/orders/7") == 200
    assert status_of(f"{url}{CAPTURE}/", b"{}") == 200  # the host's
    assert analytics.stats()["accepted"] == 1
