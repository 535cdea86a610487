"""How fast a search is: this program beside what people use, end to end, start-up included.

    python tests/benchmarks/throughput.py [--images FOLDER|cifar10] [--rounds 3] [--output FILE.json]

One command, on an NVIDIA GPU or on a CPU. Every arm is a command of its own in a fresh process and an empty
folder; the arms take turns, round by round, on the same decoded images and the same split, and ratios are
taken within a round, so that what slows the machine for a while slows both sides of a ratio. Each result is
written as soon as it is there; ``--continue`` adds what a file lacks. With ``--arm-timeout`` and ``--budget``
arms are cut off, and what they had finished by then is kept.

README.md beside this file says what the arms are and how long they take.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from arms import Arm, Setup, all_arms
from bench_data import SYNTHETIC, prepare
from recording import HERE, RESULTS, hardware, load, store
from throughput_report import report
from watching import Ran, never, watch


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


class Clock:
    """The time that the command has, and each of its arms."""

    def __init__(self, begin: float, budget: float | None, arm_timeout: float | None) -> None:
        """From ``begin`` on, by the monotonic clock, in seconds; None: without end."""
        self._end = begin + budget if budget is not None else None
        self._arm_timeout = arm_timeout

    def is_over(self) -> bool:
        """Whether nothing may run any more."""
        return self._end is not None and time.monotonic() >= self._end

    def of_arm(self) -> Callable[[], bool]:
        """For an arm that begins now: says whether its time is over."""
        begin, most = time.monotonic(), self._arm_timeout
        return lambda: self.is_over() or (most is not None and time.monotonic() - begin >= most)


def main() -> None:
    """Measure round by round, store after each arm, then report."""
    begin = time.monotonic()
    device = "cuda" if hardware()["gpu"] else "cpu"
    arguments = parse(device)
    clock = Clock(begin, arguments.budget, arguments.arm_timeout)
    output = arguments.output or RESULTS / f"throughput-{device}.json"
    with tempfile.TemporaryDirectory() as name:
        settings, arms, setup = set_up(arguments, device, Path(name))
        measurements = earlier(output, settings) if arguments.resume else []
        due = [
            (arm, number)
            for number in range(1, arguments.rounds + 1)
            for arm in arms
            if is_due(arm, number, measurements)
        ]
        while due and not clock.is_over():
            measurements.append(measure(*due.pop(0), setup, clock.of_arm()))
            store(f"throughput-{device}", output, settings, {"measurements": measurements})
        if measurements:
            report(output)
        tell_left_out(due)


def tell_left_out(due: Sequence[tuple[Arm, int]]) -> None:
    if due:
        arms = ", ".join(f"{arm.name} (round {number})" for arm, number in due)
        print(f"left out, for want of time (--continue measures them): {arms}")


def parse(device: str, words: Sequence[str] | None = None) -> argparse.Namespace:
    """``words`` None: on the command line."""
    usual = DEFAULTS[device]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--images",
        default=usual.images,
        help=f"cifar10, a folder (train/CLASS/*), or {SYNTHETIC}; default here: {usual.images}",
    )
    add = parser.add_argument
    add("--size", type=int, default=usual.size, help=f"training images (here {usual.size or 'all'})")
    add("--val-size", type=int, default=usual.val_size, help=f"(here {usual.val_size or 'a tenth'})")
    add("--epochs", type=int, default=usual.epochs, help=f"of a trial (here {usual.epochs})")
    add(
        "--accuracy-epochs",
        type=int,
        default=usual.accuracy_epochs,
        help=f"of a training compared by accuracy (here {usual.accuracy_epochs})",
    )
    add("--trials", type=int, default=20, help="of the search (default 20)")
    add("--plain-trials", type=int, help="that the plain arms measure of these (default: README.md)")
    add("--rounds", type=int, default=1, help="measurements of each arm (default 1)")
    add("--arms", nargs="+", metavar="ARM", help="only these")
    add(
        "--arm-timeout",
        type=float,
        metavar="SECONDS",
        default=usual.arm_timeout,
        help=f"that an arm may take before it is cut off (here {usual.arm_timeout or 'without end'})",
    )
    add("--budget", type=float, metavar="SECONDS", help="of the whole command; no arm begins after it")
    add("--output", type=Path, help=f"JSON file (default: results/throughput-{device}.json)")
    add("--continue", dest="resume", action="store_true", help="keep what the file has")
    return parser.parse_args(words)


def set_up(
    arguments: argparse.Namespace, device: str, folder: Path
) -> tuple[dict[str, Any], list[Arm], Setup]:
    """Decode the images, write what the arms read, and list the arms."""
    usual = DEFAULTS[device]
    about = prepare(arguments.images, arguments.size, arguments.val_size, folder)
    setup = Setup(
        device=device,
        dataset=about.pop("dataset"),
        train_size=arguments.size,
        val_size=arguments.val_size,
        train_images=about["train_images"],
        epochs=arguments.epochs,
        batch_size=min(usual.batch_size, about["train_images"]),
        trials=arguments.trials,
        folder=folder,
    )
    fast = {key: min(value, setup.train_images) for key, value in usual.fast.items()}
    configurations = write_configurations(setup, arguments.accuracy_epochs, fast)
    plain_trials = {
        workers: min(arguments.plain_trials or trials or setup.trials, setup.trials)
        for workers, trials in usual.plain_trials.items()
    }
    arms = all_arms(setup, plain_trials)
    if arguments.arms:
        arms = chosen(arms, arguments.arms)
    settings = about | {
        "device": device,
        "epochs": setup.epochs,
        "batch_size": setup.batch_size,
        "trials": setup.trials,
        "load_before": load(),
        "configurations": configurations,
    }
    return settings, arms, setup


def chosen(arms: list[Arm], names: list[str]) -> list[Arm]:
    known = [arm.name for arm in arms]
    for name in names:
        if name not in known:
            raise SystemExit(f"--arms: must be some of {', '.join(known)}, but got {name}")
    return [arm for arm in arms if arm.name in names]


def write_configurations(setup: Setup, accuracy_epochs: int, fast: dict[str, int]) -> dict[str, Any]:
    """The space with this benchmark's batches and epochs, the same with those of the trainings compared by
    accuracy, the base of that, and the base of ``fast-94``."""
    from spaces.space import Space

    space = yaml.safe_load((HERE / "three-block-vgg.yaml").read_text(encoding="utf-8"))
    space["base"]["training"] = {"epochs": setup.epochs, "batch_size": setup.batch_size}
    training = space["base"]["training"] | {"epochs": accuracy_epochs}
    accuracy = space | {"base": space["base"] | {"training": training}}
    fast_94 = Space.load("fast-94").base.tree()
    fast_94["training"] |= fast
    trees = {"space": space, "accuracy": accuracy, "vgg": accuracy["base"], "fast": fast_94}
    for name, tree in trees.items():
        setup.file(f"{name}.yaml").write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    return {name: trees[name] for name in ("space", "vgg", "fast")}


def earlier(output: Path, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """What the file has; its errors are tried again."""
    if not output.exists():
        return []
    stored = json.loads(output.read_text(encoding="utf-8"))
    changed = [
        key for key in settings if key != "load_before" and stored["settings"].get(key) != settings[key]
    ]
    if changed:
        raise SystemExit(f"--continue: {output} was measured with other settings: {', '.join(changed)}")
    return [measurement for measurement in stored["measurements"] if "error" not in measurement]


def is_due(arm: Arm, number: int, measurements: list[dict[str, Any]]) -> bool:
    """Searches are measured in every round; what repeats itself over seeds, once."""
    if number > 1 and arm.group != "search":
        return False
    return not any(done["arm"] == arm.name and done["round"] == number for done in measurements)


def measure(arm: Arm, number: int, setup: Setup, is_over: Callable[[], bool] = never) -> dict[str, Any]:
    """Run an arm's command until it ends or ``is_over``; one that fails says so in its place."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        ran = watch(arm.command, Path(name), setup.device, is_over)
        figures = figures_of(arm, setup, ran, Path(name))
    words = figures.get("error", f"{ran.seconds:.1f} s{', cut off' if ran.cut_off else ''}")
    print(f"round {number}, {arm.name}: {words}", flush=True)
    return {"arm": arm.name, "description": arm.description, "group": arm.group, "round": number, **figures}


def figures_of(arm: Arm, setup: Setup, ran: Ran, folder: Path) -> dict[str, Any]:
    """What an arm measured, or its error."""
    if ran.code != 0 and not ran.cut_off:
        return {"error": last_words(ran)}
    try:
        return arm.read(setup, ran, folder) | ran.figures
    except ValueError as error:
        return {"error": str(error)}


def last_words(ran: Ran) -> str:
    """Of a command that failed."""
    lines = (ran.errors.strip() or ran.output.strip()).splitlines() or [f"it ended with {ran.code}"]
    return lines[-1]


if __name__ == "__main__":
    main()
