"""Locks between processes, kept by the database that they protect, for sections of a few milliseconds.

PostgreSQL and MySQL keep a lock for a connection (an advisory lock, GET_LOCK), so that the lock of a killed
process is free at once, and that of a machine that vanished within two minutes. For SQLite it is a lock on
the file ``DATABASE.lock`` beside the database, which is made at the first use and stays: deleting it while it
is in use would let two processes in. The operating system frees it when its holder ends. All locks of an
SQLite file are one; on the servers each name is a lock of its own.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import filelock
from optuna.storages import RDBStorage
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError, OperationalError

from studies.urls import StorageError, masked

LOCK_TIMEOUT = 120.0
"""Seconds to wait for a lock before giving up."""
_POLL_INTERVAL = 0.01
_LOCK_NOT_AVAILABLE = "55P03"


def study_lock(storage: RDBStorage, name: str, timeout: float = LOCK_TIMEOUT) -> AbstractContextManager[None]:
    """Keep every other thread and process of this study out while the ``with`` block runs.

    Not to be taken again within the block.

    Raises:
        StorageError: not free within ``timeout`` seconds.
    """
    return database_lock(storage.engine, f"study {name}", timeout)


@contextmanager
def database_lock(engine: Engine, name: str, timeout: float = LOCK_TIMEOUT) -> Iterator[None]:
    """As ``study_lock``, by any name, on the engine's database."""
    lock = {"sqlite": _file_lock, "postgresql": _postgres_lock, "mysql": _mysql_lock}[engine.dialect.name]
    with lock(engine, name, timeout):
        yield


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
    with engine.connect() as connection:  # the lock ends with the transaction that closing rolls back
        connection.execute(text(f"SET LOCAL lock_timeout = {round(timeout * 1000)}"))
        try:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _number(name)})
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
                raise
            raise _not_free(engine, name, timeout) from None
        yield


@contextmanager
def _mysql_lock(engine: Engine, name: str, timeout: float) -> Iterator[None]:
    key = f"cifar-search {_digest(f'{engine.url.database} {name}').hex()[:40]}"  # at most 64 characters
    with engine.connect() as connection:
        try:
            taken = connection.execute(text("SELECT GET_LOCK(:key, :time)"), {"key": key, "time": timeout})
            if taken.scalar() != 1:
                raise _not_free(engine, name, timeout)
            yield
        finally:
            with suppress(DBAPIError):  # a broken connection has lost its lock already
                connection.execute(text("SELECT RELEASE_LOCK(:key)"), {"key": key})


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
