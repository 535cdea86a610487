"""The images of a benchmark: decoded and divided once, so that every arm reads the same arrays.

Shapes: N images, H height, W width, C channels.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

    from search.training.resident import ResidentData

SYNTHETIC = "synthetic"
SEED = 0
"""Of the split, as of ``cifar-search run --seed 0``."""
SYNTHETIC_CLASSES = 10


@dataclass(frozen=True)
class Arrays:
    """Decoded images in memory, uint8, and their labels, int64."""

    train_images_NHWC: NDArray[np.uint8]
    train_labels_N: NDArray[np.int64]
    val_images_NHWC: NDArray[np.uint8]
    val_labels_N: NDArray[np.int64]
    mean_C: NDArray[np.float64]
    """Channel means and deviations of the training images, in [0, 1]."""
    std_C: NDArray[np.float64]

    @classmethod
    def read(cls, folder: Path) -> Arrays:
        """What ``prepare`` wrote there."""
        return cls(**{name: np.load(folder / f"{name}.npy") for name in cls.__dataclass_fields__})


def prepare(images: str, train_size: int | None, val_size: int | None, folder: Path) -> dict[str, Any]:
    """Decode, divide as the search command does, and write the arrays; return what the images are.

    Afterwards ``cifar-search`` finds the images decoded as well.
    """
    from search.data.describe import statistics_of
    from search.data.sources import DataRequest, load
    from search.data.split import make_split

    dataset = absolute(images)
    if images == SYNTHETIC:
        os.environ["CIFAR_SEARCH_DATA"] = str(folder / "cache")
        dataset = str(make_synthetic(folder / SYNTHETIC, (train_size or 0) + (val_size or 0)))
    data = load(DataRequest(dataset))
    split = make_split(data.labels_N, data.n_train, val_size, train_size, SEED, data.classes)
    train, val = split.train_indices, split.val_indices
    images_NHWC, labels_N = data.images_NHWC, data.labels_N
    statistics = [np.asarray(values) for values in statistics_of(data, train)]
    arrays = Arrays(images_NHWC[train], labels_N[train], images_NHWC[val], labels_N[val], *statistics)
    for name, array in vars(arrays).items():
        np.save(folder / f"{name}.npy", array)
    about = {"train_images": len(train), "val_images": len(val), "split": split.hash, "data": data.hash}
    return {"images": SYNTHETIC if images == SYNTHETIC else data.name, "dataset": dataset, **about}


def absolute(images: str) -> str:
    """A data set's name as it is; a folder by its full path, since the arms run in folders of their own."""
    from search.data.sources import SOURCES, DataRequest

    return images if images in (SYNTHETIC, *SOURCES) else str(DataRequest(images).folder)


def make_synthetic(folder: Path, count: int) -> Path:
    """A folder of random PNG files, 32x32 in colour: each class is a pattern under heavy noise."""
    from PIL import Image

    random = np.random.default_rng(SEED)
    patterns_KHWC = random.uniform(64, 192, (SYNTHETIC_CLASSES, 32, 32, 3))
    for number in range(-(-count // SYNTHETIC_CLASSES) * SYNTHETIC_CLASSES):
        label = number % SYNTHETIC_CLASSES
        pixels_HWC = patterns_KHWC[label] + random.normal(0, 80, (32, 32, 3))
        path = folder / "train" / str(label) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels_HWC.clip(0, 255).astype(np.uint8)).save(path)
    return folder


def resident(arrays: Arrays, device: torch.device) -> ResidentData:
    """The arrays as the engine wants them."""
    import torch

    from search.training.resident import ResidentData

    train, count = len(arrays.train_labels_N), len(arrays.train_labels_N) + len(arrays.val_labels_N)
    data = ResidentData(
        images_NHWC=torch.from_numpy(np.concatenate([arrays.train_images_NHWC, arrays.val_images_NHWC])),
        labels_N=torch.from_numpy(np.concatenate([arrays.train_labels_N, arrays.val_labels_N])),
        train_indices=torch.arange(train),
        val_indices=torch.arange(train, count),
        mean_C=torch.tensor(arrays.mean_C, dtype=torch.float32),
        std_C=torch.tensor(arrays.std_C, dtype=torch.float32),
        classes=tuple(str(label) for label in range(int(arrays.train_labels_N.max()) + 1)),
        hash=SYNTHETIC,
    )
    return data.to(device)
