"""A command that starts warm is what it is when it starts by an interpreter of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import warm
from running import as_in_a_shell

STATE = """
import os, signal, sys
print(os.getcwd(), sys.argv[1:], os.environ["SOME"], __name__, os.getsid(0) == os.getpid(), sys.stdin.read())
print([signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)])
print(sys.stdout.encoding, sys.stdout.line_buffering, sys.stderr.line_buffering, "\u00e9")
sys.stderr.write("said\\n")
"""
ENDINGS = {
    "well": "",
    "a code": "raise SystemExit(3)",
    "words": "raise SystemExit('why')",
    "killed": "import os; os.kill(os.getpid(), 9)",
    "at exit": "import atexit; atexit.register(print, 'last')",
    "not written": "import sys; print('x'); sys.stdout = None",
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_it_finds_and_leaves_what_a_new_interpreter_does(tmp_path: Path, ending: str, encoding: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"{STATE}{ENDINGS[ending]}\n", encoding="utf-8")
    words = ["a", "b c", "\u00e9"]
    variables = {**os.environ, "SOME": "thing", "PYTHONIOENCODING": encoding, "PYTHONUNBUFFERED": ""}
    cold = subprocess.run(
        [sys.executable, str(script), *words], cwd=tmp_path, env=variables, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, encoding=encoding, start_new_session=True,
        preexec_fn=as_in_a_shell,
    )  # fmt: skip
    hot = warm.run(words, cwd=tmp_path, env=variables, script=str(script), encoding=encoding)
    assert (hot.returncode, hot.stdout, hot.stderr) == (cold.returncode, cold.stdout, cold.stderr)


def test_an_error_has_a_traceback_and_code_one(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("[][1]\n")
    done = warm.run([], cwd=tmp_path, script=str(tmp_path / "script.py"))
    assert done.returncode == 1
    assert done.stderr.endswith("IndexError: list index out of range\n")
