"""The command ``dashboard``: optuna-dashboard on a storage, on this machine alone unless told otherwise."""

from __future__ import annotations

import logging
import signal
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import optuna
from optuna_dashboard import wsgi

from search.dashboard.guard import (
    Guard,
    as_in_url,
    is_address,
    is_this_machine_only,
    names_of_machine,
)
from search.dashboard.refresh import Refresher
from search.dashboard.saving import NoteSaver
from search.interrupts import Interrupts
from spaces.text import within
from studies.artifacts import ArtifactStore, artifact_folder
from studies.storage import Storage, StorageError, open_storage
from studies.urls import clean_message, masked

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

Say = Callable[[str], None]


@dataclass(frozen=True)
class DashboardRequest:
    """What a user asks for with ``cifar-search dashboard``."""

    storage_url: str
    host: str = "127.0.0.1"
    port: int = 0
    """0: a free one."""
    allow_network: bool = False
    """Whether to listen where other machines can reach it."""
    artifacts: Path | None = None
    """Folder of the artifacts; None: beside an SQLite file, or in the user's data folder."""
    read_only: bool = False
    open_browser: bool = False


def run_dashboard(request: DashboardRequest, interrupts: Interrupts, say: Say) -> int:
    """Serve until Ctrl-C or SIGTERM, either of which ends it as it should; return the exit code, 0.

    Raises:
        ValueError: for whatever a user can get wrong.
    """
    _check_host(request)
    folder = _folder(request)
    with within("--storage"):
        storage, reason = _open(request)
    app = guarded_app(storage, folder, request.host, request.storage_url, reason is not None)
    with within(f"--host {request.host} --port {request.port}"):
        server = make_server(app, request.host, request.port)
    refresher = None if reason else Refresher(request.storage_url, folder, say)
    interrupts.raise_from_now_on()
    try:
        _announce(request, server.server_port, reason, say)
        if refresher:
            refresher.start()
        if request.open_browser:
            _open_browser(server.server_port, request.host, say)
        interrupts.check()
        server.serve_forever(poll_interval=0.2)
    except KeyboardInterrupt:
        say("dashboard ended")
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # the end takes a few seconds at most
        server.server_close()
        if refresher:
            refresher.stop()
        storage.close()
    return 0


def guarded_app(
    storage: Storage, folder: Path, host: str, storage_url: str, read_only: bool
) -> WSGIApplication:
    """optuna-dashboard on the storage, guarded, and reading trials that have ended only once."""
    _log_in_one_line(storage_url)
    cached = optuna.storages.get_storage(storage)
    app = NoteSaver(wsgi(cached, artifact_store=ArtifactStore(folder)), storage)
    return Guard(app, names_of_machine(host), read_only)


def _check_host(request: DashboardRequest) -> None:
    if not is_this_machine_only(request.host) and not request.allow_network:
        raise ValueError(
            f"--host {request.host}: lets other machines read, change and delete studies, and "
            "there is no login: give --allow-network too, or leave --host out and use an SSH tunnel"
        )


def _folder(request: DashboardRequest) -> Path:
    if request.artifacts is None:
        with within("--storage"):
            return artifact_folder(request.storage_url)
    if request.artifacts.exists() and not request.artifacts.is_dir():
        raise ValueError(f"--artifacts: must be a folder, but {str(request.artifacts)!r} is none")
    return request.artifacts.resolve()


def _open(request: DashboardRequest) -> tuple[Storage, str | None]:
    """The storage, and why it is only read, if so."""
    if request.read_only:
        return open_storage(request.storage_url, create=False), "as --read-only says"
    try:
        return open_storage(request.storage_url, create=False, write=True), None
    except StorageError as error:
        reason = str(error)
    return open_storage(request.storage_url, create=False), reason


def _announce(request: DashboardRequest, port: int, reason: str | None, say: Say) -> None:
    if not is_this_machine_only(request.host):
        say(
            "warning: whoever can reach this machine can read, change and delete these studies, and upload "
            "files: the dashboard has no login"
        )
    if reason:
        say(f"nothing is written, neither notes nor pictures nor figures: {reason}")
    say(f"dashboard of {masked(request.storage_url)}: {_address(request.host, port)}  (Ctrl-C ends it)")


def _address(host: str, port: int) -> str:
    return f"http://{as_in_url(host)}:{port}/"


def _open_browser(port: int, host: str, say: Say) -> None:
    """Without waiting, since some browsers come back only when they are closed."""
    where = host if is_this_machine_only(host) else "localhost"

    def show() -> None:
        with suppress(webbrowser.Error, OSError):
            if webbrowser.open(_address(where, port)):
                return
        say("no browser could be opened: open the address by hand")

    threading.Thread(target=show, daemon=True).start()


class Server(ThreadingMixIn, WSGIServer):
    """The server of Python's own library with a thread for each request, which optuna-dashboard uses too."""

    daemon_threads = True
    allow_reuse_address = sys.platform != "win32"

    def server_bind(self) -> None:
        """As inherited, without asking a name server for this machine's name."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of browsers that went away in the middle of an answer."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Keep silent about every single request."""


def make_server(app: WSGIApplication, host: str, port: int) -> Server:
    """A server that listens, but does not answer yet.

    Raises:
        ValueError: if it cannot listen there.
    """
    version = ip_address(host).version if is_address(host) else 4
    kind = type("Server", (Server,), {"address_family": socket.AF_INET6 if version == 6 else socket.AF_INET})
    try:
        server: Server = kind((host, port), _Handler)
    except (OSError, OverflowError) as error:
        raise ValueError(f"cannot listen there: {getattr(error, 'strerror', None) or error}") from None
    server.set_app(app)
    return server


class _OneLine(logging.Handler):
    """Errors of optuna-dashboard in a line each, without the storage's password."""

    def __init__(self, storage_url: str) -> None:
        super().__init__(logging.WARNING)
        self._url = storage_url

    def emit(self, record: logging.LogRecord) -> None:
        """Print the first line."""
        first = (record.getMessage().splitlines() or [""])[0]
        print(f"optuna-dashboard: {clean_message(ValueError(first), self._url)}", file=sys.stderr)  # noqa: T201


def _log_in_one_line(storage_url: str) -> None:
    logger = logging.getLogger("optuna_dashboard")
    logger.handlers, logger.propagate = [_OneLine(storage_url)], False
