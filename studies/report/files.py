"""The tables of a report as CSV files."""

from __future__ import annotations

from pathlib import Path

from studies.report.content import Report


def write_tables(report: Report, folder: Path) -> list[Path]:
    """Write the table behind every figure, and return the files.

    Raises:
        ValueError: if the folder cannot be written to.
    """
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, chart in report.charts():
            written.append(folder / f"{name}.csv")
            written[-1].write_text(chart.table.csv(), encoding="utf-8", newline="")
    except OSError as error:
        raise ValueError(f"{folder}: cannot be written to: {error.strerror}") from None
    return written
