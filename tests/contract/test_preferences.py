"""GET and PUT preferences, POST identify: through both adapters."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import pytest

from second_mw import AnalyticsUser, Choice, PreferencesUnavailable
from second_mw.preferences.memory import MemoryPreferences
from tests.hosts import ADA, Asgi, Wsgi
from tests.stores import Full

CAPTURE, PREFERENCES, IDENTIFY = (
    f"/api/analytics/{name}" for name in ("capture", "preferences", "identify")
)
GPC = {"sec_gpc": "1"}


class Asking:
    """One user's browser in front of a wrapped host."""

    def __init__(self, adapter: Any, analytics: Any, user: Any = ADA) -> None:
        self.ask = adapter(analytics, lambda _: user)
        self.analytics = analytics

    def get(self, **headers: str) -> Any:
        return self.ask("GET", PREFERENCES, **headers)

    def put(self, wanted: Any, **headers: str) -> Any:
        body = wanted if isinstance(wanted, bytes) else json.dumps(wanted).encode()
        return self.ask("PUT", PREFERENCES, body, **{"content_type": "application/json", **headers})

    def post(self, path: str, body: Any, **headers: str) -> Any:
        return self.ask(
            "POST", path, json.dumps(body).encode(), content_type="application/json", **headers
        )

    def capture(self, **headers: str) -> int:
        return int(self.post(CAPTURE, {"event": "page viewed"}, **headers).status)

    @property
    def events(self) -> list[dict[str, Any]]:
        return self.analytics.outbox.store.events

    @property
    def names(self) -> list[str]:
        return [event["event"] for event in self.events]


@pytest.fixture
def browser(adapter, make):
    def open_browser(user: Any = ADA, **settings: Any) -> Asking:
        return Asking(adapter, make(**settings), user)

    return open_browser


def answer(**changed: Any) -> dict[str, Any]:
    return {
        "enabled": True, "sharing": True, "anonymized": True, "effective": "anonymized",
        "reason": "default", **changed,
    }  # fmt: skip


ANSWERS: list[tuple[dict[str, Any], dict[str, Any], dict[str, str], dict[str, Any]]] = [
    ({}, {}, {}, answer()),
    ({"anonymized": True}, {}, {}, answer(reason="host")),
    ({"anonymized": False}, {}, {},
     answer(anonymized=False, effective="identified", reason="host")),
    ({"sharing": False}, {}, {}, answer(sharing=False)),
    ({"anonymized": False}, {}, GPC, answer(anonymized=False, reason="gpc")),
    ({"anonymized": False}, {"dnt": "anonymize"}, {"dnt": "1"},
     answer(anonymized=False, reason="dnt")),
    ({"onboarded": False}, {}, {}, answer(enabled=False)),
    ({}, {"token": None}, {}, answer(enabled=False, reason="disabled")),
    ({}, {"consent": "ask"}, {}, answer(sharing=None)),
    ({"id": "anon_x"}, {}, {}, answer(reason="host")),
]  # fmt: skip


@pytest.mark.parametrize(("user", "settings", "headers", "expected"), ANSWERS)
def test_preferences_say_what_holds_and_why(
    user: dict[str, Any],
    settings: dict[str, Any],
    headers: dict[str, str],
    expected: dict[str, Any],
    browser,
) -> None:
    asking = browser(replace(ADA, **user), **settings)
    reply = asking.get(**headers)
    found = reply.json
    assert reply.status == 200
    assert found.pop("subject") == asking.analytics.pipeline.user_key(user.get("id", ADA.id))[:4]
    assert found == expected


def test_a_choice_is_stored_first_and_then_identify_is_sent_at_once(browser) -> None:
    asking = browser()
    reply = asking.put({"anonymized": False})
    assert (reply.status, reply.json["effective"], reply.json["reason"]) == (
        200, "identified", "user",
    )  # fmt: skip
    assert asking.names == ["$identify"]
    assert asking.capture() == 204
    assert asking.names == ["$identify", "page viewed"]
    assert asking.events[1]["distinct_id"] == ADA.id


