"""Large databases: what the commands that read take of time and memory, and the dashboard at rest.

    python tests/benchmarks/large_databases.py [--trials 20000] [--studies 2000] [--before FOLDER]
                                               [--folder FOLDER] [--output FILE.json]

Two SQLite files are made: one with a single study of ``--trials`` attempts of up to 30 epochs, and one with
``--studies`` studies of six attempts each. Their rows are of the kind that the program itself writes
(``storage_load.py``), written in bulk: completed, pruned and diverged trials, slots that were tried again
after an interruption or a killed worker, slots that were given up, trials that run, and one that waits.

Each command is run by itself in a process of its own: its wall time, its processor time, its largest resident
memory and the size of what it prints. With ``--before`` each is also run with the code of another checkout,
right before. The dashboard at rest is measured by ``dashboard_at_rest.py``.

Making the files takes two minutes, and ``--folder`` keeps them for the next time.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import random
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from recording import Table, load, publish, store
from storage_load import EPOCHS, closed_trial, description, outcome, write_rows

from spaces.space import Space
from studies import record
from studies.base import _NAMES_OF_METRICS
from studies.processes import process_name
from studies.record import StudyRecord
from studies.storage import Storage, open_storage
from studies.study import SearchStudy

ROOT = Path(__file__).resolve().parents[2]
AT_REST = ROOT / "tests" / "benchmarks" / "dashboard_at_rest.py"
LARGE, FIRST = "large", "study-0"
"""The study of many attempts, and one of many studies."""
AT_ONCE = 500
FEW = 6
"""Attempts of each of many studies."""
RUNNING = 4
LIMIT = 900.0
"""Seconds after which a command is ended."""


def main() -> None:
    """Make the databases, run every command, and tell what it took."""
    arguments = parse()
    settings = {
        "trials": arguments.trials, "studies": arguments.studies, "epochs": EPOCHS, "load_before": load(),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.folder or Path(temporary)).resolve()
        one, many = made(folder, arguments)
        measured = [measure(each, arguments.before) for each in cases(one, many, Path(temporary))]
    path = store("large_databases", arguments.output, settings, {"cases": measured})
    table = figures_table(measured, settings)
    table.show()
    publish("large_databases", [table], path)
    print(f"stored in {path}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trials", type=int, default=20_000, help="attempts of the study (default 20000)")
    parser.add_argument("--studies", type=int, default=2_000, help="of the other file (default 2000)")
    parser.add_argument("--before", type=Path, help="another checkout, to be measured too")
    parser.add_argument("--folder", type=Path, help="keeps the databases (default: a temporary one)")
    parser.add_argument("--output", type=Path, help="JSON file (default: results/large_databases.json)")
    return parser.parse_args()


# The databases.


def made(folder: Path, arguments: argparse.Namespace) -> tuple[str, str]:
    """The URLs of the two files, which are made where they are not there."""
    folder.mkdir(parents=True, exist_ok=True)
    urls = []
    for kind, count in (("trials", arguments.trials), ("studies", arguments.studies)):
        path = folder / f"{count}-{kind}.db"
        urls.append(f"sqlite:///{path}")
        if not path.exists():
            fill(urls[-1], fill_one if kind == "trials" else fill_many, count)
    return urls[0], urls[1]


def fill(url: str, kind: Callable[[Storage, int], None], count: int) -> None:
    """Make a database, whole or not at all."""
    try:
        with closing(open_storage(url, create=True)) as storage:
            kind(storage, count)
    except BaseException:
        Path(url.removeprefix("sqlite:///")).unlink(missing_ok=True)
        raise


def fill_one(storage: Storage, count: int) -> None:
    """A study of so many attempts."""
    study, drawing = new_study(storage, LARGE, description()), Drawn(description())
    attempts = drawing.attempts(count - RUNNING - 1, begun=RUNNING)
    for batch in batches(attempts):
        write_rows(study, batch)


def fill_many(storage: Storage, count: int) -> None:
    """So many studies of a few attempts."""
    described, drawing = description(), Drawn(description())
    for number in range(count):
        study = new_study(storage, f"study-{number}", described)
        write_rows(study, list(drawing.attempts(FEW, begun=0)))


def new_study(storage: Storage, name: str, described: StudyRecord) -> SearchStudy:
    content = described.model_copy(update={"mark": secrets.token_hex(16)}).model_dump(mode="json")
    attributes = {record.STUDY: content, record.TOTAL: None}
    storage.create_whole_study([StudyDirection.MAXIMIZE], name, attributes, _NAMES_OF_METRICS)
    return SearchStudy(storage, name)


def batches(trials: Iterator[FrozenTrial]) -> Iterator[list[FrozenTrial]]:
    batch: list[FrozenTrial] = []
    for trial in trials:
        batch.append(trial)
        if len(batch) == AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


class Drawn:
    """Attempts with parameters drawn at random, and every kind of end."""

    def __init__(self, described: StudyRecord) -> None:
        self._space = Space.read(described.space, "space", described.space_name)
        self._random = random.Random(0)
        self._worker = process_name(os.getpid())

    def attempts(self, ended: int, begun: int) -> Iterator[FrozenTrial]:
        """So many that have ended, and of slots beyond them some that run and one that waits."""
        slot = number = 0
        while number < ended:
            whole = self._closed(slot)
            for attempt, reason in enumerate(self._reasons(), 1):
                if number < ended:
                    yield ending(whole, attempt, reason, self._random.randrange(1, EPOCHS))
                number += 1
            slot += 1
        for more in range(begun):
            yield running(self._closed(slot + more), self._random.randrange(1, EPOCHS))
        if begun:
            yield waiting(self._closed(slot + begun))

    def _closed(self, slot: int) -> FrozenTrial:
        if slot % AT_ONCE == 0:  # a study in memory is read from its beginning for each trial that is asked
            self._drawn = optuna.create_study(sampler=RandomSampler(seed=slot), direction="maximize")
        return closed_trial(self._space, self._drawn, slot, self._worker)

    def _reasons(self) -> list[record.Reason]:
        """How the attempts of a slot end."""
        kinds: list[tuple[int, list[record.Reason]]] = [
            (640, ["finished"]),
            (240, ["pruned"]),
            (30, ["diverged"]),
            (50, ["interrupted", "finished"]),
            (30, ["killed", "finished"]),
            (5, ["error", "error", "error"]),
            (5, ["out of memory"]),
        ]
        weights = [weight for weight, _ in kinds]
        return self._random.choices(kinds, weights)[0][1]


def ending(whole: FrozenTrial, attempt: int, reason: record.Reason, epochs: int) -> FrozenTrial:
    """An attempt of the slot that ended so; after some epochs only, unless it finished."""
    trial = copy.copy(whole)
    curve = [whole.intermediate_values[epoch] for epoch in range(1, EPOCHS + 1)]
    if reason == "finished":
        ended, state = outcome(curve), TrialState.COMPLETE
    else:
        ended = outcome(curve[:epochs]).model_copy(update={"reason": reason})
        state = TrialState.PRUNED if reason in ("pruned", "diverged") else TrialState.FAIL
        trial.intermediate_values, trial.values = dict(enumerate(curve[:epochs], 1)), None
    trial.state = state
    trial.user_attrs = {
        **whole.user_attrs,
        record.ATTEMPT: attempt,
        record.CLAIM: secrets.token_hex(16),
        record.OUTCOME: ended.model_dump(mode="json"),
    }
    if state == TrialState.FAIL and reason in ("killed", "error"):
        del trial.user_attrs[record.HISTORY]
    return trial


def running(whole: FrozenTrial, epochs: int) -> FrozenTrial:
    trial = ending(whole, 1, "interrupted", epochs)
    trial.state = TrialState.RUNNING
    for key in (record.OUTCOME, record.HISTORY):
        del trial.user_attrs[key]
    return trial


def waiting(whole: FrozenTrial) -> FrozenTrial:
    trial = running(whole, 1)
    trial.state, trial.intermediate_values = TrialState.WAITING, {}
    trial.system_attrs = {"fixed_params": trial.params}
    trial.user_attrs, trial.params, trial.distributions = {}, {}, {}
    return trial


# What is measured.


@dataclass(frozen=True)
class Case:
    """A command on one of the databases."""

    label: str
    words: tuple[str, ...]
    """Of the command line; a URL alone means a look of the dashboard."""


def cases(one: str, many: str, folder: Path) -> list[Case]:
    """In the order of the table."""
    at_one, at_many = ("--storage", one), ("--storage", many)
    return [
        Case("studies, one study", ("studies", *at_one)),
        Case("show", ("show", LARGE, *at_one)),
        Case("show --json", ("show", LARGE, "--json", *at_one)),
        Case("export", ("export", LARGE, "-o", str(folder / "best.yaml"), *at_one)),
        Case("effects", ("effects", LARGE, *at_one)),
        Case("dashboard at rest, one study", (one,)),
        Case("studies, many studies", ("studies", *at_many)),
        Case("show, of many studies", ("show", FIRST, *at_many)),
        Case("dashboard at rest, many studies", (many,)),
    ]


def measure(case: Case, before: Path | None) -> dict[str, Any]:
    """What the case takes with the code of this checkout, and of the other one if there is one."""
    checkouts = {"before": before and before.resolve(), "now": ROOT}
    figures = {when: run(case, at) for when, at in checkouts.items() if at is not None}
    print(json.dumps({case.label: figures}), flush=True)
    return {"label": case.label, **figures}


def run(case: Case, checkout: Path) -> dict[str, Any]:
    """Run the case in a process of its own, which imports the checkout's code."""
    is_look = len(case.words) == 1
    command = (
        [str(Path(__file__).with_name("dashboard_at_rest.py").resolve())] if is_look else ["-m", "search.cli"]
    )
    environment = {**os.environ, "PYTHONPATH": str(checkout), "COLUMNS": "200"}
    with tempfile.TemporaryFile() as output:
        begin = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *command, *case.words],
            cwd=checkout,
            env=environment,
            stdout=output,
            stderr=subprocess.PIPE,
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
        if status:
            raise SystemExit(f"{case.label}: {process.stderr.read().decode()[-500:]}")
        figures = {
            "seconds": seconds,
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
            "peak_mib": usage.ru_maxrss / 1024,
            "output_mb": output.seek(0, os.SEEK_END) / 1e6,
        }
        output.seek(0)
        return {**figures, **json.load(output)} if is_look else figures


def figures_table(measured: list[dict[str, Any]], settings: dict[str, Any]) -> Table:
    columns = [when for when in ("before", "now") if when in measured[0]]
    rows = [(case["label"], *(cell(case[when]) for when in columns)) for case in measured]
    title = (
        f"One study of {settings['trials']:,} attempts of up to {settings['epochs']} epochs, and "
        f"{settings['studies']:,} studies of {FEW} attempts each; wall time, processor time, memory, output"
    )
    return Table(title, ("", *columns), rows)


def cell(figures: dict[str, Any]) -> str:
    if "cpu_a_minute" in figures:
        return f"{figures['cpu_a_minute']:.2f} s of processor time a minute"
    return (
        f"{figures['seconds']:.1f} s, {figures['cpu_seconds']:.1f} s, {figures['peak_mib']:.0f} MiB, "
        f"{figures['output_mb']:.2f} MB"
    )


if __name__ == "__main__":
    main()
