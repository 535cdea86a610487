"""What pruning saved, and whom it hit: how the trials of each level ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial

from spaces.parameter import Parameter
from studies.figures.chart import Chart, Columns, table_of
from studies.figures.style import BLUE, GREY, VERMILION, new_figure, row_axis, rows_height, short
from studies.levels import levels
from studies.record import outcome_of, reason_of


@dataclass(frozen=True)
class Hit:
    """How the trials at one level of a parameter ended."""

    parameter: str
    level: str
    trials: int
    completed: int
    pruned: int
    other: int
    """Diverged or failed."""
    epochs: int
    """Trained by the pruned ones."""
    spared: int
    """Epochs that the pruned ones did not train."""
    seconds_saved: float
    """Estimate: the epochs spared, at the speed of each."""


def hits(parameters: Sequence[Parameter], closing: Sequence[FrozenTrial], epochs: int) -> list[Hit]:
    """How the trials of every level of the scientific parameters ended, and before them all together.

    Args:
        parameters: of the space.
        closing: the attempts that closed the slots.
        epochs: of a full trial.
    """
    found = [_hit("all trials", "", closing, epochs)]
    for parameter in parameters:
        if parameter.role != "scientific":
            continue
        labels, level_of = levels(parameter.domain)
        having = [trial for trial in closing if parameter.name in trial.params]
        for label in labels:
            of_level = [trial for trial in having if level_of(trial.params[parameter.name]) == label]
            found.append(_hit(parameter.name, label, of_level, epochs))
    return found


def _hit(parameter: str, level: str, trials: Sequence[FrozenTrial], epochs: int) -> Hit:
    reasons = [reason_of(trial) for trial in trials]
    pruned = [outcome for trial in trials if (outcome := outcome_of(trial)) and outcome.reason == "pruned"]
    completed = sum(reason in ("finished", "stopped early") for reason in reasons)
    return Hit(
        parameter=parameter,
        level=level,
        trials=len(trials),
        completed=completed,
        pruned=len(pruned),
        other=len(trials) - completed - len(pruned),
        epochs=sum(outcome.epoch for outcome in pruned),
        spared=sum(epochs - outcome.epoch for outcome in pruned),
        seconds_saved=sum(o.seconds / o.epoch * (epochs - o.epoch) for o in pruned if o.epoch),
    )


def pruning_chart(found: Sequence[Hit]) -> Chart | None:
    """Shares of trials by how they ended, for each level; None where nothing was pruned."""
    shown = [hit for hit in found if hit.trials]
    if not any(hit.pruned for hit in shown):
        return None
    title = f"Whom pruning hit: n = {found[0].trials} trials, {found[0].pruned} of them pruned"
    figure = new_figure(title, rows_height(len(shown), 24), "trials of the level (%)", barmode="stack")
    figure.update_layout(legend_traceorder="normal")
    parts = (("completed", BLUE, ""), ("pruned", VERMILION, "/"), ("other", GREY, "."))
    for part, color, pattern in parts:
        counts = [getattr(hit, part) for hit in shown]
        if any(counts):
            figure.add_bar(
                x=[100 * count / hit.trials for count, hit in zip(counts, shown, strict=True)],
                y=list(range(len(shown))), orientation="h", text=[count or "" for count in counts],
                name={"other": "diverged or failed"}.get(part, part), textposition="inside",
                marker={"color": color, "pattern": {"shape": pattern, "fgopacity": 0.4}},
                insidetextanchor="middle", textangle=0,
                hovertemplate="%{text} trials (%{x:.0f} %)<extra></extra>",
            )  # fmt: skip
    row_axis(figure, [_label(hit) for hit in shown])
    figure.update_xaxes(range=[0, 100])
    rows = [
        (h.parameter, h.level, h.trials, h.completed, h.pruned, h.other, h.epochs, h.spared, h.seconds_saved)
        for h in found
    ]
    columns: Columns = [
        ("parameter", "text"), ("level", "text"), ("trials", "count"), ("completed", "count"),
        ("pruned", "count"), ("diverged or failed", "count"), ("epochs of pruned", "count"),
        ("epochs spared", "count"), ("seconds saved", "seconds"),
    ]  # fmt: skip
    caption = (
        "A level that is pruned much more often than the others was judged by its first epochs: where it "
        "starts slowly, that can be unjust."
    )
    return Chart("pruning", figure, table_of(columns, rows), caption)


def _label(hit: Hit) -> str:
    name = f"{hit.parameter.split('.')[-1]}: {hit.level}" if hit.level else hit.parameter
    return f"{short(name, 36)} (n = {hit.trials})"
