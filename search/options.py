"""The options that commands share, and parsers whose refusals name the rule and the value."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from search.data.request import LARGEST_SIDE
from spaces.text import brief

DEFAULT_STORAGE = "sqlite:///cifar-search.db"


MOST = 1_000_000
"""Of whatever is counted on the command line: more would never end."""
MOST_WORKERS = 1024
"""Processes of one command."""
LARGEST_SEED = 2**63 - 1
LONGEST_S = 10_000 * 3600
"""Seconds that --timeout may say: more than a year."""


def check_words(words: Iterable[str]) -> None:
    """Refuse what no option or argument may be: text that is not UTF-8, and nothing at all.

    Raises:
        ValueError: with the rule and the word.
    """
    before = ""
    for word in words:
        name, equals, value = word.partition("=") if word.startswith("--") else (before, "", word)
        place = f"{name}: " if name.startswith("-") else ""
        if not word.isascii() and any("\ud800" <= letter <= "\udfff" for letter in word):
            raise ValueError(f"{place}must be UTF-8 text, but got {brief(word)}: rename it")
        if not word or (equals and not value):
            raise ValueError(f"{place or 'a word of the command '}must not be empty, but got {word!r}")
        before = word


def whole(least: int, most: int = MOST) -> Callable[[str], int]:
    """A parser of whole numbers from ``least`` to ``most``."""

    def parse(text: str) -> int:
        # digits of other scripts, and Python's limit on the length of a number, stay outside
        number = int(text) if re.fullmatch(r"[+-]?[0-9]{1,1000}", str(text)) else None
        if number is None or number < least:
            raise typer.BadParameter(f"must be a whole number of at least {least}, but got {brief(text)}")
        if number > most:
            raise typer.BadParameter(f"must be a whole number of at most {most}, but got {brief(text)}")
        return number

    return parse


def seconds(text: str) -> float:
    """Parse a time: 90, 90s, 10m or 2h."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smh]?)", text.strip())
    value = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if not 0 < value <= LONGEST_S:
        raise typer.BadParameter(
            "must be a positive time such as 90, 90s, 10m or 2h, of at most "
            f"{LONGEST_S // 3600}h, but got {brief(text)}"
        )
    return value


def share_or_count(text: str) -> float:
    """Parse a share between 0 and 1 (as a float) or a count of at least 1 (as an int)."""
    if re.fullmatch(r"[0-9]{1,18}", text) and int(text) >= 1:
        return int(text)
    if re.fullmatch(r"0?\.[0-9]+", text) and 0 < float(text) < 1:
        return float(text)
    raise typer.BadParameter(
        f"must be a share between 0 and 1 or a whole number of images, but got {brief(text)}"
    )


def number_or_auto(text: str) -> int | None:
    """Parse a whole number of at least 1, or auto (None)."""
    return None if text == "auto" else whole(1, MOST_WORKERS)(text)


def zero_or_more_or_auto(text: str) -> int | None:
    """As ``number_or_auto``, or 0."""
    return None if text == "auto" else whole(0, MOST_WORKERS)(text)


def share_of_gpu(text: str) -> float:
    """Parse a share of a GPU from 0 to 1."""
    if not re.fullmatch(r"[0-9]{0,2}\.?[0-9]{1,4}", text) or not 0 <= float(text) <= 1:
        raise typer.BadParameter(f"must be a number from 0 to 1 such as 0.25, but got {brief(text)}")
    return float(text)


def paths(text: str) -> tuple[str, ...]:
    """Parse two or more dotted paths of settings or sections: optimizer.name,schedule."""
    from spaces.config import Configuration

    found = tuple(part.strip() for part in text.split(","))
    known = Configuration.model_fields
    unknown = [path for path in found if path.partition(".")[0] not in known]
    if len(found) < 2 or unknown:
        raise typer.BadParameter(
            f"must be two or more paths below {', '.join(known)}, such as optimizer.name,schedule, "
            f"but got {text!r}"
        )
    return found


Storage = Annotated[
    str, typer.Option(metavar="URL", help="Database of the studies.", envvar="CIFAR_SEARCH_STORAGE")
]
Dataset = Annotated[
    str,
    typer.Option(
        metavar="NAME|FOLDER", help="cifar10, cifar100, imagenette, digits, or a folder (train/CLASS/*)."
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Where downloads and decoded images are kept; else $CIFAR_SEARCH_DATA, else the user's cache.",
    ),
]
ImageSize = Annotated[
    int | None,
    typer.Option(
        parser=whole(1, LARGEST_SIDE), metavar="N", help="Resize all images to this many pixels square."
    ),
]
ValSize = Annotated[
    float | None,
    typer.Option(
        parser=share_or_count, metavar="SHARE|N", help="Validation images, of the training images.  [0.1]"
    ),
]
TrainSize = Annotated[
    int | None, typer.Option(parser=whole(1), metavar="N", help="Train on a stratified subset of this size.")
]
Seed = Annotated[
    int,
    typer.Option(
        parser=whole(0, LARGEST_SEED), metavar="N", help="Seed of the split, the sampler and the trainings."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it without a question, for scripts.")]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda or cuda:N.")]
Workers = Annotated[
    Any,
    typer.Option(
        parser=number_or_auto,
        metavar="N|auto",
        help="Local processes; auto: one for each core of a CPU, or for each GPU.",
    ),
]
RunWorkers = Annotated[
    Any,
    typer.Option(
        parser=zero_or_more_or_auto,
        metavar="N|auto",
        help="Processes; auto: one for each core of a CPU, or for each GPU. 0: only make the study.",
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS|auto|local",
        help="Workers on a Ray cluster: HOST:PORT; the one that runs here; or a local one for this command.",
    ),
]
GpusPerWorker = Annotated[
    float | None,
    typer.Option(
        parser=share_of_gpu,
        metavar="SHARE",
        help="With --ray: each worker's share of a GPU, 0 to 1.  [1 if the cluster has any, else 0]",
    ),
]
PerGpu = Annotated[
    Any,
    typer.Option(
        parser=number_or_auto,
        metavar="N|auto",
        help="Trials that a worker trains side by side on its GPU; auto: by the work of a step.",
    ),
]
Graphs = Annotated[
    bool,
    typer.Option("--graphs/--no-graphs", help="Capture steps on a GPU in CUDA graphs; the numbers stay."),
]
OtherDataset = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        metavar="NAME|FOLDER",
        help="Where the study's images are, if not where they were.",
    ),
]
