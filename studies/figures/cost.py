"""Accuracy against cost: training time, multiply-adds and parameters, with the Pareto front of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from optuna.trial import FrozenTrial
from plotly.subplots import make_subplots

from studies.figures.chart import Chart, Table, table_of
from studies.figures.style import BLACK, BLUE, GREY, VERMILION, new_figure, per_cent, plain
from studies.finalists import Finalists, mean_cost
from studies.summary import Entry


@dataclass(frozen=True)
class Priced:
    """A configuration and what it costs."""

    label: str
    accuracy: float
    """Mean over its runs."""
    runs: int
    confirmed: bool
    """Whether the runs are repetitions on fresh seeds and splits."""
    seconds: float | None
    multiply_adds: int | None
    parameters: int | None


COSTS = (
    ("seconds", "training time of a run (s)"),
    ("multiply_adds", "multiply-adds of an image"),
    ("parameters", "parameters"),
)


def priced(
    entries: Sequence[Entry], trials: Mapping[int, FrozenTrial], finalists: Finalists | None
) -> list[Priced]:
    """All completed configurations of a search, and the finalists by their repetitions.

    Args:
        entries: of the leaderboard.
        trials: of the search, by number.
        finalists: what repeating them showed.
    """
    found = []
    for entry in entries:
        seconds, parameters, multiply_adds = mean_cost([trials[number] for number in entry.trials])
        label = f"trial {entry.trials[0]}"
        found.append(Priced(label, entry.accuracy, entry.runs, False, seconds, multiply_adds, parameters))
    return found + [
        Priced(f.label, f.mean, len(f.accuracies), True, f.seconds, f.multiply_adds, f.parameters_count)
        for f in (finalists.finalists if finalists else ())
    ]


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the (cost, accuracy) points that no other point dominates, by cost and then as given.

    A point dominates another if it costs no more, is no less accurate, and is better in one of the two.
    """
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1]))
    front: list[int] = []
    for index in order:
        best = points[front[-1]] if front else None
        if best is None or points[index][1] > best[1] or points[index] == best:
            front.append(index)
    return front


def cost_chart(points: Sequence[Priced], val_images: int) -> Chart | None:
    """Accuracy against every cost in which the configurations differ; None for fewer than two of them."""
    costs = [(key, title) for key, title in COSTS if len({getattr(p, key) for p in points} - {None}) > 1]
    if not costs or len(points) < 2:
        return None
    searched = sum(not point.confirmed for point in points)
    title = f"Accuracy against cost: n = {searched} configurations on {val_images:,} validation images"
    figure = make_subplots(1, len(costs), shared_yaxes=True, horizontal_spacing=0.04)
    figure.update_layout(new_figure(title, 400).layout)
    fronts = {key: _add_panel(figure, points, key, column) for column, (key, _) in enumerate(costs, start=1)}
    for column, (key, axis) in enumerate(costs, start=1):
        values = [value for p in points if (value := getattr(p, key))]
        log = bool(values) and max(values) > 3 * min(values)
        figure.update_xaxes(
            title={"text": axis + (", log" if log else ""), "font": {"size": 14}},
            type="log" if log else "linear", row=1, col=column,
            tickformat="~s", showline=True, linecolor=GREY, ticks="outside", nticks=6,
        )  # fmt: skip
    figure.update_yaxes(title_text="validation accuracy (%)", col=1)
    figure.update_yaxes(showline=True, linecolor=GREY, ticks="outside")
    same = [title for key, title in COSTS if key not in dict(costs)]
    caption = "Lines: the Pareto fronts of the search's runs: none is both cheaper and more accurate."
    caption += f" All have the same {' and '.join(same)}." if same else ""
    return Chart("accuracy-against-cost", figure, _table(points, fronts), caption)


def _add_panel(figure: go.Figure, points: Sequence[Priced], key: str, column: int) -> set[int]:
    """Draw one cost, and return which points are on its front."""
    indices = [i for i, p in enumerate(points) if getattr(p, key) is not None]
    runs = [i for i in indices if not points[i].confirmed]
    front = [runs[i] for i in pareto_front([(getattr(points[i], key), points[i].accuracy) for i in runs])]
    groups = (
        ("configuration in the search", runs, "markers", {"size": 7, "color": GREY}),
        ("Pareto front", front, "lines+markers", {"size": 9, "color": BLUE}),
        ("finalist: mean of its repetitions", [i for i in indices if points[i].confirmed], "markers",
         {"size": 12, "color": VERMILION, "symbol": "diamond", "line": {"color": BLACK, "width": 1}}),
    )  # fmt: skip
    for name, chosen, mode, marker in groups:
        if chosen:
            figure.add_scatter(
                x=[getattr(points[i], key) for i in chosen], y=[per_cent(points[i].accuracy) for i in chosen],
                name=name, legendgroup=name, showlegend=column == 1, mode=mode, marker=marker,
                line={"shape": "hv", "color": BLUE, "width": 1.5},
                text=[f"{plain(points[i].label)}, n = {points[i].runs}" for i in chosen],
                hovertemplate="%{text}<br>%{y:.2f} % at %{x:~s}<extra></extra>", row=1, col=column,
            )  # fmt: skip
    return set(front)


def _table(points: Sequence[Priced], fronts: Mapping[str, set[int]]) -> Table:
    rows = [
        (
            p.label, p.accuracy, p.runs, p.confirmed, p.seconds, p.multiply_adds, p.parameters,
            *((index in fronts[key]) if key in fronts else None for key, _ in COSTS),
        )
        for index, p in enumerate(points)
    ]  # fmt: skip
    return table_of(
        [
            ("configuration", "text"), ("accuracy", "share"), ("runs", "count"), ("confirmed", "text"),
            ("seconds", "seconds"), ("multiply-adds", "count"), ("parameters", "count"),
            ("on the front of time", "text"), ("on the front of multiply-adds", "text"),
            ("on the front of parameters", "text"),
        ],
        rows,
    )  # fmt: skip
