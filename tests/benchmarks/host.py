"""The host undisturbed: its own requests' p99 while events are captured and PostHog hangs.

500 posts a second to our endpoint, with a PostHog that accepts connections and never answers,
against 500 posts a second to a no-op endpoint of the same server, interleaved. The bar: the host's
other requests have a p99 within 10 %.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
import uuid
from contextlib import ExitStack
from typing import Final

from tests.benchmarks._client import post
from tests.benchmarks.endpoint import _serve
from tests.benchmarks.table import Table, interleaved, ratios, spread

TITLE: Final = "the host's other requests while events are captured and PostHog hangs"


def measure(short: bool) -> Table:
    """Return the p99 of the host's other requests beside either endpoint."""
    rounds, seconds, rate = (1, 1.0, 100) if short else (10, 4.0, 500)
    with ExitStack() as stack:
        hole = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=128))
        url = f"http://127.0.0.1:{hole.getsockname()[1]}"
        ports = {kind: _serve(stack, "uvicorn", kind, url).port for kind in ("no-op", "inline")}

        def p99(kind: str) -> float:
            return asyncio.run(_beside(ports[kind], seconds, rate))

        figures = interleaved(
            rounds, **{"no-op": lambda: p99("no-op"), "second_mw": lambda: p99("inline")}
        )
    rows = [
        (name, spread([t * 1e3 for t in times], " ms"), ratios(times, figures["no-op"]))
        for name, times in figures.items()
    ]
    return Table(
        (f"{rate} posts a second to", "p99 of other requests", "to the no-op"),
        rows,
        notes=("the bar: within 1.1×", "uvicorn, one process; PostHog accepts and never answers"),
    )


async def _beside(port: int, seconds: float, rate: int) -> float:
    """Post at a steady pace; return the p99 of the host's other requests meanwhile."""
    waits: list[float] = []
    until = time.perf_counter() + seconds
    other = f"GET /orders/7 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()

    async def poster(number: int, posters: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        turn = time.perf_counter() + number / rate
        while turn < until:
            await asyncio.sleep(max(0.0, turn - time.perf_counter()))
            event = {"event": "page viewed", "uuid": str(uuid.uuid4()), "properties": {}}
            writer.write(post(port, json.dumps(event).encode(), number))
            await reader.readuntil(b"\r\n\r\n")
            turn += posters / rate
        writer.close()

    async def visitor() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() < until:
            began = time.perf_counter()
            writer.write(other)
            await reader.readuntil(b"\r\n\r\n")
            waits.append(time.perf_counter() - began)
            await asyncio.sleep(0.005)
        writer.close()

    posters = 10
    await asyncio.gather(*(poster(n, posters) for n in range(posters)), visitor(), visitor())
    waits.sort()
    return waits[int(len(waits) * 0.99)]
