"""Bounds, cleaning and secrets, in both modes."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from second_mw.privacy import secrets
from second_mw.privacy.secrets import is_quiet, redact_secrets
from tests.privacy.cores import ADA, core, finish, left_of

IDENTIFIED = replace(ADA, anonymized=False)
CLAIMS = ("user_id", "user_email", "user_name", "workspace_id", "workspace_role")


def kept(properties: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    """What leaves in identified mode, without what the server says of the user."""
    left = left_of(properties, user=IDENTIFIED, mode="identified", **kwargs)
    return {key: value for key, value in left.items() if key not in CLAIMS}


@pytest.mark.parametrize(
    ("value", "left"),
    [
        ("x" * 2001, "x" * 2000),
        ("🙂" * 2001, "🙂" * 2000),
        ("a\x00b\x1bc\x7f\x85d", "abcd"),
        ("tab\tand\nnewline\r", "tab\tand\nnewline"),
        ("zero\u200bwidth\ufeff\u2060", "zerowidth"),
        ("bidi\u202eevil\u2069", "bidievil"),
        ("unpaired\ud83d", "unpaired"),
        (2**53, 2**53),
        (2**53 + 1, ...),
        (-(2**53) - 1, ...),
        (math.nan, ...),
        (math.inf, ...),
        (1e300, 1e300),
        ((1, 2), [1, 2]),
        (b"bytes", ...),
        (object(), ...),
        (list(range(25)), list(range(20))),
        ([math.nan, 1], [1]),
        ([math.nan] * 30 + [1], [1]),
        (4111111111111111, "[redacted:card]"),
        ("call me", "call me"),
    ],
)
def test_what_leaves_of_a_value(value: Any, left: Any) -> None:
    assert kept({"x": value}) == ({} if left is ... else {"x": left})


def test_an_approvals_strings_are_cut_at_twenty_thousand() -> None:
    left = kept({"plan_overview": "x" * 20_001}, event="approval shown")
    assert len(left["plan_overview"]) == 20_000


def test_an_object_has_eighty_keys_and_cuts_count_what_is_kept() -> None:
    posted = {"$gone": 1, **{f"key{n}x": n for n in range(85)}}
    assert list(kept(posted)) == [f"key{n}x" for n in range(80)]
    assert len(kept({"inner": posted})["inner"]) == 80


def nested(depth: int) -> Any:
    return {"x": nested(depth - 1)} if depth > 1 else {"end": 1}


def test_eight_levels_leave_and_the_ninth_does_not() -> None:
    assert kept(nested(8)) == nested(8)
    left = kept(nested(9))
    for _ in range(7):
        left = left["x"]
    assert left == {}


def test_lists_count_as_levels() -> None:
    posted: Any = [1]
    for _ in range(10):
        posted = [posted]
    left = kept({"x": posted})["x"]
    depth = 0
    while left:
        left, depth = left[0], depth + 1
    assert depth == 6


@pytest.mark.parametrize("mode", ["anonymized", "identified"])
@pytest.mark.parametrize("receipts", [True, False])
@pytest.mark.parametrize("key", ["theme", "app_name", "plan_features", "message"])
def test_a_list_that_holds_itself_many_times_is_dropped(
    key: str, receipts: bool, mode: str
) -> None:
    many: list[Any] = ["a"]
    many += [many] * 20
    shared: Any = {"app_name": "Board"}
    for _ in range(40):
        shared = {"a": shared, "b": shared}
    for endless in (many, shared):
        pipeline = core(receipts=receipts)
        finished = finish({key: endless, "clicks": 7}, pipeline=pipeline, mode=mode)
        left = msgspec.json.decode(finished.payloads[-1].properties)
        assert left["clicks"] == 7
        assert key not in left
        if receipts:
            assert finished.receipt is not None
            assert finished.receipt.lines[0].rule == "too_many_items"


def test_an_object_that_holds_itself_ends() -> None:
    posted: dict[str, Any] = {"n": 1}
    posted["self"] = posted
    assert kept(posted)["self"]["n"] == 1


@pytest.mark.parametrize(
    ("key", "left"),
    [
        ("  spaced  ", "spaced"),
        ("k" * 100, "k" * 80),
        ("a\u200bb", "ab"),
        ("two words", "two words"),
        ("", ...),
        (" \t", ...),
        ("\u200b", ...),
        ("$groups", ...),
        (" $set", ...),
        ("\u200b$set", ...),
        ("＄set", ...),
        ("﹩set", ...),
        ("__proto__", ...),
        ("constructor", ...),
        ("prototype", ...),
        ("distinct_id", ...),
        ("distinctId", ...),
        ("token", ...),
        ("api_key", ...),
        ("uuid", ...),
        ("timestamp", ...),
        ("Anonymized", ...),
        ("analytics_consent_version", ...),
        ("release_version", ...),
        ("release_package", ...),
        ("release_runtime", ...),
        ("cli_launcher_version", ...),
        ("cli_launcher_package", ...),
        ("second_mw", ...),
        ("auth_mode", ...),
        ("installation_mode", ...),
        ("user_id", ...),
        ("userEmail", ...),
        ("workspaceRole", ...),
        (5, ...),
    ],
)
def test_what_leaves_of_a_key(key: Any, left: Any) -> None:
    assert kept({key: 1}) == ({} if left is ... else {left: 1})


def test_reserved_keys_are_reserved_at_the_top_level_only() -> None:
    assert kept({"build": {"timestamp": 1, "uuid": "x"}}) == {
        "build": {"timestamp": 1, "uuid": "x"}
    }


def test_a_key_is_judged_whole_before_it_is_cut() -> None:
    assert kept({"x" * 90 + "_password": "hunter2"}) == {"x" * 80: "[redacted:secret]"}


def test_of_two_keys_that_are_one_when_trimmed_the_plainly_spelled_wins() -> None:
    assert kept({" a": 1, "a": 2}) == kept({"a": 2, " a": 1}) == {"a": 2}
    assert kept({" a": 1, "a ": 2}) == kept({"a ": 2, " a": 1}) == {"a": 1}


@pytest.mark.parametrize(
    "key", ["user_password", "client_secret", "password", "secret", "passwd", "access_key",
            "private_key", "authorization", "Cookie"],
)  # fmt: skip
def test_a_secret_by_its_key_leaves_in_no_mode(key: str) -> None:
    for value in ("hunter2", 12345, ["hunter2"], {"a": "hunter2"}):
        assert kept({key: value}) == {key: "[redacted:secret]"}
        assert kept({"nested": {key: value}}) == {"nested": {key: "[redacted:secret]"}}


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("my card is 4111 1111 1111 1111, ok", "my card is [redacted:card], ok"),
        ("DE89 3704 0044 0532 0130 00", "[redacted:iban]"),
        ("use sk-proj-abcdefghijklmnopqrstuvwxyz123456", "use [redacted:secret]"),
        ("phx_" + "a1" * 20, "[redacted:secret]"),
        (
            "https://u:p@x.example/a?token=1&utm_source=q#f",
            "https://x.example/a?utm_source=q",
        ),
    ],
)
def test_secrets_and_urls_are_cleaned_in_identified_mode_too(text: str, left: str) -> None:
    assert kept({"note": text}) == {"note": left}


PROSE = "The board shows every open order of the week, who works on it and what is late. " * 12


@pytest.mark.parametrize(
    ("secret", "is_gone"),
    [
        ("glpat-LWywhfP-MW3NSVmtGbSa", "MW3NSVmtGbSa"),
        ("GOCSPX-aBcDeFgH_iJkLmNoP-qRsTuVwXyZ", "qRsTuVwXyZ"),
        ("dckr_pat_aB-cDeFgHi_jKlMnOpQ-rStUvWx", "rStUvWx"),
        ("x.example#access_token=hunter2", "hunter2"),
        ("4111 1111 1111 1111", "1111 1111"),
        ("4111-1111.1111_1111", "1111_1111"),
        ("411 111 111 111 1111", "111 111"),
        ("NO93 8601 1117 947", "1117"),
        ("NO9 386 011 179 47, no", None),
        ("sk-abcd1234", None),
        ("in 1 or 2 weeks, 12 of 34 items, 5 6 7 8 9 days, 3 4 or 10 and 11 more", None),
    ],
)
def test_long_prose_is_quiet_only_without_a_secret(secret: str, is_gone: str | None) -> None:
    for text in (f"{PROSE}{secret} {PROSE}", f"{PROSE}\n{secret}", f"{secret}\t{PROSE}"):
        left = kept({"note": text})["note"]
        if is_gone is not None:
            assert is_gone not in left
        # Where the quick question is answered yes, the careful way has nothing to clean, either.
        assert left == text or not is_quiet(text)
        assert not is_quiet(text) or redact_secrets(text) == (text, ())


figures = st.lists(
    st.text("0123456789", max_size=4) | st.text("ab12", max_size=6) | st.sampled_from(" \n.-,("),
    max_size=30,
)


@given(figures, st.sampled_from([" ", "", "\n", "-"]))
@example(["12", "34", "56", "78", "90", "12"], " ")
@example(["12", "34", "56", "a", "78", "90", "12"], " ")
@example(["ab12", *["x1"] * 10], " ")
@example(["x", *["1 b"] * 50], " ")
def test_figures_are_as_small_as_their_digits_one_by_one(words: list[str], between: str) -> None:
    raw = between.join(words).encode()
    classes = raw.translate(secrets._CLASSES)
    digit_by_digit = secrets._are_small(raw, classes, secrets._places(classes))
    assert secrets._has_small_figures(raw, classes) == digit_by_digit


def test_a_route_is_normalised_in_identified_mode_too() -> None:
    assert kept({"route_shape": "/w/acme/settings/integrations/github"}) == {
        "route_shape": "/w/:workspace/settings/integrations/:integration"
    }
