"""A disk whose power can be cut: a SQLite file system that keeps unsynced writes apart.

What was written and not synced is gone after the cut, all of it or any part of it, sector by
sector, as a drive's cache would lose it. Copies of files and `kill -9` can't tell whether a program
syncs, because the operating system goes on and writes everything in the end.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw

SECTOR = 512


class Cut(Exception):
    """The power is off."""


class _Contents:
    """One file's bytes: as programs see them, and as the platter has them."""

    def __init__(self) -> None:
        self.seen = bytearray()
        self.kept = bytearray()
        self.unsynced: list[tuple[int, bytes]] = []
        self.size_is_unsynced = False

    def write(self, data: bytes, at: int) -> None:
        if len(self.seen) < at:
            self.seen.extend(bytes(at - len(self.seen)))
        self.seen[at : at + len(data)] = data
        self.unsynced.append((at, bytes(data)))

    def truncate(self, size: int) -> None:
        del self.seen[size:]
        self.size_is_unsynced = True

    def sync(self) -> None:
        self.kept = bytearray(self.seen)
        self.unsynced.clear()
        self.size_is_unsynced = False

    def after_a_cut(self, luck: random.Random, share: float) -> bytes:
        """Return what is found afterwards; `share` of the unsynced sectors had made it."""
        found = bytearray(self.kept)
        if self.size_is_unsynced and luck.random() < share:
            del found[len(self.seen) :]
        for at, data in self.unsynced:
            for start in range(0, len(data), SECTOR):
                if luck.random() < share:
                    part = data[start : start + SECTOR]
                    if len(found) < at + start:
                        found.extend(bytes(at + start - len(found)))
                    found[at + start : at + start + len(part)] = part
        return bytes(found)


class Disk(apsw.VFS):
    """Keeps files in memory until the power is cut.

    Args:
        name: of the VFS, for `Disk.connect`.
        writes: how many writes and syncs until the power is off; None for never.
    """

    def __init__(self, name: str, writes: int | None = None) -> None:
        self.files: dict[str, _Contents] = {}
        self.left = writes
        self.is_off = False
        self.is_full = False
        self.syncs = 0
        self._connections: list[apsw.Connection] = []
        super().__init__(name, "")
        self.name = name

    def count(self) -> None:
        """One more write or sync; the power may fail before it."""
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                self.is_off = True
        if self.is_off:
            raise apsw.IOError("the power is off")
        if self.is_full:
            raise apsw.FullError("the disk is full")

    def leave(self, place: Path, luck: random.Random, share: float) -> None:
        """Cut the power, if it is not, and write what the platter has into a directory."""
        self.is_off = True
        for name, contents in self.files.items():
            (place / Path(name).name).write_bytes(contents.after_a_cut(luck, share))

    def connect(self, *, synchronous: str = "FULL") -> Callable[[str, float], Any]:
        """Return what opens connections to this disk for a store.

        This disk has no shared memory, so all share one connection that has the file alone.
        """
        shared: list[apsw.Connection] = []

        def connect(path: str, timeout: float) -> Any:
            if not shared:
                db = apsw.Connection(path, vfs=self.name)
                db.execute("PRAGMA locking_mode=EXCLUSIVE")
                # Often, because a cut during a checkpoint is the worst one.
                db.execute("PRAGMA wal_autocheckpoint=40")
                shared.append(db)
                self._connections.append(db)
            return _Adapted(shared[0], synchronous)

        return connect

    def close(self) -> None:
        """Forget the connections; what they still want to write fails."""
        self.is_off = True
        for db in self._connections:
            try:
                db.close(True)
            except apsw.Error:
                pass
        self.unregister()

    # What SQLite asks of a VFS

    def xOpen(self, name: Any, flags: list[int]) -> Any:
        flags[1] = flags[0]
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        contents = self.files.setdefault(path, _Contents()) if path else _Contents()
        return _File(self, contents)

    def xAccess(self, path: str, flags: int) -> bool:
        return path in self.files

    def xDelete(self, path: str, sync: bool) -> None:
        self.files.pop(path, None)

    def xFullPathname(self, path: str) -> str:
        return path


class _File:
    def __init__(self, disk: Disk, contents: _Contents) -> None:
        self._disk = disk
        self._contents = contents

    def xRead(self, amount: int, offset: int) -> bytes:
        return bytes(self._contents.seen[offset : offset + amount])

    def xWrite(self, data: bytes, offset: int) -> None:
        self._disk.count()
        self._contents.write(data, offset)

    def xTruncate(self, size: int) -> None:
        self._disk.count()
        self._contents.truncate(size)

    def xSync(self, flags: int) -> None:
        self._disk.count()
        self._disk.syncs += 1
        self._contents.sync()

    def xFileSize(self) -> int:
        return len(self._contents.seen)

    def xLock(self, level: int) -> None: ...

    def xUnlock(self, level: int) -> None: ...

    def xCheckReservedLock(self) -> bool:
        return False

    def xSectorSize(self) -> int:
        return SECTOR

    def xDeviceCharacteristics(self) -> int:
        # No promise at all: neither atomic writes nor order, nor that neighbours stay whole.
        return 0

    def xFileControl(self, op: int, pointer: int) -> bool:
        return False

    def xClose(self) -> None: ...


class _Rows:
    def __init__(self, rows: list[Any], rowcount: int) -> None:
        self._rows = rows
        self.rowcount = rowcount

    def fetchone(self) -> Any:
        return self._rows[0] if self._rows else None

    def fetchall(self) -> list[Any]:
        return self._rows

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)

    def close(self) -> None: ...


class _Adapted:
    """An apsw connection as the standard library's."""

    def __init__(self, db: apsw.Connection, synchronous: str) -> None:
        self._db = db
        self._synchronous = synchronous

    def execute(self, sql: str, parameters: Any = (), /) -> _Rows:
        if sql.startswith("PRAGMA synchronous"):
            sql = f"PRAGMA synchronous={self._synchronous}"
        if sql == "PRAGMA query_only=ON":
            return _Rows([], 0)  # the writer's connection is this one too
        try:
            rows = list(self._db.execute(sql, tuple(parameters)))
            return _Rows(rows, self._db.changes())
        except apsw.Error as error:
            raise sqlite3.OperationalError(str(error)) from None

    def close(self) -> None: ...
