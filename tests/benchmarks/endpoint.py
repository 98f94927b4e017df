"""POST capture under real servers, beside an endpoint that only reads the body, and posthog-python.

The bars: at least 50 % of the no-op's requests a second with an inline or an async resolver, every
accepted event delivered to a local sink; at least 4 times a route that calls posthog-python's
`capture`, at a lower p99; batches of 20: at least 8 times the events a second of single posts.
"""

from __future__ import annotations

import itertools
import json
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
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
        ports = {kind: _serve(stack, server, kind, sinks[kind].url) for kind in kinds}
        loads: dict[str, list[Load]] = {kind: [] for kind in kinds}
        accepted = dict.fromkeys(kinds, 0)

        def task(kind: str) -> Callable[[], float]:
            def run() -> float:
                done = load(ports[kind], _singles(ports[kind], count))
                accepted[kind] += done.good
                loads[kind].append(done)
                return done.rate

            return run

        batched: list[float] = []

        def batches() -> float:
            done = load(ports["inline"], _batches(ports["inline"], max(20, count // 20)))
            accepted["inline"] += done.good * 20
            batched.append(done.rate * 20)
            return done.rate * 20

        figures = interleaved(
            rounds, **{kind: task(kind) for kind in kinds}, **{"in batches of 20": batches}
        )
        rows: list[tuple[Any, ...]] = []
        for kind in kinds:
            delivered = None if kind == "no-op" else sinks[kind].wait_for(accepted[kind])
            p99 = spread([done.p99 * 1e3 for done in loads[kind][1:] or loads[kind]], " ms")
            rows.append(
                (
                    _NAMES[kind],
                    spread(figures[kind], "/s"),
                    ratios(figures[kind], figures["no-op"]),
                    ratios(figures[kind], figures["posthog"]) if "posthog" in kinds else None,
                    p99,
                    None if kind == "no-op" else f"{delivered:,} of {accepted[kind]:,}",
                )
            )
        rows.append(
            (
                "second_mw, in batches of 20: events",
                spread(figures["in batches of 20"], "/s"),
                None,
                None,
                None,
                ratios(figures["in batches of 20"], figures["inline"], "× single posts"),
            )
        )
    return Table(
        ("endpoint", "requests", "to no-op", "to posthog", "p99", "delivered"),
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


def _event() -> dict[str, Any]:
    return {"event": "page viewed", "uuid": str(uuid.uuid4()), "properties": _PROPERTIES}


def _singles(port: int, count: int) -> Iterator[bytes]:
    made = [
        post(port, json.dumps(_event()).encode(), next(_numbers)) for _ in range(count)
    ]  # made before the clock runs
    return iter(made)


def _batches(port: int, count: int) -> Iterator[bytes]:
    made = [
        post(port, json.dumps({"batch": [_event() for _ in range(20)]}).encode(), next(_numbers))
        for _ in range(count)
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
            time.sleep(0.1)


def _serve(stack: ExitStack, server: str, kind: str, sink: str) -> int:
    """Start a server; return its port once it answers."""
    if server == "uvicorn":
        command = [sys.executable, "-m", "tests.benchmarks._servers", "uvicorn", kind, sink]
        process = _started(stack, command)
        assert process.stdout is not None
        port = int(process.stdout.readline())
    else:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        app = f"tests.benchmarks._servers:wsgi_app({kind!r}, {sink!r})"
        _started(
            stack,
            [sys.executable, "-m", "gunicorn", "-w", "1", "-k", "gthread", "--threads", "4",
             "--keep-alive", "60", "--log-level", "critical", "-b", f"127.0.0.1:{port}", app],
        )  # fmt: skip
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return port
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"{server} does not answer")


def _started(stack: ExitStack, command: list[str]) -> subprocess.Popen[str]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    stack.callback(process.communicate)
    stack.callback(process.terminate)
    return process
