"""The storage in outages: calls that are repeated, commits whose answer was lost, and when it gives up."""

from __future__ import annotations

import inspect
import secrets
import sqlite3
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import faults
import optuna
import pytest
import servers
import sqlalchemy as sa
from optuna.distributions import FloatDistribution
from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial
from private_servers import MissingError, PrivateServer, private_server
from sqlalchemy.engine import make_url

from studies import lasting
from studies.connections import CONNECT_TIMEOUT
from studies.heartbeat import GRACE, INTERVAL, PATIENCE, Heartbeat, silent_trials
from studies.lasting import READS, SETTERS
from studies.reports import report_many
from studies.retries import OUTAGE
from studies.storage import OutageError, Storage, StorageError, open_storage

optuna.logging.set_verbosity(optuna.logging.WARNING)
DIRECTIONS = [StudyDirection.MAXIMIZE]


@pytest.fixture(params=["postgres", "mysql"])
def server_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database on a server."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


def template() -> optuna.trial.FrozenTrial:
    return create_trial(
        state=TrialState.WAITING, user_attrs={"slot": 3}, system_attrs={"fixed_params": {"x": 1.0}}
    )


class Made:
    """A study with a trial that runs and one that waits."""

    def __init__(self, storage: Storage, name: str) -> None:
        self.id = storage.create_new_study(DIRECTIONS, name)
        self.running = storage.create_new_trial(self.id)
        self.waiting = storage.create_new_trial(self.id, template())


WRITES: dict[str, Callable[[Storage, Made], Any]] = {
    "new trial": lambda s, m: s.create_new_trial(m.id) is None,
    "queued trial": lambda s, m: s.create_new_trial(m.id, template()) is None,
    "start": lambda s, m: s.set_trial_state_values(m.waiting, TrialState.RUNNING),
    "tell": lambda s, m: s.set_trial_state_values(m.running, TrialState.COMPLETE, [0.1]),
    "fail": lambda s, m: s.set_trial_state_values(m.running, TrialState.FAIL),
    "parameter": lambda s, m: s.set_trial_param(m.running, "x", 0.5, FloatDistribution(0, 1)),
    "report": lambda s, m: s.set_trial_intermediate_value(m.running, 0, 0.25),
    "reports": lambda s, m: report_many(s, [(m.running, 1, 0.25), (m.running, 2, 0.5), (m.waiting, 1, 0)]),
    "trial's attribute": lambda s, m: s.set_trial_user_attr(m.running, "a", [1]),
    "trial's system attribute": lambda s, m: s.set_trial_system_attr(m.running, "b", {"c": 1}),
    "study's attribute": lambda s, m: s.set_study_user_attr(m.id, "a", "x"),
    "study's system attribute": lambda s, m: s.set_study_system_attr(m.id, "a", "x"),
    "study's own attribute": lambda s, m: s.set_attribute_of(m.id, {}, "a", "x" * 70_000, system=False),
    "sign of life": lambda s, m: s.record_heartbeat(m.running),
    "new study": lambda s, m: s.create_new_study(DIRECTIONS, f"a study beside {m.id}") is None,
    "whole study": lambda s, m: s.create_whole_study(DIRECTIONS, f"whole {m.id}", {"a": 1}, {}) is None,
    "unnamed study": lambda s, m: s.create_new_study(DIRECTIONS) is None,
}


def content(storage: Storage, study_id: int) -> Any:
    """All that is known of the study, less times and ids."""
    trials = []
    for trial in storage.get_all_trials(study_id):
        started, ended = trial.datetime_start is not None, trial.datetime_complete is not None
        trials.append((trial.number, trial.state, trial.values, trial.params, trial.user_attrs))
        trials.append(trial.system_attrs)
        trials.append((trial.intermediate_values, started, ended))
    return trials, storage.get_study_user_attrs(study_id), storage.get_study_system_attrs(study_id)


