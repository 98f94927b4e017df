"""AnalyticsUser: what it takes, and what it never shows."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from second_mw import AnalyticsUser
from second_mw.user import REFUSED_DISTINCT_IDS


@pytest.mark.parametrize(
    ("fields", "error", "said"),
    [
        ({"id": 5}, TypeError, "use str"),
        ({"id": None}, TypeError, "must be a string"),
        ({"id": ""}, ValueError, "must not be empty"),
        ({"id": "  "}, ValueError, "must not be empty"),
        ({"email": 5}, TypeError, "email"),
        ({"name": b"x"}, TypeError, "name"),
        ({"aliases": "bob"}, TypeError, "a sequence of strings"),
        ({"aliases": [5]}, TypeError, "a sequence of strings"),
        ({"workspaces": ["w"]}, TypeError, "must map"),
        ({"workspaces": {5: "admin"}}, TypeError, "must map"),
        ({"workspaces": {"w": 5}}, TypeError, "must map"),
        ({"workspaces": {"": "admin"}}, ValueError, "empty workspace id"),
    ],
)
def test_a_user_that_is_none_is_refused(
    fields: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        AnalyticsUser(**{"id": "u_1", **fields})


def test_a_user_is_frozen_whatever_it_was_made_from() -> None:
    workspaces = {"w_1": "admin"}
    user = AnalyticsUser("u_1", workspaces=workspaces, aliases=["bob"])  # type: ignore[arg-type]
    workspaces["w_2"] = "member"
    assert dict(user.workspaces or {}) == {"w_1": "admin"}
    assert user.aliases == ("bob",)
    with pytest.raises(AttributeError):
        user.id = "u_2"  # type: ignore[misc]


def test_equal_users_are_equal_and_hash_alike() -> None:
    one, two = (AnalyticsUser("u_1", workspaces={"w": None}) for _ in range(2))
    assert (one, hash(one)) == (two, hash(two))
    assert one != AnalyticsUser("u_1", workspaces={"w": "admin"})


@pytest.mark.parametrize("workspaces", [None, {}, {"w": "admin", "v": None}])
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda user: pickle.loads(pickle.dumps(user))])
def test_a_user_can_be_kept_in_a_session_or_a_cache(copied: Any, workspaces: Any) -> None:
    user = AnalyticsUser(
        "u_1", "ada@example.org", "Ada", False, False, True, workspaces, ("bob", "0042")
    )
    again = copied(user)
    assert again == user
    assert again.workspaces == workspaces


def test_a_user_printed_names_nobody() -> None:
    user = AnalyticsUser("u_1", email="ada@example.org", name="Ada")
    assert "ada" not in f"{user} {user!r}".lower()
    assert "u_1" not in repr(user)


@pytest.mark.parametrize("user_id", sorted(REFUSED_DISTINCT_IDS))
def test_an_id_that_posthog_refuses_can_not_be_identified(user_id: str) -> None:
    assert not AnalyticsUser(user_id).can_be_identified
    assert not AnalyticsUser(f" {user_id.upper()} ").can_be_identified


def test_the_list_of_refused_ids_is_posthogs() -> None:
    assert {
        "0", "00000000-0000-0000-0000-000000000000", "[object object]", "anonymous",
        "anonymous-user", "backend", "distinct_id", "distinctid", "email", "false", "guest", "id",
        "nan", "none", "not_authenticated", "null", "system", "true", "undefined", "user",
    } == REFUSED_DISTINCT_IDS  # fmt: skip


@pytest.mark.parametrize("user_id", ["anon_1", "ANON_1", "x" * 201])
def test_an_id_that_looks_anonymous_or_is_too_long_can_not_be_identified(user_id: str) -> None:
    assert not AnalyticsUser(user_id).can_be_identified


@pytest.mark.parametrize("user_id", ["u_1", "x" * 200, "anonymous_1", "users"])
def test_any_other_id_can(user_id: str) -> None:
    assert AnalyticsUser(user_id).can_be_identified
