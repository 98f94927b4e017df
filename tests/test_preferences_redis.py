"""Choices in a real Redis: shared by hosts, and what follows when it is gone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from second_mw import Analytics, Choice, ConfigurationError, PreferencesUnavailable
from second_mw.preferences.opening import open_preferences
from second_mw.preferences.redis import RedisPreferences, from_url
from tests.delivery.redis_server import Server, patient, running
from tests.hosts import ADA, Wsgi
from tests.stores import redis_server

KEY, OTHER = "a" * 64, "b" * 64
pytestmark = pytest.mark.redis


@pytest.fixture
def server() -> Server:
    server = redis_server()
    server.flush()
    return server


@pytest.fixture
def store(server: Server) -> Iterator[RedisPreferences]:
    store = open_preferences(patient(server.url))
    assert isinstance(store, RedisPreferences)
    yield store
    store.close()


@pytest.mark.parametrize("sharing", [None, False, True])
@pytest.mark.parametrize("anonymized", [None, False, True])
def test_each_choice_is_read_as_it_was_made(
    sharing: bool | None, anonymized: bool | None, store: RedisPreferences, server: Server
) -> None:
    assert store.get(KEY) is None
    choice = Choice(sharing, anonymized)
    store.put(KEY, choice)
    with closing(from_url(patient(f"{server.url}?max=5&durability=best-effort"))) as other:
        assert other.get(KEY) == (None if choice == Choice() else choice)
        assert other.get(OTHER) is None
        other.put(KEY, Choice())
    assert store.get(KEY) is None
    with server.client() as client:
        assert list(client.scan_iter()) == []


@pytest.mark.parametrize("kept", [b"", b"0", b"01-", b"x1", b"0x", b"\xff\xff"])
def test_a_choice_that_can_not_be_read_is_no_choice_but_a_failure(
    kept: bytes, store: RedisPreferences, server: Server
) -> None:
    with server.client() as client:
        client.hset("{second_mw}:preferences", KEY, kept)
    with pytest.raises(PreferencesUnavailable):
        store.get(KEY)


def test_a_key_of_another_kind_is_a_failure(store: RedisPreferences, server: Server) -> None:
    with server.client() as client:
        client.set("{second_mw}:preferences", "x")
    for call in (lambda: store.get(KEY), lambda: store.put(KEY, Choice(False))):
        with pytest.raises(PreferencesUnavailable):
            call()


def test_a_closed_store_may_be_used_again(store: RedisPreferences) -> None:
    store.put(KEY, Choice(sharing=False))
    store.close()
    assert store.get(KEY) == Choice(sharing=False)
    store.close()
    store.close()


def test_all_processes_read_the_same(store: RedisPreferences) -> None:
    store.put(KEY, Choice(sharing=False))
    store.not_alone()
    assert store.shared
    assert store.get(KEY) == Choice(sharing=False)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_takes_a_connection_of_its_own(store: RedisPreferences) -> None:
    store.put(KEY, Choice(sharing=False))
    before = store._client
    store.after_fork()
    assert store.get(KEY) == Choice(sharing=False)
    assert store._client is not before
    assert before.ping()
    store.after_fork()
    for each in store._abandoned:
        each.close()


def test_a_url_that_can_not_be_used_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^X"):
        open_preferences("redis://h:port/0", setting="X")


def test_a_server_that_dies_and_comes_back_costs_no_choice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running(tmp_path) as server, closing(from_url(patient(server.url))) as store:
        store.put(KEY, Choice(anonymized=False))
        server.kill()
        for _ in range(3):
            with pytest.raises(PreferencesUnavailable):
                store.get(KEY)
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        server.start()
        assert store.get(KEY) == Choice(anonymized=False)


# What follows for a user


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Callable[[str], Analytics]]:
    """Makes hosts whose events stay in a file, and whose choices are where the test says."""
    made: list[Analytics] = []

    def host(preferences: str) -> Analytics:
        made.append(
            Analytics(
                token="phc_x", host="http://127.0.0.1:9", preferences=preferences, forward=False,
                outbox=f"sqlite:///{tmp_path / 'events.db'}",
            )
        )  # fmt: skip
        return made[-1]

    yield host
    for each in made:
        each.close(0.1)


def distinct_ids(analytics: Analytics) -> set[str]:
    """Return under whom what was put last waits."""
    found = {entry.payload.distinct_id for entry in analytics.outbox.store.peek(10)}
    analytics.outbox.store.purge()
    return found


def chosen(ask: Wsgi, choice: bytes) -> int:
    path = "/api/analytics/preferences"
    return ask("PUT", path, choice, content_type="application/json").status


def test_a_choice_made_on_one_host_is_followed_by_the_other(hosts, server: Server) -> None:
    here, there = hosts(patient(server.url)), hosts(patient(server.url))
    ask = Wsgi(here, lambda _: ADA)
    there.capture(ADA, "page viewed")
    assert ADA.id not in distinct_ids(there)
    assert chosen(ask, b'{"anonymized":false}') == 200
    there.outbox.store.purge()
    there.capture(ADA, "page viewed")
    assert distinct_ids(there) == {ADA.id}
    assert chosen(ask, b'{"sharing":false}') == 200
    assert there.capture(ADA, "page viewed").code == "suppressed"


def test_without_redis_users_are_anonymized_and_a_choice_is_refused(hosts, tmp_path: Path) -> None:
    folder = tmp_path / "redis"
    folder.mkdir()
    with running(folder) as server:
        here = hosts(patient(server.url))
        ask = Wsgi(here, lambda _: ADA)
        assert chosen(ask, b'{"anonymized":false}') == 200
        here.outbox.store.purge()
        server.kill()
        assert here.capture(ADA, "page viewed")
        assert ADA.id not in distinct_ids(here)
        assert chosen(ask, b'{"anonymized":false}') == 503
        told = ask("GET", "/api/analytics/preferences").json
        assert (told["effective"], told["reason"]) == ("anonymized", "store_failed")
        server.start()
        assert here.capture(ADA, "page viewed")
        assert ADA.id in distinct_ids(here)
