"""The storage on SQLite, PostgreSQL and MariaDB: making, reading, versions, times, locks of one process."""

from __future__ import annotations

import pickle
import sqlite3
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import optuna
import pytest
import servers
import sqlalchemy as sa
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from sqlalchemy.engine import make_url

from studies.connections import IDLE
from studies.storage import StorageError, check_url, creation_lock, open_storage, study_lock

optuna.logging.set_verbosity(optuna.logging.WARNING)


@contextmanager
def database(url: str) -> Iterator[sa.Connection]:
    """A plain connection, to look at what the storage made and to change it."""
    engine = sa.create_engine(check_url(url), poolclass=sa.NullPool)
    with engine.begin() as connection:
        yield connection


def tables(url: str) -> set[str]:
    with database(url) as connection:
        return set(sa.inspect(connection).get_table_names())


def make_study(url: str, name: str = "a study") -> None:
    with closing(open_storage(url, create=True)) as storage:
        study = optuna.create_study(study_name=name, storage=storage)
        study.ask()
        study.ask()


def test_created_storage_is_found_again_and_read(database_url: str) -> None:
    make_study(database_url)
    make_study(database_url, "another")
    with closing(open_storage(database_url, create=False)) as storage:
        summaries = optuna.get_all_study_summaries(storage=storage)
        assert {summary.study_name: summary.n_trials for summary in summaries} == {"a study": 2, "another": 2}
        assert len(optuna.load_study(study_name="a study", storage=storage).trials) == 2


def test_reading_storage_refuses_to_write(database_url: str) -> None:
    make_study(database_url)
    with closing(open_storage(database_url, create=False)) as storage:
        with pytest.raises(optuna.exceptions.StorageInternalError):
            optuna.create_study(study_name="b", storage=storage)
        assert len(storage.get_all_studies()) == 1


def test_existing_storage_is_opened_to_write(database_url: str) -> None:
    make_study(database_url)
    with closing(open_storage(database_url, create=False, write=True)) as storage:
        optuna.load_study(study_name="a study", storage=storage).set_user_attr("note", "x")
    with closing(open_storage(database_url, create=False)) as storage:
        assert optuna.load_study(study_name="a study", storage=storage).user_attrs == {"note": "x"}


@pytest.mark.parametrize("url", ["postgres_url", "mysql_url"])
@pytest.mark.parametrize("write", [False, True])
def test_empty_server_holds_no_studies_and_stays_empty(
    url: str, write: bool, request: pytest.FixtureRequest
) -> None:
    empty = request.getfixturevalue(url)
    with pytest.raises(StorageError, match=r"holds no studies$"):
        open_storage(empty, create=False, write=write)
    assert tables(empty) == set()


@pytest.mark.parametrize(
    ("revision", "remedy"),
    [
        ("v2.6.0.a", r"those of an older Optuna \(v2\.6\.0\.a\).*: optuna storage upgrade --storage \S+:"),
        ("v9.0.0.a", r"those of a newer Optuna \(v9\.0\.0\.a\).*: pip install --upgrade optuna"),
    ],
    ids=["older", "newer"],
)
def test_tables_of_another_optuna_are_refused_with_the_remedy(
    sqlite_url: str, revision: str, remedy: str
) -> None:
    make_study(sqlite_url)
    with database(sqlite_url) as connection:
        connection.execute(sa.text(f"UPDATE alembic_version SET version_num = '{revision}'"))
    for create in (False, True):
        with pytest.raises(StorageError, match=remedy):
            open_storage(sqlite_url, create=create)
    with database(sqlite_url) as connection:
        assert connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar() == revision


@pytest.mark.parametrize(
    "foreign",
    [
        ["CREATE TABLE studies (patient INTEGER)"],
        [
            "CREATE TABLE alembic_version (version_num VARCHAR(32))",
            "INSERT INTO alembic_version VALUES ('1a2b')",
        ],
    ],
    ids=["same-name", "alembic"],
)
def test_tables_of_another_program_are_refused(database_url: str, foreign: list[str]) -> None:
    with database(database_url) as connection:
        for statement in foreign:
            connection.execute(sa.text(statement))
    before = tables(database_url)
    for create in (False, True):
        with pytest.raises(
            StorageError, match=r"holds tables of another program \((studies|alembic_version)\)"
        ):
            open_storage(database_url, create=create)
    assert tables(database_url) == before


