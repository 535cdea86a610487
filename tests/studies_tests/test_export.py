"""Exported configurations: what they hold, that they read back, and what is refused by hand-edited ones."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from spaces.config import Configuration
from spaces.space import Space
from studies.base import Claim
from studies.export import (
    names_of,
    of_best,
    of_trial,
    read_export,
    write_export,
)
from studies.looks import PIECE, Look, add_looks, looks_of
from studies.record import DataRecord, Drawing, History, Outcome, SplitRecord, StudyRecord
from studies.storage import open_storage
from studies.study import SearchStudy, open_study

SPACE = """
question: "What, # and\\n  why?"
base: {training: {epochs: 3}}
parameters:
  model.dropout: {float: [0.0, 0.4], step: 0.1, role: scientific}
  optimizer.lr: {float: [1e-3, 1.0], log: true, role: nuisance}
"""
NAME = "a: #1 'b' \u2028 {x}".replace("\u2028", "-")


@pytest.fixture
def storage(sqlite_url: str) -> Iterator[RDBStorage]:
    with closing(open_storage(sqlite_url, create=True)) as storage:
        yield storage


@pytest.fixture
def study(storage: RDBStorage) -> SearchStudy:
    return make_study(storage)


def make_study(storage: RDBStorage) -> SearchStudy:
    space = Space.read(SPACE, "mine", "mine")
    split = SplitRecord(seed=0, val_size=0.1, train_size=None, hash="5e10", train_images=900, val_images=100)
    data = DataRecord(name="digits", hash="d", classes=("0", "off", "1e3"), shape=(8, 8, 1), source="digits")
    described = StudyRecord(
        space_name="mine", space=space.to_yaml(), space_fingerprint=space.fingerprint(), data=data,
        split=split, epochs=3, precision="fp32", seed=0, sampler="random", pruner="none",
    )  # fmt: skip
    return open_study(storage, NAME, described, 20)


def run(
    study: SearchStudy,
    value: float | None,
    dropout: float = 0.1,
    history: History | None = None,
    **outcome: Any,
) -> Claim:
    """A trial that ended with this accuracy; None: it failed."""
    study.optuna.enqueue_trial({"model.dropout": dropout, "optimizer.lr": 0.1})
    claim = study.claim("somewhere:x:1:2", Drawing(sampler="random"))
    assert claim is not None
    claim.trial.report(value or 0.0, 1)
    told = Outcome(**{"reason": "finished", "epoch": 3, "seconds": 2.0, "device": "CPU", **outcome})
    state = {"finished": TrialState.COMPLETE, "pruned": TrialState.PRUNED}.get(told.reason, TrialState.FAIL)
    value = value if state == TrialState.COMPLETE else None
    assert study.close(claim.trial_id, state, told, history, value=value)
    return claim


def test_an_export_reads_back_to_the_same_configuration_data_split_seed_and_score(study, tmp_path):
    claim = run(study, 0.1 + 0.2, dropout=0.3, versions={"torch": "2.15.0", "python": "3.11"})
    written = write_export(of_best(study, "sqlite:///x.db")[0], tmp_path / "best.yaml")
    read = read_export(tmp_path / "best.yaml")
    assert read == written
    assert read.settings == claim.configuration
    assert read.settings.model.dropout == 0.3
    assert not read.is_edited
    only = read.runs[0]
    assert (only.trial, only.seed, only.accuracy, only.epoch) == (
        claim.trial.number,
        claim.seed,
        0.1 + 0.2,
        3,
    )
    assert only.versions == {"torch": "2.15.0", "python": "3.11"}
    assert only.split == study.record.split
    assert read.data == study.record.data
    assert read.base_settings == study.space.base
    assert (read.score.kind, read.score.n, read.score.low) == ("one run of the search", 1, None)
    assert f"cifar-search retrain {tmp_path / 'best.yaml'} --seeds 3 -o runs/best" == read.command


def test_a_run_holds_the_training_loss_of_every_epoch_where_it_was_recorded(study, tmp_path):
    curve = (2.3026, None, *(1 / epoch for epoch in range(1, 700)))  # in two pieces in the storage
    run(study, 0.5, 0.1, History(train_loss=curve))
    run(study, 0.4, 0.2)
    with_curve, without = of_best(study, "sqlite:///x.db", 2)
    write_export(with_curve, tmp_path / "best.yaml")
    assert read_export(tmp_path / "best.yaml").runs[0].train_loss == curve
    write_export(without, tmp_path / "old.yaml")
    assert "train_loss" not in (tmp_path / "old.yaml").read_text()
    assert read_export(tmp_path / "old.yaml").runs[0].train_loss == ()


def test_the_file_is_plain_yaml_whose_comment_holds_no_line_of_a_users(study, tmp_path):
    run(study, 0.5)
    write_export(of_best(study, "sqlite:///x.db")[0], tmp_path / "best.yaml")
    text = (tmp_path / "best.yaml").read_text()
    head, _, body = text.partition("\n\n")
    assert all(line.startswith("# ") for line in head.splitlines())
    assert "50.00 %" in head
    tree = yaml.safe_load(body)
    assert tree["study"] == NAME
    assert tree["data"]["classes"] == ["0", "off", "1e3"]
    assert list(tree)[-1] == "configuration"
    assert Configuration.read(tree["configuration"]).tree() == tree["configuration"]


def test_the_best_are_those_of_the_leaderboard_with_mean_and_spread_over_runs(study):
    values = {0.1: [0.6, 0.8], 0.2: [0.75], 0.0: [0.2]}
    for dropout, accuracies in values.items():
        for accuracy in accuracies:
            run(study, accuracy, dropout)
    first, second = of_best(study, "sqlite:///x.db", 2)
    assert first.settings.model.dropout == 0.2
    assert second.settings.model.dropout == 0.1
    assert (second.score.kind, second.score.n) == ("mean of n runs of the search", 2)
    assert second.score.mean == pytest.approx(statistics.fmean([0.6, 0.8]))
    assert second.score.spread == pytest.approx(statistics.stdev([0.6, 0.8]))
    assert second.score.low is None, "an adaptive search justifies no interval"
    assert len({one.seed for one in second.runs}) == 2
    assert of_trial(study, "sqlite:///x.db", 1).runs[0].trial == 1
    with pytest.raises(ValueError, match=r"--top: .* has 3 completed configuration\(s\), but got 4"):
        of_best(study, "sqlite:///x.db", 4)


@pytest.mark.parametrize(
    ("value", "outcome", "said"),
    [
        (0.5, {"reason": "pruned"}, "trial 0 did not: pruned"),
        (None, {"reason": "out of memory"}, "trial 0 did not: out of memory"),
    ],
)
def test_a_trial_that_did_not_complete_is_refused_with_the_reason(study, value, outcome, said):
    run(study, value, **outcome)
    with pytest.raises(ValueError, match=said):
        of_trial(study, "sqlite:///x.db", 0)
    with pytest.raises(ValueError, match="0 completed"):
        of_best(study, "sqlite:///x.db")


def test_trials_that_run_or_are_not_there_are_refused(study):
    with pytest.raises(ValueError, match="there is none"):
        of_trial(study, "sqlite:///x.db", 0)
    study.claim("somewhere:x:1:2", Drawing(sampler="random"))
    with pytest.raises(ValueError, match="did not: running"):
        of_trial(study, "sqlite:///x.db", 0)
    with pytest.raises(ValueError, match=r"numbered 0 to 0.*got 7"):
        of_trial(study, "sqlite:///x.db", 7)


def test_no_password_is_written_and_an_sqlite_path_holds_from_everywhere(study, tmp_path, monkeypatch):
    run(study, 0.5)
    for url in ("postgresql://me:geheim@host/db", "mysql://me@host/db?password=geheim"):
        path = tmp_path / "best.yaml"
        write_export(of_best(study, url)[0], path)
        assert "geheim" not in path.read_text()
        assert "***" in read_export(path).storage
    monkeypatch.chdir(tmp_path)
    assert of_best(study, "sqlite:///x.db")[0].storage == f"sqlite:///{tmp_path}/x.db"


EDITS = [
    ("format: 1", "format: 2", ["format", "2"]),
    ("format: 1", "farmat: 1", ["written by cifar-search export"]),
    ("\nquestion:", "\nqestion:", ["question", "required"]),
    ("precision: fp32\nscore", "precision: fp32\nspeed: 3\nscore", ["unknown key 'speed'"]),
    ("    hash: '5e10'", "    hash: '5e10'\n    hush: 1", ["runs.0.split", "'hush'", "did you mean 'hash'"]),
    ("epochs: 3\n    batch", "epochs: three\n    batch", ["configuration: training.epochs", "'three'"]),
    ("dropout: 0.1", "dropout: 1.5", ["configuration: model.dropout", "1.5"]),
    ("dropout: 0.1", "dropuot: 0.1", ["configuration: model.dropuot", "did you mean 'dropout'"]),
    ("  mean: 0.5", "  mean: 50", ["score.mean", "less than or equal to 1", "50"]),
    ("  mean: 0.5", "  mean: .nan", ["score.mean", "finite", "nan"]),
    ("  n: 1", "  n: 0", ["score.n", "0"]),
    ("  n: 1", "  n: '1'", ["score.n", "integer", "'1'"]),
    ("kind: one run of the search", "kind: guessed", ["score.kind", "'guessed'"]),
    ("shape: [8, 8, 1]", "shape: [8, 8, 2]", ["data.shape", "[8, 8, 2]"]),
    ("shape: [8, 8, 1]", "shape: [8, 8]", ["data.shape"]),
    ("classes: ['0', 'off', '1e3']", "classes: ['0', '0', '1e3']", ["data.classes", "different"]),
    ("- trial: 0", "- trial: -1", ["runs.0.trial", "-1"]),
    ("\ntrial: 0\n", "\ntrial: 0\ntrial: 1\n", ["duplicate key 'trial'"]),
]


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("export")
    with closing(open_storage(f"sqlite:///{folder}/s.db", create=True)) as storage:
        made = make_study(storage)
        run(made, 0.5)
        write_export(of_best(made, "sqlite:///x.db")[0], folder / "best.yaml")
    return (folder / "best.yaml").read_text().replace("'0', off, '1e3'", "'0', 'off', '1e3'")


@pytest.mark.parametrize(("old", "new", "parts"), EDITS, ids=[edit[1].strip()[:30] for edit in EDITS])
def test_a_hand_edited_file_is_refused_with_file_place_rule_and_value(text, tmp_path, old, new, parts):
    assert old in text
    edited = new.join(text.rsplit(old, 1))
    (tmp_path / "mine.yaml").write_text(edited)
    with pytest.raises(ValueError, match=r"mine\.yaml") as refused:
        read_export(tmp_path / "mine.yaml")
    for part in parts:
        assert part in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_edit_that_is_allowed_is_read_and_seen(text, tmp_path):
    (tmp_path / "mine.yaml").write_text("dropout: 0.2".join(text.rsplit("dropout: 0.1", 1)))
    read = read_export(tmp_path / "mine.yaml")
    assert read.is_edited
    assert read.settings.model.dropout == 0.2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x89PNG\xff\xfe", "must be UTF-8"),
        (b"", "written by"),
        (b"[1, 2]", "written by"),
        (b"a: [", "line 1"),
    ],
)
def test_other_files_are_refused(tmp_path, content, said):
    (tmp_path / "x.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=said):
        read_export(tmp_path / "x.yaml")
    with pytest.raises(ValueError, match="No such file"):
        read_export(tmp_path / "y.yaml")
    with pytest.raises(ValueError, match="directory"):
        read_export(tmp_path)


def test_an_export_is_replaced_and_any_other_file_is_not(study, tmp_path):
    run(study, 0.5)
    export = of_best(study, "sqlite:///x.db")[0]
    write_export(export, tmp_path / "best.yaml")
    write_export(export, tmp_path / "best.yaml")
    (tmp_path / "diary.yaml").write_text("dear: diary\n")
    with pytest.raises(ValueError, match=r"diary\.yaml is there already"):
        write_export(export, tmp_path / "diary.yaml")
    assert (tmp_path / "diary.yaml").read_text() == "dear: diary\n"
    with pytest.raises(ValueError, match="cannot be written"):
        write_export(export, tmp_path / "none" / "best.yaml")
    assert sorted(path.name for path in tmp_path.glob("*.yaml")) == ["best.yaml", "diary.yaml"]


def test_several_exports_are_numbered():
    assert names_of(Path("a/best.yaml"), 1) == [Path("a/best.yaml")]
    assert names_of(Path("a/best.yaml"), 2) == [Path("a/best-1.yaml"), Path("a/best-2.yaml")]


def look(seed: int) -> Look:
    return Look(
        date="2026-01-02T03:04:05Z",
        folder="best",
        seeds=(seed,),
        accuracies=(0.5,),
        fingerprint="f",
        version="0",
    )


def test_looks_are_kept_in_order_and_once_also_when_two_write(study, storage):
    other = SearchStudy(storage, NAME)
    assert add_looks(study, [look(1)]) == 1
    assert add_looks(other, [look(1), look(2)]) == 1
    assert add_looks(study, [look(2), look(3), look(3)]) == 1
    assert [one.seeds for one in looks_of(other)] == [(1,), (2,), (3,)]
    many = [look(seed) for seed in range(4, 2 * PIECE)]
    assert add_looks(other, many) == len(many)
    assert [one.seeds[0] for one in looks_of(study)] == list(range(1, 2 * PIECE))
