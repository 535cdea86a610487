"""Database servers of a test's own, which it may crash: PostgreSQL and MariaDB of the operating system."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import sqlalchemy as sa
from networks import Network

PATIENCE = 120
"""Seconds to wait for a server on a busy machine."""


class MissingError(Exception):
    """This machine has no such server to start."""


class PrivateServer(ABC):
    """A server with a data folder and a port of its own."""

    backend: str
    """As in a URL."""
    user: str
    """Whom the server's processes belong to where this one is root's, which servers refuse to run as."""
    crash_signal: int

    def __init__(self, folder: Path, network: Network | None = None) -> None:
        """Make its data; it is to be reached through the network, by default on this machine alone.

        Raises:
            MissingError: its programs are not installed here.
        """
        self._folder = folder
        self._network = network
        self._address = network.server if network else "127.0.0.1"
        self._owner = self.user if os.getuid() == 0 else None
        if self._owner:
            self._own(folder)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self._initialize()

    @property
    @abstractmethod
    def url(self) -> str:
        """Of an empty database."""

    @abstractmethod
    def _initialize(self) -> None:
        """Make the files."""

    @abstractmethod
    def _command(self) -> list[str]:
        """What runs in the foreground."""

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = self._spawn(self._command())
        engine = sa.create_engine(self.url, poolclass=sa.NullPool)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                engine.connect().close()
                return
            except sa.exc.OperationalError:
                assert self._process.poll() is None, self._log
                assert time.monotonic() < deadline, self._log
                time.sleep(0.1)

    def crash(self) -> None:
        """End it without a word to its clients; what it has not written to its tables is left in its log."""
        assert self._process is not None
        self._process.send_signal(self.crash_signal)
        self._process.wait(PATIENCE)

    def has_ended(self) -> bool:
        """Whether it has given up by itself."""
        return self._process is not None and self._process.poll() is not None

    def close(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _own(self, path: Path) -> None:
        try:
            account = pwd.getpwnam(self.user)
        except KeyError:
            raise MissingError(f"there is no user {self.user} to run {self.backend} as") from None
        os.chown(path, account.pw_uid, account.pw_gid)

    def _spawn(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        owner = {"user": self._owner, "group": self._owner, "extra_groups": ()} if self._owner else {}
        inside = self._network.inside() if self._network else nullcontext()
        with self._log_file.open("ab") as log, inside:
            return subprocess.Popen(
                command, cwd=self._folder, stdout=log, stderr=log, start_new_session=True, **owner
            )

    def _run(self, command: Sequence[str]) -> None:
        assert self._spawn(command).wait(PATIENCE) == 0, self._log

    @property
    def _log_file(self) -> Path:
        return self._folder / "log"

    @property
    def _log(self) -> str:
        return self._log_file.read_text(errors="replace")


class PrivatePostgres(PrivateServer):
    """PostgreSQL. It crashes as by ``pg_ctl stop -m immediate``."""

    backend = "postgresql"
    user = "postgres"
    crash_signal = signal.SIGQUIT

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://postgres@{self._address}:{self._port}/postgres"

    @property
    def _data(self) -> str:
        return str(self._folder / "data")

    def _initialize(self) -> None:
        self._run([program("initdb"), "-D", self._data, "-U", "postgres", "-A", "trust"])
        if self._network:
            with (self._folder / "data" / "pg_hba.conf").open("a") as rules:
                rules.write(f"host all all {self._network.client}/32 trust\n")

    def _command(self) -> list[str]:
        where = ["-h", self._address, "-p", str(self._port), "-k", str(self._folder)]
        return [program("postgres"), "-D", self._data, *where]

    def close(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)  # SIGKILL would leave its children
            self._process.wait(PATIENCE)


class PrivateMariadb(PrivateServer):
    """MariaDB. It crashes by SIGKILL."""

    backend = "mysql"
    user = "mysql"
    crash_signal = signal.SIGKILL

    @property
    def url(self) -> str:
        return f"mysql+pymysql://root@{self._address}:{self._port}/test"

    @property
    def _data(self) -> str:
        return f"--datadir={self._folder / 'data'}"

    def _initialize(self) -> None:
        install = [program("mariadb-install-db"), "--no-defaults", self._data]
        self._run([*install, "--auth-root-authentication-method=normal"])

    def _command(self) -> list[str]:
        files = [f"--socket={self._folder / 'socket'}", f"--pid-file={self._folder / 'pid'}"]
        where = [f"--bind-address={self._address}", f"--port={self._port}"]
        strangers = (
            ["--skip-grant-tables"] if self._network else []
        )  # who comes from elsewhere has no account
        return [program("mariadbd"), "--no-defaults", self._data, *files, *where, *strangers]


SERVERS = {server.backend: server for server in (PrivatePostgres, PrivateMariadb)}


def program(name: str) -> str:
    """The path of a server's program.

    Raises:
        MissingError: it is not here.
    """
    places = [*map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), "/usr/sbin"]
    found = shutil.which(name, path=os.pathsep.join([*places, os.environ.get("PATH", "")]))
    if found is None:
        raise MissingError(f"there is no {name} on this machine")
    return found


@contextmanager
def private_server(
    backend: str, parent: Path | None = None, network: Network | None = None
) -> Iterator[PrivateServer]:
    """A running server of this kind, gone when the ``with`` block ends; its folder is made in ``parent``, and
    it is at the other end of ``network``.

    Raises:
        MissingError: it cannot be started here.
    """
    folder = Path(tempfile.mkdtemp(prefix="cifar-search-", dir=parent))
    server = None
    try:
        server = SERVERS[backend](folder, network)
        server.start()
        yield server
    finally:
        if server is not None:
            server.close()
        shutil.rmtree(folder, ignore_errors=True)
