"""Which mode an event has, from outside: modes switched mid-stream, stores that fail, browsers
that lie. Tables of cases, each through both adapters.

What must never be: something in an event of one mode by which it can be joined to one of the
other. `joined` looks for it in whatever lies in the outbox.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from second_mw import Analytics, AnalyticsUser, Choice, PreferencesUnavailable
from second_mw.preferences.memory import MemoryPreferences
from tests.privacy.decoder import found
from tests.privacy.people import QUILL, secrets_of

CAPTURE, PREFERENCES, IDENTIFY = (
    f"/api/analytics/{name}" for name in ("capture", "preferences", "identify")
)
ANON = "anon_0f8fad5b-d9cb-469f-a165-70867728950e"
OTHER_ANON = "anon_7c9e6679-7425-40de-944b-e07fc1f90ae7"
UUID = "5b3f9c1e-7a42-4d86-9e10-c2d47f8a6b35"
GPC = {"sec_gpc": "1"}
KNOWN = replace(QUILL, anonymized=False)
ONE_OFF = re.compile(r"anon_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}")


def earlier(seconds: float = 600) -> str:
    """A time within the last 72 hours, to the microsecond."""
    moment = datetime.now(timezone.utc) - timedelta(seconds=seconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.123Z")


class Browser:
    """A user's browser, honest or not, in front of a wrapped host."""

    def __init__(self, adapter: Any, analytics: Analytics, user: AnalyticsUser = QUILL) -> None:
        self.analytics = analytics
        self.user = user
        self._ask = adapter(analytics, lambda _: self.user)

    def post(self, body: Any, path: str = CAPTURE, **headers: str) -> Any:
        return self._ask(
            "POST", path, json.dumps(body).encode(), content_type="application/json", **headers
        )

    def page(self, **fields: Any) -> Any:
        """Post a page view with these fields beside it."""
        headers = fields.pop("headers", {})
        return self.post({"event": "page viewed", **fields}, **headers)

    def choose(self, **wanted: Any) -> Any:
        body = json.dumps(wanted).encode()
        return self._ask("PUT", PREFERENCES, body, content_type="application/json")

    @property
    def left(self) -> list[dict[str, Any]]:
        return self.analytics.outbox.store.events  # type: ignore[union-attr, no-any-return]

    @property
    def modes(self) -> list[str]:
        return [mode_of(event) for event in self.left]


def mode_of(event: dict[str, Any]) -> str:
    """Return what an event in the outbox is, after everything in it has been looked at."""
    text = json.dumps(event)
    assert not re.search(r"create_alias|merge|\$anon_distinct_id|\$set_once|\$groups", text)
    if event["options"].get("process_person_profile") is False:
        assert event["properties"]["anonymized"] is True
        assert event["properties"]["analytics_consent_version"] == 1
        assert event["distinct_id"].startswith("anon_")
        assert event["event"] != "$identify"
        assert "$set" not in event["properties"]
        assert found(text, secrets_of(QUILL)) == []
        return "anonymized"
    assert event["distinct_id"] == QUILL.id
    assert "anon_" not in text
    assert event["properties"].get("anonymized") is not True
    return "$identify" if event["event"] == "$identify" else "identified"


def joined(events: list[dict[str, Any]]) -> set[str]:
    """Return the ids, uuids and times that events of both modes carry."""

    def carried(anonymized: bool) -> set[str]:
        return {
            mark
            for event in events
            if (mode_of(event) == "anonymized") is anonymized
            for mark in re.findall(
                r"[0-9a-f]{8}-[0-9a-f-]{27}|usr_\w+|[\d-]{10}T[\d:.]{8,}", json.dumps(event)
            )
        }

    return carried(True) & carried(False)


@pytest.fixture
def browser(adapter: Any, make: Any) -> Any:
    def open_browser(user: AnalyticsUser = QUILL, **settings: Any) -> Browser:
        return Browser(adapter, make(**settings), user)

    return open_browser


# Switching mid-stream