@pytest.mark.parametrize("when", ["before", "after"])
def test_write_that_loses_its_connection_at_the_commit_is_done_once(server_url: str, when: str) -> None:
    with closing(open_storage(server_url, create=True, outage=20)) as storage:
        for name, write in WRITES.items():
            undisturbed, disturbed = Made(storage, f"{name} 0"), Made(storage, f"{name} 1")
            before = len(storage.get_all_studies())
            answer = write(storage, undisturbed)
            added = len(storage.get_all_studies()) - before
            with faults.lost_commit(storage.engine, when):
                assert write(storage, disturbed) == answer or name == "reports", name
            assert content(storage, disturbed.id) == content(storage, undisturbed.id), name
            assert len(storage.get_all_studies()) == before + 2 * added, name


@pytest.mark.parametrize("when", ["before", "after"])
def test_study_whose_deletion_loses_its_connection_is_deleted(server_url: str, when: str) -> None:
    with closing(open_storage(server_url, create=True, outage=20)) as storage:
        made = Made(storage, "s")
        with faults.lost_commit(storage.engine, when):
            storage.delete_study(made.id)
        assert storage.get_all_studies() == []


def test_trial_that_another_process_took_is_not_started_again(server_url: str) -> None:
    with (
        closing(open_storage(server_url, create=True, outage=20)) as storage,
        closing(open_storage(server_url, create=False, write=True)) as other,
    ):
        made = Made(storage, "s")

        def take_first(connection: Any) -> None:
            storage.engine.dialect.do_commit = commit
            faults.end_connection(connection)
            assert other.set_trial_state_values(made.waiting, TrialState.RUNNING)
            commit(connection)
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")

        commit, storage.engine.dialect.do_commit = storage.engine.dialect.do_commit, take_first
        assert not storage.set_trial_state_values(made.waiting, TrialState.RUNNING)


def test_trial_that_another_process_ended_otherwise_is_not_ended_again(server_url: str) -> None:
    with closing(open_storage(server_url, create=True, outage=20)) as storage:
        made = Made(storage, "s")
        storage.set_trial_state_values(made.running, TrialState.FAIL)
        for values in ([0.5], None):
            with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
                storage.set_trial_state_values(made.running, TrialState.COMPLETE, values)


def test_study_that_exists_is_not_created_again(server_url: str) -> None:
    with closing(open_storage(server_url, create=True, outage=20)) as storage:
        Made(storage, "s")
        with faults.lost_commit(storage.engine, "before"):
            storage.get_all_studies()
        with pytest.raises(optuna.exceptions.DuplicatedStudyError):
            storage.create_new_study(DIRECTIONS, "s")


def test_calls_survive_an_outage_and_so_does_the_heartbeat(server_url: str) -> None:
    with (
        faults.proxy(server_url) as way,
        closing(open_storage(way.url, create=True, outage=60)) as storage,
        closing(Heartbeat(storage, interval=0.05)) as heartbeat,
    ):
        made = Made(storage, "s")
        storage.record_heartbeat(made.running)
        heartbeat.watch({made.running: None})
        reads = list(READS_OF.values())
        before = [read(storage, made) for read in reads]
        way.cut()
        answers: list[Any] = [None] * len(reads)

        def ask(index: int) -> None:
            answers[index] = reads[index](storage, made)

        threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(reads))]
        for thread in threads:
            thread.start()
        with faults.later(2, way.restore):
            storage.set_trial_user_attr(made.running, "told", "in the outage")
        for thread in threads:
            thread.join()
        assert answers == before
        assert storage.get_trial(made.running).user_attrs == {"told": "in the outage"}
        set_back(storage)
        assert soon(lambda: is_fresh(storage))


READS_OF: dict[str, Callable[[Storage, Made], Any]] = {
    "studies": lambda s, m: [study.study_name for study in s.get_all_studies()],
    "waiting": lambda s, m: s.get_all_trials(m.id, states=(TrialState.WAITING,)),
    "cached": lambda s, m: _CachedStorage(s).get_all_trials(m.id, states=(TrialState.WAITING,)),
}


def set_back(storage: Storage) -> None:
    """Let all signs of life be old."""
    with storage.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE trial_heartbeats SET heartbeat = '2001-01-01'")


