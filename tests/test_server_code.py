"""Events of server code beyond `capture`: awaited, many at once, for a user, from a job."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import json
import threading
import uuid as uuids
from concurrent.futures import Future
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from second_mw import Analytics, AnalyticsUser, Bound, Capture, Captured, Choice, Jobs
from second_mw.errors import OutboxUnavailable, PreferencesUnavailable
from tests.hosts import ADA
from tests.stores import Blocking, Full, Kept

UUID = "0190a6e4-3d5b-7c1e-8a52-0123456789ab"
KNOWN = replace(ADA, anonymized=False)
STRANGER = replace(ADA, onboarded=False)

# What becomes of an event is the same, however it is captured

OUTCOMES: list[tuple[str, Capture, str | None]] = [
    ("taken", Capture(ADA, "page viewed"), None),
    ("taken with a uuid as an object", Capture(ADA, "page viewed", uuid=uuids.UUID(UUID)), None),
    ("nobody's", Capture(None, "page viewed"), "not_authenticated"),
    ("not onboarded", Capture(STRANGER, "page viewed"), "not_onboarded"),
    ("unknown event", Capture(ADA, "coffee drunk"), "invalid_event"),
    ("no uuid", Capture(ADA, "page viewed", uuid="bob"), "invalid_payload"),
    (
        "a uuid with a meaning",
        Capture(ADA, "page viewed", uuid="6ba7b810-9dad-11d1-80b4-00c04fd430c8"),
        "invalid_payload",
    ),
    (
        "another workspace",
        Capture(ADA, "page viewed", {"workspace_id": "w_other"}),
        "workspace_not_found",
    ),
    ("sharing off", Capture(replace(ADA, sharing=False), "page viewed"), "suppressed"),
]
NAMES = [row[0] for row in OUTCOMES]


def one(analytics: Analytics, wanted: Capture) -> Captured:
    user, event, properties, uuid, timestamp, anonymous = wanted
    return analytics.capture(
        user, event, properties, uuid=uuid, timestamp=timestamp, anonymous_id=anonymous
    )


def awaited(analytics: Analytics, wanted: Capture) -> Captured:
    user, event, properties, uuid, timestamp, anonymous = wanted
    return asyncio.run(
        analytics.acapture(
            user, event, properties, uuid=uuid, timestamp=timestamp, anonymous_id=anonymous
        )
    )


def of_many(analytics: Analytics, wanted: Capture) -> Captured:
    return analytics.capture_many([wanted])[0]


def of_awaited_many(analytics: Analytics, wanted: Capture) -> Captured:
    return asyncio.run(analytics.acapture_many([tuple(wanted)]))[0]


def bound(analytics: Analytics, wanted: Capture) -> Captured:
    with analytics.as_user(wanted.user) as mine:
        return mine.capture(wanted.event, wanted.properties, uuid=wanted.uuid)


def here(analytics: Analytics, wanted: Capture) -> Captured:
    async def view() -> Captured:
        return await analytics.here.acapture(wanted.event, wanted.properties, uuid=wanted.uuid)

    with analytics.as_user(wanted.user):
        return asyncio.run(view())


WAYS = [one, awaited, of_many, of_awaited_many, bound, here]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("wanted", "code"), [row[1:] for row in OUTCOMES], ids=[r[0] for r in OUTCOMES]
)
def test_the_result_says_what_became_of_an_event(
    make: Any, way: Any, wanted: Capture, code: str | None
) -> None:
    analytics = make()
    captured = way(analytics, wanted)
    assert (bool(captured), captured.code) == (code is None, code)
    events = analytics.outbox.store.events
    assert [event["uuid"] for event in events] == ([captured.uuid] if code is None else [])
    stats = analytics.stats()
    counted = stats["suppressed"] if code == "suppressed" else sum(stats["rejected"].values())
    assert counted == (0 if code is None else 1)


@pytest.mark.parametrize("way", WAYS)
def test_a_disabled_analytics_takes_nothing(make: Any, way: Any) -> None:
    assert way(make(token=None), Capture(ADA, "page viewed")) == Captured(code="disabled")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "wanted", [Capture("ada", "page viewed"), Capture(ADA, "page viewed", [1])]
)  # type: ignore[arg-type]
def test_what_is_no_user_or_no_mapping_is_an_error_of_the_host(
    make: Any, way: Any, wanted: Any
) -> None:
    with pytest.raises(TypeError):
        way(make(), Capture(*wanted))


@pytest.mark.parametrize("way", WAYS)
def test_an_outbox_that_is_full_is_said_and_never_raised(make: Any, way: Any) -> None:
    analytics = make(outbox=Full())
    assert way(analytics, Capture(ADA, "page viewed")) == Captured(code="outbox_unavailable")
    assert analytics.stats()["rejected"] == {"outbox_unavailable": 1}


def test_each_cause_is_warned_of_once_and_counted_each_time(
    make: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    clock = SimpleNamespace(monotonic=lambda: now[0])
    monkeypatch.setattr("second_mw.server_code.time", clock)
    analytics = make(outbox=Full())

    def capture_thrice() -> list[str]:
        caplog.clear()
        for _ in range(3):
            analytics.capture(ADA, "page viewed")
            analytics.capture(None, "page viewed")
        return [record.args[0] for record in caplog.records if record.levelname == "WARNING"]

    assert capture_thrice() == ["outbox_unavailable", "not_authenticated"]
    assert capture_thrice() == []
    assert analytics.stats()["rejected"] == {"outbox_unavailable": 6, "not_authenticated": 6}
    now[0] += 60.0
    assert capture_thrice() == ["outbox_unavailable", "not_authenticated"]


@pytest.mark.parametrize("way", WAYS)
def test_the_hook_hears_of_what_the_outbox_did_not_take_and_may_fail(
    make: Any, way: Any, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[tuple[str, int]] = []

    def fails(reason: str, count: int) -> None:
        told.append((reason, count))
        raise RuntimeError("the hook")

    captured = way(make(outbox=Full(), on_drop=fails), Capture(ADA, "page viewed"))
    assert captured.code == "outbox_unavailable"
    assert told == [("outbox_unavailable", 1)]
    assert "the on_drop hook failed" in caplog.text


@pytest.mark.parametrize("way", WAYS)
def test_an_event_that_the_hook_drops_is_said_to_be_dropped(make: Any, way: Any) -> None:
    analytics = make(on_event=lambda payload: None)
    assert way(analytics, Capture(ADA, "page viewed")) == Captured(code="on_event")


@pytest.mark.parametrize("way", WAYS)
def test_a_hook_can_not_leak_what_the_rules_took_out(make: Any, way: Any) -> None:
    def leak(payload: Any) -> Any:
        properties = {**json.loads(payload.properties), "label": ADA.email}
        return type(payload)(
            payload.event,
            payload.uuid,
            payload.distinct_id,
            payload.timestamp,
            json.dumps(properties).encode(),
            payload.options,
        )

    analytics = make(on_event=leak)
    assert way(analytics, Capture(ADA, "page viewed")) == Captured(code="not_taken")
    assert analytics.outbox.store.events == []
    assert analytics.stats()["privacy_gate"] == 1


# Awaited


class Deferred(Blocking):
    """Answers a submit only when told to; a put that would block fails the test."""

    def __init__(self) -> None:
        super().__init__()
        self.submitted: list[tuple[Any, Future[int]]] = []

    def put(self, payloads: Any) -> int:
        raise AssertionError("the event loop would be blocked")

    def submit(self, payloads: Any) -> Future[int]:
        future: Future[int] = Future()
        self.submitted.append((payloads, future))
        return future


def test_an_awaited_capture_lets_the_loop_go_on_while_the_outbox_writes(make: Any) -> None:
    store = Deferred()
    analytics = make(outbox=store)

    async def main() -> Captured:
        task = asyncio.create_task(analytics.acapture(ADA, "page viewed"))
        while not store.submitted:
            await asyncio.sleep(0)
        assert not task.done()
        payloads, future = store.submitted[0]
        future.set_result(len(payloads))
        return await task

    assert asyncio.run(main())


def test_an_outbox_that_fails_later_is_said_too(make: Any) -> None:
    class Failing(Blocking):
        def submit(self, payloads: Any) -> Future[int]:
            future: Future[int] = Future()
            future.set_exception(OutboxUnavailable("disk full"))
            return future

    captured = asyncio.run(make(outbox=Failing()).acapture(ADA, "page viewed"))
    assert captured.code == "outbox_unavailable"


@pytest.mark.parametrize("way", WAYS)
def test_a_store_with_a_bug_is_an_outbox_that_can_not_be_had(
    make: Any, way: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Kept):
        def put(self, payloads: Any) -> int:
            raise LookupError("a bug")

    assert way(make(outbox=Broken()), Capture(ADA, "page viewed")).code == "outbox_unavailable"
    assert "the outbox failed" in caplog.text


class Asked:
    """A blocking preference store that remembers which thread asked it."""

    blocking = True
    shared = True

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.threads: list[int] = []

    def get(self, user_key: str) -> Choice | None:
        self.threads.append(threading.get_ident())
        if isinstance(self.answer, Exception):
            raise self.answer
        answer: Choice | None = self.answer
        return answer

    def put(self, user_key: str, choice: Choice) -> None: ...
    def not_alone(self) -> None: ...
    def after_fork(self) -> None: ...
    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("answer", "mode"),
    [
        (Choice(anonymized=False), "identified"),
        (None, "anonymized"),
        (PreferencesUnavailable("gone"), "anonymized"),
        (LookupError("a bug"), "anonymized"),
    ],
)
def test_a_blocking_preference_store_is_asked_in_a_thread_and_its_failure_means_anonymized(
    make: Any, answer: Any, mode: str
) -> None:
    store = Asked(answer)
    analytics = make(preferences=store)
    assert asyncio.run(analytics.acapture(ADA, "page viewed"))
    assert analytics.outbox.store.events[-1]["properties"]["anonymized"] is (mode == "anonymized")
    assert store.threads
    assert threading.get_ident() not in store.threads
    failed = 1 if isinstance(answer, Exception) else 0
    assert analytics.stats()["preferences_failed"] == failed


def test_a_store_that_fails_means_anonymized_for_the_blocking_way_too(make: Any) -> None:
    analytics = make(preferences=Asked(LookupError("a bug")))
    assert analytics.capture(ADA, "page viewed")
    assert analytics.outbox.store.events[-1]["properties"]["anonymized"] is True
    assert analytics.stats()["preferences_failed"] == 1
    fixed = replace(ADA, anonymized=False, sharing=True)
    assert analytics.choice_of(fixed) is None


# Many


def test_many_events_enter_the_outbox_in_one_put_and_each_is_answered(make: Any) -> None:
    analytics = make()
    results = analytics.capture_many(
        [(ADA, "page viewed"), (ADA, "coffee drunk"), Capture(KNOWN, "page viewed", uuid=UUID)]
    )
    assert [result.code for result in results] == [None, "invalid_event", None]
    assert results[2].uuid == UUID
    assert analytics.outbox.store.puts == [3]  # with the $identify
    assert analytics.capture_many([]) == []


def test_a_person_is_identified_once_in_a_put(make: Any) -> None:
    analytics = make()
    grace = AnalyticsUser("u_grace", anonymized=False)
    analytics.capture_many([(KNOWN, "page viewed"), (grace, "page viewed"), (KNOWN, "page viewed")])
    names = [(e["event"], e["distinct_id"]) for e in analytics.outbox.store.events]
    assert names == [
        ("$identify", KNOWN.id),
        ("page viewed", KNOWN.id),
        ("$identify", "u_grace"),
        ("page viewed", "u_grace"),
        ("page viewed", KNOWN.id),
    ]


def test_if_the_outbox_is_full_none_of_many_is_taken(make: Any) -> None:
    told: list[tuple[str, int]] = []
    analytics = make(outbox=Full(), on_drop=lambda reason, count: told.append((reason, count)))
    results = analytics.capture_many([(ADA, "page viewed"), (None, "page viewed")])
    # What was refused for itself is no loss.
    assert told == [("outbox_unavailable", 1)]
    assert [result.code for result in results] == ["outbox_unavailable", "not_authenticated"]


def test_a_users_choice_is_read_once_for_many_events(make: Any) -> None:
    store = Asked(Choice(anonymized=False))
    make(preferences=store).capture_many([(ADA, "page viewed")] * 3)
    assert len(store.threads) == 1


# For a user


def test_outside_of_as_user_nobody_is_here(make: Any) -> None:
    analytics = make()
    assert analytics.here == Bound(analytics, None)
    assert analytics.here.capture("page viewed").code == "not_authenticated"


def test_blocks_of_users_nest_and_end_even_if_they_fail(make: Any) -> None:
    analytics = make()
    grace = AnalyticsUser("u_grace")
    with analytics.as_user(ADA):
        with analytics.as_user(grace):
            assert analytics.here.user is grace
        with contextlib.suppress(LookupError), analytics.as_user(grace):
            raise LookupError
        assert analytics.here.user is ADA
    assert analytics.here.user is None


def test_the_user_follows_tasks_and_threads_but_no_other_context(make: Any) -> None:
    analytics = make()
    seen: list[AnalyticsUser | None] = []

    def look() -> None:
        seen.append(analytics.here.user)

    async def main() -> None:
        with analytics.as_user(ADA):
            await asyncio.to_thread(look)
            await asyncio.create_task(asyncio.to_thread(look))
            contextvars.Context().run(look)

    asyncio.run(main())
    assert seen == [ADA, ADA, None]


def test_what_is_no_user_can_not_be_the_user_of_a_block(make: Any) -> None:
    with pytest.raises(TypeError, match="must be an AnalyticsUser or None"), make().as_user("ada"):
        pass


# From a background job


@pytest.fixture
def people() -> dict[str, Any]:
    """The host's database."""
    return {ADA.id: ADA}


