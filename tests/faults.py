"""Faults of a database, made for real: connections ended by their server, and a network that is cut."""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

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
    """A way to a server through a port of this machine, which can be cut and restored.

    One message of a client can be given an end of its own: ``strike`` says which, and ``ENDS`` how.
    """

    def __init__(self, url: str) -> None:
        self.target = url
        self._target = (make_url(url).host or "", make_url(url).port or 0)
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._due: tuple[int, bytes, Callable[[_Message], object]] | None = None
        self._counting = threading.Lock()
        self._moves_at = 0.0
        """Until this time of the monotonic clock all stands still."""
        self._lost: set[socket.socket] = set()
        """Ends from which nothing is passed on."""
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

    def strike(self, number: int, how: str, part: bytes = b"") -> None:
        """End the connection in the way of ``ENDS`` when the so-manyth message from now on (that has this
        part) comes to it."""
        self._due = number, part, ENDS[how]

    def stall(self, number: int, seconds: float, part: bytes = b"") -> None:
        """Let all stand still for so long when such a message comes to it, and go on then as if nothing had
        been; new connections are made, and stand still as well."""

        def stand_still(message: _Message) -> bool:
            self._moves_at = time.monotonic() + seconds
            self._wait()
            message.server.sendall(message.data)
            return True

        self._due = number, part, stand_still

    def _wait(self) -> None:
        while (left := self._moves_at - time.monotonic()) > 0:
            time.sleep(left)

    def spare(self) -> bool:
        """Strike no more; whether nothing was struck."""
        with self._counting:
            spared, self._due = self._due is not None, None
        return spared

    def swallow(self) -> None:
        """From now on let what comes on the connections that there are lead nowhere, and tell nobody."""
        self._lost |= {end for pair in self._pairs for end in pair}

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                self._wait()
                pair = (client, socket.create_connection(self._target))
                self._pairs.append(pair)
                threading.Thread(target=self._forward, args=pair, daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        other = {client: server, server: client}
        with suppress(OSError), client, server:
            while True:
                for ready in select.select(other, (), ())[0]:
                    self._wait()
                    if not (data := ready.recv(65536)):
                        return
                    if ready in self._lost:
                        continue
                    if ready is client and (end := self._end(data)):
                        if end(_Message(self, client, server, data)) is not True:
                            return
                        continue
                    other[ready].sendall(data)

    def _end(self, data: bytes) -> Callable[[_Message], object] | None:
        """What becomes of this message, if it is not simply passed on."""
        with self._counting:
            if self._due is None or self._due[1] not in data:
                return None
            number, part, end = self._due
            self._due = (number - 1, part, end) if number > 1 else None
            return end if number == 1 else None


class _Message(NamedTuple):
    """What a client sent to a server through a proxy, and was not passed on yet."""

    proxy: Proxy
    client: socket.socket
    server: socket.socket
    data: bytes

    def deliver(self) -> None:
        """Pass it on, and take the answer, or the first part of it."""
        self.server.sendall(self.data)
        self.server.recv(65536)

    def reset(self, *ends: socket.socket) -> None:
        """Let these ends know by a packet RST that the connection is gone."""
        for end in ends:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.close()

    def swallow(self) -> None:
        """Tell nobody: what both ends send from now on leads nowhere, until the proxy is cut."""
        while any(end.recv(65536) for end in select.select((self.client, self.server), (), ())[0]):
            pass

    def refuse(self) -> None:
        """Cut the way, and restore it a moment later."""
        self.proxy.cut()
        time.sleep(0.3)
        self.proxy.restore()

    def reset_client(self) -> None:
        """Tell the client alone, and deliver the message later, when the client is connected again."""
        self.reset(self.client)
        time.sleep(LATE)
        self.deliver()

    def half_close(self) -> None:
        """Send the client FIN, and tell the server nothing."""
        self.client.shutdown(socket.SHUT_WR)
        self.swallow()


LATE = 0.5
"""Seconds by which a message is late."""
ENDS: dict[str, Callable[[_Message], object]] = {
    "refused": _Message.refuse,
    "reset": lambda message: message.reset(message.client, message.server),
    "reset after the answer": lambda message: (message.deliver(), message.reset(*message[1:3])),
    "reset, delivered late": _Message.reset_client,
    "half-closed": _Message.half_close,
    "half-closed after the answer": lambda message: (message.deliver(), message.half_close()),
    "swallowed": _Message.swallow,
    "swallowed after the answer": lambda message: (message.deliver(), message.swallow()),
}
"""How a connection can end at a message."""


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
