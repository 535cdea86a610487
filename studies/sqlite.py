"""SQLite files: looked at without a trace, and opened so that many processes can write.

A process that opens a database file by itself and closes it drops every lock that it holds on that file:
POSIX keeps locks for a process and a file, not for each opening. Another process may then delete the
write-ahead log under it, and the file ends malformed. SQLite knows of all its connections in a process, so
that nothing but SQLite may open a database file, or one beside it, where one may be open already.
"""

from __future__ import annotations

import os
import re
import sqlite3
import stat
import subprocess
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, Engine, event
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random

from studies.urls import StorageError

READING = "cifar_search_reading"
"""Execution option of a connection that only reads, and so does not wait for those that write."""
BUSY_TIMEOUT = 60.0
"""Seconds that a transaction waits for another process's transaction."""
OVERTAKEN = {sqlite3.SQLITE_READONLY_RECOVERY, sqlite3.SQLITE_READONLY_CANTINIT}
"""What SQLite says where a process that may not write finds a log that one has just begun."""
_OVERTAKEN = 1.0
"""Seconds for which a file is looked at anew."""
_VERSION_AT, _WAL_VERSION = 18, b"\x02"


def check_file(path: Path, *, write: bool) -> None:
    """Refuse a path at which SQLite could not keep a study (``write``) or has kept none, without touching it.

    Raises:
        StorageError: the file is missing (to read), no regular file, no database, or read-only (to write);
            to write, also a folder that is missing or read-only.
    """
    status = _status(path)
    if status is None and not write:
        raise StorageError("the file does not exist")
    if status and not os.access(path, os.R_OK):
        raise StorageError("the file cannot be read: Permission denied")
    if status and status.st_size and not _is_database(path):
        raise StorageError("the file is not an SQLite database")
    if not write:
        return
    if not path.parent.is_dir():
        raise StorageError(f"the folder {path.parent} does not exist")
    for place in [path.parent] if status is None else [path.parent, path]:
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
    status = _status(path)
    return status is None or not status.st_size


def is_wal(path: Path) -> bool:
    """Whether the file, which exists and may be written, is in write-ahead mode."""
    with closing(sqlite3.connect(_uri(path, "mode=rw"), uri=True, timeout=BUSY_TIMEOUT)) as connection:
        return bool(connection.execute("PRAGMA journal_mode").fetchone() == ("wal",))


def use_wal(path: Path) -> None:
    """Switch the file, made if missing, to write-ahead mode, where readers and the writer do not block."""
    with closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")


def writer(path: Path) -> sqlite3.Connection:
    """A connection that begins transactions only when told to."""
    connection = _connect(path, "mode=rw")
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def reader(path: Path, *, joining: bool) -> sqlite3.Connection:
    """A connection that only reads, in a transaction that has begun, and leaves no trace.

    A log that a killed process left is read as it is: the last connection that may write would fold it into
    the file. SQLite needs its other file, ``-shm``, to read a log, and makes it where it is missing.

    How a file is to be opened is seen before it is opened, and another process may take away its log, or
    begin one, in between: then it is looked at anew. Once a transaction has read, nobody can.

    Args:
        path: of the file, which exists.
        joining: take part in the file's write-ahead log, as is safe beside writers: its two files are made
            for as long as the connection lasts. Without it none is made: a plain read-only connection would
            make them and leave them there, and only an ``immutable`` one does not. That ignores the log, so
            it is used where there is none, which is when nobody has the database open. Should somebody begin
            to write just then, it may read pages of two states.
    """
    again = Retrying(
        retry=retry_if_exception(is_overtaken),
        stop=stop_after_delay(_OVERTAKEN),
        wait=wait_random(0, _OVERTAKEN / 100),
        reraise=True,
    )
    return again(_reader, path, joining)


def is_overtaken(error: BaseException) -> bool:
    """Whether an error of a connection that reads may come from what another process did to the log just
    then, and not from the file."""
    code = getattr(error, "sqlite_errorcode", None)
    return code == sqlite3.SQLITE_CANTOPEN or code in OVERTAKEN


def begin_to_read(engine: Engine) -> None:
    """Let every transaction of an engine of ``reader`` connections see one state of the file."""

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        driver = connection.connection.driver_connection
        if driver is not None and not driver.in_transaction:  # SQLAlchemy ends the first one
            connection.exec_driver_sql("BEGIN")


def begin_immediate(engine: Engine) -> None:
    """Let every transaction of the engine take the write lock when it begins.

    SQLite itself takes it at the first write, so that two processes can read the same queued trial and both
    take it. Whether a transaction will write is not known when it begins, so reading ones take it as well,
    unless their connection says ``READING``.
    """

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        only_reads = connection.get_execution_options().get(READING, False)
        connection.exec_driver_sql("BEGIN" if only_reads else "BEGIN IMMEDIATE")


def _reader(path: Path, joining: bool) -> sqlite3.Connection:
    connection = _connect(path, _reading(path, joining))
    try:
        connection.execute("PRAGMA query_only = 1")
        connection.execute("BEGIN")
        connection.execute("PRAGMA schema_version")
    except BaseException:
        connection.close()
        raise
    return connection


def _reading(path: Path, joining: bool) -> str:
    """How to open a file to read, as it is now."""
    log, index = (path.with_name(f"{path.name}-{kind}") for kind in ("wal", "shm"))
    if log.exists() and not _is_in_use(index):
        return "mode=ro&readonly_shm=1" if index.exists() else "mode=ro"
    if joining:
        return "mode=rw"
    untouched = not log.exists() and _says_wal(path)
    return "immutable=1" if untouched else "mode=ro"


def _is_in_use(index: Path) -> bool:
    """Whether a process has the database open in write-ahead mode: it holds a lock on the log's index then.
    True where the system does not tell."""
    try:
        locks = Path("/proc/locks").read_text()
    except OSError:
        return True
    try:
        inode = index.stat().st_ino
    except OSError:
        return False
    return re.search(rf":{inode} ", locks) is not None


def _connect(path: Path, option: str) -> sqlite3.Connection:
    return sqlite3.connect(
        _uri(path, option), uri=True, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
    )


def _uri(path: Path, option: str) -> str:
    return f"file:{quote(str(path))}?{option}"


def _status(path: Path) -> os.stat_result | None:
    """What the system tells of the file without opening it; None for a missing one."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        raise StorageError("must be a regular file, but is a folder or a device")
    return status


def _is_database(path: Path) -> bool:
    with closing(sqlite3.connect(_uri(path, "immutable=1"), uri=True)) as connection:
        try:
            connection.execute("PRAGMA schema_version")
        except sqlite3.DatabaseError as error:  # damage is told of by whoever reads on
            return error.sqlite_errorcode != sqlite3.SQLITE_NOTADB
    return True


def _says_wal(path: Path) -> bool:
    """Whether the file is in write-ahead mode by byte 18 of its header, which SQLite does not tell without
    making files beside it. So another process reads it, one that holds no locks on the file."""
    command = ["head", "-c", str(_VERSION_AT + 1), str(path)]
    try:
        header = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False).stdout
    except OSError:  # there is no such program: SQLite's own files are made then
        return False
    return header[_VERSION_AT:] == _WAL_VERSION