@pytest.fixture
def analytics(make: Any) -> Analytics:
    made: Analytics = make()
    return made


@pytest.fixture
def jobs(analytics: Analytics, people: dict[str, Any]) -> Jobs:
    return Jobs(analytics, user=people.get)


def choose(analytics: Analytics, **choice: bool) -> None:
    analytics.preferences.put(analytics.pipeline.user_key(ADA.id), Choice(**choice))


def test_a_ticket_holds_the_id_and_the_mode_and_is_json(analytics: Analytics, jobs: Jobs) -> None:
    assert jobs.ticket(ADA) == {"second_mw_user": {"id": ADA.id, "mode": "anonymized"}}
    choose(analytics, anonymized=False)
    ticket = jobs.ticket(ADA)
    assert json.loads(json.dumps(ticket)) == {
        "second_mw_user": {"id": ADA.id, "mode": "identified"}
    }
    choose(analytics, sharing=False)
    assert jobs.ticket(ADA)["second_mw_user"]["mode"] == "none"  # type: ignore[index]
    assert jobs.ticket() == {"second_mw_user": None}
    with analytics.as_user(ADA):
        assert jobs.ticket()["second_mw_user"]["id"] == ADA.id  # type: ignore[index]


#: The mode when the job was sent, when it runs, and what its event then is.
MODES = [
    ("identified", "identified", "identified"),
    ("identified", "anonymized", "anonymized"),
    ("anonymized", "identified", "anonymized"),
    ("anonymized", "anonymized", "anonymized"),
    ("identified", "none", None),
    ("none", "identified", None),
    ("anonymized", "none", None),
]
CHOICES = {
    "identified": {"anonymized": False},
    "anonymized": {"anonymized": True},
    "none": {"sharing": False},
}


