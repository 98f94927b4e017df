"""Every refusal and every failure, at DEBUG: no log record and no answer holds what it must not."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from second_mw import AnalyticsUser, OutboxUnavailable, PreferencesUnavailable
from second_mw.errors import REFUSALS
from second_mw.outbox.memory import MemoryStore
from tests.abuse.drive import IDENTIFY, JSON, PREFERENCES, Told, event
from tests.delivery.sink import closed_port, running, status
from tests.stores import Full, Kept

TOKEN = "phc_0123456789abcdefTOKEN"
SECRET = "server-key-of-this-deployment"
USER = AnalyticsUser(
    "user-91ab77c1",
    email="grace.hopper@navy.example",
    name="Grace Hopper",
    workspaces={"ws-cobol-compiler": "owner"},
    aliases=("amazing-grace",),
)
PROPERTIES = {
    "message": "launch the rockets at dawn",
    "plan_title": "a plan nobody may read",
    "note": "value-of-an-undeclared-key",
    "page_url": "https://app.example/w/ws-cobol-compiler?q=needle",
    "my secret key": "value-of-a-strange-key",
    "workspace_id": "ws-cobol-compiler",
}
ANON = "anon_11111111-2222-4333-8444-555555555555"
#: Nothing of this may stand in a log record or in an answer.
FORBIDDEN = (
    TOKEN, SECRET, USER.id, "grace.hopper", "navy.example", "Hopper", "ws-cobol", "amazing-grace",
    "rockets", "nobody may read", "value-of", "needle", "my secret key", ANON, "192.0.2.7",
    "session-cookie-value", "of-another-tenant", "no such event of mine",
)  # fmt: skip
IDENTIFIED = replace(USER, anonymized=False)
COOKIE = (("cookie", "sid=session-cookie-value"), ("authorization", "Bearer session-cookie-value"))
POST = Told(headers=(*JSON, *COOKIE), parts=event(properties=PROPERTIES, anonymousDistinctId=ANON))


class Unavailable:
    """A preference store that never works."""

    blocking = False
    shared = True

    def get(self, user_key: str) -> Any:
        raise PreferencesUnavailable(f"no such row: {USER.id}")

    def put(self, user_key: str, choice: Any) -> None:
        raise PreferencesUnavailable(f"no such row: {USER.id}")

    def not_alone(self) -> None: ...

    def after_fork(self) -> None: ...

    def close(self) -> None: ...


class Broken(Kept):
    """A store whose errors quote what they were given."""

    def put(self, payloads: Any) -> int:
        raise ValueError(f"bad row: {payloads} {PROPERTIES} {USER.id}")


def quotes(payload: Any) -> Any:
    raise KeyError(f"{payload} {PROPERTIES} {USER.email}")


def fails(_: Any) -> Any:
    raise RuntimeError("the database is away")


def told(**fields: Any) -> Told:
    return replace(POST, parts=event(**{"properties": PROPERTIES, **fields}))


PUT = Told("PUT", PREFERENCES, (*JSON, *COOKIE), (b'{"anonymized":false}',))
#: Request, user, settings, and the code that comes (None for an event that is taken).
SCENES: list[tuple[str, Told, Any, dict[str, Any], str | None]] = [
    ("taken", POST, USER, {}, None),
    ("taken identified", POST, IDENTIFIED, {}, None),
    ("taken with receipts", POST, USER, {"debug": True, "on_receipt": lambda _: None}, None),
    ("a hook for receipts that fails", POST, USER, {"on_receipt": quotes}, None),
    ("a batch", replace(POST, parts=(json.dumps({"batch": [
        {"event": "page viewed", "properties": PROPERTIES},
        {"event": "no such event of mine", "properties": PROPERTIES}]}).encode(),)), USER, {},
     None),
    ("invalid_payload", replace(POST, parts=(json.dumps(PROPERTIES).encode()[:-3],)), USER, {},
     "invalid_payload"),
    ("a gzip that breaks", replace(POST.but(content_encoding="gzip"),
                                   parts=(gzip.compress(POST.body)[:-4],)), USER, {},
     "invalid_payload"),
    ("invalid_event", told(event="no such event of mine"), USER, {}, "invalid_event"),
    ("not_authenticated", POST, None, {}, "not_authenticated"),
    ("not_onboarded", POST, replace(USER, onboarded=False), {}, "not_onboarded"),
    ("cross_origin", POST.but(origin="https://session-cookie-value.example"), USER, {},
     "cross_origin"),
    ("cross_origin, hinted", POST.but(origin="https://session-cookie-value.example",
                                      sec_fetch_site="same-origin"), USER, {}, "cross_origin"),
    ("workspace_not_found", told(properties={**PROPERTIES, "workspace_id": "of-another-tenant"}),
     USER, {}, "workspace_not_found"),
    ("identify", Told("POST", IDENTIFY, JSON, (b'{"workspaceId":"of-another-tenant"}',)), USER, {},
     "workspace_not_found"),
    ("method_not_allowed", replace(POST, method="PATCH"), USER, {}, "method_not_allowed"),
    ("other_user", told(subject="of-another-tenant"), USER, {}, "other_user"),
    ("managed_by_host", PUT, replace(USER, anonymized=True), {}, "managed_by_host"),
    ("gpc", PUT.but(sec_gpc="1"), USER, {}, "gpc"),
    ("disabled", PUT, USER, {"token": None}, "disabled"),
    ("payload_too_large", told(properties={"x": "rockets" * 50_000}), USER, {},
     "payload_too_large"),
    ("unsupported_media_type", POST.but(content_type="text/x-session-cookie-value"), USER, {},
     "unsupported_media_type"),
    ("not_taken, by a hook that quotes", POST, USER, {"on_event": quotes}, "not_taken"),
    ("rate_limited", POST, USER, {"rate": "1/hour"}, "rate_limited"),
    ("rate_limited by address", POST, None, {"rate": "1/hour"}, "rate_limited"),
    ("user_lookup_failed", POST, fails, {}, "user_lookup_failed"),
    ("a resolver's odd answer", POST, lambda _: {"id": USER.id}, {}, "user_lookup_failed"),
    ("outbox_unavailable, full", POST, USER, {"outbox": Full()}, "outbox_unavailable"),
    ("outbox_unavailable, broken", POST, USER, {"outbox": Broken()}, "outbox_unavailable"),
    ("preferences that fail", POST, USER, {"preferences": Unavailable()}, None),
    ("preferences_unavailable", PUT, USER, {"preferences": Unavailable()},
     "preferences_unavailable"),
    ("chosen", PUT, USER, {}, None),
    ("an id that can't be sent", POST, replace(USER, id="anon_user-91ab77c1", anonymized=False),
     {}, None),
]  # fmt: skip


def clean(text: str) -> None:
    for word in FORBIDDEN:
        assert word not in text, word


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Everything at DEBUG, of every logger; looked at when the test ends."""
    caplog.set_level(logging.DEBUG)
    yield caplog
    for record in caplog.records:
        clean(f"{record.getMessage()} {record.__dict__.get('exc_text')} {record.args}")
    clean(caplog.text)


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene[0])
def test_no_refusal_and_no_failure_tells_what_it_must_not(scene, ask, make, log) -> None:
    _, request, user, settings, code = scene
    analytics = make(**{"token": TOKEN, "secret": SECRET, **settings})
    resolver = user if callable(user) else lambda _: user
    if code == "rate_limited":
        ask(analytics, request, resolver)
    reply = ask(analytics, request, resolver)
    assert (reply.json["error"] if reply.status >= 400 else None) == code
    clean(f"{reply.headers} {reply.body!r}")
    clean(repr(analytics.stats()))
    clean(repr(analytics.settings) + repr(USER))


