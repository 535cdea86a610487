"""The tables of a report as CSV files."""

from __future__ import annotations

from pathlib import Path

from studies.files import write_text
from studies.report.content import Report


def write_tables(report: Report, folder: Path) -> list[Path]:
    """Write the table behind every figure, and return the files.

    Raises:
        ValueError: if the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{folder}: cannot be written to: {error.strerror}") from None
    written = []
    for name, chart in report.charts():
        written.append(folder / f"{name}.csv")
        write_text(written[-1], chart.table.csv())
    return written
