"""The SQLite outbox: durable, for one machine and any number of its processes (spec §11).

An event that was answered for is on the disk. All writing of a process goes through one writer
thread (`writer.py`), each group of jobs being one `BEGIN IMMEDIATE` transaction that also keeps
the accounts; reading goes past it, and waits for nobody. Every look at what waits goes along an
index or reads the accounts' one row, so that a backlog of a million costs a batch no more than one
of ten thousand. What a file of ours is, stands in `database.py`.
"""

from __future__ import annotations

import logging
import shutil
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Final, Literal

import msgspec

from second_mw.database import (
    Connect,
    Connection,
    Database,
    connected,
    file_of,
    network_file_system,
    open_to_others,
)
from second_mw.errors import ConfigurationError, OutboxUnavailable
from second_mw.outbox.base import Counts, DeadLetter, Entry
from second_mw.outbox.writer import Job, Writer
from second_mw.payload import Payload

logger: logging.Logger = logging.getLogger("second_mw")

MAX_EVENTS: Final = 2_000_000
#: Bytes of what waits, indices and page slack not counted.
MAX_BYTES: Final = 2 * 1024**3
KEEP_DEAD_DAYS: Final = 30
#: Dead letters at hand; beyond it the oldest go before their time, and the log says so.
MAX_DEAD_LETTERS: Final = 200_000
_DAY: Final = 86_400.0
#: No lease and no delay is longer, in seconds; what seems to be is a clock that was put back.
_LONGEST_HOLD: Final = 7 * _DAY
#: Rows that upkeep changes in one transaction; others write between two.
_A_STEP: Final = 5_000
#: Held entries that are counted one by one; beyond it the ready ones are.
_FEW: Final = 10_000
#: Pages that stay free, because the next burst will need them.
_SPARE_PAGES: Final = 256
_AN_HOUR: Final = 3_600.0
#: Errors of the file are logged once in so many seconds.
_LOG_EVERY: Final = 60.0

_PAYLOAD: Final = "event, uuid, distinct_id, timestamp, properties, options"
_ENTRY: Final = f"id, rounds, accepted_at, {_PAYLOAD}"
_LETTER: Final = f"reason, buried_at, {_PAYLOAD}"
_INSERT: Final = """INSERT OR IGNORE INTO entries
    (id, ready_at, rounds, accepted_at, size, event, uuid, distinct_id, timestamp, properties,
     options) VALUES (?, 0, 0, ?, ?, ?, ?, ?, ?, ?, ?)"""
_BURY: Final = f"""INSERT INTO dead (id, buried_at, accepted_at, size, reason, {_PAYLOAD})
    SELECT id, ?, accepted_at, size, ?, {_PAYLOAD} FROM entries WHERE id = ?"""

# One statement for a whole batch: a statement a row costs twice as much.
_ONE_OF: Final = "id IN (SELECT value FROM json_each(?))"
_HOLD: Final = f"UPDATE entries SET ready_at = ? WHERE {_ONE_OF}"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode
#: What a file can do to us; the last is a damaged text.
_FAILURES: Final = (sqlite3.Error, ConfigurationError, OSError, UnicodeDecodeError)


class _Books:
    """One write transaction: the connection, and the accounts' row as it will be.

    Args:
        db: inside its transaction.
        now: seconds since the epoch.
    """

    __slots__ = ("_before", "accepted", "bytes", "db", "dead", "delivered", "now", "purged",
                 "sequence")  # fmt: skip

    def __init__(self, db: Connection, now: float) -> None:
        self.db = db
        self.now = now
        self.sequence: int
        self.accepted: int
        self.delivered: int
        self.dead: int
        self.purged: int
        self.bytes: int
        self._before: tuple[int, int, int, int, int, int] = db.execute(
            "SELECT sequence, accepted, delivered, dead, purged, bytes FROM accounts"
        ).fetchone()
        self.sequence, self.accepted, self.delivered, self.dead, self.purged, self.bytes = (
            self._before
        )

    @property
    def waiting(self) -> int:
        return self.accepted - self.delivered - self.dead - self.purged

    def next_id(self) -> int:
        self.sequence += 1
        return self.sequence

    def close(self) -> None:
        """Write the accounts, if they changed."""
        after = (
            self.sequence, self.accepted, self.delivered, self.dead, self.purged, self.bytes,
        )  # fmt: skip
        if after != self._before:
            self.db.execute(
                "UPDATE accounts SET sequence = ?, accepted = ?, delivered = ?, dead = ?, "
                "purged = ?, bytes = ?",
                after,
            )