def test_switching_back_sends_nothing_and_touches_nothing_older(browser) -> None:
    asking = browser()
    asking.put({"anonymized": False})
    asking.capture()
    before = asking.events
    reply = asking.put({"anonymized": True})
    assert (reply.json["effective"], reply.json["reason"]) == ("anonymized", "default")
    assert asking.events == before
    asking.capture()
    assert asking.events[-1]["distinct_id"].startswith("anon_")


def test_a_row_exists_only_for_a_choice_that_differs_from_the_default(browser) -> None:
    asking = browser()
    rows = asking.analytics.preferences._choices
    asking.put({"anonymized": True, "sharing": True})
    assert rows == {}
    asking.put({"anonymized": False})
    assert list(rows.values()) == [Choice(anonymized=False)]
    assert ADA.id not in str(rows)
    asking.put({"anonymized": True})
    assert rows == {}


def test_with_sharing_off_events_are_answered_204_counted_and_not_taken(browser) -> None:
    asking = browser()
    assert asking.put({"sharing": False}).json["sharing"] is False
    assert asking.capture() == 204
    batch = asking.post(CAPTURE, {"batch": [{"event": "page viewed"}] * 3})
    assert (batch.status, batch.body) == (204, b"")
    assert not asking.analytics.capture(ADA, "page viewed")
    assert asking.events == []
    assert asking.analytics.stats()["suppressed"] == 5


def test_turning_identity_on_with_sharing_off_identifies_nobody(browser) -> None:
    asking = browser()
    asking.put({"sharing": False})
    assert asking.put({"anonymized": False}).json["effective"] == "identified"
    assert asking.events == []


def test_sharing_again_tells_of_an_identified_user_at_once(browser) -> None:
    asking = browser()
    asking.put({"sharing": False})
    asking.put({"anonymized": False})
    assert asking.put({"sharing": True}).json["effective"] == "identified"
    assert asking.names == ["$identify"]
    # PostHog knows by now.
    asking.put({"sharing": False})
    asking.put({"sharing": True})
    assert asking.names == ["$identify"]


def test_asking_for_consent_nothing_is_taken_before_the_choice(browser) -> None:
    asking = browser(consent="ask")
    assert asking.capture() == 204
    assert asking.events == []
    assert asking.put({"sharing": True}).json["sharing"] is True
    assert asking.capture() == 204
    assert asking.names == ["page viewed"]


REFUSED: list[tuple[dict[str, Any], dict[str, Any], Any, dict[str, str], int, str]] = [
    ({"anonymized": True}, {}, {"anonymized": False}, {}, 409, "managed_by_host"),
    ({"anonymized": False}, {}, {"anonymized": True}, {}, 409, "managed_by_host"),
    ({"sharing": True}, {}, {"sharing": False}, {}, 409, "managed_by_host"),
    ({"id": "null"}, {}, {"anonymized": False}, {}, 409, "managed_by_host"),
    ({}, {}, {"anonymized": False}, GPC, 409, "gpc"),
    ({}, {"gpc": "drop"}, {"anonymized": False}, GPC, 409, "gpc"),
    ({}, {"token": None}, {"anonymized": False}, {}, 409, "disabled"),
    ({"onboarded": False}, {}, {"anonymized": False}, {}, 403, "not_onboarded"),
    ({}, {}, {}, {}, 400, "invalid_payload"),
    ({}, {}, [], {}, 400, "invalid_payload"),
    ({}, {}, {"anonymized": 0}, {}, 400, "invalid_payload"),
    ({}, {}, {"anonymized": None}, {}, 400, "invalid_payload"),
    ({}, {}, {"mode": True}, {}, 400, "invalid_payload"),
    ({}, {}, b"{", {}, 400, "invalid_payload"),
    ({}, {}, b" " * 5000, {}, 413, "payload_too_large"),
    ({}, {}, {"anonymized": False}, {"content_type": "text/plain",
     "referer": "https://app.example/"}, 415, "unsupported_media_type"),
    ({}, {}, {"anonymized": False}, {"origin": "https://evil.example"}, 403, "cross_origin"),
]  # fmt: skip


