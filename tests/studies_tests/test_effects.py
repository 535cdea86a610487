"""What a study says of its parameters: levels, importances, interactions, and what would settle the rest."""

from __future__ import annotations

import itertools
import json
import math
import statistics
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict
from typing import Any

import numpy as np
import optuna
import pytest
from made_studies import BALANCED, FREE, GRID, claim, end, make_study, run_all
from optuna.storages import RDBStorage

from studies.effects import Effects, LevelEffect, ParameterEffect, effects_of
from studies.finalists import Finalist, Finalists
from studies.importance import importances, resampled_importances
from studies.interactions import Interaction
from studies.statistics import Interval, resampled_mean_interval
from studies.storage import open_storage
from studies.study import SearchStudy


@pytest.fixture
def storage(sqlite_url: str) -> Iterator[RDBStorage]:
    with closing(open_storage(sqlite_url, create=True)) as storage:
        yield storage


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RDBStorage]:
    url = f"sqlite:///{tmp_path_factory.mktemp('shared') / 'studies.db'}"
    with closing(open_storage(url, create=True)) as storage:
        yield storage


@pytest.fixture(scope="module")
def balanced(shared: RDBStorage) -> SearchStudy:
    """Six trials for each of three optimizers, drawn at random; only read by the tests."""
    study = make_study(shared, BALANCED, 18, name="s")
    run_all(study, by_rate)
    return study


@pytest.fixture(scope="module")
def free(shared: RDBStorage) -> SearchStudy:
    """A random search of 34 trials, 17 or so with each normalization; only read by the tests."""
    study = make_study(shared, FREE, 34, name="free", seed=10)
    run_all(study, by_rate)
    return study


def by_rate(parameters: Mapping[str, Any]) -> float:
    """Best at a learning rate of 0.01; 0.02 better with adam."""
    rate = next(value for name, value in parameters.items() if name.startswith("optimizer.lr"))
    bonus = 0.02 if parameters.get("optimizer.name") == "adam" else 0.0
    return 0.9 + bonus - 0.1 * abs(math.log10(rate) + 2)


def effects(study: SearchStudy, finalists: Finalists | None = None) -> Effects:
    return effects_of(study, finalists, resamples=2)


def parameter(found: Effects, name: str) -> ParameterEffect:
    return next(one for one in found.parameters if one.parameter == name)


def level(found: Effects, name: str, label: str) -> LevelEffect:
    return next(one for one in parameter(found, name).levels if one.level == label)


def finalist(
    label: str, mean: float, difference: Interval | None, distinguished: bool, **changes: Any
) -> Finalist:
    given: dict[str, Any] = {
        "label": label, "trials": (0,), "parameters": {}, "level": label, "search_accuracy": mean + 0.01,
        "accuracies": (mean - 0.01, mean, mean + 0.01), "mean": mean, "spread": 0.01,
        "interval": Interval(mean - 0.02, mean + 0.02), "difference": difference,
        "distinguished": distinguished, "cheapest": False, "seconds": 12.0, "parameters_count": 10,
        "multiply_adds": 100,
    }  # fmt: skip
    return Finalist(**given | changes)


def confirmed(name: str | None, *finalists: Finalist, blocks: int = 3, folds: int | None = None) -> Finalists:
    return Finalists(
        "s", "s/confirm", folds, blocks, name, finalists, 4, 0.95, ("one block is not complete",)
    )


THREE = (
    finalist("adam", 0.92, None, False),
    finalist("sgd", 0.91, Interval(-0.03, 0.01), False, cheapest=True),
    finalist("rmsprop", 0.80, Interval(-0.14, -0.1), True),
)


