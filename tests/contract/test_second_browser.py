"""Second's own browser code, unchanged, in front of this endpoint: through both adapters.

It posts one event at a time, `{event, anonymousDistinctId, properties}`, and says in `properties`
which mode it thinks it is in and which version of the consent it knows; a batch, a uuid, a
timestamp or a subject it does not know. `POST identify` tells of a workspace.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from second_mw import Analytics, AnalyticsUser, Choice
from second_mw.preferences.memory import MemoryPreferences
from tests.hosts import ADA, Reply
from tests.stores import Full, Kept

ANON = "anon_7f1f0f57-7f4e-4f0f-8a4b-2f6f9d0b9b1c"
#: What its fetch sends: keepalive only below this many bytes.
KEEPALIVE_BYTES = 60_000


class Preferring(MemoryPreferences):
    """Everybody has chosen the same."""

    def __init__(self, choice: Choice) -> None:
        super().__init__()
        self.choice = choice

    def get(self, user_key: str) -> Choice | None:
        return self.choice


class Second:
    """Second's browser code."""

    def __init__(self, ask: Any, store: Any) -> None:
        self.ask = ask
        self.store = store

    def capture(
        self, event: str, *, anonymized: bool, anonymous: str | None = ANON, **properties: Any
    ) -> Reply:
        body: dict[str, Any] = {
            "event": event,
            "properties": {
                "surface": "app_chat",
                "route_shape": "/w/:workspace/apps/:objectId",
                "viewport_width": 1280,
                "viewport_height": 800,
                "anonymized": anonymized,
                "analytics_consent_version": 1,
                **properties,
            },
        }
        if anonymous is not None:
            body["anonymousDistinctId"] = anonymous
        return self.post("capture", body)

    def identify(self, **body: Any) -> Reply:
        return self.post("identify", body)

    def post(self, path: str, body: Any) -> Reply:
        reply: Reply = self.ask(
            "POST",
            f"/api/analytics/{path}",
            json.dumps(body).encode(),
            content_type="application/json",
            origin="https://app.example",
            sec_fetch_site="same-origin",
        )
        return reply

    @property
    def events(self) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = self.store.events
        return events


@pytest.fixture
def second(adapter: Any, make: Callable[..., Analytics]) -> Callable[..., Second]:
    def start(user: Any = ADA, **settings: Any) -> Second:
        store = settings.setdefault("outbox", Kept())
        resolver = user if callable(user) else lambda _: user
        return Second(adapter(make(**settings), resolver), store)

    return start


IDENTIFIED = {"preferences": Preferring(Choice(anonymized=False))}


def test_an_anonymized_event_is_taken_under_the_browsers_own_id(second: Any) -> None:
    browser = second()
    reply = browser.capture(
        "build completed",
        anonymized=True,
        file_count=12,
        app_name="Payroll helper",
        workspace_id="w_engine",
    )
    assert (reply.status, reply.body) == (204, b"")
    (event,) = browser.events
    assert event["distinct_id"] == ANON
    properties = event["properties"]
    assert event["options"]["process_person_profile"] is False
    assert properties["anonymized"] is True
    assert properties["analytics_consent_version"] == 1
    assert properties["file_count"] == 12
    assert not {"app_name", "workspace_id", "user_id", "user_email"} & set(properties)


def test_an_identified_event_is_the_users_own(second: Any) -> None:
    browser = second(**IDENTIFIED)
    reply = browser.capture(
        "chat initiated", anonymized=False, anonymous=None, message="hello", workspace_id="w_engine"
    )
    assert reply.status == 204
    identify, event = browser.events
    assert identify["event"] == "$identify"
    assert event["distinct_id"] == ADA.id
    properties = event["properties"]
    assert properties["message"] == "hello"
    assert properties["user_email"] == ADA.email
    assert properties["workspace_id"] == "w_engine"
    assert properties["anonymized"] is False
    assert "process_person_profile" not in event["options"]


def test_an_identified_users_event_that_says_anonymized_stays_anonymized(second: Any) -> None:
    browser = second(**IDENTIFIED)
    assert browser.capture("app displayed", anonymized=True, file_count=1).status == 204
    (event,) = browser.events
    assert event["distinct_id"] == ANON
    assert event["properties"]["anonymized"] is True


def test_an_event_captured_identified_and_posted_after_the_switch_back_is_nobodys(
    second: Any,
) -> None:
    browser = second()
    assert browser.capture("app displayed", anonymized=False, file_count=1).status == 204
    (event,) = browser.events
    assert event["distinct_id"].startswith("anon_")
    assert event["distinct_id"] != ANON
    assert event["properties"]["anonymized"] is True


