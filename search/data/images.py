"""The values that pass between a source of images, the cache and those who train.

Shape suffixes: N images, H height, W width, C channels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Which: TypeAlias = Literal["train", "test"]
"""train: the training images, then the data set's own validation images, if any; test: the test images."""
Images: TypeAlias = NDArray[np.uint8]
Labels: TypeAlias = NDArray[np.int64]
Sums: TypeAlias = NDArray[np.int64]
Chunk: TypeAlias = tuple[Images, Counter[str]]
"""Some images_NHWC in order, and how many of them were converted to RGB, by the mode they had."""
Progress: TypeAlias = Callable[[int, int], None]
"""Called with the number of images done and the number of all."""


@dataclass(frozen=True, eq=False)
class ImageData:
    """One part of a data set, decoded and mapped into memory."""

    name: str
    """``cifar10``, or the name of the folder."""
    classes: tuple[str, ...]
    """Names of the classes, in the order of the labels."""
    images_NHWC: Images
    """uint8, 0 to 255. Mapped copy-on-write from the cache: processes share it, and none can change it."""
    labels_N: Labels
    """Index of each image's class."""
    sums_N2C: Sums
    """Of each image and channel the sum of the pixels and the sum of their squares (``channel_sums``)."""
    n_train: int
    """The first n_train images are for training; the rest are the data set's own validation part. 0 for a
    test part."""
    mirrors: bool
    """Whether an image mirrored left to right still belongs to its class."""
    hash: str
    """SHA-256 of images, labels and classes in hexadecimal, made when the cache was built."""
    converted: Mapping[str, int]
    """How many images were converted to RGB, by the mode they had (``{"L": 3}``: three grey ones)."""
    has_test: bool
    """Whether the data set has a test part that can serve, as far as the names of its folders tell."""
    paths: tuple[str, ...]
    """Each image's path in its folder, such as ``train/airplane/0000.jpg``; empty unless it is a folder."""
    test_fault: str = ""
    """Why the test part that is there cannot serve: one line. Empty if it can, or there is none."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """How many files of a folder were not read, by the suffix of their names (``{".gif": 3, "": 1}``)."""
    notes: tuple[str, ...] = ()
    """Lines for people on what lies in a folder and was not read."""


@dataclass(frozen=True)
class Contents:
    """A part of a data set that is about to be cached. Chunks are made as they are taken."""

    classes: tuple[str, ...]
    shape_NHWC: tuple[int, int, int, int]
    labels_N: Labels
    n_train: int
    mirrors: bool
    chunks: Iterable[Chunk]
    paths: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """A part of a data set that has been found, and not been read."""

    name: str
    identity: str
    """Differs whenever the contents may differ: the cache is found by it."""
    has_test: bool
    contents: Callable[[], Contents]
    """Reads the part; called only if it is not in the cache."""
    test_fault: str = ""
    left_out: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def channel_sums(images_NHWC: Images) -> Sums:
    """For each image and channel the sum of the pixels and the sum of their squares: sums_N2C, exact."""
    squares_NHWC = np.square(images_NHWC, dtype=np.uint16)
    # rows before columns: several times as fast as both at once
    return np.stack([pixels.sum(1, np.int64).sum(1) for pixels in (images_NHWC, squares_NHWC)], axis=1)


def one_line(error: object) -> str:
    """What an error says, on one line."""
    return " ".join(str(error).split()) or type(error).__name__
