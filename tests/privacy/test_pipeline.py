"""Ids, times and what is added, in each mode; `$identify`; hooks."""

from __future__ import annotations

import uuid as uuids
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from second_mw import AnalyticsUser, Refused
from second_mw.payload import rfc3339
from second_mw.privacy import identify as identify_module
from second_mw.privacy import pipeline as pipelines
from second_mw.version import VERSION
from tests.privacy.cores import ADA, core, finish, payload_of

ANON = "anon_3f2b8c1e-0d4a-4b6f-9a11-5c7d2e8f0a12"
V4 = "3f2b8c1e-0d4a-4b6f-9a11-5c7d2e8f0a13"
V7 = "0190a6e4-3d5b-7c1e-8a52-0123456789ab"
IDENTIFIED = replace(ADA, anonymized=False)
ADDED = {
    "release_version": "1.2.3",
    "release_package": None,
    "release_runtime": None,
    "cli_launcher_version": None,
    "cli_launcher_package": None,
    "auth_mode": None,
    "installation_mode": None,
    "second_mw": VERSION,
    "$lib": "second-mw",
    "$lib_version": VERSION,
    "$geoip_disable": True,
    "$ip": "0.0.0.0",
    "analytics_consent_version": 1,
}


def now() -> datetime:
    return datetime.now(timezone.utc)


def test_an_anonymized_payload_whole() -> None:
    at = rfc3339(now())
    payload = payload_of(
        {"surface": "settings"},
        uuid=V7,
        timestamp=at,
        anonymous_id=ANON,
        pipeline=core(release_version="1.2.3"),
    )
    assert msgspec.to_builtins(payload) == {
        "event": "page viewed",
        "uuid": V7,
        "distinct_id": ANON,
        "timestamp": at,
        "options": {"process_person_profile": False},
        "properties": payload.properties and msgspec.to_builtins(payload)["properties"],
    }
    assert msgspec.json.decode(payload.properties) == {
        "surface": "settings",
        "anonymized": True,
        **ADDED,
    }


def test_an_identified_payload_whole() -> None:
    at = rfc3339(now())
    finished = finish(
        {
            "message": "hello",
            "page_url": "https://app.example/reset?token=abc#x",
            "pathname": "/w/acme",
            "referrer": "https://u:p@elsewhere.example/?utm_source=mail&q=1",
        },
        event="chat initiated",
        user=IDENTIFIED,
        mode="identified",
        uuid=V4,
        timestamp=at,
        anonymous_id=ANON,
        workspace_id="w_engine_room",
        pipeline=core(release_version="1.2.3"),
    )
    told, event = finished.payloads
    claims = {
        "user_id": ADA.id,
        "user_email": ADA.email,
        "user_name": ADA.name,
        "workspace_id": "w_engine_room",
        "workspace_role": "admin",
    }
    assert (event.event, event.uuid, event.distinct_id, event.timestamp, event.options) == (
        "chat initiated", V4, ADA.id, at, {},
    )  # fmt: skip
    assert msgspec.json.decode(event.properties) == {
        "message": "hello",
        "page_url": "https://app.example/reset",
        "pathname": "/w/acme",
        "referrer": "https://elsewhere.example/?utm_source=mail",
        "$current_url": "https://app.example/reset",
        "$pathname": "/w/acme",
        "$referrer": "https://elsewhere.example/?utm_source=mail",
        "anonymized": False,
        **claims,
        **ADDED,
    }
    assert (told.event, told.distinct_id, told.options) == ("$identify", ADA.id, {})
    assert told.timestamp <= event.timestamp
    assert msgspec.json.decode(told.properties) == {
        "$set": {
            "user_id": ADA.id,
            "email": ADA.email,
            "name": ADA.name,
            "workspace_id": "w_engine_room",
            "workspace_role": "admin",
        },
        "anonymized": False,
        **ADDED,
    }


def test_geoip_can_be_left_to_posthog_and_the_address_still_does_not_go() -> None:
    properties = msgspec.json.decode(payload_of({}, pipeline=core(disable_geoip=False)).properties)
    assert "$geoip_disable" not in properties
    assert properties["$ip"] == "0.0.0.0"


# distinct_id


@pytest.mark.parametrize("given", [ANON, ANON.upper().replace("ANON", "anon"), ANON.upper()])
def test_a_browsers_anonymous_id_is_kept_in_lower_case(given: str) -> None:
    assert payload_of({}, anonymous_id=given).distinct_id == ANON


