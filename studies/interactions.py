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
from collections.abc import Callable, Iterable, Mapping, Sequence
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
LevelOf = Callable[[Mapping[str, Any]], str | None]
"""The level of a trial, given its parameters; None where it has none."""


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
    level_of: LevelOf


def interactions(space: Space, completed: Sequence[FrozenTrial]) -> tuple[Interaction, ...]:
    """The pairs worth looking at, those with most trials for each cell first."""
    tables = [_table(row, column, completed) for row, column in _pairs(space)]
    worth = [table for table in tables if table is not None and _is_worth(table)]
    return tuple(sorted(worth, key=lambda table: -table.trials_per_cell)[:MOST])


def _pairs(space: Space) -> Iterable[tuple[_Axis, _Axis]]:
    scientific = [parameter for parameter in space.parameters if parameter.role == "scientific"]
    for one, other in combinations(scientific, 2):
        yield _axis(one), _axis(other)
    for parameter in scientific:
        rates = _learning_rates(space, parameter) if isinstance(parameter.domain, Choice) else []
        if rates:
            yield _axis(parameter), _rate_axis(rates)


def _learning_rates(space: Space, parameter: Parameter) -> list[Parameter]:
    """Nuisance learning rates of the choice's options, or, where there are none, that of all trials."""
    rates = [p for p in space.parameters if p.role == "nuisance" and p.path.split(".")[-1] == "lr"]
    return [p for p in rates if parameter.name in p.when] or [p for p in rates if not p.when]


def _axis(parameter: Parameter) -> _Axis:
    labels, level_of = levels(parameter.domain)

    def of(values: Mapping[str, Any]) -> str | None:
        return level_of(values[parameter.name]) if parameter.name in values else None

    return _Axis(parameter.name, labels, of)


def _rate_axis(rates: Sequence[Parameter]) -> _Axis:
    if len(rates) == 1:
        return _axis(rates[0])
    axes = [axis for rate in rates if len((axis := _axis(rate)).labels) == len(THIRDS)]

    def of(values: Mapping[str, Any]) -> str | None:
        found = ((axis, level) for axis in axes if (level := axis.level_of(values)) is not None)
        return next((THIRDS[axis.labels.index(level)] for axis, level in found), None)

    return _Axis(rates[0].path, THIRDS, of)


def _table(row: _Axis, column: _Axis, completed: Sequence[FrozenTrial]) -> Interaction | None:
    """The table of the levels that any completed trial has; None where there are fewer than two of either."""
    found: dict[tuple[str, str], list[float]] = {}
    for trial in completed:
        levels_of_trial = row.level_of(trial.params), column.level_of(trial.params)
        if None not in levels_of_trial and trial.value is not None:
            found.setdefault((str(levels_of_trial[0]), str(levels_of_trial[1])), []).append(trial.value)
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
