"""What a chart consists of: a figure, the table behind it, and the words around it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import plotly.graph_objects as go

from spaces.text import short_number
from studies.text import duration

Cell = str | int | float | bool | None
Kind = Literal["text", "count", "share", "points", "seconds", "number", "setting"]
"""share: in [0, 1], shown in per cent; points: a difference of shares, shown in percentage points; setting:
of a parameter, a number or text."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    name: str
    kind: Kind = "text"


@dataclass(frozen=True)
class Table:
    """Figures in rows; None where there is none."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def csv(self) -> str:
        """As a CSV file (RFC 4180) with a header: shares in [0, 1], times in seconds, nothing rounded.

        Text that a spreadsheet would take for a formula begins with an apostrophe.
        """
        file = io.StringIO(newline="")
        writer = csv.writer(file)
        writer.writerow([_written(column.name) for column in self.columns])
        writer.writerows([_written(cell) for cell in row] for row in self.rows)
        return file.getvalue()

    def shown(self) -> list[list[str]]:
        """The cells of all rows as people read them."""
        return [
            [show(cell, column.kind) for cell, column in zip(row, self.columns, strict=True)]
            for row in self.rows
        ]


@dataclass(frozen=True)
class Chart:
    """A figure, the table that it shows, and a sentence on how to read it."""

    name: str
    """For file names: lower case, with hyphens."""
    figure: go.Figure
    table: Table
    caption: str = ""


Columns = Sequence[tuple[str, Kind]]
"""Names and kinds."""


def table_of(columns: Columns, rows: Sequence[Sequence[Cell]]) -> Table:
    """A table of columns given as pairs of name and kind."""
    return Table(tuple(Column(name, kind) for name, kind in columns), tuple(tuple(row) for row in rows))


def show(cell: Cell, kind: Kind) -> str:
    """A cell as people read it; a dash for none."""
    if cell is None:
        return "-"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, str):
        return cell
    return _show_number(cell, kind)


def _show_number(number: float, kind: Kind) -> str:
    if kind == "share":
        return f"{100 * number:.2f} %"
    if kind == "points":
        return f"{100 * number:+.2f}".replace("-", "\N{MINUS SIGN}")
    if kind == "seconds":
        return duration(number)
    if isinstance(number, int):
        return f"{number:,}"
    return short_number(float(f"{number:.4g}"))


def _written(cell: Cell) -> Cell:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell
