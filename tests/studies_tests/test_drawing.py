"""Trials drawn from a study that is read once, and written at once: as Optuna draws and stores them."""

from contextlib import closing

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from studies.drawing import DrawnStudy
from studies.storage import open_storage
from studies.writing import write_trial

LR = FloatDistribution(1e-4, 1.0, log=True)
NORM = CategoricalDistribution(("batch", "none"))


def draw(trial: optuna.Trial) -> float:
    lr = trial.suggest_float("lr", LR.low, LR.high, log=True)
    norm = trial.suggest_categorical("norm", NORM.choices)
    return abs(lr - 0.1) + (norm == "none")


def studied(storage: optuna.storages.RDBStorage) -> optuna.Study:
    """Twelve trials by TPE, more than it draws at random."""
    study = optuna.create_study(storage=storage, sampler=optuna.samplers.TPESampler(seed=3))
    study.optimize(draw, n_trials=12)
    return study


def test_what_is_drawn_is_what_optuna_draws_and_is_stored_when_it_is_written(tmp_path) -> None:
    with (
        closing(open_storage(f"sqlite:///{tmp_path}/a.db", create=True)) as one,
        closing(open_storage(f"sqlite:///{tmp_path}/b.db", create=True)) as other,
    ):
        usual, study = studied(one), studied(other)
        for each in (usual, study):
            each.sampler = optuna.samplers.TPESampler(seed=5)
        drawn = DrawnStudy(study, study.get_trials(deepcopy=False))
        expected, trial = usual.ask(), drawn.ask()
        draw(expected)
        draw(trial)
        assert trial.params == expected.params
        assert other.get_trial(trial._trial_id).params == {}
        write_trial(other, trial._trial_id, {"setup": {"seed": 1}}, drawn.parameters)
        stored = other.get_trial(trial._trial_id)
        assert stored.params == expected.params
        assert stored.distributions == one.get_trial(expected._trial_id).distributions
        assert stored.user_attrs == {"setup": {"seed": 1}}


def test_a_parameter_that_is_there_stays_and_an_ended_trial_takes_nothing(database_url) -> None:
    with closing(open_storage(database_url, create=True)) as storage:
        study = optuna.create_study(storage=storage)
        trial = study.ask()
        lr = trial.suggest_float("lr", LR.low, LR.high, log=True)
        write_trial(storage, trial._trial_id, {"a": [1]}, [("lr", 0.5, LR), ("norm", 1.0, NORM)])
        assert study.trials[0].params == {"lr": lr, "norm": "none"}
        study.tell(trial, 0.5)
        with pytest.raises(UpdateFinishedTrialError):
            write_trial(storage, trial._trial_id, {"a": [2]}, [("late", 0.5, LR)])
        (ended,) = study.get_trials(deepcopy=False)
        assert ended.state == TrialState.COMPLETE
        assert (ended.user_attrs, "late" in ended.params) == ({"a": [1]}, False)
