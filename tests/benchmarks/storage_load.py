"""Many workers on one database: how long their calls take, and whether that grows with the study.

    python tests/benchmarks/storage_load.py [--storage URL] [--clients 64] [--trials 100,1000,5000]
                                            [--seconds 60] [--pace 1.0] [--output FILE.json]

For each size a search of its own is made in a database of its own (on the server of ``--storage``, where the
user must be allowed to create databases), filled with that many closed trials, and then worked on by as many
processes as ``--clients`` says. They do what a worker does between its epochs, through the same classes:
claim a slot, report, decide on pruning, write the reports that wait, close. In place of an epoch they sleep
for about ``--pace`` seconds, so that the load is that of trials. No slot is claimed after ``--seconds``; the
trials that run then are still ended. After that the study is read: every slot that was claimed must have
been closed, once.

The trials it begins with are copies in kind: one is run by the real calls, and the others, written in bulk,
must have the same attributes. Cost: (seconds + 60 x pace) a size, and a minute to fill it and to
start. With 5,000 trials each client takes up to 350 MB of memory.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import random
import secrets
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.distributions import distribution_to_json
from optuna.samplers import RandomSampler
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from recording import Table, load, publish, store

from spaces.space import Space
from studies import record
from studies.attributes import TOKEN
from studies.base import TRAINING, Claim, derived_seed
from studies.heartbeat import Heartbeat
from studies.live import LiveReports
from studies.processes import process_name
from studies.record import DataRecord, Drawing, History, Outcome, Setup, SplitRecord, StudyRecord
from studies.storage import open_storage
from studies.study import SearchStudy, open_study

SERVER = os.environ.get("CIFAR_SEARCH_TEST_POSTGRES", "postgresql+psycopg://postgres@127.0.0.1:5432/test")
NAME = "load"
EPOCHS = 30
AT_ONCE = 500
"""Trials written in one transaction."""
STEPS = {
    "claim": "suggest: claim a slot, draw its parameters",
    "prune": "decide on pruning",
    "write": "write the reports that wait",
    "close": "tell: record the end of a trial",
}


def main() -> None:
    """Load a study of each size, and tell what was seen."""
    arguments = parse()
    settings = {
        "clients": arguments.clients,
        "seconds": arguments.seconds,
        "pace": arguments.pace,
        "epochs": EPOCHS,
        "parameters": len(searched().parameters),
        "load_before": load(),
    }
    sizes = []
    for trials in arguments.trials:
        sizes.append(measured(arguments, trials))
        print(json.dumps({key: value for key, value in sizes[-1].items() if key != "calls"}), flush=True)
    path = store("storage_load", arguments.output, settings, {"sizes": sizes})
    tables = [times_table(sizes, settings), server_table(sizes)]
    for table in tables:
        table.show()
    publish("storage_load", tables, path)
    print(f"stored in {path}")
    if any(size["errors"] or size["wrong_slots"] for size in sizes):
        raise SystemExit("there were errors, or slots that were not closed once: see the table")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--storage", default=SERVER, help="a PostgreSQL server (default: the tests' one)")
    parser.add_argument("--clients", type=int, default=64, help="processes (default 64)")
    parser.add_argument(
        "--trials", type=numbers, default=[100, 1000, 5000], help="to begin with (default 100,1000,5000)"
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="of claiming, a size (default 60)")
    parser.add_argument("--pace", type=float, default=1.0, help="seconds of an epoch (default 1)")
    parser.add_argument("--output", type=Path, help="JSON file (default: results/storage_load.json)")
    return parser.parse_args()


def numbers(text: str) -> list[int]:
    """``100,1000`` as a list."""
    return [int(part) for part in text.split(",")]


def measured(arguments: argparse.Namespace, trials: int) -> dict[str, Any]:
    """One size, in a database of its own."""
    with new_database(arguments.storage) as url:
        storage = open_storage(url, create=True)
        study = open_study(storage, NAME, description(), total=None)
        begin = time.perf_counter()
        fill(study, trials)
        analyze(storage)
        filling = time.perf_counter() - begin
        storage.close()
        seen = Watched(url, arguments).run()
        claimed = seen.pop("slots")
        study = SearchStudy(open_storage(url, create=False), NAME)
        return {
            "trials_before": trials,
            "trials_after": len(study.trials()),
            "filling_seconds": filling,
            **seen,
            "wrong_slots": wrong_slots(study, trials, claimed),
        }


@contextmanager
def new_database(server: str) -> Iterator[str]:
    """A database that lives as long as the ``with`` block."""
    name = f"cifar_search_load_{secrets.token_hex(6)}"
    engine = sa.create_engine(server, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    try:
        yield sa.engine.make_url(server).set(database=name).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


# The study, and the closed trials that it begins with.


def searched() -> Space:
    """A built-in space of 14 parameters, with 30 epochs a trial."""
    return Space.load("augmentation").with_base({"training.epochs": EPOCHS})


def description() -> StudyRecord:
    space = searched()
    split = SplitRecord(seed=0, val_size=0.1, hash="s" * 40, train_images=45_000, val_images=5_000)
    data = DataRecord(name="cifar10", hash="d" * 40, classes=tuple("0123456789"), shape=(32, 32, 3))
    return StudyRecord(
        space_name="augmentation",
        space=space.to_yaml(),
        space_fingerprint=space.fingerprint(),
        data=data,
        split=split,
        epochs=EPOCHS,
        precision="fp32",
        seed=0,
        sampler="auto",
        pruner="median",
    )


def fill(study: SearchStudy, trials: int) -> None:
    """Close as many slots: the first by the real calls, the others by writing rows of the same kind."""
    worker = process_name(os.getpid())
    claimed = claim_one(study, worker, parallel=1)
    reports = LiveReports(study)
    reports.begin(claimed.trial_id)
    curve = accuracies(random.Random(0))
    for epoch, value in enumerate(curve, 1):
        reports.report(claimed.trial_id, epoch, value)
    reports.write()
    study.close(claimed.trial_id, TrialState.COMPLETE, outcome(curve), history(curve), curve[-1])
    drawn = optuna.create_study(sampler=RandomSampler(seed=0), direction="maximize")
    for first in range(1, trials, AT_ONCE):
        slots = range(first, min(first + AT_ONCE, trials))
        write_rows(study, [closed_trial(study.space, drawn, slot, worker) for slot in slots])
    refuse_another_kind(study)


def claim_one(study: SearchStudy, worker: str, parallel: int) -> Claim:
    """A slot; a study without a total has always one."""
    claimed = study.claim(worker, Drawing(sampler="auto", parallel=parallel))
    assert claimed is not None
    return claimed


def accuracies(generator: random.Random) -> list[float]:
    """A rising curve with noise, to a height that differs."""
    height, speed = generator.uniform(0.3, 0.9), generator.uniform(2, 10)
    return [
        min(1.0, height * (1 - math.exp(-epoch / speed)) + generator.uniform(0, 0.02))
        for epoch in range(1, EPOCHS + 1)
    ]


def outcome(curve: list[float]) -> Outcome:
    """As a worker records it."""
    best = max(range(len(curve)), key=curve.__getitem__)
    return Outcome(
        reason="finished" if len(curve) == EPOCHS else "pruned",
        epoch=len(curve),
        best_accuracy=curve[best],
        best_epoch=best + 1,
        seconds=12.3456789 * len(curve),
        images_per_second=3456.789,
        peak_memory=1_234_567_890,
        parameters=1_234_567,
        multiply_adds=38_765_432,
        device="some processor",
        versions={"python": "3.11.7", "torch": "2.15.0", "optuna": "5.0.0", "cifar-search": "0.1.0"},
    )


def history(curve: list[float]) -> History:
    """As a worker records it, to five digits."""
    numbers = tuple(float(f"{value:.5g}") for value in curve)
    return History(train_loss=numbers, train_accuracy=numbers, val_loss=numbers, lr=numbers, seconds=numbers)


def closed_trial(space: Space, drawn: optuna.Study, slot: int, worker: str) -> FrozenTrial:
    """A completed trial with parameters drawn at random."""
    asked = drawn.ask()
    configuration = space.configure(space.suggest(asked))
    curve = accuracies(random.Random(slot))
    drawn.tell(asked, curve[-1])
    trial = drawn._storage.get_trial(asked._trial_id)
    setup = Setup(
        seed=derived_seed(0, TRAINING, 0),
        repeat=0,
        fingerprint=configuration.fingerprint(),
        configuration=configuration.tree(),
        sampler="tpe-univariate",
        pruner="median",
        parallel=64,
    )
    trial.user_attrs = {
        record.SLOT: slot,
        record.ATTEMPT: 1,
        record.WORKER: worker,
        record.CLAIM: secrets.token_hex(16),
        record.SETUP: setup.model_dump(mode="json"),
        record.history_key(0): history(curve).pieces()[0],
        record.OUTCOME: outcome(curve).model_dump(mode="json"),
    }
    trial.system_attrs = {"fixed_params": {}, TOKEN: secrets.token_hex(16)}
    trial.intermediate_values = dict(enumerate(curve, 1))
    return trial


def write_rows(study: SearchStudy, trials: list[FrozenTrial]) -> None:
    """Insert trials as Optuna's tables hold them."""
    with study.storage.engine.begin() as connection:
        first = connection.scalar(
            sa.select(sa.func.count()).where(models.TrialModel.study_id == study.study_id)
        )
        begin = datetime.now(UTC).replace(tzinfo=None)
        rows = [
            {
                "number": first + index,
                "study_id": study.study_id,
                "state": trial.state,
                "datetime_start": begin,
                "datetime_complete": begin + timedelta(minutes=6) if trial.state.is_finished() else None,
            }
            for index, trial in enumerate(trials)
        ]
        table = models.TrialModel.__table__
        returning = sa.insert(table).returning(table.c.trial_id, sort_by_parameter_order=True)
        ids = list(connection.scalars(returning, rows))
        for kind, rows_of in ROWS.items():
            content = [
                {"trial_id": trial_id, **row}
                for trial_id, trial in zip(ids, trials, strict=True)
                for row in rows_of(trial)
            ]
            if content:
                connection.execute(sa.insert(kind.__table__), content)


