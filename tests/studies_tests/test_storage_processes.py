"""Several real processes on one storage: starting together, locking, being killed, taking queued trials."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import optuna
import pytest

from studies import sqlite
from studies.storage import StorageError, open_storage, study_lock

optuna.logging.set_verbosity(optuna.logging.WARNING)
PROCESSES = 8
forkserver = multiprocessing.get_context("forkserver")
# Imported once, in the server that the processes are forked from.
forkserver.set_forkserver_preload(["studies.storage", "pytest", "psycopg", "pymysql", "alembic.script"])


def together(function: Callable[..., Any], *arguments: object, processes: int = PROCESSES) -> list[Any]:
    """What the function returns in each of several processes that call it at the same moment."""
    barrier, results = forkserver.Barrier(processes), forkserver.SimpleQueue()
    workers = [
        forkserver.Process(target=_call, args=(barrier, results, function, *arguments))
        for _ in range(processes)
    ]
    for worker in workers:
        worker.start()
    answers = [results.get() for _ in workers]
    for worker in workers:
        worker.join()
    return answers


def _call(barrier: Barrier, results: Any, function: Callable[..., Any], *arguments: object) -> None:
    barrier.wait()
    try:
        results.put(function(*arguments))
    except Exception as error:
        results.put(repr(error))


def create_and_write(url: str) -> str:
    with closing(open_storage(url, create=True)) as storage:
        optuna.create_study(study_name="s", storage=storage, load_if_exists=True).ask()
    return "ok"


def test_processes_that_start_together_on_an_empty_database_all_succeed(database_url: str) -> None:
    assert together(create_and_write, database_url) == ["ok"] * PROCESSES
    with closing(open_storage(database_url, create=False)) as storage:
        trials = optuna.load_study(study_name="s", storage=storage).trials
    assert [trial.number for trial in trials] == list(range(PROCESSES))


def take_all_queued(url: str) -> list[int]:
    """The numbers of the queued trials that this process took, by ``ask`` alone, without a lock of ours."""
    taken = []
    with closing(open_storage(url, create=False, write=True)) as storage:
        study = optuna.load_study(study_name="s", storage=storage, sampler=optuna.samplers.RandomSampler())
        while "queued" in (trial := study.ask()).user_attrs:
            taken.append(trial.number)
    return taken


def open_and_close(path: Path, rounds: int) -> str:
    """Open the file again and again to read, with and without its log, and to see how it is kept, which
    makes a log and takes it away."""
    for round_ in range(rounds):
        if round_ % 3 == 2:
            assert sqlite.is_wal(path)
            continue
        with closing(sqlite.reader(path, joining=round_ % 3 == 1)) as connection:
            connection.execute("SELECT count(*) FROM t").fetchone()
    return "ok"


def test_a_log_that_comes_and_goes_stops_no_reader(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    sqlite.use_wal(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE t (a)")
    assert together(open_and_close, path, 3000, processes=4) == ["ok"] * 4


def test_each_queued_trial_is_taken_once_on_sqlite(sqlite_url: str) -> None:
    with closing(open_storage(sqlite_url, create=True)) as storage:
        study = optuna.create_study(study_name="s", storage=storage)
        for _ in range(60):
            study.enqueue_trial({}, user_attrs={"queued": True})
    taken = together(take_all_queued, sqlite_url)
    assert sorted(number for numbers in taken for number in numbers) == list(range(60))


def count_up(url: str, times: int) -> None:
    """Read, wait, write: loses counts unless only one process does it at a time."""
    with closing(open_storage(url, create=False, write=True)) as storage:
        study = optuna.load_study(study_name="s", storage=storage)
        for _ in range(times):
            with study_lock(storage, 1):
                count = study.user_attrs["count"]
                time.sleep(0.001)
                study.set_user_attr("count", count + 1)


def test_lock_excludes_processes(database_url: str) -> None:
    with closing(open_storage(database_url, create=True)) as storage:
        optuna.create_study(study_name="s", storage=storage).set_user_attr("count", 0)
    assert together(count_up, database_url, 10, processes=4) == [None] * 4
    with closing(open_storage(database_url, create=False)) as storage:
        assert optuna.load_study(study_name="s", storage=storage).user_attrs["count"] == 40


def hold_lock(url: str, held: Any) -> None:
    with closing(open_storage(url, create=False, write=True)) as storage, study_lock(storage, 1):
        held.put(os.getpid())
        time.sleep(600)


def test_lock_of_a_killed_process_is_free(database_url: str) -> None:
    with closing(open_storage(database_url, create=True)) as storage:
        held = forkserver.SimpleQueue()
        holder = forkserver.Process(target=hold_lock, args=(database_url, held))
        holder.start()
        os_id = held.get()
        with pytest.raises(StorageError, match="was not free"), study_lock(storage, 1, timeout=0.2):
            pass
        os.kill(os_id, signal.SIGKILL)
        with study_lock(storage, 1, timeout=10):
            pass
        holder.join()
