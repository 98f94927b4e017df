"""Counters by name: many threads add, a copy is returned, a forked child starts from zero."""

from __future__ import annotations

import threading

from second_mw.tally import Tally


def test_what_is_added_is_counted_by_name() -> None:
    tally = Tally()
    assert tally.counts() == {}
    tally.add("suppressed")
    tally.add("suppressed", 3)
    tally.add("privacy_gate")
    assert tally.counts() == {"suppressed": 4, "privacy_gate": 1}


def test_what_is_returned_is_a_copy() -> None:
    tally = Tally()
    tally.add("suppressed")
    tally.counts()["suppressed"] = 100
    assert tally.counts() == {"suppressed": 1}


def test_no_addition_is_lost_among_threads() -> None:
    tally = Tally()
    threads = [
        threading.Thread(target=lambda: [tally.add("rejected.invalid_event") for _ in range(2000)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tally.counts() == {"rejected.invalid_event": 8000}


def test_a_forked_child_starts_from_zero_with_a_lock_of_its_own() -> None:
    tally = Tally()
    tally.add("suppressed")
    with tally._lock:  # held by a thread that the child does not have
        tally.after_fork()
        tally.add("suppressed", 2)
    assert tally.counts() == {"suppressed": 2}
