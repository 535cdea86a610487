"""What a study says of itself: leaderboard, levels, importances, time, and all of it as JSON."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from search.tables import closing_lines
from spaces.domain import Choice, Domain, Floats, Integers
from spaces.space import Space
from studies.base import Claim
from studies.levels import levels
from studies.listing import list_studies
from studies.progress import ProgressMeter
from studies.record import DataRecord, Drawing, History, Outcome, Reason, SplitRecord, StudyRecord
from studies.storage import open_storage
from studies.study import SearchStudy, open_study
from studies.summary import Level, as_json, summarize

SPACE = """
question: What?
base: {training: {epochs: 10}}
parameters:
  model.normalization: {choice: [batch, none], role: scientific}
  model.dropout: {float: [0.0, 0.2], step: 0.1, role: scientific}
  optimizer.weight_decay: {float: [1e-6, 1e-3], log: true, role: scientific}
  optimizer.lr: {float: [1e-3, 1.0], log: true, role: nuisance}
"""


@pytest.fixture
def storage(sqlite_url: str) -> Iterator[RDBStorage]:
    with closing(open_storage(sqlite_url, create=True)) as storage:
        yield storage


@pytest.fixture
def study(storage: RDBStorage) -> SearchStudy:
    return make_study(storage, "s", 20)


def make_study(storage: RDBStorage, name: str, total: int | None) -> SearchStudy:
    space = Space.read(SPACE, "mine", "mine")
    split = SplitRecord(seed=0, val_size=0.1, train_size=None, hash="s", train_images=900, val_images=100)
    data = DataRecord(name="digits", hash="d", classes=("0", "1"), shape=(8, 8, 1))
    described = StudyRecord(
        space_name="mine", space=space.to_yaml(), space_fingerprint=space.fingerprint(), data=data,
        split=split, epochs=10, precision="fp32", seed=0, sampler="random", pruner="none",
    )  # fmt: skip
    return open_study(storage, name, described, total)


def claim(study: SearchStudy, **parameters: Any) -> Claim:
    """The next slot, with these parameters (a dot is written __) and fixed values for the rest."""
    values = {"model.normalization": "batch", "model.dropout": 0.0, "optimizer.weight_decay": 1e-4}
    values |= {"optimizer.lr": 0.1} | {name.replace("__", "."): value for name, value in parameters.items()}
    study.optuna.enqueue_trial(values)
    claimed = study.claim("somewhere:x:1:2", Drawing(sampler="random"))
    assert claimed is not None
    return claimed


def end(
    study: SearchStudy,
    of: Claim,
    reason: Reason,
    value: float = 0.5,
    epochs: int = 10,
    **outcome: Any,
) -> None:
    for epoch in range(1, epochs + 1):
        of.trial.report(value * epoch / epochs, epoch)
    states = {"finished": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "diverged": TrialState.PRUNED}
    state = states.get(reason, TrialState.FAIL)
    numbers = tuple(float(epoch) for epoch in range(epochs))
    history = History(
        train_loss=(None, *numbers[1:]), train_accuracy=numbers, val_loss=numbers, lr=numbers, seconds=numbers
    )
    described = Outcome(reason=reason, **({"epoch": epochs, "seconds": float(epochs)} | outcome))
    study.close(of.trial_id, state, described, history, value if reason == "finished" else None)


def run(study: SearchStudy, value: float, **parameters: Any) -> None:
    end(study, claim(study, **parameters), "finished", value)


def test_runs_of_one_configuration_are_one_entry_and_the_best_mean_comes_first(study: SearchStudy) -> None:
    run(study, 0.95, optimizer__lr=0.5)
    for value in (0.9, 0.7, 0.8):
        run(study, value)
    run(study, 0.86, optimizer__lr=0.01)
    run(study, 0.75, optimizer__lr=0.5)
    board = summarize(study).leaderboard
    assert [entry.parameters["optimizer.lr"] for entry in board] == [0.01, 0.5, 0.1]
    assert [entry.runs for entry in board] == [1, 2, 3]
    assert [entry.trials for entry in board] == [(4,), (0, 5), (1, 2, 3)]
    assert [entry.accuracy for entry in board] == pytest.approx([0.86, 0.85, 0.8])
    assert board[0].spread is None
    assert board[1].spread == pytest.approx(statistics.stdev([0.95, 0.75]))
    assert board[2].spread == pytest.approx(0.1)
    assert board[2].seconds == 10.0


def test_only_completed_trials_are_on_the_leaderboard_and_every_slot_is_counted_once(
    study: SearchStudy,
) -> None:
    run(study, 0.6)
    end(study, claim(study, optimizer__lr=0.9), "diverged", epochs=2)
    end(study, claim(study, optimizer__lr=0.2), "pruned", epochs=5)
    end(study, claim(study, optimizer__lr=0.3), "out of memory", epochs=0)
    end(study, claim(study, optimizer__lr=0.4), "interrupted", epochs=3)
    claim(study, optimizer__lr=0.4)
    summary = summarize(study)
    assert [entry.accuracy for entry in summary.leaderboard] == [0.6]
    assert summary.ended == {"finished": 1, "diverged": 1, "pruned": 1, "out of memory": 1}
    assert (summary.closed, summary.total, summary.attempts) == (4, 20, 6)
    assert summary.repeated == {"interrupted": 1, "running": 1}
    (given_up,) = summary.given_up
    assert (given_up.slot, given_up.trial, given_up.attempts, given_up.reason) == (3, 3, 1, "out of memory")


def test_what_trials_ran_on_is_listed_where_it_differs(study: SearchStudy) -> None:
    def ended_on(device: str, torch: str, lr: float) -> None:
        of = claim(study, optimizer__lr=lr)
        end(study, of, "finished", device=device, versions={"torch": torch, "cifar-search": "0.1.0+abc"})

    ended_on("CPU", "2.15", 0.1)
    ended_on("CPU", "2.15", 0.2)
    assert not [line for line in closing_lines(summarize(study)) if "trained on" in line]
    ended_on("H200", "2.15", 0.3)
    ended_on("CPU", "2.11", 0.4)
    assert [line for line in closing_lines(summarize(study)) if "trained on" in line] == [
        "note: 2 of them trained on CPU with torch 2.15, cifar-search 0.1.0+abc",
        "note: 1 of them trained on H200 with torch 2.15, cifar-search 0.1.0+abc",
        "note: 1 of them trained on CPU with torch 2.11, cifar-search 0.1.0+abc",
    ]


def test_a_slot_is_given_up_with_the_last_line_of_its_last_attempt(study: SearchStudy) -> None:
    for number in range(3):
        end(study, claim(study), "error", epochs=0, message=f"Traceback\nIndexError: {number}")
    (given_up,) = summarize(study).given_up
    assert (given_up.attempts, given_up.reason, given_up.message) == (3, "error", "IndexError: 2")


def test_the_standard_error_is_that_of_a_share_of_the_validation_images(study: SearchStudy) -> None:
    assert summarize(study).standard_error is None
    run(study, 0.8)
    assert summarize(study).standard_error == pytest.approx(math.sqrt(0.8 * 0.2 / 100))


def test_time_saved_is_what_pruned_trials_would_still_have_taken(study: SearchStudy) -> None:
    run(study, 0.6)
    end(study, claim(study), "pruned", epochs=4, seconds=8.0)
    end(study, claim(study), "diverged", epochs=2, seconds=2.0)
    end(study, claim(study), "interrupted", epochs=1, seconds=1.0)
    summary = summarize(study)
    assert summary.seconds_saved == pytest.approx(8.0 / 4 * 6)
    assert summary.seconds_trained == pytest.approx(10 + 8 + 2 + 1)


def level(study: SearchStudy, parameter: str, label: str) -> Level:
    found = [one for one in summarize(study).levels if (one.parameter, one.level) == (parameter, label)]
    assert len(found) == 1
    return found[0]


def test_levels_tell_how_many_were_pruned_and_how_good_the_best_were(study: SearchStudy) -> None:
    for value in (0.5, 0.9, 0.8, 0.7, 0.4, 0.3, 0.2, 0.1):
        run(study, value, model__dropout=0.1)
    end(study, claim(study, model__dropout=0.1), "pruned", 0.95)
    run(study, 0.6, model__dropout=0.2, model__normalization="none")
    end(study, claim(study, model__normalization="none"), "pruned", epochs=5)
    dropout = level(study, "model.dropout", "0.1")
    assert (dropout.trials, dropout.pruned, dropout.best) == (9, 1, 0.9)
    assert dropout.top_quarter == pytest.approx((0.9 + 0.8) / 2)
    assert level(study, "model.dropout", "0.2").top_quarter == 0.6
    none_completed = level(study, "model.dropout", "0")
    assert (none_completed.trials, none_completed.pruned, none_completed.best) == (1, 1, None)
    assert none_completed.top_quarter is None
    assert level(study, "model.normalization", "none").pruned == 1
    assert {one.parameter for one in summarize(study).levels} == {
        "model.normalization",
        "model.dropout",
        "optimizer.weight_decay",
    }
    decades = [one for one in summarize(study).levels if one.parameter == "optimizer.weight_decay"]
    assert [one.level for one in decades] == ["1e-6 to 1e-5", "1e-5 to 1e-4", "1e-4 to 0.001"]
    assert [one.trials for one in decades] == [0, 0, 11]


@pytest.mark.parametrize(
    ("domain", "values", "labels"),
    [
        (Choice(("a", "b")), ["b", "a"], ["b", "a"]),
        (Choice((True, False)), [False, True], ["false", "true"]),
        (Floats(0.0, 0.3, step=0.1), [0.1, 0.30000000000000004], ["0.1", "0.3"]),
        (Integers(1, 3), [1, 3], ["1", "3"]),
        (Floats(0.0, 3.0), [0.0, 0.99, 1.01, 2.5, 3.0], ["0 to 1"] * 2 + ["1 to 2"] + ["2 to 3"] * 2),
        (Floats(1e-3, 1.0, log=True), [1e-3, 0.05, 1.0], ["0.001 to 0.01", "0.01 to 0.1", "0.1 to 1"]),
        (Integers(1000, 1015), [1000, 1007, 1015], ["1000 to 1005", "1005 to 1010", "1010 to 1015"]),
        (Floats(0.9, 0.903), [0.9, 0.9029], ["0.9 to 0.901", "0.902 to 0.903"]),
    ],
)
def test_values_fall_into_the_levels_of_their_domain(domain: Domain, values: list, labels: list[str]) -> None:
    known, level_of = levels(domain)
    assert [level_of(value) for value in values] == labels
    assert set(labels) <= set(known)
    assert len(set(known)) == len(known)


def test_importances_name_the_parameter_that_decides(
    study: SearchStudy, recwarn: pytest.WarningsRecorder
) -> None:
    for number in range(9):
        run(study, 0.5 + number / 20, model__dropout=0.1 * (number % 3), optimizer__lr=10 ** (number / 4 - 3))
    assert summarize(study).importances == {}
    run(study, 0.95, optimizer__lr=0.9)
    importances = summarize(study).importances
    assert max(importances, key=importances.__getitem__) == "optimizer.lr"
    assert sum(importances.values()) == pytest.approx(1)
    assert not recwarn.list


def test_there_are_no_importances_where_all_are_alike(
    study: SearchStudy, recwarn: pytest.WarningsRecorder
) -> None:
    for number in range(12):
        run(study, 0.5, optimizer__lr=10 ** (number / 4 - 3))
    assert summarize(study).importances == {}
    assert not recwarn.list


def test_a_study_as_json_holds_every_attempt_and_no_number_that_json_lacks(study: SearchStudy) -> None:
    run(study, 0.6)
    end(study, claim(study, optimizer__lr=0.9), "diverged", epochs=2)
    end(study, claim(study, optimizer__lr=0.3), "out of memory", epochs=0)
    claim(study, optimizer__lr=0.4)
    told = json.loads("".join(as_json(study)))
    assert told["name"] == "s"
    assert [trial["state"] for trial in told["trials"]] == ["complete", "pruned", "fail", "running"]
    assert [trial["slot"] for trial in told["trials"]] == [0, 1, 2, 3]
    first, diverged, failed, running = told["trials"]
    assert first["value"] == 0.6
    assert first["configuration"]["optimizer"]["lr"] == first["parameters"]["optimizer.lr"] == 0.1
    assert first["val_accuracy"][-1] == pytest.approx(0.6)
    assert len(first["history"]["lr"]) == len(first["val_accuracy"]) == 10
    assert diverged["outcome"]["reason"] == "diverged"
    assert diverged["history"]["train_loss"][0] is None
    assert failed["outcome"]["reason"] == "out of memory"
    assert running["outcome"] is None
    assert running["seed"] == first["seed"]
    assert told["ended"] == {"finished": 1, "diverged": 1, "out of memory": 1}
    assert told["leaderboard"][0]["trials"] == [0]


def test_an_empty_study_can_be_summed_up(study: SearchStudy) -> None:
    summary = summarize(study)
    assert (summary.closed, summary.leaderboard, summary.seconds_trained) == (0, (), 0)
    assert json.loads("".join(as_json(study)))["trials"] == []


def test_studies_are_listed_in_order_with_their_best_completed_trial(storage: RDBStorage) -> None:
    first, _ = make_study(storage, "b", 20), make_study(storage, "a", None)
    run(first, 0.6)
    run(first, 0.5)
    end(first, claim(first), "pruned", 0.9)
    claim(first)
    listed = list_studies(storage)
    assert [(one.name, one.closed, one.total, one.best) for one in listed] == [
        ("b", 3, 20, 0.6),
        ("a", 0, None, None),
    ]
    assert (listed[0].space, listed[0].dataset, listed[0].epochs) == ("mine", "digits", 10)


def test_progress_knows_what_runs_what_ended_and_what_had_ended_before(study: SearchStudy) -> None:
    run(study, 0.6)
    end(study, claim(study), "interrupted", epochs=2)
    meter = ProgressMeter(study)
    started = meter.read()
    assert started.earlier == {0}
    assert started.seconds_left is None
    running = claim(study)
    running.trial.report(0.25, 1)
    end(study, claim(study), "pruned", 0.9, epochs=5)
    progress = meter.read()
    assert [(one.number, one.accuracies) for one in progress.running] == [(running.trial.number, (0.25,))]
    assert [(one.slot, one.reason) for one in progress.ended] == [(0, "finished"), (2, "pruned")]
    assert progress.earlier == {0}
    assert progress.best is not None
    assert progress.best.slot == 0
    end(study, running, "finished", 0.7, epochs=0)
    assert meter.read().best.accuracy == 0.7
