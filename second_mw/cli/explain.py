"""`second-mw explain`: one event through the privacy core, and what was done to it (spec §13).

The event takes the very way of a browser's: the endpoint decides, the core judges, and what would
have entered the outbox is printed instead. Nothing is stored and nothing is sent.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from second_mw.cli import screen, served
from second_mw.cli.usage import WrongUsage
from second_mw.endpoint import (
    Answer,
    Endpoint,
    NeedBody,
    NeedChoice,
    NeedUser,
    Put,
    Request,
)
from second_mw.payload import Payload, as_data
from second_mw.privacy.catalogue import Catalogue
from second_mw.privacy.pipeline import Pipeline
from second_mw.privacy.receipt import Receipt
from second_mw.settings import Settings
from second_mw.tally import Tally
from second_mw.user import AnalyticsUser, Choice

EXAMPLE: Final = "second-mw explain event.json --user u_1 --email ada@example.org"
DESCRIPTION: Final = (
    "Show what would leave of an event, and what was done to each property and why.\n"
    'The event is JSON as a browser posts it, {"event", "properties"?, …} or a batch.'
)


class Explained(NamedTuple):
    """What the endpoint answered, what would have entered the outbox, and the receipts."""

    answer: Answer
    payloads: list[Payload]
    receipts: list[Receipt]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "file", nargs="?", default="-", metavar="FILE", help="left out or -: standard input"
    )
    parser.add_argument(
        "--user", default="u_example", metavar="ID", help="whose event it is, default u_example"
    )
    parser.add_argument("--email", help="the user's; looked for in every value, as the name is")
    parser.add_argument("--name", help="the user's full name")
    parser.add_argument(
        "--alias",
        action="append",
        default=[],
        help="a further string that identifies the user; may be repeated",
    )
    parser.add_argument(
        "--workspace",
        action="append",
        default=[],
        metavar="ID[=ROLE]",
        help="one of the user's workspaces, with the role there; may be repeated",
    )
    parser.add_argument(
        "--identified", action="store_true", help="as if the user had turned anonymity off"
    )
    parser.add_argument(
        "--undeclared",
        choices=("label", "drop"),
        help="what becomes of undeclared properties, default label: judged by key and value",
    )
    parser.add_argument(
        "--precision",
        choices=("exact", "coarse"),
        help="coarse: sizes and durations with two digits; default exact",
    )
    parser.add_argument(
        "--catalogue", metavar="module:name", help="a host's own catalogue, else the 19 events"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document, for machines")


def run(given: argparse.Namespace) -> int:
    """Print what would leave; 1 if the event is refused."""
    try:
        body = sys.stdin.buffer.read() if given.file == "-" else Path(given.file).read_bytes()
    except OSError as error:
        print(f"second-mw: {given.file} can't be read: {error.strerror}", file=sys.stderr)
        return 2
    fields: dict[str, Any] = {
        name: value
        for name in ("undeclared", "precision")
        if (value := getattr(given, name)) is not None
    }
    if given.catalogue:
        fields["catalogue"] = served.found(given.catalogue)
    done = explained(body, _user(given), identified=given.identified, **fields)
    refused = done.answer.status >= 400 or b'"rejected"' in done.answer.body
    if given.json:
        screen.document(_as_data(done))
    else:
        _print(done)
    return 1 if refused else 0


def explained(
    body: bytes, user: AnalyticsUser, *, identified: bool = False, **fields: Any
) -> Explained:
    """Return what becomes of a posted body, by the endpoint's own rules.

    Args:
        body: as a browser posts it.
        identified: whether the user turned anonymity off.
        fields: settings, which win over the environment's.
    """
    settings = Settings.load({"token": "phc_explain", **fields}, _environment())
    # Looking is allowed where sending is switched off.
    settings = dataclasses.replace(settings, disabled_by=None, rate=None)
    catalogue = settings.catalogue or Catalogue.default()
    receipts: list[Receipt] = []
    settings = dataclasses.replace(settings, on_receipt=receipts.append)
    pipeline = Pipeline(settings, catalogue, b"explain", receipts=True)
    endpoint = Endpoint(settings, pipeline, Tally(), {})
    headers = {"content-type": "application/json", "content-length": str(len(body))}
    request = Request("POST", headers.get, "http", "localhost")
    steps = endpoint.routes[f"{settings.prefix}/capture"](request)
    payloads: list[Payload] = []
    got: Any = None
    try:
        while True:
            match steps.send(got):
                case NeedUser():
                    got = user
                case NeedBody():
                    got = body
                case NeedChoice():
                    got = Choice(anonymized=False) if identified else None
                case Put(put):
                    payloads += put
                    got = len(put)
                case _:
                    got = None
    except StopIteration as done:
        return Explained(done.value, payloads, receipts)


def _environment() -> dict[str, str]:
    import os

    # Where events wait is not asked here, and a store that is not there must not be in the way.
    return {k: v for k, v in os.environ.items() if not k.startswith("SECOND_ANALYTICS_OUTBOX")}


def _user(given: argparse.Namespace) -> AnalyticsUser:
    workspaces = dict(_role(text) for text in given.workspace) or None
    try:
        return AnalyticsUser(
            given.user,
            email=given.email,
            name=given.name,
            aliases=tuple(given.alias),
            workspaces=workspaces,
        )
    except (TypeError, ValueError) as error:
        raise WrongUsage(str(error)) from None


def _role(text: str) -> tuple[str, str | None]:
    workspace, equals, role = text.partition("=")
    return workspace, role if equals else None


def _as_data(done: Explained) -> dict[str, Any]:
    return {
        "status": done.answer.status,
        "answer": msgspec.json.decode(done.answer.body) if done.answer.body else None,
        "payloads": [as_data(payload) for payload in done.payloads],
        "receipts": [receipt.as_dict() for receipt in done.receipts],
    }


def _print(done: Explained) -> None:
    answer = msgspec.json.decode(done.answer.body) if done.answer.body else None
    print(f"Answer: {done.answer.status}")
    if answer is not None:
        screen.document(answer)
    for receipt in done.receipts:
        print()
        screen.table(
            ("property", "what became of it", "why"),
            [(line.key, line.result, line.words) for line in receipt.lines],
            title=f"{receipt.event}, {receipt.mode}, as {receipt.distinct_id}",
        )
    for payload in done.payloads:
        print(f"\nWhat PostHog gets ({payload.event}):")
        screen.document(as_data(payload))
