"""Wrong usage, which is exit code 2, and values as options take them."""

from __future__ import annotations

from argparse import ArgumentTypeError

from second_mw.errors import AnalyticsError, ConfigurationError
from second_mw.settings import Settings


class WrongUsage(AnalyticsError):
    """A command was called with words that it can do nothing with."""


def port(text: str) -> int:
    """Return a port's number; 0 lets the system choose one.

    >>> port("8000")
    8000
    """
    number = _whole(text)
    if not 0 <= number <= 65535:
        raise ArgumentTypeError(f"{text} is no port: 0 to 65535")
    return number


def positive(text: str) -> int:
    """Return a whole number above 0.

    >>> positive("3")
    3
    """
    number = _whole(text)
    if number < 1:
        raise ArgumentTypeError(f"{text} is not allowed: 1 or more")
    return number


def seconds(text: str) -> float:
    """Return seconds, more than 0 and no longer than a day.

    >>> seconds("2.5")
    2.5
    """
    try:
        number = float(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is no number of seconds") from None
    if not 0 < number <= 86_400:
        raise ArgumentTypeError(f"{text} is not allowed: more than 0 and at most 86400 seconds")
    return number


def outbox(text: str) -> str:
    """Return the URL of an outbox; whether there is one behind it shows when it is opened.

    >>> outbox("sqlite:///events.db")
    'sqlite:///events.db'
    """
    try:
        url: str = Settings.load({"outbox": text}).outbox
    except ConfigurationError as error:
        raise ArgumentTypeError(str(error)) from None
    return url


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is no whole number") from None
