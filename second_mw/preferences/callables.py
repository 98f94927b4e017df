"""Two callables of the host's as a preference store (spec §7): its own table, its own rules.

What the host's code raises or returns in error never lifts anybody's anonymity: it is a store that
fails, and whoever it was asked for stays anonymized.
"""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable
from typing import Final

from second_mw.errors import ConfigurationError, PreferencesUnavailable
from second_mw.user import Choice

logger: logging.Logger = logging.getLogger("second_mw")

#: An error of the host's is logged once in so many seconds.
_LOG_EVERY: Final = 60.0

Get = Callable[[str], Choice | None]
Put = Callable[[str, Choice | None], object]


class CallablePreferences:
    """Keeps choices where the host does.

    Args:
        get: given a user's key (an HMAC of the id), returns the `Choice`, None if there is none.
        put: given the key and the `Choice`; None takes the row away, because nothing differs from
            the default.
        blocking: False lets an event loop call them instead of a thread.

    Raises:
        ConfigurationError: one of them is not callable, or is `async`.
    """

    shared = True

    def __init__(self, get: Get, put: Put, *, blocking: bool = True) -> None:
        for name, each in (("get", get), ("put", put)):
            if not callable(each):
                raise ConfigurationError(f"preferences: {name} is not callable.")
            if inspect.iscoroutinefunction(each):
                raise ConfigurationError(
                    f"preferences: {name} is async; give a plain function, which is called in a "
                    "thread under ASGI."
                )
        self._get = get
        self._put = put
        self.blocking = blocking
        self._logged_at = -_LOG_EVERY

    def get(self, user_key: str) -> Choice | None:
        """Return a user's choice, None if there is none.

        Raises:
            PreferencesUnavailable: the host's callable failed, or returned something else.
        """
        choice: object
        try:
            choice = self._get(user_key)
        except Exception as error:
            raise self._failed("get", error) from error
        if choice is None or (isinstance(choice, Choice) and _is_clear(choice)):
            return choice
        raise self._failed(
            "get", TypeError(f"returned {type(choice).__name__}, not Choice or None")
        )

    def put(self, user_key: str, choice: Choice) -> None:
        """Keep a user's choice.

        Raises:
            PreferencesUnavailable: the host's callable failed.
        """
        try:
            self._put(user_key, None if choice == Choice() else choice)
        except Exception as error:
            raise self._failed("put", error) from error

    def not_alone(self) -> None:
        """The host's store is the host's business."""

    def after_fork(self) -> None:
        """Likewise."""

    def close(self) -> None:
        """Likewise."""

    def _failed(self, name: str, error: Exception) -> PreferencesUnavailable:
        if isinstance(error, PreferencesUnavailable):
            return error
        now = time.monotonic()
        if now - self._logged_at >= _LOG_EVERY:
            self._logged_at = now
            # No text and no traceback: either could show whom it was asked for.
            logger.error(
                "second_mw: the host's preferences %s failed: %s", name, type(error).__name__
            )
        return PreferencesUnavailable(f"the host's preferences {name} failed")


def _is_clear(choice: Choice) -> bool:
    """Whether it says yes, no or nothing: a 0 of a database row is no choice the user made."""
    return all(
        value is None or isinstance(value, bool) for value in (choice.sharing, choice.anonymized)
    )
