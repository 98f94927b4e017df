"""Analytics: capture from server code, flush, close, accounts, forks, exits, and being disabled."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from second_mw import Analytics, AnalyticsUser, Catalogue, Choice, Count, Event
from tests.delivery.sink import Sink, black_hole, closed_port, running, status
from tests.hosts import ADA
from tests.stores import Full

UUID = "0190a6e4-3d5b-7c1e-8a52-0123456789ab"
ANON = "anon_3f2b8c1e-0d4a-4b6f-9a11-5c7d2e8f0a12"


@pytest.fixture
def sink() -> Iterator[Sink]:
    with running() as one:
        yield one


@pytest.fixture
def sending(sink: Sink) -> Iterator[Analytics]:
    """An Analytics that really sends to a sink."""
    analytics = Analytics(token="phc_test", host=sink.url)
    yield analytics
    analytics.close(timeout=2.0)


# capture


def test_an_event_of_server_code_arrives_by_the_same_rules(sink: Sink, sending: Analytics) -> None:
    captured = sending.capture(
        ADA, "build completed", {"file_count": 12, "user_email": "x", "note": "for Ada"}, uuid=UUID
    )
    assert (bool(captured), captured.uuid, captured.code) == (True, UUID, None)
    assert sending.flush() == (1, 0)
    (event,) = sink.requests[0].batch
    assert event["uuid"] == UUID
    assert event["distinct_id"].startswith("anon_")
    assert event["properties"]["file_count"] == 12
    assert event["properties"]["$process_person_profile"] is False
    assert "user_email" not in event["properties"]
    assert event["properties"]["note"] == "[redacted:text]"


def test_a_host_that_knows_the_anonymous_id_may_give_it(make) -> None:
    analytics = make()
    analytics.capture(ADA, "page viewed", anonymous_id=ANON)
    analytics.capture(ADA, "page viewed", anonymous_id="bob")
    kept = [event["distinct_id"] for event in analytics.outbox.store.events]
    assert kept[0] == ANON != kept[1]


def test_an_identified_user_is_identified_first(make) -> None:
    analytics = make()
    captured = analytics.capture(replace(ADA, anonymized=False), "page viewed")
    told, event = analytics.outbox.store.events
    assert (told["event"], event["uuid"], event["distinct_id"]) == (
        "$identify", captured.uuid, ADA.id,
    )  # fmt: skip
    assert analytics.outbox.store.puts == [2]


def test_the_users_stored_choice_holds_for_server_code_too(make) -> None:
    analytics = make()
    analytics.preferences.put(analytics.pipeline.user_key(ADA.id), Choice(anonymized=False))
    analytics.capture(ADA, "page viewed")
    assert analytics.outbox.store.events[-1]["distinct_id"] == ADA.id


NOT_CAPTURED: list[tuple[Any, str, dict[str, Any], dict[str, Any], str]] = [
    (None, "page viewed", {}, {}, "not_authenticated"),
    (AnalyticsUser("u", onboarded=False), "page viewed", {}, {}, "not_onboarded"),
    (ADA, "page looked at", {}, {}, "invalid_event"),
    (ADA, "page viewed", {"workspace_id": "w_other"}, {}, "workspace_not_found"),
    (ADA, "page viewed", {}, {"outbox": Full()}, "outbox_unavailable"),
    (ADA, "page viewed", {}, {"on_event": lambda payload: 1 / 0}, "not_taken"),
    (ADA, "page viewed", {}, {"on_event": lambda payload: None}, "on_event"),
    (replace(ADA, sharing=False), "page viewed", {}, {}, "suppressed"),
    (ADA, "page viewed", {}, {"token": None}, "disabled"),
]


@pytest.mark.parametrize(("user", "event", "properties", "settings", "code"), NOT_CAPTURED)
def test_capture_never_raises_and_says_why_an_event_was_not_taken(
    user: Any, event: str, properties: Any, settings: dict[str, Any], code: str, make
) -> None:
    captured = make(**settings).capture(user, event, properties)
    assert (bool(captured), captured.uuid, captured.code) == (False, None, code)


def test_an_event_that_was_not_taken_is_warned_of_without_its_values(make, caplog) -> None:
    make().capture(ADA, "secret plan", {"x": "hush"})
    (record,) = caplog.records
    assert (record.levelno, "invalid_event" in record.getMessage()) == (logging.WARNING, True)
    assert "hush" not in caplog.text
    assert "secret plan" not in caplog.text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((5, "page viewed"), "AnalyticsUser"), ((ADA, "page viewed", [1]), "mapping")],
)
def test_arguments_of_the_wrong_type_are_an_error_of_the_host(
    arguments: tuple[Any, ...], said: str, make
) -> None:
    with pytest.raises(TypeError, match=said):
        make().capture(*arguments)


def test_a_hosts_own_events_are_taken(make) -> None:
    catalogue = Catalogue.default().extend(Event("invoice paid", {"amount_cents": Count}))
    analytics = make(catalogue=catalogue)
    assert analytics.capture(ADA, "invoice paid", {"amount_cents": 1250})
    assert analytics.outbox.store.events[0]["properties"]["amount_cents"] == 1250


def test_a_receipt_is_handed_to_the_host_and_a_hook_that_fails_hurts_nobody(make, caplog) -> None:
    receipts: list[Any] = []
    make(on_receipt=receipts.append).capture(ADA, "page viewed", {"message": "x"}, uuid=UUID)
    assert [(r.uuid, [line.rule for line in r.lines]) for r in receipts] == [(UUID, ["free_text"])]
    assert make(on_receipt=lambda receipt: 1 / 0).capture(ADA, "page viewed")
    assert "on_receipt" in caplog.text


# Finished events


def test_a_finished_event_is_sent_as_it_is_with_the_library_properties(
    sink: Sink, sending: Analytics
) -> None:
    event = {"event": "job done", "distinct_id": "u_1", "properties": {"n": 1}, "uuid": UUID}
    assert sending.outbox.put([event]) == 1
    sending.flush()
    (sent,) = sink.requests[0].batch
    assert (sent["uuid"], sent["distinct_id"]) == (UUID, "u_1")
    assert sent["properties"].items() >= {
        "n": 1, "$lib": "second-mw", "$geoip_disable": True,
    }.items()  # fmt: skip


def test_putting_nothing_does_nothing(make) -> None:
    analytics = make()
    assert analytics.outbox.put([]) == 0
    assert analytics.outbox.store.puts == []


# Delivery


def test_flush_says_how_many_are_out_and_how_many_are_not(sink: Sink) -> None:
    sink.answer = lambda request: status(503)(request)
    analytics = Analytics(token="phc_test", host=sink.url, max_retries=0)
    for _ in range(3):
        analytics.capture(ADA, "page viewed")
    flushed = analytics.flush(timeout=2.0)
    assert (flushed.out, flushed.left) == (0, 3)
    assert analytics.stats()["waiting"] == 3
    sink.answer = None
    analytics.close(timeout=2.0)


def test_flush_of_nothing_sends_nothing(sink: Sink, sending: Analytics) -> None:
    assert sending.flush() == (0, 0)
    assert sink.requests == []


def test_after_close_a_further_event_starts_delivery_again(sink: Sink, sending: Analytics) -> None:
    sending.capture(ADA, "page viewed")
    assert sending.close() == (1, 0)
    sending.capture(ADA, "page viewed")
    assert sending.flush() == (1, 0)
    assert len(sink.delivered) == 2


def test_closing_what_never_started_does_nothing(make) -> None:
    assert make().close() == (0, 0)


def test_the_accounts_hold_at_any_moment(sink: Sink, sending: Analytics) -> None:
    for n in range(10):
        sending.capture(ADA, "page viewed", {"n": n})
    stats = sending.stats()
    assert stats["accepted"] == 10
    sending.flush()
    for at in (stats, sending.stats()):
        assert at["accepted"] == at["delivered"] + at["dead"] + at["waiting"] + at["purged"]
    assert sending.stats()["delivered"] == 10
    assert sending.stats()["forwarder"]["forwarded"] == 10


@pytest.mark.parametrize("token", ["phc_test", None])
def test_stats_have_the_same_names_before_the_first_event(
    token: str | None, sending: Analytics
) -> None:
    sending.capture(ADA, "page viewed")
    sending.flush()
    before, after = Analytics(token=token).stats(), sending.stats()
    assert set(before) == set(after)
    assert set(before["forwarder"]) == set(after["forwarder"])
    # A reader's own copy: what is done to it reaches no other.
    before["forwarder"]["dead"]["x"] = 1
    assert Analytics(token=token).stats()["forwarder"]["dead"] == {}


def test_stats_are_plain_data_and_name_no_user(sending: Analytics) -> None:
    sending.capture(replace(ADA, anonymized=False), "page viewed")
    sending.capture(None, "page viewed")
    stats = sending.stats()
    assert isinstance(stats, dict)
    assert stats["rejected"] == {"not_authenticated": 1}
    assert ADA.id not in str(stats)


@pytest.mark.parametrize("outage", ["refused", "hanging", "503"])
def test_while_posthog_is_down_nothing_is_lost_and_the_request_sees_nothing(
    outage: str, adapter, sink: Sink
) -> None:
    sink.answer = lambda request: status(503)(request)
    with black_hole() as hole:
        host = {"refused": closed_port(), "hanging": hole, "503": sink.url}[outage]
        analytics = Analytics(
            token="phc_test", host=host, outbox="memory://?max=20", flush_at=1, read_timeout=0.2
        )
        ask = adapter(analytics, lambda _: ADA)

        def post() -> Any:
            return ask(
                "POST",
                "/api/analytics/capture",
                b'{"event":"page viewed"}',
                content_type="application/json",
            )

        assert [post().status for _ in range(20)] == [204] * 20
        full = post()
        assert (full.status, full.code, int(full.headers["retry-after"]) > 0) == (
            503, "outbox_unavailable", True,
        )  # fmt: skip
        assert analytics.stats()["waiting"] == 20
        analytics.close(timeout=0.3)
        assert analytics.stats()["waiting"] == 20


# Disabled


#: In a process of its own: nothing that an earlier test left opens or ends a file meanwhile.
_DISABLED = """
import threading
from pathlib import Path
from second_mw import Analytics, AnalyticsUser

