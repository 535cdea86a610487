"""What users can get wrong: one line that names option, rule and value, exit code 2, and nothing made."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
import warm
from commands import called, refused
from exports import export, search

from search.data.request import DataRequest
from search.retraining.screen import RetrainScreen

ROOT = Path(__file__).parents[2]


def run(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess:
    """Run a command in a folder, with its own data folder beside it."""
    variables = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "CIFAR_SEARCH_DATA": str(folder.parent / "data"),
        **environment,
    }
    return warm.run(words, cwd=folder, env=variables)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty working folder."""
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


DIGITS = ("run", "--space", "regularization", "--dataset", "digits")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["run", "--space", "regularisation"], ["--space", "'regularisation'", "did you mean", "YAML file"]),
        ([*DIGITS, "--sampler", "tpee"], ["--sampler", "'tpee'", "random", "did you mean 'tpe'"]),
        ([*DIGITS, "--pruner", "medain"], ["--pruner", "'medain'", "asha", "did you mean 'median'"]),
        ([*DIGITS, "--device", "cpuu"], ["--device", "'cpuu'", "did you mean 'cpu'"]),
        ([*DIGITS, "--device", "cuda:99"], ["--device", "'cuda:99'", "cpu"]),
        ([*DIGITS, "--precision", "fp64"], ["--precision", "'fp64'", "bf16"]),
        ([*DIGITS, "--trials", "0"], ["--trials", "at least 1", "'0'"]),
        ([*DIGITS, "--trials", "-1"], ["--trials", "at least 1", "'-1'"]),
        ([*DIGITS, "--trials", "2.5"], ["--trials", "whole number", "'2.5'"]),
        ([*DIGITS, "--epochs", "0"], ["--epochs", "at least 1", "'0'"]),
        ([*DIGITS, "--seed", "-1"], ["--seed", "at least 0", "'-1'"]),
        ([*DIGITS, "--timeout", "-5"], ["--timeout", "positive time", "'-5'"]),
        ([*DIGITS, "--workers", "-1"], ["--workers", "at least 0", "'-1'"]),
        ([*DIGITS, "--val-size", "1.5"], ["--val-size", "between 0 and 1", "'1.5'"]),
        ([*DIGITS, "--train-size", "5"], ["--train-size", "at least one image for each of the 10", "5"]),
        ([*DIGITS, "--val-size", "1434"], ["--val-size", "1434"]),
        ([*DIGITS, "--train-size", "100"], ["training.batch_size", "100 training", "128", "--train-size)"]),
        ([*DIGITS, "--study", " "], ["--study", "1 to 200 printable characters"]),
        ([*DIGITS, "--study", "x" * 201], ["--study", "1 to 200 printable characters", "201"]),
        ([*DIGITS, "--sampler", "grid"], ["--sampler grid", "optimizer.weight_decay", "no grid"]),
        ([*DIGITS[:-1], "cifra10"], ["--dataset", "'cifra10'", "did you mean 'cifar10'"]),
        (["run", "--space", "none.yaml"], ["none.yaml", "No such file"]),
        (["run"], ["--space"]),
        (["rum"], ["rum"]),
        ([*DIGITS, "--bogus"], ["--bogus"]),
        (["spaces", "nope"], ["nope", "regularization"]),
        (["data", "digits", "--augment", "augmentation"], ["--augment", "--preview"]),
        ([*DIGITS, "--storage", "nonsense"], ["--storage", "'nonsense'", "sqlite:///"]),
        ([*DIGITS, "--storage", "sqlite:///no/such/folder/a.db"], ["--storage", "no/such/folder"]),
        ([*DIGITS, "--storage", "mysql://root:hidden@127.0.0.1:9/test"], ["--storage", "root:***@"]),
        (["studies"], ["cifar-search.db", "does not exist"]),
        (["show", "x"], ["cifar-search.db", "does not exist"]),
    ],
    ids=lambda value: " ".join(value)[-40:],
)  # fmt: skip
def test_a_mistake_is_one_line(folder, words, parts):
    line = refused(folder, *words)
    for part in parts:
        assert part in line
    assert "hidden" not in line


