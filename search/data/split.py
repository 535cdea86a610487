"""Which images train and which validate: stratified, decided by a seed alone, the same for every trial.

All sizes are cut from the front of one order, in which every class is spread evenly. So validation does not
depend on how many images train, and a smaller training subset is part of every larger one.

Shape suffixes: N images, M some of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.data.images import Labels

DEFAULT_SHARE = 0.1


@dataclass(frozen=True, eq=False)
class Split:
    """The images that train and those that validate, as sorted indices (int64)."""

    seed: int
    val_size: float | int | None
    """As it was asked for: a share, a count, or None for the default."""
    train_size: int | None
    """As it was asked for: a count, or None for all."""
    train_indices: Labels
    val_indices: Labels

    @property
    def hash(self) -> str:
        """16 hexadecimal digits that two splits share exactly when their images do."""
        parts = (self.train_indices, self.val_indices)
        return hashlib.sha256(b"|".join(part.astype("<i8").tobytes() for part in parts)).hexdigest()[:16]

    def describe(self) -> dict[str, Any]:
        """What a study records: plain data, without the indices."""
        return {
            "seed": self.seed,
            "val_size": self.val_size,
            "train_size": self.train_size,
            "train_images": len(self.train_indices),
            "val_images": len(self.val_indices),
            "hash": self.hash,
        }


def make_split(
    labels_N: Labels,
    n_train: int,
    val_size: float | int | None = None,
    train_size: int | None = None,
    seed: int = 0,
    classes: Sequence[str] | None = None,
) -> Split:
    """Split a data set's images into training and validation.

    Args:
        labels_N: class of every image, from 0.
        n_train: so many images, the first ones, may train; the rest are the own validation part, if any.
        val_size: a share of the training images (float between 0 and 1) or their number (int) to validate on,
            in place of the own validation part, which then is not used. None: the own part, or else 0.1.
        train_size: how many of the remaining images train; None: all.
        seed: decides the split, together with the labels and sizes.
        classes: their names, for messages.

    Returns:
        A split in which every class has at least one training and one validation image.

    Raises:
        ValueError: if the sizes do not leave that.
    """
    labels = labels_N[:n_train]
    if val_size is None and n_train < len(labels_N):
        val_indices, rest = np.arange(n_train, len(labels_N)), np.arange(n_train)
    else:
        val_indices, rest = _cut(labels, _count(val_size, labels), seed)
    return _divided(labels, val_indices, rest, (val_size, train_size, seed), classes)


def make_fold(
    labels_N: Labels,
    fold: int,
    folds: int,
    train_size: int | None = None,
    seed: int = 0,
    classes: Sequence[str] | None = None,
) -> Split:
    """Split a data set's images by K-fold cross-validation: every image validates in exactly one fold.

    Args:
        labels_N: class of every image, from 0.
        fold: the part that validates, from 0.
        folds: how many parts of equal size, each with its share of every class; both to within an image.
        train_size: how many of the other images train; None: all.
        seed: decides the parts.
        classes: their names, for messages.

    Raises:
        ValueError: if a class has too few images, or the sizes do not fit.
    """
    fewest = int(np.bincount(labels_N).min())
    if not 2 <= folds <= fewest:
        raise ValueError(f"--folds must be 2 to {fewest} (the images of the smallest class), but got {folds}")
    val_indices = np.lexsort((_noise(len(labels_N), seed, stream=0), labels_N))[fold::folds]
    rest = np.setdiff1d(np.arange(len(labels_N)), val_indices)
    return _divided(labels_N, val_indices, rest, (None, train_size, seed), classes)


def _divided(
    labels: Labels,
    val_indices: Labels,
    rest: Labels,
    asked: tuple[float | int | None, int | None, int],
    classes: Sequence[str] | None,
) -> Split:
    """The split of these validation images and a subset of the rest; ``asked``: validation and training size,
    seed."""
    val_size, train_size, seed = asked
    names = classes or [str(label) for label in range(int(labels.max()) + 1)]
    _every_class_trains(labels[rest], names)
    chosen = rest if train_size is None else rest[_subset(labels[rest], train_size, seed, len(names))]
    return Split(seed, val_size, train_size, np.sort(chosen), np.sort(val_indices))


def _cut(labels: Labels, count: int, seed: int) -> tuple[Labels, Labels]:
    order = _even_order(labels, seed, stream=0)
    return order[:count], np.sort(order[count:])


def _subset(labels: Labels, count: int, seed: int, n_classes: int) -> Labels:
    if not n_classes <= count <= len(labels):
        raise ValueError(
            f"--train-size must be at least one image for each of the {n_classes} classes, and at most the "
            f"{len(labels)} images that are left to train on, but got {count}"
        )
    return _even_order(labels, seed, stream=1)[:count]


def _count(val_size: float | int | None, labels: Labels) -> int:
    size = DEFAULT_SHARE if val_size is None else val_size
    if size <= 0 or (isinstance(size, float) and not size < 1):
        raise ValueError(
            f"--val-size must be a share between 0 and 1 or a whole number of images, but got {size}"
        )
    count = round(size * len(labels)) if isinstance(size, float) else size
    n_classes = len(np.unique(labels))
    if not n_classes <= count <= len(labels) - n_classes:
        raise ValueError(
            f"--val-size must leave an image of each of the {n_classes} classes to train on, and take one to "
            f"validate on, but got {size}: {count} of {len(labels)} images"
        )
    return count


def _every_class_trains(labels: Labels, classes: Sequence[str]) -> None:
    absent = np.flatnonzero(np.bincount(labels, minlength=len(classes)) == 0)
    if len(absent):
        raise ValueError(
            f"every class must have an image left to train on, but class {classes[absent[0]]!r} has none: "
            "give it more images, or choose a smaller --val-size"
        )


def _even_order(labels: Labels, seed: int, stream: int) -> Labels:
    """All indices, shuffled, in an order whose every beginning holds the classes in their proportions.

    The r-th image (from 0) of a class with n images comes at (r + 1/2) / n, which is Sainte-Laguë's way of
    sharing out seats; the first image of each class comes before all else, so that no class is left out.
    """
    noise_N = _noise(len(labels), seed, stream)
    by_class_N = np.lexsort((noise_N, labels))
    counts_K = np.bincount(labels)
    rank_N = np.arange(len(labels)) - np.repeat(np.cumsum(counts_K) - counts_K, counts_K)
    place_N = np.where(rank_N == 0, 0.0, (rank_N + 0.5) / np.repeat(counts_K, counts_K))
    return by_class_N[np.lexsort((noise_N[by_class_N], place_N))]


def _noise(count: int, seed: int, stream: int) -> NDArray[np.uint64]:
    # numpy promises that the raw numbers of a generator stay the same in later versions, not its shuffles
    noise_N: NDArray[np.uint64] = np.random.PCG64(np.random.SeedSequence([seed, stream])).random_raw(count)
    return noise_N
