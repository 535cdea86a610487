"""Which classes are taken for which: a confusion matrix on validation images."""

from __future__ import annotations

from collections.abc import Sequence

from studies.figures.chart import Cell, Chart, Columns, table_of
from studies.figures.style import new_figure, short

MOST_WITH_COUNTS = 20
"""Classes up to which the counts are written into the cells."""


def confusion_chart(counts: Sequence[Sequence[int]], classes: Sequence[str], of: str, name: str) -> Chart:
    """Shares of each true class, with the counts.

    Args:
        counts: KxK, rows true, columns predicted.
        classes: their names.
        of: whose it is and on how many runs, for the title.
        name: of the chart, for files.
    """
    total = sum(map(sum, counts))
    shares = [[100 * cell / sum(row) if sum(row) else 0.0 for cell in row] for row in counts]
    right = sum(row[index] for index, row in enumerate(counts))
    title = f"Confusion matrix of {of}: n = {total:,} predictions, {100 * right / max(total, 1):.2f} % right"
    side = 130 + max(24 if len(classes) <= MOST_WITH_COUNTS else 9, 330 // len(classes)) * len(classes)
    figure = new_figure(title, min(side, 1100), "predicted class", "true class")
    labels = [short(label, 18) for label in classes]
    figure.add_heatmap(
        z=shares, text=[list(row) for row in counts], colorscale="Blues", zmin=0, zmax=100,
        texttemplate="%{text}" if len(classes) <= MOST_WITH_COUNTS else "", xgap=1, ygap=1,
        colorbar={"title": {"text": "% of the true class"}, "thickness": 14},
        hovertemplate="row %{y}, column %{x}: %{text} images (%{z:.1f} %)<extra></extra>",
    )  # fmt: skip
    places = list(range(len(classes)))
    ticks = {
        "tickmode": "array",
        "tickvals": places,
        "ticktext": labels,
        "showgrid": False,
        "zeroline": False,
    }
    figure.update_xaxes(**ticks, tickangle=-40)
    figure.update_yaxes(**ticks, autorange="reversed")
    columns: Columns = [("true class", "text"), *((label, "count") for label in classes)]
    rows: list[Sequence[Cell]] = [(label, *row) for label, row in zip(classes, counts, strict=True)]
    caption = "Rows: the true class. Colour: share of that class; figures: images."
    return Chart(name, figure, table_of(columns, rows), caption)


def added(matrices: Sequence[Sequence[Sequence[int]]]) -> list[list[int]]:
    """The sum of confusion matrices of the same classes."""
    return [[sum(cells) for cells in zip(*rows, strict=True)] for rows in zip(*matrices, strict=True)]