def _parameters(trial: FrozenTrial) -> Iterable[dict[str, Any]]:
    for name, distribution in trial.distributions.items():
        yield {
            "param_name": name,
            "param_value": distribution.to_internal_repr(trial.params[name]),
            "distribution_json": distribution_to_json(distribution),
        }


def _value(trial: FrozenTrial) -> Iterable[dict[str, Any]]:
    finite = models.TrialValueModel.TrialValueType.FINITE
    if trial.value is not None:
        yield {"objective": 0, "value": trial.value, "value_type": finite}


def _user_attributes(trial: FrozenTrial) -> Iterable[dict[str, Any]]:
    return ({"key": key, "value_json": json.dumps(value)} for key, value in trial.user_attrs.items())


def _system_attributes(trial: FrozenTrial) -> Iterable[dict[str, Any]]:
    return ({"key": key, "value_json": json.dumps(value)} for key, value in trial.system_attrs.items())


def _reports(trial: FrozenTrial) -> Iterable[dict[str, Any]]:
    finite = models.TrialIntermediateValueModel.TrialIntermediateValueType.FINITE
    for step, value in trial.intermediate_values.items():
        yield {"step": step, "intermediate_value": value, "intermediate_value_type": finite}


def _heartbeat(_: FrozenTrial) -> Iterable[dict[str, Any]]:
    yield {"heartbeat": datetime.now(UTC).replace(tzinfo=None)}


