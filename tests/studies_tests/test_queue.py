"""Trials that a person queues through the dashboard or Optuna: those that can be run get a slot that is free
for them, and those that cannot are refused by name and take none."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

import pytest
from made_studies import EPOCHS, FREE, GRID, claim, end, make_study, run_all
from optuna.trial import FrozenTrial, TrialState, create_trial

from spaces.config import Configuration
from studies.plan import PlannedEntry, PlanRecord, open_plan
from studies.record import DataRecord, Drawing, Outcome, SplitSpec, outcome_of, setup_of, slot_of
from studies.storage import Storage, open_storage
from studies.study import SearchStudy

RANDOM = Drawing(sampler="random")
LR, DROPOUT, NORM = "optimizer.lr", "model.dropout", "model.normalization"
FIRST = FREE.replace(
    "parameters:",
    "first: [{optimizer.lr: 0.5, model.normalization: none}, {model.dropout: 0.2}]\nparameters:",
)
BALANCED = """
question: Which optimizer?
base: {training: {epochs: 4}}
balance: optimizer.name
parameters:
  optimizer.name: {choice: [sgd, adam, rmsprop], role: scientific}
  optimizer.lr: {float: [1e-4, 1.0], log: true, role: nuisance, each: optimizer.name}
  model.dropout: {float: [0.0, 0.5], role: nuisance}
"""
GROUPS = """
question: Which?
base: {model: {name: vgg, normalization: group, widths: [16, 32]}, training: {epochs: 4}}
parameters:
  model.groups: {int: [8, 16], step: 4, role: scientific}
"""
CANNOT_BE_RUN = [
    ({"optimizer.lrr": 0.1}, "optimizer.lr"),
    ({"": 0.1}, "parameter"),
    ({LR: 7.0}, "0.001 to 1"),
    ({LR: -0.1}, "0.001 to 1"),
    ({LR: "0.1"}, "must be a number"),
    ({LR: [0.1]}, "must be a number"),
    ({LR: {"value": 0.1}}, "must be a number"),
    ({LR: None}, "must be a number"),
    ({LR: True}, "must be a number"),
    ({LR: math.nan}, "nan"),
    ({LR: math.inf}, "inf"),
    ({LR: 10**400}, "0.001 to 1"),
    ({DROPOUT: 0.15}, "steps of 0.1"),
    ({NORM: "btach"}, "batch"),
    ({NORM: None}, "batch"),
    ({NORM: ["batch"]}, "batch"),
    ({LR: 0.1, NORM: "batch", "model.width": 3}, "model.width"),
]


@pytest.fixture
def storage(sqlite_url: str) -> Iterator[Storage]:
    with closing(open_storage(sqlite_url, create=True)) as storage:
        yield storage


def queue(study: SearchStudy, values: Mapping[str, Any], **attributes: Any) -> int:
    """Queue a trial; return its number."""
    study.optuna.enqueue_trial(dict(values), user_attrs=attributes)
    return study.trials()[-1].number


def claimed(study: SearchStudy) -> FrozenTrial:
    """The attempt that is claimed next, as it is stored."""
    return study.storage.get_trial(claim(study).trial_id)


def complete(study: SearchStudy) -> list[FrozenTrial]:
    """Run what the study owes; return what has a result."""
    run_all(study, lambda _: 0.5)
    return [trial for trial in study.trials() if trial.state == TrialState.COMPLETE]


def refusal(study: SearchStudy, number: int) -> str:
    """Why a queued trial was refused, which the study's notices say too."""
    trial = study.trials()[number]
    outcome = outcome_of(trial)
    assert outcome is not None
    assert (trial.state, outcome.reason, slot_of(trial)) == (TrialState.FAIL, "invalid", None)
    assert "\n" not in outcome.message
    (notice,) = [notice for notice in study.notices() if f"trial {number}," in notice]
    assert outcome.message in notice
    return outcome.message


