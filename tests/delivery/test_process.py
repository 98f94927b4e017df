"""The process's life: forks and exits, seen from outside in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import pytest

from tests.delivery.sink import Sink, black_hole

# Prepended to each script: a store with its forwarder, and a line of JSON as the result.
PRELUDE = """
import atexit, json, os, sys
from second_mw.forwarder.dispatcher import Forwarder
from second_mw.outbox.memory import MemoryStore
from second_mw.settings import Settings
from tests.delivery.build import payloads

host = sys.argv[1]
lost = []
store = MemoryStore()
forwarder = Forwarder(
    store,
    Settings.load({"token": "phc_test", "host": host, "flush_interval": 3600.0}),
    on_loss=lambda reason, count: lost.append((reason, count)),
)

def say(**what):
    print(json.dumps(what), flush=True)

def put(count, start=0):
    store.put(payloads(count, start=start))
    forwarder.start()
    forwarder.notify(count)
"""


def run(script: str, host: str) -> list[dict[str, Any]]:
    """Run a script to its end and return what it said."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PRELUDE + textwrap.dedent(script), host],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


Run = Callable[[str, str], list[dict[str, Any]]]

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

FORK = """
import warnings
warnings.filterwarnings("ignore", "This process", DeprecationWarning)

def in_child(work):
    pid = os.fork()
    if not pid:
        code = 1
        try:
            store.after_fork()
            forwarder.after_fork()
            work()
            code = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
"""


@needs_fork
def test_a_forked_child_delivers_its_own_events_and_none_of_its_parents(sink: Sink) -> None:
    said = run(
        FORK
        + textwrap.dedent("""
        put(3)

        def child():
            say(inherited=store.counts().waiting, forwarded=forwarder.stats()["forwarded"])
            put(2, start=10)
            say(child=forwarder.flush(20.0), counts=store.counts())

        in_child(child)
        say(parent=forwarder.flush(20.0), counts=store.counts()[:4])
        forwarder.close(20.0)
        """),
        sink.url,
    )
    assert said[0] == {"inherited": 0, "forwarded": 0}
    assert said[1] == {"child": [2, 0], "counts": [2, 2, 0, 0, 0, 0, 0.0]}
    assert said[2] == {"parent": [3, 0], "counts": [3, 3, 0, 0]}
    assert len(sink.delivered) == len(set(sink.delivered)) == 5


@needs_fork
def test_a_child_leaves_its_parents_connection_alone(sink: Sink) -> None:
    said = run(
        FORK
        + textwrap.dedent("""
        import gc
        put(1)
        forwarder.flush(20.0)
        transport = forwarder._shift.transports[0]
        pools = transport._session.get_adapter(host).poolmanager.pools

        def child():
            global forwarder
            put(1, start=10)
            forwarder.flush(20.0)
            forwarder.close(20.0)
            forwarder = None
            gc.collect()

        in_child(child)
        put(1, start=20)
        forwarder.flush(20.0)
        (pool,) = pools._container.values()
        say(connections=pool.num_connections, requests=pool.num_requests)
        forwarder.close(20.0)
        """),
        sink.url,
    )
    assert said == [{"connections": 1, "requests": 2}]
    assert len(sink.delivered) == 3


@needs_fork
def test_a_fork_in_the_middle_of_everything_deadlocks_nobody(sink: Sink) -> None:
    said = run(
        FORK
        + textwrap.dedent("""
        import threading
        stop = threading.Event()
        number = iter(range(1000, 10_000_000))

        def busy():
            while not stop.is_set():
                store.put(payloads(1, start=next(number)))
                forwarder.start()
                forwarder.notify()
                if store.counts().waiting > 500:
                    forwarder.flush(1.0)

        thread = threading.Thread(target=busy)
        thread.start()

        def child():
            put(1)
            say(child=forwarder.close(20.0))

        for _ in range(10):
            in_child(child)
        stop.set()
        thread.join()
        forwarder.close(20.0)
        counts = store.counts()
        say(kept=counts.accepted == counts.delivered + counts.waiting, waiting=counts.waiting)
        """),
        sink.url,
    )
    assert said[:-1] == [{"child": [1, 0]}] * 10
    assert said[-1] == {"kept": True, "waiting": 0}


