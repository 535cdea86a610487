"""A whole search, timed: the real command, and where the time goes that is not spent on training.

    python tests/benchmarks/whole_search.py [--rounds 3] [--trials 50] [--dataset digits] [--output FILE.json]

Runs ``cifar-search run --space regularization --trials 50 --dataset digits`` in an empty temporary folder,
once a round, and reads from the study that it made how long its workers trained and how long they did
something else. Then one worker, in a process of its own, runs the same search with each call timed. Cost:
about three minutes a round and five for the one worker, on two cores.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recording import Spread, Table, load, publish, store

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

SPACE = "regularization"


def main() -> None:
    """Run the rounds and the timed worker, or, as a child, be that worker."""
    arguments = parse()
    if arguments.timed_worker:
        print(json.dumps(timed_worker(arguments.trials, arguments.dataset)))
        return
    settings = {"command": " ".join(["cifar-search", *options(arguments)]), "load_before": load()}
    rounds = []
    for number in range(arguments.rounds):
        rounds.append(whole_search(arguments))
        print(f"round {number + 1} of {arguments.rounds}: {rounds[-1]['wall_seconds']:.0f} s", flush=True)
    report(settings, rounds, start_timed_worker(arguments), arguments.output)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="runs of the command (default 3)")
    parser.add_argument("--trials", type=int, default=50, help="of each search (default 50)")
    parser.add_argument("--dataset", default="digits", help="as for cifar-search run (default digits)")
    parser.add_argument("--output", type=Path, help="JSON file (default: results/whole_search.json)")
    parser.add_argument("--timed-worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def options(arguments: argparse.Namespace) -> list[str]:
    """What follows ``cifar-search``."""
    return ["run", "--space", SPACE, "--trials", str(arguments.trials), "--dataset", arguments.dataset]


# The real command, and what the study that it leaves says of it.


def whole_search(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the command once in an empty folder."""
    with empty_folder() as folder:
        begin = datetime.now()
        run_command(options(arguments), folder)
        end = datetime.now()
        trials = stored_study(folder).get_trials()
    return {"wall_seconds": (end - begin).total_seconds(), **phases(trials, begin, end), **outcomes(trials)}


def run_command(options: list[str], folder: Path) -> None:
    """Run ``cifar-search`` there."""
    command = [sys.executable, "-m", "search.cli", *options]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if ran.returncode != 0:
        raise SystemExit(f"the search ended with {ran.returncode}:\n{ran.stdout}{ran.stderr}")


@contextmanager
def empty_folder() -> Iterator[Path]:
    """A temporary folder with nothing of earlier runs: no study, and no decoded images."""
    with tempfile.TemporaryDirectory() as name:
        os.environ.pop("CIFAR_SEARCH_STORAGE", None)
        os.environ["CIFAR_SEARCH_DATA"] = str(Path(name) / "data")
        yield Path(name)


def stored_study(folder: Path) -> Any:
    """The only study in the folder's database; None if the search ended before it made one."""
    import optuna

    storage = optuna.storages.RDBStorage(f"sqlite:///{folder}/cifar-search.db")
    names = optuna.get_all_study_names(storage)
    return optuna.load_study(study_name=names[0], storage=storage) if names else None


def phases(trials: list[Any], begin: datetime, end: datetime) -> dict[str, float]:
    """Seconds of the command before, between and after its trials, and of all workers while they search."""
    from studies.record import WORKER, outcome_of

    spans = defaultdict(list)
    training = 0.0
    for trial in trials:
        spans[trial.user_attrs[WORKER]].append((trial.datetime_start, trial.datetime_complete))
        training += outcome_of(trial).seconds
    first = min(start for of_worker in spans.values() for start, _ in of_worker)
    last = max(stop for of_worker in spans.values() for _, stop in of_worker)
    in_trials = sum(
        (stop - start).total_seconds() for of_worker in spans.values() for start, stop in of_worker
    )
    waiting = sum((last - max(stop for _, stop in of_worker)).total_seconds() for of_worker in spans.values())
    available = len(spans) * (last - first).total_seconds()
    return {
        "workers": len(spans),
        "start_up_seconds": (first - begin).total_seconds(),
        "searching_seconds": (last - first).total_seconds(),
        "closing_seconds": (end - last).total_seconds(),
        "share_outside_training": 1 - training / available,
        "share_in_trials_beside_training": (in_trials - training) / available,
        "share_between_trials": (available - in_trials - waiting) / available,
        "share_waiting_for_the_last_trial": waiting / available,
    }


def outcomes(trials: list[FrozenTrial]) -> dict[str, Any]:
    """What the search came to."""
    values = [trial.value for trial in trials if trial.value is not None and trial.state.name == "COMPLETE"]
    return {
        "best_validation_accuracy": max(values),
        "trials": len(trials),
        "pruned": sum(trial.state.name == "PRUNED" for trial in trials),
        "epochs": sum(len(trial.intermediate_values) for trial in trials),
    }


# One worker of the real classes, each of its calls timed.