def test_every_code_that_both_adapters_know_is_driven() -> None:
    assert {code for *_, code in SCENES} - {None} == set(REFUSALS) - {"length_required"}


def test_server_code_is_told_as_little(make, log) -> None:
    analytics = make(token=TOKEN, secret=SECRET)
    for user, name, properties in (
        (USER, "no such event of mine", PROPERTIES),
        (None, "page viewed", PROPERTIES),
        (replace(USER, onboarded=False), "page viewed", PROPERTIES),
        (USER, "page viewed", {"workspace_id": "of-another-tenant"}),
        (USER, "page viewed", PROPERTIES),
    ):
        clean(repr(analytics.capture(user, name, properties)))
    full = make(token=TOKEN, secret=SECRET, outbox=Full())
    assert not full.capture(USER, "page viewed", PROPERTIES)


@pytest.mark.parametrize(
    "answer", [None, status(400), status(401), status(413), status(302, location="/x"), status(500)]
)
def test_the_forwarder_is_as_discreet_whatever_posthog_says(answer, make, log) -> None:
    with running() as sink:
        sink.answer = answer
        host = closed_port() if answer is None else sink.url
        analytics = make(
            token=TOKEN, secret=SECRET, host=host, outbox=MemoryStore(), max_retries=0, flush_at=1
        )
        for user in (USER, IDENTIFIED):
            analytics.capture(user, "page viewed", PROPERTIES)
        analytics.flush(3.0)
        analytics.close(1.0)


def test_the_words_of_our_own_errors_quote_no_value() -> None:
    for error in (OutboxUnavailable("full"), PreferencesUnavailable("x")):
        clean(str(error))
