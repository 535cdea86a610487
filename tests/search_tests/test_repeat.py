"""The commands confirm and ablate as processes of their own, on real digits."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
import warm
from optuna.trial import FrozenTrial, TrialState

from search.cli import main
from search.data.request import DataRequest
from search.data.sources import load
from search.prepare import StudyData
from search.training.engine import fit
from spaces.config import Configuration
from studies.plan import PlanStudy, Results, find_plan
from studies.processes import is_dead
from studies.record import WORKER, SplitRecord, confusion_of, setup_of
from studies.storage import open_storage
from studies.study import SearchStudy

SPACE = """
question: What helps?
base:
  model: {name: vgg, widths: [4], convolutions: 1, head: 0}
  training: {epochs: 2, batch_size: 32}
parameters:
  model.normalization: {choice: [batch, none], role: scientific}
  model.dropout: {choice: [0.0, 0.3], role: scientific}
  optimizer.lr: {float: [1e-2, 0.3], log: true, role: nuisance}
"""
PATIENCE = 120


def command(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return warm.run(words, cwd=folder)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A folder with a search of six trials, and what was said of it."""
    folder = tmp_path_factory.mktemp("searched")
    (folder / "mine.yaml").write_text(SPACE)
    words = [
        "--space",
        "./mine.yaml",
        "--dataset",
        "digits",
        "--trials",
        "6",
        "--train-size",
        "300",
        "--study",
        "s",
    ]
    assert command(folder, "run", *words, "--study", "s", "--data-dir", "data").returncode == 0
    return folder


@pytest.fixture
def folder(searched, tmp_path):
    """The same, to be changed."""
    (tmp_path / "data").symlink_to(searched / "data")
    source = (searched / "cifar-search.db").read_bytes()
    (tmp_path / "cifar-search.db").write_bytes(source)
    return tmp_path


def opened(folder: Path):
    return closing(open_storage(f"sqlite:///{folder / 'cifar-search.db'}", create=False))


def trials_of(folder: Path, name: str = "s") -> list[tuple[int, TrialState, float | None]]:
    with opened(folder) as storage:
        return [(t.number, t.state, t.value) for t in SearchStudy(storage, name).trials()]


WORDS = ("--data-dir", "data", "--workers", "1")


def test_finalists_are_repeated_beside_the_search_which_stays_as_it_was(folder):
    before = trials_of(folder)
    done = command(folder, "confirm", "s", "--top", "2", "--seeds", "2", *WORDS)
    assert done.returncode == 0, done.stderr
    assert "s/confirm: 4 trainings of 2 epochs on 2 splits of fresh seeds, 0 of them done" in done.stdout
    assert re.search(r"; about [\d.]+ s, by what such trainings took before", done.stdout)
    assert "chosen by the mean: trial" in done.stdout
    assert trials_of(folder) == before
    with opened(folder) as storage:
        plan = PlanStudy(storage, "s/confirm")
        assert [t.state for t in plan.trials()] == [TrialState.COMPLETE] * 4
        is_what_its_record_says(folder, plan, plan.trials()[0], SearchStudy(storage, "s").record.split)


def is_what_its_record_says(folder: Path, plan: PlanStudy, trial: FrozenTrial, searched: SplitRecord) -> None:
    """The recorded configuration, seed and split, trained here, give the recorded result."""
    setup, device = setup_of(trial), torch.device("cpu")
    images = StudyData(DataRequest("digits", folder / "data"), plan.data, device)
    data, earlier = images.divided(setup.split), images.divided(searched)
    run, result = fit(Configuration.read(setup.configuration), data, device, setup.seed)
    assert result.value == trial.value
    assert run.confusion() == confusion_of(trial)
    assert np.trace(run.confusion()) == round(trial.value * np.sum(run.confusion()))
    assert len(data.train_indices) == len(earlier.train_indices) == 300
    assert len(data.val_indices) == len(earlier.val_indices) == np.sum(run.confusion())
    assert set(data.val_indices.tolist()) != set(earlier.val_indices.tolist())