#: What is done, one after the other, and the modes of all that lies in the outbox then.
A, ID, TOLD = "anonymized", "identified", "$identify"
STREAMS: dict[str, tuple[str, list[str]]] = {
    "never chosen": ("page page", [A, A]),
    "on": ("page on page", [A, TOLD, ID]),
    "on and off": ("page on page off page", [A, TOLD, ID, A]),
    "on, off and on": ("on page off page on page", [TOLD, ID, A, ID]),
    "on twice": ("on on page", [TOLD, ID]),
    "off at first": ("off page", [A]),
    "sharing off": ("page share-off page", [A]),
    "sharing off and on": ("page share-off page share-on page", [A, A]),
    "identified, sharing off and on": ("on page share-off page share-on page", [TOLD, ID, ID]),
    "on while sharing is off": ("share-off on page share-on page", [TOLD, ID]),
    "GPC in between": ("on page gpc page", [TOLD, ID, A, ID]),
    "an identify asked for": ("identify on identify page off identify page", [TOLD, ID, A]),
    "a stamp of the other mode": ("on stamped-anonymized page", [TOLD, A, ID]),
    "a stamp that comes too late": ("on page off stamped-identified page", [TOLD, ID, A, A]),
    "a mixed batch, identified": ("on batch", [TOLD, A, ID, ID]),
    "a mixed batch, anonymized": ("batch", [A, A, A]),
    "a mixed batch after going back": ("on page off batch", [TOLD, ID, A, A, A]),
}  # fmt: skip


def do(browser: Browser, step: str, number: int) -> None:
    uuid = f"5b3f9c1e-7a42-4d86-9e10-{number:012x}"
    whole = {"uuid": uuid, "timestamp": earlier(600 + number), "anonymousDistinctId": ANON}
    steps: dict[str, Any] = {
        "page": lambda: browser.page(),
        "on": lambda: browser.choose(anonymized=False),
        "off": lambda: browser.choose(anonymized=True),
        "share-on": lambda: browser.choose(sharing=True),
        "share-off": lambda: browser.choose(sharing=False),
        "gpc": lambda: browser.page(headers=GPC),
        "identify": lambda: browser.post({}, IDENTIFY),
        "stamped-anonymized": lambda: browser.page(**whole, anonymized=True),
        "stamped-identified": lambda: browser.page(**whole, anonymized=False),
        "batch": lambda: browser.post(
            {
                "batch": [
                    {"event": "page viewed", **whole, "anonymized": True},
                    {"event": "page viewed", "anonymized": False},
                    {"event": "page viewed"},
                ]
            }
        ),
    }
    assert steps[step]().status in (200, 204)


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_of_switches_and_events_leaves_each_in_its_mode(name: str, browser: Any) -> None:
    steps, modes = STREAMS[name]
    asking = browser()
    for number, step in enumerate(steps.split()):
        before = asking.left
        do(asking, step, number)
        assert asking.left[: len(before)] == before, "something older was touched"
    assert asking.modes == modes
    marks = {mark for mark in joined(asking.left) if not TIMESTAMP.fullmatch(mark)}
    assert marks == set()


def test_an_event_captured_identified_and_posted_after_the_switch_back_joins_nothing(
    browser: Any,
) -> None:
    asking = browser()
    asking.choose(anonymized=False)
    stamp = earlier()
    asking.page(uuid=UUID, timestamp=stamp, anonymousDistinctId=ANON, anonymized=False)
    asking.choose(anonymized=True)
    for _ in range(2):
        reply = asking.page(uuid=UUID, timestamp=stamp, anonymousDistinctId=ANON, anonymized=False)
        assert reply.status == 204
    identified, *late = asking.left[1:]
    assert (identified["uuid"], identified["timestamp"]) == (UUID, stamp)
    assert late
    for event in late:
        assert mode_of(event) == "anonymized"
        assert event["uuid"] != UUID
        assert event["timestamp"] > stamp
        assert event["distinct_id"] != ANON
    assert joined(asking.left) == set()
    asking.page(uuid=UUID, anonymousDistinctId=ANON, anonymized=True)
    assert asking.left[-1]["distinct_id"] == ANON


