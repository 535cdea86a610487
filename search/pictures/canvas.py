"""What all pictures share: an empty figure, text that cannot become markup, colours, and the saved file."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from spaces.text import plain_letters
from studies.files import whole

DPI = 120
INK, SOFT, FRAME = "#222222", "#6b6b6b", "#c8c8c8"
LONGEST_NAME = 14
"""Letters of a class name before it is shortened in its middle."""
TEN = (
    "#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd",
    "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf",
)  # fmt: skip
"""Colours of up to ten classes (matplotlib's "tab10")."""


def new_figure(width: float, height: float) -> Figure:
    """An empty white figure; sizes in inches, at ``DPI`` pixels each."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write the figure as a PNG, whole or not at all.

    Raises:
        ValueError: if it cannot be written.
    """
    try:
        with whole(path) as file, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from")  # then a box stands for the letter
            figure.savefig(file, format="png")
    except OSError as error:
        raise ValueError(f"{path}: the picture cannot be written ({error.strerror or error})") from None


def literal(text: str) -> str:
    """Text that matplotlib draws as it is: a ``$`` begins no formula, and it stays on one line."""
    return plain_letters(text, "\N{REPLACEMENT CHARACTER}").replace("$", r"\$")


def short(name: str, longest: int = LONGEST_NAME) -> str:
    """A name with its middle left out if it is long, to be drawn as it is."""
    if len(name) <= longest:
        return literal(name)
    kept = longest - 1
    return literal(f"{name[: (kept + 1) // 2]}…{name[len(name) - kept // 2 :]}")


def title(figure: Figure, text: str, below: str = "") -> None:
    """A title, and a line of smaller letters under the picture; both are drawn as they are, and are shortened
    to the figure's width."""
    width = figure.get_figwidth()
    left: dict[str, Any] = {"x": 0.01, "ha": "left"}
    figure.suptitle(short(text, int(9.5 * width)), fontsize=11, fontweight="bold", color=INK, **left)
    if below:
        figure.supxlabel(short(below, int(15 * width)), fontsize=8, color=SOFT, **left)


def plain_axes(axes: Axes) -> None:
    """No frame and no ticks: for images."""
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)


def quiet_axes(axes: Axes) -> None:
    """Only a left and a lower line, and a faint grid: for curves."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FRAME)
    axes.tick_params(colors=SOFT, labelsize=8)
    axes.grid(color=FRAME, linewidth=0.5, alpha=0.6)
    axes.set_axisbelow(True)


def class_colours(count: int) -> list[tuple[float, float, float, float] | str]:
    """A colour for each class: ten that are easily told apart, else from around a circle of hues."""
    if count <= len(TEN):
        return list(TEN[:count])
    hues = matplotlib.colormaps["turbo"]
    return [hues(index / (count - 1)) for index in range(count)]
