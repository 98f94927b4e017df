"""POST capture under real servers, beside an endpoint that only reads the body, and posthog-python.

The bars: at least 50 % of the no-op's requests a second with an inline or an async resolver, every
accepted event delivered to a local sink; at least 4 times a route that calls posthog-python's
`capture`, at a lower p99; batches of 20: at least 8 times the events a second of single posts.

Every clock runs until the last accepted event lies in the sink: both clients are told to flush at
the end of a round, so that neither waits for its interval. The load comes from a process of its
own over kept-alive connections; where it and the sink share the machine's processors with the
server, the requests a second say as much about them, and the server's own processor time a request
is the steady figure.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from tests.benchmarks._client import Load, load, post
from tests.benchmarks.table import Table, interleaved, ratios, spread

TITLE: Final = "POST capture under uvicorn and gunicorn"
_PROPERTIES: Final = {
    "surface": "workspace_home",
    "route_shape": "/w/:workspace",
    "viewport_width": 1440,
    "viewport_height": 900,
    "workspace_section": "available-apps",
}
_numbers = itertools.count()
#: One for each of the servers' users.
_ANONYMOUS: Final = [f"anon_{uuid.uuid4()}" for _ in range(2_000)]


def measure(short: bool) -> list[Table]:
    """Return one table for uvicorn, one for gunicorn."""
    return [
        _table("uvicorn", ["no-op", "inline", "async", "thread", "posthog"], short),
        _table("gunicorn", ["no-op", "inline", "posthog"], short),
    ]


def _table(server: str, kinds: list[str], short: bool) -> Table:
    notes = ["the bars: ≥ 50 % of the no-op (inline, async); ≥ 4 × posthog-python, lower p99"]
    if find_spec("posthog") is None:
        kinds = [kind for kind in kinds if kind != "posthog"]
        notes.append("posthog-python is not installed (requirements-peers.txt)")
    rounds, count = (1, 200) if short else (7, 4_000)
    with ExitStack() as stack:
        sinks = {kind: _Sink(stack) for kind in kinds}
        servers = {kind: _serve(stack, server, kind, sinks[kind].url) for kind in kinds}
        loads: dict[str, list[Load]] = {kind: [] for kind in kinds}
        accepted, delivered = dict.fromkeys(kinds, 0), dict.fromkeys(kinds, 0)

        spent: dict[str, list[float]] = {kind: [] for kind in [*kinds, "batches"]}

        def run(kind: str, name: str, requests: Iterator[bytes], events: int) -> float:
            """Return events a second, from the first request to the last delivery."""
            server = servers[kind]
            before, began = server.processor_time(), time.perf_counter()
            done = load(server.port, requests)
            accepted[kind] += done.good * events
            if kind != "no-op":
                server.flush()
                delivered[kind] = sinks[kind].wait_for(accepted[kind])
            took = time.perf_counter() - began
            spent[name].append((server.processor_time() - before) / done.good / events * 1e6)
            if name == kind:
                loads[kind].append(done)
            return done.good * events / took

        def task(kind: str) -> Callable[[], float]:
            return lambda: run(kind, kind, _singles(servers[kind].port, count), 1)

        def batches() -> float:
            requests = _batches(servers["inline"].port, max(20, count // 5))
            return run("inline", "batches", requests, 20)

        figures = interleaved(
            rounds, **{kind: task(kind) for kind in kinds}, **{"in batches of 20": batches}
        )
        rows: list[tuple[Any, ...]] = []
        # The first of each was a warm-up.
        cost = {name: each[1:] for name, each in spent.items()}
        for kind in kinds:
            rows.append(
                (
                    _NAMES[kind],
                    spread(figures[kind], "/s"),
                    ratios(figures[kind], figures["no-op"]),
                    ratios(figures[kind], figures["posthog"]) if "posthog" in kinds else None,
                    spread(cost[kind], " µs"),
                    ratios(cost["no-op"], cost[kind]),
                    spread([done.p99 * 1e3 for done in loads[kind][1:]], " ms"),
                    None if kind == "no-op" else f"{delivered[kind]:,} of {accepted[kind]:,}",
                )
            )
        rows.append(
            (
                "second_mw, in batches of 20: events",
                spread(figures["in batches of 20"], "/s"),
                None,
                None,
                spread(cost["batches"], " µs"),
                None,
                None,
                ratios(figures["in batches of 20"], figures["inline"], "× single posts"),
            )
        )
    return Table(
        (
            "endpoint",
            "requests",
            "to no-op",
            "to posthog",
            "processor time of the server, each",
            "no-op's to it",
            "p99",
            "delivered",
        ),
        rows,
        notes=notes,
        title=f"{server}, one process",
    )


_NAMES: Final = {
    "no-op": "reads the body, answers 204",
    "inline": "second_mw, a resolver that does not block",
    "async": "second_mw, an async resolver",
    "thread": "second_mw, a sync resolver in a thread",
    "posthog": "a route that calls posthog-python's capture",
}


def _event(user: int) -> dict[str, Any]:
    """Return an event as a browser posts it, each under an anonymous id of its own."""
    return {
        "event": "page viewed",
        "anonymousDistinctId": _ANONYMOUS[user % len(_ANONYMOUS)],
        "uuid": str(uuid.uuid4()),
        "timestamp": f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%S}.123Z",
        "properties": _PROPERTIES,
    }


def _singles(port: int, count: int) -> Iterator[bytes]:
    users = itertools.islice(_numbers, count)
    made = [post(port, json.dumps(_event(user)).encode(), user) for user in users]
    return iter(made)  # made before the clock runs


def _batches(port: int, count: int) -> Iterator[bytes]:
    users = itertools.islice(_numbers, count)
    made = [
        post(port, json.dumps({"batch": [_event(user) for _ in range(20)]}).encode(), user)
        for user in users
    ]
    return iter(made)


class _Sink:
    """A local PostHog in a process of its own."""

    def __init__(self, stack: ExitStack) -> None:
        process = _started(stack, [sys.executable, "-m", "tests.benchmarks._servers", "sink"])
        assert process.stdout is not None
        self.url = f"http://127.0.0.1:{int(process.stdout.readline())}"

    def wait_for(self, count: int) -> int:
        """Return how many events have arrived, once it is `count` or no more come."""
        last, since = -1, time.monotonic()
        while True:
            with urllib.request.urlopen(self.url, timeout=10) as answer:
                seen = int(answer.read())
            if seen != last:
                last, since = seen, time.monotonic()
            if seen >= count or time.monotonic() - since > 8:
                return seen
            time.sleep(0.005)


class Server:
    """A server in a process of its own, and in those that it forks."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.port = port
        self._pid = process.pid

    def flush(self) -> None:
        """Return once what waited is sent."""
        address = f"http://127.0.0.1:{self.port}/flush"
        with urllib.request.urlopen(urllib.request.Request(address, b""), timeout=60):
            pass

    def processor_time(self) -> float:
        """Return the seconds of processor time used so far."""
        ticks = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                # After the name, which may hold anything: state, parent, …, user and system time.
                fields = stat.read_text().rpartition(")")[2].split()
                if self._pid in (int(stat.parent.name), int(fields[1])):
                    ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


def _serve(stack: ExitStack, server: str, kind: str, sink: str) -> Server:
    """Start a server; return it once it answers."""
    if server == "uvicorn":
        command = [sys.executable, "-m", "tests.benchmarks._servers", "uvicorn", kind, sink]
        process = _started(stack, command)
        assert process.stdout is not None
        port = int(process.stdout.readline())
    else:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        app = f"tests.benchmarks._servers:wsgi_app({kind!r}, {sink!r})"
        process = _started(
            stack,
            [sys.executable, "-m", "gunicorn", "-w", "1", "-k", "gthread", "--threads", "4",
             "--keep-alive", "60", "--log-level", "critical", "-b", f"127.0.0.1:{port}", app],
        )  # fmt: skip
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return Server(process, port)
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"{server} does not answer")


def _started(stack: ExitStack, command: list[str]) -> subprocess.Popen[str]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    stack.callback(process.communicate)
    stack.callback(process.terminate)
    return process