class SqliteStore:
    """Keeps payloads in a file that outlives the process and may be shared by many.

    Args:
        path: the file, made if it is not there.
        max_events: how many may wait; a put that would exceed it keeps nothing.
        max_bytes: how many bytes may wait, likewise.
        keep_dead: days for which dead letters are kept.
        setting: the setting that names the file, for error messages.
        clock: seconds since the epoch; all processes of a file must agree on it.
        connect: opens a connection, for tests.

    Raises:
        ConfigurationError: the file can't be used, or is not ours; it was left as it is.
    """

    durable = True
    blocking = True
    #: It remembers nobody.
    key_of_user: Callable[[str], str] | None = None

    def __init__(
        self,
        path: str,
        *,
        max_events: int = MAX_EVENTS,
        max_bytes: int = MAX_BYTES,
        keep_dead: float = KEEP_DEAD_DAYS,
        setting: str = "outbox",
        clock: Callable[[], float] = time.time,
        connect: Connect = connected,
    ) -> None:
        self.max_events = max_events
        self.max_bytes = max_bytes
        self.keep_dead = keep_dead
        self._clock = clock
        self._writer: Writer[_Books] = Writer(self._commit, self._keep_up)
        self._database = Database(
            path, setting=setting, connect=connect, forked=self._writer.after_fork
        )
        self._expired_at = 0.0
        self._logged_at = -_LOG_EVERY

    @property
    def path(self) -> str:
        """The file's absolute path."""
        return str(self._database.path)

    # Taking in

    def put(self, payloads: Sequence[Payload]) -> int:
        """Keep all payloads or none, on the disk; return how many are new.

        Raises:
            OutboxUnavailable: `full` or `store_failed`; none was kept.
        """
        new: int = self.submit(payloads).result()
        return new

    def submit(self, payloads: Sequence[Payload]) -> Future[int]:
        """Like `put`, without blocking: the future has its result or its exception."""
        rows = [_row(payload) for payload in payloads]

        def keep(books: _Books) -> int:
            if self._fits(books, len(rows), sum(row[0] for row in rows)):
                return _keep(books, rows)
            # Some may wait already, which only trying tells.
            books.db.execute("SAVEPOINT put")
            was = (books.sequence, books.accepted, books.bytes)
            new = _keep(books, rows)
            fits = self._fits(books, 0, 0)
            if not fits:
                books.db.execute("ROLLBACK TO put")
                books.sequence, books.accepted, books.bytes = was
            books.db.execute("RELEASE put")
            if not fits:
                raise OutboxUnavailable("full")
            return new

        return self._writer.submit(keep)

    def _fits(self, books: _Books, count: int, size: int) -> bool:
        return books.waiting + count <= self.max_events and books.bytes + size <= self.max_bytes

    # Lending and settling

    def lease(self, limit: int, max_bytes: int, ttl: float) -> list[Entry]:
        """Take up to `limit` entries of together at most `max_bytes` for `ttl` seconds."""
        leased: list[Entry] = self._do(lambda books: _lease(books, limit, max_bytes, ttl))
        return leased

    def renew(self, keys: Sequence[str], ttl: float) -> None:
        """Hold these leases for another `ttl` seconds; a lease that ran out is taken again."""
        ids = _ids(keys)

        def renew(books: _Books) -> None:
            books.db.execute(_HOLD, (books.now + ttl, _listed(ids)))

        self._do(renew)

    def ack(self, keys: Sequence[str]) -> None:
        """Settle these entries as delivered."""
        ids = _ids(keys)

        def settle(books: _Books) -> None:
            books.delivered += _remove(books, ids)

        self._do(settle)

    def release(self, keys: Sequence[str], not_before: float) -> None:
        """Give these entries back, to be leased again no sooner than in `not_before` seconds."""
        ids = _ids(keys)

        def release(books: _Books) -> None:
            ready_at = books.now + not_before if not_before > 0 else 0.0
            books.db.execute(
                f"UPDATE entries SET ready_at = ?, rounds = rounds + 1 WHERE {_ONE_OF}",
                (ready_at, _listed(ids)),
            )

        self._do(release)

    def bury(self, reasons: Mapping[str, str]) -> None:
        """Move entries to the dead letters: key → reason."""

        def bury(books: _Books) -> None:
            ids = _ids(reasons)
            for each in ids:
                books.db.execute(_BURY, (books.now, reasons[str(each)], each))
            books.dead += _remove(books, ids)

        self._do(bury)

    # The dead

    def dead_letters(self, limit: int) -> list[DeadLetter]:
        """Return up to `limit` dead letters, newest first."""
        with self._reading() as db:
            rows = db.execute(
                f"SELECT {_LETTER} FROM dead WHERE buried_at > ? "
                "ORDER BY buried_at DESC, id DESC LIMIT ?",
                (self._dead_since(), limit),
            ).fetchall()
        return [_letter(row) for row in rows]

    def dead_reasons(self) -> dict[str, int]:
        """Return how many dead letters are at hand by the reason's machine word."""
        with self._reading() as db:
            rows = db.execute(
                f"SELECT {_WORD} AS word, count(*) FROM dead WHERE buried_at > ? "
                "GROUP BY word ORDER BY word",
                (self._dead_since(),),
            ).fetchall()
        return dict(rows)

    def retry(self, reason: str | None = None) -> int:
        """Let dead letters wait again, all or those of one machine word; return how many do.

        Raises:
            OutboxUnavailable: `full` or `store_failed`; it may have taken some of them back.
        """
        retried = 0
        looked_at: int
        returned: int
        while True:
            looked_at, returned = self._do(lambda books: self._retry_some(books, reason))
            retried += returned
            if looked_at < _A_STEP:
                return retried

    def _retry_some(self, books: _Books, reason: str | None) -> tuple[int, int]:
        """Take back one step's letters; return how many were looked at, and how many wait."""
        rows = books.db.execute(
            f"SELECT id, accepted_at, size, {_PAYLOAD} FROM dead "
            f"WHERE ? IS NULL OR {_WORD} = ? ORDER BY id LIMIT ?",
            (reason, reason, _A_STEP),
        ).fetchall()
        if not self._fits(books, len(rows), sum(row[2] for row in rows)):
            raise OutboxUnavailable("full")
        returned = 0
        for letter, accepted_at, size, *payload in rows:
            books.db.execute("DELETE FROM dead WHERE id = ?", (letter,))
            # A new id: a lease of its former life must not settle it.
            given = (books.next_id(), accepted_at, size, *payload)
            if books.db.execute(_INSERT, given).rowcount > 0:
                returned += 1
                books.bytes += size
            else:
                books.purged += 1
        books.dead -= len(rows)
        return len(rows), returned

    # Looking, dropping

    def peek(self, limit: int) -> list[Entry]:
        """Return up to `limit` entries that wait, leased ones too, oldest first; lease none."""
        with self._reading() as db:
            rows = db.execute(
                f"SELECT {_ENTRY} FROM entries ORDER BY id LIMIT ?", (limit,)
            ).fetchall()
        return [_entry(row) for row in rows]

    def purge(self, what: Literal["waiting", "dead"] = "waiting") -> int:
        """Drop everything that waits, leased or not, or every dead letter; return how many."""
        with self._reading() as db:
            (last,) = db.execute(f"SELECT max(id) FROM {_TABLES[what]}").fetchone()
        return self._drop(what, "id <= ?", last)

    def erase(self, distinct_ids: Collection[str]) -> int:
        """Drop what waits and what is dead under these distinct_ids, for good; return how many.

        Raises:
            OutboxUnavailable: it may have dropped some of them.
        """
        dropped = sum(
            self._drop(what, "distinct_id = ?", each)
            for each in distinct_ids
            for what in ("waiting", "dead")
        )
        self._forget()
        return dropped

    def _drop(self, what: str, where: str, value: object) -> int:
        """Drop entries or letters in steps, so that others write between two."""
        dropped = 0
        step: int
        while step := self._do(lambda books: _drop_some(books, what, where, value)):
            dropped += step
        return dropped

    def _forget(self) -> None:
        """Empty the log, where what was deleted can still be read."""
        for _ in range(20):
            try:
                if self._database.truncate_log():
                    return
            except _FAILURES as error:
                raise self._failed(error) from None
            time.sleep(0.05)
        logger.warning(
            "second_mw: %s-wal could not be emptied while another process reads; it may hold what "
            "was erased until then. Erase again",
            self.path,
        )

    def export(self, distinct_ids: Collection[str]) -> list[Entry | DeadLetter]:
        """Return what waits, then what is dead, under these distinct_ids; each oldest first."""
        waiting: list[Entry | DeadLetter] = []
        dead: list[Entry | DeadLetter] = []
        with self._reading() as db:
            for each in distinct_ids:
                waiting += map(
                    _entry,
                    db.execute(
                        f"SELECT {_ENTRY} FROM entries WHERE distinct_id = ? ORDER BY id", (each,)
                    ),
                )
                dead += map(
                    _letter,
                    db.execute(
                        f"SELECT {_LETTER} FROM dead WHERE distinct_id = ? ORDER BY buried_at, id",
                        (each,),
                    ),
                )
        return waiting + dead

    # Accounts

    def next_ready_in(self) -> float | None:
        """Seconds until an entry is ready: 0.0 if one is, None if nothing waits."""
        with self._reading() as db:
            (ready_at,) = db.execute("SELECT min(ready_at) FROM entries").fetchone()
        return None if ready_at is None else max(0.0, ready_at - self._clock())

    def counts(self) -> Counts:
        """Return the accounts, all of one moment."""
        now = self._clock()
        with self._reading() as db:
            accepted, delivered, dead, purged = db.execute(
                "SELECT accepted, delivered, dead, purged FROM accounts"
            ).fetchone()
            waiting = accepted - delivered - dead - purged
            oldest = db.execute("SELECT accepted_at FROM entries ORDER BY id LIMIT 1").fetchone()
            (held,) = db.execute(
                "SELECT count(*) FROM (SELECT 1 FROM entries WHERE ready_at > ? LIMIT ?)",
                (now, _FEW),
            ).fetchone()
            ready = waiting - held
            if held == _FEW:
                (ready,) = db.execute(
                    "SELECT count(*) FROM entries WHERE ready_at <= ?", (now,)
                ).fetchone()
        oldest_age = max(0.0, now - oldest[0]) if oldest else 0.0
        return Counts(accepted, delivered, dead, waiting, purged, ready, oldest_age)

    def check(self) -> list[str]:
        """Return what an operator should change about this store, in sentences."""
        try:
            self._do(lambda books: books.db.execute("UPDATE accounts SET bytes = bytes"))
            damage = self._database.damage()
            counts = self.counts()
        except (OutboxUnavailable, *_FAILURES) as error:
            cause = error.__cause__ or error
            return [f"{self.path} can't be read and written: {cause}."]
        found = []
        if damage is not None:
            found.append(f"{self.path} is damaged ({damage}): bring it back from a backup.")
        if (kind := network_file_system(self._database.path)) is not None:
            found.append(f"{self.path} lies on a network file system ({kind}): use a local disk.")
        if open_to_others(self._database.path):
            found.append(f"{self.path} can be read by others: chmod 600 it.")
        if shutil.disk_usage(self._database.path.parent).free < 100 * 1024**2:
            found.append(f"Less than 100 MB are free where {self.path} lies.")
        if counts.waiting > 0.7 * self.max_events:
            found.append(
                f"{counts.waiting} of at most {self.max_events} events wait: when it is full, "
                "browsers are told to keep theirs (503)."
            )
        return found

    # The process's life

    def entered(self) -> bool:
        """Return whether the calling thread is inside this store: a signal handler may be."""
        return self._writer.entered() or self._database.entered()

    def after_fork(self) -> None:
        """Become the child's own: what waits in the file is everybody's."""
        self._database.after_fork()

    def close(self) -> None:
        """Commit what is under way, end the thread and close the file; the next call reopens."""
        self._writer.close()
        self._database.close()

    # Transactions

    def _do(self, work: Callable[[_Books], Any]) -> Any:
        """Have the writer do this in a transaction; return what it returned."""
        return self._writer.submit(work).result()

    def _commit(self, jobs: list[Job[_Books]]) -> None:
        """Carry out jobs in one transaction; if it fails, all of them have failed."""
        try:
            with self._database.writing() as db:
                books = _Books(db, self._clock())
                for job in jobs:
                    try:
                        job.result = job.work(books)
                    except OutboxUnavailable as refused:
                        job.error = refused
                books.close()
        except Exception as error:
            for job in jobs:
                job.error = self._failed(error)

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        try:
            with self._database.reading() as db:
                yield db
        except _FAILURES as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> OutboxUnavailable:
        """Return what a caller gets; what happened to the file goes to the log, now and then."""
        now = time.monotonic()
        if now - self._logged_at >= _LOG_EVERY:
            self._logged_at = now
            logger.error("second_mw: the outbox %s failed: %s", self.path, error)
        unavailable = OutboxUnavailable("store_failed")
        unavailable.__cause__ = error
        return unavailable

    # Upkeep, in the writer thread while nobody waits for it

    def _dead_since(self) -> float:
        return self._clock() - self.keep_dead * _DAY

    def _keep_up(self) -> None:
        try:
            self._expire()
            spare = self._database.free_pages() - _SPARE_PAGES
            if spare > 0:
                self._database.give_back(min(spare, _A_STEP))
        except _FAILURES as error:
            self._failed(error)

    def _expire(self) -> None:
        """Drop the dead letters that are too old, or too many; once an hour."""
        now = self._clock()
        if 0 <= now - self._expired_at < _AN_HOUR:
            return
        self._expired_at = now
        with self._database.writing() as db:
            db.execute("DELETE FROM dead WHERE buried_at <= ?", (self._dead_since(),))
            (count,) = db.execute("SELECT count(*) FROM dead").fetchone()
            if count > MAX_DEAD_LETTERS:
                surplus = count - MAX_DEAD_LETTERS
                db.execute(
                    "DELETE FROM dead WHERE id IN (SELECT id FROM dead ORDER BY buried_at LIMIT ?)",
                    (surplus,),
                )
                logger.warning(
                    "second_mw dropped the %d oldest dead letters: more than %d have gathered",
                    surplus,
                    MAX_DEAD_LETTERS,
                )


