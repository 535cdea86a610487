"""Workers side by side: what one, two and four of them do in an hour, as processes and as Ray actors.

    python tests/benchmarks/scaling.py [--rounds 3] [--trials 16] [--epochs 60] [--arms workers-1,ray-2]
                                       [--storage URL] [--output FILE.json]

Each arm is ``cifar-search run`` of the same search (random, without pruning, one seed, digits) in a process
of its own, in an empty folder with a new database: so all arms train the same configurations. The arms take
turns, round by round, and ratios are taken within a round. By default the database is an SQLite file;
``--storage`` names a PostgreSQL server on which a new database is made for each run. Ray's arm needs the
extra ``ray``. Cost: on two cores about 5 s a trial of one worker, and five minutes a round.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

from recording import Spread, Table, load, publish, store
from storage_load import new_database
from whole_search import empty_folder, run_command

SPACE = """
question: How wide a network, at which learning rate?
base:
  model: {name: vgg, widths: [16, 32], convolutions: 1, head: 64, normalization: batch}
  optimizer: {name: sgd, momentum: 0.9, nesterov: true}
  schedule: {name: one-cycle}
  training: {epochs: 30, batch_size: 128}
parameters:
  optimizer.lr: {float: [1e-3, 0.3], log: true, role: nuisance}
  model.dropout: {float: [0.0, 0.4], step: 0.1, role: scientific}
"""
"""Trials of the same size, whatever is drawn."""
ARMS = {
    "workers-1": ("--workers", "1"),
    "workers-2": ("--workers", "2"),
    "workers-4": ("--workers", "4"),
    "ray-2": ("--ray", "local", "--workers", "2"),
}
BASE = "workers-1"


def main() -> None:
    """Run the rounds, and report."""
    arguments = parse()
    settings = {
        "command": " ".join(["cifar-search", *options(arguments)]),
        "trials": arguments.trials,
        "rounds": arguments.rounds,
        "storage": "PostgreSQL" if arguments.storage else "SQLite",
        "load_before": load(),
    }
    rounds = []
    for number in range(arguments.rounds):
        rounds.append({arm: measured(arguments, arm) for arm in arguments.arms})
        told = ", ".join(f"{arm} {run['wall_seconds']:.0f} s" for arm, run in rounds[-1].items())
        print(f"round {number + 1} of {arguments.rounds}: {told}", flush=True)
    path = store("scaling", arguments.output, settings, {"rounds": rounds})
    table = table_of(settings, rounds)
    table.show()
    publish("scaling", [table], path)
    print(f"stored in {path}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="of all arms (default 3)")
    parser.add_argument("--trials", type=int, default=16, help="of each search (default 16)")
    parser.add_argument("--epochs", type=int, default=60, help="of each trial (default 60)")
    parser.add_argument("--arms", type=arms, default=arms(""), help=f"of {', '.join(ARMS)} (default all)")
    parser.add_argument("--storage", help="a PostgreSQL server (default: an SQLite file)")
    parser.add_argument("--output", type=Path, help="JSON file (default: results/scaling.json)")
    return parser.parse_args()


def arms(text: str) -> list[str]:
    """The arms named, or all that can run here; the one that ratios are taken to is among them."""
    there = [arm for arm in ARMS if not arm.startswith("ray") or importlib.util.find_spec("ray")]
    named = text.split(",") if text else there
    if unknown := set(named) - set(ARMS):
        raise argparse.ArgumentTypeError(f"must be of {', '.join(ARMS)}, but got {', '.join(unknown)}")
    return [arm for arm in ARMS if arm in named or arm == BASE]


def options(arguments: argparse.Namespace) -> list[str]:
    """What follows ``cifar-search``, but for the workers and the storage."""
    return [
        *("run", "--space", "space.yaml", "--dataset", "digits", "--sampler", "random", "--pruner", "none"),
        *("--trials", str(arguments.trials), "--epochs", str(arguments.epochs), "--device", "auto"),
    ]


def measured(arguments: argparse.Namespace, arm: str) -> dict[str, float]:
    """One run of the command."""
    with empty_folder() as folder, storage_url(arguments.storage, folder) as url:
        (folder / "space.yaml").write_text(SPACE, encoding="utf-8")
        begin = datetime.now()
        run_command([*options(arguments), "--storage", url, *ARMS[arm]], folder)
        wall = (datetime.now() - begin).total_seconds()
        return {"wall_seconds": wall, **seen(url, arguments.trials, begin)}


@contextmanager
def storage_url(server: str | None, folder: Path) -> Iterator[str]:
    """The URL of a database that holds nothing."""
    with new_database(server) if server else nullcontext(f"sqlite:///{folder}/studies.db") as url:
        yield url


def seen(url: str, trials: int, begin: datetime) -> dict[str, float]:
    """What the study that a run has left says of it."""
    import optuna

    from studies.record import WORKER, outcome_of
    from studies.storage import open_storage

    storage = open_storage(url, create=False)
    (name,) = optuna.get_all_study_names(storage)
    ended = optuna.load_study(study_name=name, storage=storage).get_trials(deepcopy=False)
    storage.close()
    if [trial.state.name for trial in ended] != ["COMPLETE"] * trials:
        raise SystemExit(f"not {trials} completed trials: {[trial.state.name for trial in ended]}")
    first = min(trial.datetime_start for trial in ended)
    last = max(trial.datetime_complete for trial in ended)
    return {
        "start_up_seconds": (first - begin).total_seconds(),
        "searching_seconds": (last - first).total_seconds(),
        "seconds_of_a_trial": statistics.median(outcome_of(trial).seconds for trial in ended),
        "workers_that_trained": len({trial.user_attrs[WORKER] for trial in ended}),
    }


def table_of(settings: dict[str, Any], rounds: list[dict[str, dict[str, float]]]) -> Table:
    rows = [(arm, *cells(settings["trials"], rounds, arm)) for arm in rounds[0]]
    title = (
        f"`{settings['command']}` ({settings['storage']}): trials an hour, {len(rounds)} rounds, "
        "median (range); times as many as one worker did in the same round"
    )
    columns = (
        "", "whole command", "against one", "from the first trial on", "against one", "start up",
        "training of a trial",
    )  # fmt: skip
    return Table(title, columns, rows)


def cells(trials: int, rounds: list[dict[str, dict[str, float]]], arm: str) -> Iterator[str]:
    """An arm's row."""
    for span in ("wall_seconds", "searching_seconds"):
        yield Spread.of([3600 * trials / done[arm][span] for done in rounds]).text(0)
        yield Spread.of([done[BASE][span] / done[arm][span] for done in rounds]).text(2)
    yield Spread.of([done[arm]["start_up_seconds"] for done in rounds]).text(1, " s")
    yield Spread.of([done[arm]["seconds_of_a_trial"] for done in rounds]).text(1, " s")


if __name__ == "__main__":
    main()