SPACE = """
question: A test?
command: none
cost: none
result: none
base: {training: {epochs: 1}}
parameters:
  model.dropout: {float: [0.0, 0.5], role: scientific}
"""


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("question:", "questoin:", ["questoin", "question"]),
        ("role: scientific", "role: scientific, role: nuisance", ["role"]),
        ("epochs: 1", "epochs: one", ["training.epochs", "'one'"]),
        ("[0.0, 0.5]", "[0.5, 0.0]", ["model.dropout", "low < high", "[0.5, 0.0]"]),
        ("[0.0, 0.5]", "[0.0, 0.5], log: true", ["model.dropout", "low > 0"]),
        ("role: scientific", "role: scientific, when: {model.depth: 3}", ["model.depth"]),
        ("role: scientific", "role: scientific, when: {model.dropout: 0.1}", ["model.dropout"]),
        ("model.dropout:", "model.dropuot:", ["model.dropuot", "dropout"]),
    ],
)
def test_a_space_file_is_refused_with_file_place_and_value(folder, old, new, parts):
    assert old in SPACE
    (folder / "mine.yaml").write_text(SPACE.replace(old, new))
    line = refused(folder, "run", "--space", "mine.yaml", "--dataset", "digits")
    for part in ["mine.yaml", *parts]:
        assert part in line


def test_files_that_are_no_study_database_are_not_touched(folder):
    (folder / "cifar-search.db").write_text("a diary, not a database")
    assert "not an SQLite database" in refused(folder, *DIGITS)
    assert "not an SQLite database" in refused(folder, "studies")
    (folder / "cifar-search.db").unlink()
    with sqlite3.connect(folder / "cifar-search.db") as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    connection.close()
    assert "recipes" in refused(folder, *DIGITS)
    assert "recipes" in refused(folder, "show", "x")


def test_a_study_of_somebody_else_is_left_alone(folder):
    url = f"sqlite:///{folder}/cifar-search.db"
    theirs = optuna.create_study(storage=url, study_name="regularization-digits")
    theirs.set_user_attr("owner", "somebody")
    line = refused(folder, *DIGITS)
    assert "'regularization-digits' was not made by cifar-search" in line
    listed = json.loads(run(folder, "studies", "--json").stdout)
    assert listed[0]["name"] == "regularization-digits"
    assert listed[0]["space"] is None


def test_an_unknown_study_is_refused_with_the_known_ones(folder):
    optuna.create_study(storage=f"sqlite:///{folder}/cifar-search.db", study_name="schedule-digits")
    line = refused(folder, "show", "schedul-digits")
    assert "'schedul-digits'" in line
    assert "did you mean 'schedule-digits'" in line


def test_a_data_set_that_cannot_be_downloaded_says_what_to_do(folder):
    # a proxy that nobody listens on: the download fails at once, also where there is a network
    line = refused(folder, "run", "--space", "regularization", https_proxy="http://127.0.0.1:9")
    for part in ("cifar10", "cifar-10-python.tar.gz", "by hand", "digits"):
        assert part in line


def test_data_describes_and_draws(folder):
    described = json.loads(run(folder, "data", "digits", "--json").stdout)
    assert sum(described["train"].values()) + sum(described["validation"].values()) == 1438
    assert described["channels"] == 1
    assert not described["mirrors"]
    result = run(folder, "data", "digits", "--preview", "p.png", "--augment", "augmentation")
    assert result.returncode == 0, result.stderr
    assert "can change a label" in result.stdout
    assert (folder / "p.png").read_bytes().startswith(b"\x89PNG")


def test_spaces_are_listed_shown_and_printed_to_be_copied(folder):
    listed = run(folder, "spaces").stdout
    for name in (
        "regularization",
        "optimizer",
        "schedule",
        "ordering",
        "normalization",
        "augmentation",
        "full",
    ):
        assert name in listed
    shown = run(folder, "spaces", "optimizer").stdout
    assert "optimizer.lr@sgd" in shown
    assert "the same number of trials for each optimizer.name" in shown
    (folder / "copy.yaml").write_text(run(folder, "spaces", "optimizer", "--yaml").stdout)
    assert run(folder, "spaces", "copy.yaml").stdout == shown