@pytest.mark.parametrize(("sent", "runs", "event"), MODES)
def test_the_mode_of_a_job_can_only_get_stricter(
    analytics: Analytics, jobs: Jobs, sent: str, runs: str, event: str | None
) -> None:
    @jobs.carried
    def build(app: str) -> Captured:
        return analytics.here.capture("build completed", {"file_count": 12})

    choose(analytics, **CHOICES[sent])
    ticket = jobs.ticket(ADA)
    choose(analytics, **CHOICES[runs])
    captured = build("a_1", **ticket)
    kept = [e for e in analytics.outbox.store.events if e["event"] == "build completed"]  # type: ignore[union-attr]
    if event is None:
        assert (captured.code, kept) == ("suppressed", [])
    else:
        assert [e["properties"]["anonymized"] for e in kept] == [event == "anonymized"]


FORGED: list[tuple[str, Any, bool]] = [
    ("nothing", None, False),
    ("a word", "ada", False),
    ("no id", {"mode": "identified"}, False),
    ("an id that is none", {"id": 7, "mode": "identified"}, False),
    ("somebody who is gone", {"id": "u_gone", "mode": "identified"}, False),
    ("no mode", {"id": ADA.id}, True),
    ("a mode that is none", {"id": ADA.id, "mode": "public"}, True),
]


