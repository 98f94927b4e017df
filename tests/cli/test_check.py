"""`second-mw check`: settings with their sources, findings with what to do, PostHog's answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from second_mw.cli import check, main
from second_mw.settings import FIELDS, Settings
from tests.delivery.sink import Sink, running, status

TOKEN = "phc_0123456789abcdefghijklmn"
SECRET = "0123456789abcdef0123456789abcdef"

Checked = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Checked:
    def run(*arguments: str, **variables: str) -> tuple[int, dict[str, Any]]:
        for name, value in {"SECOND_POSTHOG_TOKEN": TOKEN, **variables}.items():
            monkeypatch.setenv(name, value)
        code = main(["check", "--json", *arguments])
        printed = capsys.readouterr().out
        assert SECRET not in printed
        assert TOKEN not in printed
        found = json.loads(printed)
        found["findings"] = {f["about"]: (f["state"], f["seen"]) for f in found["findings"]}
        return code, found

    return run


@pytest.fixture
def sink() -> Any:
    with running() as posthog:
        yield posthog


def test_every_setting_is_shown_with_its_source_and_secrets_masked(checked: Checked) -> None:
    code, found = checked(SECOND_ANALYTICS_SECRET=SECRET)
    assert code == 0
    assert set(found["settings"]) == {entry.name for entry in FIELDS}
    assert found["settings"]["secret"]["source"] == "SECOND_ANALYTICS_SECRET"
    assert found["settings"]["host"] == {"value": "https://us.i.posthog.com", "source": "default"}
    assert found["findings"]["server key"][0] == "good"


@pytest.mark.parametrize(
    ("variables", "about", "state"),
    [
        ({}, "analytics", "good"),
        ({"SECOND_POSTHOG_TOKEN": ""}, "analytics", "bad"),
        ({"DO_NOT_TRACK": "1"}, "analytics", "off"),
        ({}, "token", "good"),
        ({"SECOND_POSTHOG_TOKEN": "abcdefghijklmnop"}, "token", "warning"),
        ({}, "host", "good"),
        ({"SECOND_POSTHOG_HOST": "https://posthog.shop.example"}, "host", "good"),
        ({"SECOND_POSTHOG_HOST": "http://127.0.0.1:8765"}, "host", "warning"),
        ({"SECOND_POSTHOG_HOST": "http://posthog.shop.example"}, "host", "warning"),
        ({}, "server key", "warning"),
        ({"SECOND_ANALYTICS_SECRET": "short"}, "server key", "warning"),
        ({}, "outbox", "warning"),
        ({}, "preferences", "warning"),
    ],
)
def test_what_is_looked_at_and_how_it_is_judged(
    checked: Checked, variables: dict[str, str], about: str, state: str
) -> None:
    code, found = checked(**variables)
    assert found["findings"][about][0] == state
    assert code == (1 if state == "bad" else 0)


def test_a_durable_outbox_is_good(checked: Checked, tmp_path: Any) -> None:
    _, found = checked(SECOND_ANALYTICS_OUTBOX=f"sqlite:///{tmp_path}/events.db")
    assert found["findings"]["outbox"][0] == "good"
    assert found["findings"]["preferences"][0] == "good"


def test_an_outbox_that_is_none_is_bad_and_named(checked: Checked, tmp_path: Any) -> None:
    (tmp_path / "events.db").write_text("this is no database, but somebody's only copy" * 100)
    code, found = checked(SECOND_ANALYTICS_OUTBOX=f"sqlite:///{tmp_path}/events.db")
    assert code == 1
    assert found["findings"]["outbox"][0] == "bad"


def test_a_wrong_setting_is_the_only_finding(checked: Checked) -> None:
    code, found = checked(SECOND_POSTHOG_PROTOCOL="v7")
    assert code == 1
    assert found["findings"]["settings"][0] == "bad"
    assert "SECOND_POSTHOG_PROTOCOL" in found["findings"]["settings"][1]


def test_a_look_that_fails_is_a_finding_without_the_exceptions_words(settings: Settings) -> None:
    def _store(_: Settings) -> Any:
        raise OSError("redis://:password@host")

    (finding,) = check._looked("store", _store, settings)
    assert (finding.about, finding.state) == ("store", "bad")
    assert "password" not in finding.seen


@pytest.fixture
def settings() -> Settings:
    return Settings.load({"token": TOKEN})


@pytest.mark.parametrize("protocol", ["v0", "v1"])
def test_a_probe_is_one_event_of_nobody_and_its_answer_is_told(
    checked: Checked, sink: Sink, protocol: str
) -> None:
    code, found = checked("--probe", SECOND_POSTHOG_HOST=sink.url, SECOND_POSTHOG_PROTOCOL=protocol)
    assert code == 0
    assert found["findings"]["probe"][0] == "good"
    (event,) = sink.requests[0].batch
    assert event["event"] == "second_mw probe"
    assert event["distinct_id"].startswith("anon_")


def test_a_refused_probe_is_bad_and_says_why(checked: Checked, sink: Sink) -> None:
    sink.answer = status(401)
    code, found = checked("--probe", SECOND_POSTHOG_HOST=sink.url)
    assert code == 1
    assert found["findings"]["probe"] == ("bad", "PostHog did not take it: unauthorized: 401")


def test_a_probe_that_nobody_answers_is_bad(checked: Checked) -> None:
    code, found = checked("--probe", SECOND_POSTHOG_HOST="http://127.0.0.1:1")
    assert code == 1
    assert found["findings"]["probe"] == ("bad", "no answer: connection_error")


def test_nothing_is_probed_where_analytics_is_off(checked: Checked) -> None:
    code, found = checked("--probe", SECOND_POSTHOG_DISABLED="1")
    assert code == 0
    assert found["findings"]["probe"][0] == "off"


@pytest.mark.parametrize(
    ("app", "code", "state"),
    [
        ("tests.cli.apps:wrapped_wsgi", 0, "good"),
        ("tests.cli.apps:flask_app", 0, "good"),
        ("tests.cli.apps:starlette_app", 0, "good"),
        ("tests.cli.apps:plain_wsgi", 1, "bad"),
        ("tests.cli.apps:plain_asgi", 1, "bad"),
        ("tests.cli.apps:nothing", 1, "bad"),
        ("no.such.module:app", 1, "bad"),
    ],
)
def test_an_apps_wrapping_is_looked_at(checked: Checked, app: str, code: int, state: str) -> None:
    exit_code, found = checked(app)
    assert exit_code == code
    assert found["findings"]["app"][0] == state


def test_people_get_a_table_and_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECOND_POSTHOG_TOKEN", TOKEN)
    assert main(["check"]) == 0
    printed = capsys.readouterr().out
    assert "phc_… (28 characters)" in printed
    assert "preferences: set SECOND_ANALYTICS_PREFERENCES" in printed


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("redis://user:pa@ss@host:6379/0", "redis://…@host:6379/0"),
        ("sqlite:////var/lib/events.db", "sqlite:////var/lib/events.db"),
        ("phc_0123456789", "phc_… (14 characters)"),
        (None, "–"),
    ],
)
def test_secrets_are_masked_as_they_are_shown(value: str | None, shown: str) -> None:
    assert check._shown(value, secret=True) == shown
