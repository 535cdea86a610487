"""What agrees within a tolerance: by numbers, and by trainings that differ by rounding or by a setting."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch

from search.data.request import DataRequest
from search.data.sources import load
from search.data.split import make_split
from search.objective import history_of
from search.retraining.agreement import (
    Deviation,
    Figures,
    accuracy_tolerance,
    deviations,
    inequalities,
    loss_tolerance,
    must_be_exact,
    same_bits,
)
from search.training.engine import Run
from search.training.resident import ResidentData, make_resident
from spaces.config import Configuration

CPU = torch.device("cpu")
RECORDED = Figures(0.9, 3, (2.0, 1.0, 0.5))


@pytest.mark.parametrize(
    ("recorded", "now", "deterministic", "exact"),
    [
        ("CPU (x86_64)", "CPU (x86_64)", False, True),
        ("CPU (x86_64)", "CPU (arm64)", False, True),
        ("NVIDIA H100", "NVIDIA H100", False, False),
        ("NVIDIA H100", "NVIDIA H100", True, True),
        ("CPU (x86_64)", "NVIDIA H100", False, False),
        ("NVIDIA H100", "CPU (x86_64)", False, False),
        ("", "NVIDIA H100", False, False),
    ],
)
def test_bits_are_promised_between_cpus_and_by_the_setting(recorded, now, deterministic, exact):
    assert must_be_exact(recorded, now, deterministic) == exact


@pytest.mark.parametrize(
    ("now", "same"),
    [
        (Figures(0.9, 3, (2.0, 1.0, 0.5)), True),
        (Figures(math.nextafter(0.9, 1), 3, (2.0, 1.0, 0.5)), False),
        (Figures(0.9, 2, (2.0, 1.0, 0.5)), False),
        (Figures(0.9, 3, (2.0, 1.0, 0.50001)), False),
        (Figures(0.9, 3, (2.0, 1.0)), False),
    ],
)
def test_the_same_is_the_same_in_every_digit(now, same):
    assert same_bits(RECORDED, now) == same
    assert same_bits(Figures(0.9, 3), Figures(0.9, 3, (1.0, 2.0, 3.0)))


def test_the_accuracys_tolerance_is_three_errors_of_a_difference_and_more_than_an_image():
    assert accuracy_tolerance(0.8, 10_000) == pytest.approx(3 * math.sqrt(2 * 0.16 / 10_000), rel=1e-3)
    for images, accuracy in itertools.product([1, 10, 144, 10_000], [0.0, 0.5, 1.0]):
        assert accuracy_tolerance(accuracy, images) > 1 / images


def test_the_losss_tolerance_grows_with_the_loss_and_falls_with_images_and_epochs():
    assert loss_tolerance(1.0, 900) == pytest.approx(0.01 + 2.5 / 30, rel=1e-3)
    assert loss_tolerance(4.0, 900) == pytest.approx(0.04 + 5 / 30, rel=1e-3)
    assert loss_tolerance(1.0, 90_000) == pytest.approx(0.01 + 2.5 / 300, rel=1e-3)
    assert loss_tolerance(1.0, 900, epochs=4) == pytest.approx(0.01 + 1.25 / 30, rel=1e-3)
    assert loss_tolerance(1.0, 900, epochs=100) == pytest.approx(0.01 + 1 / 30, rel=1e-3)
    assert loss_tolerance(0.0, 900) == pytest.approx(2.5 / 900)


def outside(now: Figures, recorded: Figures = RECORDED) -> list[str]:
    found = deviations(recorded, now, val_images=100, train_images=900)
    return [str(deviation) for deviation in found if deviation.share > 1]


def test_what_lies_outside_is_named_with_its_epoch_and_by_how_much():
    assert outside(RECORDED) == []
    assert outside(Figures(0.8, 3, RECORDED.train_loss)) == []
    (accuracy,) = outside(Figures(0.7, 3, RECORDED.train_loss))
    assert accuracy == "validation accuracy is 0.7 and was 0.9 (-0.2, tolerance 0.13)"
    (loss,) = outside(Figures(0.9, 3, (2.0, 1.094, 0.5)))
    assert loss == "training loss of epoch 2 is 1.094 and was 1 (+0.094, tolerance 0.093)"
    assert outside(Figures(0.9, 3, (2.0, 1.092, 0.5))) == []
    assert outside(Figures(0.9, 3, (2.0, None, 0.5))) == [
        "training loss of epoch 2 is no finite number and was 1"
    ]


def test_a_small_difference_that_lasts_lies_outside_of_the_means_tolerance():
    flat = Figures(0.9, 10, (1.0,) * 10)
    assert outside(Figures(0.9, 10, (1.07,) * 10), flat) == [
        "mean training loss of 10 epochs is 1.07 and was 1 (+0.07, tolerance 0.043)"
    ]
    assert outside(Figures(0.9, 10, (1.07, 0.93) * 5), flat) == []


def test_without_recorded_losses_the_accuracy_alone_is_compared():
    found = deviations(Figures(0.9, 3), RECORDED, val_images=100, train_images=900)
    assert [deviation.name for deviation in found] == ["validation accuracy"]
    assert Deviation("loss", 0.0, 0.0, loss_tolerance(0.0, 900)).share == 0


OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4},
    "adam": {"name": "adam", "lr": 2e-3},
}
AUGMENTED = {"shift": 1}


def configuration(optimizer: dict[str, Any], augmentation: dict[str, Any], batch_size: int) -> Configuration:
    return Configuration.read(
        {
            "model": {
                "name": "vgg", "widths": [16, 32], "convolutions": 1, "head": 32, "dropout": 0.2,
                "normalization": "batch",
            },
            "augmentation": augmentation,
            "optimizer": optimizer,
            "training": {"epochs": 12, "batch_size": batch_size},
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> ResidentData:
    """800 handwritten digits to train, 300 to validate."""
    data = load(DataRequest("digits", tmp_path_factory.mktemp("data")))
    return make_resident(data, make_split(data.labels_N, data.n_train, 300, 800, 0, data.classes), CPU)


def rounded_training(config: Configuration, data: ResidentData, seed: int, noise: int) -> Figures:
    """A training whose initial weights differ by rounding: by 2^-24 to 2^-9 of each, as ``noise`` says."""
    run = Run(config, data, CPU, seed)
    generator = torch.Generator().manual_seed(noise)
    size = 2.0 ** -(9, 12, 16, 20, 24)[noise % 5]
    with torch.no_grad():
        for parameter in run.network.parameters():
            parameter.mul_(1 + size * torch.randn(parameter.shape, generator=generator))
    while not run.finished:
        run.train_epoch()
    result = run.finish()
    return Figures(result.value, result.epoch, history_of(run.history).train_loss)


def agrees(recorded: Figures, now: Figures) -> bool:
    found = deviations(recorded, now, val_images=300, train_images=800)
    return max(deviation.share for deviation in found) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_training_that_differs_by_rounding_agrees_and_one_with_other_settings_does_not(name, digits):
    unchanged = configuration(OPTIMIZERS[name], AUGMENTED, 32)
    doubled = OPTIMIZERS[name] | {"lr": 2 * OPTIMIZERS[name]["lr"]}
    changed = {
        "twice the learning rate": configuration(doubled, AUGMENTED, 32),
        "no augmentation": configuration(OPTIMIZERS[name], {}, 32),
        "larger batches": configuration(OPTIMIZERS[name], AUGMENTED, 64),
    }
    within, told_apart = [], {what: [] for what in changed}
    for seed in range(3):
        repeats = [rounded_training(unchanged, digits, seed, noise) for noise in range(6)]
        assert len({repeat.train_loss for repeat in repeats}) == 6, "rounding has an effect"
        within += [agrees(*pair) for pair in itertools.permutations(repeats, 2)]
        for what, config in changed.items():
            other = rounded_training(config, digits, seed, 0)
            told_apart[what] += [not agrees(repeat, other) for repeat in repeats]
    assert sum(within) >= 0.99 * len(within)
    shares = {what: sum(told) / len(told) for what, told in told_apart.items()}
    assert min(shares["no augmentation"], shares["larger batches"]) == 1
    # under SGD and batch normalization, twice the rate of so short a training moves the curve by little
    assert shares["twice the learning rate"] >= (1 if name == "adam" else 0.5)


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (Figures(0.52, 3, (2.0, 1.5, 1.0)), ["+2.0000 points, 2 of 100 validation images"]),
        (Figures(0.5, 2, (2.0, 1.5, 1.0)), ["the accuracy is that of epoch 2 and was that of 3"]),
        (
            Figures(0.5, 3, (2.0, 1.4, 0.9)),
            ["training losses differ from epoch 2 on (1.4 now, recorded 1.5)"],
        ),
        (Figures(0.5, 3, (2.0, 1.5)), ["2 epochs were trained and 3 recorded"]),
        (Figures(0.5, 3, (2.0, 1.5, 1.0)), []),
    ],
)
def test_each_inequality_is_named_and_no_other(now: Figures, words: list[str]) -> None:
    recorded = Figures(0.5, 3, (2.0, 1.5, 1.0))
    assert inequalities(recorded, now, val_images=100) == words
    assert same_bits(recorded, now) == (not words)