ROWS = {
    models.TrialParamModel: _parameters,
    models.TrialValueModel: _value,
    models.TrialUserAttributeModel: _user_attributes,
    models.TrialSystemAttributeModel: _system_attributes,
    models.TrialIntermediateValueModel: _reports,
    models.TrialHeartbeatModel: _heartbeat,
}


def refuse_another_kind(study: SearchStudy) -> None:
    """End the program if the trials written in bulk are not what the real calls leave."""
    real, *written = study.trials()
    for trial in written:
        for part in ("params", "distributions", "user_attrs", "system_attrs", "intermediate_values"):
            there, wanted = set(getattr(trial, part)), set(getattr(real, part))
            if there != wanted:
                raise SystemExit(f"{part} of trial {trial.number} are {there}, but should be {wanted}")
    if study.slots().closed() != len(written) + 1:
        raise SystemExit(f"{study.slots().closed()} slots are closed of {len(written) + 1}")


def analyze(storage: RDBStorage) -> None:
    """What PostgreSQL's daemon does after a minute, so that plans are those of tables of this size."""
    with storage.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE")


# The clients.


class Stopwatch:
    """Seconds of each call, by what it did."""

    def __init__(self) -> None:
        self.calls: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def of(self, label: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.calls[label].append(time.perf_counter() - begin)


class Client:
    """A worker that trains nothing."""

    def __init__(self, url: str, number: int, arguments: argparse.Namespace) -> None:
        self.watch = Stopwatch()
        self.slots: list[int] = []
        self._arguments = arguments
        self._random = random.Random(number)
        with self.watch.of("start"):
            self._study = SearchStudy(open_storage(url, create=False, write=True, wait=True), NAME)
            self._study.slots()
        self._reports = LiveReports(self._study)
        self._heartbeat = Heartbeat(self._study.storage)

    def work(self, deadline: float) -> None:
        """Claim and run trials until ``deadline``, a time of ``time.monotonic``."""
        while time.monotonic() < deadline:
            with self.watch.of("claim"):
                claimed = claim_one(self._study, process_name(os.getpid()), self._arguments.clients)
            self.slots.append(claimed.slot)
            self._heartbeat.watch({claimed.trial_id: None})
            self._run(claimed.trial_id)
            self._heartbeat.watch({})
        self._heartbeat.close()

    def _run(self, trial_id: int) -> None:
        curve = accuracies(self._random)
        self._reports.begin(trial_id)
        for epoch, value in enumerate(curve, 1):
            time.sleep(self._arguments.pace * self._random.uniform(0.5, 1.5))
            if self._epoch(trial_id, epoch, value):
                self._close(trial_id, curve[:epoch])
                return
        self._close(trial_id, curve)

    def _epoch(self, trial_id: int, epoch: int, value: float) -> bool:
        """What the driver does after an epoch; whether the trial is pruned."""
        self._reports.report(trial_id, epoch, value)
        if epoch < EPOCHS:
            with self.watch.of("prune"):
                pruned = self._reports.should_prune(trial_id)
            if pruned:
                return True
        begin, written = time.perf_counter(), self._reports._written
        self._reports.write_if_due()
        if self._reports._written != written:
            self.watch.calls["write"].append(time.perf_counter() - begin)
        return False

    def _close(self, trial_id: int, curve: list[float]) -> None:
        complete = len(curve) == EPOCHS
        state, value = (TrialState.COMPLETE, curve[-1]) if complete else (TrialState.PRUNED, None)
        with self.watch.of("close"):
            self._reports.write()
            if not self._study.close(trial_id, state, outcome(curve), history(curve), value):
                raise RuntimeError(f"trial {trial_id} was given away")
            self._reports.end(trial_id)


def client(
    url: str, number: int, arguments: argparse.Namespace, barrier: Barrier, answer: Connection
) -> None:
    """The life of a client process; answers with what it saw."""
    seen: dict[str, Any] = {"errors": [], "slots": [], "calls": {}}
    try:
        one = Client(url, number, arguments)
        seen["slots"], seen["calls"] = one.slots, one.watch.calls
        barrier.wait()
        time.sleep(arguments.pace * EPOCHS * number / arguments.clients)  # trials do not begin together
        one.work(time.monotonic() + arguments.seconds)
    except Exception as error:  # whatever it is, it is to be counted
        barrier.abort()
        seen["errors"] = [f"{type(error).__name__}: {error}"[:300]]
    seen["torch"] = "torch" in sys.modules
    answer.send(seen)


class Watched:
    """The clients of one size, and what the server shows of them."""

    def __init__(self, url: str, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._engine = sa.create_engine(url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["storage_load"])
        self._barrier = context.Barrier(arguments.clients + 1)
        self._ends, self._processes = [], []
        for number in range(arguments.clients):
            end, answer = context.Pipe(duplex=False)
            process = context.Process(
                target=client, args=(url, number, arguments, self._barrier, answer), daemon=True
            )
            process.start()
            answer.close()
            self._ends.append(end)
            self._processes.append(process)

    def run(self) -> dict[str, Any]:
        """Let them work, and gather what they saw."""
        self._barrier.wait()
        at_rest, begin = self._connections(), time.perf_counter()
        most = at_rest
        answers: list[dict[str, Any]] = []
        waiting = list(self._ends)
        while waiting:
            for end in multiprocessing.connection.wait(waiting, timeout=0.2):
                answers.append(end.recv())
                waiting.remove(end)
            most = max(most, self._connections())
        seconds = time.perf_counter() - begin
        for process in self._processes:
            process.join()
        if any(answer["torch"] for answer in answers):
            raise SystemExit("a client has imported torch")
        return self._figures(answers, seconds) | {"connections_at_rest": at_rest, "connections_most": most}

    def _connections(self) -> int:
        """Connections to the database but ours."""
        query = (
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        with self._engine.connect() as connection:
            return int(connection.exec_driver_sql(query).scalar_one())

    def _figures(self, answers: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
        calls = {
            label: sorted(time for answer in answers for time in answer["calls"].get(label, []))
            for label in ("start", *STEPS)
        }
        with self._engine.connect() as connection:
            allowed = int(connection.exec_driver_sql("SHOW max_connections").scalar_one())
        return {
            "seconds": seconds,
            "errors": [error for answer in answers for error in answer["errors"]],
            "slots": [slot for answer in answers for slot in answer["slots"]],
            "times": {label: percentiles(times) for label, times in calls.items()},
            "connections_allowed": allowed,
        }


def percentiles(times: list[float]) -> dict[str, float]:
    """Of sorted times, in seconds: how many, the 50th and 99th percentile, the longest."""
    if not times:
        return {"calls": 0}
    return {
        "calls": len(times),
        "p50": times[math.ceil(0.50 * len(times)) - 1],
        "p99": times[math.ceil(0.99 * len(times)) - 1],
        "longest": times[-1],
    }


def wrong_slots(study: SearchStudy, before: int, claimed: list[int]) -> dict[int, str]:
    """Slots that were not claimed and closed exactly once, without a gap."""
    closing = Counter(
        record.slot_of(trial)
        for trial in study.trials()
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
    )
    attempts = Counter(record.slot_of(trial) for trial in study.trials())
    wanted = {*range(before), *claimed, *attempts}
    claims = Counter(claimed)
    return {
        slot: f"claimed {claims[slot]}, attempts {attempts[slot]}, closed {closing[slot]} times"
        for slot in sorted(wanted)
        if (claims[slot], attempts[slot], closing[slot]) != (int(slot >= before), 1, 1)
    }


# What was seen.


def times_table(sizes: list[dict[str, Any]], settings: dict[str, Any]) -> Table:
    columns = [f"{size['trials_before']} to {size['trials_after']} trials" for size in sizes]
    rows = [
        (
            label,
            *(cell(size["times"][step]) for size in sizes),
        )
        for step, label in STEPS.items()
    ]
    rows.append(("a client's start: read the study", *(cell(size["times"]["start"]) for size in sizes)))
    title = (
        f"{settings['clients']} clients, {settings['epochs']} reports a trial, one about every "
        f"{settings['pace']:g} s, {settings['parameters']} parameters: "
        "milliseconds at the 50th and 99th percentile"
    )
    return Table(title, ("", *columns), rows)


def cell(times: dict[str, float]) -> str:
    if not times["calls"]:
        return "none"
    return f"{1000 * times['p50']:.1f} / {1000 * times['p99']:.0f}"


def server_table(sizes: list[dict[str, Any]]) -> Table:
    def row(label: str, key: str, digits: int = 0) -> tuple[str, ...]:
        return label, *(f"{size[key]:.{digits}f}" for size in sizes)

    rows = [
        ("trials ended a second", *(f"{ended(size) / size['seconds']:.2f}" for size in sizes)),
        row("connections at rest", "connections_at_rest"),
        row("connections, the most seen", "connections_most"),
        row("connections that the server allows", "connections_allowed"),
        ("errors", *(str(len(size["errors"])) for size in sizes)),
        ("slots not closed exactly once", *(str(len(size["wrong_slots"])) for size in sizes)),
    ]
    return Table("The server", ("", *(f"{size['trials_before']} trials" for size in sizes)), rows)


def ended(size: dict[str, Any]) -> int:
    return int(size["times"]["close"]["calls"])


if __name__ == "__main__":
    main()