@pytest.mark.parametrize(("user", "settings", "wanted", "headers", "status", "code"), REFUSED)
def test_a_choice_that_can_not_be_made_is_refused(
    user: dict[str, Any],
    settings: dict[str, Any],
    wanted: Any,
    headers: dict[str, str],
    status: int,
    code: str,
    browser,
) -> None:
    asking = browser(replace(ADA, **user), **settings)
    reply = asking.put(wanted, **headers)
    assert (reply.status, reply.code) == (status, code)
    assert asking.analytics.preferences._choices == {}


def test_under_gpc_anonymity_can_still_be_chosen_and_sharing_switched(browser) -> None:
    asking = browser()
    assert asking.put({"anonymized": True}, **GPC).status == 200
    assert asking.put({"sharing": False}, **GPC).status == 200


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_other_methods_are_refused_with_those_allowed(method: str, browser) -> None:
    reply = browser().ask(method, PREFERENCES, b"")
    assert (reply.status, reply.headers["allow"]) == (405, "GET, PUT")


def test_visitors_have_no_preferences(browser) -> None:
    assert browser(None).get().status == 401
    assert browser(None).put({"anonymized": False}).status == 401


def test_an_outbox_without_room_for_identify_does_not_undo_the_choice(browser) -> None:
    asking = browser(outbox=Full())
    assert asking.put({"anonymized": False}).json["effective"] == "identified"
    assert asking.get().json["effective"] == "identified"


# POST identify


def test_identify_is_sent_for_an_identified_user_when_due(browser) -> None:
    asking = browser(replace(ADA, anonymized=False))
    for _ in range(2):
        assert asking.post(IDENTIFY, {"workspaceId": "w_looms"}).status == 204
    (told,) = asking.events
    assert told["properties"]["$set"]["workspace_id"] == "w_looms"
    assert told["properties"]["$set"]["workspace_role"] == "member"


def test_identify_says_nothing_for_an_anonymized_user(browser) -> None:
    asking = browser()
    assert asking.post(IDENTIFY, {}).status == 204
    assert asking.events == []


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"workspaceId": "w_other"}, 404, "workspace_not_found"),
        ({"workspaceId": 5}, 404, "workspace_not_found"),
        ({"workspaceId": None}, 204, None),
        ([], 400, "invalid_payload"),
    ],
)
def test_identify_checks_its_workspace(body: Any, status: int, code: Any, browser) -> None:
    reply = browser().post(IDENTIFY, body)
    assert (reply.status, reply.code) == (status, code)


def test_identify_takes_nothing_when_disabled(browser) -> None:
    assert browser(token=None).post(IDENTIFY, {"workspaceId": "w_other"}).status == 204


# Signals of the browser


def test_a_browser_that_asks_for_privacy_is_anonymized(browser) -> None:
    asking = browser(replace(ADA, anonymized=False))
    assert asking.capture(**GPC) == 204
    assert asking.capture() == 204
    ids = [e["distinct_id"] for e in asking.events if e["event"] == "page viewed"]
    assert ids[0].startswith("anon_")
    assert ids[1] == ADA.id


def test_a_policy_of_dropping_takes_nothing(browser) -> None:
    asking = browser(gpc="drop")
    assert asking.capture(**GPC) == 204
    assert (asking.events, asking.analytics.stats()["suppressed"]) == ([], 1)


# Stores that fail


class Failing(MemoryPreferences):
    """A store whose database is away."""

    def get(self, user_key: str) -> Choice | None:
        raise PreferencesUnavailable("away")

    def put(self, user_key: str, choice: Choice) -> None:
        raise PreferencesUnavailable("away")


