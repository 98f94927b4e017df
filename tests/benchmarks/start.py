"""Starting up: what importing costs, and what a wrapped host holds in memory.

The bars: `import second_mw` within 1.6 times of `import msgspec` alone; at most 3 MB more resident
than the bare host before the first event; bounded under a million events of ten thousand users.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any, Final

from tests.benchmarks.table import Curve, Table, interleaved, ratios, spread

TITLE: Final = "start and memory"
_BYTECODE: Final = tempfile.TemporaryDirectory()

# `-S` would hide what a host pays; `-I` keeps the machine's own start-up files out of it.
_IMPORTS: Final = {
    "nothing": "pass",
    "msgspec": "import msgspec",
    "second_mw": "import second_mw",
    "Analytics": "from second_mw import Analytics",
}
_TIMED: Final = """
import sys, time
sys.path[:0] = [{here!r}]
began = time.process_time()
{code}
print(time.process_time() - began)
"""

_RESIDENT: Final = """
import os, sys
sys.path[:0] = [{here!r}]
{code}
with open("/proc/self/statm") as statm:
    print(int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6)
"""
_BARE: Final = """
from flask import Flask
import msgspec, json, logging, uuid, hmac, hashlib
app = Flask("x").wsgi_app
"""
_WRAPPED: Final = (
    _BARE
    + """
from second_mw import Analytics
app = Analytics(token="phc_x", host="http://127.0.0.1:9").wsgi(app)
"""
)

_MILLION: Final = """
import gc, io, json, os, sys
sys.path[:0] = [{here!r}]
from second_mw import Analytics, AnalyticsUser
from tests.benchmarks.start import Taken

analytics = Analytics(token="phc_x", host="http://127.0.0.1:9", outbox=Taken(), rate="600/minute")
user = None
app = analytics.wsgi(lambda *_: [], user=lambda _: user)
body = b'{{"event":"page viewed","properties":{{"surface":"workspace_home","viewport_width":900}}}}'
sent = {{"REQUEST_METHOD": "POST", "PATH_INFO": "/api/analytics/capture", "HTTP_HOST": "x",
        "SERVER_NAME": "x", "SERVER_PORT": "80", "wsgi.url_scheme": "http",
        "CONTENT_TYPE": "application/json", "CONTENT_LENGTH": str(len(body))}}
for i in range({events} + 1):
    user = AnalyticsUser(f"u_{{i % {users}}}", email=f"person{{i % {users}}}@example.org")
    app({{**sent, "wsgi.input": io.BytesIO(body)}}, lambda *_: None)
    if i % {step} == 0:
        with open("/proc/self/statm") as statm:
            held = int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
        print(json.dumps([i, held, analytics.outbox.store.taken]), flush=True)
"""


class Taken:
    """A store that counts what it is given and keeps none of it."""

    durable = False
    blocking = False
    key_of_user: Callable[[str], str] | None = None

    def __init__(self) -> None:
        self.taken = 0

    def put(self, payloads: Any) -> int:
        self.taken += len(payloads)
        return len(payloads)

    def lease(self, *args: Any) -> list[Any]:
        return []

    def next_ready_in(self) -> None:
        return None

    def counts(self) -> Any:
        from second_mw.outbox.base import Counts

        return Counts(self.taken, self.taken, 0, 0, 0, 0, 0.0)

    def ack(self, *args: Any) -> None: ...

    renew = release = bury = ack

    def after_fork(self) -> None: ...

    def close(self) -> None: ...


def measure(short: bool) -> list[Table]:
    """Return imports, idle memory, and memory over a million events."""
    return [_imports(3 if short else 15), _idle(2 if short else 7), _million(short)]


def _here() -> str:
    from pathlib import Path

    return str(Path(__file__).parents[2])


def _run(script: str, **values: Any) -> str:
    code = script.format(here=_here(), **values)
    # As installed packages are: their bytecode made before. Compiling would be what is measured.
    environ = {**os.environ, "PYTHONPYCACHEPREFIX": _BYTECODE.name}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ
    )
    return done.stdout


def _imports(rounds: int) -> Table:
    def task(code: str) -> Callable[[], float]:
        return lambda: float(_run(_TIMED, code=code))

    figures = interleaved(rounds, **{name: task(code) for name, code in _IMPORTS.items()})
    rows = [
        (name, spread([t * 1e3 for t in times], " ms"), ratios(times, figures["msgspec"]))
        for name, times in figures.items()
        if name != "nothing"
    ]
    return Table(
        ("import", "processor time", "to msgspec alone"),
        rows,
        notes=(
            "the bar: import second_mw within 1.6×; its names load when they are first used, which "
            "the last row shows",
        ),
        title="Import, in a fresh interpreter",
    )


def _idle(rounds: int) -> Table:
    figures = interleaved(
        rounds,
        bare=lambda: float(_run(_RESIDENT, code=_BARE)),
        wrapped=lambda: float(_run(_RESIDENT, code=_WRAPPED)),
    )
    more = [b - a for a, b in zip(figures["bare"], figures["wrapped"], strict=True)]
    rows = [
        ("a bare Flask app", spread(figures["bare"], " MB"), None),
        ("the same, wrapped", spread(figures["wrapped"], " MB"), spread(more, " MB")),
    ]
    return Table(
        ("host", "resident", "more"),
        rows,
        notes=("the bar: at most 3 MB more, before the first event",),
        title="Idle memory",
    )


def _million(short: bool) -> Table:
    events, users, step = (4_000, 400, 1_000) if short else (1_000_000, 10_000, 100_000)
    lines = _run(_MILLION, events=events, users=users, step=step).splitlines()
    points = [json.loads(line) for line in lines]
    rows = [(taken_at, taken, held) for taken_at, held, taken in points]
    return Table(
        ("requests", "events accepted", "resident MB"),
        rows,
        notes=(f"{users:,} users in turn, each event posted through the WSGI adapter",),
        curves=[
            Curve("resident", "events", "MB", [(sent, held) for sent, held, _ in points]),
        ],
        title="Memory over many events",
    )
