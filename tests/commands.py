"""Commands as tests run them: within this process, and as refusals that leave everything as it was."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from pathlib import Path
from unittest import mock

import pytest

from search.cli import main


def called(folder: Path, *words: str, **environment: str) -> tuple[int, str, str]:
    """Exit code and output of a command that runs within this process, which has all libraries already."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    variables = {"CIFAR_SEARCH_DATA": str(folder.parent / "data"), **environment}
    out, err = io.StringIO(), io.StringIO()
    try:
        with (
            contextlib.chdir(folder),
            mock.patch.dict(os.environ, variables),
            mock.patch.object(sys, "argv", ["cifar-search", *words]),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.raises(SystemExit) as ended,
        ):
            main()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    code = ended.value.code or 0
    assert isinstance(code, int)
    return code, out.getvalue(), err.getvalue()


def refused(folder: Path, *words: str, **environment: str) -> str:
    """The one line with which a command is refused; nothing in the folder has changed."""
    before = content_of(folder)
    code, stdout, stderr = called(folder, *words, **environment)
    assert code == 2, stderr
    lines = stderr.splitlines()
    assert len(lines) == 1, stderr
    assert stdout == ""
    after = content_of(folder)
    changed = [path.name for path in {**before, **after} if before.get(path) != after.get(path)]
    assert not changed, changed
    return lines[0]


def content_of(folder: Path) -> dict[Path, bytes]:
    """All regular files of a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
