"""Learning curves: validation accuracy of all trials, and the losses of those in front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from optuna.trial import FrozenTrial, TrialState

from studies.figures.chart import Cell, Chart, Columns, Table, table_of
from studies.figures.style import DASHES, PALE, PALETTE, new_figure, per_cent, short, whole_ticks
from studies.record import curve_of, history_of, reports_of

MOST_IN_FRONT = len(PALETTE)


def curves_chart(trials: Sequence[FrozenTrial], front: Mapping[int, str], val_images: int) -> Chart | None:
    """Validation accuracy by epoch of all trials, with some in front; None if no epoch has ended.

    Args:
        trials: of the study.
        front: number and label of the trials in front, the most important first.
        val_images: how many each accuracy is of.
    """
    shown = [trial for trial in trials if reports_of(trial)]
    if not shown:
        return None
    title = f"Learning curves: n = {len(shown)} trials, one run each on {val_images:,} validation images"
    figure = new_figure(title, 430, "epoch", "validation accuracy (%)", hovermode="closest")
    whole_ticks(figure, max(max(reports_of(trial)) for trial in shown))
    for name, dash, states in _BACKGROUND:
        _add_together(figure, name, dash, [t for t in shown if t.state in states and t.number not in front])
    by_number = {trial.number: trial for trial in shown}
    numbers = [number for number in front if number in by_number][:MOST_IN_FRONT]
    for rank, number in reversed(list(enumerate(numbers))):  # the best is drawn last, on top
        _add_front(figure, by_number[number], short(front[number], 60), rank)
    caption = "A line that ends early was pruned, stopped or failed."
    return Chart("learning-curves", figure, _table(shown), caption)


_BACKGROUND = (
    ("other trials", "solid", (TrialState.COMPLETE, TrialState.RUNNING, TrialState.WAITING)),
    ("pruned or failed", "dot", (TrialState.PRUNED, TrialState.FAIL)),
)


def _add_together(figure: go.Figure, name: str, dash: str, trials: Sequence[FrozenTrial]) -> None:
    """Curves as one trace with gaps, since a hundred traces would be slow."""
    epochs: list[int | None] = []
    values: list[float | None] = []
    numbers: list[str] = []
    for trial in trials:
        steps = list(reports_of(trial))
        epochs += [*steps, None]
        values += [*(per_cent(reports_of(trial)[step]) for step in steps), None]
        numbers += [f"trial {trial.number}"] * (len(steps) + 1)
    if trials:
        figure.add_scatter(
            x=epochs, y=values, text=numbers, name=f"{name} ({len(trials)})", mode="lines+markers",
            line={"color": PALE, "width": 1.2, "dash": dash}, marker={"size": 3, "color": PALE},
            hovertemplate="%{text}<br>epoch %{x}: %{y:.2f} %<extra></extra>", connectgaps=False,
        )  # fmt: skip


def _add_front(figure: go.Figure, trial: FrozenTrial, label: str, rank: int) -> None:
    steps = list(reports_of(trial))
    figure.add_scatter(
        x=steps, y=[per_cent(reports_of(trial)[step]) for step in steps], name=label,
        mode="lines+markers" if len(steps) < 3 else "lines", legendrank=10 + rank,
        line={"color": PALETTE[rank], "width": 2.5, "dash": DASHES[rank]},
        hovertemplate=f"trial {trial.number}<br>epoch %{{x}}: %{{y:.2f}} %<extra></extra>",
    )  # fmt: skip


def _table(trials: Sequence[FrozenTrial]) -> Table:
    rows: list[Sequence[Cell]] = []
    for trial in trials:
        history, curve = history_of(trial), curve_of(trial)
        columns = (history.train_accuracy, history.val_loss, history.train_loss, history.lr, history.seconds)
        for index, (step, value) in enumerate(zip(reports_of(trial), curve, strict=True)):
            others = [column[index] if index < len(column) else None for column in columns]
            rows.append([trial.number, trial.state.name.lower(), step, value, *others])
    return table_of(
        [
            ("trial", "count"), ("state", "text"), ("epoch", "count"), ("validation accuracy", "share"),
            ("training accuracy", "share"), ("validation loss", "number"), ("training loss", "number"),
            ("learning rate", "number"), ("seconds", "seconds"),
        ],
        rows,
    )  # fmt: skip


def loss_chart(trials: Sequence[FrozenTrial], front: Mapping[int, str]) -> Chart | None:
    """Training and validation loss by epoch of the trials in front; None where none was recorded."""
    by_number = {trial.number: trial for trial in trials}
    histories = {number: history_of(by_number[number]) for number in front if number in by_number}
    shown = [number for number, history in histories.items() if any(history.val_loss)][:4]
    if not shown:
        return None
    title = f"Losses of the {len(shown)} trial(s) in front, one run each"
    figure = new_figure(title, 360, "epoch", "mean loss of an image (nats)")
    whole_ticks(figure, max(len(histories[number].val_loss) for number in shown))
    rows: list[Sequence[Cell]] = []
    for rank, number in enumerate(shown):
        history = histories[number]
        epochs = list(range(1, len(history.val_loss) + 1))
        for part, values, dash in (
            ("validation", history.val_loss, "solid"),
            ("training", history.train_loss, "dot"),
        ):
            figure.add_scatter(
                x=epochs, y=list(values), name=f"trial {number}, {part}", mode="lines",
                line={"color": PALETTE[rank], "width": 2.2, "dash": dash},
                hovertemplate=f"trial {number}, {part}<br>epoch %{{x}}: %{{y:.4f}}<extra></extra>",
            )  # fmt: skip
        rows += [(number, *row) for row in zip(epochs, history.train_loss, history.val_loss, strict=True)]
    caption = (
        "Training loss (dotted) is that of augmented images, with dropout and smoothed labels where these "
        "are on, so that it can lie above validation loss (solid)."
    )
    columns: Columns = [
        ("trial", "count"),
        ("epoch", "count"),
        ("training loss", "number"),
        ("validation loss", "number"),
    ]
    return Chart("losses", figure, table_of(columns, rows), caption)
