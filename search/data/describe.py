"""What there is to know of a data set before anything is trained on it.

Shape suffixes: N images, M some of them, H height, W width, C channels.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from search.data.images import ImageData, Labels
from search.data.split import Split

Statistics: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64]]
"""mean_C and std_C (of the population) of pixels scaled to [0, 1]. Rounded once: all sums are of integers."""


def statistics_of(data: ImageData, indices_M: Labels) -> Statistics:
    """Mean and standard deviation of each channel over the chosen images of a data set: no pixel is read."""
    _, height, width, _ = data.images_NHWC.shape
    pixels = len(indices_M) * height * width
    # integers of Python, which no square overflows and no difference cancels
    of_values, of_squares = data.sums_N2C[indices_M].sum(axis=0).tolist()
    variances = (pixels * q - s * s for s, q in zip(of_values, of_squares, strict=True))
    mean_C = np.array([s / (255 * pixels) for s in of_values])
    return mean_C, np.array([math.sqrt(v / (255 * pixels) ** 2) for v in variances])


def describe(data: ImageData, split: Split) -> dict[str, Any]:
    """Everything that ``cifar-search data`` shows, as plain data. Statistics are of the images that train."""
    _, height, width, channels = data.images_NHWC.shape
    mean_C, std_C = statistics_of(data, split.train_indices)
    return {
        "name": data.name,
        "height": height,
        "width": width,
        "channels": channels,
        "classes": list(data.classes),
        "images": len(data.labels_N),
        "train": _by_class(data, split.train_indices),
        "validation": _by_class(data, split.val_indices),
        "has_test": data.has_test,
        "test_fault": data.test_fault,
        "mean": mean_C.tolist(),
        "std": std_C.tolist(),
        "mirrors": data.mirrors,
        "converted": dict(data.converted),
        "left_out": dict(data.left_out),
        "notes": list(data.notes),
        "hash": data.hash,
        "split": split.describe(),
    }


def _by_class(data: ImageData, indices_M: Labels) -> dict[str, int]:
    counts_K = np.bincount(data.labels_N[indices_M], minlength=len(data.classes))
    return dict(zip(data.classes, counts_K.tolist(), strict=True))
