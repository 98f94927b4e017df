"""Under real servers and process libraries: each process delivers its own, at its end too, and what
a predecessor left in a durable outbox leaves without waiting for an event or a request."""

from __future__ import annotations

import http.client
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from second_mw import Analytics, process
from second_mw.outbox.outbox import open_store
from tests.delivery.build import payloads
from tests.delivery.sink import Sink, black_hole
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
# These take minutes to build (uWSGI) or are no part of the test extra (granian): they are driven
# where they are installed, `pip install -r tests/delivery/requirements-servers.txt`.
UWSGI = str(Path(sys.executable).with_name("uwsgi"))
_UWSGI = (
    UWSGI, "--http-socket", "fd://{fd}", "--master", "--processes", "2", "--die-on-term",
    "--need-app", "--single-interpreter", "--disable-logging", "--worker-reload-mercy", "3600",
    # uWSGI looks for the app in the module's dictionary, where `process_app` has none.
    "--eval", "from tests.delivery.process_app import app as application",
)  # fmt: skip
_LAZY = ("--lazy-apps", "--processes", "1")
_GRANIAN = ("granian", "--port", "{port}", "--workers", "2", "--log-level", "error")
OPTIONAL = {
    "uwsgi": _UWSGI,
    # One worker: a second might still be loading its app when the test ends.
    "uwsgi lazy-apps": (*_UWSGI, *_LAZY),
    "uwsgi enable-threads": (*_UWSGI, "--enable-threads"),
    "uwsgi enable-threads lazy-apps": (*_UWSGI, "--enable-threads", *_LAZY),
    "granian wsgi": (*_GRANIAN, "--interface", "wsgi", APP),
    "granian asgi": (*_GRANIAN, "--interface", "asgi", ASYNC_APP),
}
ALL = {**SERVERS, **OPTIONAL}


def there(server: str) -> str:
    """Return the server, or skip where an optional one is not installed."""
    library = server.partition(" ")[0]
    found = Path(UWSGI).exists() if library == "uwsgi" else importlib.util.find_spec(library)
    if not found:
        pytest.skip(f"{library} is optional and not installed (requirements-servers.txt)")
    return server


#: On a loaded machine even the import of what sends can take seconds.
UNHURRIED = {"SECOND_ANALYTICS_SHUTDOWN_TIMEOUT": "60"}


