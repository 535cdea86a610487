"""What ``throughput.py`` is told: its options, what suits a device, and mistakes found before all else."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from argparse import ArgumentTypeError
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from arms import Setup, all_arms
from bench_data import SYNTHETIC, absolute
from recording import RESULTS

DESCRIPTION = """How fast a search is: this program beside what people use, end to end, start-up included.

Exit codes: 0; 1, an arm failed, or none was measured; 2, a mistake in an option; 130, 143, 129, ended by
SIGINT, SIGTERM, SIGHUP, with what was finished written down."""


@dataclass(frozen=True)
class Defaults:
    """What suits a device, so that a round takes about a quarter of an hour."""

    images: str
    size: int | None
    """Training images; None: all."""
    val_size: int | None
    epochs: int
    accuracy_epochs: int
    """Of the trainings that are compared by accuracy."""
    batch_size: int
    plain_trials: dict[int, int | None]
    """Trials of the plain arms, by DataLoader workers; None: as many as of ours."""
    fast: dict[str, int]
    """What of ``fast-94`` is changed."""
    arm_timeout: float | None = None
    """Seconds; None: none."""


DEFAULTS = {
    "cpu": Defaults(
        images=os.environ.get("CIFAR_SEARCH_TEST_IMAGES", SYNTHETIC),
        size=1792,
        val_size=500,
        epochs=2,
        accuracy_epochs=6,
        batch_size=128,
        plain_trials={0: None, 2: None},
        fast={"epochs": 1, "batch_size": 128},
    ),
    "cuda": Defaults("cifar10", None, None, 8, 4, 512, {0: 1, 8: 3}, {}, arm_timeout=200),
}


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message.removeprefix('argument ')}\n")


def parse(device: str, words: Sequence[str] | None = None) -> argparse.Namespace:
    """``words`` None: on the command line. Mistakes end the program with exit code 2."""
    parser = with_options(device)
    arguments = parser.parse_args(words)
    if arguments.images == SYNTHETIC and not (arguments.size and arguments.val_size):
        parser.error(f"--images {SYNTHETIC}: --size and --val-size must be given, too")
    if arguments.resume:
        try:
            stored_results(arguments.output)
        except ValueError as error:
            parser.error(f"--continue: {error}")
    return arguments


def with_options(device: str) -> Parser:
    usual = DEFAULTS[device]
    known = names_of_arms(device, usual.plain_trials)
    parser = Parser(
        prog="throughput.py", description=DESCRIPTION, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    folder = f"cifar10, a folder (train/CLASS/*), or {SYNTHETIC}"
    add("--images", type=images, default=usual.images, help=f"{folder}; default here: {usual.images}")
    add("--size", type=count, default=usual.size, help=f"training images (here {usual.size or 'all'})")
    add("--val-size", type=count, default=usual.val_size, help=f"(here {usual.val_size or 'a tenth'})")
    add("--epochs", type=count, default=usual.epochs, help=f"of a trial (here {usual.epochs})")
    compared = f"of a training compared by accuracy (here {usual.accuracy_epochs})"
    add("--accuracy-epochs", type=count, default=usual.accuracy_epochs, help=compared)
    add("--trials", type=count, default=20, help="of the search (default 20)")
    add("--plain-trials", type=count, help="that the plain arms measure of these (default: README.md)")
    add("--rounds", type=count, default=1, help="measurements of each arm (default 1)")
    add("--arms", nargs="+", metavar="ARM", type=one_of(known), help=f"only these of {', '.join(known)}")
    limit = f"that an arm may take before it is cut off (here {usual.arm_timeout or 'without end'})"
    add("--arm-timeout", type=some_seconds, metavar="SECONDS", default=usual.arm_timeout, help=limit)
    add("--budget", type=seconds, metavar="SECONDS", help="of the whole command; no arm begins after it")
    usual_output = str(RESULTS / f"throughput-{device}.json")
    told = f"JSON file (default: results/throughput-{device}.json)"
    add("--output", type=output_file, default=usual_output, metavar="FILE", help=told)
    add("--continue", dest="resume", action="store_true", help="keep what the file has")
    add("--quiet", action="store_true", help="print a line for each arm, and no tables")
    return parser


def names_of_arms(device: str, plain_workers: Collection[int]) -> list[str]:
    """All that this kind of machine can run, which no other setting changes."""
    setup = Setup(device, "", None, None, 1, 1, 1, 1, Path())
    return [arm.name for arm in all_arms(setup, dict.fromkeys(plain_workers, 1))]


# Types of options. What they raise is shown behind the option's name.


def count(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise ArgumentTypeError(f"must be a whole number of at least 1, but got {text}")
    return number


def seconds(text: str) -> float:
    number = _number(text)
    if not number >= 0:
        raise ArgumentTypeError(f"must be at least 0 seconds, but got {text}")
    return number


def some_seconds(text: str) -> float:
    number = _number(text)
    if not number > 0:
        raise ArgumentTypeError(f"must be more than 0 seconds, but got {text}")
    return number


def _number(text: str) -> float:
    """NaN, which is no more than anything, for what is none."""
    try:
        return float(text)
    except ValueError:
        return float("nan")


def one_of(known: Sequence[str]) -> Callable[[str], str]:
    def arm(text: str) -> str:
        if text not in known:
            raise ArgumentTypeError(f"must be some of {', '.join(known)}, but got {text}")
        return text

    return arm


def images(text: str) -> str:
    """A data set's name, or a folder that exists."""
    from search.data.sources import SOURCES

    names = (SYNTHETIC, *SOURCES)
    if not text or (text not in names and not os.path.isdir(absolute(text))):  # noqa: PTH112  also of names too long
        raise ArgumentTypeError(
            f"must be a folder that exists, or one of {', '.join(names)}, but got {text!r}"
        )
    return text


def output_file(text: str) -> Path:
    """A file that can be written, which is tried in the nearest folder that there is. Nothing is left."""
    path = Path(text)
    try:
        if path.exists() and not path.is_file():
            raise ArgumentTypeError(
                f"must be a file, but {path} is {'a folder' if path.is_dir() else 'none'}"
            )
        with tempfile.TemporaryFile(
            dir=next(folder for folder in path.absolute().parents if folder.exists())
        ):
            pass
    except OSError as error:
        reason = error.strerror or "it cannot be"
        raise ArgumentTypeError(f"must be a file that can be written, but got {path} ({reason})") from None
    if path.suffix == ".png":
        raise ArgumentTypeError(f"must not end in .png, as the chart beside it does, but got {path}")
    return path


def stored_results(path: Path) -> dict[str, Any] | None:
    """What this script stored earlier; None if there is no file.

    Raises:
        ValueError: if it is damaged, or something else.
    """
    if not path.exists():
        return None
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise ValueError(f"{path} is damaged, or no JSON; remove it, or choose another --output") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror})") from None
    if not is_result(stored):
        raise ValueError(f"{path} is no result of this script; choose another --output")
    return stored


def is_result(stored: Any) -> bool:
    if not isinstance(stored, dict) or not str(stored.get("benchmark")).startswith("throughput-"):
        return False
    measurements = stored.get("measurements")
    return (
        isinstance(stored.get("settings"), dict)
        and isinstance(measurements, list)
        and all(isinstance(one, dict) and {"arm", "group", "round"} <= one.keys() for one in measurements)
    )