@pytest.mark.parametrize(
    "given",
    [
        None, "", 5, [ANON], "anon_x", V4, "anon_" + V7, "anon_" + ADA.id, ADA.id, ANON + "0",
        ANON.replace("4b6f", "1b6f"), ANON.replace("9a11", "ca11"), " " + ANON,
    ],
)  # fmt: skip
def test_anything_else_becomes_a_one_off_id_that_is_the_same_on_a_retry(given: Any) -> None:
    first = payload_of({}, uuid=V7, anonymous_id=given).distinct_id
    again = payload_of({}, uuid=V7, anonymous_id=given).distinct_id
    other = payload_of({}, uuid=V4, anonymous_id=given).distinct_id
    assert first == again != other
    assert uuids.UUID(first.removeprefix("anon_")).version == 4
    assert first.startswith("anon_")


def test_an_anonymous_id_that_holds_the_users_id_is_not_used() -> None:
    user = AnalyticsUser("3f2b8c1e-0d4a-4b6f-9a11-5c7d2e8f0a12")
    assert payload_of({}, user=user, anonymous_id=ANON).distinct_id != ANON
    user = AnalyticsUser("0d4a4b6f9a11")
    assert payload_of({}, user=user, anonymous_id=ANON).distinct_id != ANON


def test_a_short_id_that_stands_in_a_uuid_by_chance_changes_nothing() -> None:
    user = AnalyticsUser("3f2b", workspaces={"0d4a": None, "9a11": None})
    payload = payload_of({}, user=user, anonymous_id=ANON, uuid=V4)
    assert (payload.distinct_id, payload.uuid) == (ANON, V4)


# uuid


@pytest.mark.parametrize("mode", ["anonymized", "identified"])
@pytest.mark.parametrize("uuid", [V4, V7])
def test_a_uuid_is_kept(uuid: str, mode: str) -> None:
    assert payload_of({}, uuid=uuid, mode=mode, user=IDENTIFIED).uuid == uuid


def test_events_without_a_uuid_get_one_of_their_own() -> None:
    assert payload_of({}).uuid != payload_of({}).uuid


def test_a_uuid_that_holds_identity_is_replaced_the_same_on_a_retry() -> None:
    user = AnalyticsUser("u_123456", aliases=(V4.upper(),))
    first, again = payload_of({}, uuid=V4, user=user), payload_of({}, uuid=V4, user=user)
    assert first.uuid == again.uuid != V4
    assert uuids.UUID(first.uuid).version == 4


# timestamp


@pytest.mark.parametrize(
    ("ahead", "kept"),
    [
        (timedelta(0), True),
        (timedelta(minutes=4), True),
        (timedelta(minutes=6), False),
        (timedelta(hours=-71), True),
        (timedelta(hours=-73), False),
    ],
)
def test_a_timestamp_is_believed_within_bounds(ahead: timedelta, kept: bool) -> None:
    at = now() + ahead
    payload = payload_of({}, timestamp=at.isoformat())
    assert (payload.timestamp == rfc3339(at)) is kept
    for _ in range(2):
        # As a browser writes it; the second's bounds are remembered.
        payload = payload_of({}, timestamp=rfc3339(at))
        assert (payload.timestamp == rfc3339(at)) is kept


def test_a_remembered_second_is_believed_no_longer_than_72_hours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at = rfc3339(now())
    assert payload_of({}, timestamp=at).timestamp == at
    later = now() + timedelta(hours=73)
    monkeypatch.setattr(pipelines, "_now", lambda: later)
    monkeypatch.setattr(pipelines.time, "time", later.timestamp)
    assert payload_of({}, timestamp=at).timestamp == rfc3339(later)
    earlier = now() - timedelta(hours=1)
    monkeypatch.setattr(pipelines, "_now", lambda: earlier)
    monkeypatch.setattr(pipelines.time, "time", earlier.timestamp)
    assert payload_of({}, timestamp=at).timestamp == rfc3339(earlier)


def test_a_time_that_is_not_believed_is_not_remembered() -> None:
    assert payload_of({}, timestamp="1815-12-10T11:22:33.000Z").timestamp > "2026"
    assert not [second for second in pipelines._believed_when if second.startswith("1815")]


def test_no_more_than_some_seconds_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipelines, "_SECONDS", 5)
    monkeypatch.setattr(pipelines, "_believed_when", {})
    for back in range(40):
        at = rfc3339(now() - timedelta(seconds=back))
        assert payload_of({}, timestamp=at).timestamp == at
    assert 0 < len(pipelines._believed_when) <= 5


