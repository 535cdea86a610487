"""Writing a report's files, and notes."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

import typer

from search.options import DEFAULT_STORAGE
from spaces.text import unknown, within
from studies.notes import add_note, check_text
from studies.opening import open_existing
from studies.report import make_report, render, write_pictures, write_tables
from studies.storage import open_storage

FORMATS = ("png", "svg")


def write_report(
    storage_url: str, names: Sequence[str], output: Path, figures: Path | None, picture_format: str
) -> None:
    """Write the page, and the figures and tables where a folder for them is given.

    Raises:
        ValueError: for an unknown study or format, a place that cannot be written to, and, after all else is
            written, where nothing is there to draw pictures with.
    """
    if picture_format not in FORMATS:
        raise ValueError(f"--format: {unknown('format', picture_format, FORMATS)}")
    if output.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--output: must end in .html, but got {str(output)!r}")
    with within("--storage"):
        storage = open_storage(storage_url, create=False)
    with closing(storage):
        report = make_report(storage, names, storage_url, DEFAULT_STORAGE)
    with within("--output"):
        _write(output, render(report))
    typer.echo(f"report: {output}")
    if figures is not None:
        with within("--figures"):
            tables = write_tables(report, figures)
        typer.echo(f"{len(tables)} tables: {figures}")
        pictures = write_pictures(report, figures, "svg" if picture_format == "svg" else "png")
        typer.echo(f"{len(pictures)} pictures: {figures}")


def _write(path: Path, text: str) -> None:
    """Write all of the file or nothing."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        part.write_text(text, encoding="utf-8", newline="\n")
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise ValueError(f"{path}: cannot be written: {error.strerror}") from None


def write_note(storage_url: str, name: str, text: str, number: int | None) -> None:
    """Add words to the note of a study or of a trial.

    Raises:
        ValueError: for an unknown study or trial, and for a text that is no note.
    """
    with within("TEXT"):
        check_text(text)
    with within("--storage"):
        storage = open_storage(storage_url, create=False, write=True)
    with closing(storage):
        study = open_existing(storage, name)
        trials = {trial.number: trial for trial in study.trials()}
        if number is not None and number not in trials:
            last = f"0 to {max(trials)}" if trials else "none yet"
            raise ValueError(f"--trial: study {name!r} has trials {last}, but got {number}")
        add_note(study, text, None if number is None else trials[number])
    typer.echo(f"note added to {'the study' if number is None else f'trial {number} of'} {name}")
