"""The commands report and note, as a user types them, on a study that really trained."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
import warm

from search.cli import main
from studies.notes import note_of
from studies.storage import open_storage
from studies.study import SearchStudy

SPACE = """
question: Does <b>width</b> matter?
base:
  model: {name: vgg, widths: [4], convolutions: 1, head: 0}
  training: {batch_size: 128}
parameters:
  model.widths: {choice: {narrow: [2], wide: [8]}, role: scientific}
"""


@dataclass
class Ended:
    """How a command ended."""

    returncode: int
    stderr: str


@pytest.fixture
def cifar_search(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ended]:
    """The program itself, in this process, which starts faster."""

    def call(*words: str) -> Ended:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["cifar-search", *words])
        with pytest.raises(SystemExit) as end:
            main()
        return Ended(int(end.value.code or 0), capsys.readouterr().err)

    return call


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the database of a search over two widths, two epochs each."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "mine.yaml").write_text(SPACE)
    words = (
        "run --space mine.yaml --dataset digits --epochs 2 --sampler grid --trials 2 --workers 1 --study s "
        "--device cpu"
    )
    assert warm.run(words.split(), cwd=folder).returncode == 0
    return folder


def test_a_report_and_its_tables_tell_what_the_study_holds(
    folder: Path, cifar_search: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWSER_PATH", "nothing")
    result = cifar_search("report", "s", "-o", "page.html", "--figures", "figures")
    assert result.returncode == 2  # nothing to draw with, which is said after all else is written
    assert result.stderr.count("\n") == 1
    html = (folder / "page.html").read_text("utf-8")
    assert "Does &lt;b&gt;width&lt;/b&gt; matter?" in html
    with closing(open_storage(f"sqlite:///{folder}/cifar-search.db", create=False)) as storage:
        trials = SearchStudy(storage, "s").trials()
    with (folder / "figures" / "s-learning-curves.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    expected = [(t.number, e, value) for t in trials for e, value in sorted(t.intermediate_values.items())]
    read = [(int(row["trial"]), int(row["epoch"]), float(row["validation accuracy"])) for row in rows]
    assert read == expected
    for trial in trials:
        assert f"{100 * (trial.value or 0):.2f} %" in html
    assert not [file for file in (folder / "figures").iterdir() if file.suffix != ".csv"]


def test_notes_reach_the_study_the_trial_and_the_report(
    folder: Path, cifar_search: Callable[..., Ended]
) -> None:
    assert cifar_search("note", "s", "why <i>we</i> *ask*").returncode == 0
    assert cifar_search("note", "s", "--trial", "1", "the wide one").returncode == 0
    with closing(open_storage(f"sqlite:///{folder}/cifar-search.db", create=False)) as storage:
        study = SearchStudy(storage, "s")
        assert note_of(study).endswith("why <i>we</i> *ask*\n")
        assert note_of(study, study.trials()[1]).endswith("the wide one\n")
    assert cifar_search("report", "s").returncode == 0
    html = (folder / "report.html").read_text("utf-8")
    assert "why &lt;i&gt;we&lt;/i&gt; <em>ask</em>" in html
    assert "the wide one" in html


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["report", "t"], "unknown study 't': known are s"),
        (["report", "s", "s"], "STUDY: each study must be named once, but got s again"),
        (["report", "s", "--format", "gif"], "--format: unknown format 'gif': known are png, svg"),
        (
            ["report", "s", "-o", "no/such/page.html"],
            "--output: no/such/page.html: cannot be written (No such",
        ),
        (["report", "s", "--storage", "sqlite:///none.db"], "--storage sqlite:///none.db: "),
        (
            ["report", "s", "-o", "x.html", "--figures", "mine.yaml"],
            "--figures: mine.yaml: cannot be written to",
        ),
        (["note", "s", " "], "TEXT: a note must have 1 to 20000 characters, but got 0"),
        (["note", "s", "a", "--trial", "7"], "--trial: study 's' has trials 0 to 1, but got 7"),
        (["note", "t", "a"], "unknown study 't': known are s"),
    ],
)
def test_mistakes_are_one_line(cifar_search: Callable[..., Ended], words: list[str], message: str) -> None:
    result = cifar_search(*words)
    assert result.returncode == 2
    assert result.stderr.startswith(f"cifar-search: {message}"), result.stderr
    assert result.stderr.count("\n") == 1