def started(folder: Path, *words: str) -> warm.Process:
    return warm.Process(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def test_an_interrupted_confirmation_goes_on_where_it_was(folder):
    words = ["confirm", "s", "--top", "2", *WORDS]
    with started(folder, *words, "--seeds", "100") as process:
        next(line for line in process.stdout if line.startswith("[2/200"))
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(PATIENCE) == 130, rest
    assert "The same command continues the study" in rest
    with opened(folder) as storage:
        closed = PlanStudy(storage, "s/confirm").slots().closed()
    assert 2 <= closed < 200
    blocks = closed // 2 + 2
    done = command(folder, *words, "--seeds", str(blocks))
    assert done.returncode == 0, done.stderr
    assert f"{2 * blocks} trainings" in done.stdout
    assert f"{closed} of them done" in done.stdout
    with opened(folder) as storage:
        plan = PlanStudy(storage, "s/confirm")
        results = Results(plan, [entry.fingerprint for entry in plan.entries()])
        assert results.values_EB.shape == (2, blocks)
        assert not results.missing


def running_worker(folder: Path) -> int | None:
    """The process of a training of the plan that is under way."""
    with opened(folder) as storage:
        plan = find_plan(storage, "s/confirm")
        for trial in plan.trials() if plan else []:
            worker = trial.user_attrs.get(WORKER, "")
            if trial.state == TrialState.RUNNING and not is_dead(worker):
                return int(worker.split(":")[-2])
    return None


@pytest.mark.slow
def test_a_worker_that_is_killed_loses_its_training_alone(folder):
    words = ["confirm", "s", "--top", "2", "--seeds", "30", *WORDS]
    with started(folder, *words) as process:
        deadline = time.monotonic() + PATIENCE
        while (worker := running_worker(folder)) is None and time.monotonic() < deadline:
            time.sleep(0.2)
        assert worker is not None
        os.kill(worker, signal.SIGKILL)
        process.stdout.read()
        assert process.wait(PATIENCE) == 0
    with opened(folder) as storage:
        plan = PlanStudy(storage, "s/confirm")
        assert plan.slots().closed() == 60
        assert len(plan.trials()) == 61
        assert Results(plan, [entry.fingerprint for entry in plan.entries()]).values_EB.shape == (2, 30)


@pytest.mark.slow
def test_every_image_validates_once_in_a_cross_validation(folder):
    done = command(folder, "confirm", "s", "--top", "1", "--folds", "3", *WORDS)
    assert done.returncode == 0, done.stderr
    assert "3 folds (of 3-fold cross-validation)" in done.stdout
    with opened(folder) as storage:
        plan = PlanStudy(storage, "s/confirm-3-fold")
        data = StudyData(DataRequest("digits", folder / "data"), plan.data, torch.device("cpu"))
        parts = [set(data.divided(setup_of(t).split).val_indices.tolist()) for t in plan.trials()]
        assert sum(map(len, parts)) == len(set().union(*parts))
        assert len(set().union(*parts)) == len(load(DataRequest("digits", folder / "data")).labels_N)


@pytest.mark.slow
def test_the_best_of_each_level(folder):
    done = command(folder, "confirm", "s", "--per-level", "model.normalization", "--seeds", "2", *WORDS)
    assert done.returncode == 0, done.stderr
    assert "the best of each level of model.normalization" in done.stdout
    shown = json.loads(command(folder, "show", "s/confirm", "--json").stdout)
    assert {finalist["level"] for finalist in shown["finalists"]} == {"batch", "none"}


@pytest.mark.slow
def test_an_ablation_keeps_models_and_draws_their_features(folder):
    done = command(folder, "ablate", "s", "--seeds", "2", "--features", "pictures", *WORDS)
    assert done.returncode == 0, done.stderr
    assert "the best of the search (no finalists have been confirmed)" in done.stdout
    assert "from the base" in done.stdout
    shown = json.loads(command(folder, "show", "s/ablate", "--json").stdout)
    steps = shown["steps"]
    assert steps[0]["kind"] == "base"
    assert all(len(step["accuracies"]) == 2 for step in steps)
    pictures = sorted(path.name for path in (folder / "pictures").glob("*.png"))
    assert len(pictures) == len(steps)
    assert pictures[0] == "00-base.png"
    assert all((folder / "pictures" / name).read_bytes().startswith(b"\x89PNG") for name in pictures)
    again = command(folder, "ablate", "s", "--seeds", "2", *WORDS)
    assert "0 of them done" not in again.stdout


WRONG = {
    ("confirm", "nothing"): "unknown study 'nothing'",
    ("confirm", "s", "--top", "0"): "must be a whole number of at least 1, but got '0'",
    ("confirm", "s", "--seeds", "-1"): "must be a whole number of at least 1",
    ("confirm", "s", "--folds", "1"): "must be a whole number of at least 2",
    ("confirm", "s", "--folds", "100000"): "--folds must be 2 to",
    ("confirm", "s", "--per-level", "model.depth"): "--per-level: unknown parameter 'model.depth'",
    ("confirm", "s", "--dataset", "cifar11"): "unknown data set 'cifar11'",
    ("confirm", "s", "--device", "tpu"): "unknown device 'tpu'",
    (
        "confirm",
        "s",
        "--storage",
        "sqlite:///nowhere.db",
    ): "--storage sqlite:///nowhere.db: the file does not exist",
    ("ablate", "nothing.yaml"): "nothing.yaml: cannot be read",
    ("ablate", "s", "--together", "model.dropout"): "must be two or more paths",
    ("ablate", "s", "--together", "modle.dropout,loss"): "must be two or more paths",
    ("ablate", "s", "--features", "cifar-search.db"): "--features: cifar-search.db",
}


@pytest.fixture
def handlers():
    """Puts back what a command within this process does to signals."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_a_mistake_is_one_line_and_makes_nothing(folder, words, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["cifar-search", *words, "--data-dir", "data"])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert ended.value.code == 2, said.out
    assert WRONG[words] in said.err
    assert len(said.err.strip().splitlines()) == 1
    with opened(folder) as storage:
        assert optuna.get_all_study_names(storage=storage) == ["s"]
