"""Reports that wait to be written: pruners decide as if they had been, and nothing of them is lost."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_studies import FREE, claim, make_study
from optuna.trial import Trial, TrialState

from studies import live, record
from studies.live import LiveReports
from studies.methods import build_pruner, pruners
from studies.record import Outcome
from studies.storage import open_storage
from studies.study import SearchStudy

TRIALS, EPOCHS, AT_ONCE = 16, 4, 3


@pytest.fixture
def twins(tmp_path: Path) -> Iterator[tuple[SearchStudy, SearchStudy]]:
    """The same study in two databases."""
    with ExitStack() as stack:
        studies = []
        for name in ("one", "other"):
            storage = open_storage(f"sqlite:///{tmp_path / name}.db", create=True)
            stack.callback(storage.close)
            studies.append(make_study(storage, FREE, TRIALS))
        yield studies[0], studies[1]


@pytest.fixture
def study(twins: tuple[SearchStudy, SearchStudy]) -> SearchStudy:
    return twins[0]


class AsOptunaDoes:
    """Optuna's own reports and decisions, each of which is a transaction or more."""

    def __init__(self, study: SearchStudy) -> None:
        self._study = study.optuna

    def begin(self, trial_id: int) -> None:
        pass

    def report(self, trial_id: int, epoch: int, value: float) -> None:
        Trial(self._study, trial_id).report(value, epoch)

    def should_prune(self, trial_id: int) -> bool:
        return Trial(self._study, trial_id).should_prune()

    def write(self) -> None:
        pass

    def end(self, trial_id: int) -> None:
        pass


def search(study: SearchStudy, reports: AsOptunaDoes | LiveReports) -> list[tuple[int, int, bool]]:
    """Some trials in turn, epoch by epoch, with random curves of which some fail; all decisions on them."""
    random = np.random.default_rng(1)
    decisions, epochs = [], dict[int, int]()
    for number in range(TRIALS + AT_ONCE):
        if number < TRIALS:
            trial_id = study.optuna.ask()._trial_id
            study.storage.set_trial_user_attr(trial_id, record.SLOT, number)
            reports.begin(trial_id)
            epochs[trial_id] = 0
        while len(epochs) >= AT_ONCE or (epochs and number >= TRIALS):
            for trial_id in list(epochs):
                epochs[trial_id] += 1
                value = (random.random() + 0.1 * epochs[trial_id]) / 2
                reports.report(trial_id, epochs[trial_id], value)
                pruned = reports.should_prune(trial_id)
                decisions.append((trial_id, epochs[trial_id], pruned))
                if pruned or epochs[trial_id] == EPOCHS:
                    reports.write()
                    finish(study, trial_id, pruned, value)
                    reports.end(trial_id)
                    del epochs[trial_id]
    return decisions


def finish(study: SearchStudy, trial_id: int, pruned: bool, value: float) -> None:
    failed = not pruned and value > 0.65
    reason = "error" if failed else "pruned" if pruned else "finished"
    study.storage.set_trial_user_attr(trial_id, record.OUTCOME, {"reason": reason})
    state = TrialState.FAIL if failed else TrialState.PRUNED if pruned else TrialState.COMPLETE
    number = study.storage.get_trial_number_from_id(trial_id)
    study.optuna.tell(number, value if state == TrialState.COMPLETE else None, state=state)


def stored(study: SearchStudy) -> list[dict[str, Any]]:
    """What is kept of each trial and could depend on how it was reported."""
    return [
        {
            "state": trial.state,
            "values": trial.intermediate_values,
            "rungs": {key: value for key, value in trial.system_attrs.items() if "rung" in key},
        }
        for trial in study.trials()
    ]


