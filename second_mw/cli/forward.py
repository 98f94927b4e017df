"""`second-mw forward`: a forwarder in a process of its own, before a durable outbox (spec §13).

Any number of them may run over one outbox, beside the web servers' own forwarders or instead of
them (SECOND_ANALYTICS_FORWARD=off there). Progress on a terminal, plain log lines elsewhere.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event
from types import FrameType
from typing import Any, Final

from second_mw.cli import durable
from second_mw.cli.screen import is_rich
from second_mw.errors import OutboxUnavailable
from second_mw.forwarder.dispatcher import Forwarder
from second_mw.outbox.outbox import open_store
from second_mw.settings import Settings

EXAMPLE: Final = "second-mw forward --outbox sqlite:////var/lib/shop/analytics.db"
DESCRIPTION: Final = (
    "Deliver what waits in a durable outbox, until SIGTERM or Ctrl-C; the batch in hand is\n"
    "finished first. Exit code 1 if --once leaves events waiting.\n\n"
    "It sends to SECOND_POSTHOG_HOST with SECOND_POSTHOG_TOKEN, as the app would."
)

logger: logging.Logger = logging.getLogger("second_mw")

#: Seconds between two looks of a terminal, and between two lines of a log.
_TICK: Final = 0.5
_LOG_EVERY: Final = 60.0
#: Seconds that one flush of `--once` may take before its progress is looked at.
_STRETCH: Final = 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    durable.add_outbox(parser)
    parser.add_argument(
        "--once", action="store_true", help="send what waits now, then exit, for cron"
    )


def run(given: argparse.Namespace) -> int:
    """Deliver until told to stop, or once."""
    chosen = {"outbox": given.outbox} if given.outbox else {}
    settings = Settings.load({**chosen, "forward": True}, os.environ)
    if not settings.enabled:
        off = f"second-mw: analytics is off ({settings.disabled_by}); nothing is sent."
        if settings.disabled_by == "no token":
            print(f"{off} Set SECOND_POSTHOG_TOKEN, as the app has it.", file=sys.stderr)
            return 1
        print(off)
        return 0
    store = open_store(settings.outbox)
    if not store.durable:
        print(
            "second-mw: a memory:// outbox lives inside the process that fills it, so no other "
            "can deliver from it. Name a durable one: --outbox sqlite:///path or redis://host, "
            "or SECOND_ANALYTICS_OUTBOX.",
            file=sys.stderr,
        )
        return 2
    _log_plainly()
    forwarder = Forwarder(store, settings, on_loss=settings.on_drop)
    with _told_to_stop() as stop, _progress() as show:
        work = _once if given.once else _until_stopped
        code = work(forwarder, lambda: _state(forwarder, store), stop, show)
        forwarder.finish(settings.shutdown_timeout)
    logger.info("stopped: %s", _words(_state(forwarder, store)))
    store.close()
    return code


State = dict[str, Any]
Look = Callable[[], State]
Show = Callable[[State], None]


def _until_stopped(forwarder: Forwarder, look: Look, stop: Event, show: Show) -> int:
    while not stop.is_set():
        # Again and again: a thread that could not be started a moment ago may start now.
        forwarder.start()
        try:
            show(look())
        except OutboxUnavailable as error:
            # As passing as an outage of PostHog; the forwarder itself says it in the log.
            logger.debug("the outbox can't be looked at: %s", error)
        stop.wait(_TICK)
    return 0


def _once(forwarder: Forwarder, look: Look, stop: Event, show: Show) -> int:
    """Flush for as long as that gets anything out; 1 if something waits in the end."""
    waiting = look()["waiting"]
    while waiting and not stop.is_set():
        forwarder.flush(_STRETCH)
        state = look()
        show(state)
        if state["waiting"] >= waiting:
            break
        waiting = state["waiting"]
    if waiting:
        logger.warning("%d event(s) still wait; see `second-mw outbox stats`", waiting)
    return 1 if waiting else 0


def _state(forwarder: Forwarder, store: Any) -> State:
    stats, counts = forwarder.stats(), store.counts()
    return {
        "forwarded": stats["forwarded"],
        "retried": stats["retried"],
        "waiting": counts.waiting,
        "dead": counts.dead,
        "oldest": counts.oldest_age,
        "circuit": stats["circuit"],
    }


def _words(state: State) -> str:
    return (
        f"forwarded {state['forwarded']}, sent again {state['retried']}, "
        f"waiting {state['waiting']} (oldest {state['oldest']:.0f} s), "
        f"dead letters {state['dead']}, circuit {state['circuit']}"
    )


def _log_plainly() -> None:
    if not logging.getLogger().handlers and not logger.handlers:
        logging.basicConfig(
            level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
        )


@contextmanager
def _told_to_stop() -> Iterator[Event]:
    """Yield what SIGTERM and Ctrl-C set."""
    stop = Event()

    def told(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, told) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _progress() -> Iterator[Show]:
    """Yield what shows how far delivery has come: one line that changes, or a line a minute."""
    if not sys.stdout.isatty():
        yield _logged()
    elif is_rich():
        from rich.console import Console

        console = Console()
        with console.status("second-mw forward") as status:
            # As plain words: what stands there is figures, and no markup.
            yield lambda state: status.update(_words(state))
    else:
        try:
            yield lambda state: print(f"\r\x1b[K{_words(state)}", end="", flush=True)
        finally:
            print()


def _logged() -> Show:
    last: State = {}
    due = time.monotonic()

    def show(state: State) -> None:
        nonlocal last, due
        settled = {name: value for name, value in state.items() if name != "oldest"}
        if settled != last and time.monotonic() >= due:
            last, due = settled, time.monotonic() + _LOG_EVERY
            logger.info("%s", _words(state))

    return show
