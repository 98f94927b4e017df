"""How fast what waits gets out: a forwarder beside `requests` alone, near and far from PostHog.

The limit is what `requests` posts when it does nothing but gzip bodies of the same size at the same
level. A rate counts only with the delivered count beside it: dropping is cheap.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import requests

from second_mw.errors import OutboxUnavailable
from second_mw.forwarder.dispatcher import Forwarder
from second_mw.forwarder.exchange import _GZIP_LEVEL, Batch
from second_mw.forwarder.v0 import V0
from second_mw.outbox.base import Entry
from second_mw.outbox.memory import MemoryStore
from second_mw.outbox.outbox import open_store
from second_mw.payload import Payload
from second_mw.settings import Settings
from tests.benchmarks.table import Table, interleaved, ratios, spread

TITLE = "events a second that leave, beside what requests alone can post"

_ROOT = Path(__file__).parents[2]
_BATCH = 1000
#: A page view as it waits: page context, release metadata, library properties.
_PROPERTIES = {
    "surface": "workspace", "entity_type": "workspace", "language": "en",
    "auth_mode": "saml", "installation_mode": "self-hosted",
    "release_version": "2026.11.24", "release_package": "second", "release_runtime": "docker",
    "cli_launcher_version": None, "cli_launcher_package": None, "second_mw": "0.1.0",
    "$lib": "second-mw", "$lib_version": "0.1.0", "$geoip_disable": True, "$ip": "0.0.0.0",
}  # fmt: skip
_PAGES = ("workspace home", "app chat", "agents", "integrations", "settings", "library", "reviews")


def measure(short: bool) -> list[Table]:
    """Measure near (the limit), far (100 ms), and from a file with one and two processes."""
    return [_near(short), _far(short), _from_file(short)]


def _payloads(count: int) -> list[Payload]:
    """Return events as different from each other as those of a product's pages are."""
    rng = random.Random(1)
    payloads = []
    for n in range(count):
        properties = {
            **_PROPERTIES,
            "page": rng.choice(_PAGES),
            "route_shape": f"/workspace/:id/{rng.choice(_PAGES).replace(' ', '-')}/:id",
            "viewport_width": rng.randrange(360, 2560),
            "viewport_height": rng.randrange(600, 1440),
            "duration_ms": rng.randrange(100_000),
            "runtime_model": rng.choice(("claude-sonnet-4-5", "gpt-5-mini", "gemini-2.5-pro")),
        }
        payloads.append(
            Payload(
                rng.choice(("page viewed", "sidebar clicked", "build completed")),
                str(uuid.UUID(int=rng.getrandbits(128), version=4)),
                f"anon_{uuid.UUID(int=rng.getrandbits(128), version=4)}",
                f"2026-11-24T04:{n // 60_000 % 60:02d}:{n // 1000 % 60:02d}.{n % 1000:03d}Z",
                json.dumps(properties, separators=(",", ":")).encode(),
                {"process_person_profile": False},
            )
        )
    return payloads


@contextmanager
def _sink(delay: float = 0.0) -> Iterator[str]:
    """Yield the URL of a sink in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks._far_sink", str(delay)]
    with subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()


def _stats(url: str) -> dict[str, Any]:
    with urlopen(f"{url}/stats") as response:
        return dict(json.load(response))


def _settings(url: str, **fields: Any) -> Settings:
    return Settings.load({"token": "phc_bench", "host": url, **fields})


def _near(short: bool) -> Table:
    count, rounds = (2_000, 1) if short else (50_000, 9)
    payloads = _payloads(count)
    delivered: dict[str, int] = {}
    with _sink() as url, _one_core():

        def forwarder() -> float:
            store = MemoryStore(max_events=count)
            store.put(payloads)
            drains = Forwarder(store, _settings(url))
            began = time.process_time()
            flushed = drains.flush(120.0)
            took = time.process_time() - began
            drains.close(5.0)
            assert flushed.left == 0
            delivered["forwarder"] = _stats(url)["events"]
            return count / took

        bodies = _bodies(payloads)

        def requests_alone() -> float:
            session = requests.Session()
            began = time.process_time()
            for body in bodies:
                session.post(
                    f"{url}/batch/",
                    data=gzip.compress(body, _GZIP_LEVEL),
                    headers={"Content-Encoding": "gzip", "Content-Type": "application/json"},
                )
            took = time.process_time() - began
            session.close()
            delivered["requests_alone"] = _stats(url)["events"]
            return count / took

        figures = interleaved(rounds, requests_alone=requests_alone, forwarder=forwarder)
    share = ratios(
        [100 * figure for figure in figures["forwarder"]], figures["requests_alone"], " %"
    )
    return Table(
        ("sender", "events a second of processor time", "of the limit", "delivered"),
        [
            ("requests alone, same bodies", spread(figures["requests_alone"]), "100 %",
             f"{delivered['requests_alone']:,} of {count:,}"),
            ("forwarder, memory outbox", spread(figures["forwarder"]), share,
             f"{delivered['forwarder']:,} of {count:,}"),
        ],
        notes=[f"Batches of {_BATCH}, gzip level {_GZIP_LEVEL}, {len(bodies[0]) // _BATCH} bytes "
               "an event. Bar: 70 % of the limit. All threads together, on one core."],
        title="A backlog, a sink next door",
    )  # fmt: skip


@contextmanager
def _one_core() -> Iterator[None]:
    """Keep this thread, and those that it starts, on one core; its sink may have the others."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def _bodies(payloads: list[Payload]) -> list[bytes]:
    codec = V0("phc_bench", gzip=False, historical_migration=False)
    entries = [Entry(str(n), payload, 0, 0.0) for n, payload in enumerate(payloads)]
    return [
        codec.request(Batch.of(entries[at : at + _BATCH], 0.0), 1, 0.0).body
        for at in range(0, len(entries), _BATCH)
    ]


