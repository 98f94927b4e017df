"""What the inbox keeps: requests, the events they brought, and the receipts that belong to them.

One SQLite database, in memory or in a file, so that both are one code path; bounded in events and
bytes, the oldest going first. An event that comes again (the same uuid, event, timestamp and
distinct_id) is kept once and counted, as PostHog does it. No HTTP and no judgement here: what a
request means is said by `strict.py`.

Everything a page shows is an *entry*: an event, or a request that was refused whole. Each change
of an entry gives it the next version, so that "what is new since version n" is one query, and a
stream that broke off resumes where it was.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from second_mw.inbox.strict import Event, Reply, Request

Kind = Literal["event", "refused"]
Mode = Literal["anonymized", "identified"]

MAX_EVENTS: Final = 20_000
MAX_BYTES: Final = 256 * 1024 * 1024
#: Characters of a refused body, and of an answer, that are kept, to look at.
MAX_EXCERPT: Final = 20_000

_LAYOUT: Final = 1
_TABLES: Final = """
CREATE TABLE meta (epoch TEXT NOT NULL, version INTEGER NOT NULL);
CREATE TABLE requests (
    id INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL, document BLOB NOT NULL
);
CREATE TABLE entries (
    id INTEGER PRIMARY KEY AUTOINCREMENT, version INTEGER NOT NULL, request INTEGER NOT NULL,
    at TEXT NOT NULL, kind TEXT NOT NULL, event TEXT NOT NULL, uuid TEXT NOT NULL,
    distinct_id TEXT NOT NULL, timestamp TEXT NOT NULL, mode TEXT, result TEXT NOT NULL,
    details TEXT, repeats INTEGER NOT NULL DEFAULT 0, document BLOB NOT NULL
);
CREATE INDEX entries_by_version ON entries (version);
CREATE INDEX entries_by_key ON entries (uuid, distinct_id);
CREATE TABLE receipts (
    id INTEGER PRIMARY KEY AUTOINCREMENT, uuid TEXT NOT NULL, distinct_id TEXT NOT NULL,
    dropped INTEGER NOT NULL, redacted INTEGER NOT NULL, document BLOB NOT NULL,
    UNIQUE (uuid, distinct_id)
);
"""


#: The tables that are bounded, and how many rows of each an event allows: a receipt may wait for
#: its event, and a request may have brought only repeats.
_HELD: Final = {"entries": 1, "requests": 1, "receipts": 2}


class StoreUnusable(Exception):
    """The file can't be used; the message says why and what to do."""


class Row(msgspec.Struct, frozen=True):
    """An entry as the list shows it.

    Args:
        id: grows with each entry.
        version: grows with each change of any entry.
        at: when it came, RFC 3339.
        kind: `event`, or `refused` for a request that was refused whole.
        event: the event's name; of a refused request, its path.
        mode: None for a refused request.
        result: `ok`, `warning`, `drop`, or `refused`.
        details: PostHog's words for what is wrong, if anything is.
        repeats: how often the same event came again.
        dropped, redacted: properties; None as long as there is no receipt.
    """

    id: int
    version: int
    at: str
    kind: Kind
    event: str
    distinct_id: str
    mode: Mode | None
    result: str
    details: str | None
    repeats: int
    dropped: int | None
    redacted: int | None


class Asked(msgspec.Struct, frozen=True):
    """One request with the answer that it was given.

    Args:
        at: when it came, RFC 3339.
        request: what it said of itself.
        status, answer: what went back; status 0 means that nothing did.
        refused: why it was refused whole, in PostHog's words; None if it was not.
        events: its events, as entry ids; of a refused request, none.
        excerpt: the beginning of a refused body, the token masked.
    """

    at: str
    request: Request
    status: int
    answer: str
    refused: str | None = None
    events: tuple[int, ...] = ()
    excerpt: str | None = None
    id: int = 0


class Opened(msgspec.Struct, frozen=True):
    """One entry with all that is known of it."""

    row: Row
    uuid: str
    timestamp: str
    properties: dict[str, Any]
    options: dict[str, Any]
    notes: tuple[str, ...]
    receipt: dict[str, Any] | None
    asked: Asked | None
    batch: tuple[Row, ...]


class Counts(msgspec.Struct, frozen=True):
    """What is kept now: events, refused requests, requests; and the oldest entry's id."""

    events: int
    refused: int
    requests: int
    oldest: int


