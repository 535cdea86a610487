"""How all figures look: a palette that colour-blind people can tell apart, and print that is readable.

Palette: Okabe and Ito (2008), Color Universal Design, without the yellow, which white paper swallows.
"""

from __future__ import annotations

import html
import textwrap
from typing import Any

import plotly.graph_objects as go

from spaces.text import plain_letters

BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000",
)  # fmt: skip
PALETTE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
GREY, PALE = "#8a8a8a", "#c4c4c4"
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid")
"""Beside the colours, for print in grey."""
WIDTH = 900
"""Pixels of an exported picture; on a page a figure is as wide as the page."""
_TITLE_WIDTH, _LONGEST_LABEL = 88, 40
"""Characters; so many of a title fit the width of a printed page."""


def plain(text: object) -> str:
    """Text that plotly shows literally."""
    return html.escape(plain_letters(str(text)), quote=False)


def short(text: object, longest: int = _LONGEST_LABEL) -> str:
    """Text as a label: literally, and cut where it is long."""
    line = str(text)
    return plain(line if len(line) <= longest else f"{line[: longest - 1]}…")


def new_figure(title: str, height: int, x: str = "", y: str = "", **layout: Any) -> go.Figure:
    """An empty figure.

    Args:
        title: as it is to be read; it is escaped here.
        height: in pixels.
        x: title of the horizontal axis, with its unit.
        y: title of the vertical axis, with its unit.
        layout: further settings of plotly's layout.
    """
    lines = [plain(line) for line in textwrap.wrap(title, _TITLE_WIDTH)]
    top = 34 + 20 * len(lines)
    figure = go.Figure()
    figure.update_layout(
        template="plotly_white",
        colorway=list(PALETTE),
        font={"family": "Helvetica, Arial, 'DejaVu Sans', sans-serif", "size": 13, "color": "#1a1a1a"},
        title={
            "text": "<br>".join(lines), "font": {"size": 15}, "x": 0, "xanchor": "left", "y": 1,
            "yanchor": "top", "yref": "container", "pad": {"l": 12, "t": 12},
        },
        height=height + top,
        margin={"l": 70, "r": 24, "t": top, "b": 60},
        legend={"orientation": "h", "yanchor": "top", "y": -66 / max(height - 60, 60), "x": 0},
        hoverlabel={"align": "left"},
    )  # fmt: skip
    figure.update_layout(**layout)
    figure.update_xaxes(
        title={"text": x, "font": {"size": 14}},
        showline=True,
        linecolor=GREY,
        ticks="outside",
        automargin=True,
    )
    figure.update_yaxes(
        title={"text": y, "font": {"size": 14}},
        showline=True,
        linecolor=GREY,
        ticks="outside",
        automargin=True,
    )
    return figure


def rows_height(count: int, each: int = 26, least: int = 200) -> int:
    """The height of a figure with a row for each of ``count`` things."""
    return max(least, 90 + each * count)


def row_axis(figure: go.Figure, labels: list[str]) -> None:
    """Write labels, escaped already, on the vertical axis, the first one at the top."""
    figure.update_yaxes(
        tickmode="array", tickvals=list(range(len(labels))), ticktext=labels, title_text="",
        range=[len(labels) - 0.5, -0.5], showgrid=True, zeroline=False,
    )  # fmt: skip


def whole_ticks(figure: go.Figure, largest: int) -> None:
    """Write only whole numbers on the horizontal axis."""
    figure.update_xaxes(tickformat=",d", dtick=1 if largest <= 12 else None)


def accuracy_axis(figure: go.Figure) -> None:
    """Let the horizontal axis end where accuracies do, whatever an interval reaches beyond."""
    figure.update_xaxes(minallowed=-1, maxallowed=101)


def per_cent(share: float | None) -> float | None:
    """A share in [0, 1] in per cent."""
    return None if share is None else 100 * share


def time_unit(longest: float) -> tuple[float, str]:
    """The seconds of the unit, and its sign, in which times up to ``longest`` seconds are shown."""
    return (3600, "h") if longest >= 7200 else (60, "min") if longest >= 180 else (1, "s")
