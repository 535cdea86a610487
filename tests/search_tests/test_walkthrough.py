"""From a study to an answer, one command after another as the README has them, on a folder of images. Every
file that any of their processes opens is written down: only ``retrain`` opens test images."""

from __future__ import annotations

import json
import os
from contextlib import closing
from pathlib import Path

import pytest
import warm
from exports import make_folder

from studies.looks import looks_of
from studies.storage import open_storage
from studies.study import SearchStudy

WATCHER = """
import os
import sys

LOG = os.open(os.environ["OPENED_FILES"], os.O_CREAT | os.O_WRONLY | os.O_APPEND)


def watch(event, arguments):
    if event in ("open", "os.listdir", "os.scandir") and isinstance(arguments[0], (str, bytes)):
        os.write(LOG, os.fsencode(arguments[0]) + b"\\n")


sys.addaudithook(watch)
"""
SPACE = """
question: What helps?
base:
  model: {name: vgg, widths: [4], convolutions: 1, head: 0}
  training: {epochs: 2, batch_size: 16}
parameters:
  model.normalization: {choice: [batch, none], role: scientific}
  optimizer.lr: {float: [1e-2, 0.3], log: true, role: nuisance}
"""


class Walk:
    """A working folder, in which commands are typed one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._log = folder / "opened"
        (folder / "watch").mkdir()
        (folder / "watch" / "sitecustomize.py").write_text(WATCHER)
        (folder / "mine.yaml").write_text(SPACE)
        self.images = make_folder(folder / "images")

    def type(self, *words: str) -> str:
        """Run a command, which must succeed; what it printed."""
        self._log.write_bytes(b"")
        variables = {
            **os.environ,
            "PYTHONPATH": str(self.folder / "watch"),
            "OPENED_FILES": str(self._log),
            "CIFAR_SEARCH_DATA": str(self.folder / "data"),
        }
        done = warm.run(words, cwd=self.folder, env=variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def opened(self, part: str) -> set[str]:
        """What the last command's processes opened in this folder of the images."""
        root = os.fsencode(self.images / part) + os.fsencode(os.sep)
        return {os.fsdecode(line) for line in self._log.read_bytes().splitlines() if line.startswith(root)}


@pytest.mark.slow
def test_every_step_works_and_only_retraining_opens_test_images(tmp_path: Path) -> None:
    walk = Walk(tmp_path)
    searching = (
        ("run", "--space", "./mine.yaml", "--dataset", "images", "--trials", "4", "--study", "s"),
        ("confirm", "s", "--top", "2", "--seeds", "2"),
        ("ablate", "s", "--seeds", "2", "--features", "features"),
        ("effects", "s"),
        ("export", "s", "--confirmed", "-o", "best.yaml"),
        ("verify", "best.yaml"),
        ("report", "s", "-o", "before.html"),
    )
    for number, words in enumerate(searching):
        said = walk.type(*words)
        assert not walk.opened("test"), words
        assert number or walk.opened("train")  # the watcher sees the workers' files, too
    assert "the same to the last bit" in walk.type("verify", "best.yaml")
    assert "s/confirm" in walk.type("studies")
    said = walk.type("retrain", "best.yaml", "--seeds", "2", "-o", "runs/best")
    assert "test accuracy" in said
    assert walk.opened("test")
    with closing(open_storage(f"sqlite:///{tmp_path / 'cifar-search.db'}", create=False)) as storage:
        assert len(looks_of(SearchStudy(storage, "s"))) == 2
    judged = json.loads(walk.type("predict", "runs/best", "images/test", "--json"))
    metrics = json.loads((tmp_path / "runs" / "best" / "seed-1" / "metrics.json").read_text())
    right = [Path(each["path"]).parent.name == each["class"] for each in judged]
    assert sum(right) / len(right) == metrics["accuracy"]
    walk.type("note", "s", "My own words.")
    walk.type("report", "s", "-o", "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "My own words." in page
    assert (tmp_path / "features" / "00-base.png").is_file()