@pytest.mark.parametrize("version", [1, 2, "1", None, {"deep": [1]}])
def test_the_version_of_the_consent_is_the_servers_to_say(second: Any, version: Any) -> None:
    browser = second()
    reply = browser.capture("page viewed", anonymized=True, analytics_consent_version=version)
    assert reply.status == 204
    assert browser.events[0]["properties"]["analytics_consent_version"] == 1


@pytest.mark.parametrize("anonymous", [None, "", "anon_nope", "u_1", 7, {}, ANON.upper()])
def test_a_missing_or_wrong_anonymous_id_costs_no_event(second: Any, anonymous: Any) -> None:
    browser = second()
    body = {"event": "page viewed", "anonymousDistinctId": anonymous,
            "properties": {"anonymized": True}}  # fmt: skip
    assert browser.post("capture", body).status == 204
    assert browser.events[0]["distinct_id"].startswith("anon_")


def test_each_post_is_an_event_of_its_own(second: Any) -> None:
    browser = second()
    for _ in range(3):
        assert browser.capture("sidebar clicked", anonymized=True, target="library").status == 204
    assert len({event["uuid"] for event in browser.events}) == 3
    assert {event["distinct_id"] for event in browser.events} == {ANON}


def test_a_body_just_below_the_keepalive_limit_is_taken(second: Any) -> None:
    browser = second()
    error = "x" * (KEEPALIVE_BYTES - 400)
    assert browser.capture("build failed", anonymized=True, error=error).status == 204


@pytest.mark.parametrize(
    ("user", "settings", "event", "properties", "status", "code"),
    [
        (None, {}, "page viewed", {}, 401, "not_authenticated"),
        (AnalyticsUser("u", onboarded=False), {}, "page viewed", {}, 403, "not_onboarded"),
        (ADA, {}, "page looked at", {}, 400, "invalid_event"),
        (ADA, {}, "page viewed", {"workspace_id": "w_other"}, 404, "workspace_not_found"),
        (ADA, {"outbox": Full()}, "page viewed", {}, 503, "outbox_unavailable"),
        (ADA, {"token": None}, "page viewed", {}, 204, None),
        (ADA, {"preferences": Preferring(Choice(sharing=False))}, "page viewed", {}, 204, None),
    ],
)
def test_what_is_not_taken_is_answered_as_to_anybody(
    second: Any,
    user: Any,
    settings: dict[str, Any],
    event: str,
    properties: dict[str, Any],
    status: int,
    code: str | None,
) -> None:
    browser = second(user, **settings)
    reply = browser.capture(event, anonymized=True, **properties)
    assert (reply.status, reply.code) == (status, code)
    assert browser.events == []


# POST identify


@pytest.mark.parametrize("body", [{"workspaceId": "w_engine"}, {"workspaceId": None}, {}])
def test_identify_tells_posthog_of_an_identified_user(second: Any, body: dict[str, Any]) -> None:
    browser = second(**IDENTIFIED)
    reply = browser.identify(**body)
    assert (reply.status, reply.body) == (204, b"")
    (event,) = browser.events
    assert (event["event"], event["distinct_id"]) == ("$identify", ADA.id)
    told = event["properties"]["$set"]
    assert (told["email"], told.get("workspace_id")) == (ADA.email, body.get("workspaceId"))
    assert "$anon_distinct_id" not in event["properties"]
    # Once is enough.
    assert browser.identify(**body).status == 204
    assert len(browser.events) == 1


def test_identify_tells_nothing_of_an_anonymized_user(second: Any) -> None:
    browser = second()
    assert browser.identify(workspaceId="w_engine").status == 204
    assert browser.events == []


@pytest.mark.parametrize(
    ("user", "body", "status", "code"),
    [
        (None, {}, 401, "not_authenticated"),
        (AnalyticsUser("u", onboarded=False), {}, 403, "not_onboarded"),
        (ADA, {"workspaceId": "w_other"}, 404, "workspace_not_found"),
        (ADA, [], 400, "invalid_payload"),
    ],
)
def test_identify_refuses_as_the_status_table_says(
    second: Any, user: Any, body: Any, status: int, code: str
) -> None:
    reply = second(user, **IDENTIFIED).post("identify", body)
    assert (reply.status, reply.code) == (status, code)
