"""`second-mw outbox`, `export` and `erase`: a durable outbox looked into from another process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from second_mw import Analytics, AnalyticsUser, Choice
from second_mw.cli import main
from second_mw.outbox.base import Store

ADA = AnalyticsUser("u_ada_1815", email="ada@analytical.example", name="Ada Lovelace")
ANON = "anon_1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b"
TOKEN = "phc_0123456789abcdefghijklmn"


@pytest.fixture
def url(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    url = f"sqlite:///{tmp_path}/events.db"
    monkeypatch.setenv("SECOND_ANALYTICS_OUTBOX", url)
    monkeypatch.setenv("SECOND_POSTHOG_TOKEN", TOKEN)
    return url


@pytest.fixture
def analytics(url: str) -> Iterator[Analytics]:
    """An app of which three events wait: two of an identified Ada, one anonymized."""
    analytics = Analytics(
        token=TOKEN, host="http://127.0.0.1:9", outbox=url, forward=False, preferences=url
    )
    analytics.preferences.put(analytics.pipeline.user_key(ADA.id), Choice(anonymized=False))
    assert analytics.capture(ADA, "build completed", {"file_count": 3})
    assert analytics.capture(ADA, "page viewed", {"anonymized": True}, anonymous_id=ANON)
    yield analytics
    analytics.close(0.1)


@pytest.fixture
def store(analytics: Analytics) -> Store:
    assert analytics.outbox.store is not None
    return analytics.outbox.store


Said = Callable[..., tuple[int, str]]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    def run(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        code = main(arguments)
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return run


def bury_all(store: Store, reason: str) -> None:
    store.bury({entry.key: reason for entry in store.lease(10, 10**6, 60.0)})


def test_stats_are_the_accounts(store: Store, said: Said) -> None:
    code, printed = said("outbox", "stats", "--json")
    counts = json.loads(printed)
    assert code == 0
    assert (counts["accepted"], counts["waiting"], counts["dead"]) == (3, 3, 0)
    bury_all(store, "refused: 400 bad")
    counts = json.loads(said("outbox", "stats", "--json")[1])
    assert counts["dead_reasons"] == {"refused": 3}
    printed = said("outbox", "stats")[1]
    assert "oldest age" in printed
    assert "refused" in printed


def test_peek_shows_what_waits_and_properties_to_machines_only(store: Store, said: Said) -> None:
    code, printed = said("outbox", "peek")
    assert code == 0
    assert "build completed" in printed
    assert "file_count" not in printed
    waiting = json.loads(said("outbox", "peek", "--json")[1])
    assert [event["event"] for event in waiting] == ["$identify", "build completed", "page viewed"]
    assert waiting[1]["properties"]["file_count"] == 3
    assert waiting[1]["state"] == "waiting"
    assert len(json.loads(said("outbox", "peek", "--json", "--limit", "1")[1])) == 1


def test_dead_letters_are_shown_with_their_reasons_and_can_be_retried(
    store: Store, said: Said
) -> None:
    bury_all(store, "refused: 400 bad")
    assert "refused: 400 bad" in said("outbox", "dead")[1]
    assert {d["reason"] for d in json.loads(said("outbox", "dead", "--json")[1])} == {
        "refused: 400 bad"
    }
    assert said("outbox", "retry", "--reason", "too_large") == (0, "0 events wait again\n")
    assert said("outbox", "retry") == (0, "3 events wait again\n")
    assert store.counts().waiting == 3


def test_purging_wants_a_yes(store: Store, said: Said) -> None:
    code, printed = said("outbox", "purge", "waiting")
    assert code == 2
    assert "say --yes" in printed
    assert store.counts().waiting == 3
    assert said("outbox", "purge", "waiting", "--yes", "--json") == (0, '{\n  "events": 3\n}\n')
    counts = store.counts()
    assert (counts.waiting, counts.purged) == (0, 3)


@pytest.mark.parametrize(
    "command", [("outbox", "stats"), ("export", "--user", "u_1"), ("erase", "--user", "u_1")]
)
def test_a_memory_outbox_can_not_be_looked_into(
    command: tuple[str, ...], said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECOND_POSTHOG_TOKEN", TOKEN)
    code, printed = said(*command, "--outbox", "memory://")
    assert code == 2
    assert "lives in its own process only" in printed


@pytest.mark.parametrize(
    "command",
    [
        ("outbox", "stats"),
        ("outbox", "purge", "waiting", "--yes"),
        ("export", "--user", "u_1"),
        ("erase", "--user", "u_1"),
    ],
)
def test_a_file_that_is_not_there_is_said_and_not_made(
    command: tuple[str, ...], said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECOND_POSTHOG_TOKEN", TOKEN)
    missing = tmp_path / "misspelled.db"
    code, printed = said(*command, "--outbox", f"sqlite:///{missing}?max=5")
    assert code == 2
    assert f"there is no outbox at {missing}" in printed
    assert not missing.exists()


@pytest.mark.parametrize("command", ["export", "erase"])
def test_a_person_has_to_be_named(command: str, url: str, said: Said) -> None:
    code, printed = said(command)
    assert code == 2
    assert "--user ID or --distinct-id ID" in printed


def test_export_finds_a_users_choice_and_identified_events(
    analytics: Analytics, said: Said
) -> None:
    code, printed = said("export", "--user", ADA.id)
    found = json.loads(printed)
    assert code == 0
    assert found["choice"] == {"sharing": None, "anonymized": False}
    assert [event["event"] for event in found["events"]] == ["$identify", "build completed"]
    assert ADA.id in found["elsewhere"][0]


def test_export_finds_an_anonymous_browsers_events_and_no_choice(
    analytics: Analytics, said: Said
) -> None:
    found = json.loads(said("export", "--distinct-id", ANON)[1])
    assert found["choice"] is None
    assert [event["event"] for event in found["events"]] == ["page viewed"]


def test_export_of_somebody_who_chose_nothing_says_so(analytics: Analytics, said: Said) -> None:
    found = json.loads(said("export", "--user", "u_other")[1])
    assert (found["choice"], found["events"]) == (None, [])


def test_erase_takes_choice_and_events_and_says_what_posthog_keeps(
    analytics: Analytics, store: Store, said: Said
) -> None:
    code, printed = said("erase", "--user", ADA.id, "--distinct-id", ANON)
    assert code == 0
    assert "3 events erased" in printed
    assert "the user's choice is erased" in printed
    assert "PostHog" in printed
    assert analytics.preferences.get(analytics.pipeline.user_key(ADA.id)) is None
    counts = store.counts()
    assert (counts.waiting, counts.purged) == (0, 3)
    code, printed = said("erase", "--user", ADA.id, "--json")
    again = json.loads(printed)
    assert (again["events"], again["choice"]) == (0, False)
    assert "had made no choice" in said("erase", "--user", ADA.id)[1]


def test_without_the_apps_secret_a_users_choice_can_not_be_found(
    store: Store, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SECOND_POSTHOG_TOKEN")
    code, printed = said("erase", "--user", ADA.id)
    assert code == 1
    assert "SECOND_ANALYTICS_SECRET" in printed


@pytest.mark.parametrize(
    "command",
    [
        ("outbox", "stats"),
        ("outbox", "purge", "waiting", "--yes"),
        ("forward", "--once"),
        ("export", "--user", "u_1"),
        ("erase", "--user", "u_1"),
        ("run", "tests.cli.apps:plain_wsgi"),
    ],
)
@pytest.mark.parametrize("wrong", ["events.db", "postgres://h/1", "memory://?max=none", ""])
def test_what_is_no_outbox_at_all_is_wrong_usage(
    command: tuple[str, ...], wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--outbox", wrong]) == 2
    assert "it must be memory://, " in capsys.readouterr().err


NO_REDIS = "redis://:hunter2hunter2@127.0.0.1:9/0"


@pytest.mark.parametrize(
    "command",
    [
        ("outbox", "stats"),
        ("outbox", "retry"),
        ("forward", "--once"),
        ("export", "--user", "u_1"),
        ("erase", "--user", "u_1"),
    ],
)
def test_a_command_before_a_redis_that_is_gone_says_what_to_do(
    command: tuple[str, ...], said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECOND_POSTHOG_TOKEN", TOKEN)
    code, printed = said(*command, "--outbox", NO_REDIS)
    assert code == 1
    assert "See that its server runs" in printed
    assert "second-mw check" in printed
    assert not any(word in printed for word in ("Traceback", "hunter2", "can't take events"))


def test_an_outbox_without_room_for_dead_letters_says_what_to_do(
    store: Store, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    bury_all(store, "refused: 400 bad")
    monkeypatch.setattr("second_mw.outbox.sqlite.SqliteStore._fits", lambda *_: False)
    code, printed = said("outbox", "retry")
    assert code == 1
    assert "the outbox is full" in printed
    assert "second-mw forward --once" in printed
