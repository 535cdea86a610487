"""Observations on constructed curves, on noise, on stored trials, and on a network that does overfit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest
from optuna.trial import TrialState
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier
from test_summary import claim, end, make_study

from studies.observations import (
    Observation,
    improving,
    noise,
    not_learning,
    observe,
    overfitting,
    plateau,
    smoothed,
)  # fmt: skip
from studies.record import History, Outcome
from studies.storage import open_storage
from studies.study import SearchStudy

FALLING = [1.0 * 0.8**epoch for epoch in range(20)]
TURNING = [1.0 - 0.05 * epoch for epoch in range(10)] + [0.6 + 0.03 * epoch for epoch in range(10)]
"""Least in epoch 10."""


@pytest.fixture
def study(sqlite_url: str) -> Iterator[SearchStudy]:
    with closing(open_storage(sqlite_url, create=True)) as storage:
        yield make_study(storage, "s", 20)


def kinds(found: list[Observation]) -> list[str]:
    return [each.kind for each in found]


def test_overfitting_is_dated_from_the_epoch_after_the_least_validation_loss() -> None:
    [found] = overfitting(FALLING, TURNING)
    assert found.epoch == 11
    assert (
        found.text
        == "overfits from epoch 11: validation loss rises from 0.6 to 0.84 while training loss falls"
    )
    assert overfitting(FALLING, TURNING, before=5)[0].epoch == 16
    accuracy = [0.5] * 9 + [0.625] + [0.4] * 10
    assert "accuracy 62.5 % before, 40.0 % at the end" in overfitting(FALLING, TURNING, accuracy)[0].text


def test_overfitting_needs_falling_training_loss_a_real_rise_and_time() -> None:
    assert not overfitting(TURNING, TURNING)  # both rise: it only got worse
    assert not overfitting(FALLING, FALLING)
    assert not overfitting(FALLING, [0.6] * 10 + [0.62] * 10)  # 3 %
    assert overfitting(FALLING, [0.6] * 10 + [0.64] * 10)
    assert not overfitting(FALLING[:12], TURNING[:12])  # two epochs after the least
    assert not overfitting(FALLING[:4], [0.5, 1.0, 2.0, 3.0])
    assert not overfitting([], [])


def test_a_single_bad_epoch_is_no_overfitting_and_a_single_lucky_one_does_not_date_it() -> None:
    spike = [1.0 - 0.02 * epoch for epoch in range(20)]
    spike[14] = 5.0
    assert not overfitting(FALLING, spike)
    lucky = list(TURNING)
    lucky[3] = 0.1
    assert overfitting(FALLING, lucky)[0].epoch == 11


def test_what_comes_after_a_loss_that_is_no_number_is_not_judged() -> None:
    assert not overfitting(FALLING, [*TURNING[:11], None, *TURNING[12:]])
    assert overfitting(FALLING, [*TURNING[:19], None])


@pytest.mark.parametrize("epochs", [5, 15, 60])
@pytest.mark.parametrize("spread", [0.003, 0.05])
def test_noise_around_a_falling_or_level_loss_is_hardly_ever_called_overfitting(
    epochs: int, spread: float
) -> None:
    draw, epoch = np.random.default_rng(0), np.arange(epochs)
    wrong = 0
    for _ in range(500):
        val = 1 + np.exp(-5 * epoch / epochs) + spread * draw.standard_normal(epochs)
        wrong += bool(overfitting(list(np.exp(-epoch / epochs)), list(val)))
    assert wrong <= 2


def test_overfitting_is_found_in_spite_of_noise() -> None:
    draw = np.random.default_rng(0)
    found = [overfitting(FALLING, list(TURNING + 0.02 * draw.standard_normal(20))) for _ in range(200)]
    epochs = [each[0].epoch or 0 for each in found if each]
    assert len(epochs) >= 190
    assert 10 <= np.median(epochs) <= 12


def test_noise_is_the_standard_deviation_of_what_scatters_about_a_smooth_curve() -> None:
    draw = np.random.default_rng(0)
    line = np.linspace(0, 3, 4001)
    assert noise(list(line + 0.1 * draw.standard_normal(4001))) == pytest.approx(0.1, rel=0.05)
    assert noise(list(line)) == pytest.approx(0, abs=1e-12)
    assert noise([1.0, 2.0]) == 0


def test_smoothing_is_a_running_median_of_three() -> None:
    assert smoothed([1, 9, 2, 3, 0]) == [5, 2, 3, 2, 1.5]
    assert smoothed([]) == []


RISING = [0.1 + 0.03 * epoch for epoch in range(20)]
SATURATED = [min(0.1 + 0.1 * epoch, 0.6) for epoch in range(20)]


def test_a_rising_curve_is_still_improving_and_a_saturated_one_is_on_a_plateau() -> None:
    assert improving(RISING)[0].text == "still improving at the end: +12.0 points in the last 4 epochs"
    assert not plateau(RISING)
    assert not improving(SATURATED)
    assert plateau(SATURATED)[0] == Observation(
        "plateau", "plateau from epoch 6, within 0.5 points of 60.0 %", 6
    )


def test_a_loss_that_still_falls_is_an_improvement_too() -> None:
    loss = [2.0 - 0.05 * epoch for epoch in range(20)]
    text = "still improving at the end: validation loss fell by 0.2 in the last 4 epochs"
    assert improving(SATURATED, loss)[0].text == text
    assert not improving(SATURATED, [1.0] * 20)
    assert not improving(SATURATED, [*loss[:-1], None])


def test_an_improvement_says_when_the_learning_rate_ran_out() -> None:
    assert improving(RISING, (), [0.1] * 19 + [0.01])[0].text.endswith(", as the learning rate ran out")
    assert not improving(RISING, (), [0.1] * 19 + [0.02])[0].text.endswith("ran out")


def test_a_curve_that_falls_at_the_end_is_neither() -> None:
    falling = [*SATURATED[:15], 0.5, 0.4, 0.3, 0.2, 0.1]
    assert not improving(falling)
    assert not plateau(falling)


@pytest.mark.parametrize(
    ("curve", "rises"),
    [
        ([0.1, 0.2, 0.3], True),
        ([0.1, 0.2, 0.204], False),
        ([0.3, 0.2, 0.4], False),
        ([0.1], False),
        ([], False),
    ],
)
def test_in_a_few_epochs_every_one_must_improve(curve: list[float], rises: bool) -> None:
    assert kinds(improving(curve)) == ["still improving"] * rises
    assert not plateau(curve)


def test_a_curve_near_guessing_does_not_learn() -> None:
    assert not_learning([0.1, 0.13, 0.14], 10)[0].text == (
        "does not learn: at most 14.0 %, where guessing gives 10.0 %"
    )
    assert not not_learning([0.1, 0.17, 0.17], 10)
    assert not not_learning([0.1], 10)
    assert not_learning([0.5, 0.54], 2)
    assert not not_learning([0.5, 0.7], 2)


@pytest.mark.parametrize(
    ("reason", "outcome", "kind", "text"),
    [
        ("pruned", {}, "pruned", "pruned after epoch 4 at 50.0 %"),
        ("diverged", {}, "diverged", "diverged in epoch 4: the loss was no finite number"),
        ("out of memory", {"message": "a\nno memory\n"}, "failed", "failed (out of memory): no memory"),
        ("error", {"message": "Traceback\n  x\nKeyError: <b>"}, "failed", "failed (error): KeyError: <b>"),
        ("interrupted", {}, "failed", "failed (interrupted)"),
    ],
)
def test_how_a_stored_trial_ended_comes_first(study, reason, outcome, kind, text) -> None:  # type: ignore[no-untyped-def]
    end(study, claim(study), reason, epochs=4, **outcome)
    [found, *_] = observe(study.trials()[0], 2)
    assert (found.kind, found.text, found.epoch) == (kind, text, 4)


def test_a_trial_that_stopped_early_says_where_it_returned_to(study: SearchStudy) -> None:
    of = claim(study)
    for epoch, value in enumerate([0.2, 0.6, 0.6, 0.5, 0.5, 0.5, 0.5, 0.5], 1):
        of.trial.report(value, epoch)
    history = History(train_loss=tuple(FALLING[:8]), val_loss=(1.0, 0.5, 0.5, 0.6, 0.7, 0.8, 0.8, 0.8))
    study.close(
        of.trial_id,
        state=TrialState.COMPLETE,
        outcome=Outcome(reason="stopped early", epoch=2),
        history=history,
        value=0.6,
    )
    found = observe(study.trials()[0], 2)
    assert kinds(found) == ["stopped early", "overfits"]
    assert found[0].text == "stopped early after epoch 8, and returned to epoch 2"
    assert found[1].epoch == 3


def test_running_and_lost_trials_have_their_word(study: SearchStudy) -> None:
    running = claim(study)
    assert observe(study.trials()[0], 2)[0].text == "running at epoch 0"
    study.optuna.tell(
        running.trial.number, state=TrialState.FAIL
    )  # by another program, which leaves no outcome
    assert observe(study.trials()[0], 2)[0].text == "failed (lost)"


def test_a_training_in_two_phases_is_judged_by_its_second(study: SearchStudy) -> None:
    of = claim(study)
    setup = study.trials()[0].user_attrs["setup"]
    loss = {"name": "supervised-contrastive", "pretraining": 0.5}
    setup["configuration"] |= {"loss": loss, "training": setup["configuration"]["training"] | {"epochs": 40}}
    study.storage.set_trial_user_attr(of.trial_id, "setup", setup)
    for epoch, value in enumerate([0.9] * 20 + SATURATED, 1):
        of.trial.report(value, epoch)
    history = History(train_loss=(9.0,) * 20 + tuple(FALLING), val_loss=(0.01,) * 20 + tuple(TURNING))
    study.close(of.trial_id, TrialState.COMPLETE, Outcome(reason="finished", epoch=40), history, 0.6)
    found = observe(study.trials()[0], 10)
    assert [(each.kind, each.epoch) for each in found] == [("overfits", 31), ("plateau", 26)]


def test_a_real_network_overfits_noise_and_does_not_overfit_digits() -> None:
    """Curves of scikit-learn's own network, trained on 200 digits, once with labels drawn at random."""
    images, labels = load_digits(return_X_y=True)
    shuffled = np.random.default_rng(0).permutation(labels)
    assert kinds(real_curves(images / 16, shuffled)) == ["overfits"]
    assert kinds(real_curves(images / 16, labels)) == []


def real_curves(images_ND: np.ndarray, labels_N: np.ndarray) -> list[Observation]:
    """What is observed on forty epochs with the first 200 examples, validated on the next 500."""
    train, val = slice(0, 200), slice(200, 700)
    network = MLPClassifier((64,), learning_rate_init=0.005, batch_size=50, random_state=0)
    losses: dict[str, list[float]] = {"train": [], "val": []}
    for _ in range(40):
        network.partial_fit(images_ND[train], labels_N[train], classes=np.arange(10))
        for name, part in (("train", train), ("val", val)):
            chances_NK = network.predict_proba(images_ND[part])
            of_label_N = chances_NK[np.arange(len(chances_NK)), labels_N[part]]
            losses[name].append(float(-np.log(np.maximum(of_label_N, 1e-9)).mean()))
    return overfitting(losses["train"], losses["val"])