@needs_fork
def test_a_fork_waits_for_the_end_of_an_import_that_a_child_could_never_end(sink: Sink) -> None:
    said = run(
        FORK
        + textwrap.dedent("""
        import threading
        from second_mw.forwarder import dispatcher
        begun, imported = threading.Event(), []

        def import_slowly():
            with dispatcher._importing:
                begun.set()
                threading.Event().wait(0.3)
                imported.append("requests")

        thread = threading.Thread(target=import_slowly)
        thread.start()
        begun.wait()
        in_child(lambda: (say(imported=imported), put(1), say(child=forwarder.close(20.0))))
        thread.join()
        """),
        sink.url,
    )
    assert said == [{"imported": ["requests"]}, {"child": [1, 0]}]


AT_EXIT = "atexit.register(lambda: say(closed=forwarder.close({timeout}), lost=lost))\n"


@pytest.mark.parametrize("start", ["put(5)", "store.put(payloads(5))"], ids=["running", "never"])
def test_events_put_just_before_the_exit_arrive(sink: Sink, start: str) -> None:
    said = run(AT_EXIT.format(timeout=20.0) + start, sink.url)
    assert said == [{"closed": [5, 0], "lost": []}]
    assert len(sink.delivered) == 5


def test_an_exit_that_still_delivers_leaves_no_connection_open(sink: Sink) -> None:
    # Sent before, so that urllib3's finalizers are over when the exit sends the rest.
    said = run(
        AT_EXIT.format(timeout=20.0) + "put(5)\nforwarder.flush(20.0)\nput(5, start=5)", sink.url
    )
    assert said == [{"closed": [5, 0], "lost": []}]
    assert len(sink.delivered) == 10


@pytest.mark.parametrize("start", ["put(5)", "store.put(payloads(5))"], ids=["running", "never"])
def test_an_exit_before_a_posthog_that_never_answers_ends_and_says_what_is_lost(
    start: str,
) -> None:
    with black_hole() as url:
        said = run(AT_EXIT.format(timeout=0.3) + start, url)
    assert said == [{"closed": [0, 5], "lost": [["shutdown", 5]]}]


SIGNALLED = (
    AT_EXIT.format(timeout=20.0)
    + """
import signal
from second_mw.errors import OutboxUnavailable

def handler(*_):
    say(handler=forwarder.close(20.0))
    sys.exit(0)

signal.signal(signal.SIGALRM, handler)
"""
)


def test_a_signal_handler_may_close_what_its_own_thread_is_using(sink: Sink) -> None:
    said = run(
        SIGNALLED
        + textwrap.dedent("""
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        for n in range(10**9):
            try:
                put(1, start=n)
            except OutboxUnavailable:
                # Faster than the sink: wait, and be interrupted there as well as in a put.
                forwarder.flush(1.0)
        """),
        sink.url,
    )
    handled, ended = said
    # Whatever the handler could not have settled, the exit that follows it has.
    assert sum(handled["handler"]) >= sum(ended["closed"])
    assert (ended["closed"][1], ended["lost"]) == (0, [])
    assert len(sink.delivered) == len(set(sink.delivered)) >= handled["handler"][0] > -1


def test_a_signal_handler_that_finds_its_thread_inside_the_store_leaves_closing_to_the_exit(
    sink: Sink,
) -> None:
    said = run(
        SIGNALLED
        + textwrap.dedent("""
        import threading, time
        put(3)

        def clock():
            # The store asks for the time with its lock held; so the signal comes right there.
            if threading.current_thread() is threading.main_thread():
                store._clock = time.monotonic
                signal.raise_signal(signal.SIGALRM)
            return time.monotonic()

        store._clock = clock
        put(1, start=3)
        """),
        sink.url,
    )
    assert said == [{"handler": [0, 3]}, {"closed": [3, 0], "lost": []}]
    assert len(sink.delivered) == 3


def test_requests_is_imported_with_the_first_batch_and_not_before(sink: Sink) -> None:
    said = run(
        """
        forwarder.start()
        before = "requests" in sys.modules
        put(1)
        forwarder.close(20.0)
        say(before=before, after="requests" in sys.modules)
        """,
        sink.url,
    )
    assert said == [{"before": False, "after": True}]
