"""One study: what workers are given, what closes a slot, and who may continue it. No training here."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy.exc import TimeoutError as PoolTimeout

from spaces.space import Space
from studies import heartbeat, record, writing
from studies.base import Claim
from studies.methods import build_pruner, check_pruner, check_sampler, resolve_pruner, resolve_sampler
from studies.processes import process_name
from studies.record import DataRecord, Drawing, History, Outcome, Reason, SplitRecord, StudyRecord
from studies.storage import LockLostError, open_storage
from studies.study import SearchStudy, check_continuation, open_study

SPACE = """
question: What?
base: {training: {epochs: 6}}
parameters:
  optimizer.lr: {float: [1e-3, 1.0], log: true, role: nuisance}
  model.dropout: {float: [0.0, 0.8], role: scientific}
  model.normalization: {choice: [batch, none], role: scientific}
"""
BALANCED = """
question: Which?
base: {training: {epochs: 6}}
balance: optimizer.name
first:
  - {optimizer.name: adam, optimizer.lr@adam: 0.002}
  - {model.dropout: 0.25}
parameters:
  optimizer.name: {choice: [sgd, adam, adamw], role: scientific}
  optimizer.lr@sgd: {float: [1e-3, 1.0], log: true, role: nuisance, when: {optimizer.name: sgd}}
  optimizer.lr@adam: {float: [1e-4, 1e-2], log: true, role: nuisance, when: {optimizer.name: [adam, adamw]}}
  model.dropout: {float: [0.0, 0.5], role: nuisance}
"""
GRID = """
question: Which?
base: {training: {epochs: 6}}
parameters:
  model.normalization: {choice: [batch, none], role: scientific}
  model.dropout: {float: [0.0, 0.2], step: 0.1, role: scientific}
"""
COIN = """
question: Heads?
base: {training: {epochs: 6}}
parameters:
  model.normalization: {choice: [batch, none], role: scientific}
"""
SOMETIMES_INVALID = """
question: Which?
base: {model: {name: vgg, normalization: group, widths: [16, 32]}}
first: [{model.groups: 8}]
parameters:
  model.groups: {int: [8, 16], step: 4, role: scientific}