# What jobs do, inside a transaction

#: The machine word of a reason such as `refused: 400 …`.
_WORD: Final = "substr(reason, 1, instr(reason || ':', ':') - 1)"
_TABLES: Final = {"waiting": "entries", "dead": "dead"}


def _keep(books: _Books, rows: Iterable[tuple[Any, ...]]) -> int:
    """Insert these rows but those that wait already; return how many are new."""
    new = 0
    for row in rows:
        if books.db.execute(_INSERT, (books.next_id(), books.now, *row)).rowcount > 0:
            new += 1
            books.bytes += row[0]
    books.accepted += new
    return new


def _lease(books: _Books, limit: int, max_bytes: int, ttl: float) -> list[Entry]:
    # As many as could be leased, so that what was held is leased by its age.
    books.db.execute(
        "UPDATE entries SET ready_at = 0 WHERE id IN (SELECT id FROM entries "
        "WHERE ready_at > 0 AND ready_at <= ? ORDER BY ready_at LIMIT ?)",
        (books.now, max(limit, 1_000)),
    )
    books.db.execute(
        "UPDATE entries SET ready_at = 0 WHERE id IN (SELECT id FROM entries "
        "WHERE ready_at > ? LIMIT ?)",
        (books.now + _LONGEST_HOLD, max(limit, 1_000)),
    )
    taken: list[Entry] = []
    size = 0
    ready = books.db.execute(
        f"SELECT {_ENTRY} FROM entries WHERE ready_at = 0 ORDER BY id LIMIT ?", (limit,)
    )
    for row in ready:
        entry = _entry(row)
        size += entry.payload.size
        if taken and size > max_bytes:
            break
        taken.append(entry)
    ready.close()
    books.db.execute(_HOLD, (books.now + ttl, _listed(int(entry.key) for entry in taken)))
    return taken