def test_a_balanced_comparison_gives_each_level_the_best_of_an_equal_budget(balanced: SearchStudy) -> None:
    study = balanced
    found = effects(study)
    assert found.sampling == "balanced"
    effect = parameter(found, "optimizer.name")
    assert (effect.sampling, effect.equal_budget, effect.confirmed) == ("balanced", True, False)
    for label in ("sgd", "adam", "rmsprop"):
        of_level = [t for t in study.trials() if t.params["optimizer.name"] == label]
        values = sorted((by_rate(trial.params) for trial in of_level), reverse=True)
        one = level(found, "optimizer.name", label)
        assert (one.trials, one.completed, one.pruned, one.diverged, one.failed) == (6, 6, 0, 0, 0)
        assert (one.best, one.top_quarter) == pytest.approx((values[0], statistics.fmean(values[:2])))
        assert (one.mean, one.spread) == pytest.approx((statistics.fmean(values), statistics.stdev(values)))
        assert one.best_trial == max(of_level, key=lambda trial: trial.value or 0).number
        assert one.convergence is not None
        assert one.convergence.target == found.target == pytest.approx(0.9 * study.optuna.best_value)
        assert one.convergence.area == pytest.approx(one.best * 0.625)  # a line from a quarter of it


def test_levels_tell_the_pruned_from_the_diverged_and_the_failed(storage: RDBStorage) -> None:
    study = make_study(storage, BALANCED, 7)
    for reason in ("finished", "pruned", "diverged", "out of memory", "finished", "finished", "finished"):
        end(study, claim(study), reason, 0.5)
    found = effects(study)
    one = {label: level(found, "optimizer.name", label) for label in ("sgd", "adam", "rmsprop")}
    assert (one["sgd"].trials, one["sgd"].completed, one["sgd"].failed) == (3, 2, 1)
    assert (one["adam"].trials, one["adam"].completed, one["adam"].pruned) == (2, 1, 1)
    assert (one["rmsprop"].trials, one["rmsprop"].completed, one["rmsprop"].diverged) == (2, 1, 1)
    assert not parameter(found, "optimizer.name").equal_budget
    assert found.completed == 4


def test_what_confirming_the_levels_showed_is_the_answer(balanced: SearchStudy) -> None:
    study = balanced
    found = effects(study, confirmed("optimizer.name", *THREE))
    effect = parameter(found, "optimizer.name")
    assert effect.confirmed
    assert (effect.blocks, effect.folds) == (3, None)
    assert [one.confirmed.mean for one in effect.levels if one.confirmed] == [0.91, 0.92, 0.80]
    assert "one block is not complete" in found.missing


def test_confirmed_levels_of_another_parameter_are_not_this_ones(free: SearchStudy) -> None:
    study = free
    found = effects(study, confirmed("model.normalization", finalist("batch", 0.9, None, False)))
    assert parameter(found, "model.normalization").confirmed
    assert level(found, "model.normalization", "none").confirmed is None
    assert not parameter(found, "model.dropout").confirmed


def test_a_nuisance_parameter_is_shown_where_its_levels_were_confirmed(free: SearchStudy) -> None:
    study = free
    assert [one.parameter for one in effects(study).parameters] == ["model.normalization", "model.dropout"]
    found = effects(study, confirmed("optimizer.lr", finalist("0.1 to 1", 0.9, None, False)))
    assert level(found, "optimizer.lr", "0.1 to 1").confirmed is not None


def test_a_random_search_has_intervals_that_hold_for_all_levels_together(free: SearchStudy) -> None:
    study = free
    found = effects(study)
    assert found.intervals_reason is None
    counts = [one.completed for one in parameter(found, "model.normalization").levels]
    assert min(counts) >= 15
    values = [by_rate(t.params) for t in study.trials() if t.params["model.normalization"] == "batch"]
    assert level(found, "model.normalization", "batch").interval == pytest.approx(
        resampled_mean_interval(sorted(values, reverse=True), 0.975)
    )
    few = [one for one in parameter(found, "model.dropout").levels if one.completed < 15]
    assert few
    assert all(one.interval is None for one in few)


@pytest.mark.parametrize(
    ("sampler", "reason"), [("tpe", "were drawn by tpe"), ("tpe-univariate", "were drawn by tpe-univariate")]
)
def test_what_an_adaptive_search_sampled_has_no_intervals(
    storage: RDBStorage, sampler: str, reason: str
) -> None:
    study = make_study(storage, FREE, 3, sampler=sampler)
    run_all(study, by_rate)
    found = effects(study)
    assert reason in str(found.intervals_reason)
    assert all(one.interval is None for effect in found.parameters for one in effect.levels)


