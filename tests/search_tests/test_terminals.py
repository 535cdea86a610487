"""Terminals and logs that cannot take all words: encodings, full disks, closed streams, readers that left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import warm
from exports import export, search
from made_studies import make_study, run_all
from running import closed_exactly

from search.data.request import DataRequest
from studies.storage import open_storage

ROOT = Path(__file__).parents[2]
CLI = [sys.executable, "-m", "search.cli"]
PLAIN = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""What a terminal has where no language is set, as Python took it before version 3.7."""
NAMED = "naïve „s“"
SPACE = """
question: Does ≥ 10 % dropout help?
base: {training: {epochs: 4}}
parameters:
  model.normalization: {choice: [batch, none], role: scientific}
  model.dropout: {float: [0.0, 0.2], step: 0.1, role: scientific}
"""
TINY = """
question: Does ≥ 10 % dropout help?
base:
  model: {name: vgg, widths: [4], convolutions: 1, head: 0, normalization: none}
  training: {epochs: 1, batch_size: 64}
parameters:
  model.dropout: {float: [0.0, 0.5], step: 0.1, role: scientific}
"""


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the database of a made-up study, and a space file, neither in ASCII alone."""
    folder = tmp_path_factory.mktemp("studies")
    (folder / "mine.yaml").write_text(SPACE, encoding="utf-8")
    url = f"sqlite:///{folder}/cifar-search.db"
    with closing(open_storage(url, create=True)) as storage:
        study = make_study(storage, SPACE, 24, "s")
        run_all(
            study, lambda drawn: 0.3 + drawn["model.dropout"] + (drawn["model.normalization"] == "batch") / 3
        )
        make_study(storage, SPACE, 24, NAMED)
    return folder


def said(folder: Path, *words: str, encoding: str = "utf-8") -> str:
    """What a command prints where its streams have this encoding; it must end well, without complaint."""
    environment = variables(PYTHONIOENCODING=encoding)
    done = warm.run(words, cwd=folder, env=environment, encoding=encoding)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def said_plainly(folder: Path, *words: str) -> str:
    """The same where no language is set."""
    done = subprocess.run([*CLI, *words], cwd=folder, env=variables(**PLAIN), capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode("ascii")


def variables(**environment: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **environment}


def in_shell(folder: Path, words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A line of shell in which CLI stands for the program."""
    line = words.replace("CLI", " ".join(CLI))
    return subprocess.run(
        ["bash", "-c", line], cwd=folder, env=variables(**environment), capture_output=True, text=True
    )


LOOKING = [
    ("show", "s"),
    ("show", NAMED),
    ("studies",),
    ("effects", "s"),
    ("spaces",),
    ("spaces", "mine.yaml"),
    ("data", "digits"),
]


@pytest.mark.slow
@pytest.mark.parametrize("words", LOOKING, ids=" ".join)
@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252"])
def test_whoever_looks_sees_all_in_any_encoding(studies: Path, words: tuple[str, ...], encoding: str) -> None:
    usual, shown = said(studies, *words), said(studies, *words, encoding=encoding)
    assert len(shown.splitlines()) == len(usual.splitlines())
    assert not {"│", "┃", "━", "█"} & set(shown)


@pytest.mark.slow
def test_a_terminal_without_a_language_shows_tables_and_curves_in_ascii(studies: Path) -> None:
    lines = said_plainly(studies, "show", "s").splitlines()
    assert "question: Does ? 10 % dropout help?" in lines
    assert any(set(line.strip()) == {"+", "-"} for line in lines)
    curves = [line.split("|")[3].strip() for line in lines if line.count("|") > 6 and "%" in line][-1]
    assert set(curves) & set(".:-=+*#@")
    heat = said_plainly(studies, "effects", "s")
    assert "mean +- sd" in heat
    assert "##" in heat


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [("studies", "--json"), ("show", NAMED, "--json"), ("effects", "s", "--json")]
)
def test_json_is_the_same_in_every_encoding(studies: Path, words: tuple[str, ...]) -> None:
    usual = json.loads(said(studies, *words))
    for encoding in ("latin-1", "ascii", "utf-16-le"):
        assert json.loads(said(studies, *words, encoding=encoding)) == usual