@pytest.mark.parametrize(("values", "why"), CANNOT_BE_RUN, ids=lambda part: str(part)[:40])
def test_a_trial_that_cannot_be_run_is_refused_and_takes_no_slot(
    storage: Storage, values: dict[str, Any], why: str
) -> None:
    study = make_study(storage, FREE, 3)
    number = queue(study, values)
    done = complete(study)
    assert sorted(map(slot_of, done)) == [0, 1, 2]
    assert why in refusal(study, number)


def test_a_parameter_that_is_not_active_is_refused(storage: Storage) -> None:
    study = make_study(storage, BALANCED, 3)
    number = queue(study, {"optimizer.name": "adam", "optimizer.lr@sgd": 0.1})
    assert len(complete(study)) == 3
    assert "is active only where optimizer.name is sgd" in refusal(study, number)


def test_values_that_make_no_configuration_together_are_refused(storage: Storage) -> None:
    study = make_study(storage, GROUPS, None)
    number = queue(study, {"model.groups": 12})
    assert study.claim("w", RANDOM) is None
    assert "groups" in refusal(study, number)
    assert study.slots().attempts == {}


@pytest.mark.parametrize("values", [[], [1], "optimizer.lr", 3, None, True])
def test_parameters_that_are_no_mapping_are_refused(storage: Storage, values: object) -> None:
    study = make_study(storage, FREE, 2)
    waiting = create_trial(state=TrialState.WAITING, system_attrs={"fixed_params": values})
    study.optuna.add_trial(waiting)
    assert len(complete(study)) == 2
    assert "must be a mapping" in refusal(study, 0)


@pytest.mark.parametrize("slot", ["x", -1, True, 3.5, 10**9, 0, 1, None, [0], {"slot": 0}])
def test_a_slot_that_a_person_writes_down_is_none(storage: Storage, slot: object) -> None:
    study = make_study(storage, FREE, 3)
    good = queue(study, {LR: 0.25}, slot=slot)
    bad = queue(study, {LR: "0.25"}, slot=slot)
    done = complete(study)
    assert sorted(map(slot_of, done)) == [0, 1, 2]
    assert (done[0].number, done[0].params[LR], slot_of(done[0])) == (good, 0.25, 0)
    assert "must be a number" in refusal(study, bad)


def test_any_number_of_mistyped_trials_leaves_the_study_its_results(storage: Storage) -> None:
    study = make_study(storage, FREE, 4)
    numbers = [queue(study, {LR: f"mistyped {i}"}) for i in range(50)]
    good = queue(study, {LR: 0.25, DROPOUT: 0.1, NORM: "none"})
    done = complete(study)
    assert sorted(map(slot_of, done)) == [0, 1, 2, 3]
    assert done[0].number == good
    assert all(f"mistyped {i}" in refusal(study, number) for i, number in enumerate(numbers))
    assert study.slots().closed() == 4


def test_queued_trials_run_first_in_their_order_with_what_is_absent_drawn(storage: Storage) -> None:
    study = make_study(storage, FREE, 4)
    end(study, claim(study), "finished")
    numbers = [queue(study, {LR: rate}) for rate in (0.25, 0.125)]
    first, second, third = (claimed(study) for _ in range(3))
    assert [trial.number for trial in (first, second)] == numbers
    assert [trial.params[LR] for trial in (first, second)] == [0.25, 0.125]
    assert [slot_of(trial) for trial in (first, second, third)] == [1, 2, 3]
    assert set(first.params) == {LR, DROPOUT, NORM}
    assert third.params[LR] not in (0.25, 0.125)


def test_a_comparison_gives_a_queued_trial_a_slot_of_its_level_and_the_levels_stay_equal(
    storage: Storage,
) -> None:
    study = make_study(storage, BALANCED, 9)
    for rate in (0.25, 0.125):
        queue(study, {"optimizer.name": "adam", "optimizer.lr@adam": rate})
    queue(study, {DROPOUT: 0.25})
    queued = [claimed(study) for _ in range(3)]
    assert [slot_of(trial) for trial in queued] == [1, 4, 0]
    assert [trial.params["optimizer.name"] for trial in queued] == ["adam", "adam", "sgd"]
    for trial in queued:
        study.put_back(trial._trial_id)
    done = complete(study)
    levels = Counter(trial.params["optimizer.name"] for trial in done)
    assert levels == {"sgd": 3, "adam": 3, "rmsprop": 3}
    rates = [trial.params.get("optimizer.lr@adam") for trial in done]
    assert {0.25, 0.125} < set(rates)


