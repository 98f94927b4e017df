"""Whatever dies, whenever: what was answered 2xx is stored once, or lies in the dead letters.

Real web servers (gunicorn with forked workers, uvicorn with spawned ones) and forwarders of their
own, over one durable outbox, before a PostHog in every mood; a killer takes one process every few
hundred milliseconds with kill -9. `--chaos-minutes N` goes on for as long as you like.
"""

from __future__ import annotations

import http.client
import importlib.util
import json
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from second_mw.outbox.base import Store
from second_mw.outbox.outbox import open_store
from tests.delivery import redis_server
from tests.delivery.sink import Recorded, Reply, Sink, Wire, results, running

SEED = 20261124
CLIENTS = 4
#: Posts of each client, and events of each post at most.
POSTS, EVENTS = 30, 50
KILL_EVERY = 0.4
#: So often at least; the load goes on until then, however fast the machine is.
TURNS = 30
#: Kind → how often one of it is killed; a forked worker is back at once, a started process later.
KILLS = {"gunicorn worker": 14, "uvicorn": 1, "forwarder": 4}
#: One event in so many is one that PostHog refuses.
POISON = 150
logger = logging.getLogger("chaos")
ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here"),
    pytest.mark.timeout(0),
]

Quad = tuple[str, str, str, str]
Start = Callable[[], "subprocess.Popen[bytes]"]


# The outbox's engines


class Engine(NamedTuple):
    """Where the outbox is kept, and how what keeps it is shaken."""

    url: str
    shake: Callable[[], None]


@contextmanager
def sqlite_engine(folder: Path) -> Iterator[Engine]:
    """Yield a file; killing its writers is all that can happen to it."""
    yield Engine(f"sqlite:///{folder / 'outbox.db'}", lambda: None)


@contextmanager
def redis_engine(folder: Path) -> Iterator[Engine]:
    """Yield a real redis-server that writes each command to disk; shaken, it is killed, too."""
    with redis_server.running(folder) as server:

        def shake() -> None:
            server.kill()
            server.begin()

        yield Engine(server.url, shake)


# PostHog in every mood


class Moody:
    """Stores events, or says that it does not, or does the one and says the other."""

    def __init__(self, sink: Sink, rng: random.Random) -> None:
        self.stored: Counter[Quad] = Counter()
        self.refused: set[str] = set()
        self.moods: Counter[str] = Counter()
        self.calm = threading.Event()
        self._lock = threading.Lock()
        self._rng = rng
        sink.answer = self.answer

    def answer(self, request: Recorded) -> Reply | Wire:
        batch = request.batch
        with self._lock:
            mood = "good" if self.calm.is_set() else self._mood()
            if mood != "good" and len(batch) > 60:
                mood = "too large"
            if mood in ("good", "partial") and any(_is_poison(event) for event in batch):
                mood = "refuses"
                self.refused.update(event["uuid"] for event in batch if _is_poison(event))
            kept = [event for event in batch if mood != "partial" or self._rng.random() < 0.5]
            if mood in ("good", "partial", "stores and closes", "stores and says half"):
                kept = [event for event in kept if not _is_poison(event)]
                self.stored.update(_quad(event) for event in kept)
            self.moods[mood] += 1
        return self._reply(mood, request, {event["uuid"] for event in kept})

    def _mood(self) -> str:
        # The test has seconds where an outage has minutes: good is the most frequent mood.
        moods = {
            "good": 12,
            "partial": 3,
            "500": 2,
            "503": 2,
            "429": 1,
            "hangs": 1,
            "half": 2,
            "closes": 2,
            "stores and closes": 3,
            "stores and says half": 3,
        }
        return self._rng.choices(list(moods), list(moods.values()))[0]

    def _reply(self, mood: str, request: Recorded, kept: set[str]) -> Reply | Wire:
        half = b'HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{"status":1'
        match mood:
            case "good" | "partial":
                if request.path.startswith("/i/v1/"):
                    words = {one: "ok" if one in kept else "retry" for one in request.uuids}
                    return _as_reply(results(words)(request))
                return Reply(200, b'{"status":1}') if mood == "good" else Reply(503)
            case "refuses":
                return Reply(400, b'{"error":"invalid"}')
            case "too large":
                return Reply(413)
            case "429":
                return Reply(429, b"{}", (("Retry-After", "1"),))
            case "hangs":
                time.sleep(1.5)
                return Wire(b"")
            case "half" | "stores and says half":
                return Wire(half)
            case "closes" | "stores and closes":
                return Wire(b"")
            case _:
                return Reply(int(mood))


def _as_reply(reply: Reply | Wire) -> Reply:
    assert isinstance(reply, Reply)
    return reply


def _is_poison(event: dict[str, Any]) -> bool:
    return int(event["uuid"][-4:], 16) % POISON == 0


