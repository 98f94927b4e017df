"""The gate: independent of the scan, blind to the server's own, and as exempt as the scan."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from second_mw import AnalyticsUser, Catalogue, Count, Event, Label, List, Object, Refused
from second_mw.payload import Payload
from second_mw.privacy import anonymize, identity
from second_mw.privacy.gate import Gate
from tests.privacy.cores import ADA, core, finish, left_of
from tests.privacy.test_identity import HITS, MISSES, user

CATALOGUE = Catalogue.default().extend(
    Event(
        "invoice paid",
        {"steps": List[Label("zoe step")], "box": Object[{"zoe": Count, "mood": Label("zoe so")}]},
    )
)
GATE = Gate(CATALOGUE)
UUID = "3f2b8c1e-0d4a-4b6f-9a11-5c7d2e8f0a12"


def payload(properties: dict[str, Any], event: str = "page viewed", **fields: Any) -> Payload:
    given = {
        "event": event,
        "uuid": UUID,
        "distinct_id": "anon_3f2b8c1e-0d4a-4b6f-9a11-5c7d2e8f0a13",
        "timestamp": "2026-11-24T04:03:00.000Z",
        **fields,
    }
    return Payload(**given, properties=msgspec.json.encode(properties))


@pytest.mark.parametrize(
    "wrap", [lambda v: {"x": v}, lambda v: {"x": [{"y": v}]}, lambda v: {v: 1}]
)
@pytest.mark.parametrize(
    "value",
    ["Ada", "by_ada_x", "byAdaNow", "Lovelace", "adalovelace", "ada.lovelace", ADA.id,
     ADA.id.upper(), "x w_engine_room y", "enchantress", "ada.lovelace@analytical.example",
     "analytical.example"],
)  # fmt: skip
def test_identity_is_found_in_values_and_keys_at_any_depth(value: str, wrap: Any) -> None:
    assert GATE.holds(payload(wrap(value)), ADA)


@pytest.mark.parametrize("value", ["canada", "adaptive", "lovelaces", "engine", "[redacted:text]"])
def test_what_only_resembles_identity_passes(value: str) -> None:
    assert not GATE.holds(payload({"x": value, value: 1}), ADA)


@pytest.mark.parametrize(("fields", "text"), MISSES)
def test_the_gate_hits_nothing_that_the_scan_lets_pass(fields: dict[str, Any], text: str) -> None:
    assert not GATE.holds(payload({"x": text}), user(fields))


def test_the_gate_alone_finds_most_of_what_the_scan_finds() -> None:
    found = [text for fields, text in HITS if GATE.holds(payload({"x": text}), user(fields))]
    assert len(found) >= len(HITS) * 3 // 4


@pytest.mark.parametrize(
    ("user_id", "value", "hits"),
    [
        ("48151", 48151, True),
        ("48151", 481519, False),
        ("4815", 4815, False),
        ("48151", 1.48151, True),
    ],
)
def test_numbers_are_compared_with_ids_of_five_digits(
    user_id: str, value: float, hits: bool
) -> None:
    assert GATE.holds(payload({"file_count": value}), AnalyticsUser(user_id)) is hits


def test_the_servers_own_fields_are_compared_whole() -> None:
    assert GATE.holds(payload({}), AnalyticsUser(UUID.upper()))
    own = "3f2b8c1e-0d4a-4b6f-9a11-5c7d2e8f0a13"
    for spelled in (own, own.replace("-", ""), own.upper()):
        assert GATE.holds(payload({}), AnalyticsUser(spelled))
        assert GATE.holds(payload({}), AnalyticsUser("u_1234567", aliases=(f"anon_{spelled}",)))
    # A short id that stands in a uuid by chance is no leak.
    assert not GATE.holds(payload({}), AnalyticsUser("3f2b"))
    assert not GATE.holds(payload({}), AnalyticsUser("page", name="Page Viewed"))


def test_ms_page_may_view_pages_and_mr_claude_use_claude_code() -> None:
    page = AnalyticsUser("u_1234567", name="Sidebar Page", email="home@workspace.example")
    assert not GATE.holds(payload({"surface": "workspace_home", "viewport_width": 3}), page)
    claude = AnalyticsUser("u_1234567", name="Jean Claude")
    assert not GATE.holds(payload({"runtime_model": "claude-opus"}, "chat initiated"), claude)
    assert GATE.holds(payload({"theme": "claude-opus"}, "chat initiated"), claude)


def test_declared_keys_and_vocabularies_are_exempt_at_any_depth() -> None:
    posted = {"steps": ["zoe step"], "box": {"zoe": 3, "mood": "zoe so"}}
    # Zoe is a word of this catalogue, and so no identity; her full name is.
    zoe = AnalyticsUser("u_1234567", name="Zoe Step")
    assert not GATE.holds(payload(posted, "invoice paid"), zoe)
    assert GATE.holds(payload({"steps": ["zoe step "]}, "invoice paid"), zoe)
    assert GATE.holds(payload({"box": {"zoe step": 3}}, "invoice paid"), zoe)


def test_what_the_event_itself_named_is_looked_for_too() -> None:
    assert GATE.holds(payload({"x": "payroll helper"}), ADA, ["Payroll Helper"])
    assert not GATE.holds(payload({"x": "payroll"}), ADA, ["Payroll Helper"])
    assert not GATE.holds(payload({"runtime_model": "gpt-5"}, "chat initiated"), ADA, ["gpt-5"])


def test_a_bug_in_the_scan_lets_nothing_out(monkeypatch, caplog) -> None:
    monkeypatch.setattr(identity, "stands_in", lambda *args: False)
    monkeypatch.setattr(anonymize.identities, "holds", lambda *args, **kwargs: False)
    with pytest.raises(Refused) as refused:
        finish({"theme": "lovelace"})
    assert (refused.value.code, refused.value.counted) == ("not_taken", "privacy_gate")
    assert "lovelace" not in caplog.text.lower()
    assert "privacy gate" in caplog.text


def test_a_rule_that_raises_lets_nothing_out(adapter, make, monkeypatch, caplog) -> None:
    def fails(*args: Any) -> Any:
        raise KeyError("lovelace")

    analytics = make()
    monkeypatch.setattr(anonymize.Anonymizer, "text", fails)
    reply = adapter(analytics, lambda _: ADA)(
        "POST",
        "/api/analytics/capture",
        b'{"event":"page viewed","properties":{"theme":"lovelace"}}',
        content_type="application/json",
    )
    assert (reply.status, reply.code) == (422, "not_taken")
    assert analytics.stats()["rule_failed"] == 1
    assert "lovelace" not in caplog.text
    assert "KeyError" in caplog.text


def test_the_gate_stops_nothing_good() -> None:
    posted = {
        "surface": "app_chat", "route_shape": "/w/:workspace/apps/:objectId", "theme": "dark",
        "by": "ada", "n": 48151, "list": ["Ada", "x"], "app_name": "Payroll Helper",
    }  # fmt: skip
    assert left_of(posted, pipeline=core())["theme"] == "dark"
