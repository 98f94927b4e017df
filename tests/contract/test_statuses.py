"""The status table of the HTTP surface, driven through both adapters from one table of cases."""

from __future__ import annotations

import gzip
import json
import logging
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from second_mw import Analytics, AnalyticsUser
from second_mw.errors import REFUSALS
from second_mw.settings import Settings
from tests.hosts import ADA
from tests.stores import Blocking, Full, Kept

CAPTURE, PREFERENCES = "/api/analytics/capture", "/api/analytics/preferences"
UUID = "0190a6e4-3d5b-7c1e-8a52-0123456789ab"
ONE = {"event": "page viewed", "properties": {"surface": "workspace_home"}}
SECONDS_WEST = AnalyticsUser("other", onboarded=False)


def body_of(event: Any) -> bytes:
    return json.dumps(event).encode()


def fails(_: Any) -> Any:
    raise RuntimeError("the database is away")


@dataclass
class Case:
    """One request and what it is answered."""

    name: str
    status: int
    code: str | None = None
    body: bytes = field(default_factory=lambda: body_of(ONE))
    method: str = "POST"
    path: str = CAPTURE
    headers: dict[str, str | None] = field(default_factory=dict)
    user: Any = ADA
    settings: dict[str, Any] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)
    kept: int = 0


def event(**fields: Any) -> bytes:
    return body_of({**ONE, **fields})


