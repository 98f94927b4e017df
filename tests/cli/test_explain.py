"""`second-mw explain`: one event through the core, by the endpoint's own rules."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from second_mw import Catalogue, Count, Event
from second_mw.cli import main

EVENT = {
    "event": "build completed",
    "properties": {
        "file_count": 12,
        "user_email": "ada@analytical.example",
        "runtime_model": "gpt-5 mini",
        "remark": "Ada was here",
    },
}
ADA = ["--user", "u_ada_1815", "--email", "ada@analytical.example", "--name", "Ada Lovelace"]

#: A host's own catalogue, for `--catalogue`.
CATALOGUE = Catalogue.default().extend(Event("invoice paid", {"amount_cents": Count}))


@pytest.fixture
def explain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def explained(event: Any, *arguments: str) -> tuple[int, Any]:
        file = tmp_path / "event.json"
        file.write_text(event if isinstance(event, str) else json.dumps(event))
        code = main(["explain", str(file), "--json", *ADA, *arguments])
        return code, json.loads(capsys.readouterr().out)

    return explained


def test_it_shows_what_leaves_and_why_the_rest_does_not(explain: Any) -> None:
    code, shown = explain(EVENT)
    assert code == 0
    assert shown["status"] == 204
    (payload,) = shown["payloads"]
    assert payload["properties"]["file_count"] == 12
    assert payload["properties"]["remark"] == "[redacted:text]"
    assert payload["options"] == {"process_person_profile": False}
    lines = {
        line["key"]: (line["result"], line["words"]) for line in shown["receipts"][0]["properties"]
    }
    assert lines["user_email"][0] == "dropped"
    assert lines["file_count"] == ("kept", "a count")
    said = json.dumps([payload["properties"], shown["receipts"]]).lower()
    assert "analytical" not in said
    assert "ada was" not in said


def test_identified_shows_the_identify_and_the_person(explain: Any) -> None:
    code, shown = explain(EVENT, "--identified")
    assert code == 0
    assert [payload["event"] for payload in shown["payloads"]] == ["$identify", "build completed"]
    assert {payload["distinct_id"] for payload in shown["payloads"]} == {"u_ada_1815"}


@pytest.mark.parametrize(
    ("event", "status", "code"),
    [
        ("{", 400, "invalid_payload"),
        ({"event": "no such event"}, 400, "invalid_event"),
        (
            {"event": "page viewed", "properties": {"workspace_id": "w_else"}},
            404,
            "workspace_not_found",
        ),
    ],
)
def test_a_refused_event_ends_with_1_and_the_code(
    explain: Any, event: Any, status: int, code: str
) -> None:
    exit_code, shown = explain(event, "--workspace", "w_mine=admin")
    assert exit_code == 1
    assert (shown["status"], shown["answer"]["error"]) == (status, code)
    assert shown["payloads"] == []


def test_a_batch_with_one_bad_event_ends_with_1_and_shows_the_good_one(explain: Any) -> None:
    code, shown = explain({"batch": [{"event": "page viewed"}, {"event": "nonsense"}]})
    assert code == 1
    assert [payload["event"] for payload in shown["payloads"]] == ["page viewed"]


def test_policies_can_be_tried(explain: Any) -> None:
    event = {"event": "build completed", "properties": {"shade": "teal", "total_bytes": 12345}}
    _, shown = explain(event, "--undeclared", "drop", "--precision", "coarse")
    properties = shown["payloads"][0]["properties"]
    assert "shade" not in properties
    assert properties["total_bytes"] == 12000


def test_a_hosts_own_catalogue_is_used(explain: Any) -> None:
    event = {"event": "invoice paid", "properties": {"amount_cents": 995}}
    assert explain(event)[0] == 1
    code, shown = explain(event, "--catalogue", "tests.cli.test_explain:CATALOGUE")
    assert code == 0
    assert shown["payloads"][0]["properties"]["amount_cents"] == 995


def test_looking_works_where_sending_is_switched_off(
    explain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DO_NOT_TRACK", "1")
    code, shown = explain(EVENT)
    assert code == 0
    assert len(shown["payloads"]) == 1


def test_standard_input_is_read_and_people_get_words(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = io.TextIOWrapper(io.BytesIO(json.dumps(EVENT).encode()))
    monkeypatch.setattr("sys.stdin", text)
    assert main(["explain", "-", *ADA]) == 0
    printed = capsys.readouterr().out
    assert "user_email     dropped" in printed
    assert "names a person" in printed
    assert "What PostHog gets (build completed):" in printed


def test_a_refusal_is_told_in_words_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "event.json").write_text("[]")
    assert main(["explain", str(tmp_path / "event.json")]) == 1
    assert "invalid_payload" in capsys.readouterr().out


def test_a_file_that_is_not_there_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "/nowhere/event.json"]) == 2
    assert "/nowhere/event.json can't be read" in capsys.readouterr().err


def test_a_user_that_is_none_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "event.json").write_text("{}")
    assert main(["explain", str(tmp_path / "event.json"), "--user", " "]) == 2
    assert "id must not be empty" in capsys.readouterr().err