def test_more_queued_trials_of_a_level_than_it_has_slots_wait_for_a_larger_total(storage: Storage) -> None:
    study = make_study(storage, BALANCED, 3)
    numbers = [queue(study, {"optimizer.name": "adam", "optimizer.lr@adam": rate}) for rate in (0.1, 0.2)]
    done = complete(study)
    assert Counter(trial.params["optimizer.name"] for trial in done) == {"sgd": 1, "adam": 1, "rmsprop": 1}
    assert numbers[0] in [trial.number for trial in done]
    assert study.trials()[numbers[1]].state == TrialState.WAITING
    study.set_total(6)
    done = complete(study)
    assert Counter(trial.params["optimizer.name"] for trial in done) == {"sgd": 2, "adam": 2, "rmsprop": 2}
    assert numbers[1] in [trial.number for trial in done]


def test_a_point_of_a_grid_that_is_queued_takes_its_own_slot_and_no_other_point_is_lost(
    storage: Storage,
) -> None:
    study = make_study(storage, GRID, 6, sampler="grid")
    point = {NORM: "none", DROPOUT: 0.1}
    queue(study, point)
    first = claimed(study)
    assert (first.params, slot_of(first)) == (point, 4)
    waits = queue(study, point)
    assert slot_of(claimed(study)) == 0
    assert study.trials()[waits].state == TrialState.WAITING  # its point is being trained
    study.close(first._trial_id, TrialState.COMPLETE, Outcome(reason="finished"), None, 0.5)
    assert slot_of(claimed(study)) == 1
    assert "no slot is left" in refusal(study, waits)


def test_a_part_of_a_grids_point_that_is_queued_leaves_every_point_its_slot(storage: Storage) -> None:
    study = make_study(storage, GRID, 6, sampler="grid")
    queue(study, {DROPOUT: 0.1})
    queue(study, {DROPOUT: 0.1})
    done = complete(study)
    points = {(trial.params[NORM], trial.params[DROPOUT]) for trial in done}
    assert len(done) == len(points) == 6


def test_the_configurations_that_a_space_begins_with_run_all_the_same(storage: Storage) -> None:
    study = make_study(storage, FIRST, 4)
    queue(study, {DROPOUT: 0.1})
    queue(study, {LR: 0.25, DROPOUT: 0.0, NORM: "batch"})
    done = [trial.params for trial in complete(study)]
    assert any(params[LR] == 0.5 and params[NORM] == "none" for params in done)
    assert any(params[DROPOUT] == 0.2 for params in done)
    assert any(params[DROPOUT] == 0.1 for params in done)
    assert {LR: 0.25, DROPOUT: 0.0, NORM: "batch"} in done


def test_a_queued_trial_does_not_take_the_place_of_one_that_was_interrupted(storage: Storage) -> None:
    study = make_study(storage, FREE, 3)
    interrupted = claimed(study)
    study.put_back(interrupted._trial_id)
    number = queue(study, {LR: 0.25})
    done = complete(study)
    assert interrupted.params in [trial.params for trial in done]
    assert study.trials()[number].params[LR] == 0.25


@pytest.mark.parametrize("drawn", [True, False])
def test_a_queued_trial_that_is_interrupted_is_tried_again_with_its_values(
    storage: Storage, drawn: bool
) -> None:
    study = make_study(storage, FREE, 2)
    queue(study, {LR: 0.25})
    if drawn:
        study.put_back(claim(study).trial_id)
    else:
        assert study._take({"worker": "w", "claim": "x"}) is not None
        study.fail_lost({"w": "interrupted"})
    assert setup_of(study.trials()[0]) is not None or not drawn
    again = claimed(study)
    assert (again.params[LR], slot_of(again), again.user_attrs["attempt"]) == (0.25, 0, 2)
    assert claimed(study).params[LR] != 0.25