@pytest.mark.parametrize("name", ["mine.json", "mine", "mine.yaml"])
def test_a_space_is_read_from_any_file_that_is_there_by_what_it_holds(folder, name):
    tree = {
        "question": "A test?",
        "parameters": {"model.dropout": {"float": [0.0, 0.5], "role": "scientific"}},
    }
    (folder / name).write_text(json.dumps(tree, indent=2))
    code, shown, _ = called(folder, "spaces", name)
    assert code == 0
    assert "model.dropout" in shown
    (folder / name).write_text("PK")
    assert name in refused(folder, "spaces", name)


def test_a_folder_is_no_space_and_a_built_in_one_goes_before_a_file(folder):
    (folder / "mine").mkdir()
    assert "Is a directory" in refused(folder, "spaces", "mine")
    (folder / "full").write_text("no space")
    assert called(folder, "spaces", "full")[0] == 0
    assert "unknown space" in refused(folder, "spaces", "x" * 5000)


SHORT_OF_MEMORY = """
import contextlib, os, resource, sys
from search.cli import main

with contextlib.suppress(SystemExit):
    main()  # so that all is imported
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 500_000, size + 500_000))
main()
"""


@pytest.mark.slow
def test_a_command_that_runs_out_of_memory_ends_with_a_line(folder):
    request = DataRequest("digits", folder.parent / "data")
    search(f"sqlite:///{folder}/cifar-search.db", request, space=WIDE)
    export(f"sqlite:///{folder}/cifar-search.db", folder / "best.yaml")
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "CIFAR_SEARCH_DATA": str(folder.parent / "data")}
    done = subprocess.run(
        [sys.executable, "-c", SHORT_OF_MEMORY, "verify", "best.yaml"],
        cwd=folder, env=variables, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("cifar-search: memory ran out (")
    assert "a machine with more" in line


SHORT_SEED = """
import multiprocessing, resource, sys
from dataclasses import replace
from pathlib import Path
from search.data.request import DataRequest
from search.retraining.seed_run import SeedOrder, main
from search.retraining.trained import read_config

here, there = multiprocessing.Pipe(duplex=False)
config = read_config(Path("runs"))
order = SeedOrder(config, DataRequest("digits"), True, "cpu", Path("runs"), 2, 1)
main(order, there)  # so that all is imported
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 500_000, size + 500_000))
main(replace(order, index=3), there)
while here.poll():
    kind, what = here.recv()
print(kind, what)
"""


@pytest.mark.slow
def test_a_training_of_retrain_that_runs_out_of_memory_says_so_in_a_line(folder):
    request = DataRequest("digits", folder.parent / "data")
    search(f"sqlite:///{folder}/cifar-search.db", request, space=WIDE)
    export(f"sqlite:///{folder}/cifar-search.db", folder / "best.yaml")
    assert run(folder, "retrain", "best.yaml", "--seeds", "1", "-o", "runs").returncode == 0
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "CIFAR_SEARCH_DATA": str(folder.parent / "data")}
    words = [sys.executable, "-c", SHORT_SEED]
    done = subprocess.run(words, cwd=folder, env=variables, capture_output=True, text=True)
    (line,) = done.stdout.splitlines()
    assert line.startswith("failed memory ran out (")


WIDE = """
question: A test?
base:
  model: {name: vgg, widths: [64, 64], convolutions: 1, head: 0}
  training: {epochs: 1, batch_size: 256}
parameters:
  optimizer.lr: {float: [0.02, 0.1], log: true, role: nuisance}
"""


def test_pictures_that_could_not_be_drawn_are_said_and_no_error(capsys):
    figures = {"judged_on": None, "diverged": False, "seconds": 1.0}
    RetrainScreen().done(1, {**figures, "pictures": "not all could be drawn: no memory"})
    assert "seed 1: not all could be drawn: no memory" in capsys.readouterr().out
