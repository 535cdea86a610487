"""The phases of a training: learning classes, and before it, with supervised contrast, learning features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from search.training.optimizers import full_rate
from spaces.config import Configuration, SupervisedContrastive

PhaseName = Literal["features", "classes"]


@dataclass(frozen=True)
class Phase:
    """Consecutive epochs with one goal, an optimizer and averages of their own, and a run of the schedule."""

    name: PhaseName
    epochs: int
    lr: float
    """The learning rate where the schedule is at 1."""


def phases_of(config: Configuration) -> tuple[Phase, ...]:
    """The phases of a configuration's training, in order."""
    optimizer, epochs, batch_size = config.optimizer, config.training.epochs, config.training.batch_size
    rate = full_rate(optimizer, batch_size)
    if not isinstance(config.loss, SupervisedContrastive):
        return (Phase("classes", epochs, rate),)
    first = config.loss.feature_epochs(epochs)
    second = optimizer.model_copy(update={"lr": config.loss.classifier_lr or optimizer.lr})
    return Phase("features", first, rate), Phase("classes", epochs - first, full_rate(second, batch_size))
