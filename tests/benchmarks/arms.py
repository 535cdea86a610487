"""The arms of ``throughput.py``: the command that each runs, and what is read from it once it has ended."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from bench_data import SEED
from recording import HERE
from watching import Ran
from whole_search import stored_study

Group = Literal["search", "accuracy", "fast", "pruned"]
Figures = dict[str, Any]
ACCURACY_RUNS = 5
PRUNED_TRIALS = 50
CLOSED = ("COMPLETE", "PRUNED")
MOST_SLOTS = 16
USUAL_SLOTS = (1, 2, 4, 8)
"""Numbers of slots on a GPU that are measured unless other arms are asked for."""
GPU_ORDER = (
    *("ours-auto", "plain-8", "fast-ours", "fast-compiled", "pruned-50"),
    *("ours-1", "ours-1-eager", "ours-4", "ours-8", "ours-2", "plain-0"),
)
"""What answers the bars comes first, since time on a GPU may be short; arms without a place come last."""


@dataclass(frozen=True)
class Setup:
    """What all arms share."""

    device: str
    dataset: str
    """As ``cifar-search --dataset`` takes it."""
    train_size: int | None
    val_size: int | None
    train_images: int
    epochs: int
    batch_size: int
    trials: int
    """Of the search that all arms are about."""
    folder: Path
    """Holds the arrays, the space and the configurations."""

    @property
    def images_per_trial(self) -> int:
        """Images trained on in all epochs; the last, partial batch of an epoch is left out."""
        return self.epochs * (self.train_images // self.batch_size) * self.batch_size

    def file(self, name: str) -> Path:
        return self.folder / name


@dataclass(frozen=True)
class Arm:
    """One thing that is measured."""

    name: str
    description: str
    group: Group
    command: tuple[str, ...]
    read: Callable[[Setup, Ran, Path], Figures]
    """From what ran, and the folder that it ran in; a ValueError if it did not do what it should, or was cut
    off before anything was finished."""
    usual: bool = True
    """Whether it is measured without being asked for."""


def all_arms(setup: Setup, plain_trials: dict[int, int]) -> list[Arm]:
    """All that this machine can run, usual or not, in the order of a round; ``plain_trials`` by number of
    workers."""
    cuda = setup.device == "cuda"
    plain = [plain_arm(setup, workers, trials) for workers, trials in plain_trials.items()]
    repeated = [ours_accuracy(setup), plain_accuracy(setup, max(plain_trials))]
    fast = [fast_ours(setup), fast_compiled(setup)]
    if not cuda:
        return [*ours_on_cpu(setup), *plain, *repeated, *fast]
    return sorted([*ours_on_gpu(setup), *plain, *fast, pruned(setup), *repeated], key=place)


def place(arm: Arm) -> int:
    """In the order of a GPU's arms."""
    return GPU_ORDER.index(arm.name) if arm.name in GPU_ORDER else len(GPU_ORDER)


# Searches of the benchmark's space.


def ours_on_cpu(setup: Setup) -> list[Arm]:
    return [
        ours(setup, "ours-1", "cifar-search, one worker of one thread", "--workers", "1"),
        ours(setup, "ours-auto", "cifar-search, a worker for each core", "--workers", "auto"),
    ]


def ours_on_gpu(setup: Setup) -> list[Arm]:
    eager = ours(
        setup, "ours-1-eager", "cifar-search, one slot without CUDA graphs", "--per-gpu", "1", "--no-graphs"
    )
    auto = ours(setup, "ours-auto", "cifar-search, auto slots", "--per-gpu", "auto")
    return [*(ours_of_slots(setup, slots) for slots in range(1, MOST_SLOTS + 1)), eager, auto]


def ours_of_slots(setup: Setup, slots: int) -> Arm:
    words = "one slot" if slots == 1 else f"{slots} slots"
    arm = ours(setup, f"ours-{slots}", f"cifar-search, {words}", "--per-gpu", str(slots))
    return replace(arm, usual=slots in USUAL_SLOTS)


def ours(setup: Setup, name: str, description: str, *options: str) -> Arm:
    """The real command on a new database."""
    space = ("--space", str(setup.file("space.yaml")), "--trials", str(setup.trials), "--pruner", "none")
    return Arm(name, description, "search", (*command(setup), *space, *options), read_ours)


