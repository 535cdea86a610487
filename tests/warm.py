"""Commands that start at once, since they are forked from a process that has imported what they import.

A new interpreter computes for seconds to import torch and the rest, and so does what its workers are forked
from. Here a server does so once for each process of tests; a command, and the server of its workers, are
forks of it. All else is as it is: processes, sessions, terminals, signals, files, exit codes. What is about
the start itself, or about streams before Python has opened them, is tested with interpreters of its own.
"""

from __future__ import annotations

import atexit
import codecs
import gc
import importlib
import json
import os
import pkgutil
import random
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing import util
from pathlib import Path
from typing import IO, Any, NoReturn, TypeAlias

TESTS = Path(__file__).parent
PROGRAM = "search.cli"
"""The module that is ``cifar-search``."""
FORK_SERVER = "fork server"
"""What ``/proc/PID/comm`` says of what workers are forked from, and of them."""
STARTING = 300.0
"""Seconds that the server may take to import everything."""
_PACKAGES = ("search", "spaces", "studies")
_NOT_BEFORE = ("search.cluster.ray_workers",)
"""Modules whose imports start something."""
_LENGTH = struct.Struct("!I")
_STATUS = struct.Struct("!i")
Stream: TypeAlias = int | IO[Any] | None
_kept: set[int] = set()
"""Descriptors of what every new interpreter of a command would open at its start."""
_SERVE = "from multiprocessing.forkserver import main; main("


@dataclass(frozen=True)
class _Request:
    """A program to be run, in a fork."""

    words: tuple[str, ...]
    script: str | None
    """Path of a script; None: ``PROGRAM``."""
    folder: str
    environment: dict[str, str]
    terminal: bool


class Process:
    """A command in a session of its own, with what tests use of ``subprocess.Popen[str]``.

    ``wait`` raises ``subprocess.TimeoutExpired`` as there.
    """

    def __init__(
        self,
        words: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        stdin: Stream = subprocess.DEVNULL,
        stdout: Stream = None,
        stderr: Stream = None,
        script: str | None = None,
        terminal: bool = False,
        encoding: str = "utf-8",
    ) -> None:
        """Start ``cifar-search`` with these words.

        Args:
            words: its arguments.
            cwd: its working folder.
            env: all its variables; None: those that there are.
            stdin: as ``Popen`` takes it.
            stdout: the same.
            stderr: the same.
            script: the path of a script to run in place of ``cifar-search``.
            terminal: whether ``stdin`` is the terminal that the session gets.
            encoding: of what is read from pipes.
        """
        request = _Request(tuple(words), script, str(cwd), dict(os.environ if env is None else env), terminal)
        content = json.dumps(asdict(request)).encode()
        self.returncode: int | None = None
        self._link = _server().connect()
        with ExitStack() as passed:
            inner = _descriptor(stdin, 0, passed, encoding)[0]
            out, self.stdout = _descriptor(stdout, 1, passed, encoding)
            if stderr == subprocess.STDOUT:
                err, self.stderr = out, None
            else:
                err, self.stderr = _descriptor(stderr, 2, passed, encoding)
            socket.send_fds(self._link, [_LENGTH.pack(len(content))], [inner, out, err])
            self._link.sendall(content)
        self.pid = int(_STATUS.unpack(_exactly(self._link, _STATUS.size))[0])

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        self.wait()

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; the exit code."""
        if self.returncode is None:
            if not select.select([self._link], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(PROGRAM, timeout or 0.0)
            with self._link:
                (status,) = _STATUS.unpack(_exactly(self._link, _STATUS.size))
            self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the end; what is left of its output and of its errors."""
        with ThreadPoolExecutor(2) as readers:
            said = [readers.submit(_rest, stream) for stream in (self.stdout, self.stderr)]
            self.wait(timeout)
        self._close()
        return said[0].result(), said[1].result()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _close(self) -> None:
        for stream in (self.stdout, self.stderr):
            if stream is not None:
                stream.close()


def run(words: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, with what it said; the options are those of ``Process``."""
    pipe = subprocess.PIPE
    process = Process(words, **{"stdout": pipe, "stderr": pipe, **options})
    output, errors = process.communicate()
    return subprocess.CompletedProcess([*words], process.wait(), output, errors)


def _descriptor(stream: Stream, usual: int, passed: ExitStack, encoding: str) -> tuple[int, IO[str] | None]:
    """What the process gets, closed here with ``passed``, and the other end of a pipe."""
    if stream is None:
        return usual, None
    if stream == subprocess.PIPE:
        outer, inner = os.pipe()
        passed.callback(os.close, inner)
        return inner, os.fdopen(outer, encoding=encoding)
    if stream == subprocess.DEVNULL:
        null = os.open(os.devnull, os.O_RDWR)
        passed.callback(os.close, null)
        return null, None
    return stream if isinstance(stream, int) else stream.fileno(), None


def _rest(stream: IO[str] | None) -> str:
    return "" if stream is None else stream.read()


def _exactly(link: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size:
        piece = link.recv(size - len(content))
        assert piece, "the server of commands has ended"
        content += piece
    return content


class _Server:
    """The process that commands are forked from. It ends with this one."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="cifar-search-warm-")
        self._address = str(Path(self._folder.name) / "socket")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self._address)
            listener.listen(16)
            mine, its = os.pipe()  # whose reading end is at its end when this process is gone
            passed = (listener.fileno(), mine)
            program = f"import warm; warm.serve({listener.fileno()}, {mine})"
            self._process = subprocess.Popen(
                [sys.executable, "-c", program],
                cwd=TESTS,
                env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])},
                pass_fds=passed,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
            os.close(mine)
        self._alive = its
        atexit.register(self._close)

    def _close(self) -> None:
        os.close(self._alive)
        self._process.wait()
        self._folder.cleanup()

    def connect(self) -> socket.socket:
        link = socket.socket(socket.AF_UNIX)
        link.settimeout(STARTING)
        link.connect(self._address)
        return link


