"""A few threads ask stores that may hang: what comes back, what does not, and what that costs."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from second_mw.asking import Askers
from second_mw.errors import PreferencesUnavailable

Ask = Callable[..., Any]


@pytest.fixture(params=["waiting", "awaiting"])
def way(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Asks in one of the two ways: `way(askers, timeout, ask, *values)`."""
    if request.param == "waiting":
        return Askers.ask
    return lambda askers, *values: asyncio.run(askers.awaited(*values))


def raises(error: BaseException) -> None:
    raise error


def until(holds: Callable[[], bool]) -> None:
    """Wait for what other threads do."""
    for _ in range(3000):
        if holds():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it did not come to pass in 30 s")


def test_an_answer_comes_back_from_another_thread(way: Ask) -> None:
    name = way(Askers(), 30.0, lambda: threading.current_thread().name)
    assert name == "second_mw-store-1"


def test_what_is_raised_comes_back_too_and_ends_no_thread(way: Ask) -> None:
    askers = Askers(threads=1)
    for error in (LookupError("gone"), SystemExit()):
        with pytest.raises(type(error)):
            askers.ask(30.0, raises, error)
    assert way(askers, 30.0, str, 7) == "7"


def test_one_thread_is_enough_for_one_question_after_another(way: Ask) -> None:
    askers = Askers()
    assert way(askers, 30.0, str, 0) == "0"
    until(lambda: askers._idle == 1)
    assert way(askers, 30.0, lambda: threading.current_thread().name) == "second_mw-store-1"


def test_what_a_request_has_set_is_seen(way: Ask) -> None:
    word = contextvars.ContextVar("word", default="none")
    token = word.set("the request's")
    try:
        assert way(Askers(), 30.0, word.get) == "the request's"
    finally:
        word.reset(token)


def test_once_every_thread_hangs_nothing_is_asked_until_one_comes_back(way: Ask) -> None:
    askers, end, asked = Askers(threads=2), threading.Event(), []

    def hangs() -> None:
        asked.append(1)
        end.wait(60)

    try:
        for _ in range(2):
            with pytest.raises(Exception, match=r"^$"):
                way(askers, 0.05, hangs)
        until(lambda: len(asked) == 2)
        with pytest.raises(PreferencesUnavailable):
            way(askers, 30.0, hangs)
        assert len(asked) == 2
    finally:
        end.set()
    until(lambda: askers._kept == 0)
    assert way(askers, 30.0, str, 7) == "7"


def test_a_question_that_nobody_waits_for_any_more_is_not_asked(way: Ask) -> None:
    askers, end, asked = Askers(threads=1), threading.Event(), threading.Event()

    def hangs() -> None:
        asked.set()
        end.wait(60)

    first = threading.Thread(target=askers.ask, args=(60.0, hangs))
    first.start()
    try:
        assert asked.wait(30)
        late: list[int] = []
        with pytest.raises(Exception, match=r"^$"):
            way(askers, 0.01, late.append, 1)
    finally:
        end.set()
        first.join(30)
    assert way(askers, 30.0, str, 7) == "7"
    assert not late


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_has_threads_of_its_own() -> None:
    askers = Askers()
    askers.ask(30.0, str, 1)
    # As a fork leaves it: another process, without the threads.
    askers._pid = -1
    assert askers.ask(30.0, lambda: threading.current_thread().name) == "second_mw-store-1"