def test_of_a_batch_posted_after_the_switch_back_only_what_was_anonymous_keeps_its_marks(
    browser: Any,
) -> None:
    asking = browser()
    stamp = earlier()
    whole = {"event": "page viewed", "timestamp": stamp, "anonymousDistinctId": ANON}
    other = "0190a6e4-3d5b-7c1e-8a52-0123456789ab"
    reply = asking.post(
        {
            "batch": [
                {**whole, "uuid": UUID, "anonymized": True},
                {**whole, "uuid": other, "anonymized": False},
            ]
        }
    )
    assert reply.json == {"results": {UUID: {"status": "accepted"}, other: {"status": "accepted"}}}
    kept, fresh = asking.left
    assert (kept["uuid"], kept["timestamp"], kept["distinct_id"]) == (UUID, stamp, ANON)
    assert fresh["uuid"] != other
    assert fresh["timestamp"] != stamp
    assert fresh["distinct_id"] != ANON


def test_identify_stands_before_the_first_event_in_the_same_put(browser: Any) -> None:
    asking = browser(KNOWN)
    asking.page()
    asking.page()
    assert asking.modes == [TOLD, ID, ID]
    assert asking.analytics.outbox.store.puts == [2, 1]


def test_the_anonymous_id_of_a_browser_is_dropped_in_identified_mode(browser: Any) -> None:
    asking = browser(KNOWN)
    asking.page(anonymousDistinctId=ANON, properties={"theme": ANON, "x": {"y": [ANON]}})
    told, page = asking.left
    assert ANON not in json.dumps(told)
    assert (page["distinct_id"], "anonymousDistinctId" in page["properties"]) == (QUILL.id, False)


def test_server_code_switches_with_the_user(browser: Any) -> None:
    asking = browser()
    capture = asking.analytics.capture
    assert capture(QUILL, "build completed", {"file_count": 1}, anonymous_id=ANON)
    asking.choose(anonymized=False)
    assert capture(QUILL, "build completed", {"file_count": 2}, anonymous_id=ANON)
    asking.choose(anonymized=True)
    assert capture(QUILL, "build completed", {"file_count": 3})
    assert asking.modes == [A, TOLD, ID, A]
    assert asking.left[0]["distinct_id"] == ANON
    assert asking.left[-1]["distinct_id"] != ANON


# An event's own word

#: Every spelling that the server must understand.
SPELLINGS = [
    "anonymized", "Anonymized", "ANONYMIZED", "aNONYMIZED", "anonymized1",
    "anonymized_", "_anonymized", " anonymized ", "anonymized\t", "anony\u200bmized",
    "\ufeffanonymized", "ａｎｏｎｙｍｉｚｅｄ", "𝐚𝐧𝐨𝐧𝐲𝐦𝐢𝐳𝐞𝐝", "anonymized" + "0" * 80,
]  # fmt: skip
ASKING: list[Any] = [True, None, 0, 1, "", "false", "False", "true", "no", [], [False], {}, 0.0]


@pytest.mark.parametrize("place", ["top", "properties", "hundredth property"])
@pytest.mark.parametrize("key", SPELLINGS, ids=ascii)
def test_a_word_for_anonymity_counts_in_every_spelling_and_place(
    key: str, place: str, browser: Any
) -> None:
    asking = browser(KNOWN)
    many = {f"n_{letter}{other}": 1 for letter in "abcdefghij" for other in "abcdefghij"}
    bodies = {
        "top": {key: True},
        "properties": {"properties": {key: True}},
        "hundredth property": {"properties": {**many, key: True}},
    }
    assert asking.page(**bodies[place]).status == 204
    assert asking.modes == [A]


