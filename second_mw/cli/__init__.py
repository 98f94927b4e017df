"""The `second-mw` command (spec §13): one file a command, loaded when it is asked for.

A command's module has `add_arguments(parser)` and `run(given) -> int`, and may have `EXAMPLE`, the
lines that its `--help` ends with. Exit codes: 0 good, 1 the thing asked about is bad, 2 wrong
usage.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final

from second_mw.cli.usage import WrongUsage
from second_mw.errors import AnalyticsError, OutboxUnavailable, PreferencesUnavailable
from second_mw.version import VERSION

#: Command → what it does, in the order of `--help`; each is a module of this package.
COMMANDS: Final[dict[str, str]] = {
    "run": "serve a WSGI or ASGI app, wrapped",
    "inbox": "a local PostHog look-alike with a web page",
    "check": "look at every setting and whether it works",
    "explain": "show what leaves of one event, and why",
    "catalogue": "print the events that are taken",
    "forward": "deliver from a durable outbox, in a process of its own",
    "outbox": "look into a durable outbox, and tidy it",
    "export": "print what is kept about one person",
    "erase": "erase what is kept about one person",
    "docs": "print or serve the documentation",
    "completion": "print what a shell needs to complete these commands",
}

_LOOK: Final = (
    "See that its server runs, or that its file and its disk can be written, and try again; "
    "`second-mw check` looks closely at what the environment names"
)
#: Why an outbox fails → what that means to whoever typed a command, and what to do.
_OUTBOX: Final = {
    "full": (
        "the outbox is full, so no dead letter can wait again. Let what waits leave first, "
        "`second-mw forward --once`, and try again"
    ),
    "store_failed": f"the outbox can't be read and written. {_LOOK}",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: without the program's name; None takes `sys.argv`.
    """
    _print_whatever_comes()
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Only the command that was named is imported: each may need an extra of its own.
    named = next((word for word in given if not word.startswith("-")), None)
    try:
        parsed = parser(named).parse_args(given)
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 2
    if parsed.command is None:
        parser(None).print_help()
        return 2
    try:
        code: int = parsed.run(parsed)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Somebody reads the beginning only, as `head` does; at exit Python would complain again.
        sys.stdout = None
        return 0
    except AnalyticsError as error:
        print(f"second-mw: {_sentence(error)}", file=sys.stderr)
        return 2 if isinstance(error, WrongUsage) else 1
    return code


def _print_whatever_comes() -> None:
    """Let a terminal or pipe that is not UTF-8 show a dash as an escape, not as a traceback."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")


def _sentence(error: AnalyticsError) -> str:
    """Return what is wrong, and what to do, where the error itself speaks to a running app."""
    if isinstance(error, OutboxUnavailable):
        return f"{_OUTBOX.get(error.reason, error)}."
    if isinstance(error, PreferencesUnavailable):
        return f"the users' choices can't be had: {error}. {_LOOK}."
    return str(error)


def parser(named: str | None, *, whole: bool = False) -> argparse.ArgumentParser:
    """Return the argument parser.

    Args:
        named: the one command that knows its own arguments.
        whole: whether all of them do.
    """
    top = argparse.ArgumentParser(
        prog="second-mw",
        description="Privacy-first product analytics for WSGI and ASGI apps.",
        epilog=(
            "second-mw COMMAND --help says more. Settings come from the environment:\n"
            "second-mw check prints all of them. Exit codes: 0 good, 1 the thing asked\n"
            "about is bad, 2 wrong usage.\n\n"
            "Example: second-mw inbox --port 8765"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"second-mw {VERSION}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, summary in COMMANDS.items():
        wanted = whole or name == named
        module: Any = import_module(f"{__name__}.{name}") if wanted else None
        example = getattr(module, "EXAMPLE", None)
        command = commands.add_parser(
            name,
            help=summary,
            description=_filled(
                getattr(module, "DESCRIPTION", f"{summary[0].upper()}{summary[1:]}.")
            ),
            epilog=f"Example: {example}" if example else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if module is not None:
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return top


def _filled(text: str) -> str:
    """Return paragraphs, set apart by an empty line, filled to a terminal of 80 columns."""
    return "\n\n".join(textwrap.fill(" ".join(p.split()), 79) for p in text.split("\n\n"))