@pytest.mark.slow
def test_a_space_printed_to_be_copied_is_the_file_in_every_encoding(studies: Path) -> None:
    out = studies / "copied.yaml"
    with out.open("wb") as stream:
        words = ("spaces", "mine.yaml", "--yaml")
        environment = variables(PYTHONIOENCODING="latin-1")
        assert warm.Process(words, cwd=studies, env=environment, stdout=stream).wait() == 0
    assert out.read_bytes() == (studies / "mine.yaml").read_bytes()


def test_a_refusal_is_shown_in_any_encoding(studies: Path) -> None:
    environment = variables(PYTHONIOENCODING="ascii")
    done = warm.run(["show", "naïve „t“"], cwd=studies, env=environment, encoding="ascii")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "na?ve ?t?" in line


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder with a tiny space."""
    (tmp_path / "tiny.yaml").write_text(TINY, encoding="utf-8")
    return tmp_path


RUN = "CLI run --space tiny.yaml --study s --dataset digits --train-size 200 --trials 2 --workers 1"


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["> /dev/full 2>&1", "<&- >&- 2>&-", "| head -n 1"])
def test_a_search_goes_on_whatever_becomes_of_its_words(folder: Path, ending: str) -> None:
    done = in_shell(folder, f"set -o pipefail; {RUN} {ending}")
    assert (done.returncode, done.stderr) == (0, "")
    assert closed_exactly(f"sqlite:///{folder}/cifar-search.db", 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("encoding", "terminal"),
    [({"PYTHONIOENCODING": "latin-1"}, False), (PLAIN, True)],
    ids=["a log in latin-1", "a terminal without a language"],
)
def test_a_search_is_shown_in_any_encoding(folder: Path, encoding: dict[str, str], terminal: bool) -> None:
    line = f"script -qec '{RUN}' /dev/null" if terminal else RUN
    done = subprocess.run(
        ["bash", "-c", line.replace("CLI", " ".join(CLI))],
        cwd=folder, env=variables(**encoding), capture_output=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert b"Does ? 10 % dropout help?" in done.stdout
    assert closed_exactly(f"sqlite:///{folder}/cifar-search.db", 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", ["show s", "studies", "studies --json", "data digits", "spaces full", "--help"]
)
def test_a_command_that_only_prints_says_that_it_could_not(studies: Path, words: str) -> None:
    full = in_shell(studies, f"CLI {words} > /dev/full")
    assert (full.returncode, full.stderr) == (1, "cifar-search: cannot write: No space left on device\n")
    closed = in_shell(studies, f"CLI {words} >&-")
    assert (closed.returncode, closed.stderr) == (1, "cifar-search: cannot write: Bad file descriptor\n")
    assert in_shell(studies, f"CLI {words} > /dev/full 2> /dev/full").returncode == 1


def test_a_reader_that_has_gone_is_told_nothing(studies: Path) -> None:
    done = in_shell(studies, "set -o pipefail; CLI spaces full | head -n 1")
    assert done.stdout.startswith("question: ")
    assert (done.returncode, done.stderr) == (1, "")


def test_a_refusal_keeps_its_exit_code_where_nobody_hears_it(studies: Path) -> None:
    assert in_shell(studies, "CLI show nothing 2> /dev/full").returncode == 2
    assert in_shell(studies, "CLI show nothing 2>&-").returncode == 2


@pytest.mark.slow
def test_a_file_is_written_though_nobody_hears_of_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/cifar-search.db"
    search(url, DataRequest("digits", tmp_path / "data"), trials=2)
    done = in_shell(tmp_path, "CLI export s --top 2 -o best.yaml --data-dir data > /dev/full")
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in tmp_path.glob("best*")} == {"best-1.yaml", "best-2.yaml"}
    export(url, tmp_path / "one.yaml")
    done = in_shell(tmp_path, "CLI verify one.yaml --data-dir data > /dev/full")
    assert (done.returncode, done.stderr) == (0, "")


STREAMS: list[tuple[str, Callable[[Any], Any]]] = [
    ("print('\\udcff', 'ï')", lambda out: out == b"? ?\n"),
    ("import os; os.set_blocking(1, False); print('x' * 300_000)", lambda out: out == b"x" * 300_000 + b"\n"),
]


@pytest.mark.parametrize(("code", "right"), STREAMS, ids=["lone surrogate", "non-blocking"])
def test_streams_take_all_text(code: str, right: Callable[[bytes], bool]) -> None:
    script = f"from search.output import open_streams; open_streams(); {code}"
    environment = variables(PYTHONIOENCODING="ascii")
    with subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE) as process:
        assert right(process.communicate()[0])
    assert process.returncode == 0
