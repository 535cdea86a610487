"""Finalists: every repetition, the mean with its interval, and what the search had promised."""

from __future__ import annotations

from studies.figures.chart import Chart, Table, table_of
from studies.figures.style import (
    BLUE,
    GREY,
    VERMILION,
    accuracy_axis,
    new_figure,
    per_cent,
    row_axis,
    rows_height,
    short,
)
from studies.finalists import Finalist, Finalists


def finalists_chart(found: Finalists) -> Chart:
    """One row for each finalist, the best mean first."""
    finalists = found.finalists
    blocks = "folds and seeds" if found.folds else "fresh seeds and splits"
    title = f"Finalists: n = {found.blocks} runs each on the same {blocks}"
    figure = new_figure(title, rows_height(len(finalists), 40), "validation accuracy (%)")
    runs = [(f, value, row) for row, f in enumerate(finalists) for value in f.accuracies]
    figure.add_scatter(
        x=[per_cent(value) for _, value, _ in runs], y=[row + 0.18 for _, _, row in runs], mode="markers",
        name="run", marker={"size": 6, "color": GREY, "opacity": 0.7},
        hovertemplate="%{x:.2f} %<extra></extra>",
    )  # fmt: skip
    figure.add_scatter(
        x=[per_cent(f.mean) for f in finalists], y=list(range(len(finalists))), mode="markers",
        name=f"mean, {100 * found.confidence:.0f} % interval of each by itself",
        marker={"size": 11, "color": BLUE}, error_x=_bars(finalists),
        hovertemplate="mean %{x:.2f} %<extra></extra>",
    )  # fmt: skip
    figure.add_scatter(
        x=[per_cent(f.search_accuracy) for f in finalists], y=[row - 0.18 for row in range(len(finalists))],
        mode="markers", name="score in the search", hovertemplate="search %{x:.2f} %<extra></extra>",
        marker={"size": 9, "color": VERMILION, "symbol": "diamond-open", "line": {"width": 2}},
    )  # fmt: skip
    accuracy_axis(figure)
    row_axis(figure, [short(f.label) for f in finalists])
    caption = (
        "Whether two finalists differ is not read off these intervals, which are of each by itself, but off "
        "the simultaneous intervals of the differences in the table."
    )
    return Chart("finalists", figure, _table(finalists), caption)


def _bars(finalists: tuple[Finalist, ...]) -> dict[str, object]:
    """Error bars of the intervals; none where there is no interval."""
    return {
        "type": "data", "symmetric": False, "thickness": 2,
        "array": [per_cent(f.interval.high - f.mean) if f.interval else None for f in finalists],
        "arrayminus": [per_cent(f.mean - f.interval.low) if f.interval else None for f in finalists],
    }  # fmt: skip


def _table(finalists: tuple[Finalist, ...]) -> Table:
    rows = [
        (
            f.label, f.search_accuracy, len(f.accuracies), f.mean, f.spread,
            f.interval.low if f.interval else None, f.interval.high if f.interval else None, f.gap,
            f.difference.low if f.difference else None, f.difference.high if f.difference else None,
            verdict(f, index), f.seconds, f.multiply_adds, f.parameters_count,
        )
        for index, f in enumerate(finalists)
    ]  # fmt: skip
    return table_of(
        [
            ("finalist", "text"), ("in the search", "share"), ("runs", "count"), ("mean", "share"),
            ("standard deviation", "share"), ("interval from", "share"), ("interval to", "share"),
            ("flattered by", "points"), ("minus the best, from", "points"), ("minus the best, to", "points"),
            ("verdict", "text"), ("seconds", "seconds"), ("multiply-adds", "count"), ("parameters", "count"),
        ],
        rows,
    )  # fmt: skip


def verdict(finalist: Finalist, rank: int) -> str:
    """What can be said of a finalist against the best."""
    if rank == 0:
        words = "best mean"
    elif finalist.difference is None:
        words = "not tested"
    else:
        words = "distinguished from the best" if finalist.distinguished else "not distinguished from the best"
    return words + (", cheapest of those" if finalist.cheapest else "")