def _remove(books: _Books, ids: Iterable[int]) -> int:
    """Delete these entries; return how many there were."""
    listed = _listed(ids)
    count: int
    count, size = books.db.execute(
        f"SELECT count(*), coalesce(sum(size), 0) FROM entries WHERE {_ONE_OF}", (listed,)
    ).fetchone()
    books.db.execute(f"DELETE FROM entries WHERE {_ONE_OF}", (listed,))
    books.bytes -= size
    return count


def _drop_some(books: _Books, what: str, where: str, value: object) -> int:
    """Drop one step's entries or letters; return how many."""
    rows = books.db.execute(
        f"SELECT id FROM {_TABLES[what]} WHERE {where} LIMIT ?", (value, _A_STEP)
    ).fetchall()
    if what == "waiting":
        books.purged += _remove(books, [each for (each,) in rows])
    else:
        listed = _listed(each for (each,) in rows)
        books.db.execute(f"DELETE FROM dead WHERE {_ONE_OF}", (listed,))
    return len(rows)


# Rows


def _row(payload: Payload) -> tuple[Any, ...]:
    """Return a payload as `_INSERT` takes it, behind id and time of acceptance."""
    options = _encode(payload.options) if payload.options else b""
    return (
        payload.size,
        *map(_text, (payload.event, payload.uuid, payload.distinct_id, payload.timestamp)),
        payload.properties,
        options,
    )