@pytest.mark.parametrize("place", ["top", "properties"])
@pytest.mark.parametrize("value", ASKING, ids=repr)
def test_anything_but_false_asks_for_anonymity(value: Any, place: str, browser: Any) -> None:
    asking = browser(KNOWN)
    fields = {"anonymized": value}
    assert asking.page(**(fields if place == "top" else {"properties": fields})).status == 204
    assert asking.modes == [A]


@pytest.mark.parametrize(
    "fields",
    [
        {"anonymized": True, "properties": {"anonymized": False}},
        {"anonymized": False, "properties": {"anonymized": True}},
        {"anonymized": False, "Anonymized": True},
        {"properties": {"anonymized": False, "ANONYMIZED": "no"}},
    ],
    ids=str,
)
def test_one_word_for_anonymity_outweighs_any_other(fields: Any, browser: Any) -> None:
    asking = browser(KNOWN)
    assert asking.page(**fields).status == 204
    assert asking.modes == [A]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"anonymized": False},
        {"properties": {"anonymized": False}},
        {"anonymized": False, "properties": {"Anonymized": False}},
        {"properties": {"context": {"anonymized": True}}},
        {"properties": {"anonymizedx": True, "is_anonymized": True, "anonymised": True}},
    ],
    ids=str,
)
def test_false_and_what_only_resembles_the_word_are_neutral(fields: Any, browser: Any) -> None:
    asking = browser(KNOWN)
    assert asking.page(**fields).status == 204
    assert asking.modes == [TOLD, ID]


@pytest.mark.parametrize(
    "fields",
    [
        {"anonymized": False},
        {"properties": {"anonymized": False}},
        {"mode": "identified"},
        {"properties": {"mode": "identified", "effective": "identified"}},
        {"options": {"process_person_profile": True}},
        {"$process_person_profile": True},
        {"properties": {"$process_person_profile": True}},
        {"properties": {"process_person_profile": True}},
        {"properties": {"＄process_person_profile": True}},
        {"distinct_id": QUILL.id},
        {"properties": {"distinct_id": QUILL.id, "$distinct_id": QUILL.id}},
        {"properties": {"$user_id": QUILL.id, "$device_id": "d", "$session_id": "s"}},
        {"properties": {"$set": {"email": QUILL.email}, "$set_once": {"name": QUILL.name}}},
        {"properties": {"$anon_distinct_id": QUILL.id, "alias": QUILL.id}},
        {"properties": {"$groups": {"company": "acme"}, "$ip": "203.0.113.7"}},
        {"properties": {"$geoip_disable": False, "$lib": "forged", "second_mw": "forged"}},
        {"properties": {"analytics_consent_version": 99, "release_version": "forged"}},
        {"token": "phc_other", "api_key": "phc_other", "properties": {"token": "phc_other"}},
        {"type": "alias", "set": {"email": QUILL.email}},
    ],
    ids=str,
)
def test_no_word_of_a_browser_lifts_anonymity_or_forges_the_servers_own(
    fields: Any, browser: Any
) -> None:
    asking = browser()
    assert asking.page().status == 204
    assert asking.page(**fields).status == 204
    assert asking.modes == [A, A]
    plain, forged = (event["properties"] for event in asking.left)
    assert {key: forged.get(key) for key in plain} == plain
    assert set(forged) - set(plain) <= {"mode", "effective", "process_person_profile", "alias"}
    assert len({event["distinct_id"] for event in asking.left}) == 2


# Browsers that lie

FORGED_EVENTS = [
    "$identify", "$create_alias", "$merge_dangerously", "$set", "$groupidentify", "$pageview",
    "$$heatmap", "＄identify", " $identify", "page viewed ", "Page viewed", "page\u200b viewed", "",
]  # fmt: skip


