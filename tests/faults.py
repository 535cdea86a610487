"""Faults of a database, made for real: connections ended by their server, and a network that is cut."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import servers
import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url

_END_ALL = {
    "postgresql": "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{name}'",
    "mysql": "SELECT id FROM information_schema.processlist WHERE db = '{name}'",
}


def end_connections(url: str | URL) -> None:
    """Let the server end every connection to the database, as it does when it restarts."""
    url = make_url(url)
    server = servers.POSTGRES if url.get_backend_name() == "postgresql" else servers.MYSQL
    engine = sa.create_engine(server, poolclass=sa.NullPool)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        found = connection.exec_driver_sql(_END_ALL[url.get_backend_name()].format(name=url.database)).all()
        for (number,) in found if url.get_backend_name() == "mysql" else []:
            with suppress(sa.exc.OperationalError):  # it has ended by itself
                connection.exec_driver_sql(f"KILL CONNECTION {number}")


def end_connection(pooled: Any) -> None:
    """Let the server end this connection, and return when it has."""
    connection = pooled.dbapi_connection
    if hasattr(connection, "thread_id"):
        servers.administer(servers.MYSQL, f"KILL CONNECTION {connection.thread_id()}")
    else:
        servers.administer(
            servers.POSTGRES, f"SELECT pg_terminate_backend({connection.info.backend_pid}, 5000)"
        )


@contextmanager
def lost_commit(engine: sa.Engine, when: str) -> Iterator[None]:
    """The next commit loses its connection: "before" it reaches the server, or "after" it was done there."""
    commit, waiting = engine.dialect.do_commit, [True]

    def lose(connection: Any) -> None:
        if not waiting:
            commit(connection)
            return
        waiting.clear()
        if when == "after":
            commit(connection)
        end_connection(connection)
        commit(connection)
        with connection.cursor() as cursor:  # an empty commit says nothing to the server
            cursor.execute("SELECT 1")

    engine.dialect.do_commit = lose
    try:
        yield
    finally:
        engine.dialect.do_commit = commit
    assert not waiting, "nothing was committed"


class Proxy:
    """A way to a server through a port of this machine, which can be cut and restored."""

    def __init__(self, url: str) -> None:
        self._target = (make_url(url).host or "", make_url(url).port or 0)
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = make_url(url).set(host="127.0.0.1", port=self.port).render_as_string(hide_password=False)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        """End all connections and refuse new ones."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for pair in self._pairs:
            for end in pair:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        self._pairs.clear()

    def restore(self) -> None:
        """Accept connections again, at the same port."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                pair = (client, socket.create_connection(self._target))
                self._pairs.append(pair)
                threading.Thread(target=_forward, args=pair, daemon=True).start()


def _forward(*pair: socket.socket) -> None:
    other = {pair[0]: pair[1], pair[1]: pair[0]}
    with suppress(OSError), pair[0], pair[1]:
        while True:
            for ready in select.select(pair, (), ())[0]:
                if not (data := ready.recv(65536)):
                    return
                other[ready].sendall(data)


@contextmanager
def proxy(url: str) -> Iterator[Proxy]:
    """A proxy to the URL's server, as long as the ``with`` block runs."""
    way = Proxy(url)
    try:
        yield way
    finally:
        way.cut()


@contextmanager
def later(seconds: float, act: Callable[[], object]) -> Iterator[None]:
    """``act`` happens so long after the ``with`` block has begun, and at the latest when it ends."""
    timer = threading.Timer(seconds, act)
    timer.start()
    try:
        yield
    finally:
        timer.join()
