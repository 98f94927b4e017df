"""A SQLite file of ours: opened, told from anybody else's, brought to today's schema (spec §11).

The outbox and the preferences may share one file, so the file's schema stands here and what the
rooms do with their tables stands with them. Here too stands what every connection must be: WAL
with a sync at each commit, `BEGIN IMMEDIATE` for each write, nothing deleted that can be read
again, and closed before a fork. A leaf that only the SQLite stores import, because `sqlite3` is
not loaded before a setting names a file.

Why closed before a fork: SQLite keeps, per process, a table of the locks it holds on a file. A
child inherits the table but not the locks, so a connection that it opens beside an inherited one
takes itself for protected, and the parent's last close would delete the log under its feet. For
the same reason nothing here opens the file but SQLite: whoever closes it, by whatever handle, takes
all of the process's locks on it away (POSIX).
"""

from __future__ import annotations

import itertools
import logging
import os
import sqlite3
import stat
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock, RLock
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl

from second_mw.errors import ConfigurationError

logger: logging.Logger = logging.getLogger("second_mw")

#: `PRAGMA application_id` of our files: "2mw" and a format letter, read as a number.
APPLICATION_ID: Final = int.from_bytes(b"2mwA", "big")

#: What brings a file from version n to n + 1, in order. Append; never change what was released.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        # `ready_at`: 0 while ready, else when its lease or its delay ends. Short columns first,
        # so that a large event's properties overflow into pages that a look at the rest skips.
        """CREATE TABLE entries (
            id INTEGER PRIMARY KEY,
            ready_at REAL NOT NULL,
            rounds INTEGER NOT NULL,
            accepted_at REAL NOT NULL,
            size INTEGER NOT NULL,
            distinct_id TEXT NOT NULL,
            uuid TEXT NOT NULL,
            event TEXT NOT NULL,
            timestamp TEXT NOT NULL,
            options BLOB NOT NULL,
            properties BLOB NOT NULL,
            UNIQUE (distinct_id, uuid)
        )""",
        "CREATE INDEX entries_by_ready_at ON entries (ready_at)",
        """CREATE TABLE dead (
            id INTEGER PRIMARY KEY,
            buried_at REAL NOT NULL,
            accepted_at REAL NOT NULL,
            size INTEGER NOT NULL,
            reason TEXT NOT NULL,
            distinct_id TEXT NOT NULL,
            uuid TEXT NOT NULL,
            event TEXT NOT NULL,
            timestamp TEXT NOT NULL,
            options BLOB NOT NULL,
            properties BLOB NOT NULL
        )""",
        "CREATE INDEX dead_by_buried_at ON dead (buried_at)",
        "CREATE INDEX dead_by_distinct_id ON dead (distinct_id)",
        # One row. `sequence` gives out ids that never come back: a key that a slow process still
        # holds must not name another event. `bytes` is what waits.
        """CREATE TABLE accounts (
            id INTEGER PRIMARY KEY CHECK (id = 1),
            sequence INTEGER NOT NULL,
            accepted INTEGER NOT NULL,
            delivered INTEGER NOT NULL,
            dead INTEGER NOT NULL,
            purged INTEGER NOT NULL,
            bytes INTEGER NOT NULL
        )""",
        "INSERT INTO accounts VALUES (1, 0, 0, 0, 0, 0, 0)",
        """CREATE TABLE preferences (
            user_key TEXT PRIMARY KEY,
            sharing INTEGER,
            anonymized INTEGER
        ) WITHOUT ROWID""",
    ),
)

#: What SQLite does not remember in the file, and so every connection says.
_PRAGMAS: Final = (
    "PRAGMA synchronous=FULL",  # an answered event is on the disk, not on its way there
    "PRAGMA fullfsync=ON",  # macOS: through the drive's cache too; elsewhere without effect
    "PRAGMA secure_delete=ON",  # what is erased or delivered can't be read from a free page
    "PRAGMA temp_store=MEMORY",
    "PRAGMA cache_size=-8000",  # KiB
    "PRAGMA journal_size_limit=33554432",  # bytes; after a burst the log gives its space back
)
#: Seconds to wait for other processes at start, which may all be making the file: a start may take
#: its time, and must not fail because the disk is slow.
_START_TIMEOUT: Final = 30.0
#: Bytes of a file that is looked through whole at start; a larger one would hold up the host.
_LOOKED_THROUGH: Final = 16 * 1024 * 1024
#: File systems on which SQLite's locks or its shared memory can't be relied on.
_NETWORK: Final = frozenset(
    """9p afs beegfs ceph cifs fuse.ceph fuse.gcsfuse fuse.glusterfs fuse.rclone fuse.s3fs
    fuse.sshfs glusterfs gpfs lustre ncpfs nfs nfs4 prl_fs smb smb2 smb3 smbfs vboxsf virtiofs
    """.split()
)


