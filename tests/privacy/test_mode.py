"""Which mode applies, and why: tables of cases, all of them failing closed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from msgspec.structs import astuple

from second_mw import AnalyticsUser, Choice
from second_mw.privacy import names
from second_mw.privacy.mode import STORE_FAILED, own_word, standing
from second_mw.settings import Settings

USER = AnalyticsUser("u_1")
IDENTIFY = Choice(anonymized=False)
YES = {"gpc": True, "dnt": False}
DNT = {"gpc": False, "dnt": True}
NO = {"gpc": False, "dnt": False}

#: user's fields, what the store says, signals, settings → mode, reason, shares
STANDINGS: list[tuple[dict[str, Any], Any, dict[str, bool], dict[str, Any], tuple[Any, ...]]] = [
    ({}, None, NO, {}, ("anonymized", "default", True)),
    ({}, Choice(), NO, {}, ("anonymized", "default", True)),
    ({}, IDENTIFY, NO, {}, ("identified", "user", True)),
    ({}, Choice(anonymized=True), NO, {}, ("anonymized", "user", True)),
    ({}, Choice(anonymized=0), NO, {}, ("anonymized", "user", True)),  # type: ignore[arg-type]
    ({}, STORE_FAILED, NO, {}, ("anonymized", "store_failed", True)),
    ({"anonymized": False}, STORE_FAILED, NO, {}, ("identified", "host", True)),
    ({"anonymized": False}, None, NO, {}, ("identified", "host", True)),
    ({"anonymized": True}, IDENTIFY, NO, {}, ("anonymized", "host", True)),
    ({"anonymized": 0}, None, NO, {}, ("anonymized", "host", True)),
    ({"anonymized": "no"}, None, NO, {}, ("anonymized", "host", True)),
    ({}, IDENTIFY, YES, {}, ("anonymized", "gpc", True)),
    ({"anonymized": False}, None, YES, {}, ("anonymized", "gpc", True)),
    ({}, IDENTIFY, YES, {"gpc": "ignore"}, ("identified", "user", True)),
    ({}, IDENTIFY, YES, {"gpc": "drop"}, ("anonymized", "gpc", False)),
    ({}, IDENTIFY, DNT, {}, ("identified", "user", True)),
    ({}, IDENTIFY, DNT, {"dnt": "anonymize"}, ("anonymized", "dnt", True)),
    ({}, IDENTIFY, DNT, {"dnt": "drop"}, ("anonymized", "dnt", False)),
    ({}, Choice(sharing=False), NO, {}, ("anonymized", "default", False)),
    ({"sharing": True}, Choice(sharing=False), NO, {}, ("anonymized", "default", True)),
    ({"sharing": False}, Choice(sharing=True), NO, {}, ("anonymized", "default", False)),
    ({"sharing": 1}, None, NO, {}, ("anonymized", "default", False)),
    ({}, None, NO, {"consent": "ask"}, ("anonymized", "default", False)),
    ({}, STORE_FAILED, NO, {"consent": "ask"}, ("anonymized", "store_failed", False)),
    ({}, Choice(sharing=True), NO, {"consent": "ask"}, ("anonymized", "default", True)),
    ({}, IDENTIFY, NO, {"token": None}, ("anonymized", "disabled", True)),
    ({"id": "anon_x", "anonymized": False}, None, NO, {}, ("anonymized", "host", True)),
    ({"id": "x" * 201, "anonymized": False}, None, NO, {}, ("anonymized", "host", True)),
    ({"id": " Undefined "}, IDENTIFY, NO, {}, ("anonymized", "host", True)),
]


@pytest.mark.parametrize(("user", "choice", "signals", "settings", "expected"), STANDINGS)
def test_a_users_standing(
    user: dict[str, Any],
    choice: Any,
    signals: dict[str, bool],
    settings: dict[str, Any],
    expected: tuple[Any, ...],
) -> None:
    loaded = Settings.load({"token": "phc_test", **settings})
    assert astuple(standing(loaded, replace(USER, **user), choice, **signals)) == expected


WORDS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {}, "neutral"),
    ({"anonymized": False}, {}, "identified"),
    ({}, {"anonymized": False}, "identified"),
    ({"anonymized": True}, {}, "anonymized"),
    ({}, {"anonymized": True}, "anonymized"),
    ({"anonymized": False}, {"anonymized": True}, "anonymized"),
    ({"anonymized": True}, {"anonymized": False}, "anonymized"),
    ({}, {"Anonymized": None}, "anonymized"),
    ({}, {"anonymized": 0}, "anonymized"),
    ({}, {"anonymized": "false"}, "anonymized"),
    ({}, {" anony\u200bmized2": 1}, "anonymized"),
    ({}, {"ANONYMIZED": False, "anonymized": False}, "identified"),
    ({}, {"nested": {"anonymized": True}}, "neutral"),
]


@pytest.mark.parametrize(("top", "properties", "word"), WORDS)
def test_an_events_own_word(top: dict[str, Any], properties: dict[str, Any], word: str) -> None:
    asking = [key for key in properties if names.asks_for_anonymity(key)]
    assert own_word(top, properties, asking) == word
