"""The arms of ``throughput.py``: the command that each runs, and what is read from it once it has ended."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench_data import SEED
from recording import HERE
from watching import Ran
from whole_search import stored_study

Group = Literal["search", "accuracy", "fast", "pruned"]
Figures = dict[str, Any]
ACCURACY_RUNS = 5


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
    """From what ran, and the folder that it ran in; a ValueError if it did not do what it should."""

    @property
    def ours(self) -> bool:
        return self.name.startswith("ours")


def all_arms(setup: Setup, plain_trials: dict[int, int]) -> list[Arm]:
    """All that this machine can run, in the order of a round; ``plain_trials`` by number of workers."""
    cuda = setup.device == "cuda"
    plain = [plain_arm(setup, workers, trials) for workers, trials in plain_trials.items()]
    repeated = [ours_accuracy(setup), plain_accuracy(setup, max(plain_trials))]
    fast = [fast_ours(setup), fast_compiled(setup)]
    return [*(ours_on_gpu(setup) if cuda else ours_on_cpu(setup)), *plain, *repeated, *fast] + (
        [pruned(setup)] if cuda else []
    )


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
    several = [
        ours(setup, f"ours-{slots}", f"cifar-search, {slots} slots", "--per-gpu", slots)
        for slots in ("2", "4", "8", "auto")
    ]
    return [ours(setup, "ours-1", "cifar-search, one slot", "--per-gpu", "1"), eager, *several]


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
    from studies.record import STUDY, outcome_of

    study = stored_study(folder)
    trials = [trial for trial in study.get_trials() if trial.state.name in ("COMPLETE", "PRUNED")]
    if len(trials) != setup.trials:
        raise ValueError(f"{len(trials)} of {setup.trials} trials were closed")
    outcomes = [outcome for trial in trials if (outcome := outcome_of(trial))]
    begin = min(trial.datetime_start for trial in trials).timestamp()
    ends = [trial.datetime_complete.timestamp() for trial in trials]
    return search_figures(setup, ran, len(trials), 0.0) | {
        "first_result_seconds": min(ends) - ran.begin,
        "searching_idle_share": ran.idle_share(begin, max(ends)),
        "epoch_images_per_second": statistics.median(outcome.images_per_second for outcome in outcomes),
        "best_accuracy": max(trial.value for trial in trials if trial.state.name == "COMPLETE"),
        "diverged": sum(outcome.reason == "diverged" for outcome in outcomes),
        "split": study.user_attrs[STUDY]["split"]["hash"],
    }


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
    answer = last_line(ran)
    trials = answer["trials"]
    warm = [trial["seconds"] for trial in trials[1:] or trials]
    first, last = trials[0], trials[-1]
    return search_figures(setup, ran, len(trials), statistics.fmean(warm)) | {
        "first_result_seconds": first["ended"] - ran.begin,
        "searching_idle_share": ran.idle_share(first["ended"] - first["seconds"], last["ended"]),
        "epoch_images_per_second": statistics.median(answer["epoch_speeds"]),
        "best_accuracy": max(trial["accuracy"] for trial in trials),
    }


def search_figures(setup: Setup, ran: Ran, measured: int, seconds_of_another: float) -> Figures:
    """Of the whole search. Where fewer trials were measured, the missing ones are added at the mean time of
    those after the first."""
    seconds = ran.seconds + (setup.trials - measured) * seconds_of_another
    return {
        "trials_measured": measured,
        "wall_seconds": ran.seconds,
        "search_seconds": seconds,
        "trials_per_hour": 3600 * setup.trials / seconds,
        "images_per_second": setup.trials * setup.images_per_trial / seconds,
    }


# The same configuration with several seeds, and the fastest published training.


def ours_accuracy(setup: Setup) -> Arm:
    return runs_of_ours(setup, "accuracy-ours", "this engine, the space's base", "accuracy", "vgg.yaml")


def plain_accuracy(setup: Setup, workers: int) -> Arm:
    run = (*plain_command(setup, workers, "accuracy.yaml"), "--trials", str(ACCURACY_RUNS), "--fixed")
    return Arm("accuracy-plain", "plain loop, the space's base", "accuracy", run, read_accuracies)


def read_accuracies(_setup: Setup, ran: Ran, _folder: Path) -> Figures:
    return {"wall_seconds": ran.seconds, "accuracies": last_line(ran)["accuracies"]}


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
    answer = last_line(ran)
    return {
        "wall_seconds": ran.seconds,
        "compile_seconds": answer.get("compile_seconds"),
        "run_seconds": [run["seconds"] for run in answer["runs"]],
        "accuracies": [run["accuracy"] for run in answer["runs"]],
        "tta_accuracies": [run["tta_accuracy"] for run in answer["runs"]],
    }


def pruned(setup: Setup) -> Arm:
    """A search of a built-in space with the default pruner, at its own number of epochs."""
    run = (*command(setup), "--space", "regularization", "--trials", "50")
    return Arm("pruned-50", "50 trials of `regularization`, default pruner", "pruned", run, read_pruned)


def read_pruned(_setup: Setup, ran: Ran, folder: Path) -> Figures:
    trials = stored_study(folder).get_trials()
    return {
        "wall_seconds": ran.seconds,
        "trials": len(trials),
        "pruned": sum(trial.state.name == "PRUNED" for trial in trials),
        "best_accuracy": max(trial.value for trial in trials if trial.state.name == "COMPLETE"),
    }


def last_line(ran: Ran) -> dict[str, Any]:
    """The JSON that a script prints last."""
    answer: dict[str, Any] = json.loads(ran.output.splitlines()[-1])
    return answer
