"""`python -m demos [flask|starlette]`: the demo product and an inbox, both on this machine.

The demo shows what a host's customer sees, the inbox what PostHog would get. Nothing needs an
account or a network; Ctrl-C ends both.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from second_mw import Analytics
from second_mw.errors import ConfigurationError

LOOPBACK: Final = "127.0.0.1"
PORT: Final = 8000
INBOX_PORT: Final = 8765
#: How many ports above a taken default one are tried.
TRIES: Final = 20
#: A watcher should see an event about when it happens, not after the usual two seconds.
FLUSH_SECONDS: Final = 0.5


class PortTaken(Exception):
    """The port that was asked for is in use."""


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    command = argparse.ArgumentParser(
        prog="python -m demos",
        description="Start the demo product and an inbox that shows each event it sends.",
        epilog="Example: python -m demos starlette --port 9000",
    )
    command.add_argument("host", nargs="?", choices=sorted(HOSTS), default="flask")
    command.add_argument("--port", type=_port, help=f"the demo's port (default {PORT})")
    command.add_argument("--inbox-port", type=_port, help=f"the inbox's (default {INBOX_PORT})")
    command.add_argument(
        "--disable-telemetry",
        "--no-analytics",
        action="store_true",
        help="switch analytics off: nothing is stored, queued or sent",
    )
    command.add_argument(
        "--outbox",
        metavar="URL",
        help="where events wait: memory://, sqlite:///path or redis://… (default memory://)",
    )
    return command


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise ValueError
    return number


def listen(port: int | None, default: int, what: str) -> socket.socket:
    """Return a socket bound to loopback.

    Args:
        port: the one asked for, 0 for any; None tries `default` and then those above it.
        what: the option's name, for the message.

    Raises:
        PortTaken: it is in use; the message says which and what to do.
    """
    candidates = range(default, default + TRIES) if port is None else (port,)
    for candidate in candidates:
        bound = socket.socket()
        # A port whose last connections still close is free, as every server treats it.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((LOOPBACK, candidate))
            bound.listen(128)
        except OSError:
            bound.close()
            continue
        if port is None and candidate != default:
            print(f"Port {default} is taken, so {candidate} is used.")
        return bound
    taken = f"Port {port}" if port is not None else f"Every port from {default}"
    raise PortTaken(f"{taken} is taken. Choose another with {what}.")


def serve_flask(analytics: Analytics, bound: socket.socket) -> None:
    """Serve the Flask demo until it is told to stop."""
    import waitress  # type: ignore[import-untyped]

    from demos import flask_host

    # A page's burst of files queues for a moment; waitress would warn of each.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    app = flask_host.create_app(analytics, inbox=analytics.settings.host)
    server = waitress.create_server(app, sockets=[bound], threads=8)
    try:
        server.run()
    finally:
        server.close()


def serve_starlette(analytics: Analytics, bound: socket.socket) -> None:
    """Serve the Starlette demo until it is told to stop."""
    import uvicorn

    from demos import starlette_host

    app = starlette_host.create_app(analytics, inbox=analytics.settings.host)
    # A page may keep its connection open; nobody wants to wait for that at the end.
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2)
    uvicorn.Server(config).run(sockets=[bound])


HOSTS: Final[dict[str, Callable[[Analytics, socket.socket], None]]] = {
    "flask": serve_flask,
    "starlette": serve_starlette,
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    given = parser().parse_args(arguments)
    if given.disable_telemetry:
        os.environ["SECOND_TELEMETRY_DISABLED"] = "1"
    signal.signal(signal.SIGTERM, _stop)
    try:
        return _run(given)
    except KeyboardInterrupt:
        return 0
    except (PortTaken, ConfigurationError) as error:
        print(error, file=sys.stderr)
        return 1


def _run(given: argparse.Namespace) -> int:
    from second_mw.inbox.app import InboxServer
    from second_mw.inbox.receipts import ReceiptSender

    inbox = InboxServer(listening=listen(given.inbox_port, INBOX_PORT, "--inbox-port"))
    receipts = ReceiptSender(f"{inbox.url}/receipts")
    fields: dict[str, Any] = {"outbox": given.outbox} if given.outbox else {}
    try:
        with listen(given.port, PORT, "--port") as bound:
            analytics = Analytics.from_env(
                token="phc_local_demo",
                host=inbox.url,
                flush_interval=FLUSH_SECONDS,
                on_receipt=receipts,
                **fields,
            )
            _say(given.host, bound.getsockname()[1], inbox.url, analytics.settings.disabled_by)
            try:
                HOSTS[given.host](analytics, bound)
            finally:
                analytics.close()  # what waits still reaches the inbox
    finally:
        receipts.close()
        inbox.close()
    return 0


def _say(host: str, port: int, inbox: str, disabled_by: str | None) -> None:
    print(
        f"\n  Demo   http://{LOOPBACK}:{port}   ({host.capitalize()})\n"
        f"  Inbox  {inbox}   (what PostHog would get)\n"
    )
    if disabled_by:
        print(f"  Analytics are switched off ({disabled_by}): the inbox stays empty.\n")
    else:
        print(
            "  Begin with Maren: sign in, click the first example, send it and follow the cards.\n"
            "  Keep the inbox beside it: each click shows there within a second.\n"
            "  Usage data settings are in the account menu, bottom left.\n"
        )
    print("  Ctrl-C ends both.", flush=True)


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    raise SystemExit(main())
