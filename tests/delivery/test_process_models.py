"""Under real servers and process libraries: each process delivers its own, at its end too, and what
a predecessor left in a durable outbox leaves without waiting for an event or a request."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from second_mw import Analytics, process
from second_mw.outbox.outbox import open_store
from tests.delivery.build import payloads
from tests.delivery.sink import Sink
from tests.hosts import wsgi_host

ROOT = Path(__file__).parents[2]
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

APP, ASYNC_APP = "tests.delivery.process_app:app", "tests.delivery.process_app:async_app"
GUNICORN = ("gunicorn", APP, "-b", "fd://{fd}", "-w", "2", "--log-level", "error")
UVICORN = ("uvicorn", ASYNC_APP, "--fd", "{fd}", "--log-level", "error")
SERVERS = {
    "gunicorn sync": (*GUNICORN, "-k", "sync"),
    "gunicorn gthread": (*GUNICORN, "-k", "gthread", "--threads", "2"),
    "gunicorn sync preload": (*GUNICORN, "-k", "sync", "--preload"),
    "gunicorn gthread preload": (*GUNICORN, "-k", "gthread", "--threads", "2", "--preload"),
    "uvicorn": UVICORN,
    "uvicorn workers": (*UVICORN, "--workers", "2"),
}


@contextmanager
def serving(
    command: tuple[str, ...], **environ: str
) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """Run a server on a socket of ours; yield its port and its process, which a test may end."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        fd = listener.fileno()
        with subprocess.Popen(
            [sys.executable, "-m", *(part.replace("{fd}", str(fd)) for part in command)],
            cwd=ROOT,
            env={**os.environ, "SECOND_POSTHOG_TOKEN": "phc_test", **environ},
            pass_fds=(fd,),
            stderr=subprocess.PIPE,
            text=True,
        ) as server:
            try:
                yield int(listener.getsockname()[1]), server
            finally:
                server.send_signal(signal.SIGTERM)
                _, said = server.communicate(timeout=60)
                assert "Traceback" not in said, said


def post(port: int) -> str:
    """Post one event and return its uuid; waits for as long as the server takes to come up."""
    own = str(uuid.uuid4())
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    body = f'{{"event":"page viewed","uuid":"{own}"}}'
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/api/analytics/capture", body, headers)
    response = connection.getresponse()
    assert (response.status, response.read()) == (204, b"")
    connection.close()
    return own


@needs_fork
@pytest.mark.parametrize("server", SERVERS)
def test_what_was_accepted_is_delivered_once_by_the_time_the_server_has_ended(
    server: str, sink: Sink
) -> None:
    with serving(SERVERS[server], SECOND_POSTHOG_HOST=sink.url) as (port, _):
        posted = [post(port) for _ in range(6)]
    assert sorted(sink.delivered) == sorted(posted)


@needs_fork
@pytest.mark.parametrize(
    "server", ["gunicorn sync", "gunicorn gthread preload", "uvicorn", "waitress"]
)
def test_what_a_predecessor_left_leaves_without_any_request(
    server: str, sink: Sink, tmp_path: Path
) -> None:
    outbox = f"sqlite:///{tmp_path / 'outbox.db'}"
    store = open_store(outbox)
    store.put(payloads(5))
    store.close()
    command = SERVERS.get(server, ("waitress", "--port", "0", "--host", "127.0.0.1", APP))
    environ = {
        "SECOND_POSTHOG_HOST": sink.url,
        "SECOND_ANALYTICS_OUTBOX": outbox,
        "INTERVAL": "0.2",
    }
    with serving(command, **environ):
        sink.wait_for(lambda: len(sink.delivered) == 5, timeout=60)
    assert sorted(sink.delivered) == sorted(item.uuid for item in payloads(5))


def test_a_server_that_sigterm_kills_loses_nothing_from_a_durable_outbox(
    sink: Sink, tmp_path: Path
) -> None:
    # waitress has no end on SIGTERM: no atexit, no flush. What was accepted is in the file.
    outbox = f"sqlite:///{tmp_path / 'outbox.db'}"
    environ = {"SECOND_POSTHOG_HOST": sink.url, "SECOND_ANALYTICS_OUTBOX": outbox}
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    command = ("waitress", "--port", str(port), "--host", "127.0.0.1", APP)
    with serving(command, **environ):
        _until_it_listens(port)
        own = post(port)
    assert sink.delivered == []
    with serving(command, **environ, INTERVAL="0.2"):
        sink.wait_for(lambda: sink.delivered == [own], timeout=60)


def _until_it_listens(port: int) -> None:
    pause = threading.Event()
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            pause.wait(0.1)
        else:
            return
    raise AssertionError("it does not listen")


# Children

_CONTEXT = "import multiprocessing; Process = multiprocessing.get_context({!r}).Process"
CHILDREN = {
    "multiprocessing fork": _CONTEXT.format("fork"),
    "multiprocessing spawn": _CONTEXT.format("spawn"),
    "multiprocessing forkserver": _CONTEXT.format("forkserver"),
    "billiard, as Celery's prefork": "from billiard import Process",
}