@pytest.mark.parametrize("user", [QUILL, KNOWN], ids=["anonymized", "identified"])
@pytest.mark.parametrize("event", FORGED_EVENTS, ids=ascii)
def test_events_of_posthogs_own_are_refused(event: str, user: Any, browser: Any) -> None:
    asking = browser(user)
    forged = {"event": event, "properties": {"$anon_distinct_id": ANON, "alias": ANON}}
    reply = asking.post(forged)
    assert (reply.status, reply.code) == (400, "invalid_event")
    batch = asking.post({"batch": [{**forged, "uuid": UUID}]})
    assert batch.json == {"results": {UUID: {"status": "rejected", "error": "invalid_event"}}}
    assert asking.left == []
    assert not asking.analytics.capture(user, event, {"$anon_distinct_id": ANON})
    assert asking.left == []


def test_an_identified_users_browser_can_not_be_somebody_else(browser: Any) -> None:
    asking = browser(KNOWN)
    forged = {
        "user_id": "usr_other", "user_email": "other@elsewhere.example", "user_name": "Other",
        "workspace_role": "owner", "distinct_id": "usr_other", "$user_id": "usr_other",
        "$set": {"email": "other@elsewhere.example"}, "$set_once": {"x": 1}, "$unset": ["email"],
        "$anon_distinct_id": ANON, "$groups": {"company": "x"}, "$ip": "203.0.113.7",
        "$current_url": "https://forged.example/", "$pathname": "/forged",
        "$referrer": "https://forged.example/", "$process_person_profile": False,
        "$geoip_disable": False, "$lib": "forged", "release_version": "forged",
    }  # fmt: skip
    assert asking.page(properties=forged, distinct_id="usr_other").status == 204
    assert asking.modes == [TOLD, ID]
    text = json.dumps(asking.left)
    assert not re.search("forged|elsewhere|usr_other|203.0.113|owner", text)
    (told, page) = (event["properties"] for event in asking.left)
    assert told["$set"] == {
        "email": QUILL.email, "name": QUILL.name, "user_id": QUILL.id,
        "workspace_id": "ws_tarnholme_83", "workspace_role": "admin",
    }  # fmt: skip
    assert (page["user_id"], page["user_email"], page["user_name"]) == (
        QUILL.id, QUILL.email, QUILL.name,
    )  # fmt: skip
    assert (page["$ip"], page["$geoip_disable"], page["$lib"]) == ("0.0.0.0", True, "second-mw")


INVALID_IDS: list[Any] = [
    None, "", "anon_", ANON.removeprefix("anon_"), ANON + "0", ANON[:-1],
    " " + ANON, ANON + "\n", ANON.replace("-", ""), "anon_{" + ANON[5:] + "}",
    "anon_00000000-0000-0000-0000-000000000000", "anon_ffffffff-ffff-ffff-ffff-ffffffffffff",
    "anon_0f8fad5b-d9cb-169f-a165-70867728950e", "anon_0f8fad5b-d9cb-769f-a165-70867728950e",
    "anon_0f8fad5b-d9cb-469f-c165-70867728950e", "anon_urn:uuid:" + ANON[5:],
    "anon_anon_" + ANON[5:],
    "anon_０f8fad5b-d9cb-469f-a165-70867728950e", "usr_7Gk2Pw93Zt5q", "undefined", "null", 0, 7,
    True, [ANON], {"id": ANON}, "x" * 500,
]  # fmt: skip


@pytest.mark.parametrize("claimed", INVALID_IDS, ids=lambda claimed: ascii(claimed)[:40])
def test_an_anonymous_id_that_is_none_is_replaced_by_one_of_the_event_alone(
    claimed: Any, browser: Any
) -> None:
    asking = browser()
    second = "0190a6e4-3d5b-7c1e-8a52-0123456789ab"
    for uuid in (UUID, second):
        assert asking.page(uuid=uuid, anonymousDistinctId=claimed).status == 204
    assert asking.page(uuid=UUID, anonymousDistinctId=claimed).status == 204
    assert asking.modes == [A, A], "a retry has the same id and is stored once"
    ids = [event["distinct_id"] for event in asking.left]
    assert len(set(ids)) == 2
    assert all(ONE_OFF.fullmatch(one) for one in ids)
    assert ANON not in ids


