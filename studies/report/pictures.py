"""The figures of a report as PNG or SVG files, drawn by kaleido with an installed Chrome or Chromium."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from pathlib import Path
from typing import Literal

from studies.figures.style import WIDTH
from studies.report.content import Report

Format = Literal["png", "svg"]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_SCALE = 2
"""Pixels of a PNG for each pixel of the figure, so that it prints well."""


def write_pictures(report: Report, folder: Path, kind: Format) -> list[Path]:
    """Write every figure, and return the files.

    Raises:
        ValueError: if kaleido or a browser is missing or does not start, or the folder cannot be written to.
    """
    browser = find_browser()
    os.environ["BROWSER_PATH"] = browser
    import kaleido

    folder.mkdir(parents=True, exist_ok=True)
    options = {"format": kind, "width": WIDTH, "scale": _SCALE if kind == "png" else 1}
    with tempfile.TemporaryDirectory(prefix=".", dir=folder) as private:  # kaleido would follow a link
        drafts = [Path(private) / f"{name}.{kind}" for name, _ in report.charts()]
        wanted = [
            {
                "fig": chart.figure.to_dict(),
                "path": str(draft),
                "opts": {**options, "height": chart.figure.layout.height},
            }
            for draft, (_, chart) in zip(drafts, report.charts(), strict=True)
        ]
        try:
            kaleido.write_fig_from_object_sync(wanted, kopts={"mathjax": False})
            return [draft.replace(folder / draft.name) for draft in drafts]
        except Exception as error:  # whatever goes wrong in another program's browser
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise ValueError(f"--figures: {browser} could not draw the figures: {reason}") from None


def find_browser() -> str:
    """The path of a Chrome or Chromium: $BROWSER_PATH, or one on the PATH.

    Raises:
        ValueError: if there is none, or kaleido is not installed.
    """
    if importlib.util.find_spec("kaleido") is None:
        raise ValueError('--figures: pictures need kaleido: pip install -e ".[figures]"')
    named = os.environ.get("BROWSER_PATH")
    if named:
        if shutil.which(named):
            return named
        raise ValueError(f"--figures: $BROWSER_PATH must be a program, but got {named!r}")
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        raise ValueError(
            "--figures: pictures need Chrome or Chromium (on Debian: apt install chromium), or its path "
            "in $BROWSER_PATH; the tables are written without it"
        )
    return found
