"""`second-mw outbox stats|peek|dead|retry|purge`: look into a durable outbox, and tidy it.

Values are printed by `--json` only: what waits is private already, but a terminal is not the place
to find that out.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from second_mw.cli import durable, screen, usage
from second_mw.outbox.base import DeadLetter, Entry, Store
from second_mw.payload import as_data

EXAMPLE: Final = "second-mw outbox dead --outbox sqlite:////var/lib/shop/events.db"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, (summary, _) in ACTIONS.items():
        options = {"purge": " waiting --yes", "retry": " --reason too_large"}.get(name, "")
        action = actions.add_parser(
            name,
            help=summary,
            description=f"{summary.capitalize()}.",
            epilog=f"Example: second-mw outbox {name}{options} --outbox sqlite:///events.db",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        durable.add_outbox(action)
        what = "one JSON document, for machines"
        if name in ("peek", "dead"):
            action.add_argument(
                "--limit",
                type=usage.positive,
                default=20,
                metavar="N",
                help="how many, default 20",
            )
            what += "; it shows the events' properties, too"
        if name == "retry":
            action.add_argument(
                "--reason", metavar="WORD", help="only those of this reason, as stats counts them"
            )
        if name == "purge":
            action.add_argument("what", choices=("waiting", "dead"), help="which of the two")
            action.add_argument("--yes", action="store_true", help="really: they are gone for good")
        action.add_argument("--json", action="store_true", help=what)


def run(given: argparse.Namespace) -> int:
    """Carry out one action."""
    if given.action == "purge" and not given.yes:
        print("second-mw: purge drops events for good; say --yes to do it", file=sys.stderr)
        return 2
    with durable.opened(durable.settings_of(given)) as store:
        return ACTIONS[given.action][1](store, given)


def _stats(store: Store, given: argparse.Namespace) -> int:
    counts = {**store.counts()._asdict(), "dead_reasons": store.dead_reasons()}
    if given.json:
        screen.document(counts)
        return 0
    reasons = counts.pop("dead_reasons")
    rows = [(name.replace("_", " "), _figure(name, value)) for name, value in counts.items()]
    screen.table(("what", "events"), rows)
    if reasons:
        print()
        screen.table(("dead letters", "events"), sorted(reasons.items()))
    return 0


def _figure(name: str, value: Any) -> str:
    return f"{value:.0f} s" if name == "oldest_age" else f"{value:,}"


def _peek(store: Store, given: argparse.Namespace) -> int:
    entries = store.peek(given.limit)
    if given.json:
        screen.document([found_as_data(entry) for entry in entries])
        return 0
    now = time.time()
    rows = [
        (
            e.payload.event,
            e.payload.uuid,
            e.payload.distinct_id,
            f"{now - e.accepted_at:.0f} s",
            e.rounds,
        )
        for e in entries
    ]
    screen.table(("event", "uuid", "distinct_id", "age", "rounds"), rows)
    return 0


def _dead(store: Store, given: argparse.Namespace) -> int:
    letters = store.dead_letters(given.limit)
    if given.json:
        screen.document([found_as_data(letter) for letter in letters])
        return 0
    rows = [
        (
            letter.payload.event,
            letter.payload.uuid,
            time.strftime("%Y-%m-%d %H:%M", time.gmtime(letter.buried_at)),
            letter.reason,
        )
        for letter in letters
    ]
    screen.table(("event", "uuid", "buried (UTC)", "reason"), rows)
    return 0


def _retry(store: Store, given: argparse.Namespace) -> int:
    return _done(store.retry(given.reason), "wait again", given)


def _purge(store: Store, given: argparse.Namespace) -> int:
    return _done(store.purge(given.what), "dropped", given)


def _done(count: int, what: str, given: argparse.Namespace) -> int:
    if given.json:
        screen.document({"events": count})
    else:
        print(f"{count:,} {'event' if count == 1 else 'events'} {what}")
    return 0


def found_as_data(found: Entry | DeadLetter) -> dict[str, Any]:
    """Return an entry or a dead letter as JSON-ready data, properties included."""
    fate: dict[str, Any] = (
        {"state": "dead", "reason": found.reason, "buried_at": found.buried_at}
        if isinstance(found, DeadLetter)
        else {"state": "waiting", "accepted_at": found.accepted_at, "rounds": found.rounds}
    )
    return {**as_data(found.payload), **fate}


ACTIONS: Final[dict[str, tuple[str, Callable[[Store, argparse.Namespace], int]]]] = {
    "stats": ("count what was accepted, delivered, waits and is dead", _stats),
    "peek": ("show what waits, oldest first", _peek),
    "dead": ("show what will never be delivered, and why", _dead),
    "retry": ("let dead letters wait again", _retry),
    "purge": ("drop what waits, or what is dead", _purge),
}
