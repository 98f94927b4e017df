"""`sqlite:///path` preferences: choices that outlive the process and are shared by many (spec §7).

The file may be the outbox's; the table is this room's own. A read waits for nobody longer than the
request can wait for it (spec §7, 250 ms): in WAL mode it does not wait for a write at all.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from second_mw.database import Connect, Database, connected, file_of
from second_mw.errors import ConfigurationError, PreferencesUnavailable
from second_mw.user import Choice

logger: logging.Logger = logging.getLogger("second_mw")

#: Seconds. Below the 250 ms after which a store counts as failed.
_READ_TIMEOUT: Final = 0.2
#: Seconds; somebody waits in front of a switch.
_WRITE_TIMEOUT: Final = 3.0
#: Errors of the file are logged once in so many seconds.
_LOG_EVERY: Final = 60.0


class SqlitePreferences:
    """Keeps choices in a file; a row exists only for one that differs from the default.

    Args:
        path: the file, made if it is not there.
        setting: the setting that names the file, for error messages.
        connect: opens a connection, for tests.

    Raises:
        ConfigurationError: the file can't be used, or is not ours; it was left as it is.
    """

    blocking = True
    #: By its own timeouts.
    bounded = True
    shared = True

    def __init__(
        self, path: str, *, setting: str = "preferences", connect: Connect = connected
    ) -> None:
        self._database = Database(
            path,
            setting=setting,
            read_timeout=_READ_TIMEOUT,
            write_timeout=_WRITE_TIMEOUT,
            connect=connect,
        )
        self._logged_at = -_LOG_EVERY

    def get(self, user_key: str) -> Choice | None:
        """Return a user's choice, None if there is none.

        Raises:
            PreferencesUnavailable: the file can't be read.
        """
        with self._failing(), self._database.reading() as db:
            row = db.execute(
                "SELECT sharing, anonymized FROM preferences WHERE user_key = ?", (user_key,)
            ).fetchone()
        return None if row is None else Choice(*map(_flag, row))

    def put(self, user_key: str, choice: Choice) -> None:
        """Keep a user's choice, on the disk.

        Raises:
            PreferencesUnavailable: it was not kept.
        """
        with self._failing(), self._database.writing() as db:
            db.execute("DELETE FROM preferences WHERE user_key = ?", (user_key,))
            if choice != Choice():
                db.execute(
                    "INSERT INTO preferences VALUES (?, ?, ?)",
                    (user_key, choice.sharing, choice.anonymized),
                )

    def not_alone(self) -> None:
        """Other processes read the same file."""

    def after_fork(self) -> None:
        """Take locks and connections of the child's own."""
        self._database.after_fork()

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        self._database.close()

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, ConfigurationError, OSError, UnicodeDecodeError) as error:
            now = time.monotonic()
            if now - self._logged_at >= _LOG_EVERY:
                self._logged_at = now
                logger.error("second_mw: the preferences in %s: %s", self._database.path, error)
            raise PreferencesUnavailable("the preferences can't be read or written") from error


def _flag(value: object) -> bool | None:
    """Return what a row holds; only a clear 0 is a no to anonymity."""
    return None if value is None else value != 0


def from_url(url: str, setting: str = "preferences") -> SqlitePreferences:
    """Return the store of `sqlite:///path`.

    Raises:
        ConfigurationError: the URL or the file is wrong.
    """
    path, _ = file_of(url, setting, ())
    return SqlitePreferences(path, setting=setting)
