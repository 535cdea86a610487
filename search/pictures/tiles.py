"""Sheets of small images: what was misclassified, and the filters of a first convolution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from search.pictures.canvas import INK, new_figure, plain_axes, save, short, title

MOST_WRONG = 40
MOST_FILTERS = 128
COLUMNS = 8


def draw_misclassified(
    images_NHWC: NDArray[np.uint8],
    true_N: NDArray[np.int64],
    predicted_N: NDArray[np.int64],
    probabilities_N: NDArray[np.float64],
    classes: Sequence[str],
    path: Path,
    heading: str,
) -> int:
    """Write the images that the network was most wrongly sure of, with true and predicted class.

    Args:
        images_NHWC: all images that were looked at, 1 or 3 channels.
        true_N, predicted_N: class of each.
        probabilities_N: of the predicted class, 0 to 1.
        classes: their names, drawn as they are; long ones are shortened.
        path: the PNG to write.
        heading: a title, drawn as it is.

    Returns:
        How many images are on it. With none there is no file.

    Raises:
        ValueError: if the file cannot be written.
    """
    wrong_M = np.flatnonzero(true_N != predicted_N)
    shown_M = wrong_M[np.argsort(-probabilities_N[wrong_M], kind="stable")][:MOST_WRONG]
    if not len(shown_M):
        return 0
    rows = -(-len(shown_M) // COLUMNS)
    figure = new_figure(1.3 * COLUMNS, 1.64 * rows + 0.65)
    for place, index in enumerate(shown_M.tolist(), start=1):
        true, predicted = (short(classes[label[index]], 12) for label in (true_N, predicted_N))
        words = f"{predicted} ({100 * probabilities_N[index]:.0f} %)\ntrue: {true}"
        _tile(figure, (rows, COLUMNS, place), images_NHWC[index] / 255, words)
    below = f"{len(shown_M)} of {len(wrong_M)} misclassified images among {len(true_N)}, the surest first"
    title(figure, heading, f"{below}: predicted class and its probability, then the true class")
    save(figure, path)
    return len(shown_M)


def draw_filters(filters_OCHW: NDArray[np.float32], path: Path, heading: str) -> None:
    """Write a first convolution's filters: in colour with three channels, else their first channel in grey.

    All filters share one scale, symmetric about zero, so that weak ones look weak.

    Args:
        filters_OCHW: output channels, input channels, height, width.
        path: the PNG to write.
        heading: a title, drawn as it is.

    Raises:
        ValueError: if the file cannot be written.
    """
    count, channels = filters_OCHW.shape[:2]
    shown_OCHW = filters_OCHW[:MOST_FILTERS]
    largest = float(np.abs(shown_OCHW).max()) or 1.0
    images_OHWC = (shown_OCHW / (2 * largest) + 0.5).transpose(0, 2, 3, 1)
    columns = min(16, max(8, math.ceil(math.sqrt(2 * len(shown_OCHW)))))
    rows = -(-len(shown_OCHW) // columns)
    figure = new_figure(0.62 * columns + 0.2, 0.62 * rows + 0.65)
    for place, image_HWC in enumerate(images_OHWC, start=1):
        _tile(figure, (rows, columns, place), image_HWC if channels == 3 else image_HWC[..., :1], "")
    height, width = filters_OCHW.shape[2:]
    kind = "red, green and blue together" if channels == 3 else "white is positive, black negative"
    below = f"{len(shown_OCHW)} of {count} filters of {width}x{height} pixels on one scale; grey is 0; {kind}"
    title(figure, heading, below)
    save(figure, path)


def _tile(figure: Figure, place: tuple[int, int, int], image_HWC: NDArray[np.float64], words: str) -> None:
    axes = figure.add_subplot(*place)
    grey = image_HWC.shape[2] == 1
    image = image_HWC[:, :, 0] if grey else image_HWC
    axes.imshow(np.clip(image, 0, 1), cmap="gray" if grey else None, vmin=0, vmax=1, interpolation="nearest")
    plain_axes(axes)
    if words:
        axes.set_xlabel(words, fontsize=7.5, color=INK, labelpad=2)
