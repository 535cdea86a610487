"""SQLite files: looked at without a trace, and opened so that many processes can write."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, Engine, event

from studies.urls import StorageError

BUSY_TIMEOUT = 60.0
"""Seconds that a transaction waits for another process's transaction."""
_MAGIC = b"SQLite format 3\x00"
_WAL_VERSION = b"\x02"
_HEADER_SIZE = 100


def check_file(path: Path, *, write: bool) -> None:
    """Refuse a path at which SQLite could not keep a study (``write``) or has kept none, without touching it.

    Raises:
        StorageError: the file is missing (to read), no regular file, no database, or read-only (to write);
            to write, also a folder that is missing or read-only.
    """
    header = _header(path)
    if header is None and not write:
        raise StorageError("the file does not exist")
    if header and not (header.startswith(_MAGIC) and len(header) == _HEADER_SIZE):
        raise StorageError("the file is not an SQLite database")
    if not write:
        return
    if not path.parent.is_dir():
        raise StorageError(f"the folder {path.parent} does not exist")
    for place in [path.parent] if header is None else [path.parent, path]:
        if not os.access(place, os.W_OK):
            raise StorageError(f"must be writable, but {place} is read-only")


def check_pages(engine: Engine) -> None:
    """Read the whole database, which takes a second for some hundred megabytes.

    Raises:
        StorageError: a page is damaged.
    """
    with engine.connect() as connection:
        answer = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    if answer != "ok":
        raise StorageError(f"the database is damaged: {' '.join(str(answer).split())}")


def holds_nothing(path: Path) -> bool:
    """Whether the file is missing or empty."""
    return not _header(path)


def is_wal(path: Path) -> bool:
    """Whether the file is a database in write-ahead mode (byte 18 of its header)."""
    header = _header(path)
    return header is not None and header[18:19] == _WAL_VERSION


def use_wal(path: Path) -> None:
    """Switch the file, made if missing, to write-ahead mode, where readers and the writer do not block."""
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
    finally:
        connection.close()


def writer(path: Path) -> sqlite3.Connection:
    """A connection that begins transactions only when told to."""
    connection = sqlite3.connect(
        _uri(path, "mode=rw"), uri=True, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def reader(path: Path) -> sqlite3.Connection:
    """A connection that leaves no trace.

    A plain read-only connection to a file in write-ahead mode makes two files beside it and leaves them
    there; only ``immutable`` does not. That ignores a write-ahead file, so it is used only without one, which
    is when no other process has the database open.
    """
    untouched = is_wal(path) and not path.with_name(f"{path.name}-wal").exists()
    mode = "immutable=1" if untouched else "mode=ro"
    return sqlite3.connect(
        _uri(path, mode), uri=True, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
    )


def begin_immediate(engine: Engine) -> None:
    """Let every transaction of the engine take the write lock when it begins.

    SQLite itself takes it at the first write, so that two processes can read the same queued trial and both
    take it. Whether a transaction will write is not known when it begins, so reading ones take it as well.
    """

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _uri(path: Path, option: str) -> str:
    return f"file:{quote(str(path))}?{option}"


def _header(path: Path) -> bytes | None:
    """The database's header: empty for an empty file, None for a missing one."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise StorageError("must be a regular file, but is a folder or a device")
        with path.open("rb") as file:
            return file.read(_HEADER_SIZE)
    except FileNotFoundError:
        return None
