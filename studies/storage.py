"""The storage of studies: Optuna's ``RDBStorage`` on SQLite, PostgreSQL and MySQL (MariaDB), safe to share.

What it adds: one-line errors without passwords; a look at the database before anything is made; tables made
once, by one process; calls that survive an outage of the database; times in UTC; SQLite transactions that
cannot read the same thing and both act on it, on the one host that its file serves; small connection pools.
Each process opens a storage of its own: one is never sent to another process. It
holds one connection to its server (two to MySQL), and up to four while threads are busy and a lock is held.

Uses of Optuna's internals, held by a test:

- ``optuna.storages._rdb.models``: ``BaseModel.metadata``, the tables and columns;
- ``RDBStorage(url)`` calls ``str.format`` on the URL, so that braces are doubled;
- ``RDBStorage(skip_table_creation=True)`` only reads, where the versions of the tables are written down;
- ``RDBStorage.engine``;
- those of ``studies.lasting``.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import optuna
from optuna.exceptions import ExperimentalWarning, OptunaError
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from sqlalchemy import Connection, Engine, create_engine, inspect
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from studies import sqlite
from studies.connections import CONNECT_TIMEOUT, connector, patience
from studies.hosts import check_host, remember_host, serves_this_host
from studies.lasting import LastingStorage
from studies.locks import (
    LockLostError,
    again_if_lost,
    creation_lock,
    database_lock,
    guard,
    lock_file,
    locked,
    study_lock,
)
from studies.retries import OUTAGE, OutageError, passes_before_use, persist, with_outage
from studies.urls import GoneError, StorageError, check_url, clean_message, masked

__all__ = [
    "GoneError",
    "LockLostError",
    "OutageError",
    "StorageError",
    "again_if_lost",
    "check_url",
    "clean_message",
    "creation_lock",
    "locked",
    "masked",
    "open_storage",
    "probe",
    "study_lock",
]

_POOL = {"pool_size": 1, "max_overflow": 3, "pool_pre_ping": True}
_MYSQL_POOL = {**_POOL, "pool_size": 2, "max_overflow": 2}
"""One more connection stays, for locks, since PyMySQL takes 25 ms of computing to connect."""
_CORE_TABLES = {"version_info", "studies", "trials"}
"""Tables that every version of Optuna with a database has made."""
# An outage is told in one line, where it ends a command; neither the pool's tracebacks nor Optuna's lines on
# each statement that failed are printed beside it.
logging.getLogger("sqlalchemy.pool").addHandler(logging.NullHandler())
logging.getLogger(RDBStorage.__module__).addFilter(
    lambda record: not str(record.msg).startswith("Caught an error from sqlalchemy")
)


class Storage(LastingStorage):
    """An ``RDBStorage`` that stays in its process: a pickle would hold the password and lose the settings."""

    def __getstate__(self) -> NoReturn:
        raise TypeError("a storage is not sent to another process: send its URL, and open it there")

    def close(self) -> None:
        """Close the idle connections; the last one of an SQLite file folds its ``-wal`` file back into it."""
        self.remove_session()
        self.engine.dispose()


def open_storage(
    url: str | URL,
    *,
    create: bool,
    write: bool = False,
    heartbeat: int | None = None,
    grace: int | None = None,
    outage: float = OUTAGE,
    wait: bool = False,
) -> Storage:
    """Open the storage that the URL names.

    Args:
        url: as ``check_url`` takes it; an SQLite path is relative to the working folder.
        create: make the file and the tables where there are none. Without it nothing is ever made or
            changed, and the database must hold Optuna's tables.
        write: open to write into a storage that exists; ``create`` implies it. Without either the storage
            only reads, and refuses to write.
        heartbeat: seconds between two signs of life of a running trial, for ``RDBStorage``'s bookkeeping.
        grace: seconds of silence after which a trial counts as lost; twice ``heartbeat`` by default.
        outage: seconds of an outage of the database that each call survives; then it raises ``OutageError``.
        wait: let opening survive an outage as well. A wrong password, host or database is told at once.

    Raises:
        StorageError: the database cannot be reached, is not ours to use, holds no studies, is read-only, or
            has the tables of another version of Optuna; to write, an SQLite file that serves another host.
    """
    parsed = check_url(url)
    options = {"heartbeat_interval": heartbeat, "grace_period": grace}

    def attempt() -> Storage:
        return _open(parsed, create=create, write=write or create, outage=outage, **options)

    with _one_line_errors(url):
        return persist(attempt, passes_before_use, parsed, outage) if wait else attempt()


def _open(url: URL, *, create: bool, write: bool, outage: float, **options: Any) -> Storage:
    target = _resolved(url)
    if _is_sqlite(target):
        sqlite.check_file(_path(target), write=write)
        if not create and not _path(target).exists():
            raise StorageError("the file does not exist")
        if write:
            check_host(_path(target))
    ready = _is_set_up(target, write=write)
    if not (ready or create):
        raise StorageError("holds no studies")
    if write and ready:
        _check_pages(target, write=True)
    if write and _is_sqlite(target):
        remember_host(_path(target))
    if write and not (ready and _is_shareable(target)):
        _set_up(target)
    storage = _construct(target, write=write, outage=outage, **options)
    try:
        _check_version(storage, target)
    except BaseException:
        storage.close()
        raise
    return storage


def probe(url: str | URL) -> bool:
    """Whether the URL holds studies; checks that it could, without making or changing anything.

    Raises:
        StorageError: as ``open_storage`` would; also for an SQLite file of which a page is damaged.
    """
    parsed = check_url(url)
    with _one_line_errors(url):
        target = _resolved(parsed)
        if _is_sqlite(target):
            sqlite.check_file(_path(target), write=True)
            check_host(_path(target))
        there = _is_set_up(target, write=False)
    if there:
        open_storage(url, create=False).close()
        with _one_line_errors(url):
            _check_pages(target, write=False)
    return there


def _check_pages(url: URL, *, write: bool) -> None:
    """Refuse an SQLite file of which a page is damaged; a look of the kind that ``_is_set_up`` takes."""
    if _is_sqlite(url):
        with _engine(url, write=write and lock_file(_path(url)).exists()) as engine:
            sqlite.check_pages(engine)


@contextmanager
def _one_line_errors(url: str | URL) -> Iterator[None]:
    try:
        yield
    except OutageError:
        raise
    except (StorageError, SQLAlchemyError, OptunaError, sqlite3.Error, OSError) as error:
        raise StorageError(f"storage {masked(url)}: {clean_message(error, url)}") from None


def _set_up(url: URL) -> None:
    """Make what is missing of file and tables, once, however many processes come here together."""
    with _engine(url, write=True) as engine, database_lock(engine, "set up"):
        if _is_sqlite(url):
            sqlite.use_wal(_path(url))
        if not _is_set_up(url, write=True):
            _construct(url, write=True, skip_table_creation=False).close()


def _construct(
    url: URL, *, write: bool, skip_table_creation: bool = True, outage: float = OUTAGE, **options: Any
) -> Storage:
    text = url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Argument ``heartbeat_interval``", ExperimentalWarning)
        storage = Storage(
            text,
            engine_kwargs={
                **_engine_options(url, write=write),
                "execution_options": with_outage(outage),
            },
            skip_compatibility_check=True,  # _check_version does it, with one-line errors
            skip_table_creation=skip_table_creation,
            **options,
        )
    if _is_sqlite(url):
        begin = sqlite.begin_immediate if write else sqlite.begin_to_read
        begin(storage.engine)
    guard(storage.engine)
    return storage


def _check_version(storage: Storage, url: URL) -> None:
    tables, ours = storage.get_current_version(), storage.get_head_version()
    if tables == ours:
        return
    older = tables in storage.get_all_versions()
    remedy = f"optuna storage upgrade --storage {masked(url)}" if older else "pip install --upgrade optuna"
    raise StorageError(
        f"its tables are those of {'an older' if older else 'a newer'} Optuna ({tables}), but this Optuna "
        f"{optuna.__version__} needs {ours}: {remedy}"
    )


def _is_set_up(url: URL, *, write: bool) -> bool:
    """Whether Optuna's tables are there, whole, with their version written down. Changes nothing.

    Raises:
        StorageError: the database belongs to another program.
    """
    if _is_sqlite(url):
        path = _path(url)
        if sqlite.holds_nothing(path):
            return False
        # A lock file says that this file has been opened to write before. Only then may a look at it make
        # SQLite's own files for a moment, which makes it safe beside other processes that are starting.
        write = write and lock_file(path).exists()
    with (
        patience(CONNECT_TIMEOUT),  # a server that does not answer shows here, within seconds
        _engine(url, write=write) as engine,
        _connect(engine) as connection,
    ):
        return _tables_are_whole(connection)


def _connect(engine: Engine) -> Connection:
    try:
        return engine.connect()
    except (RuntimeError, TypeError, ValueError) as error:
        # Drivers let Python's own errors through for a host name, an option or a login that they cannot use.
        raise StorageError(clean_message(error, engine.url)) from None


def _tables_are_whole(connection: Connection) -> bool:
    inspector = inspect(connection)
    found = set(inspector.get_table_names())
    expected = models.BaseModel.metadata.tables
    versions = "SELECT version_num FROM alembic_version"
    if "alembic_version" in found and connection.exec_driver_sql(versions).first():
        if not found >= _CORE_TABLES:
            raise _other_program(found)
        return True  # the version is the last thing that Optuna writes
    others = found - expected.keys() - {"alembic_version"}
    if others and connection.dialect.name == "sqlite":
        raise _other_program(others)
    for name in found & expected.keys():
        columns = {column["name"] for column in inspector.get_columns(name)}
        if not columns.issuperset(expected[name].columns.keys()):
            raise _other_program({name})
    return False


def _other_program(tables: set[str]) -> StorageError:
    some = ", ".join(sorted(tables)[:3])
    return StorageError(f"holds tables of another program ({some}): studies need a database of their own")


@contextmanager
def _engine(url: URL, *, write: bool) -> Iterator[Engine]:
    """A short-lived engine."""
    engine = create_engine(url, **_engine_options(url, write=write))
    if _is_sqlite(url) and not write:
        sqlite.begin_to_read(engine)
    try:
        yield engine
    finally:
        engine.dispose()


def _engine_options(url: URL, *, write: bool) -> dict[str, Any]:
    """Keyword arguments of ``create_engine``."""
    if not _is_sqlite(url):
        pool = _POOL if url.get_backend_name() == "postgresql" else _MYSQL_POOL
        return {**pool, "creator": connector(url, write=write)}
    if write:
        return {**_POOL, "creator": partial(sqlite.writer, _path(url))}
    # so that each read sees the file as it is then, and no log is kept open
    return {"poolclass": NullPool, "creator": partial(_read_sqlite, _path(url))}


def _read_sqlite(path: Path) -> sqlite3.Connection:
    """A connection that reads. It takes part in the log of a database that this host has written to before,
    which the lock file shows, since its writers may come at any time."""
    writable = os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
    return sqlite.reader(path, joining=writable and lock_file(path).exists() and serves_this_host(path))


def _is_sqlite(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


def _path(url: URL) -> Path:
    return Path(url.database or "")


def _resolved(url: URL) -> URL:
    """An SQLite URL by the file's real path: SQLite keeps its other files there, not beside a link to it."""
    return url.set(database=os.path.realpath(_path(url))) if _is_sqlite(url) else url


def _is_shareable(url: URL) -> bool:
    return not _is_sqlite(url) or sqlite.is_wal(_path(url))