"""

ME = process_name(os.getpid())


def wanted(space: str = SPACE, name: str = "mine", **changes: Any) -> StudyRecord:
    loaded = Space.read(space, name, name)
    values: dict[str, Any] = {
        "space_name": name,
        "space": loaded.to_yaml(),
        "space_fingerprint": loaded.fingerprint(),
        "data": DataRecord(name="digits", hash="d" * 40, classes=("0", "1"), shape=(8, 8, 1)),
        "split": SplitRecord(
            seed=0, val_size=0.1, train_size=None, hash="s" * 40, train_images=90, val_images=10
        ),
        "epochs": loaded.base.training.epochs,
        "precision": "fp32",
        "seed": 0,
        "sampler": "auto",
        "pruner": "median",
    }
    return StudyRecord(**(values | changes))


@pytest.fixture
def storage(sqlite_url: str) -> Iterator[RDBStorage]:
    with closing(open_storage(sqlite_url, create=True)) as storage:
        yield storage


@pytest.fixture(scope="module")
def dead_worker() -> str:
    """The name of a process that ran on this machine and has ended."""
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE
    ) as process:
        return process_name(process.pid)


def claimed(study: SearchStudy, worker: str = ME, parallel: int = 1, sampler: str = "auto") -> Claim:
    claim = study.claim(worker, Drawing(sampler=sampler, parallel=parallel))
    assert claim is not None
    return claim


def finish(study: SearchStudy, claim: Claim, value: float = 0.5) -> None:
    history = History(train_loss=(1.0,), train_accuracy=(0.5,), val_loss=(1.0,), lr=(0.1,), seconds=(1.0,))
    assert study.close(claim.trial_id, TrialState.COMPLETE, Outcome(reason="finished"), history, value)


def fail(study: SearchStudy, claim: Claim, reason: Reason) -> None:
    assert study.close(claim.trial_id, TrialState.FAIL, Outcome(reason=reason))


def slot_of(study: SearchStudy, claim: Claim) -> int:
    return study.storage.get_trial(claim.trial_id).user_attrs[record.SLOT]


def test_a_study_gives_each_slot_once_and_then_nothing(storage: RDBStorage) -> None:
    study = open_study(storage, "s", wanted(), 3)
    claims = []
    for _ in range(3):
        assert not study.is_complete()
        claims.append(claimed(study))
    assert study.claim(ME, Drawing(sampler="auto")) is None
    assert not study.is_complete()
    for claim in claims:
        finish(study, claim)
    assert study.is_complete()
    assert study.claim(ME, Drawing(sampler="auto")) is None
    assert [claim.slot for claim in claims] == [0, 1, 2]
    assert len({claim.configuration.fingerprint() for claim in claims}) == 3


def test_a_claim_says_what_it_runs_and_the_study_keeps_it(storage: RDBStorage) -> None:
    study = open_study(storage, "s", wanted(), 3)
    claim = claimed(study)
    trial = storage.get_trial(claim.trial_id)
    setup = record.setup_of(trial)
    assert setup is not None
    assert setup.configuration == claim.configuration.tree()
    assert claim.configuration.optimizer.lr == trial.params["optimizer.lr"]
    assert claim.configuration.training.epochs == 6
    assert (setup.seed, setup.sampler, setup.pruner) == (claim.seed, "tpe", "median")
    assert trial.user_attrs[record.SLOT] == 0
    assert trial.user_attrs[record.ATTEMPT] == 1
    assert trial.user_attrs[record.WORKER] == ME


def test_workers_that_claim_at_once_close_exactly_the_total(database_url: str) -> None:
    closed: list[int] = []

    def work(number: int) -> None:
        with closing(open_storage(database_url, create=False, write=True)) as storage:
            study = SearchStudy(storage, "s")
            while not study.is_complete():
                if (claim := study.claim(f"worker {number}", Drawing(sampler="random", parallel=4))) is None:
                    continue
                if (
                    claim.slot % 3 == number % 3
                    and storage.get_trial(claim.trial_id).user_attrs["attempt"] == 1
                ):
                    fail(study, claim, "interrupted")
                else:
                    finish(study, claim)
                    closed.append(claim.slot)

    with closing(open_storage(database_url, create=True)) as storage:
        study = open_study(storage, "s", wanted(), 12)
        workers = [threading.Thread(target=work, args=(number,)) for number in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert sorted(closed) == list(range(12))
        assert study.slots().closed() == 12
        assert not [trial for trial in study.trials() if not trial.state.is_finished()]


def test_a_retry_keeps_its_slot_seed_and_parameters(storage: RDBStorage) -> None:
    study = open_study(storage, "s", wanted(), 4)
    first, second = claimed(study), claimed(study)
    fail(study, first, "interrupted")
    again = claimed(SearchStudy(storage, "s"))
    assert again.slot == first.slot == 0
    assert again.trial.number not in (first.trial.number, second.trial.number)
    assert (again.seed, again.configuration) == (first.seed, first.configuration)
    assert storage.get_trial(again.trial_id).user_attrs[record.ATTEMPT] == 2
    finish(study, again)
    assert claimed(study).slot == 2


def test_an_interruption_is_no_failure_and_three_failures_are_the_end_of_a_slot(storage: RDBStorage) -> None:
    study = open_study(storage, "s", wanted(), 1)
    reasons: tuple[Reason, ...] = ("interrupted", "error", "lost", "killed", "lost", "interrupted", "error")
    for reason in reasons:
        assert not study.is_complete()
        fail(study, claimed(study), reason)
    assert study.is_complete()
    assert study.claim(ME, Drawing(sampler="auto")) is None
    assert study.slots().failed_for_good(0)


@pytest.mark.parametrize("reason", ["out of memory", "invalid"])
def test_a_failure_that_would_repeat_itself_closes_its_slot_at_once(
    storage: RDBStorage, reason: Reason
) -> None:
    study = open_study(storage, "s", wanted(), 2)
    fail(study, claimed(study), reason)
    assert study.slots().failed_for_good(0)
    assert claimed(study).slot == 1


def test_parameters_that_make_no_configuration_close_their_slot_and_leave_the_study_going(
    storage: RDBStorage,
) -> None:
    study = open_study(storage, "s", wanted(SOMETIMES_INVALID), 8)
    claims = [claim for _ in range(8) if (claim := study.claim(ME, Drawing(sampler="random")))]
    for claim in claims:
        finish(study, claim)
    invalid = [trial for trial in study.trials() if trial.state == TrialState.FAIL]
    assert {trial.params["model.groups"] for trial in invalid} == {12}
    assert {claim.configuration.model.groups for claim in claims} <= {8, 16}
    assert "groups" in record.outcome_of(invalid[0]).message
    assert study.is_complete()


def test_a_configuration_that_comes_again_gets_the_next_seed(storage: RDBStorage) -> None:
    study = open_study(storage, "s", wanted(COIN), 12)
    seeds: dict[str, list[int]] = {"batch": [], "none": []}
    for number in range(12):
        claim = claimed(study, sampler="random")
        if number % 4 == 1:  # put back and claimed again: the same training, not a further repeat
            fail(study, claim, "interrupted")
            again = claimed(study, sampler="random")
            assert (again.slot, again.seed, again.configuration) == (
                claim.slot,
                claim.seed,
                claim.configuration,
            )
            claim = again
        seeds[claim.configuration.model.normalization].append(claim.seed)
        finish(study, claim)
    assert len(seeds["batch"]) + len(seeds["none"]) == 12
    assert all(len(set(of_one)) == len(of_one) for of_one in seeds.values())
    shorter = min(len(of_one) for of_one in seeds.values())
    assert shorter > 1
    assert seeds["batch"][:shorter] == seeds["none"][:shorter]


def test_a_comparison_gives_every_level_the_same_number_of_slots(storage: RDBStorage) -> None:
    study = open_study(storage, "s", wanted(BALANCED), 15)
    levels = []
    for number in range(15):
        claim = claimed(study, parallel=4)
        if number == 4:
            fail(study, claim, "interrupted")
            claim = claimed(study, parallel=4)
        levels.append(claim.configuration.optimizer.name)
        finish(study, claim, value=0.9 if levels[-1] == "sgd" else 0.1)
    assert Counter(levels) == {"sgd": 5, "adam": 5, "adamw": 5}
    assert {record.setup_of(trial).sampler for trial in study.trials()} == {"tpe-univariate"}


def test_known_configurations_come_first_at_their_level_or_at_each(storage: RDBStorage) -> None:
    study = open_study(storage, "s", wanted(BALANCED), 9)
    claims = [claimed(study) for _ in range(9)]
    dropouts = {name: [] for name in ("sgd", "adam", "adamw")}
    rates = []
    for claim in claims:
        dropouts[claim.configuration.optimizer.name].append(claim.configuration.model.dropout)
        if claim.configuration.optimizer.name == "adam":
            rates.append(claim.configuration.optimizer.lr)
    assert rates[0] == 0.002
    assert dropouts["sgd"][0] == dropouts["adamw"][0] == dropouts["adam"][1] == 0.25
    assert 0.25 not in (*dropouts["sgd"][1:], *dropouts["adamw"][1:])


def test_known_configurations_of_a_free_search_come_first_and_what_is_absent_is_drawn(
    storage: RDBStorage,
) -> None:
    space = SPACE.replace(
        "parameters:",
        "first: [{optimizer.lr: 0.5, model.normalization: none}, {model.dropout: 0}]\nparameters:",
    )
    study = open_study(storage, "s", wanted(space), 3)
    first, second, third = (claimed(study).configuration for _ in range(3))
    assert (first.optimizer.lr, first.model.normalization) == (0.5, "none")
    assert 0 < first.model.dropout < 0.8
    assert second.model.dropout == 0.0
    assert third.model.dropout not in (0.0, first.model.dropout)


def test_a_grid_runs_every_point_as_often_as_asked_with_other_seeds(storage: RDBStorage) -> None:
    study = open_study(storage, "s", wanted(GRID, sampler="grid", repeat=2), 12)
    runs: dict[tuple[str, float], list[int]] = {}
    while claim := study.claim(ME, Drawing(sampler="grid")):
        model = claim.configuration.model
        runs.setdefault((model.normalization, model.dropout), []).append(claim.seed)
        finish(study, claim)
    assert set(runs) == {(name, rate) for name in ("batch", "none") for rate in (0.0, 0.1, 0.2)}
    assert all(len(set(seeds)) == 2 for seeds in runs.values())


def test_a_queued_trial_that_nobody_lived_to_start_is_picked_up(storage: RDBStorage) -> None:
    study = open_study(storage, "s", wanted(), 3)
    finish(study, claimed(study))
    values = {"optimizer.lr": 0.25, "model.dropout": 0.125, "model.normalization": "none"}
    study.optuna.enqueue_trial(values, user_attrs={record.SLOT: 1, record.ATTEMPT: 1})
    claim = claimed(study)
    assert (claim.slot, slot_of(study, claim)) == (1, 1)
    assert claim.configuration.optimizer.lr == 0.25
    assert claimed(study).slot == 2
    assert study.claim(ME, Drawing(sampler="auto")) is None


def test_a_trial_queued_through_optuna_itself_gets_a_slot(storage: RDBStorage) -> None:
    study = open_study(storage, "s", wanted(), 3)
    finish(study, claimed(study))
    study.optuna.enqueue_trial({"optimizer.lr": 0.25})
    claim = claimed(study)
    assert (claim.slot, slot_of(study, claim)) == (1, 1)
    assert claim.configuration.optimizer.lr == 0.25
    assert claimed(study).slot == 2


def test_a_silent_worker_loses_its_trial_and_comes_too_late(
    storage: RDBStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = open_study(storage, "s", wanted(), 1)
    late = claimed(study, worker="elsewhere:place:1:2")
    assert study.claim(ME, Drawing(sampler="auto")) is None
    monkeypatch.setattr("studies.base.silent_trials", lambda *_: [late.trial_id])
    again = claimed(study)
    monkeypatch.undo()
    assert (again.slot, again.seed) == (late.slot, late.seed)
    lost = storage.get_trial(late.trial_id)
    assert lost.state == TrialState.FAIL
    assert record.outcome_of(lost).reason == "lost"
    assert not study.close(late.trial_id, TrialState.COMPLETE, Outcome(reason="finished"), History(), 0.9)
    assert storage.get_trial(late.trial_id) == lost
    finish(study, again, 0.5)
    assert not study.close(again.trial_id, TrialState.COMPLETE, Outcome(reason="finished"), History(), 0.9)
    assert storage.get_trial(again.trial_id).value == 0.5


def test_an_end_whose_answer_was_lost_is_recognised_as_our_own_and_only_that(
    storage: RDBStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, end, calls = open_study(storage, "s", wanted(), 2), writing._end, []

    def losing_the_first_answer(*arguments: Any) -> bool:
        ended = end(*arguments)
        calls.append(ended)
        if len(calls) == 1:
            raise PoolTimeout
        return ended

    monkeypatch.setattr(writing, "_end", losing_the_first_answer)
    mine = claimed(study)
    assert study.close(mine.trial_id, TrialState.COMPLETE, Outcome(reason="finished"), History(), 0.9)
    assert calls == [True, False]
    assert not study.close(mine.trial_id, TrialState.COMPLETE, Outcome(reason="finished"), History(), 0.8)
    assert not study.close(mine.trial_id, TrialState.COMPLETE, Outcome(reason="finished", epoch=2), None, 0.9)
    assert not study.close(mine.trial_id, TrialState.FAIL, Outcome(reason="finished"))
    (trial,) = study.trials()
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.9)


def test_trials_of_a_dead_process_of_this_machine_are_open_again_at_once(
    storage: RDBStorage, dead_worker: str
) -> None:
    study = open_study(storage, "s", wanted(), 2)
    of_dead = claimed(study, dead_worker)
    of_living, of_another = claimed(study), claimed(study, "elsewhere:place:1:2")
    assert (of_living.slot, of_living.seed) == (of_dead.slot, of_dead.seed)
    assert study.claim(ME, Drawing(sampler="auto")) is None
    study.fail_lost({"elsewhere:place:1:2": "interrupted"})
    reasons = [outcome and outcome.reason for outcome in map(record.outcome_of, study.trials())]
    assert reasons == ["killed", None, "interrupted"]
    assert slot_of(study, of_another) == 1


def test_the_dead_of_a_command_that_lives_are_left_to_it_and_else_died_with_it(
    storage: RDBStorage, dead_worker: str
) -> None:
    study = open_study(storage, "s", wanted(), 4)
    random = Drawing(sampler="random")
    for leader in (ME, dead_worker, None, ME):
        study.claim(dead_worker if leader else "elsewhere:place:1:2", random, leader=leader)
    study.fail_lost()
    reasons = [outcome and outcome.reason for outcome in map(record.outcome_of, study.trials())]
    assert reasons == [None, "interrupted", None, None]
    study.fail_lost({dead_worker: "killed"})  # its command has seen how it ended
    reasons = [outcome and outcome.reason for outcome in map(record.outcome_of, study.trials())]
    assert reasons == ["killed", "interrupted", None, "killed"]


def test_what_is_ended_with_its_worker_says_how_far_it_had_come(storage: RDBStorage) -> None:
    study = open_study(storage, "s", wanted(), 1)
    claim = claimed(study, "elsewhere:place:1:2")
    for epoch in (1, 2):
        storage.set_trial_intermediate_value(claim.trial_id, epoch, 0.5)
    study.fail_lost({"elsewhere:place:1:2": "killed"})
    outcome = record.outcome_of(study.trials()[0])
    assert outcome is not None
    assert (outcome.reason, outcome.reached) == ("killed", 2)


def die_while_drawing(study: SearchStudy, dead_worker: str) -> None:
    """What is left of a worker that was killed when it had drawn the first parameter."""
    slots = study.slots()
    study._take({record.WORKER: dead_worker, record.CLAIM: "x"})
    begun = study.trials()[-1]
    study.optuna.sampler = optuna.samplers.RandomSampler(seed=99)
    study.space.parameters[0].suggest(optuna.Trial(study.optuna, begun._trial_id))
    assert record.slot_of(begun) == slots.next_open()


def objective(claim: Claim) -> float:
    values = claim.trial.params
    return 1 - abs(values["model.dropout"] - 0.3) - abs(values["optimizer.lr"] - 0.1)


def search(study: SearchStudy, sampler: str, dead_worker: str, disturbed: bool) -> list[tuple[Any, ...]]:
    """All slots of a study with reports, pruning, and, if disturbed, an interruption of every other slot."""
    told, epochs = [], study.record.epochs
    for slot in range(16):
        if disturbed and slot % 3 == 0:
            study = SearchStudy(study.storage, study.name)
            die_while_drawing(study, dead_worker)
        claim = claimed(study, sampler=sampler)
        if disturbed and slot % 2:
            for epoch in range(1, epochs):
                claim.trial.report(objective(claim) * epoch / epochs, epoch)
                claim.trial.should_prune()
            fail(study, claim, "interrupted")
            study = SearchStudy(study.storage, study.name)
            claim = claimed(study, sampler=sampler)
        told.append((claim.slot, claim.trial.params, claim.seed, ended(study, claim)))
    return told


def ended(study: SearchStudy, claim: Claim) -> int:
    """Train: the epoch at which the trial ended."""
    epochs = study.record.epochs
    for epoch in range(1, epochs):
        claim.trial.report(objective(claim) * epoch / epochs, epoch)
        if claim.trial.should_prune():
            study.close(claim.trial_id, TrialState.PRUNED, Outcome(reason="pruned"))
            return epoch
    finish(study, claim, objective(claim))
    return epochs


@pytest.mark.parametrize(
    ("sampler", "pruner"), [("tpe", "median"), ("tpe-univariate", "asha"), ("random", "none")]
)
def test_an_interrupted_search_goes_on_as_if_it_had_never_stopped(
    storage: RDBStorage, dead_worker: str, sampler: str, pruner: str
) -> None:
    undisturbed = open_study(storage, "a", wanted(sampler=sampler, pruner=pruner), 16)
    disturbed = open_study(storage, "b", wanted(sampler=sampler, pruner=pruner), 16)
    expected = search(undisturbed, sampler, dead_worker, disturbed=False)
    assert search(disturbed, sampler, dead_worker, disturbed=True) == expected
    assert len({tuple(params.values()) for _, params, _, _ in expected}) == 16
    assert len(disturbed.trials()) > len(undisturbed.trials()) == 16
    if pruner != "none":
        assert len({epoch for *_, epoch in expected}) > 1


def test_another_seed_draws_other_parameters_and_trains_with_other_seeds(storage: RDBStorage) -> None:
    claims = [claimed(open_study(storage, str(seed), wanted(seed=seed), 2)) for seed in (0, 1)]
    assert claims[0].configuration != claims[1].configuration
    assert claims[0].seed != claims[1].seed


def test_continuing_with_a_larger_total_owes_that_many_and_with_a_smaller_none(storage: RDBStorage) -> None:
    study = open_study(storage, "s", wanted(), 2)
    for _ in range(2):
        finish(study, claimed(study))
    continued = open_study(storage, "s", wanted(sampler="random", pruner="none"), 3)
    assert continued.total() == 3
    assert continued.record.pruner == "median"
    finish(continued, claimed(continued))
    assert continued.is_complete()
    assert study.is_complete()
    fewer = open_study(storage, "s", wanted(), 1)
    assert fewer.is_complete()
    assert fewer.claim(ME, Drawing(sampler="auto")) is None


def test_a_smaller_total_is_not_exceeded_by_what_was_put_back_or_queued(storage: RDBStorage) -> None:
    study = open_study(storage, "s", wanted(), 3)
    put_back, *others = [claimed(study) for _ in range(3)]
    fail(study, put_back, "interrupted")
    study.optuna.enqueue_trial({}, user_attrs={record.SLOT: 0, record.ATTEMPT: 2})
    for claim in others:
        finish(study, claim)
    study.set_total(2)
    assert study.claim(ME, Drawing(sampler="auto")) is None
    assert study.is_complete()


def test_a_study_without_a_total_always_has_another_slot(storage: RDBStorage) -> None:
    study = open_study(storage, "s", wanted(), None)
    for slot in range(5):
        claim = claimed(study)
        assert claim.slot == slot
        finish(study, claim)
    assert not study.is_complete()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"space": COIN}, ["the space"]),
        ({"name": "other"}, ["the space is mine", "but other"]),
        (
            {"data": {"hash": "e" * 40}},
            ["the hash of the data set is dddddddddddd in the study, but eeeeeeeeeeee"],
        ),
        ({"data": {"shape": (16, 16, 1)}}, ["the image size is 8x8x1 in the study, but 16x16x1 now"]),
        (
            {"split": {"hash": "t" * 40, "seed": 1}, "seed": 1},
            ["the split", "the seed is 0 in the study, but 1"],
        ),
        ({"split": {"val_size": 5}}, ["the validation size is 0.1 in the study, but 5 now"]),
        ({"split": {"train_size": 50}}, ["the training size is None in the study, but 50 now"]),
        ({"epochs": 9}, ["the epochs is 6 in the study, but 9 now", "choose another --study"]),
        ({"precision": "bf16"}, ["the precision is fp32 in the study, but bf16 now"]),
        ({"sampler": "grid"}, ["grid"]),
        ({"files": {"labels.csv": "0123"}}, ["the content of the files named is {} in the study, but"]),
        ({"repeat": 2}, ["the repeats of the grid is 1 in the study, but 2 now"]),
        ({"epochs": 9, "precision": "bf16"}, ["the epochs", "the precision"]),
    ],
)
def test_another_search_may_not_continue_a_study_and_is_told_why(
    storage: RDBStorage, changes: dict[str, Any], named: list[str]
) -> None:
    study = open_study(storage, "s", wanted(), 2)
    finish(study, claimed(study))
    before = study.optuna.user_attrs
    mine = wanted()
    for part in ("data", "split"):
        if part in changes:
            changes = changes | {part: getattr(mine, part).model_copy(update=changes[part])}
    other = wanted(**changes)
    for refuse in (
        lambda: open_study(storage, "s", other, 5),
        lambda: check_continuation(storage, "s", other),
    ):
        with pytest.raises(ValueError, match="study 's' cannot be continued") as caught:
            refuse()
        for text in named:
            assert text in str(caught.value)
        assert "\n" not in str(caught.value)
    assert study.optuna.user_attrs == before
    check_continuation(storage, "s", wanted())
    check_continuation(storage, "new", other)


@pytest.mark.parametrize("directions", [["maximize"], ["minimize"], ["maximize", "maximize"]])
def test_a_study_of_another_program_is_left_alone(storage: RDBStorage, directions: list[str]) -> None:
    foreign = optuna.create_study(storage=storage, study_name="s", directions=directions)
    foreign.ask()
    for touch in (
        lambda: open_study(storage, "s", wanted(), 2),
        lambda: check_continuation(storage, "s", wanted()),
        lambda: SearchStudy(storage, "s"),
    ):
        with pytest.raises(ValueError, match="'s' was not made by cifar-search"):
            touch()
    assert foreign.user_attrs == {}
    assert len(foreign.trials) == 1


def test_a_study_left_empty_by_a_process_that_died_right_after_making_it_is_adopted(
    storage: RDBStorage,
) -> None:
    optuna.create_study(storage=storage, study_name="s", direction="maximize")
    check_continuation(storage, "s", wanted())
    study = open_study(storage, "s", wanted(), 2)
    assert claimed(study).slot == 0
    assert study.optuna.metric_names == ["validation accuracy"]


def test_an_unknown_study_is_refused_with_the_known_ones(storage: RDBStorage) -> None:
    open_study(storage, "vggs", wanted(), 2)
    with pytest.raises(ValueError, match="vggs"):
        SearchStudy(storage, "vgg")


def test_notices_are_kept_once_and_in_order(storage: RDBStorage) -> None:
    study = open_study(storage, "s", wanted(), 2)
    for text in ("one", "two", "one"):
        study.add_notice(text)
    assert SearchStudy(storage, "s").notices() == ["one", "two"]


def test_long_curves_are_kept_in_pieces(storage: RDBStorage) -> None:
    study = open_study(storage, "s", wanted(), 1)
    column = tuple(float(number) for number in range(1200))
    history = History(
        train_loss=column, train_accuracy=column, val_loss=(None, *column[1:]), lr=column, seconds=column
    )
    claim = claimed(study)
    study.close(claim.trial_id, TrialState.COMPLETE, Outcome(reason="finished"), history, 0.5)
    assert record.history_of(study.trials()[0]) == history


def test_a_claim_has_given_a_sign_of_life(storage: RDBStorage) -> None:
    study = open_study(storage, "s", wanted(), 1)
    claim = claimed(study)
    assert heartbeat.silent_trials(storage, study.study_id, grace=-1) == [claim.trial_id]


def test_slots_that_are_claimed_at_once_are_others_and_the_same_configuration_has_other_seeds(
    database_url: str,
) -> None:
    """Of six points, each asked for four times, claimed by four threads that share nothing."""
    seeds: list[tuple[str, int, int]] = []
    barrier = threading.Barrier(4)

    def claim_all() -> None:
        with closing(open_storage(database_url, create=False, write=True)) as own:
            study = SearchStudy(own, "s")
            barrier.wait(60)
            while claim := study.claim(ME, Drawing(sampler="grid", parallel=4)):
                seeds.append((claim.configuration.fingerprint(), claim.slot, claim.seed))

    with closing(open_storage(database_url, create=True)) as storage:
        open_study(storage, "s", wanted(GRID, sampler="grid", repeat=4), 24)
        threads = [threading.Thread(target=claim_all) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(slot for _, slot, _ in seeds) == list(range(24))
    by_point = Counter(point for point, _, _ in seeds)
    assert sorted(by_point.values()) == [4] * 6
    assert len({(point, seed) for point, _, seed in seeds}) == 24
    assert len({seed for _, _, seed in seeds}) == 4


@pytest.mark.parametrize("queued", [False, True])
def test_what_was_begun_when_answer_and_lock_were_lost_together_is_gone_on_with(
    database_url: str, monkeypatch: pytest.MonkeyPatch, queued: bool
) -> None:
    """As in a crash of the database at the commit of a new attempt, or of the start of one that waited."""
    with closing(open_storage(database_url, create=True)) as storage:
        study = open_study(storage, "s", wanted(), 2)
        if queued:
            study.optuna.enqueue_trial({"model.dropout": 0.125})
        name = "set_trial_state_values" if queued else "create_new_trial"
        act, lost = getattr(storage, name), [LockLostError("lost")]

        def losing_the_first(*arguments: Any) -> Any:
            done = act(*arguments)
            if lost:
                raise lost.pop()
            return done

        monkeypatch.setattr(storage, name, losing_the_first)
        claim = claimed(study)
        (trial,) = study.trials()
        assert (claim.trial_id, claim.slot, trial.state) == (trial._trial_id, 0, TrialState.RUNNING)
        assert record.SETUP in trial.user_attrs
        assert (trial.params["model.dropout"] == 0.125) == queued
        assert claimed(study).slot == 1
        assert study.claim(ME, Drawing(sampler="auto")) is None


def test_a_fault_in_drawing_is_a_failure_of_the_slot_and_after_three_the_study_goes_on(
    storage: RDBStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = open_study(storage, "s", wanted(), 2)
    with monkeypatch.context() as patch:
        patch.setattr(Space, "suggest", lambda *_: {}["what is missing"])
        for _ in range(3):
            assert study.claim(ME, Drawing(sampler="random")) is None
    outcomes = [record.outcome_of(trial) for trial in study.trials()]
    assert [outcome.reason for outcome in outcomes if outcome] == ["error"] * 3
    assert all("KeyError: 'what is missing'" in outcome.message for outcome in outcomes if outcome)
    assert claimed(study).slot == 1


def test_signs_of_life_are_asked_for_before_anything_is_drawn(storage: RDBStorage) -> None:
    study, seen = open_study(storage, "s", wanted(), 1), []

    def begun(trial_id: int) -> None:
        trial = storage.get_trial(trial_id)
        seen.append((trial_id, trial.state, trial.params, trial.user_attrs[record.WORKER]))

    claim = study.claim(ME, Drawing(sampler="random"), begun)
    assert claim is not None
    assert seen == [(claim.trial_id, TrialState.RUNNING, {}, ME)]
    assert study.claim(ME, Drawing(sampler="random"), begun) is None
    assert len(seen) == 1


def test_an_attempt_that_another_program_ends_in_the_queue_is_not_begun(
    storage: RDBStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = open_study(storage, "s", wanted(), 1)
    study.optuna.enqueue_trial({})
    trials = study.trials()
    storage.set_trial_state_values(trials[0]._trial_id, TrialState.FAIL)
    with monkeypatch.context() as patch:
        patch.setattr(study, "_fail_lost", lambda: trials)  # read a moment before
        claim = claimed(study)
    assert (claim.slot, claim.trial.number) == (0, 1)
    assert study.trials()[0].user_attrs == {}


def test_a_trial_that_is_given_away_while_it_is_drawn_is_not_begun(storage: RDBStorage) -> None:
    study = open_study(storage, "s", wanted(), 1)
    draw, other = study._draw, SearchStudy(storage, "s")

    def slowly(*arguments: Any) -> Claim | None:
        other.fail_lost({ME: "lost"})
        return draw(*arguments)

    study._draw = slowly  # type: ignore[method-assign]
    assert study.claim(ME, Drawing(sampler="random")) is None
    (given_away,) = study.trials()
    assert (given_away.state, record.SETUP in given_away.user_attrs) == (TrialState.FAIL, False)
    assert claimed(other).slot == 0


def pruned_at(pruner: optuna.pruners.BasePruner, earlier: list[int], epochs: int = 30) -> int | None:
    """The epoch at which the worst of all trials is pruned, after good ones of these lengths."""
    study = optuna.create_study(direction="maximize", pruner=pruner)
    for length in earlier:
        trial = study.ask()
        for epoch in range(1, length + 1):
            trial.report(0.9, epoch)
            trial.should_prune()
        study.tell(trial, 0.9)
    trial = study.ask()
    for epoch in range(1, epochs):
        trial.report(0.1, epoch)
        if trial.should_prune():
            return epoch
    return None


@pytest.mark.parametrize(
    ("name", "epochs", "warmup", "earlier", "epoch"),
    [
        ("median", 30, None, [30] * 10, 10),
        ("median", 30, None, [30] * 9, None),
        ("median", 9, None, [9] * 10, 5),
        ("median", 100, None, [100] * 10, 34),
        ("median", 30, None, [5] * 6 + [30] * 4, None),
        ("median", 30, None, [5] * 5 + [30] * 5, 10),
        ("median", 30, 0.5, [30] * 10, 15),
        ("median", 30, 0.1, [30] * 10, 3),
        ("median", 30, 1, [30] * 10, None),
        ("asha", 30, None, [30], 5),
        ("asha", 30, 0.5, [30], 15),
        ("asha", 30, 1, [30], None),
        ("asha", 8, None, [8], 2),
        ("asha", 2, None, [2], 1),
        ("none", 30, None, [30] * 20, None),
    ],
)
def test_pruners_wait_as_long_as_they_should(
    name: str, epochs: int, warmup: float | None, earlier: list[int], epoch: int | None
) -> None:
    assert pruned_at(build_pruner(name, epochs, warmup), earlier, epochs) == epoch


def test_hyperband_prunes_nothing_during_the_warm_up() -> None:
    at = [pruned_at(build_pruner("hyperband", 32, 0.25), [32] * earlier, 32) for earlier in range(8, 16)]
    assert {epoch for epoch in at if epoch} <= {8, 16}
    assert any(at)


def test_a_slot_does_not_compete_with_its_own_failed_attempt() -> None:
    study = optuna.create_study(direction="maximize", pruner=build_pruner("asha", 8, None))
    interrupted = study.ask()
    interrupted.report(0.8, 2)
    assert not interrupted.should_prune()
    study.tell(interrupted, state=TrialState.FAIL)
    again = study.ask()
    again.report(0.7, 2)
    assert not again.should_prune()
    worse = study.ask()
    worse.report(0.6, 2)
    assert worse.should_prune()


@pytest.mark.parametrize(
    ("name", "balanced", "parallel", "resolved"),
    [
        ("auto", False, 1, "tpe"),
        ("auto", False, 7, "tpe"),
        ("auto", False, 8, "tpe-univariate"),
        ("auto", True, 1, "tpe-univariate"),
        ("random", True, 64, "random"),
    ],
)
def test_the_default_sampler_by_the_number_of_parallel_trials(
    name: str, balanced: bool, parallel: int, resolved: str
) -> None:
    assert resolve_sampler(name, balanced, parallel) == resolved


@pytest.mark.parametrize(
    ("name", "timed", "warmup", "resolved"),
    [
        ("auto", False, None, "median"),
        ("auto", True, None, "asha"),
        ("auto", True, 0.5, "asha"),
        ("auto", True, 1.0, "none"),
        ("auto", False, 1.0, "none"),
        ("median", True, 1.0, "median"),
    ],
)
def test_the_default_pruner_by_what_the_budget_is(
    name: str, timed: bool, warmup: float | None, resolved: str
) -> None:
    assert resolve_pruner(name, timed, warmup) == resolved


@pytest.mark.parametrize("check", [check_sampler, check_pruner])
def test_an_unknown_method_is_refused_with_the_nearest(check: Any) -> None:
    assert check("auto") == "auto"
    with pytest.raises(ValueError, match=r"gridd.*(grid|hyperband)"):
        check("gridd")