def held():
    return {path.resolve() for path in Path("/proc/self/fd").iterdir()}, threading.enumerate()

ADA = AnalyticsUser("ada")
before = held()
analytics = Analytics(token="phc_test", flush_at=1)
assert analytics.wsgi(lambda *_: [b""], user=lambda _: ADA) is not None
assert analytics.asgi(lambda *_: None, user=lambda _: ADA) is not None
assert not analytics.capture(ADA, "page viewed")
assert analytics.outbox.put([{"event": "x", "distinct_id": "y"}]) == 0
assert analytics.outbox.submit([]).result() == 0
analytics.startup()
assert analytics.flush() == (0, 0)
assert held() == before
assert analytics.close() == (0, 0)
analytics.shutdown()
assert held() == before
assert analytics.stats()["enabled"] is False
print("nothing")
"""


def test_disabled_a_process_has_no_thread_file_or_socket_of_ours() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _DISABLED],
        env={**os.environ, "SECOND_TELEMETRY_DISABLED": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.returncode) == ("nothing\n", 0), done.stderr


def test_no_thread_runs_before_the_first_event(sink: Sink) -> None:
    threads = set(threading.enumerate())
    analytics = Analytics(token="phc_test", host=sink.url)
    analytics.wsgi(lambda *_: [b""])
    analytics.asgi(lambda *_: None)
    assert set(threading.enumerate()) == threads
    analytics.capture(ADA, "page viewed")
    assert set(threading.enumerate()) > threads
    analytics.close(timeout=2.0)


# Processes


def run(script: str, *arguments: str) -> str:
    """Run a script in a fresh interpreter and return what it logged."""
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", textwrap.dedent(script), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[1],
    )
    assert done.returncode == 0, done.stderr
    return done.stderr.strip()


def test_a_short_script_delivers_what_it_captured_at_its_exit(sink: Sink) -> None:
    run(
        """
        import sys
        from second_mw import Analytics, AnalyticsUser
        analytics = Analytics(token="phc_test", host=sys.argv[1], flush_interval=3600)
        for _ in range(5):
            assert analytics.capture(AnalyticsUser("u_1"), "page viewed")
        """,
        sink.url,
    )
    assert len(sink.delivered) == 5


@pytest.mark.parametrize("seconds", ["0.2", "0"])
def test_an_exit_is_held_no_longer_than_the_shutdown_timeout(seconds: str) -> None:
    with black_hole() as hole:
        logged = run(
            f"""
            import sys
            from second_mw import Analytics, AnalyticsUser
            analytics = Analytics(token="phc_test", host=sys.argv[1], shutdown_timeout={seconds})
            analytics.capture(AnalyticsUser("u_1"), "page viewed")
            """,
            hole,
        )
    assert logged == "1 event(s) will not be delivered: shutdown"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_delivers_its_own_events_and_never_the_parents(sink: Sink) -> None:
    logged = run(
        """
        import os, sys, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from second_mw import Analytics, AnalyticsUser
        user = AnalyticsUser("u_1", anonymized=True, sharing=True)
        analytics = Analytics(token="phc_test", host=sys.argv[1], flush_interval=3600)
        analytics.capture(user, "page viewed", {"who": "parent"})
        child = os.fork()
        if child == 0:
            assert analytics.stats()["waiting"] == 0
            analytics.capture(user, "page viewed", {"who": "child"})
            assert analytics.flush(10) == (1, 0)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert analytics.flush(10) == (1, 0)
        """,
        sink.url,
    )
    assert logged == ""
    who = [event["properties"]["who"] for request in sink.requests for event in request.batch]
    assert sorted(who) == ["child", "parent"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_an_app_made_before_the_fork_delivers_from_its_workers(sink: Sink) -> None:
    logged = run(
        """
        import os, sys
        from second_mw import Analytics, AnalyticsUser
        analytics = Analytics(token="phc_test", host=sys.argv[1], flush_at=1)
        analytics.wsgi(lambda *_: [])
        children = []
        for _ in range(3):
            child = os.fork()
            if child == 0:
                user = AnalyticsUser("u_1", anonymized=True, sharing=True)
                analytics.capture(user, "page viewed")
                assert analytics.close(10).left == 0
                os._exit(0)
            children.append(child)
        for child in children:
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        """,
        sink.url,
    )
    assert logged == ""
    assert len(set(sink.delivered)) == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_waits_for_the_first_events_imports(sink: Sink) -> None:
    """A child of the middle of an import would wait for ever for who was to end it."""
    logged = run(
        """
        import os, sys, threading, warnings
        from second_mw import Analytics, AnalyticsUser, process

        # Python warns of a fork beside a thread, if that has not ended by then.
        warnings.simplefilter("ignore", DeprecationWarning)
        analytics = Analytics(token="phc_test", host=sys.argv[1])
        order, begun, forking = [], threading.Event(), threading.Event()

        class Living:
            before_fork = forking.set
            exit_timeout = 1.0
            def after_fork(self): ...
            def at_exit(self, timeout): ...

        def imports():
            with process.importing:
                begun.set()
                forking.wait(30)
                order.append("imported")

        living = Living()
        process.enroll(living)
        thread = threading.Thread(target=imports)
        thread.start()
        assert begun.wait(30)
        child = os.fork()
        order.append("forked")
        if child == 0:
            user = AnalyticsUser("u_1", anonymized=True, sharing=True)
            analytics.capture(user, "page viewed")
            assert order == ["imported", "forked"], order
            assert analytics.close(10).left == 0
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert order == ["imported", "forked"], order
        thread.join()
        """,
        sink.url,
    )
    assert logged == ""
    assert len(sink.delivered) == 1


@pytest.mark.parametrize(
    "name",
    [
        "release_version",
        "release_package",
        "release_runtime",
        "cli_launcher_version",
        "cli_launcher_package",
        "auth_mode",
        "installation_mode",
    ],
)
def test_a_release_value_that_looks_like_somebody_is_warned_of_at_the_start(
    name: str, make, caplog: pytest.LogCaptureFixture
) -> None:
    make(**{name: "ada@example.org"})
    assert f"second_mw sends {name} with every event" in caplog.text
