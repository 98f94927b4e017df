"""Random and mutated requests through both adapters at once: they agree, and nothing breaks.

For each: the same status and code from both, never a 5xx, never an exception, and nothing queued
unless the answer says so. `pytest tests/abuse/test_fuzz.py --fuzz-minutes 30` looks for longer
and elsewhere each time; in CI the examples are always the same.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from second_mw import Analytics, AnalyticsUser
from tests.abuse.drive import (
    CAPTURE,
    EVENT,
    IDENTIFY,
    JSON,
    PREFERENCES,
    Told,
    asgi_reply,
    wsgi_reply,
)
from tests.hosts import ADA, Reply, asgi_host, wsgi_host
from tests.stores import Kept

PATHS = (CAPTURE, PREFERENCES, IDENTIFY, "/api/analytics/client.js", "/api/analytics/settings.js")
USERS = (ADA, None, AnalyticsUser("new", onboarded=False), AnalyticsUser("u_9", anonymized=False))
NAMES = ("page viewed", "build completed", "approval shown", "chat initiated", "$identify", "", "x")
KEYS = (
    "event", "properties", "batch", "uuid", "timestamp", "subject", "anonymousDistinctId",
    "anonymized", "workspace_id", "workspaceId", "sharing", "route_shape", "message", "plan_title",
    "page_url", "$set", "__proto__", "runtime_model", "viewport_width", "file_count",
)  # fmt: skip
WORDS = (
    "page viewed", "w_engine", "w_other", ADA.id, ADA.email, "Ada Lovelace", "anon_", "null", "",
    "0190a6e4-3d5b-7c1e-8a52-0123456789ab", "2026-11-24T04:03:00Z", "/w/engine/apps/65f0c0ffee",
    "https://app.example/?q=1#x", "gpt-5 mini", "sk-ant-0123456789", "\ud800", "\u202e\u200b", "﹫",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc", "%41%64%61", "QWRhIExvdmVsYWNl", "4111111111111111",
)  # fmt: skip
JSON_BYTES = (
    b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\", b"\\u", b"\\ud83d", b"NaN", b"1e999", b"-",
    b"\0", b"\xff", b"\xef\xbb\xbf", b"null", b"true", b"9" * 400, b"[" * 300, b'{"a":' * 90,
)  # fmt: skip

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(WORDS),
    st.text(max_size=40),
)
keys = st.one_of(st.sampled_from(KEYS), st.text(max_size=12))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(keys, inner, max_size=6)),
    max_leaves=14,
)
events = st.fixed_dictionaries(
    {"event": st.sampled_from(NAMES)},
    optional={
        "properties": st.one_of(st.none(), st.dictionaries(keys, values, max_size=10), values),
        "uuid": st.one_of(st.uuids(version=4).map(str), values),
        "timestamp": values,
        "subject": values,
        "anonymousDistinctId": st.one_of(st.uuids(version=4).map("anon_{}".format), values),
        "anonymized": values,
    },
)
bodies = st.one_of(
    events,
    events,
    st.fixed_dictionaries({"batch": st.lists(st.one_of(events, values), max_size=6)}),
    st.dictionaries(st.sampled_from(("sharing", "anonymized", "workspaceId", "x")), values),
    values,
).map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass"))


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A body with a few bytes changed, cut out, put in or repeated."""
    body = bytearray(draw(bodies))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(body)))
        match draw(st.sampled_from(("put", "cut", "flip", "repeat"))):
            case "put":
                body[at:at] = draw(st.sampled_from(JSON_BYTES))
            case "cut":
                del body[at : at + draw(st.integers(1, 20))]
            case "flip" if at < len(body):
                body[at] ^= draw(st.integers(1, 255))
            case _:
                body[at:at] = body[max(0, at - 8) : at] * draw(st.integers(1, 20))
    return bytes(body)


HEADERS: dict[str, tuple[str, ...]] = {
    "content-type": (
        "application/json", "application/json", "application/json; charset=utf-8", "text/plain",
        "text/plain;charset=UTF-8", "application/json; charset=utf-16", "text/html", "", ";",
        "\xff",
    ),
    "content-encoding": ("gzip", "identity", "br", "x-gzip", "gzip, gzip", ""),
    "origin": (
        "https://app.example", "https://www.example", "null", "https://evil.example", "file://",
        "https://[::1", "https://app.example:443", "http://app.example", "\xe9", "",
    ),
    "sec-fetch-site": ("same-origin", "none", "cross-site", "same-site", "?"),
    "referer": ("https://app.example/w/1", "https://evil.example/", "about:blank", "https://[", ""),
    "sec-gpc": ("1", "0", "true"),
    "dnt": ("1", "0"),
    "access-control-request-method": ("POST", "DELETE"),
    "if-none-match": ("*", '"x"', 'W/"x", "y"'),
    "x-forwarded-for": ("1.2.3.4", "::1", "unknown, 1.2.3.4", ","),
    "x-forwarded-host": ("app.example", "evil.example, app.example", ","),
    "x-forwarded-proto": ("https", "http, https", ""),
    "x-forwarded-port": ("443", "x"),
    "cookie": ("a=b; c=d",),
    "expect": ("100-continue",),
}  # fmt: skip


