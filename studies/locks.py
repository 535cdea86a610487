"""Locks between processes, kept by the database that they protect, for sections of a few milliseconds.

PostgreSQL and MySQL keep a lock for a connection (an advisory lock, GET_LOCK), so that the lock of a killed
process is free at once, and that of a machine that vanished within two minutes. For SQLite it is a lock on
the file ``DATABASE.lock`` beside the database, which is made at the first use and stays: deleting it while it
is in use would let two processes in. The operating system frees it when its holder ends. All locks of an
SQLite file are one; on the servers each name is a lock of its own.

A server that restarts forgets its locks, and another process may enter a section that is still running. So
before a transaction commits, in a thread that holds a lock, the lock's connection is asked (``guard``). If it
is gone, nothing is written, and ``LockLostError`` ends the section. A transaction that began before a restart
cannot commit after it, and one of a process that was frozen since the question is ended before the lock is
(``IDLE``), so that nothing slips through between the question and the commit.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import filelock
from optuna.storages import RDBStorage
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

from studies.retries import lasting
from studies.urls import StorageError, masked

LOCK_TIMEOUT = 120.0
"""Seconds to wait for a lock before giving up."""
FROZEN = 60
"""Seconds after which PostgreSQL takes the lock from a holder that does nothing."""
IDLE = 50
"""Seconds after which PostgreSQL ends any other transaction in which nothing is done, and frees its rows."""
_POLL_INTERVAL = 0.01
_ATTEMPTS = 10
"""How often a section is run that loses its lock each time."""
_LOCK_NOT_AVAILABLE = "55P03"
T = TypeVar("T")


class LockLostError(StorageError):
    """The database forgot a lock while it was held. What was committed before stays; nothing was after."""


class _Held(threading.local):
    """The connections of the locks that this thread holds."""

    def __init__(self) -> None:
        self.connections: list[Connection] = []


_held = _Held()


def study_lock(storage: RDBStorage, name: str, timeout: float = LOCK_TIMEOUT) -> AbstractContextManager[None]:
    """Keep every other thread and process of this study out while the ``with`` block runs.

    Not to be taken again within the block.

    Raises:
        StorageError: not free within ``timeout`` seconds.
        LockLostError: the database forgot the lock before the block's last write.
    """
    return database_lock(storage.engine, f"study {name}", timeout)


def locked(storage: RDBStorage, name: str, section: Callable[[], T], timeout: float = LOCK_TIMEOUT) -> T:
    """What ``section`` returns, run under the study's lock, and run again from its start if that was lost.

    So a section must look at what is there, and do only what is still to be done.

    Raises:
        StorageError: as ``study_lock``.
    """

    def attempt() -> T:
        with study_lock(storage, name, timeout):
            return section()

    stop = stop_after_attempt(_ATTEMPTS)
    return Retrying(retry=retry_if_exception_type(LockLostError), stop=stop, reraise=True)(attempt)


@contextmanager
def database_lock(engine: Engine, name: str, timeout: float = LOCK_TIMEOUT) -> Iterator[None]:
    """As ``study_lock``, by any name, on the engine's database."""
    lock = {"sqlite": _file_lock, "postgresql": _postgres_lock, "mysql": _mysql_lock}[engine.dialect.name]
    with lock(engine, name, timeout):
        yield


def guard(engine: Engine) -> None:
    """Let no transaction of the engine commit in a thread that has lost its lock."""

    @event.listens_for(engine, "commit")
    def _check(_: Connection) -> None:
        for connection in _held.connections:
            if connection.engine is engine:
                _check_alive(connection)


def _check_alive(connection: Connection) -> None:
    try:
        connection.exec_driver_sql("SELECT 1")
    except SQLAlchemyError:
        storage = masked(connection.engine.url)
        raise LockLostError(
            f"storage {storage}: the lock was lost with the connection that held it"
        ) from None


@contextmanager
def _holding(connection: Connection) -> Iterator[None]:
    _held.connections.append(connection)
    try:
        yield
    finally:
        _held.connections.remove(connection)


@contextmanager
def _file_lock(engine: Engine, name: str, timeout: float) -> Iterator[None]:
    path = lock_file(Path(engine.url.database or ""))
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=timeout, poll_interval=_POLL_INTERVAL)
    except filelock.Timeout:
        raise _not_free(engine, name, timeout) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _postgres_lock(engine: Engine, name: str, timeout: float) -> Iterator[None]:
    connection = lasting(engine, lambda: _take_postgres_lock(engine, name, timeout))
    try:
        with _holding(connection):
            yield
    finally:
        _close(connection)  # the lock ends with the transaction that this rolls back


def _take_postgres_lock(engine: Engine, name: str, timeout: float) -> Connection:
    connection = engine.connect()
    try:
        connection.execute(text(f"SET LOCAL lock_timeout = {round(timeout * 1000)}"))
        # a holder that was frozen, and not killed, gives the lock up too
        connection.execute(text(f"SET LOCAL idle_in_transaction_session_timeout = {FROZEN * 1000}"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _number(name)})
    except BaseException as error:
        _close(connection)
        if isinstance(error, OperationalError) and _sqlstate(error) == _LOCK_NOT_AVAILABLE:
            raise _not_free(engine, name, timeout) from None
        raise
    return connection


def _sqlstate(error: DBAPIError) -> str | None:
    return getattr(error.orig, "sqlstate", None)


@contextmanager
def _mysql_lock(engine: Engine, name: str, timeout: float) -> Iterator[None]:
    key = f"cifar-search {_digest(f'{engine.url.database} {name}').hex()[:40]}"  # at most 64 characters
    connection = lasting(engine, lambda: _take_mysql_lock(engine, key, name, timeout))
    try:
        with _holding(connection):
            yield
    finally:
        _free_mysql_lock(connection, key)


def _take_mysql_lock(engine: Engine, key: str, name: str, timeout: float) -> Connection:
    connection = engine.connect()
    try:
        taken = connection.scalar(text("SELECT GET_LOCK(:key, :time)"), {"key": key, "time": timeout})
        if taken != 1:
            raise _not_free(engine, name, timeout)
    except BaseException:
        _free_mysql_lock(connection, key)
        raise
    return connection


def _free_mysql_lock(connection: Connection, key: str) -> None:
    with suppress(SQLAlchemyError):  # a broken connection has lost its lock already
        connection.execute(text("SELECT RELEASE_LOCK(:key)"), {"key": key})
    _close(connection)


def _close(connection: Connection) -> None:
    with suppress(SQLAlchemyError):
        connection.close()


def lock_file(database: Path) -> Path:
    """The lock file of an SQLite database, the same one by whatever link the database is reached."""
    return Path(f"{os.path.realpath(database)}.lock")


def _not_free(engine: Engine, name: str, timeout: float) -> StorageError:
    return StorageError(f"storage {masked(engine.url)}: the lock {name!r} was not free within {timeout:g} s")


def _digest(name: str) -> bytes:
    return hashlib.sha256(f"cifar-search {name}".encode()).digest()


def _number(name: str) -> int:
    """A signed 64-bit key, as PostgreSQL's advisory locks want it."""
    return int.from_bytes(_digest(name)[:8], "big", signed=True)
