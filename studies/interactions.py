"""Pairs of parameters worth looking at together, as small tables of the completed trials.

Which pairs, of all that a space has:

1. every two scientific parameters that are active at the same time (normalization and batch-norm order);
2. every scientific choice with its nuisance learning rate, since a level that was tried at the wrong learning
   rates has not been compared (optimizer and learning rate). Where each option has a learning rate of its
   own (``each``), the columns are the lower, middle and upper third of its own range.

A pair is shown where each of its cells has a completed trial, as on a grid, or where at least half of them
have one and they have two on average; and only where both parameters show two levels or more. Those with
most trials for each cell come first, and at most ``MOST`` are shown. All of it describes: a search that
adapts puts its trials where they do well.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from optuna.trial import FrozenTrial

from spaces.domain import Choice
from spaces.parameter import Parameter
from spaces.space import Space
from studies.levels import levels

MOST = 4
THIRDS = ("lower third", "middle third", "upper third")
Values = Sequence[Mapping[str, Any]]
"""The parameters of each trial."""


@dataclass(frozen=True)
class Cell:
    """The completed trials at one level of each of two parameters."""

    trials: int
    mean: float | None
    best: float | None


@dataclass(frozen=True)
class Interaction:
    """Two parameters, and the completed trials at every pair of their levels."""

    row_parameter: str
    column_parameter: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[Cell, ...], ...]
    """By row, then by column."""

    @property
    def trials_per_cell(self) -> float:
        """On average."""
        counts = [cell.trials for row in self.cells for cell in row]
        return sum(counts) / len(counts)


@dataclass(frozen=True)
class _Axis:
    parameter: str
    labels: Sequence[str]
    levels: Sequence[str | None]
    """Of each trial; None where it has none."""


def interactions(space: Space, completed: Sequence[FrozenTrial]) -> tuple[Interaction, ...]:
    """The pairs worth looking at, those with most trials for each cell first."""
    trials = {index: trial.value for index, trial in enumerate(completed) if trial.value is not None}
    values = [completed[index].params for index in trials]
    tables = [_table(row, column, list(trials.values())) for row, column in _pairs(space, values)]
    worth = [table for table in tables if table is not None and _is_worth(table)]
    return tuple(sorted(worth, key=lambda table: -table.trials_per_cell)[:MOST])


def _pairs(space: Space, values: Values) -> Iterable[tuple[_Axis, _Axis]]:
    scientific = [parameter for parameter in space.parameters if parameter.role == "scientific"]
    axes = [_axis(parameter, values) for parameter in scientific]
    yield from combinations(axes, 2)
    for parameter, axis in zip(scientific, axes, strict=True):
        rates = _learning_rates(space, parameter) if isinstance(parameter.domain, Choice) else []
        if rates:
            yield axis, _rate_axis(rates, values)


def _learning_rates(space: Space, parameter: Parameter) -> list[Parameter]:
    """Nuisance learning rates of the choice's options, or, where there are none, that of all trials."""
    rates = [p for p in space.parameters if p.role == "nuisance" and p.path.split(".")[-1] == "lr"]
    return [p for p in rates if parameter.name in p.when] or [p for p in rates if not p.when]


def _axis(parameter: Parameter, values: Values) -> _Axis:
    name, (labels, level_of) = parameter.name, levels(parameter.domain)
    return _Axis(name, labels, [level_of(each[name]) if name in each else None for each in values])


def _rate_axis(rates: Sequence[Parameter], values: Values) -> _Axis:
    if len(rates) == 1:
        return _axis(rates[0], values)
    axes = [axis for rate in rates if len((axis := _axis(rate, values)).labels) == len(THIRDS)]
    thirds = [dict(zip(axis.labels, THIRDS, strict=True)) for axis in axes]
    of_rates = [
        [third.get(level or "") for level in axis.levels] for third, axis in zip(thirds, axes, strict=True)
    ]
    of_trials = zip([None] * len(values), *of_rates, strict=True)
    return _Axis(rates[0].path, THIRDS, [next(filter(None, each), None) for each in of_trials])


def _table(row: _Axis, column: _Axis, accuracies: Sequence[float]) -> Interaction | None:
    """The table of the levels that any completed trial has; None where there are fewer than two of either."""
    found: dict[tuple[str, str], list[float]] = {}
    for of_row, of_column, accuracy in zip(row.levels, column.levels, accuracies, strict=True):
        if of_row is not None and of_column is not None:
            found.setdefault((of_row, of_column), []).append(accuracy)
    rows = tuple(label for label in row.labels if any(r == label for r, _ in found))
    columns = tuple(label for label in column.labels if any(c == label for _, c in found))
    if min(len(rows), len(columns)) < 2:
        return None
    cells = tuple(tuple(_cell(found.get((r, c), [])) for c in columns) for r in rows)
    return Interaction(row.parameter, column.parameter, rows, columns, cells)


def _cell(values: Sequence[float]) -> Cell:
    return Cell(len(values), statistics.fmean(values) if values else None, max(values, default=None))


def _is_worth(table: Interaction) -> bool:
    counts = [cell.trials for row in table.cells for cell in row]
    half_filled = 2 * sum(count > 0 for count in counts) >= len(counts)
    return min(counts) > 0 or (half_filled and sum(counts) >= 2 * len(counts))
