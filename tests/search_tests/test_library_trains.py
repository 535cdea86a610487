"""Every built-in space: configurations drawn from it build and train two steps, on images of its size."""

import optuna
import pytest
import torch

from search.training.engine import Run
from search.training.resident import ResidentData
from spaces.space import Space, built_in

CPU = torch.device("cpu")
FIT_DIGITS = (
    "regularization",
    "optimizer",
    "schedule",
    "ordering",
    "normalization",
    "activation",
    "noisy-labels",
)
"""Spaces whose networks fit images of 8x8 pixels with one channel."""


def images(side: int, channels: int, count: int = 48) -> ResidentData:
    """Random images of two pixels' contrast between ten classes, 32 to train and 16 to validate."""
    generator = torch.Generator().manual_seed(0)
    labels_N = torch.arange(count) % 10
    noise_NHWC = torch.randint(0, 200, (count, side, side, channels), generator=generator)
    return ResidentData(
        images_NHWC=(noise_NHWC + labels_N[:, None, None, None]).to(torch.uint8),
        labels_N=labels_N,
        train_indices=torch.arange(32),
        val_indices=torch.arange(32, count),
        mean_C=torch.full((channels,), 0.4),
        std_C=torch.full((channels,), 0.2),
        classes=tuple(str(k) for k in range(10)),
        hash="random",
    )


def small(space: Space) -> Space:
    """The space with two epochs of two small batches, and images as they are."""
    space = space.with_base({"training.epochs": 2}).without({"training.batch_size": 16})
    return space.with_base({"model.input_size": 32}) if space.name == "transfer" else space


def drawn(space: Space, count: int) -> list:
    """Configurations drawn at random, each at another level; none that would download weights."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    configurations = []
    while len(configurations) < count:
        configuration = space.configure(space.suggest(study.ask()))
        if (
            getattr(configuration.model, "pretrained", "none") == "none"
            and configuration not in configurations
        ):
            configurations.append(configuration)
    return configurations


def trains(configuration, data: ResidentData) -> None:
    run = Run(configuration, data, CPU, seed=0)
    before = [parameter.detach().clone() for parameter in run.network.parameters()]
    while not run.finished:
        report = run.train_epoch()
        assert 0 <= report.val_accuracy <= 1
    after = list(run.network.parameters())
    assert any(not torch.equal(b, a) for b, a in zip(before, after, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(built_in()))
def test_drawn_configurations_train_on_images_of_32_pixels(name):
    large = name in ("transfer", "alexnet", "architecture", "fast-94")
    for configuration in drawn(small(Space.load(name)), 1 if large else 3):
        trains(configuration, images(32, 3))


@pytest.mark.parametrize("name", FIT_DIGITS)
def test_drawn_configurations_train_on_images_of_8_pixels(name):
    space = small(Space.load(name)).without({"augmentation.flip": 0.0})
    for configuration in drawn(space, 2):
        trains(configuration, images(8, 1))