class Cursor(Protocol):
    """What a statement gave."""

    @property
    def rowcount(self) -> int:
        """How many rows it changed."""
        ...

    def fetchone(self) -> Any:
        """Return the next row or None."""
        ...

    def fetchall(self) -> list[Any]:
        """Return all rows."""
        ...

    def __iter__(self) -> Iterator[Any]: ...

    def close(self) -> None:
        """Give up the rows that were not fetched."""
        ...


class Connection(Protocol):
    """What is used of a `sqlite3.Connection` in autocommit mode; it raises `sqlite3.Error`."""

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> Cursor:
        """Run one statement."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


Connect = Callable[[str, float], Connection]


def connected(path: str, timeout: float) -> Connection:
    """Return a connection that waits up to `timeout` seconds for another's lock."""
    return sqlite3.connect(path, timeout=timeout, isolation_level=None, check_same_thread=False)


class Database:
    """One of our files, with a connection to write and one to read, opened when needed.

    Args:
        path: the file; made with mode 0600 if it is not there. A relative one is taken from the
            directory the process is in now.
        setting: the setting that named it, for error messages.
        read_timeout, write_timeout: seconds to wait for another connection's lock.
        connect: opens a connection, for tests.
        forked: called in a forked child, for what its owner has to begin anew.

    Raises:
        ConfigurationError: the file can't be used, or is not ours; it was left as it is.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        setting: str,
        read_timeout: float = 5.0,
        write_timeout: float = 10.0,
        connect: Connect = connected,
        forked: Callable[[], None] | None = None,
    ) -> None:
        self.path: Path = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links
        self._setting = setting
        self._read_timeout = read_timeout
        self._write_timeout = write_timeout
        self._connect = connect
        self._forked = forked
        self._reader: Connection | None = None
        self._writer: Connection | None = None
        self._pid = os.getpid()
        self._is_inherited = False
        self._inode = 0
        self._begin()
        self._prepare()
        if (kind := network_file_system(self.path)) is not None:
            logger.warning(
                "%s: %s lies on a network file system (%s), where SQLite's locks can't be relied "
                "on: events may be lost. Use a local disk, or redis://",
                setting,
                self.path,
                kind,
            )
        _watch(self)

    def __del__(self) -> None:
        # Who forgets to close, or is late with a call after the close, leaves no file open. In a
        # child that was forked behind Python's back nothing is closed: it is the parent's.
        if os.getpid() == getattr(self, "_pid", None):
            for db in (self._reader, self._writer):
                if db is not None:
                    _closed(db)

    def _begin(self) -> None:
        self._write_lock = RLock()
        self._read_lock = RLock()
        self._is_reading = False

    # Reading and writing

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Hold the file's one write transaction; it is committed at the end, or nothing was done.

        Raises:
            sqlite3.Error, ConfigurationError, OSError: nothing was done.
        """
        with self._write_lock:
            db = self._writing_connection()
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException as error:
                self._roll_back(db, error)
                raise

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Look at one moment of the file; waits for nobody's write.

        Raises:
            sqlite3.Error, ConfigurationError, OSError: it can't be read.
        """
        if not self._read_lock.acquire(timeout=self._read_timeout):
            raise sqlite3.OperationalError("another thread reads for too long")
        try:
            if self._is_reading:
                # A signal handler looks while its own thread does.
                yield self._reading_connection()
                return
            self._is_reading = True
            try:
                with self._look() as db:
                    yield db
            finally:
                self._is_reading = False
        finally:
            self._read_lock.release()

    @contextmanager
    def _look(self) -> Iterator[Connection]:
        db = self._reading_connection()
        try:
            db.execute("BEGIN")
            yield db
            db.execute("COMMIT")
        except BaseException:
            self._reader = None
            _closed(db)
            raise

    def entered(self) -> bool:
        """Return whether the calling thread is reading or writing: a signal handler may be."""
        # What threading.Condition asks a lock, too; there is no public way.
        return any(lock._is_owned() for lock in (self._write_lock, self._read_lock))  # type: ignore[attr-defined]

    def _roll_back(self, db: Connection, error: BaseException) -> None:
        """Undo; after an error of the file's own the next transaction gets a new connection."""
        try:
            db.execute("ROLLBACK")
        except sqlite3.Error:
            # Some errors (a full disk, a failed write) have rolled back already.
            pass
        if isinstance(error, sqlite3.Error):
            self._writer = None
            _closed(db)

    def _writing_connection(self) -> Connection:
        if self._writer is not None and self._gone():
            self.close()
        if self._writer is None:
            self._prepare()
            self._writer = self._opened(self._write_timeout)
            self._inode = self.path.stat().st_ino
        return self._writer

    def _gone(self) -> bool:
        """Whether the file was removed or replaced: what is written to it would be lost."""
        try:
            return self.path.stat().st_ino != self._inode
        except OSError:
            return True

    def _reading_connection(self) -> Connection:
        if self._reader is None:
            if not self.path.exists():
                self._prepare()
            self._reader = self._opened(self._read_timeout)
            _all(self._reader, "PRAGMA query_only=ON")
        return self._reader

    def _opened(self, timeout: float) -> Connection:
        if self._is_inherited:
            raise sqlite3.OperationalError(_FORKED)
        db = self._connect(str(self.path), timeout)
        try:
            for pragma in _PRAGMAS:
                _all(db, pragma)
        except BaseException:
            _closed(db)
            raise
        return db

    # Upkeep

    def truncate_log(self) -> bool:
        """Empty the write-ahead log, which still holds what was deleted; return whether it is.

        Another connection's long read can prevent it.
        """
        with self._write_lock:
            db = self._writing_connection()
            busy, _, _ = _all(db, "PRAGMA wal_checkpoint(TRUNCATE)")[0]
            return not busy

    def free_pages(self) -> int:
        """Return how many pages of the file are free."""
        with self.reading() as db:
            return int(_value(db, "PRAGMA freelist_count"))

    def give_back(self, pages: int) -> None:
        """Give up to so many free pages back to the file system."""
        with self.writing() as db:
            # One page a statement: the sqlite3 of Python 3.11 takes the pragma for done after the
            # first of its steps, and each step gives one page back.
            for _ in range(pages):
                db.execute("PRAGMA incremental_vacuum(1)")

    def damage(self) -> str | None:
        """Look through the whole file; return what SQLite finds wrong, None if nothing."""
        with self.reading() as db:
            return _damage(db)

    def close(self) -> None:
        """Close the connections; the next use opens them again."""
        with self._write_lock, self._read_lock:
            reader, self._reader = self._reader, None
            writer, self._writer = self._writer, None
            for db in (reader, writer):
                if db is not None:
                    _closed(db)

    # Forks

    def before_fork(self) -> None:
        """Close what a child must not inherit, and let no thread open it before the fork is done.

        Waits for the transaction under way.
        """
        self._write_lock.acquire()
        self._read_lock.acquire()
        self.close()

    def after_fork_in_parent(self) -> None:
        """Let the threads go on."""
        self._read_lock.release()
        self._write_lock.release()

    def after_fork(self) -> None:
        """Become the child's own: new locks, connections of its own; once for each child."""
        if self._pid == os.getpid():
            return
        inherited = [db for db in (self._reader, self._writer) if db is not None]
        if inherited:
            # A fork that Python was not told of. Kept, because collected is closed. Nothing is
            # opened beside them: what was written there could be lost with the parent's close.
            _left_behind.extend(inherited)
            self._is_inherited = True
            logger.error("second_mw: %s %s", self.path, _FORKED)
        self._reader = self._writer = None
        self._pid = os.getpid()
        self._begin()
        if self._forked is not None:
            self._forked()

    # Opening

    def _prepare(self) -> None:
        """Make the file, or make sure that it is ours, and bring it to today's schema.

        The connection is closed again: a process that only loads the app holds nothing.
        """
        self._create()
        db: Connection | None = None
        try:
            db = self._opened(_START_TIMEOUT)
            # Built into every SQLite since 3.38, and left out of few before.
            _all(db, "SELECT value FROM json_each('[]')")
            self._migrate(db)
            self._use_wal(db)
            if self.path.stat().st_size <= _LOOKED_THROUGH:
                found = _damage(db)
                if found is not None:
                    raise self._wrong(f"is damaged ({found})", _RESTORE)
        except OSError as error:
            raise self._wrong(f"can't be read ({error.strerror})", _ALLOW) from None
        except sqlite3.OperationalError as error:
            raise self._wrong(f"can't be used ({error})", _ALLOW) from None
        except sqlite3.DatabaseError as error:
            if "not a database" in str(error):
                raise self._wrong("is no SQLite file", _OTHER) from None
            raise self._wrong(f"is damaged ({error})", _RESTORE) from None
        except UnicodeDecodeError:
            # SQLite's message quotes what it could not read, and Python can't read that.
            raise self._wrong("is damaged", _RESTORE) from None
        finally:
            if db is not None:
                _closed(db)

    def _create(self) -> None:
        if not self.path.parent.is_dir():
            raise self._wrong("can't be made: its directory does not exist", _MAKE)
        try:
            # SQLite gives its -wal and -shm the mode of the file.
            with _making["lock"]:
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            if not self.path.is_file():
                raise self._wrong("is no file", _OTHER) from None
        except OSError as error:
            raise self._wrong(f"can't be made ({error.strerror})", _ALLOW) from None

    def _migrate(self, db: Connection) -> None:
        # In one transaction: another process may be making the file, and be done in between.
        db.execute("BEGIN")
        try:
            application, version = _identity(db)
            empty = _value(db, "SELECT count(*) FROM sqlite_master") == 0
        finally:
            db.execute("ROLLBACK")
        if application != APPLICATION_ID and (application or version or not empty):
            raise self._wrong("is a SQLite file of another program", _OTHER)
        if version > len(MIGRATIONS):
            raise self._wrong(
                "was written by a newer second_mw", "Install that version again, or name a new file"
            )
        if version == len(MIGRATIONS):
            return
        # Takes effect in an empty file only, and there only before anything is written.
        _all(db, "PRAGMA auto_vacuum=INCREMENTAL")
        db.execute("BEGIN IMMEDIATE")
        try:
            # Another process may have been quicker.
            _, version = _identity(db)
            for statements in MIGRATIONS[version:]:
                for statement in statements:
                    db.execute(statement)
            db.execute(f"PRAGMA application_id={APPLICATION_ID}")
            db.execute(f"PRAGMA user_version={len(MIGRATIONS)}")
            db.execute("COMMIT")
        except BaseException:
            db.execute("ROLLBACK")
            raise

    def _use_wal(self, db: Connection) -> None:
        """Switch to the write-ahead log, once in a file's life."""
        deadline = time.monotonic() + _START_TIMEOUT
        while _value(db, "PRAGMA journal_mode") != "wal":
            try:
                if _value(db, "PRAGMA journal_mode=WAL") == "wal":
                    return
                raise self._wrong("can't have a write-ahead log where it lies", "Use a local disk")
            except sqlite3.OperationalError:
                # This switch does not wait for other connections by itself.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _wrong(self, what: str, advice: str) -> ConfigurationError:
        return ConfigurationError(
            f"{self._setting}: {self.path} {what}. It was left as it is. {advice}."
        )


