"""What there is to know of a data set before anything is trained on it.

Shape suffixes: N images, M some of them, H height, W width, C channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.data.images import ImageData, Images, Labels
from search.data.split import Split

CHUNK = 2000


def channel_statistics(
    images_NHWC: Images, indices_M: Labels
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation (of the population) of each channel over the chosen images' pixels.

    Args:
        images_NHWC: uint8.
        indices_M: which images count.

    Returns:
        mean_C and std_C, float64, for pixels scaled to [0, 1]. Sums are of integers, hence exact.
    """
    channels = images_NHWC.shape[3]
    histogram_C256 = np.zeros((channels, 256), np.int64)
    for start in range(0, len(indices_M), CHUNK):
        chunk_NHWC = images_NHWC[indices_M[start : start + CHUNK]]
        for channel in range(channels):
            histogram_C256[channel] += np.bincount(chunk_NHWC[..., channel].ravel(), minlength=256)
    levels = np.arange(256) / 255
    share_C256 = histogram_C256 / histogram_C256.sum(axis=1, keepdims=True)
    mean_C = share_C256 @ levels
    variance_C = (share_C256 * (levels - mean_C[:, None]) ** 2).sum(axis=1)
    return mean_C, np.sqrt(variance_C)


def describe(data: ImageData, split: Split) -> dict[str, Any]:
    """Everything that ``cifar-search data`` shows, as plain data. Statistics are of the images that train."""
    _, height, width, channels = data.images_NHWC.shape
    mean_C, std_C = channel_statistics(data.images_NHWC, split.train_indices)
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
        "mean": mean_C.tolist(),
        "std": std_C.tolist(),
        "mirrors": data.mirrors,
        "converted": dict(data.converted),
        "hash": data.hash,
        "split": split.describe(),
    }


def _by_class(data: ImageData, indices_M: Labels) -> dict[str, int]:
    counts_K = np.bincount(data.labels_N[indices_M], minlength=len(data.classes))
    return dict(zip(data.classes, counts_K.tolist(), strict=True))
