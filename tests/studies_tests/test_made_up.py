"""What other programs write into a study, in the place of what ours does: it is told, and nothing ends in a
traceback."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import optuna
import pytest
from made_studies import FREE, claim, end, forge, make_study, run_all
from optuna.trial import TrialState

from studies import record
from studies.ablation import ablation_of
from studies.effects import read_effects
from studies.export import as_yaml, of_best, of_trial
from studies.finalists import finalists_of
from studies.listing import list_studies
from studies.looks import looks_of
from studies.plan import PlanStudy
from studies.progress import ProgressMeter
from studies.storage import Storage, open_storage
from studies.study import SearchStudy
from studies.summary import as_json, summarize

MADE_UP: tuple[Any, ...] = ("x", [1], {}, None, -1, 1.5, True, [{"lr": "x"}], "\x1b[31m")
IN_PLACE_OF_A_PART: tuple[Any, ...] = ("x", {}, None, 10**30)
OF_TRIALS = (
    record.SLOT, record.ATTEMPT, record.WORKER, record.LEADER, record.CLAIM, record.QUEUED, record.SETUP,
    record.OUTCOME, record.HISTORY, record.CONFUSION,
)  # fmt: skip
WITHIN = {
    record.SETUP: ("seed", "repeat", "fingerprint", "configuration", "sampler", "pruner", "split"),
    record.OUTCOME: ("reason", "message", "epoch", "reached", "seconds", "versions", "device", "parameters"),
}
OF_STUDIES = (record.TOTAL, record.NOTICES, record.STOPS, record.STOP_REQUESTS, "test looks")
FORGED = 1
"""The number of the trial that is forged, a completed one."""


@pytest.fixture
def storage(sqlite_url: str) -> Iterator[Storage]:
    with closing(open_storage(sqlite_url, create=True)) as storage:
        yield storage


@pytest.fixture
def study(storage: Storage) -> SearchStudy:
    """A search of three completed slots of six."""
    study = make_study(storage, FREE, 3)
    run_all(study, lambda values: 0.5 + values["optimizer.lr"] / 10)
    study.set_total(6)
    return study


def read_all(study: SearchStudy) -> None:
    """Read everything that commands read."""
    storage, name = study.storage, study.name
    again = SearchStudy(storage, name)
    list_studies(storage)
    summarize(again)
    json.loads("".join(as_json(again)))
    ProgressMeter(again).read()
    read_effects(again, resamples=2)
    looks_of(again)
    finalists_of(storage, name)
    ablation_of(storage, name)


def refusal(act: Callable[[], object]) -> str:
    """What is said where something is refused; empty where it is not."""
    try:
        act()
    except ValueError as refused:
        return str(refused)
    return ""


def complete(storage: Storage) -> None:
    study = SearchStudy(storage, "s")
    while not study.is_complete():
        end(study, claim(study), "finished", 0.6)


def closed_once(storage: Storage) -> bool:
    """Whether each slot has one attempt that makes sense."""
    trials = [trial for trial in SearchStudy(storage, "s").trials() if record.slot_of(trial) is not None]
    return sorted(map(record.slot_of, trials)) == list(range(6))  # type: ignore[type-var]


@pytest.mark.parametrize("key", OF_TRIALS)
def test_a_trial_whose_attribute_is_made_up_is_told_and_another_takes_its_slot(
    study: SearchStudy, key: str
) -> None:
    genuine = study.trials()[FORGED].user_attrs.get(key)
    for value in MADE_UP:
        forge(study, key, value, FORGED)
        read_all(study)
        flaws = summarize(study).senseless
        assert flaws.keys() <= {FORGED}
        if key in (record.SETUP, record.OUTCOME):
            assert f"its {key} is none of ours: " in flaws[FORGED]
            assert "\x1b" not in flaws[FORGED]
    forge(study, key, "x", FORGED)
    if key in (record.SLOT, record.SETUP, record.OUTCOME):
        assert list_studies(study.storage)[0].closed == summarize(study).closed == 2
        complete(study.storage)
        assert closed_once(study.storage)
        assert [record.slot_of(trial) for trial in SearchStudy(study.storage, "s").trials()][3] == FORGED
    forge(study, key, genuine, FORGED)
    assert summarize(study).senseless == {}


@pytest.mark.parametrize(("key", "part"), [(key, part) for key, parts in WITHIN.items() for part in parts])
def test_a_part_of_a_record_that_is_made_up_costs_no_more_than_its_trial(
    study: SearchStudy, key: str, part: str
) -> None:
    genuine = study.trials()[FORGED].user_attrs[key]
    missing = {name: there for name, there in genuine.items() if name != part}
    for made_up in (missing, *({**genuine, part: value} for value in IN_PLACE_OF_A_PART)):
        forge(study, key, made_up, FORGED)
        read_all(study)
        assert summarize(study).closed == list_studies(study.storage)[0].closed >= 2


@pytest.mark.parametrize("key", OF_STUDIES)
def test_a_studys_attribute_that_is_made_up_ends_nothing(study: SearchStudy, key: str) -> None:
    for value in MADE_UP:
        study.optuna.set_user_attr(key, value)
        read_all(study)
    assert study.stops().requested == 0 or key == record.STOP_REQUESTS


@pytest.mark.parametrize("key", [record.STUDY, record.PLAN])
def test_a_study_whose_record_is_made_up_is_listed_and_refused_in_one_line(
    study: SearchStudy, key: str
) -> None:
    storage = study.storage
    for value in MADE_UP:
        storage.set_study_user_attr(study.study_id, key, value)
        (listed,) = list_studies(storage)
        assert (listed.name, listed.space) == ("s", None)
        with pytest.raises(ValueError, match="study 's'") as refused:
            SearchStudy(storage, "s")
        assert len(str(refused.value).splitlines()) == 1
        with pytest.raises(ValueError, match="study 's'") as refused:
            PlanStudy(storage, "s")
        assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("state", [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL])
def test_an_attempt_that_another_program_ends_is_tried_again(study: SearchStudy, state: TrialState) -> None:
    ended = claim(study)
    plain = optuna.load_study(study_name="s", storage=study.storage)
    plain.tell(ended.trial.number, 7.0 if state == TrialState.COMPLETE else None, state)
    read_all(study)
    flaws = summarize(study).senseless
    assert flaws == (
        {} if state == TrialState.FAIL else {3: f"another program told that it is {state.name.lower()}"}
    )
    complete(study.storage)
    assert closed_once(study.storage) or state == TrialState.FAIL
    assert [record.slot_of(trial) for trial in study.trials()][4] == 3


def test_trials_of_a_plain_script_in_our_study_are_counted_apart(study: SearchStudy) -> None:
    before = summarize(study)
    plain = optuna.load_study(study_name="s", storage=study.storage)
    plain.optimize(lambda trial: trial.suggest_float("x", 0, 1) + 2, n_trials=2)
    plain.ask()
    after = summarize(study)
    assert (before.foreign, after.foreign) == (0, 3)
    assert (after.leaderboard, after.ended, after.closed) == (before.leaderboard, before.ended, 3)
    assert after.importances == before.importances
    read_all(study)
    complete(study.storage)
    assert summarize(study).closed == 6


def test_an_export_leaves_out_what_makes_no_sense(study: SearchStudy, sqlite_url: str) -> None:
    best = summarize(study).leaderboard[0].trials[0]
    forge(study, record.OUTCOME, {}, best)
    (export,) = of_best(study, sqlite_url)
    assert best not in {run.trial for run in export.runs}
    with pytest.raises(ValueError, match=f"trial {best} ") as refused:
        of_trial(study, sqlite_url, best)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("key", OF_TRIALS)
def test_an_export_of_a_trial_that_is_made_up_is_made_or_refused_in_one_line(
    study: SearchStudy, key: str, sqlite_url: str
) -> None:
    genuine = study.trials()[FORGED].user_attrs.get(key)
    parts = [{**genuine, part: value} for part in WITHIN.get(key, ()) for value in IN_PLACE_OF_A_PART]
    for value in (*MADE_UP, *parts):
        forge(study, key, value, FORGED)
        lines = refusal(lambda: as_yaml(of_trial(study, sqlite_url, FORGED))).splitlines()
        assert len(lines) <= 1
        assert all(f"trial {FORGED}" in line for line in lines), lines
