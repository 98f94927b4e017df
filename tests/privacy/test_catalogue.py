"""The catalogue: the 19 events and their properties, written out once more."""

from __future__ import annotations

import json

import pytest

from second_mw import Catalogue, Count, Event, Flag, Ident, Label, List, Model, Object, Text
from second_mw.privacy.catalogue import PAGE_CONTEXT, Kind, json_schema, markdown

CONTEXT = {
    "surface": "label", "route_shape": "route", "viewport_width": "count",
    "viewport_height": "count", "onboarding_step": "label", "app_section": "label",
    "settings_section": "label", "workspace_section": "label", "workspace_id": "ident",
    "app_id": "ident", "run_id": "ident", "tool_call_id": "ident", "page_url": "text",
    "pathname": "text", "referrer": "text",
}  # fmt: skip


def of(kind: str, keys: str) -> dict[str, str]:
    return dict.fromkeys(keys.split(), kind)


BUILD = {
    "runtime_id": "model",
    **of("model", "runtime_model runtime_model_family"),
    **of("count", "message_count user_message_count assistant_message_count tool_call_count "
                  "attachment_count"),
    "duration_ms": "duration",
}  # fmt: skip
FILES = {"file_count": "count", "total_bytes": "count", "has_warning": "flag"}
INTEGRATION = {
    **of("ident", "integration_names integration_domains"),
    **of("count", "integration_count permission_count required_secret_count optional_secret_count"),
    "can_manage_integrations": "flag",
    **of("label", "target_surface auth_kind"),
}
AGENT = {**of("ident", "agent_id agent_name"), "source_version": "label"}
PROMPT = {**AGENT, "prompt": "text", "prompt_length": "count", **of("flag", "prompt_included "
          "prompt_truncated")}  # fmt: skip

EVENTS = {
    "page viewed": {},
    "onboarding finished": of("ident", "user_id workspace_role"),
    "chat initiated": {
        **of("ident", "app_name agent_id agent_name"),
        **of("label", "source agent_type"),
        "runtime_id": "model",
        **of("model", "runtime_model runtime_model_family"),
        **of("count", "selected_skill_count attachment_count message_length"),
        **of("flag", "message_included message_truncated"),
        "message": "text",
    },
    "sidebar clicked": of("label", "target publish_status"),
    "import existing app clicked": of("label", "source"),
    "import existing app triggered": of("label", "trigger"),
    "build completed": {**BUILD, **FILES},
    "build failed": {**BUILD, **of("label", "failure_phase error_code"), "error": "text"},
    "approval shown": {
        "approval_type": "label",
        **of("text", "plan_title plan_overview plan_features plan_data_flow plan_agents "
             "plan_backend plan_feature_names suggestions suggestion_titles suggestion_subtitles "
             "agent_descriptions agent_system_prompts"),
        **of("ident", "agents agent_ids agent_names agent_tool_names agent_tool_display_names "
             "agent_integration_names agent_integration_domains agent_data_collection_names "
             "app_tool_names app_tool_display_names app_tool_integration_names "
             "app_tool_integration_domains"),
        **of("flag", "plan_has_title plan_has_overview plan_has_features plan_has_data_flow "
             "plan_has_agents plan_has_backend"),
        **of("count", "plan_feature_count plan_agent_count plan_overview_length "
             "plan_data_flow_length plan_agents_length plan_backend_length suggestion_count "
             "suggestion_detail_count agent_count agent_detail_count app_tool_count "
             "app_tool_detail_count agent_tool_count agent_enabled_tool_count "
             "agent_recommended_tool_count agent_custom_tool_count agent_builtin_tool_count "
             "agent_integration_count agent_data_collection_count"),
    },
    "approval acted": {
        **of("label", "approval_type action approval_mode"),
        **of("count", "agent_count app_tool_count suggestion_count feedback_length"),
    },
    "integration setup started": INTEGRATION,
    "integration setup completed": INTEGRATION,
    "app displayed": FILES,
    "app agent triggered": PROMPT,
    "app agent finished": {**AGENT, "duration_ms": "duration"},
    "app agent error": {**PROMPT, "phase": "label", "status_code": "count",
                        "duration_ms": "duration", "error": "text"},
    "showed suggestions tool called": {"suggestion_count": "count",
                                       **of("text", "suggestion_titles suggestions")},
    "suggestion picked": of("text", "suggestion_title suggestion_titles"),
    "agents approved": {"approval_mode": "label", **of("count", "agent_count app_tool_count"),
                        **of("ident", "agent_ids agent_names agents")},
}  # fmt: skip

