"""What each setting of the winner is worth: differences from the base, and from the winner."""

from __future__ import annotations

from collections.abc import Sequence

from studies.ablation import Ablation, Kind, Step
from studies.figures.chart import Chart, Table, table_of
from studies.figures.style import BLUE, GREY, VERMILION, new_figure, per_cent, row_axis, rows_height, short


def ablation_chart(found: Ablation) -> Chart | None:
    """Differences of means with their simultaneous intervals; None where nothing can be compared."""
    means: dict[Kind, float] = {
        step.kind: step.mean for step in found.steps if step.kind in ("base", "winner")
    }
    steps = [
        (step, difference) for step in found.steps if (difference := _difference(step, means)) is not None
    ]
    if not steps:
        return None
    title = f"Ablation: n = {found.blocks} runs of each step, on the same fresh seeds and splits"
    figure = new_figure(title, rows_height(len(steps), 30), "difference of mean validation accuracy (points)")
    groups: Sequence[tuple[str, tuple[Kind, ...], str, str]] = (
        ("minus the base", ("base with", "winner"), BLUE, "circle"),
        ("minus the winner", ("winner without",), VERMILION, "square"),
    )
    for name, kinds, color, symbol in groups:
        chosen = [(row, *pair) for row, pair in enumerate(steps) if pair[0].kind in kinds]
        if chosen:
            figure.add_scatter(
                x=[per_cent(difference) for _, _, difference in chosen], y=[row for row, _, _ in chosen],
                name=f"{name}, {100 * found.confidence:.0f} % intervals of all pairs together",
                mode="markers", marker={"size": 10, "color": color, "symbol": symbol},
                error_x=_bars([(step, difference) for _, step, difference in chosen]),
                hovertemplate="%{x:+.2f} points<extra></extra>",
            )  # fmt: skip
    figure.add_vline(x=0, line={"color": GREY, "width": 1.5})
    row_axis(figure, [short(step.label, 48) for step, _ in steps])
    caption = "An interval that crosses zero says: not distinguished, which is not the same as equal."
    return Chart("ablation", figure, _table(found, means), caption)


def _difference(step: Step, means: dict[Kind, float]) -> float | None:
    """A step's mean minus its reference's; None for the base, and where the reference is missing."""
    reference = means.get("winner" if step.kind == "winner without" else "base")
    return None if step.kind == "base" or reference is None else step.mean - reference


def _bars(steps: Sequence[tuple[Step, float]]) -> dict[str, object]:
    high = [per_cent(step.difference.high - d) if step.difference else None for step, d in steps]
    low = [per_cent(d - step.difference.low) if step.difference else None for step, d in steps]
    return {"type": "data", "symmetric": False, "thickness": 1.6, "array": high, "arrayminus": low}


def _table(found: Ablation, means: dict[Kind, float]) -> Table:
    rows = [
        (
            step.label, len(step.accuracies), step.mean, step.spread, _difference(step, means),
            step.difference.low if step.difference else None,
            step.difference.high if step.difference else None,
            step.seconds, step.multiply_adds, step.parameters_count,
        )
        for step in found.steps
    ]  # fmt: skip
    return table_of(
        [
            ("step", "text"), ("runs", "count"), ("mean", "share"), ("standard deviation", "share"),
            ("difference", "points"), ("from", "points"), ("to", "points"), ("seconds", "seconds"),
            ("multiply-adds", "count"), ("parameters", "count"),
        ],
        rows,
    )  # fmt: skip
