"""`second-mw catalogue`: the events that are taken, for people and for machines (spec §13)."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from typing import Any, Final

from second_mw.cli import served
from second_mw.privacy.catalogue import Catalogue

EXAMPLE: Final = "second-mw catalogue --format typescript > analytics.d.ts"
DESCRIPTION: Final = "Print the events that are taken, with what is known of their properties."


def _markdown(catalogue: Catalogue) -> str:
    from second_mw.privacy.catalogue import markdown

    return markdown(catalogue)


def _json_schema(catalogue: Catalogue) -> str:
    from second_mw.privacy.catalogue import json_schema

    return json.dumps(json_schema(catalogue), indent=2)


def _typescript(catalogue: Catalogue) -> str:
    from second_mw.browser.types import declarations

    return declarations(catalogue)


def _openapi(catalogue: Catalogue) -> str:
    from second_mw.openapi import openapi
    from second_mw.settings import Settings

    return json.dumps(openapi(Settings.load({}, os.environ), catalogue), indent=2)


FORMATS: Final[dict[str, Callable[[Catalogue], str]]] = {
    "markdown": _markdown,
    "json-schema": _json_schema,
    "typescript": _typescript,
    "openapi": _openapi,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "catalogue",
        nargs="?",
        metavar="module:name",
        help="a host's own catalogue, else the 19 events that come with the package",
    )
    parser.add_argument(
        "--format",
        choices=list(FORMATS),
        default="markdown",
        help="default markdown; typescript declares what client.js takes",
    )


def run(given: argparse.Namespace) -> int:
    """Print the catalogue."""
    catalogue: Any = served.found(given.catalogue) if given.catalogue else Catalogue.default()
    if not isinstance(catalogue, Catalogue):
        raise served.AppNotFound(f"{given.catalogue} is no Catalogue")
    print(FORMATS[given.format](catalogue).rstrip("\n"))
    return 0
