"""What a run tells: after every epoch, and at its end."""

from __future__ import annotations

import math
from dataclasses import dataclass

from search.training.phases import PhaseName
from search.training.steplog import Point


@dataclass(frozen=True)
class EpochReport:
    """What is known after an epoch. Training figures are of the augmented batches, while weights changed.

    An epoch that learns features reports the contrastive loss, the share of views whose nearest view of
    another image is of their class, and the validation accuracy and loss of votes by nearest neighbours.
    """

    epoch: int
    """Epochs trained so far, from 1."""
    train_loss: float
    train_accuracy: float
    """Share of augmented images whose heaviest label was predicted."""
    val_loss: float
    """Cross-entropy without label smoothing, on clean images."""
    val_accuracy: float
    lr: float
    """The learning rate of the epoch's last step."""
    seconds: float
    """Training and validation together."""
    images_per_second: float
    """Images trained on, over the time of training alone."""
    phase: PhaseName = "classes"
    """What the epoch learnt."""
    memorized: float | None = None
    """Of training images whose given label is wrong, the share for which it is predicted (clean images)."""
    corrected: float | None = None
    """Of the same images, the share for which the true label is predicted. None where no label is wrong."""
    steps: tuple[Point, ...] = ()
    """Points of ``training.log_every`` that this epoch completed."""

    @property
    def diverged(self) -> bool:
        """Whether a loss is no longer a finite number."""
        return not (math.isfinite(self.train_loss) and math.isfinite(self.val_loss))


@dataclass(frozen=True)
class Result:
    """What a run came to."""

    value: float
    """Validation accuracy (0 to 1) of the last epoch, or of the one that early stopping returned to."""
    epoch: int
    """The epoch that ``value`` belongs to."""
    best_accuracy: float
    best_epoch: int
    """The highest validation accuracy on the way and its epoch: for the record, never the value."""
    tta_accuracy: float | None = None
    """Validation accuracy of the same weights with test-time augmentation; None where it is off."""


def last_phase(history: list[EpochReport]) -> list[EpochReport]:
    """The reports that can be compared with the last one: those of its phase."""
    return [report for report in history if report.phase == history[-1].phase]