def test_one_adaptive_session_of_a_random_search_is_enough_to_lose_them(storage: RDBStorage) -> None:
    study = make_study(storage, FREE, 3)
    end(study, claim(study, "tpe"), "finished")
    run_all(study, by_rate)
    assert "were drawn by tpe, " in str(effects(study).intervals_reason)


def test_a_pruned_search_has_no_intervals(storage: RDBStorage) -> None:
    study = make_study(storage, FREE, 3)
    end(study, claim(study), "pruned")
    run_all(study, by_rate)
    assert (
        effects(study).intervals_reason == "1 of 3 trials were pruned: the completed ones are the better ones"
    )


def test_trials_that_were_chosen_by_hand_are_no_random_draws(storage: RDBStorage) -> None:
    study = make_study(storage, FREE, 3)
    study.optuna.enqueue_trial({"model.normalization": "batch", "model.dropout": 0.1, "optimizer.lr": 0.01})
    run_all(study, by_rate)
    assert "not drawn but chosen" in str(effects(study).intervals_reason)


def test_a_retried_random_draw_is_still_a_random_draw(storage: RDBStorage) -> None:
    study = make_study(storage, FREE, 3)
    end(study, claim(study), "interrupted", epochs=2)
    run_all(study, by_rate)
    assert effects(study).intervals_reason is None


def test_a_search_that_still_runs_has_no_intervals_yet(storage: RDBStorage) -> None:
    study = make_study(storage, FREE, 3)
    running = claim(study)
    while len(study.slots().closing_trials()) < 2:
        one = claim(study)
        end(study, one, "finished", by_rate(one.trial.params))
    assert "still running" in str(effects(study).intervals_reason)
    end(study, running, "finished")
    assert effects(study).intervals_reason is None


def test_a_grid_has_intervals_once_it_is_complete(storage: RDBStorage) -> None:
    study = make_study(storage, GRID, 6, sampler="grid")
    for number in range(5):
        end(study, claim(study), "finished", 0.5 + number / 100)
    unfinished = effects(study)
    assert unfinished.intervals_reason == "the grid is not complete"
    assert unfinished.missing == ("1 of 6 trials are still open, so that all of this may change",)
    end(study, claim(study), "finished", 0.9)
    found = effects(study)
    assert found.sampling == parameter(found, "model.dropout").sampling == "grid"
    assert found.intervals_reason is None
    assert found.missing == ()


def test_an_empty_study_has_effects_that_say_so(storage: RDBStorage) -> None:
    found = effects(make_study(storage, BALANCED, 3))
    assert found.importances.reason == "there are 0 completed trials, and at least 10 are needed"
    assert found.intervals_reason == "no trial has ended yet"
    assert (found.next, found.interactions, found.standard_error) == ((), (), None)
    assert all(one.trials == 0 and one.best is None for one in parameter(found, "optimizer.name").levels)


def test_effects_are_ready_for_json(balanced: SearchStudy) -> None:
    study = balanced
    told = json.loads(
        json.dumps(asdict(effects(study, confirmed("optimizer.name", *THREE))), allow_nan=False)
    )
    assert told["parameters"][0]["levels"][0]["confirmed"]["mean"] == 0.91
    assert told["importances"]["parameters"]
    assert told["interactions"][0]["cells"]


# importances


def test_the_importance_that_decides_is_first_in_nearly_all_resamples(free: SearchStudy) -> None:
    study = free
    found = resampled_importances(study.trials(), resamples=20)
    first = found.parameters[0]
    assert first.parameter == "optimizer.lr"
    assert first.first > 0.9
    assert sum(one.share for one in found.parameters) == pytest.approx(1)
    assert sum(one.mean for one in found.parameters) == pytest.approx(1)
    assert sum(one.first for one in found.parameters) == pytest.approx(1)
    assert {one.parameter: one.share for one in found.parameters} == importances(study.trials())
    assert (found.trials, found.best, found.reason) == (34, 4, None)
    assert all(0 < one.spread < 0.5 for one in found.parameters)


def in_memory(accuracy: Callable[[float, float], float], trials: int) -> optuna.Study:
    """A random search of two parameters."""
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda t: accuracy(t.suggest_float("x", 0, 1), t.suggest_float("y", 0, 1)), trials)
    return study