class Stopwatch:
    """Seconds and calls of functions that are wrapped where they are looked up."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)
        self._calls: dict[str, int] = defaultdict(int)
        self._first: float | None = None
        self._last = 0.0

    def wrap(self, owner: Any, name: str, label: str) -> None:
        """Time every call of ``owner.name``. Wrapped functions must not call one another."""
        function = getattr(owner, name)

        @functools.wraps(function)
        def timed(*arguments: Any, **keywords: Any) -> Any:
            start = time.perf_counter()
            self._first = self._first or start
            try:
                return function(*arguments, **keywords)
            finally:
                self._last = time.perf_counter()
                self._seconds[label] += self._last - start
                self._calls[label] += 1

        setattr(owner, name, timed)

    def figures(self) -> dict[str, Any]:
        """What was timed, and the rest of the time from the first call to the last."""
        assert self._first is not None
        whole = self._last - self._first
        rest = whole - sum(self._seconds.values())
        seconds = dict(self._seconds) | {"anything else": rest}
        return {"searching_seconds": whole, "seconds": seconds, "calls": dict(self._calls)}


def start_timed_worker(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the timed worker in a fresh process."""
    command = [sys.executable, __file__, "--timed-worker", "--trials", str(arguments.trials)]
    ran = subprocess.run([*command, "--dataset", arguments.dataset], capture_output=True, text=True)
    if ran.returncode != 0:
        raise SystemExit(f"the timed worker ended with {ran.returncode}:\n{ran.stderr}")
    figures: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return figures


def timed_worker(trials: int, dataset: str) -> dict[str, Any]:
    """Continue, in this process, the search that the command began with one trial."""
    from search import objective, workers
    from search.data.request import DataRequest
    from search.placement import Placement
    from studies.live import LiveReports
    from studies.storage import open_storage
    from studies.study import SearchStudy

    with empty_folder() as folder:
        run_command(["run", "--space", SPACE, "--trials", "1", "--dataset", dataset], folder)
        url = f"sqlite:///{folder}/cifar-search.db"
        study = SearchStudy(open_storage(url, create=False, write=True), f"{SPACE}-{dataset}")
        study.set_total(trials)
        order = workers.WorkerOrder(
            storage_url=url,
            study=study.name,
            data=DataRequest(dataset),
            placement=Placement(("cpu",), workers=1),
            sampler=study.record.sampler,
            pruner=study.record.pruner,
        )
        watch = Stopwatch()
        watch.wrap(SearchStudy, "claim", "claim a slot and draw its parameters")
        watch.wrap(objective.Run, "__init__", "build the run")
        watch.wrap(objective.Run, "queue", "train and validate")
        watch.wrap(objective.Run, "end_epoch", "read an epoch's figures")
        watch.wrap(LiveReports, "write", "write reports")
        watch.wrap(LiveReports, "should_prune", "decide on pruning")
        watch.wrap(objective, "network_cost", "count parameters and multiply-adds")
        watch.wrap(SearchStudy, "close", "record the outcome")
        watch.wrap(SearchStudy, "is_complete", "ask whether the study is complete")
        workers.work(order, "cpu", stopping=lambda: False)
        ended = study.trials()[1:]
    return {**watch.figures(), **outcomes(ended)}


def report(
    settings: dict[str, Any], rounds: list[dict[str, Any]], worker: dict[str, Any], output: Path | None
) -> None:
    """Store, print and publish."""
    figures = {key: Spread.of([done[key] for done in rounds]) for key in rounds[0]}
    path = store(
        "whole_search",
        output,
        settings | {"rounds": len(rounds)},
        {"command": figures, "timed_worker": worker, "rounds": rounds},
    )
    tables = [command_table(settings["command"], figures, len(rounds)), worker_table(worker)]
    for table in tables:
        table.show()
    publish("whole_search", tables, path)
    print(f"stored in {path}")


def command_table(command: str, figures: dict[str, Spread], rounds: int) -> Table:
    shown = {
        key: Spread(100 * spread.median, 100 * spread.least, 100 * spread.most).text(1, " %")
        if key.startswith("share") or key.endswith("accuracy")
        else spread.text(1, " s" if key.endswith("seconds") else "")
        for key, spread in figures.items()
    }
    rows = [(key.removesuffix("_seconds").replace("_", " "), text) for key, text in shown.items()]
    return Table(f"`{command}`", ("", f"median (range) of {rounds} rounds"), rows)


def worker_table(worker: dict[str, Any]) -> Table:
    rows = [
        (
            label,
            str(worker["calls"].get(label, "")),
            f"{seconds:.2f} s",
            f"{100 * seconds / worker['searching_seconds']:.2f} %",
        )
        for label, seconds in sorted(worker["seconds"].items(), key=lambda item: -item[1])
    ]
    title = f"One worker, {worker['trials']} trials, {worker['searching_seconds']:.0f} s of searching"
    return Table(title, ("what", "calls", "time", "share"), rows)


if __name__ == "__main__":
    main()
