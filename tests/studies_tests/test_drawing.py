"""Trials drawn from a study that is read once, and written at once: as Optuna draws and stores them."""

from contextlib import closing

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState, create_trial

from studies.drawing import BEST, LONGEST, DrawnStudy, excerpt
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


def numbered(number: int, state: TrialState, value: float | None, steps: int = 1) -> FrozenTrial:
    reports = dict.fromkeys(range(steps), 0.5)
    trial = create_trial(state=state, value=value, intermediate_values=reports)
    trial.number = number
    return trial


def test_of_up_to_two_thousand_trials_with_values_all_are_excerpt():
    ended = [numbered(n, TrialState.COMPLETE, n / LONGEST) for n in range(LONGEST)]
    failed = [numbered(LONGEST + n, TrialState.FAIL, None) for n in range(50)]
    assert excerpt([*ended, *failed], 0) == [*ended, *failed]


def test_of_more_the_best_and_a_random_sample_of_the_others_are_shown_and_all_that_run():
    values = np.random.default_rng(0).permutation(3 * LONGEST)
    ended = [numbered(n, TrialState.COMPLETE, float(value)) for n, value in enumerate(values)]
    running = [numbered(len(ended) + n, TrialState.RUNNING, None) for n in range(7)]
    seen = excerpt([*ended, *running], 0)
    assert [trial.number for trial in seen] == sorted(trial.number for trial in seen)
    assert seen[-7:] == running
    among = {trial.value for trial in seen[:-7]}
    assert len(among) == LONGEST
    assert among.issuperset(range(3 * LONGEST - BEST, 3 * LONGEST))
    others = [value for value in among if value < 3 * LONGEST - BEST]
    thirds = np.histogram(others, bins=3, range=(0, 3 * LONGEST - BEST))[0]
    expected = (LONGEST - BEST) / 3
    assert all(abs(thirds - expected) < 0.1 * expected)  # four standard deviations
    assert seen == excerpt([*ended, *running], 0)
    assert seen != excerpt([*ended, *running], 1)


def test_pruned_trials_rank_after_complete_ones_by_how_far_they_came():
    complete = [numbered(n, TrialState.COMPLETE, 0.1) for n in range(BEST // 2)]
    late = [numbered(50 + n, TrialState.PRUNED, 0.2, steps=9) for n in range(BEST // 2)]
    early = [numbered(100 + n, TrialState.PRUNED, 0.9, steps=2) for n in range(LONGEST)]
    seen = excerpt([*complete, *late, *early], 3)
    assert seen[:BEST] == [*complete, *late]
    assert len(seen) == LONGEST


def test_a_long_study_is_drawn_from_by_what_is_shown_of_it():
    """The model of TPE rests on the best trials: the parameters drawn lie where those were."""
    study = optuna.create_study(direction="maximize")
    for lr in 10 ** np.random.default_rng(0).uniform(-4, 0, LONGEST + 500):
        value = -abs(np.log10(lr) + 2)
        study.add_trial(create_trial(params={"lr": lr}, distributions={"lr": LR}, value=value))
    known = study.get_trials(deepcopy=False)
    for seed in range(3):
        drawn = DrawnStudy(study, excerpt(known, seed))
        assert len(drawn.get_trials(deepcopy=False)) == LONGEST
        drawn.sampler = optuna.samplers.TPESampler(seed=seed)
        lr = drawn.ask().suggest_float("lr", LR.low, LR.high, log=True)
        assert abs(np.log10(lr) + 2) < 0.5
