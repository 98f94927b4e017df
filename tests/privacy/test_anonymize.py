"""Anonymized mode: which keys and values leave, as tables."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest

from second_mw import (
    AnalyticsUser,
    Catalogue,
    Count,
    Duration,
    Event,
    Flag,
    Ident,
    Label,
    List,
    Model,
    Object,
    Text,
)
from tests.privacy.cores import ADA, core, finish, left_of

TEXT = "[redacted:text]"

#: (event, key, value, what leaves); `...` stands for "the property is dropped".
VALUES: list[tuple[str, str, Any, Any]] = [
    # declared numbers and flags stay
    ("build completed", "file_count", 12, 12),
    ("build completed", "duration_ms", 1234.5, 1234.5),
    ("build completed", "has_warning", True, True),
    ("build completed", "file_count", True, True),
    ("build completed", "file_count", "twelve files", TEXT),
    ("build completed", "has_warning", 3, 3),
    # a card's digits are a count where the catalogue says so
    ("build completed", "total_bytes", 4111111111111111, 4111111111111111),
    ("page viewed", "amount", 4111111111111111, "[redacted:card]"),
    # labels
    ("chat initiated", "source", "workspace_home", "workspace_home"),
    ("chat initiated", "source", "a new place", TEXT),
    ("chat initiated", "source", "new_place", "new_place"),
    ("sidebar clicked", "target", "available apps", "available apps"),
    ("chat initiated", "runtime_id", "claude-code", "claude-code"),
    ("build failed", "error_code", "E_TIMEOUT", "E_TIMEOUT"),
    ("app agent triggered", "source_version", "1.2.3", "1.2.3"),
    ("app agent triggered", "source_version", 7, 7),
    # models
    ("chat initiated", "runtime_model", "gpt-5 mini", "gpt-5 mini"),
    ("chat initiated", "runtime_model", "Claude Sonnet 4.5", "Claude Sonnet 4.5"),
    ("chat initiated", "runtime_model", "Claude Opus", "Claude Opus"),
    ("chat initiated", "runtime_model", "claude-sonnet-4-5[1m]", "claude-sonnet-4-5[1m]"),
    ("chat initiated", "runtime_model", "GPT-4o (mini)", "GPT-4o (mini)"),
    ("chat initiated", "runtime_model", "o3", "o3"),
    ("chat initiated", "runtime_model", "o3 pro", "o3 pro"),
    ("chat initiated", "runtime_model", "claude-sonnet-4-5-20250929", "claude-sonnet-4-5-20250929"),
    ("chat initiated", "runtime_model", "ft:gpt-4o:acme:bob:x1", "ft:gpt-4o"),
    ("chat initiated", "runtime_model", "Claude for Bob Smith", TEXT),
    ("chat initiated", "runtime_model", "my own model 3", TEXT),
    ("chat initiated", "runtime_model", "gpt 5 a b c", TEXT),
    ("chat initiated", "runtime_model", "arn:aws:bedrock:model/x", TEXT),
    ("chat initiated", "runtime_model", "claude@bob", TEXT),
    ("chat initiated", "runtime_model", "gpt-5 Ada", TEXT),
    ("chat initiated", "runtime_model", "Sonnet 4.5", "Sonnet 4.5"),
    ("chat initiated", "runtime_model", "Llama Maverick", "Llama Maverick"),
    ("chat initiated", "runtime_model", "Sonnet 18 Ada", TEXT),
    ("chat initiated", "runtime_model", "sonnet for Bob", TEXT),
    ("chat initiated", "runtime_model", "Deep Think for Bob", TEXT),
    ("chat initiated", "runtime_model", "Gemini live with Bob", TEXT),
    ("chat initiated", "runtime_model", "live image 3", TEXT),
    # undeclared
    ("page viewed", "theme", "left-nav", "left-nav"),
    ("page viewed", "theme", "pt-BR", "pt-BR"),
    ("page viewed", "theme", "Europe/Berlin", "Europe/Berlin"),
    ("page viewed", "theme", "two words", TEXT),
    ("page viewed", "theme", "ft:gpt-4o:acme:bob:x1", "ft:gpt-4o"),
    ("page viewed", "theme", "x" * 64, "x" * 64),
    ("page viewed", "theme", "x" * 65, TEXT),
    ("page viewed", "theme", "-dash", TEXT),
    ("page viewed", "theme", "größe", TEXT),
    ("page viewed", "theme", "", ""),
    ("page viewed", "theme", None, None),
    ("page viewed", "theme", "\u200b", ""),
    ("page viewed", "theme", TEXT, TEXT),
    ("page viewed", "theme", False, False),
    ("page viewed", "theme", 3.25, 3.25),
    ("page viewed", "theme", "bob@mail.example", "[redacted:email]"),
    ("page viewed", "theme", "write to bob@mail.example", TEXT),
    ("page viewed", "app_version", "1.2.3.4", "1.2.3.4"),
    # Text and Ident are dropped, in every event and spelling
    ("chat initiated", "message", "hello", ...),
    ("page viewed", "message", "hello", ...),
    ("page viewed", "planTitle", "Launch", ...),
    ("page viewed", "app_name", "Payroll", ...),
    ("page viewed", "integrationDomains", ["x.example"], ...),
    ("page viewed", "page_url", "https://app.example/w/1", ...),
    ("page viewed", "referrer", "https://app.example/", ...),
    ("page viewed", "workspace_id", "w_engine_room", ...),
    ("page viewed", "owner", 5, ...),
    ("page viewed", "user", {"plan": "free"}, ...),
    ("page viewed", "clientIP", "10.0.0.1", ...),
    ("page viewed", "team_slug", "x", ...),
    # secrets by key, where the key does not identify
    ("page viewed", "authorization", "Bearer x", "[redacted:secret]"),
    ("page viewed", "cookie", {"a": 1}, "[redacted:secret]"),
    ("page viewed", "passwd", "x", "[redacted:secret]"),
    # the server's own
    ("page viewed", "$set", {"email": "x"}, ...),
    ("page viewed", "＄set", {"email": "x"}, ...),
    ("page viewed", "$ip", "10.0.0.1", ...),
    ("page viewed", "distinct_id", "x", ...),
    ("page viewed", "releaseVersion", "9", ...),
    ("page viewed", "second_mw", "9", ...),
    ("page viewed", "anonymized", True, ...),
    ("page viewed", "__proto__", {"x": 1}, ...),
    ("page viewed", "", 1, ...),
    # a key is data too
    ("page viewed", "bob@mail.example", 1, ...),
    ("page viewed", "what Bob said", 1, ...),
    ("page viewed", "ada-clicks", 1, ...),
    ("page viewed", "_private", 1, 1),
    # routes
    ("page viewed", "route_shape", "/w/acme/apps/65f0c0ffee65f0c0ffee65f1",
     "/w/:workspace/apps/:objectId"),
    ("page viewed", "route_shape", "/w/:workspace/apps/:objectId", "/w/:workspace/apps/:objectId"),
    ("page viewed", "route_shape", 5, 5),
    ("page viewed", "route_shape", "/people/lovelace", TEXT),
]  # fmt: skip


@pytest.mark.parametrize(("event", "key", "value", "left"), VALUES)
def test_what_leaves_of_a_property(event: str, key: str, value: Any, left: Any) -> None:
    assert left_of({key: value}, event=event) == ({} if left is ... else {key: left})


@pytest.mark.parametrize(("event", "key", "value", "left"), VALUES)
def test_a_second_pass_changes_nothing(event: str, key: str, value: Any, left: Any) -> None:
    once = left_of({key: value}, event=event)
    assert left_of(once, event=event) == once


@pytest.mark.parametrize(
    "wrap",
    [
        lambda p: {"a": p},
        lambda p: {"a": [p]},
        lambda p: {"a": {"b": [[p]]}},
        lambda p: {"a": {"b": {"c": {"d": p}}}},
    ],
)
def test_keys_and_values_are_judged_at_every_depth(wrap) -> None:
    posted = wrap({"user_email": "x", "userName": "y", "label": "ada", "clicks": 3, "message": "m"})
    assert left_of(posted) == wrap({"label": TEXT, "clicks": 3})


def test_a_declared_key_is_declared_at_the_top_level_only() -> None:
    posted = {"runtime_id": "claude-code", "nested": {"runtime_id": "claude-code"}}
    assert left_of(posted, event="build completed") == {"runtime_id": "claude-code", "nested": {}}


def test_a_declared_key_is_declared_in_its_exact_spelling_only() -> None:
    assert left_of({"runtimeId": "claude-code"}, event="build completed") == {}


def test_list_items_are_judged_one_by_one() -> None:
    posted = {"steps": ["plan", "Ada", None, True, 3, "two words", {"name": "x", "n": 1}]}
    assert left_of(posted) == {"steps": ["plan", TEXT, None, True, 3, TEXT, {"n": 1}]}


# Identity


@pytest.mark.parametrize(
    "value",
    [
        "ada", "ADA", "by-ada", "ada_1", "byAdaNow", "lovelace", "ada-lovelace", "adalovelace",
        "Ada.Lovelace", "ada.lovelace", "x-w_engine_room", "enchantress", "analytical.example",
        "pre65f0c0ffee65f0c0ffee65f0", "AdaLovelace2",
    ],
)  # fmt: skip
def test_a_label_that_holds_the_users_identity_is_redacted(value: str) -> None:
    left = left_of({"theme": value})["theme"]
    assert left.startswith("[redacted:")


@pytest.mark.parametrize("value", ["canada", "adaptive", "lovelaces", "engine_room", "analytical"])
def test_a_label_that_only_resembles_it_stays(value: str) -> None:
    assert left_of({"theme": value}) == {"theme": value}


def test_numbers_are_compared_with_numeric_ids_of_five_digits_or_more() -> None:
    user = AnalyticsUser("48151", workspaces={"2342": None})
    posted = {"n": 48151, "m": 148151, "f": 48151.5, "w": 2342, "file_count": 48151}
    assert left_of(posted, user=user, event="build completed") == {
        "n": TEXT, "m": 148151, "f": TEXT, "w": 2342, "file_count": TEXT,
    }  # fmt: skip


def test_short_ids_count_as_whole_values_only() -> None:
    user = AnalyticsUser("7a", aliases=("42",))
    posted = {"a": "7a", "b": "x-7a", "c": "42", "d": "v42"}
    assert left_of(posted, user=user) == {"a": TEXT, "b": "x-7a", "c": TEXT, "d": "v42"}


def test_the_catalogues_own_words_are_no_identity() -> None:
    user = AnalyticsUser("u_123456", name="Chat Page", email="agent@sidebar.example")
    posted = {"surface": "workspace_home", "theme": "page-first", "tab": "chat", "by": "agent"}
    assert left_of(posted, user=user) == posted


def test_the_full_name_of_common_words_is_identity_all_the_same() -> None:
    user = AnalyticsUser("u_123456", name="Chat Page")
    assert left_of({"theme": "chat-page", "tab": "chatpage"}, user=user) == {
        "theme": TEXT, "tab": TEXT,
    }  # fmt: skip


def test_mr_claude_may_use_claude_code_and_ms_max_qwen_max() -> None:
    claude = AnalyticsUser("u_123456", name="Jean Claude")
    kept = {"runtime_model": "claude-sonnet-4-5", "runtime_model_family": "claude"}
    assert left_of(kept, user=claude, event="chat initiated") == kept
    assert left_of({"theme": "claude"}, user=claude) == {"theme": TEXT}
    ms_max = AnalyticsUser("u_123456", name="Erika Max")
    assert left_of({"runtime_model": "qwen-max"}, user=ms_max, event="chat initiated") == {
        "runtime_model": "qwen-max"
    }


def test_identity_in_a_route_shape_redacts_the_whole_value() -> None:
    assert left_of({"route_shape": "/team/ada"}) == {"route_shape": TEXT}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Zoé Lorena", "nav.Wm/DqQ.open"),
        ("Jim Tarn", "by-amlt"),  # all of it small letters
        ("Ada Tarn", "QURB"),  # all of it capitals
        ("Mia Tarn", "bWlh"),
        ("Jim Tarn", "[redacted:jim]"),
        ("Ant One", "QW50"),
        ("a1b2c3d4e5", "a1b2c3d4e5"),  # more changes than a name has words
    ],
)
def test_the_shortest_names_are_found_in_base64_and_behind_brackets(name: str, value: str) -> None:
    user = AnalyticsUser("u_1234567", name=name)
    for receipts in (True, False):
        pipeline = core(receipts=receipts)
        assert left_of({"theme": value}, user=user, pipeline=pipeline) == {"theme": TEXT}


def test_declared_values_of_another_kind_are_judged_as_undeclared() -> None:
    posted = {"runtime_id": 5, "runtime_model": ["a", "b c"], "has_warning": "ok", "file_count": {}}
    assert left_of(posted, event="build completed") == {
        "runtime_model": ["a", TEXT], "has_warning": "ok", "file_count": {},
    }  # fmt: skip
    pipeline = core(undeclared="drop")
    assert left_of(posted, event="build completed", pipeline=pipeline) == {}


def test_lists_of_what_identifies_are_dropped_and_kept_out() -> None:
    catalogue = Catalogue.default().extend(
        Event(
            "team saved",
            {
                "seats": List[Ident],
                "notes": List[Text],
                "either": Label | Ident,
                "box": Object[{"leads": List[Ident], "open": Count}],
            },
        )
    )
    posted = {
        "seats": ["Zanzibar"], "notes": ["word"], "either": "word",
        "box": {"leads": ["Quuxbert"], "open": 3, "other": "x"},
        "label": "zanzibar", "tag": "quuxbert",
    }  # fmt: skip
    left = left_of(posted, event="team saved", pipeline=core(catalogue=catalogue))
    assert left == {"box": {"open": 3, "other": "x"}, "label": TEXT, "tag": TEXT}
    strict = core(catalogue=catalogue, undeclared="drop")
    assert left_of(posted, event="team saved", pipeline=strict) == {"box": {"open": 3}}


def test_an_event_that_names_more_things_than_any_product_says_no_word() -> None:
    posted = {"agent_names": [f"thing{n:04}" for n in range(600)], "theme": "dark", "clicks": 3}
    assert left_of(posted) == {}
    assert left_of({"agent_names": posted["agent_names"], "surface": "settings"}) == {
        "surface": "settings"
    }


def test_a_whole_float_can_be_a_card() -> None:
    assert left_of({"x": 4111111111111111.0, "y": 4111111111111112.0}) == {
        "x": "[redacted:card]", "y": 4111111111111112.0,
    }  # fmt: skip


def test_a_number_that_is_the_users_id_only_once_it_is_rounded_loses_no_event() -> None:
    user, pipeline = AnalyticsUser("48160"), core(precision="coarse")
    posted = {"viewport_width": 48155, "n": 3, "sent_bytes": 1234}
    assert left_of(posted, user=user, pipeline=pipeline) == {
        "viewport_width": TEXT, "n": 3, "sent_bytes": 1200,
    }  # fmt: skip


def test_jane_home_may_be_at_home_and_a_hosts_own_routes_are_nobody() -> None:
    jane = AnalyticsUser("u_1234567", name="Jane Home Token")
    for shape in ("/w/:workspace/home", "/reset/:token"):
        assert left_of({"route_shape": shape}, user=jane) == {"route_shape": shape}
        assert left_of({"route_shape": shape}, user=jane, pipeline=core(receipts=False)) == {
            "route_shape": shape
        }
    hosts = core(routes=["/team/jane/:id"])
    assert left_of({"route_shape": "/team/jane/3"}, user=jane, pipeline=hosts) == {
        "route_shape": "/team/jane/:id"
    }


# What the event itself names


def test_the_name_of_an_app_does_not_come_back_as_a_label() -> None:
    posted = {
        "app_name": "Payroll Helper",
        "a": "payroll-helper",
        "b": "payroll_helper",
        "c": "PayrollHelper",
        "d": "payroll.helper",
        "e": "payrollhelper",
        "f": "payroll",
    }
    assert left_of(posted, event="chat initiated") == {
        **dict.fromkeys("abcde", TEXT), "f": "payroll",
    }  # fmt: skip


@pytest.mark.parametrize(
    "named",
    [
        {"agent_name": "Ledgerbot"},
        {"agentName": "Ledgerbot"},
        {"agent_names": ["x", "Ledgerbot"]},
        {"nested": {"agentName": "Ledgerbot"}},
        {"list": [{"agent_name": "Ledgerbot"}]},
        {"agents": [{"name": "Ledgerbot", "status": "ready"}]},
        {"agents": {"first": {"name": "Ledgerbot"}}},
    ],
)
def test_ident_values_are_kept_out_wherever_they_stand(named: dict[str, Any]) -> None:
    left = left_of({**named, "label": "ledgerbot", "status": "ready"}, event="approval shown")
    assert (left["label"], left["status"]) == (TEXT, "ready")


def test_the_order_of_keys_does_not_matter() -> None:
    posted = {"label": "ledgerbot", "agent_name": "Ledgerbot", " x": 1, "x": 2}
    turned = dict(reversed(posted.items()))
    assert left_of(posted) == left_of(turned) == {"label": TEXT, "x": 2}


def test_short_ident_values_and_models_are_not_compared() -> None:
    posted = {"agent_name": "bot", "label": "bot", "app_name": "gpt-5", "runtime_model": "gpt-5"}
    assert left_of(posted, event="chat initiated") == {"label": "bot", "runtime_model": "gpt-5"}


def test_an_ident_value_that_is_a_number_is_kept_out_of_numbers() -> None:
    assert left_of({"app_id": "481516", "n": 481516}) == {"n": TEXT}


# Declared kinds


def test_a_hosts_own_kinds_hold_at_the_top_level() -> None:
    catalogue = Catalogue.default().extend(
        Event(
            "invoice paid",
            {
                "plan_name": Label("pro", "free"),
                "steps": List[Label("one step", "two steps")],
                "sizes": Object[
                    {"width": Count, "owner": Ident, "note": Text, "mood": Label("so so")}
                ],
                "took": Duration,
                "ok": Flag,
                "engine": Model,
            },
        )
    )
    posted = {
        "plan_name": "pro",
        "steps": ["one step", "three steps"],
        "sizes": {"width": 3, "owner": "Zoe", "note": "x", "mood": "so so", "extra": "word"},
        "took": 5,
        "ok": True,
        "engine": "gpt-5 mini",
        "label": "zoe1",
    }
    left = left_of(posted, event="invoice paid", pipeline=core(catalogue=catalogue))
    assert left == {
        "plan_name": "pro",
        "steps": ["one step", TEXT],
        "sizes": {"width": 3, "mood": "so so", "extra": "word"},
        "took": 5,
        "ok": True,
        "engine": "gpt-5 mini",
        "label": "zoe1",
    }
    assert left_of({"plan_name": "pro"}, pipeline=core(catalogue=catalogue)) == {}


def test_undeclared_properties_can_be_dropped_altogether() -> None:
    pipeline = core(undeclared="drop")
    posted = {"surface": "settings", "theme": "dark", "clicks": 3, "viewport_width": 800}
    assert left_of(posted, pipeline=pipeline) == {"surface": "settings", "viewport_width": 800}


def test_coarse_precision_rounds_sizes_durations_and_the_viewport() -> None:
    pipeline = core(precision="coarse")
    posted = {
        "total_bytes": 123456,
        "duration_ms": 987.6,
        "viewport_width": 1437,
        "file_count": 123,
    }
    assert left_of(posted, event="build completed", pipeline=pipeline) == {
        "total_bytes": 120000, "duration_ms": 990, "viewport_width": 1440, "file_count": 123,
    }  # fmt: skip
    assert left_of({"total_bytes": 0}, event="build completed", pipeline=pipeline) == {
        "total_bytes": 0
    }


def test_a_hosts_routes_are_templates() -> None:
    pipeline = core(routes=["/orders/:id", "/about"])
    assert left_of({"route_shape": "/orders/ada"}, pipeline=pipeline) == {
        "route_shape": "/orders/:id"
    }
    assert left_of({"route_shape": "/secret"}, pipeline=pipeline) == {"route_shape": ":unknown"}


# The receipt and the warning


def test_the_receipt_says_what_was_done_and_names_no_key_that_is_data() -> None:
    receipt = finish(
        {
            "source": "sidebar",
            "message": "hi",
            "user_email": "x",
            "ada_key": 1,
            "theme": "two words",
            "nested": {"Bob Smith": 1, "ok": True},
            "list": ["a", "b c"],
        },
        event="chat initiated",
    ).receipt
    assert receipt is not None
    assert [(line.key, line.result, line.rule) for line in receipt.lines] == [
        ("source", "kept", "vocabulary"),
        ("message", "dropped", "free_text"),
        ("user_email", "dropped", "identifying_key"),
        (":key", "dropped", "identifying_ending"),
        ("theme", "redacted", "text"),
        ("nested.:key", "dropped", "identifying_value_in_key"),
        ("nested.ok", "kept", "flag"),
        ("nested", "kept", "container"),
        ("list[1]", "redacted", "text"),
        ("list", "kept", "container"),
    ]
    assert receipt.mode == "anonymized"
    assert receipt.as_dict()["properties"][2] == {
        "key": "user_email",
        "result": "dropped",
        "rule": "identifying_key",
        "words": "names a person, a workspace or a thing of theirs",
    }


def test_a_receipt_is_bounded() -> None:
    receipt = finish({f"k{chr(97 + n % 26)}x{n}y": [["a b"] * 20] * 20 for n in range(80)}).receipt
    assert receipt is not None
    assert len(receipt.lines) == 500


def test_no_receipt_is_kept_unless_asked_for() -> None:
    assert finish({"x": 1}, pipeline=core(receipts=False)).receipt is None


def test_a_redacted_undeclared_string_is_warned_of_once_with_how_to_declare_it(caplog) -> None:
    pipeline = core()
    for _ in range(3):
        left_of({"theme": "two words"}, pipeline=pipeline)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "'theme'" in record.getMessage()
    assert "Event('page viewed', {'theme': Label(" in record.getMessage()
    assert "two words" not in record.getMessage()


def test_a_key_that_did_not_pass_is_never_logged_nor_remembered(caplog) -> None:
    pipeline = core()
    left_of({"ada_lovelace_x": "two words", "Bob Smith": "x"}, pipeline=pipeline)
    assert caplog.records == []
    remembered = str(vars(pipeline._rules)).lower()
    assert "bob smith" not in remembered


def test_another_user_finds_no_trace_of_the_first_in_what_is_remembered() -> None:
    pipeline = core()
    left_of({"theme": "lovelace"}, pipeline=pipeline)
    other = replace(ADA, id="another-user-1", email=None, name="Grace Hopper", aliases=())
    assert left_of({"theme": "lovelace"}, user=other, pipeline=pipeline) == {"theme": "lovelace"}


@pytest.mark.parametrize("receipts", [True, False])
@pytest.mark.parametrize(
    ("key", "left"),
    [
        ("word_" * 1000, ("word_" * 16)[:80]),
        ("x_" * 30 + "TG92ZWxhY2U", None),
        # It begins in what leaves, and ends behind.
        ("x_" * 38 + "YWRhLmxvdmVsYWNlQGFuYWx5dGljYWwuZXhhbXBsZQ", None),
        ("x_" * 500 + "65f0c0ffee65f0c0ffee65f0", None),
    ],
)
def test_a_long_key_is_judged_by_all_that_leaves_of_it(
    key: str, left: str | None, receipts: bool
) -> None:
    pipeline = core(receipts=receipts)
    assert left_of({key: 1}, pipeline=pipeline) == ({left: 1} if left else {})


def test_keys_that_are_cut_are_not_remembered() -> None:
    pipeline = core()
    left_of({"word_" * 10_000: 1}, pipeline=pipeline)
    assert "word_word_" not in str(vars(pipeline._rules))
