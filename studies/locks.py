"""Locks between processes, kept by the database that they protect, for sections of a few milliseconds.

PostgreSQL and MySQL keep a lock for a connection (an advisory lock, GET_LOCK), so that the lock of a killed
process is free at once, and that of a machine that vanished within a minute. For SQLite it is a lock on
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
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import filelock
from optuna.storages import RDBStorage
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

from studies.connections import IDLE, patience
from studies.retries import lasting
from studies.urls import StorageError, masked

LOCK_TIMEOUT = 120.0
"""Seconds to wait for a lock before giving up."""
FROZEN = IDLE + 10
"""Seconds after which PostgreSQL takes the lock from a holder that does nothing; its writes end before."""
QUESTION = 5.0
"""Seconds for which a server is asked for a lock at a time, since one whose client has vanished meanwhile may
still be given it, and holds it until it is found out."""
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


def study_lock(
    storage: RDBStorage, study_id: int, timeout: float = LOCK_TIMEOUT
) -> AbstractContextManager[None]:
    """Keep every other thread and process of this study out while the ``with`` block runs.

    Not to be taken again within the block.

    Raises:
        StorageError: not free within ``timeout`` seconds.
        LockLostError: the database forgot the lock before the block's last write.
    """
    return database_lock(storage.engine, f"study {study_id}", timeout)


def creation_lock(storage: RDBStorage) -> AbstractContextManager[None]:
    """As ``study_lock``, for studies that have no id yet: whoever makes one keeps out all that would."""
    return database_lock(storage.engine, "new study")


def locked(storage: RDBStorage, study_id: int, section: Callable[[], T]) -> T:
    """What ``section`` returns, run under the study's lock, and run again from its start if that was lost.

    So a section must look at what is there, and do only what is still to be done.

    Raises:
        StorageError: as ``study_lock``.
    """
    return again_if_lost(lambda: study_lock(storage, study_id), section)


def again_if_lost(lock: Callable[[], AbstractContextManager[None]], section: Callable[[], T]) -> T:
    """As ``locked``, under any lock."""

    def attempt() -> T:
        with lock():
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
        with patience(IDLE):  # whoever is not heard for so long has lost it
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


def _questions(timeout: float) -> Iterator[float]:
    """Seconds of each question for a lock, ``timeout`` in all."""
    deadline = time.monotonic() + timeout
    while (left := deadline - time.monotonic()) > 0:
        yield min(left, QUESTION)


@contextmanager
def _postgres_lock(engine: Engine, name: str, timeout: float) -> Iterator[None]:
    connection = lasting(engine, lambda: _taken(engine, name, timeout, partial(_ask_postgres, _number(name))))
    try:
        with _holding(connection):
            yield
    finally:
        _close(connection)  # the lock ends with the transaction that this rolls back


def _taken(engine: Engine, name: str, timeout: float, ask: Callable[[Connection, float], bool]) -> Connection:
    """A connection that holds the lock."""
    connection = engine.connect()
    try:
        if any(ask(connection, seconds) for seconds in _questions(timeout)):
            return connection
        raise _not_free(engine, name, timeout)
    except BaseException:
        _close(connection)
        raise


def _ask_postgres(key: int, connection: Connection, seconds: float) -> bool:
    connection.execute(text(f"SET LOCAL lock_timeout = {max(round(seconds * 1000), 1)}"))
    # a holder that was frozen, and not killed, gives the lock up too
    connection.execute(text(f"SET LOCAL idle_in_transaction_session_timeout = {FROZEN * 1000}"))
    try:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})
    except OperationalError as error:
        if _sqlstate(error) != _LOCK_NOT_AVAILABLE:
            raise
        connection.rollback()
        return False
    return True


def _sqlstate(error: DBAPIError) -> str | None:
    return getattr(error.orig, "sqlstate", None)


@contextmanager
def _mysql_lock(engine: Engine, name: str, timeout: float) -> Iterator[None]:
    database = str(engine.url.database).lower()  # some servers take Studies and studies for one database
    key = f"cifar-search {_digest(f'{database} {name}').hex()[:40]}"  # at most 64 characters
    connection = lasting(engine, lambda: _taken(engine, name, timeout, partial(_ask_mysql, key)))
    try:
        with _holding(connection):
            yield
    finally:
        _free_mysql_lock(connection, key)


def _ask_mysql(key: str, connection: Connection, seconds: float) -> bool:
    try:
        taken = connection.scalar(text("SELECT GET_LOCK(:key, :time)"), {"key": key, "time": seconds})
    except BaseException:  # the lock may have been given all the same, and would stay with the connection
        connection.invalidate()
        raise
    return bool(taken)


def _free_mysql_lock(connection: Connection, key: str) -> None:
    with suppress(SQLAlchemyError), patience(IDLE):  # a broken connection has lost its lock already
        connection.execute(text("SELECT RELEASE_LOCK(:key)"), {"key": key})
    _close(connection)


def _close(connection: Connection) -> None:
    with suppress(SQLAlchemyError), patience(IDLE):
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
