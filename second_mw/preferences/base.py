"""The preference store's protocol: where users' choices are kept (spec §7).

Keys are HMACs of user ids, never ids. A row exists only for a choice that differs from the
default. A choice is read for each request, never from a cache: "identified" must not be (spec
§7), and of "anonymized", which may, the other half of the choice, whether the user shares at all,
would be read too late.
"""

from __future__ import annotations

from typing import Protocol

from second_mw.user import Choice


class Preferences(Protocol):
    """Keeps the choices of users. `memory://` is one store."""

    #: Whether it does I/O; an event loop then asks it in a thread.
    blocking: bool
    #: Whether other processes see what this one writes.
    shared: bool

    def get(self, user_key: str) -> Choice | None:
        """Return a user's choice, None if there is none.

        Raises:
            PreferencesUnavailable: the store fails.
        """
        ...

    def put(self, user_key: str, choice: Choice) -> None:
        """Keep a user's choice.

        Raises:
            PreferencesUnavailable: it can't be kept.
        """
        ...

    def not_alone(self) -> None:
        """Learn from a server that other processes serve the same host."""
        ...

    def after_fork(self) -> None:
        """Become usable in a forked child."""
        ...

    def close(self) -> None:
        """Let go of files and sockets."""
        ...


def may_hang(preferences: Preferences) -> bool:
    """Whether a call may take as long as it likes: of a host's own store nobody knows better.

    One that gives up by itself within the 250 ms of spec §7 says so: `bounded = True`.
    """
    return preferences.blocking and not getattr(preferences, "bounded", False)