def _far(short: bool) -> Table:
    seconds, rate = (1.0, 12_000) if short else (10.0, 12_000)
    payloads = _payloads(int(seconds * rate))
    peers: dict[str, Callable[[str], tuple[Callable[[Payload], bool], Callable[[], None]]]] = {
        "forwarder, memory outbox": _ours
    }
    if find_spec("posthog"):
        peers["posthog-python"] = _posthog_python
    rows = []
    with _sink(0.1) as url:
        for name, peer in peers.items():
            take, end = peer(url)
            refused, took = _put_at(rate, payloads, take)
            end()
            seen = _stats(url)
            window = max(seen["last"] - seen["first"], 1e-9)
            rows.append(
                (name, len(payloads) / took, refused, f"{seen['events']:,} of {len(payloads):,}",
                 seen["events"] / window)
            )  # fmt: skip
    notes = [f"Put at {rate:,} events/s for {seconds:.0f} s. Bar: 10,000 events/s, none refused."]
    if "posthog-python" not in peers:
        notes.append("posthog-python is not installed (requirements-peers.txt).")
    return Table(
        ("before a sink that answers after 100 ms", "put/s", "refused", "delivered", "out/s"),
        rows,
        notes=notes,
        title="PostHog across an ocean",
    )


def _put_at(
    rate: int, payloads: list[Payload], take: Callable[[Payload], bool]
) -> tuple[int, float]:
    """Put at a steady rate; return how many were refused and how long it took."""
    refused, began, wait = 0, time.perf_counter(), threading.Event()
    for number, payload in enumerate(payloads):
        if number % 100 == 0 and (early := began + number / rate - time.perf_counter()) > 0:
            wait.wait(early)
        refused += not take(payload)
    return refused, time.perf_counter() - began


def _ours(url: str) -> tuple[Callable[[Payload], bool], Callable[[], None]]:
    store = MemoryStore()
    forwarder = Forwarder(store, _settings(url))

    def take(payload: Payload) -> bool:
        try:
            store.put((payload,))
        except OutboxUnavailable:
            return False
        forwarder.start()
        forwarder.notify(1)
        return True

    return take, lambda: (forwarder.flush(60.0), forwarder.close(5.0))  # type: ignore[return-value]


def _posthog_python(url: str) -> tuple[Callable[[Payload], bool], Callable[[], None]]:
    from posthog import Posthog  # type: ignore[import-not-found,unused-ignore]

    client = Posthog("phc_bench", host=url, gzip=True)

    def take(payload: Payload) -> bool:
        # Returns the uuid whether or not its queue had room, so nothing counts as refused.
        client.capture(payload.event, distinct_id=payload.distinct_id, properties=_PROPERTIES)
        return True

    return take, client.shutdown


def _from_file(short: bool) -> Table:
    # Between two moments there is a rate only if there are several requests.
    count, rounds = (5_000, 1) if short else (20_000, 3)
    payloads = _payloads(count)
    figures: dict[int, list[float]] = {1: [], 2: []}
    delivered = {1: 0, 2: 0}
    with _sink() as url:
        for _ in range(rounds):
            for processes in figures:
                seen = _drained_by(processes, payloads, url)
                delivered[processes] = seen["events"]
                assert seen["requests"] > 1
                figures[processes].append(seen["events"] / (seen["last"] - seen["first"]))
    return Table(
        ("`second-mw forward` over one sqlite:// file", "events/s", "delivered"),
        [
            (f"{n} process{'es' * (n > 1)}", spread(figures[n]), f"{delivered[n]:,} of {count:,}")
            for n in figures
        ],
        notes=["Between the sink's first and last request: without the processes' start."],
        title="From a file, by processes of their own",
    )


def _drained_by(processes: int, payloads: list[Payload], url: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        outbox = f"sqlite:///{folder}/outbox.db"
        store = open_store(outbox)
        for at in range(0, len(payloads), 500):
            store.put(payloads[at : at + 500])
        store.close()
        environ = {**os.environ, "SECOND_POSTHOG_TOKEN": "phc_bench", "SECOND_POSTHOG_HOST": url}
        command = [sys.executable, "-m", "second_mw", "forward", "--once", "--outbox", outbox]
        running = [
            subprocess.Popen(command, cwd=_ROOT, env=environ, stderr=subprocess.DEVNULL)
            for _ in range(processes)
        ]
        for process in running:
            process.wait()
        return _stats(url)
