"""`second-mw completion SHELL`: completion of commands and options, as a script for the shell."""

from __future__ import annotations

import argparse
import sys
from typing import Final

EXAMPLE: Final = 'eval "$(second-mw completion bash)"  # in ~/.bashrc'
DESCRIPTION: Final = "Print a script with which a shell completes second-mw's commands and options."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="your shell")


def run(given: argparse.Namespace) -> int:
    """Print the script."""
    try:
        import shtab
    except ImportError:
        print("second-mw: this needs an extra: pip install 'second_mw[cli]'", file=sys.stderr)
        return 1
    from second_mw.cli import parser

    print(shtab.complete(parser(None, whole=True), given.shell))
    return 0