_FORKED: Final = (
    "was open when this process was forked without Python's knowledge, so it can't be used here: "
    "load the app in each worker instead (uWSGI: lazy-apps = true)"
)
_MAKE: Final = (
    "Make the directory; if another was meant: an absolute path takes four slashes, sqlite:////"
)
_OTHER: Final = "Name a new file, or one that second_mw has made"
_ALLOW: Final = (
    "The process must be able to write the file and its directory, where SQLite keeps a log too"
)
_RESTORE: Final = "Move it away, or bring it back from a backup; `sqlite3 FILE .recover` may help"


def file_of(url: str, setting: str, allowed: Sequence[str]) -> tuple[str, Mapping[str, int]]:
    """Return a `sqlite:///` URL's path and its options, as SQLAlchemy takes them.

    Args:
        url: `sqlite:///relative.db`, `sqlite:////absolute.db` or `sqlite:///C:/windows.db`.
        setting: where it comes from, for error messages.
        allowed: the options that may follow a `?`; each is a whole number, 1 or more.

    Raises:
        ConfigurationError: it is none.

    >>> file_of("sqlite:////var/lib/second/outbox.db?max=5", "outbox", ["max"])
    ('/var/lib/second/outbox.db', {'max': 5})
    """
    rest, _, query = url.removeprefix("sqlite://").partition("?")
    path = rest.removeprefix("/")
    if not rest.startswith("/") or not path.strip() or path.startswith(":memory:"):
        raise ConfigurationError(
            f"{setting} is {url!r}, which names no file: it must be sqlite:///relative/path.db or "
            "sqlite:////absolute/path.db (four slashes)."
        )
    options: dict[str, int] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in allowed or not (value.isascii() and value.isdecimal() and int(value)):
            known = " and ".join(f"?{each}=" for each in allowed) or "nothing"
            raise ConfigurationError(
                f"{setting} has the option {name!r} with the value {value!r}, which is not "
                f"allowed: behind the path may stand {known}, each a whole number, 1 or more."
            )
        options[name] = int(value)
    return path, options


