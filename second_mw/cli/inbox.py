"""`second-mw inbox`: a local PostHog look-alike with a web page (spec §13)."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path
from typing import Final

from second_mw.cli import usage
from second_mw.inbox.app import FAILURES, LOOPBACK, PORT, SLOW, InboxServer
from second_mw.inbox.store import MAX_EVENTS, StoreUnusable

DESCRIPTION: Final = (
    "Take what an app would send to PostHog, as strictly as PostHog would, and show it on a page."
)
EXAMPLE: Final = "second-mw inbox --port 8765 --db events.sqlite"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument(
        "--port", type=usage.port, default=PORT, help=f"default {PORT}; 0 takes any"
    )
    parser.add_argument(
        "--db",
        type=Path,
        metavar="FILE",
        help="keep what arrives in this SQLite file, made if it is not there; else in memory",
    )
    parser.add_argument(
        "--bind",
        metavar="ADDR",
        default=LOOPBACK,
        help=f"the address to listen on, default {LOOPBACK}: this machine alone",
    )
    parser.add_argument(
        "--allow-host",
        metavar="NAME",
        action="append",
        default=[],
        help="a further host name under which apps or browsers reach it; may be repeated",
    )
    parser.add_argument(
        "--fail",
        choices=list(FAILURES),
        help="fail on purpose, to see what delivery does. "
        + "; ".join(f"{mode}: {failure.does}" for mode, failure in FAILURES.items()),
    )
    parser.add_argument(
        "--slow-seconds",
        metavar="S",
        type=usage.seconds,
        default=SLOW,
        help=f"seconds that --fail slow takes to answer, default {SLOW:g}",
    )
    parser.add_argument(
        "--max-events",
        metavar="N",
        type=usage.positive,
        default=MAX_EVENTS,
        help=f"how many are kept, the newest, default {MAX_EVENTS:,}",
    )


def run(given: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM; 1 if it can't listen or can't use the file."""
    ended = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: ended.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        with InboxServer(
            given.port,
            bind=given.bind,
            db=given.db,
            max_events=given.max_events,
            fail=given.fail,
            slow=given.slow_seconds,
            allow_hosts=given.allow_host,
        ) as inbox:
            _say(inbox, given)
            ended.wait()
    except OSError as error:
        return _refuse(
            f"{given.bind} port {given.port} can't be listened on ({error.strerror}). "
            "Choose another with --port or --bind."
        )
    except StoreUnusable as error:
        return _refuse(f"{error}.")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def _say(inbox: InboxServer, given: argparse.Namespace) -> None:
    print(
        f"\n  Inbox  {inbox.url}\n\n"
        "  Point an app here:\n\n"
        f"    export SECOND_POSTHOG_HOST={inbox.url}\n"
        "    export SECOND_POSTHOG_TOKEN=phc_local\n"
        "    second-mw run your_module:app\n"
    )
    if inbox.is_open:
        print(
            f"  It listens on {given.bind}: whoever reaches this machine can read what is shown,\n"
            "  and send to it. Without --bind only this machine can.\n"
        )
    if given.fail:
        print(f"  It fails on purpose ({given.fail}): it {FAILURES[given.fail].does}.\n")
    print("  Ctrl-C ends it.", flush=True)


def _refuse(message: str) -> int:
    print(f"second-mw inbox: {message}", file=sys.stderr)
    return 1