def command(setup: Setup) -> tuple[str, ...]:
    sizes = [("--train-size", setup.train_size), ("--val-size", setup.val_size)]
    return (
        *(sys.executable, "-m", "search.cli", "run", "--seed", str(SEED)),
        *("--dataset", setup.dataset, "--device", "cuda:0" if setup.device == "cuda" else "cpu"),
        *(part for option, size in sizes if size for part in (option, str(size))),
    )


def read_ours(setup: Setup, ran: Ran, folder: Path) -> Figures:
    from studies.record import STUDY

    closed = closed_trials(ran, folder, setup.trials)
    return closed.figures(ran, setup.trials, setup.images_per_trial) | {
        "epoch_images_per_second": statistics.median(
            outcome.images_per_second for outcome in closed.outcomes if outcome.images_per_second
        ),
        "diverged": sum(outcome.reason == "diverged" for outcome in closed.outcomes),
        "split": closed.study.user_attrs[STUDY]["split"]["hash"],
    }


@dataclass(frozen=True)
class Closed:
    """The trials of a ``cifar-search`` search that ended by themselves."""

    study: Any
    trials: Sequence[Any]
    outcomes: Sequence[Any]

    def figures(self, ran: Ran, wanted: int, images: int | None = None) -> Figures:
        """Of the search of ``wanted`` trials; missing ones are added at the mean time from the first trial's
        beginning to the last one's end, which counts those that were cut off at work as nothing."""
        begin = min(trial.datetime_start for trial in self.trials).timestamp()
        ends = [trial.datetime_complete.timestamp() for trial in self.trials]
        another = (max(ends) - begin) / len(ends)
        done = Done(ran, len(ends), max(ends), another)
        return done.search(wanted, images) | {
            "first_result_seconds": min(ends) - ran.begin,
            "searching_idle_share": ran.idle_share(begin, max(ends)),
            "best_accuracy": best(trial.value for trial in self.trials if trial.state.name == "COMPLETE"),
            **eager_figures([outcome.eager for outcome in self.outcomes]),
        }


def closed_trials(ran: Ran, folder: Path, wanted: int) -> Closed:
    """Read the study; a ValueError if trials are missing, unless the search was cut off after the first."""
    from studies.record import outcome_of

    study = stored_study(folder)
    trials = [trial for trial in study.get_trials() if trial.state.name in CLOSED] if study else []
    require_some(ran, len(trials))
    if len(trials) != wanted and not ran.cut_off:
        raise ValueError(f"{len(trials)} of {wanted} trials were closed")
    return Closed(study, trials, [outcome for trial in trials if (outcome := outcome_of(trial))])


def require_some(ran: Ran, finished: int) -> None:
    if not finished and ran.cut_off:
        raise ValueError(f"cut off after {ran.seconds:.0f} s, with nothing finished")
    if not finished:
        raise ValueError("it ended without any result")


def best(values: Iterable[float]) -> float | None:
    return max(values, default=None)


def eager_figures(reasons: Sequence[str]) -> Figures:
    """How many trials or runs were launched operation by operation on a GPU, and why the first was."""
    eager = [reason for reason in reasons if reason]
    return {"eager": len(eager), "eager_reason": eager[0] if eager else ""}


def plain_arm(setup: Setup, workers: int, trials: int) -> Arm:
    """Optuna around torchvision and a DataLoader."""
    loading = f"DataLoader with {workers} workers" if workers else "DataLoader without workers"
    run = (*plain_command(setup, workers), "--trials", str(trials), "--seed", str(SEED))
    name = f"plain-{workers}"
    return Arm(name, f"Optuna and torchvision, {loading}", "search", run, read_plain)


def plain_command(setup: Setup, workers: int, space: str = "space.yaml") -> tuple[str, ...]:
    return (
        *(sys.executable, str(HERE / "plain_search.py"), "--data", str(setup.folder)),
        *("--space", str(setup.file(space))),
        *("--workers", str(workers), "--device", setup.device),
    )


def read_plain(setup: Setup, ran: Ran, _folder: Path) -> Figures:
    """Missing trials are added at the mean time of those after the first."""
    trials = lines(ran)
    require_some(ran, len(trials))
    another = statistics.fmean(trial["seconds"] for trial in trials[1:] or trials)
    first, last = trials[0], trials[-1]
    done = Done(ran, len(trials), last["ended"], another)
    return done.search(setup.trials, setup.images_per_trial) | {
        "first_result_seconds": first["ended"] - ran.begin,
        "searching_idle_share": ran.idle_share(first["ended"] - first["seconds"], last["ended"]),
        "epoch_images_per_second": statistics.median(
            speed for trial in trials for speed in trial["epoch_speeds"]
        ),
        "best_accuracy": best(trial["accuracy"] for trial in trials),
    }