def network_file_system(path: Path, mounts: str = "/proc/self/mounts") -> str | None:
    """Return the kind of network file system a path lies on, None if on none that is known.

    Args:
        path: an absolute path.
        mounts: the kernel's list of mounts; where there is none, nothing is known.
    """
    try:
        lines = Path(mounts).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    real = os.path.realpath(path)
    longest, kind = "", ""
    for line in lines:
        fields = line.split()
        if len(fields) < 3:
            continue
        # Spaces and backslashes in a mount point are written as octal escapes.
        point = fields[1].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
        if (real + "/").startswith(point.rstrip("/") + "/") and len(point) >= len(longest):
            longest, kind = point, fields[2]
    return kind if kind in _NETWORK else None


def open_to_others(path: Path) -> bool:
    """Whether others than its owner may read a file."""
    if sys.platform == "win32":
        return False
    return bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))


def _identity(db: Connection) -> tuple[int, int]:
    return _value(db, "PRAGMA application_id"), _value(db, "PRAGMA user_version")


def _all(db: Connection, sql: str) -> list[Any]:
    return db.execute(sql).fetchall()


def _value(db: Connection, sql: str) -> Any:
    rows = _all(db, sql)
    return rows[0][0] if rows else None


def _damage(db: Connection) -> str | None:
    found = str(_value(db, "PRAGMA quick_check(1)"))
    return None if found == "ok" else found.splitlines()[-1]


