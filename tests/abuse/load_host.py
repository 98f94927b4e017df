"""A demo host under its real server, in a process of its own, for the load test.

Started as `python -m tests.abuse.load_host flask|starlette SINK_URL`. Prints its port; then, for
each line on its standard input, its accounts and its memory as one line of JSON.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import sys
import threading
from pathlib import Path
from typing import Any

from second_mw import Analytics


def resident() -> int:
    """Return this process's resident memory in KB."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def answer(analytics: Analytics) -> None:
    for line in sys.stdin:
        if line.strip() == "flush":
            analytics.flush(60.0)
        stats = analytics.stats()
        names = ("accepted", "delivered", "dead", "waiting", "rejected")
        told: dict[str, Any] = {name: stats[name] for name in names}
        say(json.dumps({**told, "resident": resident()}))
    os._exit(0)


def main(kind: str, sink: str) -> None:
    analytics = Analytics(
        token="phc_load", host=sink, rate="1000000/minute", body_timeout=5.0, flush_interval=0.2
    )
    bound = socket.create_server(("127.0.0.1", 0), backlog=512)
    say(str(bound.getsockname()[1]))
    threading.Thread(target=answer, args=(analytics,), daemon=True).start()
    if kind == "flask":
        import logging

        import waitress  # type: ignore[import-untyped]

        from demos.flask_host import create_app as flask_app

        logging.getLogger("waitress").setLevel(logging.CRITICAL)
        waitress.create_server(
            flask_app(analytics), sockets=[bound], threads=8, connection_limit=400
        ).run()
    else:
        import uvicorn

        from demos.starlette_host import create_app as starlette_app

        config = uvicorn.Config(starlette_app(analytics), log_level="critical", backlog=512)
        uvicorn.Server(config).run(sockets=[bound])


if __name__ == "__main__":
    main(*sys.argv[1:])
