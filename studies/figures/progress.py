"""The best accuracy found so far, against trials and against training time, for one study or several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import plotly.graph_objects as go
from optuna.trial import FrozenTrial, TrialState

from studies.base import Study
from studies.figures.chart import Chart, Table, table_of
from studies.figures.style import (
    DASHES,
    GREY,
    PALE,
    PALETTE,
    new_figure,
    per_cent,
    plain,
    short,
    time_unit,
    whole_ticks,
)
from studies.record import curve_of, is_evidence, outcome_of, slot_of

Against = Literal["trials", "time"]


@dataclass(frozen=True)
class Progress:
    """A study at the moment that an attempt ended."""

    trial: int
    closed: int
    """Slots closed so far."""
    seconds: float
    """Training time of all attempts that ended so far, together."""
    state: str
    """complete, pruned or fail."""
    accuracy: float | None
    """Validation accuracy that the attempt ended with; None if no epoch ended."""
    best: float | None
    """The best accuracy of the completed ones so far."""


def progress_of(study: Study) -> list[Progress]:
    """All attempts that make sense, in the order in which they ended."""
    ended = [trial for trial in study.trials() if trial.state.is_finished() and is_evidence(trial)]
    closing = {trial.number for trial in study.slots().closing_trials()}
    found: list[Progress] = []
    best, seconds, closed = None, 0.0, 0
    for trial in sorted(ended, key=lambda trial: (trial.datetime_complete is None, trial.datetime_complete)):
        outcome = outcome_of(trial)
        seconds += outcome.seconds if outcome else 0.0
        closed += trial.number in closing or slot_of(trial) is None
        if trial.state == TrialState.COMPLETE and trial.value is not None:
            best = max(trial.value, best or 0.0)
        accuracy = _accuracy(trial)
        found.append(Progress(trial.number, closed, seconds, trial.state.name.lower(), accuracy, best))
    return found


def _accuracy(trial: FrozenTrial) -> float | None:
    if trial.value is not None:
        return trial.value
    return next(reversed(curve_of(trial)), None)


def progress_chart(studies: Mapping[str, Sequence[Progress]], against: Against) -> Chart | None:
    """Best so far of each study; of a single one also its trials. None where no trial has completed."""
    shown = {name: found for name, found in studies.items() if any(p.best is not None for p in found)}
    if not shown:
        return None
    longest = max(found[-1].seconds for found in shown.values())
    unit, sign = time_unit(longest) if against == "time" else (1.0, "")
    x_title = f"training time, summed over all attempts ({sign})" if sign else "trials closed"
    of = f" (n = {next(iter(shown.values()))[-1].closed} trials)" if len(shown) == 1 else ""
    title = f"Best validation accuracy so far against {'training time' if sign else 'trials'}{of}"
    figure = new_figure(title, 380, x_title, "validation accuracy (%)")
    if not sign:
        whole_ticks(figure, max(found[-1].closed for found in shown.values()))
    if len(shown) == 1:
        _add_trials(figure, next(iter(shown.values())), against, unit)
    for index, (name, found) in enumerate(shown.items()):
        reached = [p for p in found if p.best is not None]
        figure.add_scatter(
            x=[_position(p, against) / unit for p in reached], y=[per_cent(p.best) for p in reached],
            name=f"{short(name, 60)} (n = {found[-1].closed})" if len(shown) > 1 else "best so far",
            mode="lines+markers" if len(shown) > 1 and len(reached) <= 40 else "lines", marker={"size": 6},
            line={"shape": "hv", "color": PALETTE[index % len(PALETTE)], "width": 2.5,
                  "dash": DASHES[index % len(DASHES)] if len(shown) > 1 else "solid"},
            hovertemplate=f"{plain(name) if len(shown) > 1 else 'best so far'}: %{{y:.2f}} %<extra></extra>",
        )  # fmt: skip
    name = f"best-against-{against}"
    return Chart(name, figure, _table(studies), "Each accuracy is of one run; a best of many is flattered.")


def _position(progress: Progress, against: Against) -> float:
    return progress.seconds if against == "time" else progress.closed


def _add_trials(figure: go.Figure, found: Sequence[Progress], against: Against, unit: float) -> None:
    kinds = (("complete", GREY, "circle"), ("pruned", PALE, "circle-open"), ("fail", PALE, "x-thin-open"))
    for state, color, symbol in kinds:
        points = [p for p in found if p.state == state and p.accuracy is not None]
        if points:
            figure.add_scatter(
                x=[_position(p, against) / unit for p in points], y=[per_cent(p.accuracy) for p in points],
                name={"complete": "completed", "fail": "failed"}.get(state, state), mode="markers",
                marker={"size": 7, "color": color, "symbol": symbol, "line": {"color": color, "width": 1.5}},
                text=[f"trial {p.trial}" for p in points],
                hovertemplate="%{text}: %{y:.2f} %<extra></extra>",
            )  # fmt: skip


def _table(studies: Mapping[str, Sequence[Progress]]) -> Table:
    rows = [
        (name, p.trial, p.state, p.closed, p.seconds, p.accuracy, p.best)
        for name, found in studies.items()
        for p in found
    ]
    return table_of(
        [
            ("study", "text"), ("trial", "count"), ("state", "text"), ("trials closed", "count"),
            ("training seconds", "seconds"), ("accuracy", "share"), ("best so far", "share"),
        ],
        rows,
    )  # fmt: skip
