"""The best configurations of a search, with what the number of validation images alone leaves open."""

from __future__ import annotations

import math
from collections.abc import Sequence

from studies.figures.chart import Chart, Columns, table_of
from studies.figures.style import (
    BLUE,
    accuracy_axis,
    new_figure,
    per_cent,
    plain,
    row_axis,
    rows_height,
    short,
)
from studies.summary import Entry
from studies.text import settings

MOST = 20
"""Configurations drawn; the table has all."""


def leaderboard_chart(entries: Sequence[Entry], val_images: int) -> Chart | None:
    """Accuracy of the best configurations, best first; None if none has completed."""
    if not entries:
        return None
    shown = entries[:MOST]
    runs = {entry.runs for entry in shown}
    number = f"{min(runs)}" if len(runs) == 1 else f"{min(runs)} to {max(runs)}"
    title = (
        f"Best {len(shown)} of {len(entries)} completed configurations: {number} run(s) each on "
        f"{val_images:,} validation images"
    )
    figure = new_figure(title, rows_height(len(shown)), "validation accuracy (%)")
    figure.add_scatter(
        x=[per_cent(entry.accuracy) for entry in shown], y=list(range(len(shown))), mode="markers",
        marker={"size": 10, "color": BLUE}, name="accuracy",
        error_x={"type": "data", "array": [per_cent(_error(e, val_images)) for e in shown], "thickness": 1.2},
        text=[short(settings(entry.parameters), 160) for entry in shown],
        hovertemplate="%{x:.2f} %<br>%{text}<extra></extra>", showlegend=False,
    )  # fmt: skip
    accuracy_axis(figure)
    row_axis(figure, [plain(_name(entry)) for entry in shown])
    names = list(dict.fromkeys(name for entry in entries for name in entry.parameters))
    rows = [
        (
            rank,
            _name(e),
            e.accuracy,
            e.runs,
            e.spread,
            e.seconds,
            *(_cell(e.parameters.get(n)) for n in names),
        )
        for rank, e in enumerate(entries, start=1)
    ]
    columns: Columns = [
        ("rank", "count"), ("trials", "text"), ("accuracy", "share"), ("runs", "count"),
        ("standard deviation", "share"), ("seconds", "seconds"), *((name, "setting") for name in names),
    ]  # fmt: skip
    caption = (
        "Bars: one binomial standard error of that many images, nothing else; how much the accuracy of a "
        "configuration varies from seed to seed comes on top. The best of many is flattered."
    )
    return Chart("leaderboard", figure, table_of(columns, rows), caption)


def _name(entry: Entry) -> str:
    numbers = ", ".join(str(number) for number in entry.trials[:4])
    return f"trial {numbers}" + (", …" if len(entry.trials) > 4 else "")


def _error(entry: Entry, val_images: int) -> float:
    """Binomial standard error. Runs share their validation images, so that it does not shrink with runs."""
    return math.sqrt(entry.accuracy * (1 - entry.accuracy) / val_images)


def _cell(value: object) -> str | int | float | None:
    return value if value is None or isinstance(value, (str, int, float)) else str(value)
