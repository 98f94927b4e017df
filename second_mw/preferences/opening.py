"""Which preference store a setting names (spec §3, `SECOND_ANALYTICS_PREFERENCES`).

Left out, choices are kept where events are, if those outlive the process, else in memory.
"""

from __future__ import annotations

from typing import Any, Final

from second_mw import schemes
from second_mw.preferences.base import Preferences

_PROTOCOL: Final = ("get", "put", "blocking", "shared", "not_alone", "after_fork", "close")


def open_preferences(
    where: Any, outbox: Any = "memory://", setting: str = "preferences"
) -> Preferences:
    """Return the store that a setting names.

    Args:
        where: `memory://`, `sqlite:///path`, `redis://host:6379/0`, `rediss://…`, a pair of
            callables `(get, put)`, an object that has them, a whole store of the host's own, or
            None for what the outbox implies.
        outbox: the outbox's setting.
        setting: the argument or variable that holds it, for error messages.

    Raises:
        ConfigurationError: the URL names none, or one that can't be used.
    """
    if where is None:
        where = _beside(outbox)
    if not isinstance(where, str):
        return _of_the_host(where)
    opened: Preferences = schemes.opened("second_mw.preferences", where, setting)
    return opened


def _beside(outbox: Any) -> str:
    """Return the URL of the outbox's place; its options are about events."""
    if not isinstance(outbox, str) or outbox.startswith("memory:"):
        return "memory://"
    return outbox.partition("?")[0] if outbox.startswith("sqlite:") else outbox


def _of_the_host(where: Any) -> Preferences:
    from second_mw.preferences.callables import CallablePreferences

    if isinstance(where, tuple | list) and len(where) == 2:
        return CallablePreferences(*where)
    if all(hasattr(where, name) for name in _PROTOCOL):
        store: Preferences = where
        return store
    return CallablePreferences(where.get, where.put, blocking=getattr(where, "blocking", True))
