"""Workspaces of others, in every disguise; roles and users that a property claims."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from second_mw import AnalyticsUser
from tests.abuse.drive import IDENTIFY, JSON, Attack, Told, check, event
from tests.hosts import ADA

POST = Told()
# Exists, with another user; the endpoint can't know, and must not seem to.
OTHERS = "w_payroll"
NOBODYS = "w_nowhere"


def foreign(name: str, value: Any, key: str = "workspace_id") -> Attack:
    told = replace(POST, parts=event(properties={key: value}))
    return Attack(name, told, 404, "workspace_not_found")


def own(name: str, value: Any, key: str = "workspace_id") -> Attack:
    return Attack(name, replace(POST, parts=event(properties={key: value})), 204)


ATTACKS = [
    foreign("another's", OTHERS),
    foreign("one that does not exist", NOBODYS),
    foreign("an empty one", ""),
    foreign("a number", 7),
    foreign("true", True),
    foreign("false", False),
    foreign("zero", 0),
    foreign("a list with the own", ["w_engine"]),
    foreign("a list with the own and another's", ["w_engine", OTHERS]),
    foreign("an object", {"id": "w_engine"}),
    foreign("an object keyed by the own", {"w_engine": True}),
    foreign("capitals", "W_ENGINE"),
    foreign("a space before it", " w_engine"),
    foreign("a space after it", "w_engine "),
    foreign("NUL after it", "w_engine\0"),
    foreign("a wildcard", "*"),
    foreign("a path", "w_engine/../" + OTHERS),
    foreign("a full-width letter", "ｗ_engine"),
    foreign("a Cyrillic letter", "w_еngine"),
    foreign("a zero-width character", "w_\u200bengine"),
    foreign("decomposed", "w_engin\u0065\u0301"),
    foreign("camel case", OTHERS, "workspaceId"),
    foreign("Pascal case", OTHERS, "WorkspaceID"),
    foreign("hyphens", OTHERS, "workspace-id"),
    foreign("spaces", OTHERS, "workspace id"),
    foreign("capitals in the key", OTHERS, "WORKSPACE_ID"),
    foreign("a full-width key", OTHERS, "ｗorkspace_id"),
    foreign("a zero-width character in the key", OTHERS, "work\u200bspace_id"),
    own("the own", "w_engine"),
    own("the own, in camel case", "w_looms", "workspaceId"),
    own("none", None),
]


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_a_workspace_is_the_users_own_or_not_found(attack, ask, make) -> None:
    check(attack, ask, make())


def test_of_two_spellings_neither_may_be_another_users(ask, make) -> None:
    analytics = make()
    for properties in (
        {"workspace_id": "w_engine", "workspaceId": OTHERS},
        {"workspaceId": OTHERS, "workspace_id": "w_engine"},
    ):
        reply = ask(analytics, replace(POST, parts=event(properties=properties)))
        assert reply.code == "workspace_not_found"
    assert analytics.stats()["accepted"] == 0


def test_the_answer_is_the_same_whether_a_workspace_exists_or_not(ask, make) -> None:
    """The resolver says which are the user's; nobody asks whether there are others."""
    analytics = make()
    answers = {
        (reply.status, reply.body, tuple(sorted(reply.headers.items())))
        for name in (OTHERS, NOBODYS, "", "W_ENGINE", "x" * 5000)
        for reply in [ask(analytics, replace(POST, parts=event(properties={"workspace_id": name})))]
    }
    assert len(answers) == 1


@pytest.mark.parametrize("value", [OTHERS, 7, ["w_engine"], {"id": "w_engine"}, "W_ENGINE"])
def test_identify_looks_as_closely(value: Any, ask, make) -> None:
    import json

    analytics = make()
    told = Told("POST", IDENTIFY, JSON, (json.dumps({"workspaceId": value}).encode(),))
    user = replace(ADA, anonymized=False)
    assert ask(analytics, told, lambda _: user).code == "workspace_not_found"
    assert analytics.stats()["accepted"] == 0


def test_a_user_without_workspaces_has_none_and_a_host_without_tenancy_asks_for_none(
    ask, make
) -> None:
    told = replace(POST, parts=event(properties={"workspace_id": "w_engine"}))
    nowhere = AnalyticsUser("u_1000", workspaces={})
    no_tenancy = AnalyticsUser("u_1000")
    assert ask(make(), told, lambda _: nowhere).status == 404
    assert ask(make(), told, lambda _: no_tenancy).status == 204


def test_role_and_person_come_from_the_server_whatever_the_event_claims(ask, make) -> None:
    analytics = make()
    claims = {
        "workspace_id": "w_looms",
        "workspace_role": "owner",
        "user_id": "u_victim",
        "user_email": "victim@example.org",
        "user_name": "Victor Victim",
        "distinct_id": "u_victim",
        "$set": {"email": "victim@example.org"},
        "$user_id": "u_victim",
        "token": "phc_stolen",
        "anonymized": False,
    }
    told = replace(POST, parts=event(properties=claims, distinct_id="u_victim", anonymized=False))
    user = replace(ADA, anonymized=False)
    assert ask(analytics, told, lambda _: user).status == 204
    identify, viewed = analytics.outbox.store.events
    assert (identify["event"], viewed["event"]) == ("$identify", "page viewed")
    for kept in (identify, viewed):
        assert kept["distinct_id"] == ADA.id
        assert "ictim" not in str(kept)
        assert "phc_stolen" not in str(kept)
    assert viewed["properties"]["workspace_role"] == "member"
    assert viewed["properties"]["user_email"] == ADA.email
    assert identify["properties"]["$set"]["workspace_role"] == "member"


def test_a_subject_of_another_user_is_refused_and_never_tells_whose_it_is(ask, make) -> None:
    analytics = make()
    mine = analytics.pipeline.user_key(ADA.id)[:4]
    bodies = set()
    for subject in ("0000", mine.upper() + "x", mine[:3], 7, [mine], {"s": mine}, True, ""):
        reply = ask(analytics, replace(POST, parts=event(subject=subject)))
        assert reply.code == "other_user"
        bodies.add(reply.body)
    assert len(bodies) == 1
    assert ask(analytics, replace(POST, parts=event(subject=mine))).status == 204
    assert analytics.stats()["accepted"] == 1
