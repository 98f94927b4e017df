"""A real redis-server on 127.0.0.1, as tests need it; where there is none, CI fails."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis


class Server:
    """A redis-server that can be killed and started again over the same files.

    Args:
        folder: for its files, and its log.
        first: words that stand before all settings on its command line.
        settings: its command line's, without the dashes, `_` for `-`.
    """

    def __init__(self, folder: Path, first: tuple[str, ...] = (), **settings: str) -> None:
        self.port = free_port()
        self.folder = folder
        self._first = first
        # Synced with each command: tests kill it.
        own = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
        named = {name.replace("_", "-"): value for name, value in settings.items()}
        self.settings = {**({} if first else own), **named}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self, **fields: Any) -> redis.Redis:
        """Return a client of the test's own."""
        return redis.Redis(port=self.port, password=self.settings.get("requirepass"), **fields)

    def begin(self) -> None:
        """Start it, and wait for nothing."""
        options = [word for name, value in self.settings.items() for word in (f"--{name}", value)]
        fixed = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        fixed = fixed if self._first else [*fixed, "--save", ""]
        with (self.folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                [_binary(), *self._first, *fixed, *options], stdout=log, stderr=log
            )

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.begin()
        assert self._process is not None
        with self.client() as client:
            for _ in range(600):
                assert self._process.poll() is None, (self.folder / "redis.log").read_text()
                try:
                    if client.ping():
                        return
                except redis.exceptions.RedisError:
                    time.sleep(0.1)
        raise AssertionError("redis-server did not come up")

    def kill(self) -> None:
        """Kill it, as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(60)
            self._process = None

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Let it answer nothing for as long as the block lasts; connections are still taken."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def flush(self) -> None:
        """Forget everything."""
        with self.client() as client:
            client.flushall()


def patient(url: str) -> str:
    """Return a server's URL for a machine that may be slow, where the usual timeouts are short."""
    mark = "&" if "?" in url else "?"
    return f"{url}{mark}socket_timeout=60&socket_connect_timeout=60"


def free_port() -> int:
    """Return a port that nobody listens on, and from which the system connects nobody.

    A client that tries a dead server's port again and again would else connect to itself one day,
    and the server would find its port taken.
    """
    for _ in range(200):
        port = random.SystemRandom().randrange(12_000, 32_000)
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
    raise AssertionError("no port is free")


def _binary() -> str:
    found = shutil.which("redis-server")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("redis-server is not installed")
        pytest.skip("redis-server is not installed: apt-get install redis-server")
    return found


@contextmanager
def running(folder: Path, first: tuple[str, ...] = (), **settings: str) -> Iterator[Server]:
    """Run a server for as long as the block lasts."""
    server = Server(folder, first, **settings)
    server.start()
    try:
        yield server
    finally:
        server.kill()