@cache
def _server() -> _Server:
    return _Server()


def serve(listening: int, parent: int) -> NoReturn:
    """The life of the server: a fork for each link, until ``parent`` is at its end."""
    _import_everything()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait
    listener = socket.socket(fileno=listening)
    gc.freeze()
    while True:
        ready, _, _ = select.select([listener, parent], [], [])
        if parent in ready:
            os._exit(0)
        link, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            os.close(parent)
            _wait_for_one(link)
        link.close()


def _import_everything() -> None:
    for package in _PACKAGES:
        path = importlib.import_module(package).__path__
        for module in pkgutil.walk_packages(path, f"{package}."):
            if module.name not in _NOT_BEFORE:
                importlib.import_module(module.name)
    for name in ("torch._dynamo", "rigging"):
        importlib.import_module(name)


def _wait_for_one(link: socket.socket) -> NoReturn:
    """Start one program, and tell its process id and how it ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    header, streams, _, _ = socket.recv_fds(link, _LENGTH.size, 3)
    request = _Request(**json.loads(_exactly(link, _LENGTH.unpack(header)[0])))
    pid = os.fork()
    if pid == 0:
        link.close()
        _become(request, streams)
    for stream in (*streams, 0, 1, 2):
        os.close(stream)
    with suppress(OSError):  # who asked may be gone
        link.sendall(_STATUS.pack(pid))
    _, status = os.waitpid(pid, 0)
    with suppress(OSError):
        link.sendall(_STATUS.pack(status))
    os._exit(0)


def _become(request: _Request, streams: Sequence[int]) -> NoReturn:
    """Be a new process that runs the program, and ends as an interpreter does."""
    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    if request.terminal:
        import fcntl
        import termios

        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    os.chdir(request.folder)
    os.environ.clear()
    os.environ.update(request.environment)
    time.tzset()
    for number in (signal.SIGHUP, signal.SIGINT):  # which may be ignored here, as with nohup
        signal.signal(number, signal.SIG_DFL)
    _begin_anew()
    _open_streams(request.environment.get("PYTHONIOENCODING", "utf-8"))
    _look_for_modules(request.environment.get("PYTHONPATH", ""))
    util.spawnv_passfds = _spawned
    place = request.folder if request.script is None else str(Path(request.script).parent)
    sys.path[0] = place
    sys.argv = [request.script or PROGRAM, *request.words]
    if request.script is None:
        del sys.modules[PROGRAM]  # as if it had not been imported, which it is as the main module
        runpy.run_module(PROGRAM, run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(request.script, run_name="__main__")
    sys.exit()


def _open_streams(told: str) -> None:
    """The standard streams, as $PYTHONIOENCODING says; buffered, whatever $PYTHONUNBUFFERED says."""
    name, _, errors = told.partition(":")
    encoding, errors = codecs.lookup(name).name, errors or "strict"
    sys.stdin = sys.__stdin__ = open(0, encoding=encoding, errors=errors, closefd=False)
    sys.stdout = sys.__stdout__ = open(1, "w", encoding=encoding, errors=errors, closefd=False)
    sys.stderr = sys.__stderr__ = open(
        2, "w", buffering=1, encoding=encoding, errors="backslashreplace", closefd=False
    )


def _look_for_modules(places: str) -> None:
    """In the folders of $PYTHONPATH that are new here; run the ``sitecustomize.py`` of theirs."""
    added = [place for place in places.split(os.pathsep) if place and place not in sys.path]
    sys.path[1:1] = added
    before = _descriptors()
    if any((Path(place) / "sitecustomize.py").exists() for place in added):
        sys.modules.pop("sitecustomize", None)
        importlib.invalidate_caches()
        importlib.import_module("sitecustomize")
    _kept.update(_descriptors() - before)


def _descriptors() -> set[int]:
    """Those that are open."""
    return {number for number in range(3, 256) if Path(f"/proc/self/fd/{number}").exists()}


def _begin_anew() -> None:
    """Signals and random numbers as a new interpreter has them: what is ignored or blocked stays so."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    random.seed()
    sys.modules["numpy"].random.seed()


def _spawned(path: str, arguments: Sequence[Any], passed: Sequence[int]) -> int:
    """As ``multiprocessing.util.spawnv_passfds``; what workers are forked from is forked itself."""
    program = str(arguments[-1])
    if not program.startswith(_SERVE):
        return _SPAWN(path, arguments, passed)
    pid = os.fork()
    if pid == 0:
        kept = sorted({0, 1, 2, *_kept, *passed})
        for lower, upper in zip(kept, [*kept[1:], os.sysconf("SC_OPEN_MAX")], strict=True):
            os.closerange(lower + 1, upper)
        atexit._clear()
        _begin_anew()
        sys.argv = ["-c"]
        sys.modules["__main__"] = types.ModuleType("__main__")
        Path("/proc/self/comm").write_text(FORK_SERVER)
        with suppress(SystemExit):
            exec(program, {"__name__": "__main__"})
        os._exit(0)  # and not through the command, of which it is a copy
    return pid


_SPAWN = util.spawnv_passfds