VOCABULARIES = {
    ("page viewed", "surface"): "onboarding public workspace_home app_chat app_agents settings "
    "workspace_agents library reviews workspace other",
    ("page viewed", "onboarding_step"): "intro workspace finish other",
    ("page viewed", "app_section"): "chat agents other",
    ("page viewed", "settings_section"): "overview members teams integrations connected-apps "
    "runtime-settings source-control audit-logs diagnostics other",
    ("page viewed", "workspace_section"): "available-apps other",
    ("chat initiated", "source"): "sidebar workspace_home app_chat empty_state button",
    ("chat initiated", "agent_type"): "builder workspace_agent app_agent",
    ("import existing app triggered", "trigger"): "button drop paste upload_zip",
    ("build failed", "failure_phase"): "client_stream run_status planning bundling install "
    "runtime startup",
    ("approval shown", "approval_type"): "plan suggestions agents",
    ("approval acted", "action"): "approved rejected requested_changes picked_suggestion",
    ("approval acted", "approval_mode"): "manual auto",
    ("integration setup started", "target_surface"): "connected_apps integration_settings "
    "review_needed settings app_chat",
    ("integration setup started", "auth_kind"): "mixed oauth static_secret none",
    ("app agent error", "phase"): "create start request run",
}


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_of_the_product_has_its_properties_and_their_kinds(name: str) -> None:
    kinds = {key: kind.name for key, kind in Catalogue.default().events[name].properties.items()}
    assert kinds == {**CONTEXT, **EVENTS[name]}


def test_the_default_is_exactly_the_products_nineteen_events() -> None:
    assert list(Catalogue.default().events) == list(EVENTS)
    assert len(EVENTS) == 19


@pytest.mark.parametrize("place", VOCABULARIES, ids=lambda place: place[1])
def test_a_label_has_its_known_words(place: tuple[str, str]) -> None:
    event, key = place
    kind = Catalogue.default().events[event].properties[key]
    assert kind.vocabulary == set(VOCABULARIES[place].split())


def test_the_sidebars_targets_have_spaces() -> None:
    kind = Catalogue.default().events["sidebar clicked"].properties["target"]
    assert kind.vocabulary == {
        "profile", "app name", "new app", "agents", "library", "available apps", "settings",
        "new_app", "reviews",
    }  # fmt: skip


def test_a_source_version_is_a_label_or_a_count() -> None:
    kind = Catalogue.default().events["app agent triggered"].properties["source_version"]
    assert (kind.name, kind.alternative) == ("label", Count)


def test_an_approval_may_carry_ten_times_the_text() -> None:
    limits = {event.name: event.max_text for event in Catalogue.default()}
    assert limits.pop("approval shown") == 20_000
    assert set(limits.values()) == {2000}


def test_a_host_extends_and_replaces_events() -> None:
    catalogue = Catalogue.default().extend(
        Event("invoice paid", {"amount_cents": Count}), Event("page viewed", {"tab": Label})
    )
    assert len(catalogue) == 20
    assert catalogue.events["page viewed"].properties["tab"] == Label
    assert "tab" not in Catalogue.default().events["page viewed"].properties
    assert {event.name for event in Catalogue(Event("only this"))} == {"only this"}


def test_every_event_carries_the_page_context() -> None:
    assert PAGE_CONTEXT.items() <= Event("invoice paid").properties.items()


@pytest.mark.parametrize("name", ["", "  ", "$identify", "x" * 201])
def test_an_event_without_a_usable_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="an event's name"):
        Event(name)


@pytest.mark.parametrize("key", ["$set", "distinct_id", "release_version", "__proto__"])
def test_a_property_that_is_the_servers_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="not the host's to set"):
        Event("invoice paid", {key: Count})


