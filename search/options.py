"""The options that commands share, and parsers whose refusals name the rule and the value."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

DEFAULT_STORAGE = "sqlite:///cifar-search.db"


def whole(least: int) -> Callable[[str], int]:
    """A parser of whole numbers from ``least`` on."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[+-]?\d{1,18}", str(text)) or int(text) < least:
            raise typer.BadParameter(f"must be a whole number of at least {least}, but got {text!r}")
        return int(text)

    return parse


def seconds(text: str) -> float:
    """Parse a time: 90, 90s, 10m or 2h."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    value = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if value <= 0:
        raise typer.BadParameter(f"must be a positive time such as 90, 90s, 10m or 2h, but got {text!r}")
    return value


def share_or_count(text: str) -> float:
    """Parse a share between 0 and 1 (as a float) or a count of at least 1 (as an int)."""
    if re.fullmatch(r"\d{1,18}", text) and int(text) >= 1:
        return int(text)
    if re.fullmatch(r"0?\.\d+", text) and 0 < float(text) < 1:
        return float(text)
    raise typer.BadParameter(f"must be a share between 0 and 1 or a whole number of images, but got {text!r}")


def number_or_auto(text: str) -> int | None:
    """Parse a whole number of at least 1, or auto (None)."""
    return None if text == "auto" else whole(1)(text)


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
    typer.Option(parser=whole(1), metavar="N", help="Resize all images to this many pixels square."),
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
    int, typer.Option(parser=whole(0), metavar="N", help="Seed of the split, the sampler and the trainings.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda or cuda:N.")]
Workers = Annotated[
    Any,
    typer.Option(
        parser=number_or_auto,
        metavar="N|auto",
        help="Local processes; auto: one for each core of a CPU, or for each GPU.",
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