def test_importances_of_noise_are_unsteady() -> None:
    random = np.random.default_rng(0)
    found = resampled_importances(in_memory(lambda x, y: random.random(), 30).trials, resamples=20)
    assert max(one.first for one in found.parameters) < 0.95
    assert max(one.spread for one in found.parameters) > 0.05


def test_resampling_leaves_the_study_as_it_was() -> None:
    study = in_memory(lambda x, y: x, 12)
    before = [(trial._trial_id, trial.number, trial.value) for trial in study.get_trials()]
    once = resampled_importances(study.trials, resamples=10)
    assert [(trial._trial_id, trial.number, trial.value) for trial in study.get_trials()] == before
    assert resampled_importances(study.trials, resamples=10) == once


def test_the_spread_is_over_the_resamples_of_the_trials() -> None:
    study = in_memory(lambda x, y: x + 0.5 * y, 25)
    found = resampled_importances(study.trials, resamples=8)
    trials, random = study.get_trials(), np.random.default_rng(0)
    shares = []
    for _ in range(8):
        drawn = optuna.create_study(direction="maximize")
        drawn.add_trials([trials[index] for index in random.integers(0, 25, 25)])
        shares.append(optuna.importance.get_param_importances(drawn))
    for one in found.parameters:
        expected = [share[one.parameter] for share in shares]
        assert one.mean == pytest.approx(statistics.fmean(expected))
        assert one.spread == pytest.approx(statistics.stdev(expected))


def mixed(trial: optuna.Trial) -> float:
    """An accuracy of parameters from every kind of domain, some of which not all trials have."""
    kind = trial.suggest_categorical("kind", ["a", "b", None, True])
    rate = math.log(trial.suggest_float("rate", 1e-4, 1, log=True))
    step = trial.suggest_float("step", 0, 0.3, step=0.1)
    width = trial.suggest_int("width", 1, 1000, log=True) + trial.suggest_int("more", 0, 100, step=5)
    depth = trial.suggest_int("depth", 0, 500) + trial.suggest_float("fixed", 1, 1)
    domain = trial.suggest_float("two domains", 0, 1 if kind == "a" else 2) if kind in ("a", "b") else 0
    rare = trial.suggest_int("rare", 1, 3) if step > 0.25 else 0
    return 0.1 * rate + step * (kind is None) + domain + 0.01 * rare + width / 1e3 + depth / 1e4


@pytest.mark.parametrize("trials", [10, 33, 250])
def test_importances_are_those_of_optunas_evaluator(trials: int) -> None:
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=trials))
    study.optimize(mixed, trials)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of being experimental, and of parameters that few trials had
        expected = optuna.importance.get_param_importances(study)
    found = importances(study.trials)
    assert found == pytest.approx(expected, abs=1e-12)
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_there_are_no_importances_where_all_trials_are_alike(recwarn: pytest.WarningsRecorder) -> None:
    found = resampled_importances(in_memory(lambda x, y: 0.5, 12).trials, resamples=5)
    assert (found.parameters, found.reason) == ((), "the best trials cannot be told from the others")
    assert not recwarn.list


# interactions


def pair(found: Effects, row: str, column: str) -> Interaction:
    return next(i for i in found.interactions if (i.row_parameter, i.column_parameter) == (row, column))


def test_a_grid_shows_its_two_parameters_cell_by_cell(storage: RDBStorage) -> None:
    study = make_study(storage, GRID, 6, sampler="grid")
    numbers = itertools.count()
    run_all(study, lambda _: 0.5 + next(numbers) / 100)
    table = pair(effects(study), "model.normalization", "model.dropout")
    assert (table.rows, table.columns) == (("batch", "none"), ("0", "0.1", "0.2"))
    assert [[cell.trials for cell in row] for row in table.cells] == [[1] * 3] * 2
    cell = table.cells[1][1]  # slot 4 of the grid, whose last parameter changes fastest
    assert (cell.mean, cell.best) == pytest.approx((0.54, 0.54))