def test_a_store_that_fails_means_anonymized_and_503(browser) -> None:
    asking = browser(preferences=Failing())
    assert asking.capture() == 204
    assert asking.events[0]["distinct_id"].startswith("anon_")
    assert asking.get().json["reason"] == "store_failed"
    reply = asking.put({"anonymized": False})
    assert (reply.status, reply.code, reply.headers["retry-after"]) == (
        503, "preferences_unavailable", "5",
    )  # fmt: skip
    assert asking.analytics.capture(ADA, "page viewed")
    assert asking.analytics.stats()["preferences_failed"] >= 2


class Slow(MemoryPreferences):
    """A store that answers, later than anybody waits."""

    blocking = True
    seconds = 0.0

    def get(self, user_key: str) -> Choice | None:
        time.sleep(self.seconds)
        return super().get(user_key) or Choice(anonymized=False)


@pytest.mark.parametrize("adapter", [Wsgi, Asgi])
def test_a_store_that_blocks_is_asked_in_a_thread_and_not_waited_for_too_long(
    adapter: Any, make, monkeypatch
) -> None:
    monkeypatch.setattr("second_mw.asking.CHOICE_TIMEOUT", 30.0)
    store = Slow()
    asking = Asking(adapter, make(preferences=store))
    assert asking.get().json["effective"] == "identified"
    assert asking.put({"anonymized": False}).status == 200
    monkeypatch.setattr("second_mw.asking.CHOICE_TIMEOUT", 0.01)
    store.seconds = 0.3
    assert asking.get().json["reason"] == "store_failed"


# memory:// serves one process


@pytest.mark.parametrize("alone", ["declared", "forked", "told"])
def test_memory_preferences_close_where_more_processes_serve(
    alone: str, monkeypatch, caplog
) -> None:
    if alone == "declared":
        monkeypatch.setenv("WEB_CONCURRENCY", "4")
    store = MemoryPreferences()
    if alone == "forked":
        store.put("k", Choice(anonymized=False))
        store.after_fork()
    if alone == "told":
        store.not_alone()
    assert store.get("k") is None
    with pytest.raises(PreferencesUnavailable):
        store.put("k", Choice(anonymized=False))
    with pytest.raises(PreferencesUnavailable):
        store.put("k", Choice(sharing=False))
    store.put("k", Choice())
    (record,) = caplog.records
    assert "SECOND_ANALYTICS_PREFERENCES" in record.getMessage()


@pytest.mark.parametrize("declared", ["1", "", "many"])
def test_one_declared_worker_is_one_process(declared: str, monkeypatch) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", declared)
    store = MemoryPreferences()
    store.put("k", Choice(anonymized=False))
    assert store.get("k") == Choice(anonymized=False)


def test_memory_preferences_are_bounded_and_refuse_rather_than_forget(monkeypatch) -> None:
    monkeypatch.setattr("second_mw.preferences.memory.MAX_CHOICES", 1)
    store = MemoryPreferences()
    store.put("a", Choice(anonymized=False))
    with pytest.raises(PreferencesUnavailable):
        store.put("b", Choice(anonymized=False))
    store.put("a", Choice(sharing=False))
    assert (store.get("a"), store.get("b")) == (Choice(sharing=False), None)


def test_a_wsgi_server_that_says_multiprocess_closes_memory_preferences(make) -> None:
    analytics = make()
    wrapped = analytics.wsgi(lambda *_: [], user=lambda _: ADA)
    statuses: list[str] = []
    environ = {
        "REQUEST_METHOD": "PUT",
        "PATH_INFO": PREFERENCES,
        "SERVER_NAME": "x",
        "SERVER_PORT": "80",
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": "20",
        "wsgi.url_scheme": "http",
        "wsgi.multiprocess": True,
        "wsgi.input": __import__("io").BytesIO(b'{"anonymized":false}'),
    }
    wrapped(environ, lambda status, headers: statuses.append(status))
    assert statuses == ["503 Service Unavailable"]


def test_users_without_workspaces_and_email_have_preferences_too(browser) -> None:
    assert browser(AnalyticsUser("u_1")).get().status == 200