def test_a_property_needs_a_kind() -> None:
    with pytest.raises(TypeError, match="needs a kind"):
        Event("invoice paid", {"amount": int})  # type: ignore[dict-item]


def test_kinds_compose() -> None:
    assert List[Label].item == Label
    assert Object[{"a": Count}].fields == (("a", Count),)
    assert (Label | Count).alternative == Count
    assert Label("a", "b").vocabulary == {"a", "b"}
    assert [kind.is_safe for kind in (Count, Flag, Model, Text, Ident)] == [
        True, True, True, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [lambda: Count("a"), lambda: Label(), lambda: Label(""), lambda: (Label | Count) | Flag],
)
def test_kinds_that_make_no_sense_are_refused(wrong) -> None:
    with pytest.raises(TypeError):
        wrong()


def test_the_catalogues_own_words_come_from_names_keys_and_vocabularies() -> None:
    words = (
        Catalogue.default()
        .extend(Event("invoice paid", {"shade": List[Object[{"tone": Label("teal")}]]}))
        .words
    )
    assert {"page", "chat", "invoice", "shade", "teal", "sidebar", "viewport"} <= words
    assert "lovelace" not in words


def test_ident_and_text_keys_are_known_in_their_unseparated_spelling() -> None:
    catalogue = Catalogue.default()
    assert {"app_name", "appname", "integration_domains"} <= catalogue.ident_keys
    assert {"plan_title", "plantitle", "message"} <= catalogue.text_keys
    assert isinstance(Label, Kind)


# For people


HOSTS = Catalogue.default().extend(
    Event(
        "invoice paid",
        {
            "amount_cents": Count,
            "plan_name": Label("free", "pro"),
            "steps": List[Label("a|b")],
            "totals": Object[{"net": Count, "who": Ident}],
            "version": Label | Count,
            "owners": List[Ident],
        },
    )
)


def test_the_markdown_names_every_event_and_what_becomes_of_its_properties() -> None:
    text = markdown(HOSTS)
    assert text.startswith("# Events\n\n20 events are taken")
    for event in HOSTS:
        assert f"\n## {event.name}\n" in text
        assert all(f"| `{key}` |" in text for key in event.properties)
    assert "| `plan_name` | a machine word | `free`, `pro` | kept, if it passes |" in text
    assert "| `owners` | a list, each something that identifies | – | dropped: identifies |" in text
    assert "| `version` | a machine word, or a count | – | kept, if it passes |" in text
    assert "an object of `net` (a count), `who` (something that identifies)" in text
    assert "## page viewed\n\nNo properties of its own." in text


def test_the_json_schema_takes_what_the_endpoint_takes() -> None:
    schema = json_schema(HOSTS)
    by_name = {event["title"]: event for event in schema["oneOf"]}
    assert set(by_name) == set(HOSTS.events)
    invoice = by_name["invoice paid"]["properties"]["properties"]["properties"]
    assert invoice["amount_cents"] == {"type": "number", "description": "a count"}
    assert invoice["plan_name"]["examples"] == ["free", "pro"]
    assert invoice["steps"]["items"]["type"] == "string"
    assert invoice["totals"]["properties"]["net"]["type"] == "number"
    assert [each["type"] for each in invoice["version"]["anyOf"]] == ["string", "number"]
    assert invoice["owners"]["description"].endswith("(dropped: identifies in anonymized mode)")
    assert json.loads(json.dumps(schema)) == schema


@pytest.mark.parametrize(
    ("kind", "value", "of"),
    [
        (Count, 3, Count),
        (Count, True, None),
        (Count, "3", None),
        (Flag, True, Flag),
        (Flag, 1, None),
        (Label, "x", Label),
        (Label, None, Label),
        (Text, 5, Text),
        (Ident, True, Ident),
        (List[Count], ("x",), List[Count]),
        (List[Count], "x", None),
        (Object[{"x": Count}], {}, Object[{"x": Count}]),
        (Label | Count, "x", Label | Count),
        (Label | Count, 3, Count),
        (Label | Count, [], None),
    ],
)
def test_a_value_is_of_one_of_a_propertys_kinds_or_of_none(kind, value, of) -> None:
    assert kind.of(value) == of