@st.composite
def requests(draw: st.DrawFn) -> Told:
    """A request on one of our paths, mostly nearly right."""
    # The first three lead furthest in, so they come most often.
    path = draw(st.sampled_from((CAPTURE,) * 6 + PATHS))
    method = draw(
        st.sampled_from(("POST",) * 6 + ("PUT", "PUT", "GET", "HEAD", "OPTIONS", "DELETE", "X"))
    )
    chosen = draw(st.dictionaries(st.sampled_from(sorted(HEADERS)), st.integers(0, 9), max_size=4))
    headers = dict(JSON)
    for name, index in chosen.items():
        headers[name] = HEADERS[name][index % len(HEADERS[name])]
    body = b"" if method in ("GET", "HEAD") else draw(mutated())
    if "gzip" in headers.get("content-encoding", "") and draw(st.booleans()):
        body = gzip.compress(body, mtime=0)[: draw(st.integers(1, 2000))]
    parts: list[bytes] = []
    while body and len(parts) < 8:
        size = draw(st.integers(1, len(body)))
        parts.append(body[:size])
        body = body[size:]
    return Told(
        method,
        path + draw(st.sampled_from(("", "", "?v=1", "?x=%ff"))),
        tuple(headers.items()),
        (*parts, body),
        draw(st.sampled_from(("right", "right", "right", None))),
        draw(st.sampled_from(("app.example", "app.example", "[::1]:8000", "", "a b", "x:y"))),
        draw(st.sampled_from(("https", "https", "http"))),
        draw(st.sampled_from(("192.0.2.7", "::1", None))),
    )


@dataclass
class Twin:
    """One host of each kind, wrapped alike, and asked alike."""

    settings: dict[str, Any]

    def __post_init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._stores = [Kept(), Kept()]
        self._user: AnalyticsUser | None = None
        self._analytics = [
            Analytics(token="phc_test", host="http://127.0.0.1:9", outbox=store, secret="s",
                      rate=None, **self.settings)
            for store in self._stores
        ]  # fmt: skip
        self._wsgi = self._analytics[0].wsgi(wsgi_host, user=lambda _: self._user)
        self._asgi = self._analytics[1].asgi(
            asgi_host, user=lambda _: self._user, user_blocks=False
        )

    def ask(self, told: Told, user: AnalyticsUser | None) -> tuple[Reply, Reply]:
        self._user = user
        before = [len(store.payloads) for store in self._stores]
        replies = (
            wsgi_reply(self._wsgi, told),
            self._loop.run_until_complete(asgi_reply(self._asgi, told)),
        )
        for reply, store, had in zip(replies, self._stores, before, strict=True):
            queued = store.payloads[had:]
            if reply.status not in (200, 204):
                assert not queued
            for payload in queued:
                # What is queued is JSON, whatever it was made of.
                json.loads(payload.properties)
                assert ADA.email is not None
                if payload.distinct_id.startswith("anon_"):
                    assert ADA.id.encode() not in payload.properties
                    assert ADA.email.encode() not in payload.properties
            store.payloads.clear()
        return replies

    def close(self) -> None:
        for analytics in self._analytics:
            analytics.close(timeout=0.0)
        self._loop.close()


SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"allowed_origins": "https://www.example", "trusted_proxies": 1, "debug": True},
    {"undeclared": "drop", "precision": "coarse", "consent": "ask", "dnt": "drop"},
)


@pytest.fixture(scope="module", params=range(len(SETTINGS)))
def twin(request: pytest.FixtureRequest) -> Any:
    twin = Twin(SETTINGS[request.param])
    yield twin
    twin.close()


def agree(twin: Twin, told: Told, user: AnalyticsUser | None) -> int:
    """Ask both, and compare; return what both answered."""
    one, other = twin.ask(told, user)

    def outcome(reply: Reply) -> tuple[Any, ...]:
        code = reply.code if reply.status >= 400 and reply.body else None
        return reply.status, code, reply.headers.get("allow"), reply.headers.get("vary")

    assert outcome(one) == outcome(other)
    assert one.status < 500
    # 422 stands for a rule that failed: a defect of ours, whatever was posted.
    assert one.status != 422
    assert ("error" in one.body.decode()) == ("error" in other.body.decode())
    return one.status


@pytest.fixture
def examples(request: pytest.FixtureRequest) -> float:
    return float(request.config.getoption("--fuzz-minutes"))


def test_both_adapters_agree_on_whatever_is_sent(twin: Twin, examples: float) -> None:
    met: set[int] = set()

    def run(count: int, *, same: bool) -> None:
        @settings(
            max_examples=count,
            derandomize=same,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(requests(), st.sampled_from((ADA, *USERS)))
        def search(told: Told, user: AnalyticsUser | None) -> None:
            met.add(agree(twin, told, user))

        search()

    if not examples:
        run(500, same=True)
        # A search that only ever met one answer would show nothing.
        assert met >= {200, 204, 400, 401, 403, 405, 415}
        return
    until = time.monotonic() + 60 * examples / len(SETTINGS)
    while time.monotonic() < until:
        run(2000, same=False)


def test_a_plain_event_is_taken_by_both(twin: Twin) -> None:
    one, other = twin.ask(Told(parts=(EVENT,)), ADA)
    assert (one.status, other.status) == (204, 204)
