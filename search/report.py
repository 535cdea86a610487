"""Writing a report's files, and notes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from optuna.trial import FrozenTrial

from search.options import DEFAULT_STORAGE
from search.output import say
from spaces.text import unknown, within
from studies.base import Study
from studies.files import write_text
from studies.notes import add_note, check_text
from studies.opening import open_existing, open_to_check
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
        write_text(output, render(report))
    say(f"report: {output}")
    if figures is not None:
        with within("--figures"):
            tables = write_tables(report, figures)
        say(f"{len(tables)} tables: {figures}")
        pictures = write_pictures(report, figures, "svg" if picture_format == "svg" else "png")
        say(f"{len(pictures)} pictures: {figures}")


def write_note(storage_url: str, name: str, text: str, number: int | None) -> None:
    """Add words to the note of a study or of a trial.

    Raises:
        ValueError: for an unknown study or trial, and for a text that is no note.
    """
    with within("TEXT"):
        check_text(text)
    with within("--storage"):
        looked_at = open_to_check(storage_url)
    with closing(looked_at):
        _noted_trial(open_existing(looked_at, name), number)
    with within("--storage"):
        storage = open_storage(storage_url, create=False, write=True)
    with closing(storage):
        study = open_existing(storage, name)
        add_note(study, text, _noted_trial(study, number))
    say(f"note added to {'the study' if number is None else f'trial {number} of'} {name}")


def _noted_trial(study: Study, number: int | None) -> FrozenTrial | None:
    """The trial that the note is on; None: it is on the study."""
    if number is None:
        return None
    found = study.whole_trials([number])
    if not found:
        count = study.storage.get_n_trials(study.study_id)
        there = f"0 to {count - 1}" if count else "none yet"
        raise ValueError(f"--trial: study {study.name!r} has trials {there}, but got {number}")
    return found[0]