def _text(text: str) -> str:
    """Return the text, with unpaired surrogates, which a file can't hold, as U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _payload(fields: Sequence[Any]) -> Payload:
    event, uuid, distinct_id, timestamp, properties, options = fields
    known = _decode(options) if options else {}
    return Payload(event, uuid, distinct_id, timestamp, properties, known)


def _entry(row: Sequence[Any]) -> Entry:
    return Entry(str(row[0]), _payload(row[3:]), row[1], row[2])


def _letter(row: Sequence[Any]) -> DeadLetter:
    return DeadLetter(_payload(row[2:]), row[0], row[1])


def _listed(ids: Iterable[int]) -> str:
    """Return ids as `_ONE_OF` takes them: one value, whatever their number."""
    return f"[{','.join(map(str, ids))}]"


def _ids(keys: Iterable[str]) -> list[int]:
    """Return the ids among these keys; another store's keys name nothing here."""
    return [int(key) for key in keys if key.isascii() and key.isdecimal() and len(key) < 19]


def from_url(url: str, setting: str = "outbox") -> SqliteStore:
    """Return the store of `sqlite:///path?max=…&max_bytes=…&keep_dead=…`.

    Args:
        url: `max` events and `max_bytes` may wait; dead letters are kept `keep_dead` days.
        setting: the setting that holds it, for error messages.

    Raises:
        ConfigurationError: the URL or the file is wrong.
    """
    path, options = file_of(url, setting, ("max", "max_bytes", "keep_dead"))
    return SqliteStore(
        path,
        max_events=options.get("max", MAX_EVENTS),
        max_bytes=options.get("max_bytes", MAX_BYTES),
        keep_dead=options.get("keep_dead", KEEP_DEAD_DAYS),
        setting=setting,
    )
