"""What the scripts for a GPU are told, by options and by the environment, and what they refuse at once."""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).parents[2]
IMAGES = "CIFAR_SEARCH_TEST_IMAGES"
MOST_SIDE_BY_SIDE = 16
"""Trials on a GPU at once, of which the benchmark has an arm."""


class Parser(argparse.ArgumentParser):
    """Refuses in one line, with exit code 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def parser(description: str | None) -> Parser:
    """Of a script that can be rehearsed; ``--rehearse`` is given on as ``rehearse``."""
    made = Parser(description=description, formatter_class=argparse.RawTextHelpFormatter)
    made.add_argument("--rehearse", action="store_true", help="at a tiny size on a CPU, with recorded graphs")
    return made


def seconds(text: str) -> float:
    """A number of seconds, as argparse reads it."""
    value = float(text)
    if not value >= 0:  # as it is with NaN
        raise argparse.ArgumentTypeError(f"must be 0 or more seconds, but got {text}")
    return value


def side_by_side(text: str) -> str:
    """How many trials at once, as argparse reads it: the end of the name of an arm, ``ours-N``."""
    if text != "auto" and text not in map(str, range(1, MOST_SIDE_BY_SIDE + 1)):
        raise argparse.ArgumentTypeError(f"must be auto or 1 to {MOST_SIDE_BY_SIDE}, but got {text}")
    return text


def images_folder() -> str:
    """Real images, as ``train/CLASS/*``; the full path, since stages run in folders of their own."""
    return str(Path(os.environ[IMAGES]).absolute())


def require_images(made: Parser) -> None:
    """Refuse where there are no images; none is decoded."""
    wanted = f"{IMAGES} must name a folder with images as train/CLASS/*"
    if not os.environ.get(IMAGES):
        made.error(f"{wanted}, but it is not set")
    if not any(Path(images_folder(), "train").glob("*/*")):
        made.error(f"{wanted}, but {images_folder()} has none")


def require_writable(made: Parser, folder: Path) -> None:
    """Make the folder of the results; refuse where that, or a file in it, is impossible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        made.error(f"$OUT cannot be written: {error}")


def set_aside(path: Path) -> None:
    """Rename what an earlier run left, ``probe.jsonl`` to ``probe-1.jsonl`` or the next number."""
    number = 1
    while (free := path.with_stem(f"{path.stem}-{number}")).exists():
        number += 1
    if path.exists():
        path.rename(free)