class _Body(msgspec.Struct, frozen=True):
    """What an entry's document holds."""

    properties: dict[str, Any] = {}
    options: dict[str, Any] = {}
    notes: tuple[str, ...] = ()


_encode = msgspec.json.Encoder().encode
_body = msgspec.json.Decoder(_Body)
_asked = msgspec.json.Decoder(Asked)


def mode_of(event: Event) -> Mode:
    """Return the mode that an event was sent in: what PostHog would do with its person."""
    profile = event.options.get(
        "process_person_profile", event.properties.get("$process_person_profile")
    )
    return "anonymized" if profile is False else "identified"


class Store:
    """Requests, events and receipts, bounded.

    Args:
        path: a file that survives a restart; None keeps everything in memory.
        max_events, max_bytes: what is kept at most; the oldest go first.

    Raises:
        StoreUnusable: the file is in use, no database, or another program's.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        max_events: int = MAX_EVENTS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        #: Notified at every change; its lock guards the connection.
        self.changed: threading.Condition = threading.Condition(threading.RLock())
        self._db = _open(path)
        self.epoch: str
        self._version: int
        self.epoch, self._version = self._db.execute("SELECT epoch, version FROM meta").fetchone()
        #: Table → rows and bytes of their documents.
        self._held: dict[str, tuple[int, int]] = {
            table: self._db.execute(
                f"SELECT count(*), coalesce(sum(length(document)), 0) FROM {table}"  # noqa: S608
            ).fetchone()
            for table in _HELD
        }

    @property
    def version(self) -> int:
        """The version of the latest change."""
        return self._version

    # Keeping

    def keep(self, reply: Reply, at: str, *, excerpt: str | None = None) -> None:
        """Keep one request, its answer and its events.

        Args:
            reply: what `strict.answer` said of it.
            at: when it came, RFC 3339.
            excerpt: the beginning of its body, if it was refused.
        """
        with self._changing():
            asked = Asked(
                at,
                reply.request,
                reply.status,
                reply.body.decode("utf-8", "replace")[:MAX_EXCERPT],
                reply.refused,
                excerpt=excerpt,
            )
            document = _encode(asked)
            number = self._insert("INSERT INTO requests (at, document) VALUES (?, ?)", at, document)
            self._hold("requests", 1, len(document))
            entries = tuple(
                self._keep_event(event, number, at) for event in (*reply.events, *reply.dropped)
            )
            if reply.refused is not None:
                self._keep_refused(reply, number, at)
            if entries:
                asked = msgspec.structs.replace(asked, events=entries)
                longer = _encode(asked)
                self._db.execute("UPDATE requests SET document = ? WHERE id = ?", (longer, number))
                self._hold("requests", 0, len(longer) - len(document))
            self._shrink()

    def _keep_event(self, event: Event, request: int, at: str) -> int:
        known = None
        if event.result != "drop":
            known = self._db.execute(
                "SELECT id FROM entries WHERE uuid = ? AND distinct_id = ? AND event = ?"
                " AND timestamp = ? AND result IN ('ok', 'warning')",
                (event.uuid, event.distinct_id, event.event, event.timestamp),
            ).fetchone()
        if known is not None:
            self._db.execute(
                "UPDATE entries SET repeats = repeats + 1, version = ? WHERE id = ?",
                (self._next(), known[0]),
            )
            return int(known[0])
        document = _encode(_Body(event.properties, event.options, event.notes))
        return self._enter(
            request,
            at,
            "event",
            event.event,
            event.uuid,
            event.distinct_id,
            event.timestamp,
            mode_of(event),
            event.result,
            event.details,
            document,
        )

    def _keep_refused(self, reply: Reply, request: int, at: str) -> None:
        self._enter(
            request,
            at,
            "refused",
            reply.request.path,
            "",
            "",
            "",
            None,
            "refused",
            f"{reply.status or 'No answer'}: {reply.refused}",
            _encode(_Body()),
        )

    def _enter(self, *values: Any) -> int:
        self._hold("entries", 1, len(values[-1]))
        return self._insert(
            "INSERT INTO entries (version, request, at, kind, event, uuid, distinct_id, timestamp,"
            " mode, result, details, document) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            self._next(),
            *values,
        )

    def keep_receipts(self, receipts: Sequence[dict[str, Any]]) -> None:
        """Keep receipts, each as `Receipt.as_dict()` makes them; a later one replaces an earlier.

        Raises:
            AttributeError, KeyError, TypeError: one of them is no receipt; then none is kept.
        """
        with self._changing():
            for receipt in receipts:
                key = (str(receipt["uuid"]), str(receipt["distinct_id"]))
                # What the server writes itself is no loss.
                lines = [each for each in receipt["properties"] if each.get("rule") != "reserved"]
                results = [line["result"] for line in lines]
                document = _encode(receipt)
                for number, size in self._db.execute(
                    "SELECT id, length(document) FROM receipts WHERE uuid = ? AND distinct_id = ?",
                    key,
                ).fetchall():
                    self._db.execute("DELETE FROM receipts WHERE id = ?", (number,))
                    self._hold("receipts", -1, -size)
                self._db.execute(
                    "INSERT INTO receipts (uuid, distinct_id, dropped, redacted, document)"
                    " VALUES (?, ?, ?, ?, ?)",
                    (*key, results.count("dropped"), results.count("redacted"), document),
                )
                self._hold("receipts", 1, len(document))
                met = self._db.execute(
                    "SELECT id FROM entries WHERE uuid = ? AND distinct_id = ?", key
                ).fetchall()
                for (entry,) in met:
                    self._db.execute(
                        "UPDATE entries SET version = ? WHERE id = ?", (self._next(), entry)
                    )
            self._shrink()

    def clear(self) -> None:
        """Forget everything; whoever reads the stream begins anew."""
        with self._changing():
            for table in _HELD:
                self._db.execute(f"DELETE FROM {table}")  # noqa: S608 - names of ours
                self._held[table] = (0, 0)
            self.epoch = secrets.token_hex(4)
            self._db.execute("UPDATE meta SET epoch = ?", (self.epoch,))

    def _next(self) -> int:
        self._version += 1
        return self._version

    def _insert(self, statement: str, *values: Any) -> int:
        return int(self._db.execute(statement, values).lastrowid or 0)

    def _hold(self, table: str, rows: int, size: int) -> None:
        count, before = self._held[table]
        self._held[table] = (count + rows, before + size)

    def _shrink(self) -> None:
        """Let the oldest rows go until the rest is within bounds; the newest always stays."""
        for table, times in _HELD.items():
            count, size = self._held[table]
            while count > 1 and (count > times * self._max_events or size > self._max_bytes):
                oldest, freed = self._db.execute(
                    f"SELECT id, length(document) FROM {table} ORDER BY id LIMIT 1"  # noqa: S608
                ).fetchone()
                self._db.execute(f"DELETE FROM {table} WHERE id = ?", (oldest,))  # noqa: S608
                count, size = count - 1, size - freed
            self._held[table] = (count, size)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """One transaction, after which whoever waits is woken."""
        with self.changed:
            before = (self._version, dict(self._held), self.epoch)
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("UPDATE meta SET version = ?", (self._version,))
                self._db.execute("COMMIT")
            except BaseException:
                self._version, self._held, self.epoch = before
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            self.changed.notify_all()

    # Looking

    def since(self, version: int, limit: int) -> list[Row]:
        """Return up to `limit` entries that changed after `version`, in order of change."""
        return self._rows("WHERE e.version > ? ORDER BY e.version LIMIT ?", version, limit)

    def counts(self) -> Counts:
        """Return how much is kept."""
        with self.changed:
            events, refused, oldest = self._db.execute(
                "SELECT count(*) FILTER (WHERE kind = 'event'),"
                " count(*) FILTER (WHERE kind = 'refused'), coalesce(min(id), 0) FROM entries"
            ).fetchone()
            (requests,) = self._db.execute("SELECT count(*) FROM requests").fetchone()
            return Counts(events, refused, requests, oldest)

    def open(self, number: int) -> Opened | None:
        """Return one entry with all that is known of it, or None."""
        with self.changed:
            rows = self._rows("WHERE e.id = ?", number)
            if not rows:
                return None
            uuid, stamp, document, request = self._db.execute(
                "SELECT uuid, timestamp, document, request FROM entries WHERE id = ?", (number,)
            ).fetchone()
            body = _body.decode(document)
            asked = self._asked(request)
            return Opened(
                rows[0],
                uuid,
                stamp,
                body.properties,
                body.options,
                body.notes,
                self._receipt(uuid, rows[0].distinct_id),
                asked,
                self._batch(asked),
            )

    def _asked(self, number: int) -> Asked | None:
        row = self._db.execute(
            "SELECT id, document FROM requests WHERE id = ?", (number,)
        ).fetchone()
        return msgspec.structs.replace(_asked.decode(row[1]), id=row[0]) if row else None

    def _batch(self, asked: Asked | None) -> tuple[Row, ...]:
        if asked is None:
            return ()
        rows = (self._rows("WHERE e.id = ?", number) for number in asked.events)
        return tuple(row for found in rows for row in found)

    def _receipt(self, uuid: str, distinct_id: str) -> dict[str, Any] | None:
        row = self._db.execute(
            "SELECT document FROM receipts WHERE uuid = ? AND distinct_id = ?", (uuid, distinct_id)
        ).fetchone()
        return msgspec.json.decode(row[0]) if row else None

    def _rows(self, which: str, *values: Any) -> list[Row]:
        with self.changed:
            found = self._db.execute(
                "SELECT e.id, e.version, e.at, e.kind, e.event, e.distinct_id, e.mode, e.result,"  # noqa: S608
                " e.details, e.repeats, r.dropped, r.redacted FROM entries e LEFT JOIN receipts r"
                f" ON r.uuid = e.uuid AND r.distinct_id = e.distinct_id {which}",
                values,
            ).fetchall()
        return [Row(*row) for row in found]

    def events(self) -> list[dict[str, Any]]:
        """Return every stored event whole, in the order in which they came."""
        with self.changed:
            found = self._db.execute(
                "SELECT event, uuid, distinct_id, timestamp, document FROM entries"
                " WHERE kind = 'event' AND result != 'drop' ORDER BY id"
            ).fetchall()
        return [
            {
                "event": event,
                "uuid": uuid,
                "distinct_id": distinct_id,
                "timestamp": stamp,
                "options": (body := _body.decode(document)).options,
                "properties": body.properties,
            }
            for event, uuid, distinct_id, stamp, document in found
        ]

    def requests(self) -> list[Asked]:
        """Return every kept request with its answer, in the order in which they came."""
        with self.changed:
            found = self._db.execute("SELECT id, document FROM requests ORDER BY id").fetchall()
        return [msgspec.structs.replace(_asked.decode(row[1]), id=row[0]) for row in found]

    def receipts(self) -> list[dict[str, Any]]:
        """Return every kept receipt, in the order in which they came."""
        with self.changed:
            found = self._db.execute("SELECT document FROM receipts ORDER BY id").fetchall()
        return [msgspec.json.decode(document) for (document,) in found]

    def wait_for(self, condition: Callable[[], object], timeout: float) -> bool:
        """Wait until a condition holds; it is looked at after each change.

        Args:
            condition: called with the lock held.
            timeout: seconds.
        """
        with self.changed:
            return bool(self.changed.wait_for(condition, timeout))

    def close(self) -> None:
        """Close the database."""
        with self.changed:
            self._db.close()


def _open(path: Path | None) -> sqlite3.Connection:
    if path is not None and not path.exists():
        try:
            # An identified event names its user: nobody else on the machine needs to read it.
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        except OSError as error:
            raise StoreUnusable(f"{path} can't be made: {error.strerror}") from error
    try:
        # Every use holds the store's lock.
        db = sqlite3.connect(path or ":memory:", check_same_thread=False, isolation_level=None)
        try:
            _prepare(db)
        except BaseException:
            db.close()
            raise
    except (sqlite3.Error, StoreUnusable) as error:
        raise StoreUnusable(f"{path} can't be used: {_reason(error)}") from error
    return db


def _prepare(db: sqlite3.Connection) -> None:
    # One inbox a file: a second one on it is told so, at once.
    db.execute("PRAGMA busy_timeout = 0")
    db.execute("PRAGMA locking_mode = EXCLUSIVE")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute("BEGIN EXCLUSIVE")
    (layout,) = db.execute("PRAGMA user_version").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if not tables:
        for statement in _TABLES.split(";"):
            db.execute(statement)
        db.execute("INSERT INTO meta VALUES (?, 0)", (secrets.token_hex(4),))
        db.execute(f"PRAGMA user_version = {_LAYOUT}")
    elif layout != _LAYOUT or not _is_ours(db):
        raise StoreUnusable("it holds something else; choose another file")
    db.execute("COMMIT")


def _is_ours(db: sqlite3.Connection) -> bool:
    names = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    return {"meta", "requests", "entries", "receipts"} <= names


def _reason(error: Exception) -> str:
    if "locked" in str(error):
        return "another inbox uses it"
    if "not a database" in str(error):
        return "it is no SQLite database; choose another file"
    return str(error)
