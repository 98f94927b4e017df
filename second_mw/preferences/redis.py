"""`redis://` preferences: choices that all machines share (spec §7).

One hash under the outbox's hash tag; a field exists only for a choice that differs from the
default. A read waits no longer than the request can wait for it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Final

from redis.exceptions import RedisClusterException, RedisError

from second_mw.errors import PreferencesUnavailable, traced
from second_mw.outbox.redis import TAG, place_of
from second_mw.user import Choice

logger: logging.Logger = logging.getLogger("second_mw")

_KEY: Final = f"{TAG}:preferences"
#: Seconds. Below the 250 ms after which a store counts as failed.
_TIMEOUT: Final = 0.2
_LOG_EVERY: Final = 60.0
#: None, False and True, as they stand in the hash.
_WORDS: Final[dict[bool | None, bytes]] = {None: b"-", False: b"0", True: b"1"}
_MEANS: Final = {word: value for value, word in _WORDS.items()}


class RedisPreferences:
    """Keeps choices in Redis.

    Args:
        connect: returns a client; called again after a fork, and after `close`.
    """

    blocking = True
    #: By its own timeouts.
    bounded = True
    shared = True

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self._client: Any = None
        #: A parent's clients: closing one here would take locks that nobody gives back.
        self._abandoned: list[Any] = []
        self._logged_at = -_LOG_EVERY

    def get(self, user_key: str) -> Choice | None:
        """Return a user's choice, None if there is none.

        Raises:
            PreferencesUnavailable: Redis can't be read, or holds something else there.
        """
        kept = self._do(lambda client: client.hget(_KEY, user_key))
        if kept is None:
            return None
        if len(kept) != 2 or kept[:1] not in _MEANS or kept[1:] not in _MEANS:
            raise PreferencesUnavailable("a choice can't be read")
        return Choice(_MEANS[kept[:1]], _MEANS[kept[1:]])

    def put(self, user_key: str, choice: Choice) -> None:
        """Keep a user's choice.

        Raises:
            PreferencesUnavailable: it was not kept.
        """
        if choice == Choice():
            self._do(lambda client: client.hdel(_KEY, user_key))
            return
        kept = _WORDS[choice.sharing] + _WORDS[choice.anonymized]
        self._do(lambda client: client.hset(_KEY, user_key, kept))

    def not_alone(self) -> None:
        """Nothing to learn: all processes read the same."""

    def after_fork(self) -> None:
        """Take connections of its own in a forked child; the parent's are left alone."""
        if self._client is not None:
            self._abandoned.append(self._client)
        self._client = None

    def close(self) -> None:
        """Let go of the connections; the next call makes new ones."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _do(self, ask: Callable[[Any], Any]) -> Any:
        try:
            if self._client is None:
                self._client = self._connect()
            return ask(self._client)
        except (RedisError, RedisClusterException, OSError) as error:
            now = time.monotonic()
            if now - self._logged_at >= _LOG_EVERY:
                self._logged_at = now
                logger.warning("the preferences' Redis can't be had (%s)", traced(error))
            raise PreferencesUnavailable("Redis can't be had") from None


def from_url(url: str, setting: str = "preferences") -> RedisPreferences:
    """Return the store of a URL; what is behind its path is about events.

    Raises:
        ConfigurationError: the URL can't be used.
    """
    place = place_of(url, setting)
    return RedisPreferences(lambda: place.connect(_TIMEOUT, _TIMEOUT))