@needs_fork
@pytest.mark.parametrize("kind", CHILDREN)
def test_a_child_that_runs_no_atexit_delivers_what_it_captured(
    kind: str, sink: Sink, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import warnings
            warnings.simplefilter("ignore", DeprecationWarning)
            {CHILDREN[kind]}
            from tests.delivery.process_app import USER, capture_in_child, made

            if __name__ == "__main__":
                analytics = made()
                assert analytics.capture(USER, "page viewed")
                child = Process(target=capture_in_child)
                child.start()
                child.join()
                assert child.exitcode == 0
                assert analytics.stats()["waiting"] == 1
            """
        )
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "SECOND_POSTHOG_TOKEN": "phc_test",
            "SECOND_POSTHOG_HOST": sink.url,
        },
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (0, "")
    # The child's own, delivered by the child; the parent's, by the parent at its exit.
    assert len(sink.requests) == 2
    assert len(set(sink.delivered)) == len(sink.delivered) == 2


@needs_fork
def test_an_event_before_the_fork_is_the_parents_in_an_inherited_analytics_too(
    sink: Sink, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import multiprocessing, warnings
            warnings.simplefilter("ignore", DeprecationWarning)
            from tests.delivery.process_app import USER, made

            analytics = made()

            def work():
                assert analytics.stats()["waiting"] == 0
                assert analytics.capture(USER, "page viewed")

            assert analytics.capture(USER, "page viewed")
            children = [multiprocessing.get_context("fork").Process(target=work) for _ in range(3)]
            for child in children:
                child.start()
            for child in children:
                child.join()
                assert child.exitcode == 0
            """
        )
    )
    environ = {"SECOND_POSTHOG_TOKEN": "phc_test", "SECOND_POSTHOG_HOST": sink.url}
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(set(sink.delivered)) == len(sink.delivered) == 4


# Without a server


def _looking() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name == "second_mw-soon"]


def test_only_a_wrapped_host_with_a_durable_outbox_looks_for_a_predecessors_events(
    tmp_path: Path, sink: Sink
) -> None:
    given = {"token": "phc_test", "host": sink.url}
    durable = f"sqlite:///{tmp_path / 'outbox.db'}"
    in_memory = Analytics(**given)
    in_memory.wsgi(wsgi_host)
    alone = Analytics(**given, outbox=durable)
    leaves_it = Analytics(**given, outbox=durable, forward=False)
    leaves_it.wsgi(wsgi_host)
    assert _looking() == []
    wrapped = Analytics(**given, outbox=durable)
    wrapped.wsgi(wsgi_host)
    wrapped.asgi(lambda *_: None)  # type: ignore[arg-type, return-value]
    assert _looking() == ["second_mw-soon"]
    # A process that forks leaves it to its children.
    wrapped.before_fork()
    assert _looking() == []
    for analytics in (in_memory, alone, leaves_it, wrapped):
        analytics.close(timeout=1.0)


def test_forwarding_off_before_a_memory_outbox_is_a_mistake_that_is_explained() -> None:
    from second_mw import ConfigurationError

    with pytest.raises(ConfigurationError, match="SECOND_ANALYTICS_OUTBOX"):
        Analytics(token="phc_test", forward=False)


class Ending:
    """Something that lives, and writes down how long it was given."""

    exit_timeout = 5.0

    def __init__(self) -> None:
        self.given: list[float] = []

    def before_fork(self) -> None: ...

    def after_fork(self) -> None: ...

    def at_exit(self, timeout: float) -> None:
        self.given.append(timeout)


def test_all_that_end_share_one_bound_and_both_ways_of_ending_share_it_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr(process.time, "monotonic", lambda: now[0])
    monkeypatch.setitem(process._state, "exit_began", None)
    one = Ending()
    monkeypatch.setattr(process, "_living", {one})
    process._at_exit()
    now[0] += 2.0
    process._at_exit()
    now[0] += 9.0
    process._at_exit()
    assert one.given == [5.0, 3.0, 0.0]


def test_each_process_is_watched_once_by_whichever_process_library_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registered: list[Any] = []

    class Library:
        @staticmethod
        def Finalize(thing: object, work: Any, exitpriority: int) -> None:
            registered.append((thing, work, exitpriority))

    monkeypatch.setitem(process._state, "watched", None)
    monkeypatch.setitem(sys.modules, "multiprocessing.util", Library)  # type: ignore[arg-type]
    monkeypatch.delitem(sys.modules, "billiard.util", raising=False)
    process.watch_child_exit()
    process.watch_child_exit()
    assert registered == [(None, process._at_exit, 0)]


def test_what_lives_hears_of_a_fork_before_it_and_in_the_child(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard: list[str] = []

    class Hearing(Ending):
        def before_fork(self) -> None:
            heard.append("before")

        def after_fork(self) -> None:
            heard.append("after")

    monkeypatch.setitem(process._state, "exit_began", 5.0)
    monkeypatch.setattr(process, "_living", {Hearing()})
    process._before_fork()
    process._after_fork()
    assert heard == ["before", "after"]
    # A child's own exit has all its time, whenever its parent's began.
    assert process._state["exit_began"] is None


def test_where_no_thread_can_be_started_nothing_is_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def start(self: threading.Timer) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(process.Timer, "start", start)
    assert process.soon(0.0, lambda: None) is None
