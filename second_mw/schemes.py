"""Which module of a room keeps what a URL names: the same look-up for events and for choices.

A leaf: the module is imported by name when a setting names it, because each brings a library that
nobody else needs. What a URL means beyond its scheme is that module's business.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

from second_mw.errors import ConfigurationError

#: URL scheme → the module, in either room, that has `from_url(url, setting)`.
SCHEMES: Final = {"memory": "memory", "sqlite": "sqlite", "redis": "redis", "rediss": "redis"}


def opened(room: str, url: str, setting: str) -> Any:
    """Return the store of a room that a URL names.

    Args:
        room: the package, such as `second_mw.outbox`.
        url: `memory://…`, `sqlite:///path`, `redis://…`, `rediss://…`, `redis+sentinel://…`.
        setting: the argument or variable that holds it, for error messages.

    Raises:
        ConfigurationError: the URL names none, or one that can't be used.
    """
    module = SCHEMES.get(url.partition(":")[0].partition("+")[0])
    if module is None:
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise ConfigurationError(f"{setting} names no store: it must begin with one of {known}.")
    try:
        found = import_module(f"{room}.{module}")
    except ModuleNotFoundError as missing:
        raise ConfigurationError(
            f"{setting} needs the package {missing.name!r}: pip install 'second_mw[{module}]'."
        ) from None
    return found.from_url(url, setting)
