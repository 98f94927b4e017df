"""A real redis-server on 127.0.0.1, as tests need it; where there is none, CI fails."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis


class Server:
    """A redis-server that can be killed and started again over the same files.

    Args:
        folder: for its files, and its log.
        settings: its command line's, without the dashes.
    """

    def __init__(self, folder: Path, **settings: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._folder = folder
        self._settings = {"appendonly": "yes", "maxmemory-policy": "noeviction", **settings}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = [word for name, value in self._settings.items() for word in (f"--{name}", value)]
        fixed = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)]
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                [_binary(), *fixed, "--save", "", *options], stdout=log, stderr=log
            )
        client = redis.Redis(port=self.port)
        try:
            for _ in range(600):
                assert self._process.poll() is None, (self._folder / "redis.log").read_text()
                try:
                    if client.ping():
                        return
                except redis.exceptions.RedisError:
                    time.sleep(0.1)
            raise AssertionError("redis-server did not come up")
        finally:
            client.close()

    def kill(self) -> None:
        """Kill it, as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(60)
            self._process = None

    def flush(self) -> None:
        """Forget everything."""
        with redis.Redis(port=self.port) as client:
            client.flushall()


def _binary() -> str:
    found = shutil.which("redis-server")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("redis-server is not installed")
        pytest.skip("redis-server is not installed: apt-get install redis-server")
    return found


@contextmanager
def running(folder: Path, **settings: str) -> Iterator[Server]:
    """Run a server for as long as the block lasts."""
    server = Server(folder, **settings)
    server.start()
    try:
        yield server
    finally:
        server.kill()