def test_a_timestamp_leaves_as_utc_with_milliseconds() -> None:
    at = now().replace(microsecond=987654)
    west = at.astimezone(timezone(timedelta(hours=-7)))
    assert payload_of({}, timestamp=west.isoformat()).timestamp == (
        at.strftime("%Y-%m-%dT%H:%M:%S") + ".987Z"
    )
    assert payload_of({}, timestamp=west).timestamp.endswith(".987Z")


@pytest.mark.parametrize(
    "given",
    [
        None,
        5,
        "",
        "yesterday",
        "2026-11-24T04:03:00",
        "9999-12-31T23:59:59-23:59",
        [],
        {},
        "2026-13-24T04:03:00.123Z",
        "0001-01-01T00:00:00.000Z",
        "9999-12-31T23:59:59.999Z",
        "ada@example.com, ada.123Z",
        "٢٠٢٦-11-24T04:03:00.123Z",
        "2026-11-24T04:03:00.12\u0663Z",
    ],
)
def test_an_unreadable_timestamp_is_the_servers_time(given: Any) -> None:
    before = rfc3339(now())
    assert before <= payload_of({}, timestamp=given).timestamp <= rfc3339(now())


# Modes crossing


def test_captured_identified_and_accepted_anonymized_nothing_can_be_joined() -> None:
    at = rfc3339(now() - timedelta(minutes=3))
    posted = {"uuid": V4, "timestamp": at, "anonymous_id": ANON, "word": "identified"}
    first, second = payload_of({}, **posted), payload_of({}, **posted)
    for payload in (first, second):
        assert payload.uuid != V4
        assert payload.timestamp > at
        assert payload.distinct_id != ANON
        assert uuids.UUID(payload.distinct_id.removeprefix("anon_")).version == 4
    assert first.distinct_id != second.distinct_id


def test_captured_anonymized_and_accepted_identified_it_stays_anonymized() -> None:
    payload = payload_of(
        {}, user=IDENTIFIED, mode="identified", word="anonymized", anonymous_id=ANON, uuid=V4
    )
    assert (payload.distinct_id, payload.uuid) == (ANON, V4)
    assert ADA.id.encode() not in payload.properties


def test_the_anonymous_id_goes_nowhere_in_identified_mode() -> None:
    finished = finish({"x": 1}, user=IDENTIFIED, mode="identified", anonymous_id=ANON)
    assert ANON not in str([msgspec.to_builtins(p) for p in finished.payloads])


@pytest.mark.parametrize("user_id", ["anon_1", "x" * 201, "null", "Guest", "0"])
def test_an_id_that_can_be_no_distinct_id_is_never_sent_identified(user_id: str) -> None:
    payload = payload_of({}, user=AnalyticsUser(user_id, anonymized=False), mode="identified")
    assert payload.distinct_id.startswith("anon_")
    assert payload.options == {"process_person_profile": False}


# $identify


def told(pipeline: Any, user: AnalyticsUser = IDENTIFIED, **posted: Any) -> bool:
    finished = finish({}, user=user, mode="identified", pipeline=pipeline, **posted)
    if finished.taken is not None:
        finished.taken()
    return finished.payloads[0].event == "$identify"


def test_a_user_is_identified_before_the_first_event_and_not_again() -> None:
    pipeline = core()
    assert [told(pipeline) for _ in range(3)] == [True, False, False]


@pytest.mark.parametrize(
    "changed",
    [{"email": "new@analytical.example"}, {"name": "Ada King"}, {"workspaces": {"w_2": "member"}},
     {"workspaces": {"w_engine_room": "member"}}],
)  # fmt: skip
def test_a_user_is_identified_again_when_anything_changed(changed: dict[str, Any]) -> None:
    pipeline = core()
    assert told(pipeline)
    assert told(pipeline, replace(IDENTIFIED, **changed))
    assert not told(pipeline, replace(IDENTIFIED, **changed))


def test_a_user_who_changes_back_is_identified_again_although_prepared_before(monkeypatch) -> None:
    # So few that the table turns over between the first name and the second.
    monkeypatch.setattr(pipelines, "_PREPARED_USERS", 2)
    pipeline, renamed = core(), replace(IDENTIFIED, name="Ada King")
    assert told(pipeline)
    assert told(pipeline, AnalyticsUser("u_somebody_else", anonymized=False))
    assert told(pipeline, AnalyticsUser("u_another", anonymized=False))
    assert IDENTIFIED.id in pipeline._earlier
    assert told(pipeline, renamed)
    assert told(pipeline)
    assert not told(pipeline)