@pytest.mark.parametrize("claimed", [ANON, "anon_" + ANON[5:].upper()])
def test_a_valid_anonymous_id_is_kept_in_lower_case(claimed: str, browser: Any) -> None:
    asking = browser()
    assert asking.page(anonymousDistinctId=claimed).status == 204
    assert asking.left[0]["distinct_id"] == ANON


def test_a_one_off_id_tells_nothing_of_who_it_was(browser: Any) -> None:
    asking = browser()
    asking.page(uuid=UUID)
    asking.user = AnalyticsUser("somebody-else")
    asking.analytics.outbox.store.payloads.clear()
    first = asking.page(uuid=UUID)
    assert first.status == 204
    asking.user = QUILL
    asking.page(uuid=UUID)
    assert len(asking.left) == 1, "the id follows from the event, not from the person"


def test_the_signals_of_a_browser_outweigh_what_its_user_chose(browser: Any) -> None:
    asking = browser(KNOWN, dnt="anonymize")
    for headers in ({}, GPC, {"dnt": "1"}, {"sec_gpc": "0", "dnt": "0"}):
        asking.page(headers=headers)
    assert asking.modes == [TOLD, ID, A, A, ID]


# Stores that fail


class Store(MemoryPreferences):
    """A store that answers whatever it was told to."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    def get(self, user_key: str) -> Any:
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


ANSWERS: dict[str, tuple[Any, str]] = {
    "unavailable": (PreferencesUnavailable("away"), A),
    "a closed file": (OSError("closed"), A),
    "a time-out": (TimeoutError(), A),
    "a bug": (KeyError("user"), A),
    "nothing": (None, A),
    "an empty choice": (Choice(), A),
    "anonymized": (Choice(anonymized=True), A),
    "a 0 of a database": (Choice(anonymized=0), A),  # type: ignore[arg-type]
    "a text": (Choice(anonymized="false"), A),  # type: ignore[arg-type]
    "a mapping": ({"anonymized": False}, A),
    "a bare False": (False, A),
    "identified": (Choice(anonymized=False), ID),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_only_a_store_that_says_identified_identifies(name: str, browser: Any) -> None:
    answer, mode = ANSWERS[name]
    asking = browser(preferences=Store(answer))
    assert asking.page().status == 204
    assert asking.modes[-1] == mode
    captured = asking.analytics.capture(QUILL, "page viewed")
    assert captured
    assert asking.modes[-1] == mode


@pytest.mark.parametrize(
    "error", [PreferencesUnavailable("away"), OSError("closed"), KeyError("user")], ids=repr
)
def test_a_store_that_fails_mid_stream_anonymizes_until_it_is_back(
    error: Exception, browser: Any
) -> None:
    store = Store(Choice(anonymized=False))
    asking = browser(preferences=store)
    asking.page()
    store.answer = error
    asking.page(anonymousDistinctId=OTHER_ANON)
    asking.post({"batch": [{"event": "page viewed", "anonymized": False}]})
    store.answer = Choice(anonymized=False)
    asking.page()
    assert asking.modes == [TOLD, ID, A, A, ID]
    marks = {mark for mark in joined(asking.left) if not TIMESTAMP.fullmatch(mark)}
    assert marks == set()


def test_identified_is_read_from_the_store_for_every_request(browser: Any) -> None:
    store = Store(Choice(anonymized=False))
    asking = browser(preferences=store)
    asking.page()
    store.answer = Choice(anonymized=True)
    asking.page()
    assert asking.modes == [TOLD, ID, A]


def test_a_batch_of_somebody_new_says_once_who_they_are(make, adapter) -> None:
    analytics = make()
    ask = adapter(analytics, lambda _: KNOWN)
    batch = {"batch": [{"event": "page viewed"} for _ in range(3)]}
    body = json.dumps(batch).encode()
    assert ask("POST", CAPTURE, body, content_type="application/json").status == 200
    names = [event["event"] for event in analytics.outbox.store.events]
    assert names == ["$identify", "page viewed", "page viewed", "page viewed"]
