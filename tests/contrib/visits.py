"""A browser's visit to an app of any framework: a page, an event, the switch, another event."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple, Protocol

import webtest

from second_mw.contrib.captured import CapturedEvents

with warnings.catch_warnings():
    # Its newest release would rather have httpx2, older ones know only httpx.
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient

PREFIX = "/api/analytics"
#: What a call site posts that must not leave in anonymized mode, and what may.
POSTED = {"surface": "settings", "user_email": "ada@analytical.example", "note": "for Ada"}


class Reply(NamedTuple):
    status: int
    text: str
    json: Any


class Browser(Protocol):
    def __call__(self, method: str, path: str, json: Any = None) -> Reply: ...


@contextmanager
def wsgi_browser(app: Any, **environ: str) -> Iterator[Browser]:
    """A browser, with cookies, of a WSGI app."""
    tested = webtest.TestApp(app, extra_environ=environ or None)

    def ask(method: str, path: str, json: Any = None) -> Reply:
        if json is None:
            got = tested.request(path, method=method, expect_errors=True)
        else:
            send = tested.put_json if method == "PUT" else tested.post_json
            got = send(path, json, expect_errors=True)
        is_json = "json" in (got.content_type or "")
        return Reply(got.status_int, got.text if got.body else "", got.json if is_json else None)

    yield ask


@contextmanager
def asgi_browser(app: Any, *, lifespan: bool = True, **headers: str) -> Iterator[Browser]:
    """A browser, with cookies, of an ASGI app; `lifespan` says whether the app knows that scope."""
    client = TestClient(app, headers=headers or None)

    def ask(method: str, path: str, json: Any = None) -> Reply:
        got = client.request(method, path, json=json)
        is_json = "json" in got.headers.get("content-type", "")
        return Reply(got.status_code, got.text, got.json() if is_json else None)

    with client if lifespan else nullcontext():
        yield ask
    client.close()


def walk(ask: Browser, captured: CapturedEvents, *, page: str = "/", prefix: str = PREFIX) -> str:
    """Sign in at a page, post an event, switch, post another; return the page.

    The first event has to be anonymized, the second identified.
    """
    got = ask("GET", page)
    assert got.status == 200, got
    event = {"event": "page viewed", "properties": POSTED}
    assert ask("POST", f"{prefix}/capture", event).status == 204
    (first,) = captured
    assert first.mode == "anonymized"
    posted = {key: first.properties.get(key) for key in POSTED}
    assert posted == {"surface": "settings", "user_email": None, "note": "[redacted:text]"}
    assert first.user is not None
    captured.assert_anonymous(first.user)
    assert first.distinct_id.startswith("anon_")
    assert ask("GET", f"{prefix}/preferences").json["effective"] == "anonymized"
    switched = ask("PUT", f"{prefix}/preferences", {"anonymized": False})
    assert (switched.status, switched.json["effective"]) == (200, "identified")
    assert ask("POST", f"{prefix}/capture", event).status == 204
    assert captured.names == ["page viewed", "$identify", "page viewed"]
    second = captured[-1]
    assert (second.mode, second.properties["user_email"]) == (
        "identified", "ada@analytical.example",
    )  # fmt: skip
    return got.text