@dataclass(frozen=True)
class Done:
    """What was measured of a search."""

    ran: Ran
    trials: int
    last_end: float
    """Of a trial, in seconds since 1970."""
    another: float
    """Seconds that one trial more would take."""

    def search(self, wanted: int, images_per_trial: int | None) -> Figures:
        """Of the whole search of ``wanted`` trials: as long as it took, or, where it was cut off, until the
        last of its trials ended, and the time of the missing ones."""
        end = self.last_end if self.ran.cut_off else self.ran.end
        seconds = end - self.ran.begin + (wanted - self.trials) * self.another
        images = {"images_per_second": wanted * images_per_trial / seconds} if images_per_trial else {}
        return {
            "trials_measured": self.trials,
            "trials_wanted": wanted,
            "cut_off": self.ran.cut_off,
            "wall_seconds": self.ran.seconds,
            "search_seconds": seconds,
            "trials_per_hour": 3600 * wanted / seconds,
            **images,
        }


# The same configuration with several seeds, and the fastest published training.


def ours_accuracy(setup: Setup) -> Arm:
    return runs_of_ours(setup, "accuracy-ours", "this engine, the space's base", "accuracy", "vgg.yaml")


def plain_accuracy(setup: Setup, workers: int) -> Arm:
    run = (*plain_command(setup, workers, "accuracy.yaml"), "--trials", str(ACCURACY_RUNS), "--fixed")
    return Arm("accuracy-plain", "plain loop, the space's base", "accuracy", run, read_accuracies)


def read_accuracies(_setup: Setup, ran: Ran, _folder: Path) -> Figures:
    accuracies = [run["accuracy"] for run in lines(ran)]
    require_some(ran, len(accuracies))
    return {"wall_seconds": ran.seconds, "cut_off": ran.cut_off, "accuracies": accuracies}


def fast_ours(setup: Setup) -> Arm:
    return runs_of_ours(setup, "fast-ours", "this engine, the base of fast-94", "fast", "fast.yaml")


def fast_compiled(setup: Setup) -> Arm:
    text = "airbench's method with torch.compile from an empty cache"
    return Arm("fast-compiled", text, "fast", runs_command(setup, "airbench.py", "fast.yaml"), read_runs)


def runs_of_ours(setup: Setup, name: str, description: str, group: Group, configuration: str) -> Arm:
    return Arm(name, description, group, runs_command(setup, "ours_runs.py", configuration), read_runs)


def runs_command(setup: Setup, script: str, configuration: str) -> tuple[str, ...]:
    return (
        *(sys.executable, str(HERE / script), "--data", str(setup.folder)),
        *("--configuration", str(setup.file(configuration))),
        *("--runs", str(ACCURACY_RUNS), "--device", setup.device),
    )


def read_runs(_setup: Setup, ran: Ran, _folder: Path) -> Figures:
    told = lines(ran)
    runs = [line for line in told if "seconds" in line]
    require_some(ran, len(runs))
    ours = all("eager" in run for run in runs)
    return {
        "wall_seconds": ran.seconds,
        "cut_off": ran.cut_off,
        "compile_seconds": next(
            (line["compile_seconds"] for line in told if "compile_seconds" in line), None
        ),
        "run_seconds": [run["seconds"] for run in runs],
        "accuracies": [run["accuracy"] for run in runs],
        "tta_accuracies": [run["tta_accuracy"] for run in runs],
        **(eager_figures([run["eager"] for run in runs]) if ours else {}),
    }


def pruned(setup: Setup) -> Arm:
    """A search of a built-in space with the default pruner, at its own number of epochs."""
    run = (*command(setup), "--space", "regularization", "--trials", str(PRUNED_TRIALS))
    text = f"{PRUNED_TRIALS} trials of `regularization`, default pruner"
    return Arm(f"pruned-{PRUNED_TRIALS}", text, "pruned", run, read_pruned)


def read_pruned(_setup: Setup, ran: Ran, folder: Path) -> Figures:
    closed = closed_trials(ran, folder, PRUNED_TRIALS)
    pruned = sum(trial.state.name == "PRUNED" for trial in closed.trials)
    return closed.figures(ran, PRUNED_TRIALS) | {"pruned": pruned}


def lines(ran: Ran) -> list[dict[str, Any]]:
    """The lines of JSON that a script printed; one that it did not come to the end of is left out."""
    whole, _, _ = ran.output.rpartition("\n")
    return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
