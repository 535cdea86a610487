"""Connections to PostgreSQL and MySQL of which each end notices when the other one is gone.

A network may refuse a connection, reset it, close half of it, or let all its packets vanish and tell nobody.
So no end waits for ever. TCP is told to ask whether the other end is there; a client waits for an answer only
as long as its thread is patient (``patience``); and a server ends a session that does nothing within a
transaction (of MySQL: any), stops waiting where its client is gone, and ends a statement for whose answer
nobody waits any more. Since a silent session ends (``IDLE``) before its client gives up (``ANSWER``), what
was on its way is not committed later.

Uses of the drivers' internals, held by tests: ``psycopg.Connection.wait``, which is given a generator that
is told of each turn of waiting, ``psycopg.Cursor._rowcount``, and PyMySQL's ``Connection._read_timeout`` and
``_sock``.
"""

from __future__ import annotations

import functools
import importlib
import socket
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from sqlalchemy.engine import URL
from sqlalchemy.engine.interfaces import DBAPIConnection

CONNECT_TIMEOUT = 10
"""Seconds to wait for a server that does not answer, to connect."""
ANSWER = 180
"""Seconds to wait for an answer; longer than any lock is waited for."""
IDLE = 40
"""Seconds after which a server ends a transaction in which nothing is done, and frees its rows. MySQL ends
the session, also between transactions; one that was only idle is opened anew."""
VANISHED = 30
"""Seconds after which TCP gives up an end that does not acknowledge what it was sent."""
KEEPALIVE = 15, 5, 3
"""How TCP asks an end that says nothing: after so many seconds, again after so many, so often."""
_IF_GONE = """DO $$ BEGIN
  PERFORM set_config('client_connection_check_interval', '5s', false);
EXCEPTION WHEN undefined_object OR invalid_parameter_value THEN NULL;
END $$"""
"""Lets a PostgreSQL that can (from version 14 on, on most systems) stop waiting for a lock where its client
is gone."""
_told: ContextVar[float] = ContextVar("patience")


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Let this thread wait for each answer of a server so long at most, within the ``with`` block."""
    token = _told.set(min(seconds, _patience()))
    try:
        yield
    finally:
        _told.reset(token)


def _patience() -> float:
    return _told.get(ANSWER)


def connector(url: URL, *, write: bool) -> Callable[[], DBAPIConnection]:
    """What opens connections to a server, for ``create_engine(creator=...)``. What the URL itself sets
    (``?connect_timeout=3``) stays."""
    kind = url.get_dialect()
    words, named = kind(dbapi=kind.import_dbapi()).create_connect_args(url)  # type: ignore[call-arg]
    begin = {"postgresql": _connect_postgres, "mysql": _connect_mysql}[url.get_backend_name()]

    def connect() -> DBAPIConnection:
        connection: DBAPIConnection = begin(words, named)
        try:
            _begin_session(connection, _first_statements(url.get_backend_name(), write))
        except BaseException:
            connection.close()
            raise
        return connection

    return connect


def _begin_session(connection: Any, statements: list[str]) -> None:
    with patience(CONNECT_TIMEOUT), connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        connection.commit()


def _first_statements(backend: str, write: bool) -> list[str]:
    """What a session begins with. MySQL is to refuse what it cannot store whole."""
    if backend == "mysql":
        strict = "sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES')"
        first = [f"SET time_zone = '+00:00', wait_timeout = {IDLE}, {strict}"]
        return first if write else [*first, "SET SESSION TRANSACTION READ ONLY"]
    limits = {"idle_in_transaction_session_timeout": IDLE, "statement_timeout": ANSWER}
    first = ["SET TIME ZONE 'UTC'", *(f"SET {name} = '{limit}s'" for name, limit in limits.items()), _IF_GONE]
    return first if write else [*first, "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"]


def _connect_postgres(words: Sequence[Any], named: Mapping[str, Any]) -> Any:
    """A connection of which both ends have the same settings of TCP."""
    names = ("keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout")
    tcp = dict(zip(names, (*KEEPALIVE, 1000 * VANISHED), strict=True))
    options = " ".join(f"-c tcp_{name.removeprefix('tcp_')}={value}" for name, value in tcp.items())
    usual = {"connect_timeout": CONNECT_TIMEOUT, "options": options, **tcp}
    encoding = {"client_encoding": "utf8"}  # the server translates, or says what it cannot
    return _patient_postgres()(*words, **{**usual, **encoding, **named})


@functools.cache
def _patient_postgres() -> Any:
    """What opens connections of psycopg, whose own wait for ever."""
    psycopg: Any = importlib.import_module("psycopg")

    def wait(connection: Any, answer: Any, *words: Any, **named: Any) -> Any:
        def give_up(seconds: float) -> None:
            connection.pgconn.finish()
            raise psycopg.OperationalError(f"connection lost: no answer within {seconds:g} s")

        return psycopg.Connection.wait(connection, _within(_patience(), answer, give_up), *words, **named)

    def execute_each(cursor: Any, query: Any, rows: Iterable[Any], **_: Any) -> None:
        """As ``executemany``, with an answer to each. It would send them without asking for answers, and
        PostgreSQL ends no session that waits for the rest of such a batch."""
        counts = []
        for row in rows:
            cursor.execute(query, row)
            counts.append(cursor.rowcount)
        cursor._rowcount = sum(counts)

    cursors = type("AnsweredCursor", (psycopg.Cursor,), {"executemany": execute_each})
    patient = type("PatientConnection", (psycopg.Connection,), {"wait": wait})
    return functools.partial(patient.connect, cursor_factory=cursors)  # type: ignore[attr-defined]


def _within(seconds: float, answer: Any, give_up: Callable[[float], None]) -> Generator[Any, Any, Any]:
    """The same generator, which is given up in the first turn after so many seconds that brings nothing."""
    deadline = time.monotonic() + seconds
    try:
        wanted = next(answer)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() > deadline:
                give_up(seconds)
            wanted = answer.send(ready)
    except StopIteration as end:
        return end.value


def _connect_mysql(words: Sequence[Any], named: Mapping[str, Any]) -> Any:
    usual = {"connect_timeout": CONNECT_TIMEOUT, "write_timeout": ANSWER}
    with patience(CONNECT_TIMEOUT):  # PyMySQL greets a server under the timeout for answers
        connection = _patient_mysql()(*words, **{**usual, **named})
    _set_tcp(connection._sock)
    return connection


@functools.cache
def _patient_mysql() -> Any:
    """PyMySQL's class of connections, with a timeout for answers that is the thread's."""
    pymysql: Any = importlib.import_module("pymysql")

    def read_timeout(connection: Any) -> float:
        return min(_patience(), connection.__dict__.get("most") or ANSWER)

    def set_most(connection: Any, seconds: float | None) -> None:
        connection.__dict__["most"] = seconds

    return type(
        "PatientConnection", (pymysql.Connection,), {"_read_timeout": property(read_timeout, set_most)}
    )


def _set_tcp(connected: socket.socket) -> None:
    """As libpq sets it; what a system does not know is left as it is."""
    if connected.family == getattr(socket, "AF_UNIX", None):
        return
    names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
    for name, value in zip(names, (*KEEPALIVE, 1000 * VANISHED), strict=True):
        if (option := getattr(socket, name, None)) is not None:
            connected.setsockopt(socket.IPPROTO_TCP, option, value)
