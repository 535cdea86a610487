"""The end of a trial, written in one transaction: whole, as Optuna writes it, and by one process alone."""

from __future__ import annotations

import math
import threading
from contextlib import closing

import optuna
import pytest
import sqlalchemy as sa
from optuna.distributions import FloatDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import TrialModel
from optuna.trial import FrozenTrial, TrialState

from studies.connections import IDLE
from studies.heartbeat import GRACE
from studies.locks import FROZEN
from studies.storage import open_storage
from studies.writing import end_trial, write_trial

CURVES: dict[str, list[float]] = {
    "rising": [0.25, 0.5],
    "without reports": [],
    "not a number": [0.5, math.nan],
    "infinite": [0.5, math.inf],
}


def reported(storage: RDBStorage, curve: list[float]) -> optuna.Trial:
    """A running trial with its reports."""
    trial = optuna.load_study(study_name="s", storage=storage).ask()
    for epoch, accuracy in enumerate(curve, 1):
        trial.report(accuracy, epoch)
    return trial


def ending(trial: FrozenTrial) -> tuple[object, ...]:
    return trial.state, trial.values, trial.intermediate_values


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize(
    ("state", "value"), [(TrialState.COMPLETE, 0.75), (TrialState.PRUNED, None), (TrialState.FAIL, None)]
)
def test_a_trial_ends_as_optuna_ends_it_together_with_its_attributes(
    sqlite_url: str, curve: str, state: TrialState, value: float | None
) -> None:
    with closing(open_storage(sqlite_url, create=True)) as storage:
        study = optuna.create_study(study_name="s", storage=storage, direction="maximize")
        usual, trial = reported(storage, CURVES[curve]), reported(storage, CURVES[curve])
        study.tell(usual.number, value, state)
        assert end_trial(storage, trial._trial_id, state, value, {"outcome": {"epoch": 2}})
        by_optuna, ours = study.get_trials(deepcopy=False)
        assert repr(ending(ours)) == repr(ending(by_optuna))
        assert ours.user_attrs == {"outcome": {"epoch": 2}}
        assert ours.datetime_complete is not None
        assert abs((ours.datetime_complete - by_optuna.datetime_complete).total_seconds()) < 60


def test_of_those_who_end_a_trial_at_once_one_does_and_nothing_of_the_others_stays(
    database_url: str,
) -> None:
    rounds, enders = 10, 4
    with closing(open_storage(database_url, create=True)) as storage:
        study = optuna.create_study(study_name="s", storage=storage)
        ids = [study.ask()._trial_id for _ in range(rounds)]
        barrier, won = threading.Barrier(enders), [[False] * rounds for _ in range(enders)]

        def end_all(ender: int) -> None:
            with closing(open_storage(database_url, create=False, write=True)) as own:
                for index, trial_id in enumerate(ids):
                    barrier.wait(60)
                    attributes = {"outcome": ender, f"of {ender}": True}
                    won[ender][index] = end_trial(
                        own, trial_id, TrialState.COMPLETE, float(ender), attributes
                    )

        threads = [threading.Thread(target=end_all, args=(ender,)) for ender in range(enders)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for index, trial in enumerate(study.get_trials(deepcopy=False)):
            (winner,) = [ender for ender in range(enders) if won[ender][index]]
            assert (trial.state, trial.value) == (TrialState.COMPLETE, winner)
            assert trial.user_attrs == {"outcome": winner, f"of {winner}": True}


def test_a_trial_that_does_not_run_is_not_ended(database_url: str) -> None:
    with closing(open_storage(database_url, create=True)) as storage:
        study = optuna.create_study(study_name="s", storage=storage)
        study.enqueue_trial({})
        (waiting,) = study.get_trials(deepcopy=False)
        assert not end_trial(storage, waiting._trial_id, TrialState.FAIL, None, {"outcome": 1})
        assert study.get_trials(deepcopy=False)[0].user_attrs == {}
        with pytest.raises(KeyError):
            end_trial(storage, waiting._trial_id + 1000, TrialState.FAIL, None, {"outcome": 1})


@pytest.mark.parametrize("attributes", [{}, {"late": 1}])
def test_an_ended_trial_takes_neither_attributes_nor_parameters(
    database_url: str, attributes: dict[str, int]
) -> None:
    lr = FloatDistribution(0.0, 1.0)
    with closing(open_storage(database_url, create=True)) as storage:
        study = optuna.create_study(study_name="s", storage=storage)
        trial_id = study.ask()._trial_id
        assert end_trial(storage, trial_id, TrialState.FAIL, None, {"outcome": 1})
        with pytest.raises(UpdateFinishedTrialError):
            write_trial(storage, trial_id, attributes, [("lr", 0.5, lr)])
        (ended,) = study.get_trials(deepcopy=False)
        assert (ended.params, ended.user_attrs) == ({}, {"outcome": 1})


def test_who_is_frozen_with_a_trials_row_does_not_hold_up_the_others(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction that was begun, and in which then nothing happens: as of a process that was stopped."""
    monkeypatch.setattr("studies.connections.IDLE", 0.7)
    with (
        closing(open_storage(postgres_url, create=True)) as frozen,
        closing(open_storage(postgres_url, create=False, write=True)) as other,
    ):
        trial_id = optuna.create_study(study_name="s", storage=frozen).ask()._trial_id
        with frozen.engine.connect() as connection:
            row = sa.select(TrialModel.trial_id).where(TrialModel.trial_id == trial_id)
            connection.execute(row.with_for_update())
            assert end_trial(other, trial_id, TrialState.FAIL, None, {"outcome": "lost"})
            with pytest.raises(sa.exc.DBAPIError):  # and on waking it cannot go on
                connection.execute(row)
        assert not end_trial(frozen, trial_id, TrialState.COMPLETE, 0.5, {"outcome": "finished"})
        assert frozen.get_trial(trial_id).user_attrs == {"outcome": "lost"}


def test_frozen_transactions_end_before_the_locks_that_they_are_made_under(postgres_url: str) -> None:
    assert IDLE < FROZEN < GRACE
    with closing(open_storage(postgres_url, create=True)) as storage, storage.engine.connect() as connection:
        limit = connection.exec_driver_sql("SHOW idle_in_transaction_session_timeout").scalar()
    assert limit == f"{IDLE}s"


def test_an_end_that_cannot_be_written_whole_is_not_written(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(open_storage(database_url, create=True)) as storage:
        trial_id = optuna.create_study(study_name="s", storage=storage).ask()._trial_id
        write_trial(storage, trial_id, {"setup": 1})
        monkeypatch.setattr(RDBStorage, "_set_trial_value_without_commit", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            end_trial(storage, trial_id, TrialState.COMPLETE, 0.5, {"outcome": 1})
        left = storage.get_trial(trial_id)
        assert (left.state, left.user_attrs, left.values) == (TrialState.RUNNING, {"setup": 1}, None)
