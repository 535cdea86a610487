"""The storage is an Optuna storage like any other: what is done to it and to Optuna's in-memory one is seen
alike, on each database, by Optuna and by optuna-dashboard."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from contextlib import closing
from typing import Any
from wsgiref.util import setup_testing_defaults

import optuna
import optuna_dashboard
import pytest
import sqlalchemy as sa
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage, InMemoryStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages._rdb import models
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from studies.attributes import TOKEN
from studies.storage import Storage, StorageError, open_storage

optuna.logging.set_verbosity(optuna.logging.ERROR)
MAXIMIZE, MINIMIZE = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
DISTRIBUTIONS: dict[str, tuple[optuna.distributions.BaseDistribution, Any]] = {
    "float": (FloatDistribution(-1, 1), 0.1),
    "log": (FloatDistribution(1e-7, 1, log=True), 1e-3),
    "stepped": (FloatDistribution(0, 1, step=0.25), 0.75),
    "int": (IntDistribution(0, 100, step=5), 35),
    "log int": (IntDistribution(1, 1000, log=True), 17),
    "choice": (CategoricalDistribution((None, True, 3, 0.5, "sgd")), 0.5),
}
ENDINGS: list[tuple[TrialState, list[float] | None]] = [
    (TrialState.COMPLETE, [0.25]),
    (TrialState.COMPLETE, [math.inf]),
    (TrialState.COMPLETE, [-math.inf]),
    (TrialState.PRUNED, [0.5]),
    (TrialState.FAIL, None),
]


def seen(trial: FrozenTrial) -> str:
    """All that Optuna shows of a trial, less ids and times; NaN equals itself."""
    times = (trial.datetime_start is not None, trial.datetime_complete is not None)
    shown = (trial.number, trial.state, trial.values, trial.params, trial.distributions, trial.user_attrs)
    return repr((*shown, trial.system_attrs, sorted(trial.intermediate_values.items()), times))


def outcome(call: Callable[[], Any]) -> Any:
    """What the call returns, or the kind of error that it raises."""
    try:
        return call()
    except Exception as error:
        return "KeyError" if isinstance(error, KeyError) else type(error).__name__


def protocol(storage: BaseStorage) -> list[Any]:
    """Everything that a storage does, and what is seen of it."""
    single = storage.create_new_study([MAXIMIZE], "single")
    double = storage.create_new_study([MINIMIZE, MAXIMIZE], "double")
    ended = [run(storage, single, *ending) for ending in ENDINGS]
    queued = storage.create_new_trial(single, create_trial(state=TrialState.WAITING, user_attrs={"slot": 1}))
    storage.set_study_user_attr(single, "a", {"b": [1, None, "ü"]})
    storage.set_study_user_attr(single, "a", "later")
    storage.set_study_system_attr(double, "c", 2)
    storage.set_trial_state_values(storage.create_new_trial(double), TrialState.COMPLETE, [1.0, 2.0])
    log = [
        [(study.study_name, study.directions, study.user_attrs) for study in storage.get_all_studies()],
        storage.get_study_name_from_id(double),
        storage.get_study_id_from_name("single") == single,
        storage.get_study_directions(double),
        storage.get_study_system_attrs(double),
        seen(storage.get_best_trial(single)),
        outcome(lambda: storage.get_best_trial(double)),
        [storage.get_n_trials(single, state) for state in TrialState],
        storage.get_trial_number_from_id(queued),
        storage.get_trial_id_from_study_id_trial_number(single, 2) == ended[2],
        storage.get_trial_param(ended[0], "choice"),
        storage.get_trial_params(ended[0]),
        storage.get_trial_user_attrs(ended[0]),
        storage.set_trial_state_values(queued, TrialState.RUNNING),
        storage.set_trial_state_values(queued, TrialState.RUNNING),
        *refusals(storage, single, ended[0]),
        *(seen(trial) for study_id in (single, double) for trial in storage.get_all_trials(study_id)),
        *(seen(trial) for trial in storage.get_all_trials(single, states=(TrialState.PRUNED,))),
    ]
    storage.delete_study(single)
    return [*log, outcome(lambda: storage.get_study_id_from_name("single")), len(storage.get_all_studies())]


def run(storage: BaseStorage, study_id: int, state: TrialState, values: list[float] | None) -> int:
    """A trial with parameters of every kind, reports and attributes."""
    trial_id = storage.create_new_trial(study_id)
    for name, (distribution, value) in DISTRIBUTIONS.items():
        storage.set_trial_param(trial_id, name, distribution.to_internal_repr(value), distribution)
    for step, value in enumerate((0.5, math.nan, math.inf, -math.inf)):
        storage.set_trial_intermediate_value(trial_id, step, value)
    storage.set_trial_user_attr(trial_id, "note", {"x": [1, 2.5, "<b>"]})
    storage.set_trial_system_attr(trial_id, "rung", 1)
    storage.set_trial_state_values(trial_id, state, values)
    return trial_id


def refusals(storage: BaseStorage, study_id: int, ended: int) -> list[Any]:
    running = storage.create_new_trial(study_id)
    other = FloatDistribution(0, 1, log=False)
    return [
        outcome(lambda: storage.create_new_study([MAXIMIZE], "single")),
        outcome(lambda: storage.set_trial_state_values(ended, TrialState.RUNNING)),
        outcome(lambda: storage.set_trial_state_values(ended, TrialState.FAIL)),
        outcome(lambda: storage.set_trial_user_attr(ended, "a", 1)),
        outcome(lambda: storage.set_trial_intermediate_value(ended, 9, 1.0)),
        outcome(lambda: storage.set_trial_param(running, "choice", 0.0, other)),
        outcome(lambda: storage.create_new_trial(study_id + 1000)),
        outcome(lambda: storage.set_trial_state_values(ended + 1000, TrialState.RUNNING)),
        outcome(lambda: storage.get_trial(ended + 1000)),
        outcome(lambda: storage.delete_study(study_id + 1000)),
    ]


def test_it_does_what_optunas_own_storage_does(database_url: str) -> None:
    with closing(open_storage(database_url, create=True)) as storage:
        for here, there in zip(protocol(storage), protocol(InMemoryStorage()), strict=True):
            assert here == there


def objective(trial: optuna.Trial) -> float:
    rate = trial.suggest_float("lr", 1e-4, 1, log=True)
    kind = trial.suggest_categorical("kind", ["sgd", "adam"])
    width = trial.suggest_int("width", 1, 8) if kind == "adam" else 0
    for step in range(4):
        trial.report(rate + width * step, step)
        if trial.should_prune():
            raise optuna.TrialPruned
    if trial.number == 5:
        raise ZeroDivisionError
    return rate + width


def optimized(storage: BaseStorage) -> optuna.Study:
    study = optuna.create_study(
        study_name="s",
        storage=storage,
        sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=5),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=0),
    )
    study.enqueue_trial({"lr": 0.5, "kind": "adam"}, user_attrs={"slot": 0})
    study.optimize(objective, n_trials=15, catch=(ZeroDivisionError,))
    return study


def test_optuna_optimizes_on_it_as_in_memory_and_the_dashboard_shows_it(database_url: str) -> None:
    expected = optimized(InMemoryStorage())
    with closing(open_storage(database_url, create=True)) as storage:
        study = optimized(storage)
        assert [seen(trial) for trial in study.trials] == [seen(trial) for trial in expected.trials]
        assert {trial.state for trial in study.trials} >= {TrialState.PRUNED, TrialState.FAIL}
        assert study.best_params == expected.best_params
        app = optuna_dashboard.wsgi(storage)
        (summary,) = asked(app, "/api/studies")["study_summaries"]
        assert summary["study_name"] == "s"
        detail = asked(app, f"/api/studies/{summary['study_id']}", "after=0")
        assert [trial["number"] for trial in detail["trials"]] == list(range(15))


def asked(app: Callable[..., Any], path: str, query: str = "") -> Any:
    environment: dict[str, Any] = {"PATH_INFO": path, "QUERY_STRING": query}
    setup_testing_defaults(environment)
    return json.loads(b"".join(app(environment, lambda *_: None)))


def test_optunas_own_heartbeat_and_retries_work_on_it(database_url: str) -> None:
    with (
        closing(open_storage(database_url, create=True, heartbeat=1, grace=1)) as storage,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # that they are experimental
        storage.heartbeat_stale_trial_callback = RetryHeartbeatStaleTrialCallback(max_retry=1)
        study = optuna.create_study(study_name="s", storage=storage)
        lost = study.ask({"x": FloatDistribution(0, 1)})
        storage.record_heartbeat(lost._trial_id)
        with storage.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE trial_heartbeats SET heartbeat = '2001-01-01'")
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
        first, second = study.trials
        assert (first.state, second.state) == (TrialState.FAIL, TrialState.COMPLETE)
        assert second.params == first.params == lost.params
        assert not any(
            key.startswith("cifar-search") for key in {**first.system_attrs, **second.system_attrs}
        )
        assert len(set(tokens(storage))) == len(tokens(storage)) == 2


def tokens(storage: Storage) -> list[str]:
    """Who made or started the trials, each by a call of its own."""
    attribute = models.TrialSystemAttributeModel
    with storage.engine.begin() as connection:
        query = sa.select(attribute.value_json).where(attribute.key == TOKEN)
        return list(connection.scalars(query))


@pytest.mark.parametrize("name", ["s" * 600, "\ud800"])
def test_what_a_database_cannot_hold_is_an_error_of_optunas(mysql_url: str, name: str) -> None:
    with (
        closing(open_storage(mysql_url, create=True, outage=5)) as storage,
        pytest.raises(StorageError),
    ):
        storage.create_new_study([MAXIMIZE], name)
