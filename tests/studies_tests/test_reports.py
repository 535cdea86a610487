"""Reports and signs of life of several trials in one transaction, on each database."""

from __future__ import annotations

import inspect
import math
import threading
from collections.abc import Iterator
from contextlib import closing

import optuna
import pytest
import sqlalchemy as sa
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import TrialHeartbeatModel, TrialIntermediateValueModel, TrialModel
from optuna.trial import TrialState

from studies.reports import record_heartbeats, report_many
from studies.storage import StorageError, open_storage


@pytest.fixture
def storage(database_url: str) -> Iterator[RDBStorage]:
    with closing(open_storage(database_url, create=True)) as storage:
        yield storage


@pytest.fixture
def study(storage: RDBStorage) -> optuna.Study:
    return optuna.create_study(storage=storage, study_name="s", direction="maximize")


def values(study: optuna.Study) -> list[dict[int, float]]:
    """What each trial has reported, by step."""
    return [trial.intermediate_values for trial in study.get_trials()]


def test_reports_of_many_trials_are_kept_as_optuna_keeps_them(
    storage: RDBStorage, study: optuna.Study
) -> None:
    first, second = study.ask(), study.ask()
    wanted = [(0, 0.5), (1, math.inf), (2, -math.inf), (7, 1e-300)]
    for step, value in wanted:
        first.report(value, step)
    assert report_many(storage, [(second._trial_id, step, value) for step, value in wanted]) == set()
    one, other = values(study)
    assert one == other == dict(wanted)
    assert report_many(storage, [(second._trial_id, 3, math.nan), (first._trial_id, 8, 0.25)]) == set()
    assert math.isnan(values(study)[1][3])
    assert values(study)[0][8] == 0.25


def test_a_step_keeps_its_first_value(storage: RDBStorage, study: optuna.Study) -> None:
    trial_id = study.ask()._trial_id
    report_many(storage, [(trial_id, 1, 0.5), (trial_id, 0, 0.25), (trial_id, 1, 0.75)])
    report_many(storage, [(trial_id, 0, 0.5), (trial_id, 2, 0.125), (trial_id, 0, math.nan)])
    assert values(study) == [{0: 0.25, 1: 0.5, 2: 0.125}]


def test_trials_that_ended_wait_or_never_were_are_left_out_and_named(
    storage: RDBStorage, study: optuna.Study
) -> None:
    running, ended = study.ask(), study.ask()
    study.tell(ended, 1.0)
    study.enqueue_trial({"x": 1})
    waiting = study.get_trials()[2]._trial_id
    gone = waiting + 1000
    wanted = [(trial_id, 0, 0.5) for trial_id in (gone, ended._trial_id, running._trial_id, waiting)]
    assert report_many(storage, wanted) == {ended._trial_id, waiting, gone}
    assert values(study) == [{0: 0.5}, {}, {}]
    assert report_many(storage, []) == set()


def test_all_reports_are_stored_or_none(storage: RDBStorage, study: optuna.Study) -> None:
    first, second = study.ask(), study.ask()
    with pytest.raises(StorageError):
        report_many(storage, [(first._trial_id, 0, 0.5), (second._trial_id, None, 0.5)])  # type: ignore[list-item]
    assert values(study) == [{}, {}]


def test_processes_that_report_the_same_trials_do_not_get_in_each_others_way(
    storage: RDBStorage, study: optuna.Study
) -> None:
    ids = [study.ask()._trial_id for _ in range(8)]
    answers = []

    def report(order: list[int]) -> None:
        for start in range(0, 40, 10):
            reports = [(trial_id, step, 0.5) for step in range(start, start + 10) for trial_id in order]
            answers.append(report_many(storage, reports))
            record_heartbeats(storage, dict.fromkeys(order))

    threads = [threading.Thread(target=report, args=(order,)) for order in (ids, ids[::-1], ids)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [set()] * 12
    assert values(study) == [dict.fromkeys(range(40), 0.5)] * 8


def test_signs_of_life_are_recorded_for_all_that_are_there(storage: RDBStorage, study: optuna.Study) -> None:
    new, old, other = (study.ask()._trial_id for _ in range(3))
    storage.record_heartbeat(old)
    storage.record_heartbeat(other)
    with storage.engine.begin() as connection:
        connection.execute(sa.update(TrialHeartbeatModel).values(heartbeat=sa.func.date("2000-01-01")))
    before = heartbeats(storage)
    record_heartbeats(storage, dict.fromkeys([other + 1000, old, new]))
    after = heartbeats(storage)
    assert after.keys() == {new, old, other}
    assert after[old] == after[new] > before[old]
    assert after[other] == before[other]


def heartbeats(storage: RDBStorage) -> dict[int, object]:
    query = sa.select(TrialHeartbeatModel.trial_id, sa.cast(TrialHeartbeatModel.heartbeat, sa.String(40)))
    with storage.engine.connect() as connection:
        return dict(connection.execute(query).all())


def test_internals_of_optuna_that_are_used() -> None:
    assert {"trial_id", "state"} <= set(TrialModel.__table__.columns.keys())
    assert {"trial_id", "heartbeat"} <= set(TrialHeartbeatModel.__table__.columns.keys())
    assert list(TrialIntermediateValueModel.__table__.columns.keys()) == [
        "trial_intermediate_value_id",
        "trial_id",
        "step",
        "intermediate_value",
        "intermediate_value_type",
    ]
    convert = TrialIntermediateValueModel.intermediate_value_to_stored_repr
    assert list(inspect.signature(convert).parameters) == ["value"]
    assert convert(math.nan)[0] is None
    assert TrialState.RUNNING in TrialState
