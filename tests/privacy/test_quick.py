"""The quick ways give what the careful ones give, and remember nothing that they shouldn't."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from second_mw import AnalyticsUser, Catalogue, Refused
from second_mw.privacy.pipeline import Pipeline
from tests.privacy.cores import ADA, core, finish, left_of, payload_of

CATALOGUE = Catalogue.default()
KEYS = sorted({key for event in CATALOGUE for key in event.properties})
WORDS = [
    "", "workspace_home", "settings", "claude-code", "gpt-5 mini", "dark", "Ada", "by-ada",
    "lovelace", "two words", "YWRh", "amlt", "1.2.3.4", "x@y.example", "[redacted:text]",
    "[redacted:ada]", "ft:gpt-4o:acme:bob:x1", "arn:aws:x", "/w/:workspace/settings",
    "/team/lovelace", "/w/acme/apps/x", "65f0c0ffee65f0c0ffee65f0", "w_engine_room", "48151",
    "Payroll Helper", "payroll-helper", "größe", "a\u200bb", "\x00", "sk-abcdefgh12345678",
    "4111 1111 1111 1111", "see https://x.example/a?b=c#d", "home", "7a", "A-B_C.d/e:f+g",
]  # fmt: skip
USERS = [
    ADA,
    AnalyticsUser("48151", email="payroll.helper@corp.example", name="Jo Li", aliases=("7a",)),
    AnalyticsUser("u_1", name="Jim Home", workspaces={f"w{n:04}": None for n in range(60)}),
    AnalyticsUser("page", name="Claude Max", email="chat@gmail.com"),
]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**6), 10**6)
    | st.sampled_from([48151, 48151.5, 4111111111111111, 4111111111111111.0, 2**60, 1e300])
    | st.floats()
    | st.sampled_from(WORDS)
    | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from([*KEYS, "x", "name", "Ada"]), inner, max_size=4)
    ),
    max_leaves=6,
)
PROPERTIES = st.dictionaries(
    st.sampled_from(
        [*KEYS, "theme", "tab ", "$set", "ada_count", "agentName", "plan_name", "token", "cookie",
         "x_version", "anonymousDistinctId", "page_count", "k" * 90, "k" * 79 + "_id_count"]
    )
    | st.text(max_size=8),
    VALUES,
    max_size=12,
)  # fmt: skip
QUICK, CAREFUL = core(receipts=False), core(receipts=True)


def result(pipeline: Pipeline, *given: Any, **more: Any) -> Any:
    try:
        return msgspec.json.decode(payload_of(*given, pipeline=pipeline, **more).properties)
    except Refused as refused:
        return refused.code


@settings(max_examples=600, derandomize=True)
@given(
    PROPERTIES,
    st.sampled_from(sorted(CATALOGUE.events)),
    st.sampled_from(USERS),
    st.sampled_from(["anonymized", "identified"]),
)
def test_the_quick_way_gives_what_the_careful_one_gives(
    properties: dict[str, Any], event: str, user: AnalyticsUser, mode: str
) -> None:
    same = {"event": event, "user": user, "mode": mode}
    careful = result(CAREFUL, properties, **same)
    assert result(QUICK, properties, **same) == careful
    # And again, now that it remembers whatever passed.
    assert result(QUICK, properties, **same) == careful
    assert careful != "not_taken"


@settings(max_examples=300, derandomize=True)
@given(st.data(), st.sampled_from(USERS), st.sampled_from(["anonymized", "identified"]))
def test_it_does_for_the_same_keys_with_other_values(
    data: st.DataObject, user: AnalyticsUser, mode: str
) -> None:
    event = data.draw(st.sampled_from(sorted(CATALOGUE.events)))
    declared = sorted(CATALOGUE.events[event].properties)
    keys = data.draw(
        st.lists(st.sampled_from([*declared, "theme", "layout2", "x_version", "adas"]))
    )
    usual: dict[str, Any] = {"count": 3, "duration": 1.5, "flag": True, "label": "dark"}
    same = {"event": event, "user": user, "mode": mode}
    kinds = CATALOGUE.events[event].properties
    warm = {key: usual.get(kinds[key].name, "dark") if key in kinds else "dark" for key in keys}
    # What these keys mean together is remembered after the first.
    assert result(QUICK, warm, **same) == result(CAREFUL, warm, **same)
    for _ in range(3):
        changed = data.draw(st.lists(st.sampled_from(keys), max_size=3)) if keys else []
        posted = {**warm, **{key: data.draw(VALUES) for key in changed}}
        careful = result(CAREFUL, posted, **same)
        # The third time all of its words have been seen together.
        assert [result(QUICK, posted, **same) for _ in range(3)] == [careful] * 3


@pytest.mark.parametrize("mode", ["anonymized", "identified"])
@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("key", ["theme", "surface", "runtime_model", "route_shape", "x_version"])
def test_it_does_for_every_kind_of_word_and_key(key: str, word: str, mode: str) -> None:
    for user in USERS:
        same = {"event": "build completed", "user": user, "mode": mode}
        assert result(QUICK, {key: word}, **same) == result(CAREFUL, {key: word}, **same)


@pytest.mark.parametrize("mode", ["anonymized", "identified"])
@pytest.mark.parametrize(
    "last",
    [
        {"app_name": "Word-81"}, {"theme": "dark"}, {" key1x": "other"}, {"theme": ["word-81"]},
        {"x": {"app_name": "word 7"}}, {"message": {"app_name": "word 7"}}, {"message": ["a"]},
        {"plan_features": [{"app_name": "word 7"}]}, {"password": "x"}, {"$set": 1},
        {"Agent Name": "word-9"}, {"key81x\u200b": 1}, {"k" * 90: 1}, {1: 1},
    ],
)  # fmt: skip
def test_it_does_for_more_keys_than_leave(last: dict[Any, Any], mode: str) -> None:
    posted = {f"key{n}x": f"word-{n}" for n in range(80)}
    for many in (posted | last, last | posted, posted | {"surplus": "a"} | last | {"more": "b"}):
        for _ in range(2):
            assert result(QUICK, many, mode=mode) == result(CAREFUL, many, mode=mode)


@pytest.mark.parametrize(
    ("user", "posted"),
    [
        (AnalyticsUser("Kq7"), {"theme": "S3E3"}),
        (AnalyticsUser("max"), {"bWF4": "dark"}),
        (AnalyticsUser("u1", aliases=("pro",)), {"cHJv-pro": 1}),
        (ADA, {"%2B33%204%": {"app_name": "Thistledown"}, "theme": "thistledown"}),
        (ADA, {"userEmail": [{"app_name": "Thistledown"}], "theme": "thistledown"}),
        (ADA, {"message": {"app_name": "Thistledown"}, "theme": "thistledown"}),
        (ADA, {"v1": "cXdlbg-a-a-\uff15"}),
        (ADA, {"x": "a\uff15"}),
    ],
)
def test_it_leaves_to_the_careful_one_what_is_within(
    user: AnalyticsUser, posted: dict[str, Any]
) -> None:
    assert result(QUICK, posted, user=user) == result(CAREFUL, posted, user=user)


def test_a_label_that_passed_for_one_user_is_still_compared_for_the_next() -> None:
    pipeline = core(receipts=False)
    other = AnalyticsUser("another-user-1", name="Grace Hopper")
    assert left_of({"theme": "lovelace"}, user=other, pipeline=pipeline) == {"theme": "lovelace"}
    assert left_of({"theme": "lovelace"}, pipeline=pipeline) == {"theme": "[redacted:text]"}
    assert left_of({"theme": "hopper"}, pipeline=pipeline) == {"theme": "hopper"}


def test_words_that_left_together_are_still_compared_for_every_user() -> None:
    posted = {"surface": "workspace_home", "theme": "lovelace", "viewport_width": 48151}
    others = [AnalyticsUser(f"another-user-{n}", name="Grace Hopper") for n in range(3)]
    for _ in range(3):
        for user in others:
            assert left_of(posted, user=user, pipeline=QUICK) == posted
    named = {**posted, "theme": "[redacted:text]"}
    short = AnalyticsUser("ab", aliases=("lovelace",))
    for user in (ADA, short, AnalyticsUser("x", workspaces={"lovelace": None})):
        for _ in range(3):
            assert left_of(posted, user=user, pipeline=QUICK) == named
    # A number that is one user's id is looked at although the words are known.
    assert left_of(posted, user=USERS[1], pipeline=QUICK) != posted


def test_a_text_of_another_class_than_str_is_never_taken_for_the_one_that_passed() -> None:
    class Spelled(str):
        __slots__ = ()

    for _ in range(3):
        assert left_of({"theme": "dark"}, pipeline=QUICK) == {"theme": "dark"}
    for mode in ("anonymized", "identified"):
        for posted in ({"theme": Spelled("dark")}, {Spelled("theme"): Spelled("dark")}):
            for pipeline in (CAREFUL, QUICK, QUICK):
                left = result(pipeline, posted, event="page viewed", mode=mode)
                assert left["theme"] == "dark"


def remembered(pipeline: Pipeline) -> str:
    quick = pipeline._quick
    assert quick is not None
    tables = (quick, pipeline._rules, pipeline._remembered)
    return str([*map(vars, tables), pipeline._telling]).lower()


def test_nothing_that_was_dropped_or_redacted_is_remembered() -> None:
    pipeline = core(receipts=False)
    secret = {
        "theme": "lovelace", "layout": "zanzibar words", "bob_smith_id": 3, "Bob Smith": 1,
        "quux@y.example": 1, "app_name": "Kumquat", "message": "hi zanzibar",
        "panel": "12ab34cd56ef78ab90cd12ef34",
    }  # fmt: skip
    for _ in range(2):
        finish(secret, pipeline=pipeline)
    # A number as a key may be somebody's, too: only server code has such.
    assert pipeline.telling("page viewed", ("theme", 4711987)).of_mode == ()
    for trace in ("lovelace", "zanzibar", "bob", "quux", "kumquat", "12ab34cd", "4711987"):
        assert trace not in remembered(pipeline)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    from second_mw.privacy import pipeline as pipelines
    from second_mw.privacy import quick, sanitize

    monkeypatch.setattr(pipelines, "PLANS", 40)
    monkeypatch.setattr(quick, "_REMEMBERED", 40)
    monkeypatch.setattr(quick, "PLANS", 40)
    monkeypatch.setattr(sanitize, "PLANS", 40)
    monkeypatch.setattr(sanitize, "_REMEMBERED", 40)
    pipeline = core(receipts=False)
    letters = "abcdefghijklmnopqrstuvwxyz"
    for one in letters:
        for two in letters:
            posted = {f"key{one}{two}x": f"word-{one}{two}", f"{one}{two}_id": 1}
            finish(posted, pipeline=pipeline)
            finish({**posted, "route_shape": f"/{one}{two}"}, pipeline=pipeline, mode="identified")
    for number in range(200):
        # Seen once each, and then together.
        words = {"surface": f"word-{number % 9}", "app_section": f"part-{number % 25}"}
        for _ in range(3):
            finish(words, pipeline=pipeline)
    ways = pipeline._quick
    assert ways is not None
    assert all(len(table) <= 41 for table in ways._passed.values())
    assert all(len(gone) <= 41 for gone in ways._gone.values())
    assert len(ways._known["page viewed"]) <= 41
    assert all(len(seen) <= 41 for seen in ways._surplus.values())
    assert all(len(plans) <= 40 for plans in ways._plans.values())
    assert all(len(known) <= 41 for known in pipeline._remembered._ways.values())
    assert all(len(plans) <= 40 for plans in pipeline._remembered._plans.values())
    assert len(pipeline._remembered.labels) <= 40
    together = [plan.together for plans in ways._plans.values() for plan in plans.values()]
    assert 0 < sum(map(len, together)) <= 40
    assert all(len(told) <= 40 for told in pipeline._telling.values())
    assert len(pipeline._remembered.shapes) <= 40


COUNTS = ("file_count", "total_bytes", "message_count", "user_message_count", "tool_call_count")


@pytest.mark.parametrize("mode", ["anonymized", "identified"])
@pytest.mark.parametrize("odd", [10**400, -(10**400), 2**64, 4111111111111111, -0.0, 1e300, True])
def test_an_odd_number_among_others_costs_nothing_but_itself(mode: str, odd: float) -> None:
    usual = dict.fromkeys(COUNTS, 1) | {"duration_ms": 1.5}
    assert result(QUICK, usual, event="build completed", mode=mode) != "not_taken"
    posted = {**usual, "total_bytes": odd}
    careful = result(CAREFUL, posted, event="build completed", mode=mode)
    assert careful != "not_taken"
    for _ in range(2):
        assert result(QUICK, posted, event="build completed", mode=mode) == careful


def test_a_user_who_changed_is_prepared_anew_and_users_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from second_mw.privacy import pipeline as pipelines

    monkeypatch.setattr(pipelines, "_PREPARED_USERS", 5)
    pipeline = core(receipts=False)
    for n in range(9):
        user = AnalyticsUser(f"user-number-{n}", name="Grace Hopper")
        assert left_of({"theme": "hopper"}, user=user, pipeline=pipeline) != {"theme": "hopper"}
        renamed = AnalyticsUser(f"user-number-{n}", name="Grace Murray")
        assert left_of({"theme": "hopper"}, user=renamed, pipeline=pipeline) == {"theme": "hopper"}
    assert len(pipeline._known) <= 5
    assert len(pipeline._earlier) <= 5
    assert pipeline._known.keys().isdisjoint(pipeline._earlier)
