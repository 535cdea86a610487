"""Locks whose connection dies while they are held: nothing more is written, and the section is run again."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import Any

import faults
import optuna
import pytest
from optuna.study import StudyDirection

from studies.storage import LockLostError, Storage, locked, open_storage, study_lock

optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture(params=["postgres", "mysql"])
def server_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database on a server."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


def new_study(storage: Storage) -> int:
    return storage.create_new_study([StudyDirection.MAXIMIZE], "s")


def test_nothing_is_written_after_the_database_forgot_the_lock(server_url: str) -> None:
    with closing(open_storage(server_url, create=True, outage=20)) as storage:
        study_id = new_study(storage)
        with study_lock(storage, 1):
            storage.set_study_user_attr(study_id, "before", 1)
            faults.end_connections(server_url)
            with study_lock(storage, 1, timeout=5):  # as another process would
                pass
            with pytest.raises(LockLostError, match="lock was lost") as caught:
                storage.set_study_user_attr(study_id, "after", 1)
        assert "\n" not in str(caught.value)
        assert storage.get_study_user_attrs(study_id) == {"before": 1}
        with study_lock(storage, 1, timeout=0.2):
            storage.set_study_user_attr(study_id, "again", 1)


def test_lock_that_is_lost_after_the_last_write_harms_nothing(server_url: str) -> None:
    with closing(open_storage(server_url, create=True, outage=20)) as storage:
        study_id = new_study(storage)
        with study_lock(storage, 1):
            storage.set_study_user_attr(study_id, "a", 1)
            faults.end_connections(server_url)
        assert storage.get_study_user_attrs(study_id) == {"a": 1}


def test_a_holder_that_is_frozen_loses_the_lock(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studies.locks.FROZEN", 1)
    with closing(open_storage(postgres_url, create=True, outage=20)) as storage:
        study_id = new_study(storage)
        with study_lock(storage, 1):
            with study_lock(storage, 1, timeout=30):  # as another process would
                pass
            with pytest.raises(LockLostError):
                storage.set_study_user_attr(study_id, "after", 1)
        assert storage.get_study_user_attrs(study_id) == {}


def test_section_whose_lock_is_lost_is_run_again(server_url: str) -> None:
    with closing(open_storage(server_url, create=True, outage=20)) as storage:
        study_id, runs = new_study(storage), []

        def section() -> int:
            runs.append(storage.get_study_user_attrs(study_id))
            storage.set_study_user_attr(study_id, "first", True)
            if len(runs) == 1:
                faults.end_connections(server_url)
            storage.set_study_user_attr(study_id, "second", True)
            return len(runs)

        assert locked(storage, 1, section) == 2
        assert runs == [{}, {"first": True}]
        assert storage.get_study_user_attrs(study_id) == {"first": True, "second": True}


def test_other_threads_are_not_held_up_by_a_lost_lock(server_url: str) -> None:
    with closing(open_storage(server_url, create=True, outage=20)) as storage:
        study_id = new_study(storage)
        with study_lock(storage, 1):
            faults.end_connections(server_url)
            other = threading.Thread(target=storage.set_study_user_attr, args=(study_id, "beside", 1))
            other.start()
            other.join()
        assert storage.get_study_user_attrs(study_id) == {"beside": 1}


def test_lock_is_waited_for_through_an_outage(server_url: str) -> None:
    with (
        faults.proxy(server_url) as way,
        closing(open_storage(way.url, create=True)) as storage,
    ):
        study_id = new_study(storage)
        way.cut()
        with faults.later(1, way.restore), study_lock(storage, 1):
            storage.set_study_user_attr(study_id, "a", 1)
        assert storage.get_study_user_attrs(study_id) == {"a": 1}


def test_no_write_is_lost_while_connections_end_again_and_again(server_url: str) -> None:
    """Workers add names to a list that each of them reads and writes back, as slots are counted."""
    with closing(open_storage(server_url, create=True)) as storage:
        study_id = new_study(storage)
        storage.set_study_user_attr(study_id, "names", [])
        workers = [threading.Thread(target=add_names, args=(server_url, study_id, n)) for n in range(4)]
        for worker in workers:
            worker.start()
        for _ in range(10):
            faults.end_connections(server_url)
            workers[0].join(0.2)
        for worker in workers:
            worker.join()
        names: list[Any] = storage.get_study_user_attrs(study_id)["names"]
    assert sorted(names) == sorted([number, count] for number in range(4) for count in range(10))


def add_names(url: str, study_id: int, number: int) -> None:
    with closing(open_storage(url, create=False, write=True, wait=True)) as storage:
        for count in range(10):
            locked(storage, 1, lambda name=(number, count): add(storage, study_id, list(name)))


def add(storage: Storage, study_id: int, name: list[int]) -> None:
    names = storage.get_study_user_attrs(study_id)["names"]
    if name not in names:
        storage.set_study_user_attr(study_id, "names", [*names, name])