@pytest.mark.parametrize(("ticket", "found"), [r[1:] for r in FORGED], ids=[r[0] for r in FORGED])
def test_a_ticket_that_is_none_is_nobodys_and_an_unknown_mode_is_anonymized(
    analytics: Analytics, jobs: Jobs, ticket: Any, found: bool
) -> None:
    choose(analytics, anonymized=False)

    @jobs.carried
    async def build() -> Captured:
        return await analytics.here.acapture("build completed")

    captured = asyncio.run(build(second_mw_user=ticket))
    assert captured.code == (None if found else "not_authenticated")
    assert all(e["properties"]["anonymized"] for e in analytics.outbox.store.events)  # type: ignore[union-attr]


def test_a_user_who_can_not_be_looked_up_does_not_stop_the_job(
    analytics: Analytics, people: dict[str, Any], jobs: Jobs, caplog: pytest.LogCaptureFixture
) -> None:
    ran: list[str | None] = []

    def build() -> None:
        ran.append(analytics.here.capture("build completed").code)

    people[ADA.id] = {"id": ADA.id}
    jobs.carried(build)(**jobs.ticket(ADA))
    Jobs(analytics, user=lambda key: 1 / 0).carried(build)(**jobs.ticket(ADA))  # type: ignore[arg-type, return-value]
    assert ran == ["not_authenticated"] * 2
    assert "can't be told" in caplog.text


def test_a_jobs_user_needs_a_callable(make: Any) -> None:
    with pytest.raises(TypeError, match="takes a user's id"):
        Jobs(make(), user="ada")  # type: ignore[arg-type]