def test_each_options_own_learning_rates_are_shown_by_thirds_of_their_range(balanced: SearchStudy) -> None:
    study = balanced
    table = pair(effects(study), "optimizer.name", "optimizer.lr")
    assert table.rows == ("sgd", "adam", "rmsprop")
    assert table.columns == ("lower third", "middle third", "upper third")
    rates = [
        trial.params["optimizer.lr@adam"]
        for trial in study.trials()
        if trial.params["optimizer.name"] == "adam"
    ]
    lower = [rate for rate in rates if rate < 1e-4 * 10 ** (4 / 3)]
    assert table.cells[1][0].trials == len(lower)
    assert sum(cell.trials for cell in table.cells[1]) == 6


def test_a_shared_learning_rate_is_shown_beside_each_scientific_choice(free: SearchStudy) -> None:
    study = free
    table = pair(effects(study), "model.normalization", "optimizer.lr")
    assert table.columns == ("0.001 to 0.01", "0.01 to 0.1", "0.1 to 1")
    assert sum(cell.trials for row in table.cells for cell in row) == 34
    assert ("model.dropout", "optimizer.lr") not in {
        (one.row_parameter, one.column_parameter) for one in effects(study).interactions
    }


def test_a_pair_with_too_few_trials_is_left_out(storage: RDBStorage) -> None:
    study = make_study(storage, FREE, 5)
    run_all(study, by_rate)
    assert effects(study).interactions == ()


# what would settle it


def commands(found: Effects) -> list[str]:
    return [one.command for one in found.next]


def test_a_balanced_comparison_is_settled_by_confirming_each_level(balanced: SearchStudy) -> None:
    study = balanced
    assert commands(effects(study)) == ["cifar-search confirm s --per-level optimizer.name"]


def test_levels_not_distinguished_call_for_more_seeds_and_then_for_an_ablation(balanced: SearchStudy) -> None:
    study = balanced
    ablate = "cifar-search ablate s --seeds 3"
    found = effects(study, confirmed("optimizer.name", *THREE))
    assert commands(found) == ["cifar-search confirm s --per-level optimizer.name --seeds 6", ablate]
    assert "3 seed(s) left open: 1 of the levels of optimizer.name not" in found.next[0].why
    settled = confirmed("optimizer.name", THREE[0], THREE[2])
    assert commands(effects(study, settled)) == [ablate]
    exhausted = confirmed("optimizer.name", *THREE, blocks=20)
    assert commands(effects(study, exhausted)) == [ablate]
    of_trials = confirmed(None, *THREE)
    assert commands(effects(study, of_trials))[0] == "cifar-search confirm s --per-level optimizer.name"


def test_a_free_search_is_settled_by_its_finalists_and_an_ablation(storage: RDBStorage) -> None:
    study = make_study(storage, FREE, 4, name="it's mine")
    run_all(study, by_rate)
    quoted = "'it'\"'\"'s mine'"
    assert commands(effects(study)) == [
        f"cifar-search confirm {quoted} --top 5 --seeds 5",
        f"cifar-search ablate {quoted} --seeds 3",
    ]
    assert commands(effects(study, confirmed(None, *THREE))) == [
        f"cifar-search confirm {quoted} --top 3 --seeds 6",
        f"cifar-search ablate {quoted} --seeds 3",
    ]
    assert commands(effects(study, confirmed(None, THREE[0], THREE[2]))) == [
        f"cifar-search ablate {quoted} --seeds 3"
    ]


def test_a_grid_of_several_parameters_is_settled_by_its_best_points(storage: RDBStorage) -> None:
    study = make_study(storage, GRID, 6, sampler="grid")
    run_all(study, lambda values: 0.5 + values["model.dropout"])
    assert commands(effects(study))[0] == "cifar-search confirm s --top 5 --seeds 5"
    of_levels = confirmed("model.normalization", *(THREE[0], THREE[1]))
    assert commands(effects(study, of_levels))[0] == (
        "cifar-search confirm s --per-level model.normalization --seeds 6"
    )


def test_a_winner_that_is_the_base_has_nothing_to_take_apart(storage: RDBStorage) -> None:
    study = make_study(storage, FREE, 3)
    base = study.space.base_values
    study.optuna.enqueue_trial(base)
    run_all(study, lambda values: 0.9 if values == base else 0.5)
    assert study.optuna.best_params == base
    assert commands(effects(study)) == ["cifar-search confirm s --top 5 --seeds 5"]
