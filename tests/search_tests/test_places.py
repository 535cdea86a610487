"""Where a command runs: temporary folders that are far away or not there, and users without a home."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pytest
import warm
from running import closed_exactly

from search.sockets import LONGEST, OF_MULTIPROCESSING, OF_RAY, SHORT, folder_for

ROOT = Path(__file__).parents[2]
CLI = [sys.executable, "-m", "search.cli"]
TINY = """
question: Does dropout help?
base:
  model: {name: vgg, widths: [4], convolutions: 1, head: 0, normalization: none}
  training: {epochs: 1, batch_size: 64}
parameters:
  model.dropout: {float: [0.0, 0.5], step: 0.1, role: scientific}
"""
RUN = ["run", "--space", "tiny.yaml", "--study", "s", "--dataset", "digits", "--train-size", "200",
       "--trials", "2", "--workers", "1"]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder with a tiny space."""
    (tmp_path / "tiny.yaml").write_text(TINY)
    return tmp_path


def called(
    folder: Path, *words: str, before: tuple[str, ...] = (), **environment: str
) -> tuple[int, str, str]:
    """Exit code and output of a command; an empty variable is one that is not set."""
    given = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    variables = {name: value for name, value in given.items() if value}
    if before:
        program = [*before, *CLI, *words]
        done = subprocess.run(program, cwd=folder, env=variables, capture_output=True, text=True, timeout=300)
    else:
        done = warm.run(words, cwd=folder, env=variables)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def far(tmp_path: Path) -> Path:
    """A folder whose path is too long for any socket in it."""
    folder = tmp_path / ("far" * 30)
    folder.mkdir()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("how", ["far", "absent", "a file"])
@pytest.mark.parametrize("more", [(), ("--ray", "local")], ids=["processes", "ray"])
def test_a_search_runs_wherever_temporary_files_belong(
    folder: Path, far: Path, how: str, more: tuple[str, ...]
) -> None:
    if more and not find_spec("ray"):  # not imported: Ray would know this process without a token
        pytest.skip("needs Ray")
    (folder / "file").touch()
    place = {"far": far, "absent": folder / "absent", "a file": folder / "file"}[how]
    code, _, stderr = called(folder, *RUN, *more, TMPDIR=str(place))
    assert (code, stderr) == (0, "")
    assert closed_exactly(f"sqlite:///{folder}/cifar-search.db", 2)


@pytest.mark.parametrize("rest", [OF_MULTIPROCESSING, OF_RAY])
def test_a_socket_fits_into_the_folder_for_it(
    far: Path, tmp_path: Path, rest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(far))
    place = folder_for(rest)
    assert place in SHORT
    assert len(place + rest) <= LONGEST
    own = Path(tempfile.mkdtemp(dir=place))
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(own / "s"))
    finally:
        shutil.rmtree(own)


def test_a_folder_that_is_near_enough_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as near:
        monkeypatch.setattr(tempfile, "tempdir", near)
        assert folder_for(OF_MULTIPROCESSING) == near


def nobody() -> tuple[str, ...]:
    """What runs a command as a user whom the machine does not know, who may read what we may."""
    before = ("unshare", "--user", "--map-user=54321")
    if shutil.which("unshare") and not subprocess.run([*before, "true"], capture_output=True).returncode:
        return before
    pytest.skip("no process may take another user's number here")


HOMELESS = {"HOME": "", "USER": "", "LOGNAME": "", "XDG_CACHE_HOME": "", "XDG_DATA_HOME": ""}


@pytest.mark.slow
def test_a_user_without_a_home_can_search_and_look(folder: Path) -> None:
    before, environment = nobody(), {**HOMELESS, "CIFAR_SEARCH_DATA": str(folder / "data")}
    for words in (RUN, ["show", "s"], ["studies"], ["effects", "s"], ["data", "digits"]):
        code, _, stderr = called(folder, *words, before=before, **environment)
        assert (code, stderr) == (0, ""), words
    assert not (folder / "~").exists()


def test_a_user_without_a_home_is_asked_where_images_are_to_be_kept(folder: Path) -> None:
    environment = {**HOMELESS, "CIFAR_SEARCH_DATA": ""}
    code, stdout, stderr = called(folder, "data", "digits", before=nobody(), **environment)
    assert (code, stdout) == (2, "")
    (line,) = stderr.splitlines()
    assert "no home folder is known" in line
    assert "--data-dir" in line
    assert "$HOME" in line


def test_a_user_without_a_home_is_asked_where_files_of_a_server_are_to_be_kept(folder: Path) -> None:
    script = "from studies.folders import folder_of; folder_of('postgresql://me@127.0.0.1/x', 'checkpoints')"
    done = subprocess.run(
        [*nobody(), sys.executable, "-c", f"try:\n {script}\nexcept ValueError as error: print(error)"],
        env={name: value for name, value in os.environ.items() if name not in HOMELESS},
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stderr == ""
    assert "no home folder is known" in done.stdout
    assert "$CIFAR_SEARCH_SHARED" in done.stdout
