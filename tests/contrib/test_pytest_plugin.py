"""The pytest plugin: what `captured_events` collects, what it finds, and what it leaves alone."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from second_mw import Analytics, AnalyticsUser, Catalogue, Event, Label
from second_mw.contrib.captured import CapturedEvents, capturing
from second_mw.payload import Payload
from tests.contrib.visits import PREFIX, wsgi_browser
from tests.hosts import wsgi_host

ZELDA = AnalyticsUser(
    "user-0001-quartermain",
    email="zelda.q@quartermain.example",
    name="Zelda Quartermain",
    workspaces={"w_observatory": "admin"},
    aliases=("zq-7781",),
)
MakeUser = Callable[..., AnalyticsUser]


# What is collected


def test_an_event_is_seen_as_it_would_be_sent_with_its_receipt(
    captured_events: CapturedEvents,
) -> None:
    Analytics(token="phc_test").capture(
        ZELDA, "build completed", {"file_count": 12, "user_email": ZELDA.email}
    )
    (event,) = captured_events
    assert (event.event, event.mode, event.user) == ("build completed", "anonymized", ZELDA)
    assert event.properties["file_count"] == 12
    assert event.properties["$lib"] == "second-mw"
    assert event.properties["$process_person_profile"] is False
    assert event.receipt is not None
    assert event.receipt.uuid == event.uuid
    assert [(line.key, line.result) for line in event.receipt.lines] == [
        ("file_count", "kept"),
        ("user_email", "dropped"),
    ]
    assert [e.receipt for e in captured_events[:]] == [event.receipt]
    captured_events.assert_anonymous(ZELDA)


def test_questions_that_tests_ask(captured_events: CapturedEvents) -> None:
    analytics = Analytics(token="phc_test")
    analytics.capture(ZELDA, "page viewed")
    analytics.capture(ZELDA, "build completed", {"file_count": 1})
    assert captured_events.names == ["page viewed", "build completed"]
    assert len(captured_events) == 2
    assert captured_events[-1].properties["file_count"] == 1
    assert [e.event for e in captured_events.named("page viewed")] == ["page viewed"]
    assert repr(captured_events) == "<CapturedEvents ['page viewed', 'build completed']>"
    captured_events.clear()
    assert not captured_events


def test_what_is_posted_twice_is_seen_once(captured_events: CapturedEvents) -> None:
    analytics = Analytics(token="phc_test")
    for _ in range(2):
        analytics.capture(ZELDA, "page viewed", uuid="0190a6e4-3d5b-7c1e-8a52-0123456789ab")
    assert captured_events.names == ["page viewed"]


def test_every_analytics_of_the_process_is_collected_from_and_given_back() -> None:
    before = Analytics(token="phc_test")
    adapter = before.wsgi(wsgi_host, user=lambda environ: ZELDA)
    outbox, preferences = before.outbox, before.preferences
    events = CapturedEvents()
    with capturing(events):
        before.capture(ZELDA, "page viewed")
        made = Analytics.from_env()
        made.capture(ZELDA, "page viewed")
        with wsgi_browser(adapter) as ask:
            assert ask("POST", f"{PREFIX}/capture", {"event": "page viewed"}).status == 204
            assert ask("PUT", f"{PREFIX}/preferences", {"anonymized": False}).status == 200
    assert events.names == ["page viewed", "page viewed", "page viewed", "$identify"]
    assert (before.outbox, before.preferences) == (outbox, preferences)
    assert before.outbox.counts().accepted == 0
    assert before.pipeline.finish.__func__ is type(before.pipeline).finish  # type: ignore[attr-defined]
    assert Analytics._wire.__module__ == "second_mw.analytics"


def test_each_test_begins_anew() -> None:
    analytics = Analytics(token="phc_test")
    known = AnalyticsUser("u_known", anonymized=False)
    for _ in range(2):
        events = CapturedEvents()
        with capturing(events):
            analytics.capture(known, "page viewed")
        assert events.names == ["$identify", "page viewed"]


def test_an_analytics_without_a_token_is_enabled_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    idle = Analytics.from_env()
    monkeypatch.setenv("DO_NOT_TRACK", "1")
    switched_off = Analytics(token="phc_test")
    events = CapturedEvents()
    with capturing(events):
        assert idle.capture(ZELDA, "page viewed")
        assert switched_off.capture(ZELDA, "page viewed")
        assert Analytics().capture(ZELDA, "page viewed")
        monkeypatch.setenv("SECOND_TELEMETRY_DISABLED", "1")
        assert Analytics(token="phc_test").capture(ZELDA, "page viewed").code == "disabled"
    assert os.environ["DO_NOT_TRACK"] == "1"
    assert (idle.settings.disabled_by, switched_off.settings.disabled_by) == (
        "no token",
        "DO_NOT_TRACK",
    )
    assert len(events) == 3


def test_nothing_that_the_settings_name_is_opened(tmp_path: Path) -> None:
    threads = set(threading.enumerate())
    events = CapturedEvents()
    with capturing(events):
        analytics = Analytics(
            token="phc_test",
            host="http://127.0.0.1:1",
            outbox=f"sqlite:///{tmp_path}/outbox.db",
            preferences=f"sqlite:///{tmp_path}/preferences.db",
            forward=False,
        )
        analytics.capture(ZELDA, "page viewed")
        analytics.outbox.submit([Payload("x", "u", "d", "t", b"{}")]).result()
        assert (analytics.flush(), analytics.close()) == ((0, 0), (0, 0))
    assert list(tmp_path.iterdir()) == []
    assert set(threading.enumerate()) == threads
    assert len(events) == 2


def test_an_analytics_that_wires_itself_can_be_given(captured_events: CapturedEvents) -> None:
    class Own(Analytics):
        def _wire(self, settings: Any) -> None:
            Analytics.__dict__["_wire"](self, settings)

    own = Own(token="phc_test")
    captured_events.watch(own)
    own.capture(ZELDA, "page viewed")
    assert captured_events.names == ["page viewed"]


# What is found

#: What stands where in an event that says it is anonymized → what the error says.
LEAKS: list[tuple[str, dict[str, Any], str | None]] = [
    ("nothing", {"label": "integration_settings", "count": 7}, None),
    ("a word of the catalogue", {"target": "settings"}, None),
    ("the id", {"deep": [{"label": "x-user-0001-quartermain-y"}]}, "id under 'deep'"),
    ("the id as a key", {"user-0001-quartermain": 1}, "id under 'user-0001-quartermain'"),
    ("the address", {"label": "Zelda.Q@Quartermain.example"}, "e-mail under 'label'"),
    ("its local part", {"label": "for-zelda.q"}, "e-mail's local part under 'label'"),
    ("a part of the name", {"label": "zeldaReport"}, "name under 'label'"),
    ("a name in a longer word", {"label": "griZeldata"}, None),
    ("an alias", {"label": "ticket-zq-7781"}, "alias under 'label'"),
    ("a workspace", {"label": "w_observatory"}, "workspace under 'label'"),
    ("full width", {"label": "ＺＥＬＤＡ"}, "name under 'label'"),
    ("percent-encoded", {"label": "%5A%65lda"}, "name under 'label'"),
    ("as an entity", {"label": "&#90;elda"}, "name under 'label'"),
    (
        "base64",
        {"label": base64.b64encode(b"zelda.q@quartermain.example").decode()},
        "e-mail under 'label'",
    ),
    ("hex", {"label": b"dear zelda".hex()}, "name under 'label'"),
    ("hex in base64", {"label": base64.b64encode(b"dear zelda".hex().encode()).decode()}, "name"),
    ("what only looks like base64", {"label": "integration-settings"}, None),
    ("a person profile", {"$process_person_profile": True}, "would make a person profile"),
]


@pytest.mark.parametrize(("name", "properties", "said"), LEAKS, ids=[row[0] for row in LEAKS])
def test_a_leak_is_found_in_what_would_leave(
    captured_events: CapturedEvents, name: str, properties: dict[str, Any], said: str | None
) -> None:
    analytics = Analytics(token="phc_test")
    analytics.capture(ZELDA, "page viewed")  # learns the catalogue's words
    marks = {"anonymized": True, "$process_person_profile": False}
    analytics.outbox.put(
        [{"event": "x", "distinct_id": "anon_1", "properties": {**marks, **properties}}]
    )
    if said is None:
        captured_events.assert_anonymous(ZELDA)
    else:
        with pytest.raises(AssertionError, match=said):
            captured_events.assert_anonymous(ZELDA)
    captured_events.clear()


BY_HAND: list[tuple[dict[str, Any], str | None]] = [
    ({"distinct_id": "anon_1", "properties": {"label": "settings", "count": 7}}, None),
    ({"distinct_id": "anon_1", "properties": {"label": "at 5 pm @home, 1.5 @ 2.5"}}, None),
    ({"distinct_id": ZELDA.id, "properties": {"label": ZELDA.email}}, None),
    ({"distinct_id": "anon_1", "properties": {"deep": ["for zelda"]}}, "a user's name under"),
    ({"distinct_id": "anon_1", "properties": {"deep": {"x": "q@x.example"}}}, "e-mail address"),
    ({"distinct_id": "anon_1", "properties": {"q@x.example": 1}}, "e-mail address"),
]


@pytest.mark.parametrize(("event", "said"), BY_HAND)
def test_what_is_put_by_hand_under_an_anonymous_id_names_nobody_either(
    captured_events: CapturedEvents, event: dict[str, Any], said: str | None
) -> None:
    analytics = Analytics(token="phc_test")
    analytics.capture(ZELDA, "page viewed")
    analytics.outbox.put([{"event": "x", **event}])
    if said is not None:
        with pytest.raises(AssertionError, match=said):
            captured_events.assert_nothing_identifying()
        captured_events.clear()


def test_an_anonymized_event_with_a_persons_distinct_id_is_found(
    captured_events: CapturedEvents,
) -> None:
    captured_events.add(
        Payload(
            "x",
            "0190a6e4-3d5b-7c1e-8a52-0123456789ab",
            ZELDA.id,
            "2026-11-25T00:00:00.000Z",
            b'{"anonymized":true}',
            {"process_person_profile": False},
        )
    )
    with pytest.raises(AssertionError, match="distinct_id of a person"):
        captured_events.assert_anonymous(ZELDA)


@pytest.mark.parametrize("field", ["uuid", "distinct_id"])
def test_an_id_in_a_uuid_is_found_and_a_short_name_in_its_digits_is_none(
    captured_events: CapturedEvents, field: str
) -> None:
    ids = {
        "uuid": "3ada1b2c-3d5b-4c1e-8a52-0123456789ab",
        "distinct_id": "anon_3ada1b2c-3d5b-4c1e-8a52-0123456789ab",
    }
    captured_events.add(
        Payload(
            "x",
            ids["uuid"],
            ids["distinct_id"],
            "2026-11-25T00:00:00.000Z",
            b'{"anonymized":true,"label":"QUJDREVGRw"}',
            {"process_person_profile": False},
        )
    )
    captured_events.assert_anonymous(AnalyticsUser("u_1", name="Ada Lovelace"))
    only = {"uuid": "nothing", "distinct_id": "anon_nothing", field: ids[field]}
    captured_events.clear()
    captured_events.add(
        Payload(
            "x",
            only["uuid"],
            only["distinct_id"],
            "2026-11-25T00:00:00.000Z",
            b'{"anonymized":true}',
            {"process_person_profile": False},
        )
    )
    with pytest.raises(AssertionError, match=f"id under '{field}'"):
        captured_events.assert_anonymous(AnalyticsUser("3ADA1B2C-3d5b-4c1e-8a52-0123456789ab"))


def test_an_identified_event_is_not_anonymous(captured_events: CapturedEvents) -> None:
    Analytics(token="phc_test").capture(AnalyticsUser("u_1", anonymized=False), "page viewed")
    with pytest.raises(AssertionError, match="'\\$identify' is identified"):
        captured_events.assert_anonymous(ZELDA)


def test_short_ids_and_families_of_models_are_no_leak(captured_events: CapturedEvents) -> None:
    user = AnalyticsUser("7", name="Max Page", email="ab@gmail.com", aliases=("page",))
    Analytics(token="phc_test").capture(
        user, "build completed", {"runtime_model": "qwen-max", "file_count": 7}
    )
    captured_events.assert_anonymous(user)


def test_a_hosts_own_events_are_tested_alike(
    captured_events: CapturedEvents, fake_user: MakeUser
) -> None:
    catalogue = Catalogue.default().extend(Event("invoice paid", {"plan": Label}))
    user = fake_user()
    Analytics(token="phc_test", catalogue=catalogue).capture(
        user, "invoice paid", {"plan": "team", "note": f"thanks, {user.name}"}
    )
    captured_events.assert_anonymous(user)
    assert captured_events[0].properties["plan"] == "team"
    assert captured_events[0].properties["note"] == "[redacted:text]"


def test_fake_users_are_different_people_and_take_fields(fake_user: MakeUser) -> None:
    users = [fake_user() for _ in range(9)]
    assert len({(user.id, user.email) for user in users}) == 9
    assert fake_user(onboarded=False, email=None).onboarded is False


def test_the_timing_of_threads_does_not_lose_events(captured_events: CapturedEvents) -> None:
    analytics = Analytics(token="phc_test")
    threads = [
        threading.Thread(target=analytics.capture, args=(ZELDA, "page viewed")) for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert captured_events.names == ["page viewed"] * 20
    assert all(msgspec.json.encode(event.properties) for event in captured_events)


# As a plugin, in a project that merely has it installed

PROJECT = """
import json
import sys

