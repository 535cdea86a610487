"""Where the words of a command go: streams that never end what it does, and the consoles on top of them.

A terminal may know few characters, a log's disk may be full, a reader may have gone, and a stream may have
been closed from the start. What cannot be shown is shown by similar characters; what cannot be written is
dropped, or is an error where a command exists only for its words. Whatever is written is made harmless first
(``search.harmless``).
"""

from __future__ import annotations

import codecs
import errno
import functools
import io
import os
import select
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ParamSpec, TextIO, TypeVar, cast

from search.harmless import secrets_of, without_commands, without_secrets

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer
    from rich.console import Console

    P = ParamSpec("P")
    R = TypeVar("R")

WIDTH = 140
"""Characters of a line where no terminal says how many it has."""
_SIMILAR = dict(zip("▁▂▃▄▅▆▇█▏·…±", [*".:-=+*#@|.~", "+-"], strict=True))
_ERRORS = "cifar-search"


class OutputLost(OSError):
    """Words of a command that exists only for them could not be written."""


class _Sink(io.FileIO):
    """The file behind a stream: what cannot be written is dropped, the first time with an error if it must
    arrive."""

    def __init__(self, number: int, must_arrive: bool) -> None:
        super().__init__(number, "w", closefd=False)
        self.must_arrive = must_arrive

    def write(self, content: ReadableBuffer, /) -> int:
        try:
            while (written := super().write(content)) is None:  # whoever shares it made it non-blocking
                select.select([], [self], [])
        except OSError as error:
            if self.must_arrive:
                self.must_arrive = False
                raise OutputLost(error.errno, error.strerror) from None
            return memoryview(content).nbytes
        return written


class _Stream(io.TextIOWrapper):
    """A stream of text in which nothing commands a terminal, and no password of the command line is shown."""

    _secrets: tuple[str, ...] = ()

    def keep_secret(self, words: Iterable[str]) -> None:
        """Show no password of URLs among these words from now on."""
        self._secrets = secrets_of(words)

    def write(self, text: str, /) -> int:
        # what begins with a carriage return is the progress bar of a library's download
        begin = "\r" if text.startswith("\r") else ""
        harmless = without_commands(text.removeprefix(begin))
        super().write(begin + without_secrets(harmless, self._secrets))
        return len(text)

    def write_drawn(self, text: str) -> int:
        """Write what a console has drawn, its commands to the terminal among it."""
        return super().write(text)


class _Drawn:
    """A stream as a console writes to it."""

    def __init__(self, stream: _Stream) -> None:
        self._stream = stream
        self.write = stream.write_drawn

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def open_streams() -> None:
    """Give this process a stdout and a stderr that take all text; again has no effect.

    What their encoding lacks is shown by similar characters, else by a question mark. Words that stderr
    cannot take are dropped; those that stdout cannot take raise ``OutputLost``, once, unless the command
    ``goes_on_unheard``.
    """
    _open_closed()
    codecs.register_error(_ERRORS, _similar)
    if sys.stdout is sys.__stdout__:
        sys.stdout = _stream(1, sys.stdout, must_arrive=True)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _stream(2, sys.stderr, must_arrive=False)


def _open_closed() -> None:
    """Occupy the numbers of standard streams that are closed, or the next files that are opened would get
    them, and the words. Opened the other way round, so that using them fails as it did."""
    for number, mode in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, mode), True)  # the lowest number that is free


def _stream(number: int, before: TextIO | None, must_arrive: bool) -> _Stream:
    sink = _Sink(number, must_arrive)
    assert before is None or isinstance(before, io.TextIOWrapper)
    at_once = before is None or before.line_buffering or before.write_through
    encoding = None if before is None else before.encoding
    stream = _Stream(io.BufferedWriter(sink), encoding, _ERRORS, line_buffering=at_once)
    stream.keep_secret([*sys.argv, os.environ.get("CIFAR_SEARCH_STORAGE", "")])
    return stream


def _similar(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_SIMILAR.get(character, "?") for character in lacking), error.end


def goes_on_unheard(command: Callable[P, R]) -> Callable[P, R]:
    """A command that does more than to say something: it goes on where nobody can hear what it says, and its
    exit code tells what it did."""

    @functools.wraps(command)
    def carry_out(*args: P.args, **kwargs: P.kwargs) -> R:
        sink = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
        if isinstance(sink, _Sink):
            sink.must_arrive = False
        return command(*args, **kwargs)

    return carry_out


def is_gone_reader(error: OutputLost) -> bool:
    """Whether who read the words has gone, as ``head`` does; nobody needs to be told."""
    return error.errno == errno.EPIPE


def say(line: str) -> None:
    """Show a line on stdout now."""
    print(line.replace("\n", r"\n"), flush=True)  # noqa: T201


def complain(line: str) -> None:
    """Show a line on stderr, with the program's name."""
    print(f"cifar-search: {line}", file=sys.stderr, flush=True)  # noqa: T201


def agree(question: str, yes: bool) -> None:
    """Return if the answer to a question is yes: by the option ``--yes``, or from a person at the terminal.

    Raises:
        ValueError: it is not, or nobody is there to be asked.
    """
    if yes:
        return
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
        raise ValueError(f"{question} There is no terminal to ask at: add --yes to agree")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)  # noqa: T201
    answer = sys.stdin.readline()
    if not answer.endswith("\n"):
        print(file=sys.stderr)  # noqa: T201 (the line that the end of the input left open)
    if answer.strip().lower() not in ("y", "yes"):
        raise ValueError("nothing was changed, since the answer was not yes")


def make_console(soft_wrap: bool = False) -> Console:
    """A console on stdout, as wide as the terminal, or of a fixed width where there is none. Rich draws
    tables and bars in ASCII where the encoding is not one of Unicode's."""
    from search.console import HarmlessConsole

    file = cast(TextIO, _Drawn(sys.stdout)) if isinstance(sys.stdout, _Stream) else None
    console = HarmlessConsole(file=file, soft_wrap=soft_wrap)
    return console if console.is_terminal else HarmlessConsole(file=file, soft_wrap=soft_wrap, width=WIDTH)