def test_a_repetition_runs_nothing_but_its_plan(storage: Storage) -> None:
    entry = PlannedEntry.of("a", Configuration.read({"training": {"epochs": EPOCHS}}))
    described = PlanRecord(
        kind="confirm", parent="s", question="?", split=SplitSpec(seed=5, val_size=100), folds=None, epochs=4,
        data=DataRecord(name="digits", hash="d", classes=("0", "1"), shape=(8, 8, 1)),
    )  # fmt: skip
    plan: Any = open_plan(storage, "s/confirm", described)
    plan.owe([entry], 2)
    numbers = [queue(plan, {"entry": 0, "block": 1}), queue(plan, {}), queue(plan, {}, slot=0)]
    numbers.append(queue(plan, {}, slot=10**9))
    for _ in range(2):
        end(plan, claim(plan, "random"), "finished")
    assert plan.is_complete()
    assert [slot_of(trial) for trial in plan.trials()[4:]] == [0, 1]
    assert all("are planned" in refusal(plan, number) for number in numbers)


def test_what_is_queued_in_a_complete_study_waits_until_it_owes_more(storage: Storage) -> None:
    study = make_study(storage, FREE, 1)
    complete(study)
    numbers = [queue(study, {LR: 0.25}), queue(study, {LR: 7.0})]
    assert study.claim("w", RANDOM) is None
    assert study.is_complete()
    assert {study.trials()[number].state for number in numbers} == {TrialState.WAITING}
    study.set_total(2)
    done = complete(study)
    assert [(trial.number, trial.params[LR]) for trial in done][1:] == [(numbers[0], 0.25)]
    study.set_total(3)
    assert len(complete(study)) == 3
    assert "0.001 to 1" in refusal(study, numbers[1])


@pytest.mark.parametrize("space", [FREE, BALANCED, FIRST])
def test_a_study_without_end_runs_what_is_queued(storage: Storage, space: str) -> None:
    study = make_study(storage, space, None)
    bad = queue(study, {DROPOUT: "x"})
    good = queue(study, {DROPOUT: 0.2})
    slots = []
    for _ in range(8):
        claim_of_slot = claim(study)
        slots.append(claim_of_slot.slot)
        end(study, claim_of_slot, "finished")
    assert sorted(slots) == list(range(8))
    assert study.trials()[good].params[DROPOUT] == 0.2
    refusal(study, bad)


def test_workers_that_claim_at_once_begin_a_queued_trial_once(database_url: str) -> None:
    begin = threading.Barrier(3)
    begun: list[int] = []

    def work() -> None:
        with closing(open_storage(database_url, create=False, write=True)) as own:
            study = SearchStudy(own, "s")
            begin.wait(60)
            while not study.is_complete():
                if one := study.claim("elsewhere:place:1:2", RANDOM):
                    begun.append(one.trial.number)
                    end(study, one, "finished")

    with closing(open_storage(database_url, create=True)) as storage:
        study = make_study(storage, FREE, 8)
        good = [queue(study, {LR: rate}) for rate in (0.25, 0.125, 0.0625)]
        bad = [queue(study, {LR: text}) for text in ("a", "b")]
        workers = [threading.Thread(target=work) for _ in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert len(begun) == len(set(begun)) == 8
        assert set(good) < set(begun)
        assert sorted(slot_of(study.trials()[number]) for number in begun) == list(range(8))
        assert [study.trials()[number].params[LR] for number in good] == [0.25, 0.125, 0.0625]
        for number in bad:
            refusal(study, number)


def test_a_queued_trial_that_another_program_ended_is_not_begun(storage: Storage) -> None:
    study = make_study(storage, FREE, 2)
    number = queue(study, {LR: 0.25})
    storage.set_trial_state_values(study.trials()[number]._trial_id, TrialState.FAIL)
    done = complete(study)
    assert sorted(map(slot_of, done)) == [0, 1]
    assert 0.25 not in [trial.params[LR] for trial in done]