from msgspec.structs import replace

LOADED_WHEN_UNUSED = "second_mw.analytics" in sys.modules


def test_unused_it_imports_nothing():
    assert not LOADED_WHEN_UNUSED
    assert "second_mw.contrib.captured" not in sys.modules


def test_good(captured_events, fake_user):
    from second_mw import Analytics

    user = fake_user()
    Analytics().capture(user, "page viewed", {"surface": "settings"})
    captured_events.assert_anonymous(user)


def test_leaks(captured_events, fake_user, monkeypatch):
    from second_mw import Analytics
    from second_mw.privacy.pipeline import Pipeline

    finish = Pipeline.finish

    def leaky(self, posted, user, mode):
        # As if both the rules and the gate had a hole.
        done = finish(self, posted, user, mode)
        properties = {**json.loads(done.payloads[-1].properties), "label": "for Zelda"}
        leaking = replace(done.payloads[-1], properties=json.dumps(properties).encode())
        return replace(done, payloads=[leaking])

    monkeypatch.setattr(Pipeline, "finish", leaky)
    assert Analytics().capture(fake_user(name="Zelda Q"), "page viewed")
"""


@pytest.mark.timeout(300)
def test_installed_it_is_there_costs_nothing_unused_and_fails_a_test_that_leaks(
    tmp_path: Path,
) -> None:
    (tmp_path / "test_project.py").write_text(textwrap.dedent(PROJECT))
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    environ.pop("PYTEST_ADDOPTS", None)
    # Other plugins only take time here.
    names = ("cacheprovider", "faker", "hypothesispytest", "pytest_cov", "anyio", "timeout")
    others = [part for name in names for part in ("-p", f"no:{name}")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *others, "-rA", "test_project.py"],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    said = done.stdout + done.stderr
    assert "3 passed, 1 error" in said, said
    assert "has no project token" not in said
    assert "ERROR test_project.py::test_leaks" in said
    assert "is anonymized and holds the user's name under 'label'" in said
