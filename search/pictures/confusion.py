"""The confusion matrix: which classes are taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from search.pictures.canvas import FRAME, INK, SOFT, new_figure, save, short, title

MOST_NAMED = 40
"""Classes up to which each row and column has its name."""
MOST_NUMBERED = 20
"""Classes up to which each cell has its number."""


def draw_confusion_matrix(
    counts_KK: NDArray[np.int64], classes: Sequence[str], path: Path, heading: str, below: str = ""
) -> None:
    """Write a matrix of percentages of each true class; correct ones lie on the diagonal.

    Args:
        counts_KK: images by true class (rows) and predicted class.
        classes: their names, drawn as they are; long ones are shortened.
        path: the PNG to write.
        heading, below: a title and a line under the picture, drawn as they are.

    Raises:
        ValueError: if the file cannot be written.
    """
    count = len(classes)
    side = float(np.clip(1.8 + 0.48 * count, 4.2, 11))
    figure = new_figure(side + 0.9, side)
    axes = figure.subplots()
    shares_KK = counts_KK / np.maximum(counts_KK.sum(axis=1, keepdims=True), 1)
    drawn = axes.imshow(100 * shares_KK, cmap="Blues", vmin=0, vmax=100)
    bar = figure.colorbar(drawn, ax=axes, fraction=0.045, pad=0.02)
    bar.set_label("% of the true class", fontsize=8, color=SOFT)
    bar.ax.tick_params(labelsize=8, colors=SOFT)
    bar.outline.set_visible(False)
    _name(axes, classes)
    if count <= MOST_NUMBERED:
        _number(axes, shares_KK)
    title(figure, heading, below)
    save(figure, path)


def _name(axes: Axes, classes: Sequence[str]) -> None:
    step = -(-len(classes) // MOST_NAMED)
    places = range(0, len(classes), step)
    names = [short(classes[place]) for place in places]
    size = 9 if len(classes) <= MOST_NUMBERED else 7
    axes.set_xticks(places, names, rotation=45, ha="right", rotation_mode="anchor", fontsize=size, color=INK)
    axes.set_yticks(places, names, fontsize=size, color=INK)
    axes.set_xlabel("predicted", fontsize=9, color=SOFT)
    axes.set_ylabel("true", fontsize=9, color=SOFT)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_color(FRAME)


def _number(axes: Axes, shares_KK: NDArray[np.float64]) -> None:
    for (row, column), share in np.ndenumerate(shares_KK):
        if share:
            text = f"{100 * share:.0f}" if share >= 0.095 else f"{100 * share:.1f}"
            colour = "white" if share > 0.55 else INK
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