def test_a_user_is_identified_again_with_each_change_of_workspace() -> None:
    pipeline = core()
    user = replace(IDENTIFIED, workspaces={"w_1": "admin", "w_2": "member"})
    visits = ["w_1", "w_1", "w_2", "w_2", "w_1", "w_1"]
    due = [told(pipeline, user, workspace_id=workspace) for workspace in visits]
    assert due == [True, False, True, False, True, False]


def test_a_user_is_identified_again_after_thirty_minutes(monkeypatch) -> None:
    pipeline = core()
    clock = [1000.0]
    monkeypatch.setattr("second_mw.privacy.pipeline.time.monotonic", lambda: clock[0])
    assert told(pipeline)
    clock[0] += 30 * 60 - 1
    assert not told(pipeline)
    clock[0] += 1
    assert told(pipeline)


def test_a_user_whose_identify_was_not_taken_is_identified_with_the_next_event() -> None:
    pipeline = core()
    finish({}, user=IDENTIFIED, mode="identified", pipeline=pipeline)
    assert told(pipeline)


def test_what_is_remembered_of_identified_users_is_bounded_and_no_id(monkeypatch) -> None:
    monkeypatch.setattr(identify_module, "REMEMBERED", 3)
    pipeline = core()
    for n in range(9):
        assert told(pipeline, replace(IDENTIFIED, id=f"person-{n}"))
    assert len(pipeline._identified._told) == 3
    assert "person" not in str(pipeline._identified._told)
    pipeline.forget("person-8")
    assert told(pipeline, replace(IDENTIFIED, id="person-8"))


def test_an_identify_alone_is_sent_when_due() -> None:
    pipeline = core()
    finished = pipeline.identify(IDENTIFIED, None)
    assert [p.event for p in finished.payloads] == ["$identify"]
    assert finished.taken is not None
    finished.taken()
    assert pipeline.identify(IDENTIFIED, None).payloads == []


@pytest.mark.parametrize(
    ("workspaces", "named", "sent"),
    [
        (None, None, None),
        ({}, None, None),
        ({"w_1": "admin"}, None, ("w_1", "admin")),
        ({"w_1": None}, None, ("w_1", None)),
        ({"w_1": "admin", "w_2": "member"}, None, None),
        ({"w_1": "admin", "w_2": "member"}, "w_2", ("w_2", "member")),
    ],
)
def test_the_workspace_is_the_events_or_the_users_only_one(
    workspaces: Any, named: Any, sent: Any
) -> None:
    user = AnalyticsUser("u_123456", anonymized=False, workspaces=workspaces)
    payload = payload_of({}, user=user, mode="identified", workspace_id=named)
    properties = msgspec.json.decode(payload.properties)
    found = (properties.get("workspace_id"), properties.get("workspace_role"))
    assert found == (sent or (None, None))
    assert "user_email" not in properties


def test_no_payload_ever_joins_two_ids() -> None:
    posted = {
        "$anon_distinct_id": "x",
        "$set": {"a": 1},
        "alias": "x",
        "nested": {"$anon_distinct_id": "x", "$create_alias": 1},
    }
    for mode in ("anonymized", "identified"):
        finished = finish(posted, user=IDENTIFIED, mode=mode)
        for payload in finished.payloads:
            for word in (b"$anon_distinct_id", b"$create_alias", b"$merge", b"$set_once"):
                assert word not in payload.properties


# The host's hook


def test_a_hook_may_change_properties_and_nothing_else() -> None:
    def hook(payload: Any) -> Any:
        properties = msgspec.json.decode(payload.properties)
        return msgspec.structs.replace(
            payload,
            event="other",
            distinct_id="other",
            properties=msgspec.json.encode({**properties, "tier": "pro"}),
        )

    payload = payload_of({"x": 1}, uuid=V4, anonymous_id=ANON, pipeline=core(on_event=hook))
    assert (payload.event, payload.distinct_id, payload.uuid) == ("page viewed", ANON, V4)
    assert msgspec.json.decode(payload.properties)["tier"] == "pro"