def test_interrupted_creation_is_completed(database_url: str) -> None:
    make_study(database_url)
    with database(database_url) as connection:
        for statement in (
            "DELETE FROM alembic_version",
            "DELETE FROM version_info",
            "DROP TABLE trial_heartbeats",
        ):
            connection.execute(sa.text(statement))
    with pytest.raises(StorageError, match="holds no studies"):
        open_storage(database_url, create=False)
    make_study(database_url, "another")
    assert tables(database_url) == {*models.BaseModel.metadata.tables, "alembic_version"}


def test_times_are_utc_whatever_the_client_or_the_user_says(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGTZ", "Asia/Tokyo")
    if database_url.startswith("mysql"):
        database_url += "?init_command=SET time_zone='%2B09:00'"
    with closing(open_storage(database_url, create=True)) as storage, storage.engine.connect() as connection:
        now = connection.execute(sa.select(sa.func.now())).scalar()
    assert now is not None
    assert abs(now.replace(tzinfo=None) - datetime.now(UTC).replace(tzinfo=None)) < timedelta(minutes=1)


def test_stale_trials_are_those_without_a_sign_of_life(database_url: str) -> None:
    with closing(open_storage(database_url, create=True, heartbeat=5, grace=60)) as storage:
        study_id = storage.create_new_study([optuna.study.StudyDirection.MAXIMIZE], "s")
        silent, living = storage.create_new_trial(study_id), storage.create_new_trial(study_id)
        storage.record_heartbeat(silent)
        storage.record_heartbeat(living)
        earlier = {
            "sqlite": "datetime(heartbeat, '-61 seconds')",
            "postgresql": "heartbeat - INTERVAL '61 seconds'",
            "mysql": "heartbeat - INTERVAL 61 SECOND",
        }[storage.engine.name]
        with storage.engine.begin() as connection:
            connection.execute(
                sa.text(f"UPDATE trial_heartbeats SET heartbeat = {earlier} WHERE trial_id = {silent}")
            )
        storage.record_heartbeat(living)
        assert storage._get_stale_trial_ids(study_id) == [silent]


def test_heartbeat_gives_no_experimental_warning(sqlite_url: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_storage(sqlite_url, create=True, heartbeat=5, grace=60).close()


def test_storage_cannot_be_pickled(sqlite_url: str) -> None:
    with (
        closing(open_storage(sqlite_url, create=True)) as storage,
        pytest.raises(TypeError, match="send its URL, and open it there"),
    ):
        pickle.dumps(storage)


def test_idle_storage_holds_one_connection(postgres_url: str) -> None:
    with closing(open_storage(postgres_url, create=True)) as storage:
        optuna.create_study(study_name="s", storage=storage)
        with study_lock(storage, 1):
            optuna.load_study(study_name="s", storage=storage).ask()
        count = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{make_url(postgres_url).database}'"
        engine = sa.create_engine(servers.POSTGRES, poolclass=sa.NullPool)
        with engine.connect() as connection:
            assert connection.execute(sa.text(count)).scalar() == 1


def test_idle_storage_on_mysql_holds_two_connections_and_a_busy_one_four(mysql_url: str) -> None:
    url = make_url(mysql_url)
    count = f"SELECT count(*) FROM information_schema.processlist WHERE db = '{url.database}'"
    engine = sa.create_engine(servers.MYSQL, poolclass=sa.NullPool)

    def connections() -> int:
        with engine.connect() as connection:
            return int(connection.execute(sa.text(count)).scalar_one())

    with closing(open_storage(mysql_url, create=True)) as storage:
        with study_lock(storage, 1):
            storage.get_all_studies()
            assert connections() == 2
        assert connections() == 2
        with ExitStack() as held:
            for _ in range(4):
                held.enter_context(storage.engine.connect())
            assert connections() == 4
            storage.engine.pool._timeout = 0.1  # type: ignore[attr-defined]
            with pytest.raises(sa.exc.TimeoutError):
                storage.engine.connect()


def test_vanished_clients_are_noticed_by_the_servers(postgres_url: str, mysql_url: str) -> None:
    with closing(open_storage(postgres_url, create=True)) as storage, storage.engine.connect() as connection:
        assert connection.execute(sa.text("SHOW tcp_keepalives_idle")).scalar() == "15"
        assert connection.execute(sa.text("SHOW client_connection_check_interval")).scalar() == "5s"
    with closing(open_storage(mysql_url, create=True)) as storage, storage.engine.connect() as connection:
        assert connection.execute(sa.text("SELECT @@wait_timeout")).scalar() == IDLE


def test_lost_connection_is_replaced(postgres_url: str) -> None:
    with closing(open_storage(postgres_url, create=True)) as storage:
        servers.administer(
            servers.POSTGRES,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            f"WHERE datname = '{make_url(postgres_url).database}'",
        )
        assert storage.get_all_studies() == []


def test_lock_excludes_threads(database_url: str) -> None:
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(5):
            with study_lock(storage, 1):
                inside += 1
                most = max(most, inside)
                time.sleep(0.002)
                inside -= 1

    with closing(open_storage(database_url, create=True)) as storage:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert most == 1


def test_lock_gives_up_with_one_clean_line_and_is_free_afterwards(database_url: str) -> None:
    failures = []

    def wait_in_vain() -> None:
        with pytest.raises(StorageError) as caught, study_lock(storage, 1, timeout=0.2):
            pass
        failures.append(str(caught.value))

    with closing(open_storage(database_url, create=True)) as storage:
        with study_lock(storage, 1):
            other = threading.Thread(target=wait_in_vain)
            other.start()
            other.join()
        with study_lock(storage, 1, timeout=0.2):
            pass
    assert len(failures) == 1
    assert failures[0].endswith("the lock 'study 1' was not free within 0.2 s")


def test_lock_is_freed_by_an_error_inside(database_url: str) -> None:
    with closing(open_storage(database_url, create=True)) as storage:
        with pytest.raises(ZeroDivisionError), study_lock(storage, 1):
            raise ZeroDivisionError
        with study_lock(storage, 1, timeout=0.2):
            pass


@pytest.mark.parametrize("url", ["postgres_url", "mysql_url"])
def test_locks_of_different_studies_are_apart(url: str, request: pytest.FixtureRequest) -> None:
    with (
        closing(open_storage(request.getfixturevalue(url), create=True)) as storage,
        study_lock(storage, 1),
        study_lock(storage, 2, timeout=0.2),
        creation_lock(storage),
    ):
        pass


def test_mysql_locks_of_different_databases_are_apart(mysql_url: str) -> None:
    with (
        servers.new_database(servers.MYSQL) as other_url,
        closing(open_storage(mysql_url, create=True)) as storage,
        closing(open_storage(other_url, create=True)) as other,
        study_lock(storage, 1),
        study_lock(other, 1, timeout=0.2),
    ):
        pass


def test_internals_of_optuna_that_are_used(sqlite_url: str) -> None:
    """What the list at the top of the module rests on; the rest is held by the tests above."""
    assert "alembic_version" not in models.BaseModel.metadata.tables
    RDBStorage(sqlite_url.replace("studies.db", "{{}}.db")).engine.dispose()
    assert Path(str(make_url(sqlite_url).database)).with_name("{}.db").exists()
    with closing(open_storage(sqlite_url, create=True)) as storage:
        changes: list[str] = []
        again = RDBStorage(
            sqlite_url, {"creator": partial(recording, sqlite_url, changes)}, skip_table_creation=True
        )
        again.engine.dispose()
        assert storage.get_head_version() == again.get_head_version()
    assert changes
    assert all(change.startswith(("SELECT", "PRAGMA")) for change in changes)


def recording(url: str, statements: list[str]) -> sqlite3.Connection:
    """A connection that writes down every statement."""
    connection = sqlite3.connect(str(make_url(url).database))
    connection.set_trace_callback(statements.append)
    return connection