@pytest.mark.parametrize("name", pruners)
def test_decisions_and_what_is_stored_are_those_of_optuna(
    twins: tuple[SearchStudy, SearchStudy], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "EVERY", 1e9)
    for study in twins:
        study.optuna.pruner = build_pruner(name, EPOCHS, 0.1)
    one, other = twins
    decisions = search(one, LiveReports(one))
    assert decisions == search(other, AsOptunaDoes(other))
    assert any(pruned for _, _, pruned in decisions) == (name != "none")
    assert stored(one) == stored(other)
    rungs = any(trial["rungs"] for trial in stored(one))
    assert rungs == (name in ("asha", "hyperband"))


def test_reports_wait_until_they_are_written(study: SearchStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "EVERY", 1e9)
    reports, first, second = LiveReports(study), claim(study), claim(study)
    for claimed in (first, second):
        reports.begin(claimed.trial_id)
        for epoch, value in ((1, 0.5), (2, 0.25), (1, 0.75)):  # the last is not the first of its epoch
            reports.report(claimed.trial_id, epoch, value)
    reports.write_if_due()
    assert [trial.intermediate_values for trial in study.trials()] == [{}, {}]
    monkeypatch.setattr(live, "EVERY", 0.0)
    reports.write_if_due()
    assert [trial.intermediate_values for trial in study.trials()] == [{1: 0.5, 2: 0.25}] * 2
    reports.report(first.trial_id, 1, 0.9)
    reports.write()
    assert study.trials()[0].intermediate_values[1] == 0.5


@pytest.mark.parametrize(
    ("share", "begins", "known"), [(math.inf, False, True), (1e-9, False, False), (1e-9, True, True)]
)
def test_what_others_did_counts_from_the_next_writing_on_if_reading_takes_little_time_or_a_trial_begins(
    study: SearchStudy, share: float, begins: bool, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "SHARE", share)
    study.optuna.pruner = build_pruner("asha", EPOCHS, 0.1)
    reports, mine = LiveReports(study), claim(study)
    reports.begin(mine.trial_id)
    reports.report(mine.trial_id, 1, 0.4)
    assert not reports.should_prune(mine.trial_id)
    for value in (0.5, 0.6, 0.7, 0.8):
        theirs = claim(study)
        for epoch in (1, 2, 4):
            theirs.trial.report(value, epoch)
            assert not theirs.trial.should_prune()
    reports.report(mine.trial_id, 2, 0.4)
    assert not reports.should_prune(mine.trial_id)
    reports.write()
    if begins:
        reports.begin(claim(study).trial_id)
    reports.report(mine.trial_id, 4, 0.4)
    assert reports.should_prune(mine.trial_id) == known


def test_a_trial_that_somebody_else_ended_is_said_to_be_given_away(study: SearchStudy) -> None:
    study.optuna.pruner = build_pruner("asha", EPOCHS, 0.1)
    reports, lost, kept = LiveReports(study), claim(study), claim(study)
    for claimed in (lost, kept):
        reports.begin(claimed.trial_id)
        reports.report(claimed.trial_id, 1, 0.5)
        reports.should_prune(claimed.trial_id)
    study.close(lost.trial_id, TrialState.FAIL, Outcome(reason="lost"))
    assert not reports.given_away(lost.trial_id)
    reports.write()
    assert reports.given_away(lost.trial_id)
    assert not reports.given_away(kept.trial_id)
    assert stored(study)[0]["values"] == stored(study)[0]["rungs"] == {}
    assert stored(study)[1]["values"] == {1: 0.5}
    assert stored(study)[1]["rungs"]
    reports.end(lost.trial_id)
    assert not reports.given_away(lost.trial_id)


def test_an_outage_loses_no_report(study: SearchStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    reports, claimed = LiveReports(study), claim(study)
    reports.begin(claimed.trial_id)
    reports.report(claimed.trial_id, 1, 0.5)
    with monkeypatch.context() as patch:
        patch.setattr(live, "report_many", lambda *_: (_ for _ in ()).throw(ConnectionError("gone")))
        with pytest.raises(ConnectionError):
            reports.write()
    reports.write()
    assert study.trials()[0].intermediate_values == {1: 0.5}
