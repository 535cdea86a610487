"""Whether a training agrees with the recorded one that it repeats: to the last bit, or within a tolerance.

On CUDA, cuDNN may choose algorithms that add up in another order each time. The last bits then differ, the
differences grow over some hundred steps, and two trainings of one seed end as different networks of like
quality. How far apart these lie was measured by trainings on a CPU whose initial weights differed by 2^-24 to
2^-9 of their size (handwritten digits, and 2,000 images of CIFAR-10, with dropout and augmentation).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean

LossCurve = tuple[float | None, ...]
"""The training loss of every epoch; None where it was no finite number."""

ACCURACY_ERRORS = 3.0
"""Standard errors of a difference between two accuracies."""
LOSS_SHARE = 0.01
"""Of the loss: what does not grow smaller with more images."""
LOSS_ERRORS = 2.5
"""Times sqrt(loss / images), for one epoch. Unchanged trainings were seen up to 2.4 of these apart."""
MEAN_LOSS_ERRORS = 1.0
"""The same for the mean over many epochs. Unchanged trainings were seen up to 1.0 of these apart."""


@dataclass(frozen=True)
class Figures:
    """What a training came to, as far as it is compared."""

    accuracy: float
    """Validation accuracy, 0 to 1."""
    epoch: int
    """The epoch that the accuracy belongs to."""
    train_loss: LossCurve = ()
    """To five significant digits, as studies store it; empty: not known."""


@dataclass(frozen=True)
class Deviation:
    """A figure that is compared within a tolerance."""

    name: str
    recorded: float
    now: float | None
    """None: no finite number."""
    tolerance: float

    @property
    def share(self) -> float:
        """How much of the tolerance it takes up; above 1 it lies outside."""
        return math.inf if self.now is None else abs(self.now - self.recorded) / self.tolerance

    def __str__(self) -> str:
        if self.now is None:
            return f"{self.name} is no finite number and was {self.recorded:.5g}"
        return (
            f"{self.name} is {self.now:.5g} and was {self.recorded:.5g} "
            f"({self.now - self.recorded:+.2g}, tolerance {self.tolerance:.2g})"
        )


def must_be_exact(recorded_device: str, device: str, deterministic: bool) -> bool:
    """Whether all bits are promised to be the same: between CPUs, and elsewhere with
    ``training.deterministic``. Devices are as ``search.hardware.device_name`` calls them."""
    return deterministic or (recorded_device.startswith("CPU (") and device.startswith("CPU ("))


def same_bits(recorded: Figures, now: Figures) -> bool:
    """Whether accuracy and epoch are equal, and all digits that were recorded of the training losses."""
    known = not recorded.train_loss or recorded.train_loss == now.train_loss
    return known and (recorded.accuracy, recorded.epoch) == (now.accuracy, now.epoch)


def inequalities(recorded: Figures, now: Figures, val_images: int) -> list[str]:
    """What is not equal, for people: of the losses the first, since all that follow differ for its sake."""
    found = []
    if now.accuracy != recorded.accuracy:
        difference = now.accuracy - recorded.accuracy
        images = round(abs(difference) * val_images)
        found.append(f"{100 * difference:+.4f} points, {images} of {val_images} validation images")
    if now.epoch != recorded.epoch:
        found.append(f"the accuracy is that of epoch {now.epoch} and was that of {recorded.epoch}")
    for epoch, (before, after) in enumerate(zip(recorded.train_loss, now.train_loss, strict=False), start=1):
        if before != after:
            found.append(f"training losses differ from epoch {epoch} on ({after} now, recorded {before})")
            break
    if recorded.train_loss and len(now.train_loss) != len(recorded.train_loss):
        found.append(f"{len(now.train_loss)} epochs were trained and {len(recorded.train_loss)} recorded")
    return found


def accuracy_tolerance(accuracy: float, images: int) -> float:
    """Three standard errors of a difference of accuracies: 3 sqrt(2 p (1 - p) / images), above one image.

    That is the error of two independent samples. Two networks that are judged on the same images differ by
    less, in as far as they fail on the same ones; how far is not known, since predictions are not recorded.
    p is Laplace's (accuracy * images + 1) / (images + 2), which leaves room near 0 and 1.
    """
    p = (accuracy * images + 1) / (images + 2)
    return ACCURACY_ERRORS * math.sqrt(2 * p * (1 - p) / images)


def loss_tolerance(loss: float, images: int, epochs: int = 1) -> float:
    """How far a mean training loss may lie from the recorded one.

    It is 0.01 loss + k sqrt((loss + 1 / images) / images), with k = 2.5 for one epoch and
    max(1, 2.5 / sqrt(epochs)) for the mean over epochs. The losses of single images differ between the two
    networks, and their mean by less the more images there are; 1 / images leaves room where it is near 0.

    Args:
        loss: as recorded.
        images: that train in an epoch.
        epochs: over which the loss was averaged.
    """
    errors = max(MEAN_LOSS_ERRORS, LOSS_ERRORS / math.sqrt(epochs))
    return LOSS_SHARE * loss + errors * math.sqrt((loss + 1 / images) / images)


def deviations(
    recorded: Figures, now: Figures, *, val_images: int, train_images: int
) -> tuple[Deviation, ...]:
    """Accuracy, the training loss of each epoch that both have, and its mean over these epochs.

    They are meant to hold for at least 99 of 100 unchanged trainings, and held for all 1,665 pairs of 370 of
    them in seven settings; the furthest took up 0.89 of its tolerance. Trainings without augmentation always
    lay outside, those in other batches or at twice the learning rate in four of five pairs: not where these
    move the curve by no more than rounding does.
    """
    tolerance = accuracy_tolerance(recorded.accuracy, val_images)
    accuracy = Deviation("validation accuracy", recorded.accuracy, now.accuracy, tolerance)
    return accuracy, *_loss_deviations(recorded.train_loss, now.train_loss, train_images)


def _loss_deviations(recorded: LossCurve, now: LossCurve, images: int) -> Iterator[Deviation]:
    both = []
    for epoch, (before, after) in enumerate(zip(recorded, now, strict=False), start=1):
        if before is not None:
            name = f"training loss of epoch {epoch}"
            yield Deviation(name, before, after, loss_tolerance(before, images))
            if after is not None:
                both.append((before, after))
    if len(both) > 1:
        before, after = (fmean(losses) for losses in zip(*both, strict=True))
        name = f"mean training loss of {len(both)} epochs"
        yield Deviation(name, before, after, loss_tolerance(before, images, len(both)))