CASES = [
    Case("one event", 204, kept=1),
    Case("text/plain, as sendBeacon posts", 204, headers={"content_type": "text/plain"}, kept=1),
    Case("a charset", 204, headers={"content_type": "application/json; charset=UTF-8"}, kept=1),
    Case("gzip", 204, body=gzip.compress(body_of(ONE)), headers={"content_encoding": "gzip"},
         kept=1),
    Case("null properties", 204, body=event(properties=None), kept=1),
    Case("no properties", 204, body=body_of({"event": "page viewed"}), kept=1),
    Case("a wrong anonymous id is no reason to refuse", 204,
         body=event(anonymousDistinctId=[1]), kept=1),
    Case("an unreadable timestamp is no reason to refuse", 204, body=event(timestamp=5), kept=1),
    Case("the last of two equal keys counts", 204,
         body=b'{"event":"nope","event":"page viewed"}', kept=1),
    Case("an unpaired surrogate is mended", 204,
         body=b'{"event":"page viewed","properties":{"x":"\\ud83d"}}', kept=1),
    Case("an unpaired low surrogate is mended", 204,
         body=b'{"event":"page viewed","properties":{"x":"a\\udc00b"}}', kept=1),
    Case("not JSON", 400, "invalid_payload", b"page viewed"),
    Case("no body", 400, "invalid_payload", b""),
    Case("a list", 400, "invalid_payload", b"[]"),
    Case("null", 400, "invalid_payload", b"null"),
    Case("NaN", 400, "invalid_payload", b'{"event":"page viewed","properties":{"x":NaN}}'),
    Case("bad UTF-8", 400, "invalid_payload", b'{"event":"page viewed\xff"}'),
    Case("a surrogate in UTF-8", 400, "invalid_payload", b'{"event":"\xed\xa0\x80"}'),
    Case("a byte-order mark", 400, "invalid_payload", b"\xef\xbb\xbf" + body_of(ONE)),
    Case("a number out of range", 400, "invalid_payload",
         b'{"event":"page viewed","properties":{"x":1e999}}'),
    Case("nested beyond reason", 400, "invalid_payload",
         b'{"event":"page viewed","properties":{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}}"),
    Case("nested a little beyond", 400, "invalid_payload",
         b'{"event":"page viewed","properties":{"x":' + b"[" * 70 + b"]" * 70 + b"}}"),
    Case("brackets in a string nest nothing", 204,
         body=b'{"event":"page viewed","properties":{"x":"' + b"[" * 100 + b'"}}', kept=1),
    Case("an escape that is none", 400, "invalid_payload", b'{"event":"\\ud83d\\q"}'),
    Case("trailing text", 400, "invalid_payload", body_of(ONE) + b"x"),
    Case("event no string", 400, "invalid_payload", event(event=5)),
    Case("event missing", 400, "invalid_payload", b"{}"),
    Case("properties a list", 400, "invalid_payload", event(properties=[])),
    Case("properties a string", 400, "invalid_payload", event(properties="x")),
    Case("a uuid that is none", 400, "invalid_payload", event(uuid="abc")),
    Case("a uuid of version 1", 400, "invalid_payload",
         event(uuid="c232ab00-9414-11ec-b3c8-9f6bdeced846")),
    Case("an empty batch", 400, "invalid_payload", body_of({"batch": []})),
    Case("a batch that is none", 400, "invalid_payload", body_of({"batch": {}})),
    Case("too long a batch", 400, "invalid_payload", body_of({"batch": [ONE] * 101})),
    Case("truncated gzip", 400, "invalid_payload", gzip.compress(body_of(ONE))[:-9],
         headers={"content_encoding": "gzip"}),
    Case("gzip that is none", 400, "invalid_payload", headers={"content_encoding": "gzip"}),
    Case("a name not in the catalogue", 400, "invalid_event", event(event="page looked at")),
    Case("PostHog's own event", 400, "invalid_event", event(event="$identify")),
    Case("nobody signed in", 401, "not_authenticated", user=None),
    Case("not onboarded", 403, "not_onboarded", user=SECONDS_WEST),
    Case("another site by Sec-Fetch-Site", 403, "cross_origin",
         headers={"sec_fetch_site": "cross-site"}),
    Case("a sibling by Sec-Fetch-Site", 403, "cross_origin",
         headers={"sec_fetch_site": "same-site"}),
    Case("another origin", 403, "cross_origin", headers={"origin": "https://evil.example"}),
    Case("the null origin", 403, "cross_origin", headers={"origin": "null"}),
    Case("another scheme", 403, "cross_origin", headers={"origin": "http://app.example"}),
    Case("text/plain from nowhere", 403, "cross_origin",
         headers={"content_type": "text/plain", "referer": None}),
    Case("text/plain from another page", 403, "cross_origin",
         headers={"content_type": "text/plain", "referer": "https://evil.example/"}),
    Case("the own origin", 204, headers={"origin": "https://app.example"}, kept=1),
    Case("the own origin with its port", 204, headers={"origin": "https://app.example:443"},
         kept=1),
    Case("same-origin by Sec-Fetch-Site", 204, headers={"sec_fetch_site": "same-origin"}, kept=1),
    Case("typed by the user", 204, headers={"sec_fetch_site": "none"}, kept=1),
    Case("an allowed origin", 204, headers={"origin": "https://www.example"},
         settings={"allowed_origins": "https://www.example"}, kept=1,
         answers={"access-control-allow-origin": "https://www.example", "vary": "Origin",
                  "access-control-allow-credentials": "true"}),
    Case("an error to an allowed origin", 401, "not_authenticated", user=None,
         headers={"origin": "https://www.example"},
         settings={"allowed_origins": "https://www.example"},
         answers={"access-control-allow-origin": "https://www.example", "vary": "Origin"}),
    Case("a preflight from an allowed origin", 204, method="OPTIONS",
         headers={"origin": "https://www.example", "access_control_request_method": "POST"},
         settings={"allowed_origins": "https://www.example"},
         answers={"access-control-allow-methods": "POST"}),
    Case("OPTIONS of an allowed origin that names no method", 204, method="OPTIONS",
         headers={"origin": "https://www.example"},
         settings={"allowed_origins": "https://www.example"},
         answers={"access-control-allow-methods": "POST", "vary": "Origin"}),
    Case("a preflight from elsewhere", 405, "method_not_allowed", method="OPTIONS",
         headers={"origin": "https://evil.example", "access_control_request_method": "POST"},
         settings={"allowed_origins": "https://www.example"}, answers={"allow": "POST"}),
    Case("a workspace of somebody else's", 404, "workspace_not_found",
         event(properties={"workspace_id": "w_other"})),
    Case("a workspace in another spelling", 404, "workspace_not_found",
         event(properties={"workspaceId": "w_other"})),
    Case("a workspace that is a list", 404, "workspace_not_found",
         event(properties={"workspace_id": ["w_engine"]})),
    Case("a workspace of the user's", 204, body=event(properties={"workspace_id": "w_engine"}),
         kept=1),
    Case("GET", 405, "method_not_allowed", b"", "GET", answers={"allow": "POST"}),
    Case("PUT", 405, "method_not_allowed", method="PUT", answers={"allow": "POST"}),
    Case("DELETE", 405, "method_not_allowed", b"", "DELETE", answers={"allow": "POST"}),
    Case("OPTIONS", 405, "method_not_allowed", b"", "OPTIONS", answers={"allow": "POST"}),
    Case("another user's event", 409, "other_user", event(subject="zzzz")),
    Case("a subject that is none", 409, "other_user", event(subject=7)),
    Case("too large by Content-Length", 413, "payload_too_large", b" " * 300_000),
    Case("too large once inflated", 413, "payload_too_large", gzip.compress(b" " * 300_000),
         headers={"content_encoding": "gzip"}),
    Case("exactly as large as allowed", 204, body=body_of(ONE).ljust(256 * 1024), kept=1),
    Case("one byte larger", 413, "payload_too_large", body_of(ONE).ljust(256 * 1024 + 1)),
    Case("larger than a small limit", 413, "payload_too_large", settings={"max_body": 20}),
    Case("a form", 415, "unsupported_media_type",
         headers={"content_type": "application/x-www-form-urlencoded"}),
    Case("no media type", 415, "unsupported_media_type", headers={"content_type": None,
         "origin": "https://app.example"}),
    Case("a choice in another type, before anybody is asked who it is", 415,
         "unsupported_media_type", b'{"sharing":true}', "PUT", PREFERENCES, user=fails,
         headers={"content_type": "text/html"}),
    Case("a choice in JSON of nobody's", 401, "not_authenticated", b'{"sharing":true}', "PUT",
         PREFERENCES, user=None),
    Case("another charset", 415, "unsupported_media_type",
         headers={"content_type": "application/json; charset=utf-16"}),
    Case("an unknown encoding", 415, "unsupported_media_type", headers={"content_encoding": "br"}),
    Case("a resolver that raises", 500, "user_lookup_failed", user=fails),
    Case("a resolver that returns something else", 500, "user_lookup_failed",
         user=lambda _: {"id": "u"}),
    Case("a full outbox", 503, "outbox_unavailable", settings={"outbox": Full()},
         answers={"retry-after": "7"}),
    Case("a full outbox and a batch", 503, "outbox_unavailable", body_of({"batch": [ONE]}),
         settings={"outbox": Full()}, answers={"retry-after": "7"}),
    Case("disabled", 204, settings={"token": None}),
    Case("disabled and nobody signed in", 401, "not_authenticated", user=None,
         settings={"token": None}),
    Case("disabled and not onboarded", 403, "not_onboarded", user=SECONDS_WEST,
         settings={"token": None}),
    Case("a hook that raises", 422, "not_taken", settings={"on_event": fails}),
    Case("a hook that drops", 204, settings={"on_event": lambda payload: None}),
]  # fmt: skip


def resolver_of(user: Any) -> Any:
    return user if callable(user) else lambda _: user


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_request_gets_the_status_and_code_of_the_table(case: Case, adapter, make) -> None:
    analytics: Analytics = make(**{"outbox": Kept(), **case.settings})
    ask = adapter(analytics, resolver_of(case.user))
    headers = {"content_type": "application/json", **case.headers}
    if case.headers.get("content_type") == "text/plain" and "referer" not in case.headers:
        headers["referer"] = "https://app.example/w/1"
    reply = ask(case.method, case.path, case.body, **headers)
    assert (reply.status, reply.code if reply.status >= 400 else None) == (case.status, case.code)
    assert reply.headers.items() >= case.answers.items()
    assert reply.headers["cache-control"] == "no-store"
    assert "set-cookie" not in reply.headers
    if case.status >= 400:
        assert reply.json == {"error": case.code, "message": REFUSALS[case.code].message}
        assert reply.headers["content-type"] == "application/json"
        assert reply.headers["x-content-type-options"] == "nosniff"
    assert analytics.stats()["accepted"] == case.kept


def test_every_code_of_the_table_has_a_case_or_a_test_of_its_own() -> None:
    elsewhere = {
        "length_required",  # WSGI alone: test_bodies
        "rate_limited",
        "managed_by_host",  # test_preferences
        "gpc",
        "disabled",
        "preferences_unavailable",
    }
    assert {case.code for case in CASES} - {None} | elsewhere == set(REFUSALS)


def test_a_refusal_is_counted_by_its_code(adapter, make) -> None:
    analytics = make()
    ask = adapter(analytics, lambda _: None)
    ask("POST", CAPTURE, body_of(ONE), content_type="application/json")
    ask("GET", CAPTURE)
    assert analytics.stats()["rejected"] == {"not_authenticated": 1, "method_not_allowed": 1}


def test_a_head_request_gets_no_body(adapter, make) -> None:
    reply = adapter(make(), lambda _: ADA)("HEAD", CAPTURE)
    assert (reply.status, reply.body) == (405, b"")


def test_a_resolver_that_raises_is_logged_with_its_traceback(adapter, make, caplog) -> None:
    adapter(make(), fails)("POST", CAPTURE, body_of(ONE), content_type="application/json")
    (record,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert record.exc_info is not None
    assert "the database is away" in str(record.exc_info[1])


def test_an_async_resolver_works_in_both_worlds(adapter, make) -> None:
    async def user(_: Any) -> AnalyticsUser:
        return ADA

    analytics = make()
    reply = adapter(analytics, user)("POST", CAPTURE, body_of(ONE), content_type="application/json")
    assert (reply.status, analytics.stats()["accepted"]) == (204, 1)


def test_a_resolver_with_an_async_call_works_in_both_worlds(adapter, make) -> None:
    class User:
        async def __call__(self, _: Any) -> AnalyticsUser:
            return ADA

    reply = adapter(make(), User())("POST", CAPTURE, body_of(ONE), content_type="application/json")
    assert reply.status == 204


def test_a_store_that_blocks_is_awaited(adapter, make) -> None:
    analytics = make(outbox=Blocking())
    reply = adapter(analytics, lambda _: ADA)(
        "POST", CAPTURE, body_of(ONE), content_type="application/json"
    )
    assert (reply.status, analytics.stats()["accepted"]) == (204, 1)


def test_a_store_that_blocks_and_is_full_is_answered_503(adapter, make) -> None:
    class FullAndBlocking(Full):
        blocking = True

    reply = adapter(make(outbox=FullAndBlocking()), lambda _: ADA)(
        "POST", CAPTURE, body_of(ONE), content_type="application/json"
    )
    assert (reply.status, reply.code) == (503, "outbox_unavailable")


# Batches


def post_batch(ask: Any, *events: Any) -> Any:
    return ask("POST", CAPTURE, body_of({"batch": list(events)}), content_type="application/json")


def test_a_batch_is_accepted_event_by_event(adapter, make) -> None:
    analytics = make()
    good = {**ONE, "uuid": UUID}
    bad = {"event": "nope", "uuid": UUID.replace("ab", "cd")}
    reply = post_batch(adapter(analytics, lambda _: ADA), good, bad)
    assert reply.status == 200
    assert reply.json == {
        "results": {
            UUID: {"status": "accepted"},
            bad["uuid"]: {"status": "rejected", "error": "invalid_event"},
        }
    }
    assert [e["uuid"] for e in analytics.outbox.store.events] == [UUID]
    assert analytics.stats()["rejected"] == {"invalid_event": 1}


def test_each_event_of_a_batch_gets_the_code_it_would_get_alone(adapter, make) -> None:
    analytics = make()
    events = [
        "page viewed",
        {"event": 5},
        {"event": "nope"},
        {**ONE, "properties": []},
        {**ONE, "subject": "zzzz"},
        {**ONE, "properties": {"workspace_id": "w_other"}},
        ONE,
    ]
    reply = post_batch(adapter(analytics, lambda _: ADA), *events)
    assert [result.get("error") for result in reply.json["results"].values()] == [
        "invalid_payload",
        "invalid_payload",
        "invalid_event",
        "invalid_payload",
        "other_user",
        "workspace_not_found",
        None,
    ]
    assert analytics.outbox.store.puts == [1]


def test_an_event_of_a_batch_without_a_valid_uuid_gets_one_from_the_server(adapter, make) -> None:
    analytics = make()
    reply = post_batch(adapter(analytics, lambda _: ADA), ONE, {**ONE, "uuid": "mine"})
    assert set(reply.json["results"]) == {e["uuid"] for e in analytics.outbox.store.events}
    assert len(reply.json["results"]) == 2


def test_repeats_in_a_batch_settle_once(adapter, make) -> None:
    analytics = make()
    again = {**ONE, "uuid": UUID}
    reply = post_batch(adapter(analytics, lambda _: ADA), again, again)
    assert reply.json == {"results": {UUID: {"status": "accepted"}}}
    assert len(analytics.outbox.store.events) == 1


def test_a_batch_enters_the_outbox_in_one_put(adapter, make) -> None:
    analytics = make()
    post_batch(adapter(analytics, lambda _: ADA), *[ONE] * 100)
    assert analytics.outbox.store.puts == [100]


def test_a_batch_of_refused_events_puts_nothing(adapter, make) -> None:
    analytics = make()
    reply = post_batch(adapter(analytics, lambda _: ADA), {"event": "nope"})
    assert (reply.status, analytics.outbox.store.puts) == (200, [])


def test_an_event_posted_twice_is_stored_once(adapter, make) -> None:
    analytics = make()
    ask = adapter(analytics, lambda _: ADA)
    twice = {**ONE, "uuid": UUID, "anonymousDistinctId": "anon_" + UUID.replace("7c1e", "4c1e")}
    for _ in range(2):
        reply = ask("POST", CAPTURE, body_of(twice), content_type="application/json")
        assert reply.status == 204
    assert [e["uuid"] for e in analytics.outbox.store.events] == [UUID]


# What the answers say, and do not


def test_no_answer_echoes_what_was_posted(adapter, make) -> None:
    secret = "correct-horse-battery"
    analytics = make()
    ask = adapter(analytics, lambda _: ADA)
    for body in (
        event(event=secret),
        event(properties={"workspace_id": secret}),
        event(subject=secret),
        event(uuid=secret),
        secret.encode(),
    ):
        reply = ask("POST", CAPTURE, body, content_type="application/json")
        assert secret not in reply.body.decode() + str(reply.headers)
        assert ADA.id not in reply.body.decode() + str(reply.headers)
        assert "phc_test" not in reply.body.decode() + str(reply.headers)


def test_debug_says_which_rule_took_which_declared_key_and_no_value(adapter, make) -> None:
    posted = body_of(
        {"event": "chat initiated", "properties": {"message": "hello Ada", "my_word": "x y"}}
    )
    reply = adapter(make(debug=True), lambda _: ADA)(
        "POST", CAPTURE, posted, content_type="application/json"
    )
    assert reply.headers["x-second-analytics"] == "message=free_text"
    reply = adapter(make(), lambda _: ADA)("POST", CAPTURE, posted, content_type="application/json")
    assert "x-second-analytics" not in reply.headers


def test_debug_says_what_refused(adapter, make) -> None:
    reply = adapter(make(debug=True), lambda _: None)(
        "POST", CAPTURE, body_of(ONE), content_type="application/json"
    )
    assert reply.headers["x-second-analytics"] == "refused=not_authenticated"


# The order of checks


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (["origin", "media", "user"], "cross_origin"),
        (["media", "user"], "unsupported_media_type"),
        (["user", "size"], "not_authenticated"),
        (["onboarding", "size"], "not_onboarded"),
        (["size", "parse"], "payload_too_large"),
        (["parse"], "invalid_payload"),
        (["event", "subject", "tenancy"], "invalid_event"),
        (["subject", "tenancy"], "other_user"),
        (["tenancy"], "workspace_not_found"),
    ],
)
def test_checks_come_in_their_order(wrong: list[str], code: str, adapter, make) -> None:
    user = None if "user" in wrong else replace(ADA, onboarded="onboarding" not in wrong)
    posted: dict[str, Any] = {**ONE}
    if "event" in wrong:
        posted["event"] = "nope"
    if "subject" in wrong:
        posted["subject"] = "zzzz"
    if "tenancy" in wrong:
        posted["properties"] = {"workspace_id": "w_other"}
    body = b"{" if "parse" in wrong else body_of(posted)
    if "size" in wrong:
        body = body.ljust(300_000)
    reply = adapter(make(), lambda _: user)(
        "POST",
        CAPTURE,
        body,
        content_type="text/html" if "media" in wrong else "application/json",
        origin="https://evil.example" if "origin" in wrong else None,
    )
    assert reply.code == code


def test_the_settings_of_a_disabled_analytics_say_why() -> None:
    assert Settings.load({}).disabled_by == "no token"
