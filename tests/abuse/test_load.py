"""Requests by the thousand over 200 connections, a tenth hostile, against both demo hosts.

In CI 2,000; `--load-requests 10000` is the whole of it.

Every well-formed event arrives, none twice, and memory stays flat: what the second half of the
load adds is little beside what the first half did.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from demos.product.sample import PEOPLE
from tests.delivery.sink import running

CONNECTIONS = 200
#: KB that a process may grow by in the second half: allocators breathe, leaks grow with requests.
BREATH = 24_000


class Host:
    """A demo host in a process of its own."""

    def __init__(self, kind: str, sink: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.abuse.load_host", kind, sink],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def ask(self, what: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        answered: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answered

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(params=["flask", "starlette"])
def line(request: pytest.FixtureRequest) -> Iterator[tuple[Host, Any]]:
    with running() as sink:
        host = Host(request.param, sink.url)
        yield host, sink
        host.close()


class Connection:
    """A browser's connection: kept alive, opened anew when the server closes it."""

    def __init__(self, port: int, cookie: str = "") -> None:
        self._port = port
        self.cookie = cookie
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, data: bytes, *, read: bool = True) -> tuple[int, dict[str, str]]:
        """Send bytes; return the status and the headers of what comes back, 0 if nothing does."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        try:
            writer.write(data)
            await writer.drain()
            if not read:
                self.close()
                return 0, {}
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {
                name.lower(): value.strip()
                for name, _, value in (entry.partition(":") for entry in head[1:] if entry)
            }
            await reader.readexactly(int(headers.get("content-length", 0)))
            if headers.get("connection", "").lower() == "close":
                self.close()
            return int(head[0].split()[1]), headers
        except (OSError, asyncio.IncompleteReadError):
            self.close()
            return 0, {}

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    def post(self, body: bytes, *more: str, length: int | None = None) -> bytes:
        head = [
            "POST /api/analytics/capture HTTP/1.1",
            f"Host: 127.0.0.1:{self._port}",
            "Content-Type: application/json",
            f"Content-Length: {len(body) if length is None else length}",
            f"Cookie: {self.cookie}",
            *more,
        ]
        return "\r\n".join([*head, "", ""]).encode() + body

    async def sign_in(self, person: str) -> None:
        body = f"person={person}".encode()
        request = (
            f"POST /sign-in HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n"
            "Content-Type: application/x-www-form-urlencoded\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode()
        status, headers = await self.send(request + body)
        assert status == 303, status
        self.cookie = headers["set-cookie"].partition(";")[0]


EVENT = {"event": "page viewed", "properties": {"surface": "workspace_home", "viewport_width": 9}}


def hostile(connection: Connection, dice: random.Random) -> tuple[bytes, bool]:
    """Return one hostile request, and whether an answer is waited for."""
    event = json.dumps(EVENT).encode()
    return dice.choice(
        [
            (connection.post(b'{"event":'), True),
            (connection.post(b"[" * 50_000), True),
            (connection.post(event, "Origin: https://evil.example"), True),
            (connection.post(event, "Sec-Fetch-Site: cross-site"), True),
            (connection.post(gzip.compress(b" " * 2_000_000), "Content-Encoding: gzip"), True),
            (connection.post(b" " * 300_000), True),
            (connection.post(event[:9], length=500), False),  # and goes away
            (connection.post(event).replace(b"capture", b"preferences"), True),
            (connection.post(b'{"event":"no such"}'), True),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", False),
        ]
    )


async def load(port: int, cookie: str, count: int, seed: int) -> set[str]:
    """Send `count` requests over all connections; return the uuids of what was accepted."""
    accepted: set[str] = set()
    share = count // CONNECTIONS

    async def browse(number: int) -> None:
        dice = random.Random(seed * CONNECTIONS + number)
        connection = Connection(port, cookie)
        for _ in range(share):
            if dice.random() < 0.1:
                data, read = hostile(connection, dice)
                status, _ = await connection.send(data, read=read)
                assert status < 500, status
                continue
            name = str(uuid.UUID(int=dice.getrandbits(128), version=4))
            body = json.dumps({**EVENT, "uuid": name}).encode()
            status = 0
            for _ in range(50):
                # A connection that the server closed in between says nothing; the uuid counts once.
                status, _ = await connection.send(connection.post(body))
                if status == 204:
                    accepted.add(name)
                    break
                assert status in (0, 503), status
                await asyncio.sleep(0.05)
            assert status == 204
        connection.close()

    await asyncio.gather(*(browse(number) for number in range(CONNECTIONS)))
    return accepted


@pytest.mark.timeout(600)
def test_under_load_every_well_formed_event_arrives_and_memory_stays_flat(
    line, request: pytest.FixtureRequest
) -> None:
    host, sink = line
    half_of_them = request.config.getoption("--load-requests") // 2

    async def first() -> str:
        connection = Connection(host.port)
        await connection.sign_in(PEOPLE[0].id)
        connection.close()
        return connection.cookie

    cookie = asyncio.run(first())
    accepted = asyncio.run(load(host.port, cookie, half_of_them, 1))
    half = host.ask("flush")
    accepted |= asyncio.run(load(host.port, cookie, half_of_them, 2))
    whole = host.ask("flush")
    assert len(accepted) > 0.85 * 2 * half_of_them
    assert set(sink.delivered) >= accepted
    assert len(sink.delivered) == len(set(sink.delivered)) == whole["accepted"]
    assert (whole["waiting"], whole["dead"]) == (0, 0)
    assert set(whole["rejected"]) >= {"cross_origin", "invalid_payload", "payload_too_large"}
    assert whole["resident"] - half["resident"] < BREATH