def _closed(db: Connection) -> None:
    try:
        db.close()
    except sqlite3.Error as error:
        logger.debug("a SQLite connection could not be closed: %s", error)


# Forks. In order of opening, so that two threads that fork at once take the locks alike.

_watched: weakref.WeakValueDictionary[int, Database] = weakref.WeakValueDictionary()
_numbers = itertools.count()
_left_behind: list[Connection] = []
_hooks = {"installed": False}
# Held until the handle is closed that made a file, so that no other thread has locks on it by then.
_making: dict[str, Any] = {"lock": Lock()}


def _watch(database: Database) -> None:
    _watched[next(_numbers)] = database
    if not _hooks["installed"] and hasattr(os, "register_at_fork"):
        _hooks["installed"] = True
        os.register_at_fork(
            before=_before_fork,
            after_in_parent=_after_fork_in_parent,
            after_in_child=_after_fork_in_child,
        )


# What was locked for the fork under way, by the thread that forks.
_locked: list[Database] = []


def _before_fork() -> None:
    for database in list(_watched.values()):
        database.before_fork()
        _locked.append(database)


def _after_fork_in_parent() -> None:
    while _locked:
        _locked.pop().after_fork_in_parent()


def _after_fork_in_child() -> None:
    _locked.clear()
    _making["lock"] = Lock()
    for database in list(_watched.values()):
        database.after_fork()