@contextmanager
def serving(
    command: tuple[str, ...], heard: list[str] | None = None, /, **environ: str
) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """Run a server on a socket of ours; yield its port and its process, which a test may end.

    What it said to stderr is appended to `heard`.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        fd, port = listener.fileno(), int(listener.getsockname()[1])
        if "{port}" in command:
            # It opens its own, and nothing else is given this port so soon.
            listener.close()
        given = [part.replace("{fd}", str(fd)).replace("{port}", str(port)) for part in command]
        with subprocess.Popen(
            given if given[0] == UWSGI else [sys.executable, "-m", *given],
            cwd=ROOT,
            env={**os.environ, "SECOND_POSTHOG_TOKEN": "phc_test", **UNHURRIED, **environ},
            pass_fds=() if "{port}" in command else (fd,),
            stderr=subprocess.PIPE,
            text=True,
        ) as server:
            try:
                if "{port}" in command:
                    _until_it_listens(port)
                yield port, server
            finally:
                server.send_signal(signal.SIGTERM)
                _, said = server.communicate(timeout=60)
                if heard is not None:
                    heard.append(said)
                assert "Traceback" not in said, said


def post(port: int) -> str:
    """Post one event and return its uuid; waits for as long as the server takes to come up."""
    return posted(port)[0]


def posted(port: int) -> tuple[str, str]:
    """Post one event; return its uuid and the process that took it."""
    own = str(uuid.uuid4())
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    body = f'{{"event":"page viewed","uuid":"{own}"}}'
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/api/analytics/capture", body, headers)
    response = connection.getresponse()
    assert (response.status, response.read()) == (204, b"")
    connection.close()
    return own, response.headers["X-Process"]


def taken_by(port: int, server: str) -> dict[str, set[str]]:
    """Post some events; return which process took which.

    A worker of granian's that is told to end while it starts never does, so both must have answered
    before that. Each has a socket of its own, so the kernel spreads the connections.
    """
    taken: dict[str, set[str]] = {}
    for count in range(500):
        if count >= 6 and len(taken) >= (2 if server.startswith("granian") else 1):
            return taken
        own, by = posted(port)
        taken.setdefault(by, set()).add(own)
    raise AssertionError("the second worker never answers")


@needs_fork
@pytest.mark.parametrize("server", ALL)
def test_each_process_delivers_its_own_once_by_the_time_the_server_has_ended(
    server: str, sink: Sink
) -> None:
    with serving(ALL[there(server)], SECOND_POSTHOG_HOST=sink.url) as (port, _):
        taken = taken_by(port, server)
    # One request for each process that took events, with exactly those: it had one forwarder.
    sent = [request.uuids for request in sink.requests]
    assert sorted(map(sorted, sent)) == sorted(map(sorted, taken.values()))


@needs_fork
@pytest.mark.parametrize("server", ["uwsgi enable-threads", "granian wsgi", "granian asgi"])
def test_a_durable_outbox_is_emptied_while_the_server_runs_by_one_of_its_processes(
    server: str, sink: Sink, tmp_path: Path
) -> None:
    environ = {
        "SECOND_POSTHOG_HOST": sink.url,
        "SECOND_ANALYTICS_OUTBOX": f"sqlite:///{tmp_path / 'outbox.db'}",
        "INTERVAL": "0.2",
    }
    with serving(ALL[there(server)], **environ) as (port, _):
        taken = [own for each in taken_by(port, server).values() for own in each]
        sink.wait_for(lambda: len(sink.delivered) >= len(taken), timeout=60)
    assert sorted(sink.delivered) == sorted(taken)


@needs_fork
@pytest.mark.parametrize("server", ["uwsgi", "uwsgi enable-threads"])
def test_uwsgi_without_threads_is_named_as_the_reason_why_nothing_is_sent_in_time(
    server: str, sink: Sink
) -> None:
    said: list[str] = []
    with serving(ALL[there(server)], said, SECOND_POSTHOG_HOST=sink.url) as (port, _):
        post(port)
    assert ("add enable-threads" in said[0]) == (server == "uwsgi")


#: Nobody but the forwarder's own bound may end these waits.
PATIENT = {
    "gunicorn sync": (*SERVERS["gunicorn sync"], "--graceful-timeout", "3600"),
    "uvicorn workers": (*SERVERS["uvicorn workers"], "--timeout-graceful-shutdown", "3600"),
    "uwsgi enable-threads": OPTIONAL["uwsgi enable-threads"],
    "granian asgi": OPTIONAL["granian asgi"],
}


@needs_fork
@pytest.mark.parametrize("server", PATIENT)
def test_a_posthog_that_never_answers_does_not_hold_the_servers_exit(server: str) -> None:
    said: list[str] = []
    with black_hole() as url:
        environ = {"SECOND_POSTHOG_HOST": url, "SECOND_ANALYTICS_SHUTDOWN_TIMEOUT": "0.5"}
        # No read would end by itself while the test lasts.
        patient = {"SECOND_ANALYTICS_READ_TIMEOUT": "3600"}
        with serving(PATIENT[there(server)], said, **environ, **patient) as (port, _):
            taken_by(port, server)
    # uvicorn ends its own process by the signal again, so that there is no exit to report from.
    assert ("shutdown" in said[0]) == (server != "uvicorn workers")


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
    def listens() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            return False
        return True

    _until(listens)


def _until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(600):
        if condition():
            return
        pause.wait(0.1)
    raise AssertionError("not so after a minute")


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


def environ_for(url: str, **more: str) -> dict[str, str]:
    given = {"SECOND_POSTHOG_TOKEN": "phc_test", "SECOND_POSTHOG_HOST": url}
    return {**os.environ, "PYTHONPATH": str(ROOT), **UNHURRIED, **given, **more}


def outbox_at(kind: str, folder: Path) -> dict[str, str]:
    """Return the environment of a kind of outbox; from a file events leave while the work runs."""
    if kind == "memory":
        return {}
    return {"SECOND_ANALYTICS_OUTBOX": f"sqlite:///{folder / 'outbox.db'}", "INTERVAL": "0.2"}


OUTBOXES = pytest.mark.parametrize("outbox", ["memory", "sqlite"])


@needs_fork
@OUTBOXES
def test_each_of_celerys_prefork_children_delivers_what_its_tasks_captured(
    outbox: str, sink: Sink, tmp_path: Path
) -> None:
    for folder in ("queue", "queue-control"):
        (tmp_path / folder).mkdir()
    environ = environ_for(sink.url, QUEUE=str(tmp_path / "queue"), **outbox_at(outbox, tmp_path))
    files = [tmp_path / f"done-{n}" for n in range(8)]
    asked = f"from tests.delivery.celery_app import ask; ask(*{[str(each) for each in files]!r})"
    subprocess.run([sys.executable, "-c", asked], env=environ, check=True, timeout=100)
    command = (
        "celery -A tests.delivery.celery_app worker --pool prefork -c 2 -l error --without-mingle"
    )
    with subprocess.Popen(
        [sys.executable, "-m", *command.split(), "--without-gossip", "--without-heartbeat"],
        cwd=ROOT,
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as worker:
        _until(lambda: all(each.exists() and each.read_text() for each in files))
        if outbox == "sqlite":
            sink.wait_for(lambda: len(sink.delivered) >= 8, timeout=60)
        worker.send_signal(signal.SIGTERM)
        _, said = worker.communicate(timeout=60)
    assert "Traceback" not in said
    assert len(set(sink.delivered)) == len(sink.delivered) == 8
    if outbox == "memory":
        by: dict[str, int] = {}
        for each in files:
            by[each.read_text()] = by.get(each.read_text(), 0) + 1
        assert sorted(len(request.uuids) for request in sink.requests) == sorted(by.values())


def test_pytest_xdist_workers_each_deliver_their_own(sink: Sink, tmp_path: Path) -> None:
    pytest.importorskip("xdist", reason="pytest-xdist is in the test extra")
    (tmp_path / "test_it.py").write_text(
        textwrap.dedent(
            """
            import os, pathlib, pytest
            from tests.delivery.process_app import USER, made

            analytics = made()

            @pytest.mark.parametrize("number", range(6))
            def test_it(number, worker_id):
                assert analytics.capture(USER, "page viewed")
                pathlib.Path(os.environ["FOLDER"], f"{worker_id}-{number}").touch()
            """
        )
    )
    environ = environ_for(sink.url, FOLDER=str(tmp_path))
    command = "pytest -n 2 -p no:cacheprovider -p no:second_mw -p no:schemathesis -c /dev/null"
    done = subprocess.run(
        [sys.executable, "-m", *command.split(), "--rootdir", str(tmp_path), str(tmp_path)],
        env={name: value for name, value in environ.items() if name != "PYTEST_ADDOPTS"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout
    by = [len(list(tmp_path.glob(f"gw{n}-*"))) for n in range(2)]
    assert sorted(len(request.uuids) for request in sink.requests) == sorted(n for n in by if n)
    assert len(set(sink.delivered)) == len(sink.delivered) == 6


@pytest.mark.parametrize("interval", ["0.2", "3600"])
def test_a_session_that_is_typed_into_delivers_while_it_waits_and_when_it_ends(
    interval: str, sink: Sink
) -> None:
    # As a notebook's kernel: one long process, whose main thread waits for the next cell and
    # may run an event loop. (No kernel is installed; this is the interpreter's own prompt.)
    cells = """
        import asyncio
        from tests.delivery.process_app import USER, made
        analytics = made()
        async def cell(): return analytics.capture(USER, "page viewed")

        assert asyncio.run(cell())
    """
    with subprocess.Popen(
        [sys.executable, "-q", "-i"],
        env=environ_for(sink.url, INTERVAL=interval),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as session:
        assert session.stdin is not None
        session.stdin.write(textwrap.dedent(cells).lstrip())
        session.stdin.flush()
        if interval == "0.2":
            sink.wait_for(lambda: len(sink.delivered) == 1, timeout=60)
        said, _ = session.communicate("exit()\n", timeout=60)
    assert session.returncode == 0
    assert "Error" not in said
    assert len(sink.delivered) == 1


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


def test_a_host_that_was_closed_looks_for_nothing_any_more(tmp_path: Path, sink: Sink) -> None:
    before = set(threading.enumerate())
    durable = f"sqlite:///{tmp_path / 'outbox.db'}"
    analytics = Analytics(token="phc_test", host=sink.url, outbox=durable)
    analytics.wsgi(wsgi_host)
    (looking,) = {*threading.enumerate()} - before
    analytics.close(timeout=1.0)
    looking.join()
    assert {*threading.enumerate()} - before == set()


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
