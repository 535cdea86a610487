"""Learning curves: loss and accuracy after each epoch, of one training or of several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from search.pictures.canvas import INK, SOFT, TEN, new_figure, quiet_axes, save, title


@dataclass(frozen=True)
class Curves:
    """One training, an entry for each epoch; accuracies are 0 to 1. Values that are not finite are gaps."""

    train_loss: Sequence[float | None]
    train_accuracy: Sequence[float | None]
    val_loss: Sequence[float | None] = ()
    """Empty where nothing was held out."""
    val_accuracy: Sequence[float | None] = ()
    first_of_classes: int = 1
    """The first epoch that learnt classes; before it, with supervised contrast, features were learnt, by a
    loss of another kind."""


def draw_learning_curves(runs: Sequence[Curves], path: Path, heading: str, below: str = "") -> None:
    """Write loss (left) and accuracy (right) over epochs: a thin line for each run.

    Args:
        runs: one or more trainings.
        path: the PNG to write.
        heading, below: a title and a line under the picture, drawn as they are.

    Raises:
        ValueError: if the file cannot be written.
    """
    figure = new_figure(9, 3.6)
    losses, accuracies = figure.subplots(1, 2)
    for run in runs:
        _line(losses, run.train_loss, TEN[0], len(runs))
        _line(losses, run.val_loss, TEN[1], len(runs))
        _line(accuracies, [_percent(value) for value in run.train_accuracy], TEN[0], len(runs))
        _line(accuracies, [_percent(value) for value in run.val_accuracy], TEN[1], len(runs))
    for axes, name in ((losses, "loss"), (accuracies, "accuracy [%]")):
        quiet_axes(axes)
        axes.set_xlabel("epoch", fontsize=9, color=INK)
        axes.set_ylabel(name, fontsize=9, color=INK)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _mark_phase(axes, max(run.first_of_classes for run in runs))
    _name_lines(accuracies, any(run.val_accuracy for run in runs))
    title(figure, heading, below)
    save(figure, path)


def _line(axes: Axes, values: Sequence[float | None], colour: str, runs: int) -> None:
    if not values:
        return
    heights = [value if value is not None and math.isfinite(value) else math.nan for value in values]
    marker = "o" if len(values) == 1 else "none"
    width, alpha = (1.8, 1.0) if runs == 1 else (1.2, 0.7)
    axes.plot(range(1, len(values) + 1), heights, marker=marker, color=colour, lw=width, alpha=alpha)


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _mark_phase(axes: Axes, first: int) -> None:
    if first > 1:
        axes.axvline(first - 0.5, color=SOFT, lw=1, ls=":")
        place = axes.get_xaxis_transform()
        axes.text(first - 0.4, 1.0, "classes", transform=place, fontsize=8, color=SOFT, va="bottom")


def _name_lines(axes: Axes, validated: bool) -> None:
    axes.plot([], [], color=TEN[0], label="training (augmented images)")
    if validated:
        axes.plot([], [], color=TEN[1], label="validation (clean images)")
    axes.legend(fontsize=8, loc="lower right", labelcolor=INK, edgecolor="white", framealpha=0.9)