def _quad(event: dict[str, Any]) -> Quad:
    return event["uuid"], event["event"], event["timestamp"], event["distinct_id"]


# The load


class Load:
    """Browsers: they post, and post again what nobody answered for."""

    def __init__(self, ports: list[int], until: float) -> None:
        self.may_end = threading.Event()
        self.posted: set[str] = set()
        self.answered: set[str] = set()
        self.statuses: Counter[str] = Counter()
        self._until = until
        self._ports = ports
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._client, args=(n,)) for n in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    @property
    def over(self) -> bool:
        return not any(thread.is_alive() for thread in self._threads)

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _client(self, number: int) -> None:
        rng = random.Random(f"{SEED} {number}")
        pause = threading.Event()
        done = 0
        while done < POSTS or not self.may_end.is_set() or time.monotonic() < self._until:
            done += 1
            events = [self._event(rng) for _ in range(rng.randint(1, EVENTS))]
            with self._lock:
                self.posted.update(event["uuid"] for event in events)
            for _ in range(3):
                if self._post(*rng.choices(self._ports, (4, 1)), f"user-{number}", events):
                    break
                pause.wait(0.2)
            pause.wait(rng.random() * 0.4)

    def _event(self, rng: random.Random) -> dict[str, Any]:
        own = uuid.UUID(int=rng.getrandbits(128), version=4)
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{rng.randrange(1000):03d}Z"
        properties = {"workspace_count": rng.randrange(99), "route_shape": "/app/:id"}
        return {
            "event": "page viewed",
            "uuid": str(own),
            "timestamp": stamp,
            "properties": properties,
        }

    def _post(self, port: int, who: str, events: list[dict[str, Any]]) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request(
                "POST",
                "/api/analytics/capture",
                json.dumps({"batch": events}),
                {"Content-Type": "application/json", "X-User": who},
            )
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            self.statuses[type(error).__name__] += 1
            return False
        finally:
            connection.close()
        self.statuses[str(response.status)] += 1
        if response.status != 200:
            return False
        with self._lock:
            for one, result in json.loads(body)["results"].items():
                assert result["status"] == "accepted", result
                self.answered.add(one)
        return True


# Processes


class Crowd:
    """The processes that are killed. gunicorn replaces its workers, what has no master of its own
    (uvicorn, forwarders) is replaced here."""

    def __init__(self, environ: dict[str, str], folder: Path) -> None:
        self._environ = environ
        self._log = (folder / "stderr.txt").open("wb")
        self._sockets: list[socket.socket] = []
        self._masters: list[subprocess.Popen[bytes]] = []
        self._replaced: dict[str, list[tuple[subprocess.Popen[bytes], Start]]] = {}
        self.kills: Counter[str] = Counter()

    def listen(self) -> tuple[int, int]:
        """Return the descriptor and the port of a socket that outlives every server."""
        listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._sockets.append(listener)
        return listener.fileno(), int(listener.getsockname()[1])

    def lead(self, *command: str, fd: int) -> None:
        """Start a server that replaces its workers itself."""
        self._masters.append(self._started(command, fd))

    def keep(self, kind: str, *command: str, fd: int | None = None) -> None:
        """Start a process that is replaced when it was killed."""
        start = lambda: self._started(command, fd)  # noqa: E731
        self._replaced.setdefault(kind, []).append((start(), start))

    def _started(self, command: tuple[str, ...], fd: int | None) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", *(part.replace("{fd}", str(fd)) for part in command)],
            cwd=ROOT,
            env=self._environ,
            pass_fds=() if fd is None else (fd,),
            stdout=self._log,
            stderr=self._log,
        )

    def kill_one(self, rng: random.Random) -> None:
        """Kill -9 one process, of a kind that its weight gives."""
        (kind,) = rng.choices(list(KILLS), list(KILLS.values()))
        if kind in self._replaced:
            # One that has come up: on a slow machine there would else be none that ever does.
            some = [one for one in self._replaced[kind] if self._is_up(one[0])]
            if not some:
                return
            victim, start = rng.choice(some)
            victim.kill()
            victim.wait()
            self._replaced[kind].remove((victim, start))
            self._replaced[kind].append((start(), start))
        elif workers := [pid for master in self._masters for pid in _children(master.pid)]:
            try:
                os.kill(rng.choice(workers), signal.SIGKILL)
            except ProcessLookupError:
                return
        self.kills[kind] += 1

    def _is_up(self, process: subprocess.Popen[bytes]) -> bool:
        return (Path(self._environ["CHAOS_UP"]) / str(process.pid)).exists()

    def end(self) -> None:
        """End them in peace."""
        replaced = [process for some in self._replaced.values() for process, _ in some]
        for process in (*self._masters, *replaced):
            process.terminate()
        for process in (*self._masters, *replaced):
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for listener in self._sockets:
            listener.close()
        self._log.close()


