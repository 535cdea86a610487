"""The commands for people who read and write about a study: report and note."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from search.options import DEFAULT_STORAGE, Storage, whole
from search.output import goes_on_unheard


@goes_on_unheard
def report(
    studies: Annotated[
        list[str], typer.Argument(metavar="STUDY...", help="Searches; several are compared as well.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE.html", help="The page to write.")
    ] = Path("report.html"),
    figures: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Also write every figure as a picture, and its table as CSV."),
    ] = None,
    picture_format: Annotated[
        str, typer.Option("--format", metavar="NAME", help="Format of the pictures: png or svg.")
    ] = "png",
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Write a page on a study that could be handed in: figures, answers, journal."""
    from search.report import write_report

    write_report(storage, studies, output, figures, picture_format)


@goes_on_unheard
def note(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="The study's name.")],
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to add, in Markdown.")],
    trial: Annotated[
        int | None,
        typer.Option(parser=whole(0), metavar="N", help="The trial that it is on, in place of the study."),
    ] = None,
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Add your words to a study or a trial; the dashboard shows and edits the same notes."""
    from search.report import write_note

    write_note(storage, study, text, trial)
