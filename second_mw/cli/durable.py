"""The durable outbox that a command looks into, and the person it is asked about."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from second_mw.cli import usage
from second_mw.cli.usage import WrongUsage
from second_mw.database import file_of
from second_mw.outbox.base import Store
from second_mw.outbox.outbox import open_store
from second_mw.settings import Settings

#: Where a wrong URL is said to come from.
_VARIABLE: Final = "SECOND_ANALYTICS_OUTBOX"


class NothingToLookInto(WrongUsage):
    """The outbox is not one that another process can open, or nobody was named."""


class Person(NamedTuple):
    """Whom `erase` and `export` are about.

    Args:
        user_id: the host's id of the user, None if only distinct_ids are known.
        distinct_ids: what events carry: the user's id where they were identified, an `anon_…` id
            where they were not.
    """

    user_id: str | None
    distinct_ids: tuple[str, ...]


def add_outbox(parser: argparse.ArgumentParser) -> None:
    """Declare `--outbox`."""
    parser.add_argument(
        "--outbox",
        type=usage.outbox,
        metavar="URL",
        help=f"sqlite:///path or redis://…; else {_VARIABLE}",
    )


def add_person(parser: argparse.ArgumentParser) -> None:
    """Declare `--user` and `--distinct-id`."""
    parser.add_argument("--user", metavar="ID", help="the host's own id of the user")
    parser.add_argument(
        "--distinct-id",
        action="append",
        default=[],
        metavar="ID",
        help="what the events carry, such as a browser's anon_…; may be repeated",
    )


def person(given: argparse.Namespace) -> Person:
    """Return whom a command is about.

    Raises:
        NothingToLookInto: neither option was given.
    """
    ids = [*([given.user] if given.user else []), *given.distinct_id]
    if not ids:
        raise NothingToLookInto("name a person with --user ID or --distinct-id ID")
    return Person(given.user or None, tuple(ids))


def settings_of(given: argparse.Namespace) -> Settings:
    """Return the environment's settings, with the command's own outbox."""
    return Settings.load({"outbox": given.outbox} if given.outbox else {}, os.environ)


@contextmanager
def opened(settings: Settings) -> Iterator[Store]:
    """Open the outbox for as long as the block lasts.

    Raises:
        NothingToLookInto: it is `memory://`, which lives in its own process only, or a file that
            is not there.
        ConfigurationError: it can't be opened.
    """
    _look_for(settings.outbox)
    store = open_store(settings.outbox, _VARIABLE)
    try:
        if not store.durable:
            raise NothingToLookInto(
                "a memory:// outbox lives in its own process only: name a durable one with "
                f"--outbox or {_VARIABLE}; a running app's is in analytics.stats()"
            )
        yield store
    finally:
        store.close()


def _look_for(outbox: str) -> None:
    """Raise NothingToLookInto for a file that is not there.

    Opening would make one, and "0 events erased" would be said of a path that is misspelled.
    """
    if outbox.startswith("sqlite:"):
        path, _ = file_of(outbox.partition("?")[0], _VARIABLE, ())
        if not Path(path).exists():
            raise NothingToLookInto(
                f"there is no outbox at {Path(path).absolute()}; an app makes its own when it "
                f"starts: look at --outbox or {_VARIABLE}"
            )
