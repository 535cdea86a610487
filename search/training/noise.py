"""Wrong labels for training images, drawn or read from a table, and the images on which to watch them.

Every image's draw is its own and depends on the seed alone: the same image gets the same label whatever the
split and the number of training images, and a higher rate adds wrong labels to those of a lower one.

Shapes: N images of the data set, M some of them, K classes.
"""

from __future__ import annotations

import csv
import gzip
import lzma
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from search.training.resident import ResidentData
from spaces import config
from spaces.text import unknown

Labels: TypeAlias = NDArray[np.int64]

CIFAR10_PAIRS = {
    "truck": "automobile",
    "bird": "airplane",
    "deer": "horse",
    "cat": "dog",
    "dog": "cat",
}
"""Patrini et al. 2017 (arXiv:1609.03683), section 5: classes that people confuse; the others keep theirs."""

NOT_THE_SPLIT = 1
"""Sets the draws apart from those of ``search.data.split``, which would decide both with equal seeds."""

WATCHED = 1000
"""At most so many wrongly labelled training images are followed through the epochs."""


def with_noise(section: config.Data, data: ResidentData) -> ResidentData:
    """The same data with the labels that training is given: worse for the images that train, and for those
    that validate only if ``noisy_validation``.

    Raises:
        ValueError: for a table of labels that does not fit the data.
    """
    if section.noise == "none":
        return data
    affected_M = data.train_indices.cpu().numpy()
    if section.noisy_validation:
        affected_M = np.concatenate([affected_M, data.val_indices.cpu().numpy()])
    labels_N = data.labels_N.cpu().numpy().copy()
    labels_N[affected_M] = _given(section, data, labels_N, affected_M)
    return replace(data, labels_N=torch.from_numpy(labels_N).to(data.device))


def watched_images(given: ResidentData, true_labels_N: Tensor) -> Tensor:
    """Up to ``WATCHED`` training images whose given label is wrong, spread evenly, as indices_M."""
    wrong = given.labels_N[given.train_indices] != true_labels_N[given.train_indices]
    wrong_M = given.train_indices[wrong]
    chosen = np.linspace(0, len(wrong_M) - 1, min(len(wrong_M), WATCHED)).round().astype(np.int64)
    return wrong_M[torch.from_numpy(chosen).to(given.device)]


def _given(section: config.Data, data: ResidentData, true_N: Labels, affected_M: Labels) -> Labels:
    if section.noise == "symmetric":
        return symmetric(true_N, len(data.classes), section.noise_rate, section.noise_seed)[affected_M]
    if section.noise == "asymmetric":
        return asymmetric(true_N, data.classes, section.noise_rate, section.noise_seed)[affected_M]
    if not data.paths:
        raise ValueError("data.noise: a file of labels needs images from a folder, whose paths it can name")
    return table_labels(
        Path(section.noise_file),
        section.noise_column,
        [data.paths[index] for index in affected_M.tolist()],
        data.classes,
    )


def symmetric(true_N: Labels, classes: int, rate: float, seed: int) -> Labels:
    """With probability ``rate`` (0 to 1) one of the other classes, all equally likely."""
    others_N = _raw(seed, len(true_N), stream=1) % np.uint64(classes - 1)
    wrong_N = (true_N + 1 + others_N.astype(np.int64)) % classes
    return np.where(_uniform(seed, len(true_N)) < rate, wrong_N, true_N)


def asymmetric(true_N: Labels, classes: Sequence[str], rate: float, seed: int) -> Labels:
    """With probability ``rate`` (0 to 1) the class that its own is confused with.

    That is by CIFAR-10's pairs if the data have those classes, else the next class, and the first after the
    last (pair flipping, Han et al. 2018, arXiv:1804.06872).
    """
    wrong_N = _confused_with(classes)[true_N]
    return np.where(_uniform(seed, len(true_N)) < rate, wrong_N, true_N)


def _confused_with(classes: Sequence[str]) -> Labels:
    names = set(CIFAR10_PAIRS) | set(CIFAR10_PAIRS.values())
    if not names <= set(classes):
        return (np.arange(len(classes)) + 1) % len(classes)
    return np.array([classes.index(CIFAR10_PAIRS.get(name, name)) for name in classes])


def table_labels(file: Path, column: str, paths: Sequence[str], classes: Sequence[str]) -> Labels:
    """The labels that a CSV file gives to images, found by its column ``path``; .gz and .xz are unpacked.

    Raises:
        ValueError: if the file cannot be read, lacks the column or an image, or names an unknown class.
    """
    named = _read_table(file, column)
    index = {name: label for label, name in enumerate(classes)}
    labels = np.empty(len(paths), np.int64)
    for position, path in enumerate(paths):
        name = _look_up(named, path, file)
        if name not in index:
            raise ValueError(f"data.noise_file: {file}: {path}: {unknown('class', name, classes)}")
        labels[position] = index[name]
    return labels


def _look_up(named: Mapping[str, str], path: str, file: Path) -> str:
    if path not in named:
        raise ValueError(f"data.noise_file: {file} must have a row for every image, but lacks {path}")
    return named[path]


def _read_table(file: Path, column: str) -> dict[str, str]:
    """path -> what stands in the column."""
    try:
        with _opened(file) as lines:
            rows = csv.reader(lines)
            header = next(rows, [])
            for needed in ("path", column):
                if needed not in header:
                    raise ValueError(f"data.noise_file: {file}: {unknown('column', needed, header)}")
            at_path, at_column = header.index("path"), header.index(column)
            return {row[at_path]: row[at_column] for row in rows if len(row) == len(header)}
    except (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"data.noise_file: {file} cannot be read: {error}") from None


def _opened(file: Path) -> IO[str]:
    if file.suffix == ".xz":
        return lzma.open(file, "rt", encoding="utf-8", newline="")
    if file.suffix == ".gz":
        return gzip.open(file, "rt", encoding="utf-8", newline="")
    return file.open(encoding="utf-8", newline="")


def _uniform(seed: int, count: int) -> NDArray[np.float64]:
    """Uniform in [0, 1), one for each image."""
    return (_raw(seed, count, stream=0) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _raw(seed: int, count: int, stream: int) -> NDArray[np.uint64]:
    # numpy promises that the raw numbers of a generator stay the same in later versions, not its choices
    sequence = np.random.SeedSequence([seed, stream], spawn_key=(NOT_THE_SPLIT,))
    return np.random.PCG64(sequence).random_raw(count)
