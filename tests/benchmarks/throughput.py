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
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from arms import Arm, Setup, all_arms
from bench_data import prepare
from guarding import Guard
from recording import HERE, hardware, load, store
from stopping import Stop, tell
from throughput_options import DEFAULTS, parse, stored_results
from watching import Ran, never, watch

OPTIONS = {"--dataset": "--images", "--train-size": "--size", "--data-dir or ": ""}
"""What the search command calls the options of this one."""


class Clock:
    """The time that the command has, and each of its arms."""

    def __init__(
        self,
        begin: float,
        budget: float | None,
        arm_timeout: float | None,
        is_stopped: Callable[[], bool] = never,
    ) -> None:
        """From ``begin`` on, by the monotonic clock, in seconds; None: without end, unless ``is_stopped``."""
        self._end = begin + budget if budget is not None else None
        self._arm_timeout, self._is_stopped = arm_timeout, is_stopped

    def is_over(self) -> bool:
        """Whether nothing may run any more."""
        return self._is_stopped() or (self._end is not None and time.monotonic() >= self._end)

    def of_arm(self) -> Callable[[], bool]:
        """For an arm that begins now: says whether its time is over."""
        begin, most = time.monotonic(), self._arm_timeout
        return lambda: self.is_over() or (most is not None and time.monotonic() - begin >= most)


@dataclass
class Record:
    """The file of results, and what this command added to it."""

    name: str
    path: Path
    settings: dict[str, Any]
    measurements: list[dict[str, Any]]
    added: list[dict[str, Any]] = field(default_factory=list)

    def add(self, one: dict[str, Any]) -> None:
        """Write it down at once."""
        self.measurements.append(one)
        self.added.append(one)
        store(self.name, self.path, self.settings, {"measurements": self.measurements})

    def code(self, wanted: int) -> int:
        """The command's exit code, if so many measurements were due: 1 if one failed, or none was done."""
        return int(any("error" in one for one in self.added) or (wanted > 0 and not self.added))

    def text(self) -> str:
        """What a command says of it that was ended early."""
        if not self.added:
            return "nothing was measured"
        arms = ", ".join(one["arm"] for one in self.added)
        return f"{self.path} has what was measured of {arms} (--continue measures the rest)"


def main() -> None:
    """Measure, and exit as ``--help`` says."""
    begin, stop = time.monotonic(), Stop()
    code, done = 1, "nothing was measured"
    try:
        code, done = measure_all(begin, stop)
    except BaseException:  # ``Stopped``, or what a library made of it
        if not stop.number:
            raise
    if stop.number:
        tell(f"throughput.py: ended by {stop.number.name}: {done}", sys.stderr)
        code = 128 + stop.number
    sys.exit(code)


def measure_all(begin: float, stop: Stop) -> tuple[int, str]:
    """Measure round by round, store after each arm, then report; the exit code, and what was done."""
    device = "cuda" if hardware()["gpu"] else "cpu"
    arguments = parse(device)
    clock = Clock(begin, arguments.budget, arguments.arm_timeout, stop.came)
    with Guard() as guard, tempfile.TemporaryDirectory() as name:
        guard.add(Path(name))
        arms, setup, record = set_up_or_refuse(arguments, device, Path(name))
        due = all_due(arms, arguments.rounds, record.measurements)
        wanted = len(due)
        with stop.held():
            while due and not clock.is_over():
                one = measure(*due.pop(0), setup, guard, clock.of_arm())
                if not (stop.came() and "error" in one):  # an arm that had nothing is as one not begun
                    record.add(one)
                    tell(line_of(one))
            if not stop.came():
                show(record, due, arguments.quiet)
    return record.code(wanted), record.text()


def set_up_or_refuse(
    arguments: argparse.Namespace, device: str, folder: Path
) -> tuple[list[Arm], Setup, Record]:
    """What there is to measure; what the images or an earlier file make impossible ends the program."""
    try:
        settings, arms, setup = set_up(arguments, device, folder)
        measurements = earlier(arguments.output, settings) if arguments.resume else []
    except (ValueError, OSError) as error:
        text = str(error)
        for theirs, ours in OPTIONS.items():
            text = text.replace(theirs, ours)
        tell(f"throughput.py: {text}", sys.stderr)
        sys.exit(2)
    return arms, setup, Record(f"throughput-{device}", arguments.output, settings, measurements)


def all_due(arms: Sequence[Arm], rounds: int, measurements: list[dict[str, Any]]) -> list[tuple[Arm, int]]:
    """Arms and the numbers of their rounds, in turn."""
    numbers = range(1, rounds + 1)
    return [(arm, number) for number in numbers for arm in arms if is_due(arm, number, measurements)]


def show(record: Record, left_out: Sequence[tuple[Arm, int]], quiet: bool) -> None:
    """The tables, and what there was no time for."""
    from throughput_report import report  # here, since a signal in its long imports would leave a traceback

    if record.measurements:
        report(record.path, quiet)
    if left_out:
        arms = ", ".join(f"{arm.name} (round {number})" for arm, number in left_out)
        tell(f"left out, for want of time (--continue measures them): {arms}")


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
    arms = chosen(all_arms(setup, plain_trials), arguments.arms)
    settings = about | {
        "device": device,
        "epochs": setup.epochs,
        "batch_size": setup.batch_size,
        "trials": setup.trials,
        "load_before": load(),
        "configurations": configurations,
    }
    return settings, arms, setup


def chosen(arms: list[Arm], names: list[str] | None) -> list[Arm]:
    """Those of these names; None: the usual ones."""
    return [arm for arm in arms if (arm.usual if names is None else arm.name in names)]


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
    stored = stored_results(output)
    if stored is None:
        return []
    changed = [
        key for key in settings if key != "load_before" and stored["settings"].get(key) != settings[key]
    ]
    if changed:
        raise ValueError(f"--continue: {output} was measured with other settings: {', '.join(changed)}")
    return [measurement for measurement in stored["measurements"] if "error" not in measurement]


def is_due(arm: Arm, number: int, measurements: list[dict[str, Any]]) -> bool:
    """Searches are measured in every round; what repeats itself over seeds, once."""
    if number > 1 and arm.group != "search":
        return False
    return not any(done["arm"] == arm.name and done["round"] == number for done in measurements)


def measure(
    arm: Arm, number: int, setup: Setup, guard: Guard, is_over: Callable[[], bool] = never
) -> dict[str, Any]:
    """Run an arm's command until it ends or ``is_over``; one that fails says so in its place."""
    with tempfile.TemporaryDirectory(dir=setup.folder, ignore_cleanup_errors=True) as name:
        ran = watch(arm.command, Path(name), setup.device, guard, is_over)
        figures = figures_of(arm, setup, ran, Path(name))
    return {"arm": arm.name, "description": arm.description, "group": arm.group, "round": number, **figures}


def line_of(one: dict[str, Any]) -> str:
    """What is said of an arm as soon as it has ended."""
    begin = f"round {one['round']}, {one['arm']}: "
    if "error" in one:
        return begin + str(one["error"])
    if "trials_per_hour" in one:
        begin += f"{one['trials_per_hour']:.0f} trials/h from {one['trials_measured']} trials, "
    return f"{begin}{one['wall_seconds']:.1f} s{', cut off' if one['cut_off'] else ''}"


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