def is_fresh(storage: Storage) -> bool:
    with storage.engine.begin() as connection:
        query = "SELECT count(*) FROM trial_heartbeats WHERE heartbeat > '2002-01-01'"
        return connection.exec_driver_sql(query).scalar() == 1


@pytest.mark.slow
def test_an_outage_of_a_minute_is_survived_and_no_living_trial_is_missed(postgres_url: str) -> None:
    with (
        faults.proxy(postgres_url) as way,
        closing(open_storage(way.url, create=True)) as storage,
        closing(open_storage(way.url, create=False, write=True)) as healer,
        closing(Heartbeat(storage)) as heartbeat,
    ):
        made = Made(storage, "s")
        storage.record_heartbeat(made.running)
        heartbeat.watch({made.running: None})
        way.cut()
        with faults.later(OUTAGE - 2, way.restore):
            storage.set_trial_intermediate_value(made.running, 0, 0.5)
        assert silent_trials(healer, made.id) == []
        assert storage.get_trial(made.running).intermediate_values == {0: 0.5}


def soon(happened: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not happened() and time.monotonic() < deadline:
        time.sleep(0.02)
    return happened()


@pytest.fixture
def login(server_url: str) -> Iterator[str]:
    """A database with a study, by a user who has a password and no more than two connections."""
    with closing(open_storage(server_url, create=True)) as storage:
        optuna.create_study(study_name="s", storage=storage)
    url, user = make_url(server_url), f"u{secrets.token_hex(6)}"
    if url.get_backend_name() == "mysql":
        server, place = servers.MYSQL, f"{user}@'%%'"
        servers.administer(
            server,
            f"CREATE USER {place} IDENTIFIED BY 's3cret' WITH MAX_USER_CONNECTIONS 2",
            f"GRANT ALL ON {url.database}.* TO {place}",
        )
    else:
        server, place = servers.POSTGRES, user
        servers.administer(
            server,
            f"CREATE ROLE {user} LOGIN PASSWORD 's3cret' CONNECTION LIMIT 2",
            f"GRANT {make_url(servers.POSTGRES).username} TO {user}",
        )
    yield url.set(username=user, password="s3cret").render_as_string(hide_password=False)
    servers.administer(server, f"DROP USER {place}")


def test_outage_that_lasts_too_long_is_one_clean_line(login: str) -> None:
    with (
        faults.proxy(login) as way,
        closing(open_storage(way.url, create=False, write=True, outage=0.5)) as storage,
    ):
        way.cut()
        for call in (lambda: storage.create_new_trial(1), storage.get_all_studies):
            with pytest.raises(OutageError, match=r"could not be used for 0\.5 s: .*refused") as caught:
                call()
            message = str(caught.value)
            assert message.startswith("storage ")
            assert "\n" not in message
            shown = "".join(traceback.format_exception(caught.value))
            assert "s3cret" not in shown
            assert shown.count("Traceback") == 1
        way.restore()
        assert len(storage.get_all_studies()) == 1


def test_worker_that_is_to_wait_is_opened_in_an_outage(login: str) -> None:
    with faults.proxy(login) as way:
        way.cut()
        with pytest.raises(StorageError, match="refused"):
            open_storage(way.url, create=False, write=True)
        with pytest.raises(OutageError, match=r"could not be used for 0\.5 s"):
            open_storage(way.url, create=False, write=True, wait=True, outage=0.5)
        with (
            faults.later(1, way.restore),
            closing(open_storage(way.url, create=False, write=True, wait=True)) as storage,
        ):
            assert len(storage.get_all_studies()) == 1


@pytest.mark.parametrize("wrong", [{"host": "no-such-host.invalid"}, {"database": "no_such_place"}], ids=str)
def test_what_waiting_does_not_mend_is_told_at_once(server_url: str, wrong: dict[str, str]) -> None:
    url = make_url(server_url).set(**wrong)
    with pytest.raises(StorageError) as caught:
        open_storage(url, create=False, write=True, wait=True, outage=5)
    assert not isinstance(caught.value, OutageError)


@pytest.mark.slow
def test_a_wrong_password_is_told_at_once_even_by_those_that_wait() -> None:
    try:
        with private_server("postgresql") as server:
            refuse_without_password(server)
            for login in (":wr0ng@", "@"):
                url = server.url.replace("postgres@", f"someone{login}")
                with pytest.raises(StorageError, match="password") as caught:
                    open_storage(url, create=False, write=True, wait=True, outage=5)
                assert not isinstance(caught.value, OutageError)
                assert "wr0ng" not in "".join(traceback.format_exception(caught.value))
                assert "\n" not in str(caught.value)
    except MissingError as error:
        pytest.skip(str(error))


def refuse_without_password(server: PrivateServer) -> None:
    """Let the server know a user who must give a password."""
    engine = sa.create_engine(server.url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE ROLE someone LOGIN PASSWORD 'r1ght'")
        rules = Path(connection.exec_driver_sql("SHOW hba_file").scalar_one())
        rules.write_text("host all someone 127.0.0.1/32 scram-sha-256\n" + rules.read_text())
        connection.exec_driver_sql("SELECT pg_reload_conf()")


def test_storage_waits_for_a_connection_to_become_free(login: str) -> None:
    with closing(open_storage(login, create=False, write=True)) as storage:
        storage.engine.dispose()
        taken = sa.create_engine(login, pool_size=2)
        connections = [taken.connect(), taken.connect()]
        with pytest.raises(StorageError, match=r"too many connections|max_user_connections") as caught:
            open_storage(login, create=False)
        assert "s3cret" not in str(caught.value)
        with faults.later(1, connections[0].invalidate):
            assert len(storage.get_all_studies()) == 1
        connections[1].close()
        taken.dispose()


def test_errors_that_do_not_pass_are_raised_at_once(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(open_storage(database_url, create=True, outage=5)) as storage:
        made = Made(storage, "s")
        with pytest.raises(KeyError):
            storage.get_trial(made.waiting + 1000)
        with pytest.raises(optuna.exceptions.DuplicatedStudyError):
            storage.create_new_study(DIRECTIONS, "s")
        with storage.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE trial_intermediate_values RENAME TO away")
        for call in (
            lambda: storage.get_all_trials(made.id),
            lambda: storage.set_trial_intermediate_value(made.running, 0, 0.5),
            lambda: report_many(storage, [(made.running, 0, 0.5)]),
        ):
            with pytest.raises((optuna.exceptions.StorageInternalError, sa.exc.SQLAlchemyError)):
                call()
    assert caplog.text == ""


def test_locked_sqlite_file_is_waited_for(sqlite_url: str) -> None:
    open_storage(sqlite_url, create=True).close()
    path = str(make_url(sqlite_url).database)
    with (
        closing(open_storage(sqlite_url, create=False, write=True)) as storage,
        closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other,
    ):
        storage.engine.dispose()
        sa.event.listen(storage.engine, "connect", lambda c, _: c.execute("PRAGMA busy_timeout = 1"))
        other.execute("BEGIN IMMEDIATE")
        with faults.later(0.5, lambda: other.execute("COMMIT")):
            storage.create_new_study(DIRECTIONS, "s")
        assert [study.study_name for study in storage.get_all_studies()] == ["s"]


def test_every_call_of_optunas_storage_is_covered() -> None:
    ours = {name for name, value in vars(lasting.LastingStorage).items() if inspect.isfunction(value)}
    optunas = {name for name in vars(optuna.storages.BaseStorage) if not name.startswith("_")}
    elsewhere = {"check_trial_is_updatable", "remove_session"}  # these ask no database
    assert optunas - elsewhere <= ours | {"get_trial_number_from_id"}
    assert set(READS) | set(SETTERS) <= ours
    cache = inspect.getsource(_CachedStorage)
    called = {name for name in dir(RDBStorage) if f"self._backend.{name}(" in cache}
    assert called - ours <= {"get_heartbeat_interval", "get_heartbeat_stale_trial_callback", "remove_session"}


def test_the_living_are_heard_after_an_outage_before_they_are_missed() -> None:
    assert INTERVAL + max(OUTAGE, PATIENCE + CONNECT_TIMEOUT) + 2 * INTERVAL <= GRACE
