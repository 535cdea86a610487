"""Database errors that pass by themselves, and calls that are repeated until they do.

An error passes when the server could not be reached, ended the connection, is starting or stopping, has no
connection or no room on its disk left, or when transactions stood in each other's way. Whatever else a
database says, as of a value that it cannot hold or a study that is gone, is raised at once, as a
``StorageError``.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from typing import TypeVar

from optuna.exceptions import DuplicatedStudyError, StorageInternalError
from optuna.storages._rdb.models import NOT_FOUND_MSG
from sqlalchemy import Engine
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, IntegrityError, PendingRollbackError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from tenacity import RetryError, Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from studies.sqlite import is_overtaken
from studies.urls import GoneError, RefusedError, StorageError, clean_message, masked

OUTAGE = 60.0
"""Seconds of an outage of the database that a storage call survives."""
_OPTION = "cifar_search_outage"
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 3.0
"""Bounds in seconds of the pauses, which are drawn at random so that clients do not come back together."""
_POSTGRES = {
    "53000",  # insufficient resources
    "53100",  # disk full
    "53200",  # out of memory
    "53300",  # too many connections
    "57P01",  # the server is shutting down, or the connection was ended
    "57P02",  # the server crashed
    "57P03",  # the server is starting up or shutting down
    "57P05",  # the connection was idle for too long
    "40001",  # transactions that stood in each other's way
    "40P01",  # deadlock
    "25P03",  # the transaction was idle for too long
    "25P04",  # the transaction took too long
    "55P03",  # a row was locked for too long
    "57014",  # the statement took too long, or was cancelled
}
_POSTGRES_CLASS = "08"  # the connection
_MYSQL = {
    0,  # PyMySQL's own: the connection is closed
    1020,  # MariaDB from 11.6 on: a row has changed since the transaction began
    1021,  # disk full
    1040,  # too many connections
    1053,  # the server is shutting down
    1114,  # no room left in the table space
    1158,  # the network, as the server saw it: an error of reading
    1159,  # nothing came in time
    1160,  # an error of writing
    1161,  # nothing went in time
    1203,  # the user has too many connections
    1205,  # a row was locked for too long
    1213,  # deadlock
    1226,  # the user has used up its connections
    1317,  # the statement was cancelled
    1927,  # MariaDB: the connection was ended
    1969,  # MariaDB: the statement took too long
    2002,  # cannot connect, by a local socket
    2003,  # cannot connect
    2006,  # the server has gone away
    2013,  # the connection was lost during a statement
    3024,  # MySQL: the statement took too long
    4031,  # MySQL: the connection was idle for too long
}
_OUT_OF_STEP = "Packet sequence number wrong"
"""How PyMySQL says that it had ended the connection when an answer to something else came."""
_SQLITE = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,  # also a quota, or a file server that is away
    sqlite3.SQLITE_CANTOPEN,  # also a full disk, on which the files beside the database cannot be made
    sqlite3.SQLITE_PROTOCOL,
}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_POSTGRES_DAMAGED = {"XX001", "XX002"}  # a table's or an index's content is damaged
_REFUSALS = (
    "authentication failed",
    "no password supplied",
    "does not exist",
    "pg_hba.conf",
    "resolve host",
    "Name or service",
)
"""What no waiting mends when a storage is opened for the first time; psycopg has no codes for it."""
_inside = threading.local()
T = TypeVar("T")


class OutageError(StorageError):
    """The database could not be used for as long as an outage is waited for."""


def passes(error: BaseException | None) -> bool:
    """Whether an error of the storage, of SQLAlchemy or of a driver goes away by itself."""
    if isinstance(error, StorageInternalError):
        return passes(error.__cause__)
    if isinstance(error, PendingRollbackError):  # a second statement on a connection that was lost
        return passes(error.__context__)
    if isinstance(error, PoolTimeout):
        return True
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or _driver_error_passes(error.orig)
    return isinstance(error, sqlite3.Error) and _driver_error_passes(error)


def is_damage(error: BaseException | None) -> bool:
    """Whether an error says that the content of the database is damaged."""
    if isinstance(error, StorageInternalError):
        return is_damage(error.__cause__)
    if isinstance(error, DBAPIError):
        return is_damage(error.orig)
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED
    return getattr(error, "sqlstate", None) in _POSTGRES_DAMAGED


def passes_before_use(error: BaseException) -> bool:
    """As ``passes``, of a storage that was never used: a wrong password, host or database is told at once."""
    return passes(error) and not any(refusal in str(error) for refusal in _REFUSALS)


def _driver_error_passes(error: BaseException | None) -> bool:
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", 0) & 0xFF in _SQLITE or is_overtaken(error)
    first = error.args[0] if error is not None and error.args else None
    if isinstance(first, int):  # PyMySQL's code
        return first in _MYSQL
    if isinstance(first, str) and first.startswith(_OUT_OF_STEP):
        return True
    state: str | None = getattr(error, "sqlstate", None)
    if state is None:  # psycopg's own: cannot connect, not in time, or the connection is lost
        return any(kind.__name__ == "OperationalError" for kind in type(error).__mro__)
    return state in _POSTGRES or state.startswith(_POSTGRES_CLASS)


def with_outage(limit: float) -> dict[str, float]:
    """Execution options for an engine whose calls survive an outage of ``limit`` seconds."""
    return {_OPTION: limit}


def outage_of(engine: Engine) -> float:
    """Seconds of an outage that calls on the engine survive."""
    limit: float = engine.get_execution_options().get(_OPTION, OUTAGE)
    return limit


def lasting(engine: Engine, call: Callable[[], T], done: Callable[[], T | None] | None = None) -> T:
    """The result of one transaction on the engine, repeated while its errors are such as pass.

    Args:
        engine: of the database, which says how long an outage may take.
        call: the transaction. It must do no harm when it is repeated, unless ``done`` is given.
        done: asked before ``call`` is repeated, since the answer to a commit may have been lost: the result
            if the call was committed after all, else None.

    A call inside another one is not repeated by itself.

    Raises:
        OutageError: the errors did not pass in time.
        GoneError: a study or a trial is not there (any more).
        StorageError: the database refuses, or its content is damaged.
    """
    return persist(call, passes, engine.url, outage_of(engine), done)


def persist(
    call: Callable[[], T],
    passing: Callable[[BaseException], bool],
    url: URL,
    limit: float,
    done: Callable[[], T | None] | None = None,
) -> T:
    """As ``lasting``, for what has no engine yet; ``passing`` says which errors pass."""
    if getattr(_inside, "a_call", False):
        return call()
    _inside.a_call = True
    try:
        return call()
    except Exception as error:
        if not passing(error):
            raise _told(error, url) from None
    finally:
        _inside.a_call = False
    pause = wait_random_exponential(multiplier=_FIRST_PAUSE, max=_LONGEST_PAUSE)
    retrying = Retrying(retry=retry_if_exception(passing), stop=stop_after_delay(limit), wait=pause)
    _inside.a_call = True
    try:
        return retrying(lambda: _unless_done(call, done))
    except RetryError as error:
        cause = error.last_attempt.exception() or error
        raise OutageError(
            f"storage {masked(url)}: could not be used for {limit:g} s: {clean_message(cause, url)}"
        ) from None
    except Exception as error:
        raise _told(error, url) from None
    finally:
        _inside.a_call = False


def gone(url: URL) -> GoneError:
    """What is raised for a study or a trial that is not there."""
    return GoneError(f"storage {masked(url)}: a study or a trial is not there: it was deleted or renamed")


def _told(error: Exception, url: URL) -> Exception:
    """What is raised for an error that does not pass: one line of our own for whatever the database says."""
    if isinstance(error, KeyError) and error.args == (NOT_FOUND_MSG,):
        return gone(url)
    if is_damage(error):
        return StorageError(f"storage {masked(url)}: the database is damaged: {clean_message(error, url)}")
    if isinstance(error, (SQLAlchemyError, StorageInternalError, sqlite3.Error)):
        return RefusedError(f"storage {masked(url)}: {clean_message(error, url)}")
    if type(error) is LookupError:  # SQLAlchemy's, for a name that is none of an enumeration's
        return StorageError(
            f"storage {masked(url)}: another program wrote into it: {clean_message(error, url)}"
        )
    return error


def _unless_done(call: Callable[[], T], done: Callable[[], T | None] | None) -> T:
    def attempt() -> T:
        before = done() if done else None
        return call() if before is None else before

    try:
        return attempt()
    except (IntegrityError, DuplicatedStudyError):  # a commit that had been on its way came meanwhile
        return attempt()