def _children(pid: int) -> list[int]:
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _until(condition: Callable[[], bool], timeout: float = 120.0) -> None:
    tick, end = threading.Event(), time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "not so in time"
        tick.wait(0.05)


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


# The test

GUNICORN = (
    *("gunicorn", "tests.delivery.chaos_parts:app", "--preload", "-k", "gthread"),
    *("-w", "3", "--threads", "4", "-b", "fd://{fd}", "--log-level", "error"),
)
UVICORN = (
    *("uvicorn", "tests.delivery.chaos_parts:async_app", "--fd", "{fd}"),
    *("--log-level", "error"),
)
FORWARDER = ("tests.delivery.chaos_parts",)
ENGINES = {"sqlite": sqlite_engine, "redis": redis_engine}
CASES = [pytest.param("sqlite", "v0", id="sqlite-v0"), pytest.param("sqlite", "v1", id="sqlite-v1")]
if importlib.util.find_spec("second_mw.outbox.redis"):
    CASES[1] = pytest.param("redis", "v1", id="redis-v1", marks=pytest.mark.redis)


@pytest.mark.parametrize(("engine", "protocol"), CASES)
def test_what_was_answered_2xx_is_stored_once_or_dead_whatever_dies(
    engine: str, protocol: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    minutes = float(request.config.getoption("--chaos-minutes"))
    with ExitStack() as stack:
        sink = stack.enter_context(running())
        posthog = Moody(sink, random.Random(SEED))
        kept = stack.enter_context(ENGINES[engine](tmp_path))
        crowd = Crowd(_environ(kept.url, sink.url, protocol, tmp_path), tmp_path)
        stack.callback(crowd.end)
        (wsgi, one), (asgi, other) = crowd.listen(), crowd.listen()
        crowd.lead(*GUNICORN, fd=wsgi)
        crowd.keep("uvicorn", *UVICORN, fd=asgi)
        for _ in range(2):
            crowd.keep("forwarder", *FORWARDER)
        ports = [one, other]
        for port in ports:
            _until(lambda port=port: _answers(port))

        load = Load(ports, time.monotonic() + 60.0 * minutes)
        _kill_while(load, crowd, kept)
        posthog.calm.set()

        store = open_store(kept.url)
        stack.callback(store.close)
        _until(lambda: _drained(store))
        crowd.end()
        _judge(load, posthog, crowd, store)


def _environ(outbox: str, host: str, protocol: str, folder: Path) -> dict[str, str]:
    (folder / "up").mkdir()
    return {
        **os.environ,
        "SECOND_POSTHOG_TOKEN": "phc_test",
        "SECOND_POSTHOG_HOST": host,
        "SECOND_POSTHOG_PROTOCOL": protocol,
        "SECOND_ANALYTICS_OUTBOX": outbox,
        "CHAOS_UP": str(folder / "up"),
        "SECOND_ANALYTICS_SECRET": "one secret for every process",
    }


def _kill_while(load: Load, crowd: Crowd, kept: Engine) -> None:
    rng, pause, turn = random.Random(SEED + 1), threading.Event(), 0
    while not load.over:
        pause.wait(KILL_EVERY * (0.5 + rng.random()))
        crowd.kill_one(rng)
        turn += 1
        if turn % 15 == 0:
            kept.shake()
        if turn == TURNS:
            load.may_end.set()
    load.join()


def _drained(store: Store) -> bool:
    try:
        return store.counts().waiting == 0
    except Exception:  # the engine may just be starting again
        return False


def _judge(load: Load, posthog: Moody, crowd: Crowd, store: Store) -> None:
    stored = {quad[0] for quad in posthog.stored}
    dead = {letter.payload.uuid for letter in store.dead_letters(100_000)}
    seen = {
        "kills": dict(crowd.kills),
        "answers to browsers": dict(load.statuses),
        "moods": dict(posthog.moods),
        "sent twice": sum(count - 1 for count in posthog.stored.values()),
        "events": (len(load.posted), len(load.answered), len(stored), len(dead)),
    }
    logger.info("%s", json.dumps(seen, indent=1))

    assert load.answered <= stored | dead, load.answered - stored - dead
    assert stored | dead <= load.posted
    # Once after deduplication: no event has come under two names.
    assert len(stored) == len(posthog.stored)
    # Nothing is given up but what PostHog refuses, and that is in one place only.
    assert dead == posthog.refused & dead
    assert not stored & dead
    counts = store.counts()
    assert counts.accepted == counts.delivered + counts.dead + counts.waiting + counts.purged
    assert (counts.waiting, counts.purged) == (0, 0)
    # And it was chaos.
    assert len(load.answered) > 1000
    assert crowd.kills["gunicorn worker"] >= 5
    assert crowd.kills["forwarder"] >= 2
    assert len(posthog.moods) >= 10