OF_POSTHOG = {
    "$set": {"plan": "pro"},
    "$groups": {"company": "c1"},
    "$process_person_profile": True,
}
OF_THE_SERVER = {
    "anonymized": None, "$ip": "203.0.113.77", "second_mw": "x", "token": "x", "user_id": "x",
    "$anon_distinct_id": "x", "$current_url": "x", "＄lib": "x",
}  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "left"),
    [("anonymized", {"tier": "pro"}), ("identified", {"tier": "pro", **OF_POSTHOG})],
)
def test_a_hook_says_nothing_that_is_the_servers_to_say(mode: str, left: dict[str, Any]) -> None:
    posted = {"page_url": "https://app.example/x"}

    def hook(payload: Any) -> Any:
        properties = msgspec.json.encode({**OF_THE_SERVER, **OF_POSTHOG, "tier": "pro"})
        return msgspec.structs.replace(payload, properties=properties)

    plain, hooked = (
        payload_of(posted, user=IDENTIFIED, mode=mode, pipeline=core(on_event=each)).properties
        for each in (lambda payload: msgspec.structs.replace(payload, properties=b"{}"), hook)
    )
    assert msgspec.json.decode(hooked) == {**msgspec.json.decode(plain), **left}
    assert hooked.count(b'"anonymized":') == hooked.count(b'"$ip":') == 1


@pytest.mark.parametrize("mode", ["anonymized", "identified"])
def test_a_hook_that_returns_none_drops_the_event(mode: str) -> None:
    pipeline = core(on_event=lambda payload: None)
    assert finish({}, user=IDENTIFIED, mode=mode, pipeline=pipeline).payloads == []


@pytest.mark.parametrize("mode", ["anonymized", "identified"])
@pytest.mark.parametrize("hook", [lambda p: 1 / 0, lambda p: "x", lambda p: {"properties": 1}])
def test_a_hook_that_fails_lets_nothing_out(hook: Any, mode: str) -> None:
    with pytest.raises(Refused) as refused:
        finish({}, user=IDENTIFIED, mode=mode, pipeline=core(on_event=hook))
    assert refused.value.code == "not_taken"


def test_a_hook_can_not_leak_the_user(caplog) -> None:
    def hook(payload: Any) -> Any:
        return msgspec.structs.replace(payload, properties=b'{"by":"Ada Lovelace"}')

    with pytest.raises(Refused) as refused:
        finish({}, pipeline=core(on_event=hook))
    assert (refused.value.code, refused.value.counted) == ("not_taken", "privacy_gate")
    assert "Ada" not in caplog.text


# Start-up


def test_a_release_value_that_looks_like_identity_is_warned_of_once_at_start_up(caplog) -> None:
    core(release_version="a1b2c3d4e5f6a7b8c9d0", release_package="ada@example.org")
    assert [r.getMessage() for r in caplog.records] == [
        "second_mw sends release_package with every event, and its value looks like email"
    ]


def test_a_users_key_is_an_hmac_and_never_the_id() -> None:
    key = core().user_key(ADA.id)
    assert len(key) == 64
    assert ADA.id not in key
    assert key == core().user_key(ADA.id) != core().user_key("other")


def test_a_user_whose_id_cant_be_a_distinct_id_is_anonymized_with_one_warning(caplog) -> None:
    pipeline = core()
    for user_id in ("user", "anon_x", "x" * 201, "0"):
        user = AnalyticsUser(user_id, anonymized=False)
        payload = payload_of({"clicks": 1}, user=user, mode="identified", pipeline=pipeline)
        assert payload.distinct_id.startswith("anon_")
        assert payload.options == {"process_person_profile": False}
    (record,) = caplog.records
    assert "can't be a distinct_id" in record.getMessage()


def test_the_anonymous_id_leaves_in_no_identified_event() -> None:
    posted = {
        "anonymousDistinctId": ANON, "anonymous_id": ANON, "x": ANON, "y": [f"was {ANON}"],
        "long": f"{'words ' * 60}{ANON}",
    }  # fmt: skip
    for receipts in (True, False):
        payload = payload_of(
            posted, user=IDENTIFIED, mode="identified", pipeline=core(receipts=receipts)
        )
        left = msgspec.json.decode(payload.properties)
        assert ANON[5:] not in payload.properties.decode()
        assert left["x"] == "[redacted:uuid]"
        assert not {"anonymousDistinctId", "anonymous_id"} & set(left)


def test_an_event_that_says_less_of_the_person_is_no_news() -> None:
    pipeline = core()
    told = finish({}, user=IDENTIFIED, mode="identified", pipeline=pipeline)
    assert [payload.event for payload in told.payloads] == ["$identify", "page viewed"]
    assert told.taken is not None
    told.taken()
    user = replace(IDENTIFIED, workspaces=None)
    again = finish({}, user=user, mode="identified", pipeline=pipeline)
    assert [payload.event for payload in again.payloads] == ["page viewed"]
    named = finish({}, user=replace(user, name="A. L."), mode="identified", pipeline=pipeline)
    assert [payload.event for payload in named.payloads] == ["$identify", "page viewed"]
