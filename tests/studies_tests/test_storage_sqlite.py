"""SQLite files as storages: what is refused, that looking leaves no trace, and how files are opened."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from sqlalchemy.engine import URL

from studies.storage import StorageError, open_storage

optuna.logging.set_verbosity(optuna.logging.WARNING)


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Bytes and time of change of every file."""
    return {
        path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir() if path.is_file()
    }


def make_study(path: Path, name: str = "s") -> None:
    with closing(open_storage(f"sqlite:///{path}", create=True)) as storage:
        optuna.create_study(study_name=name, storage=storage)


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def names(path: Path) -> list[str]:
    with closing(open_storage(f"sqlite:///{path}", create=False)) as storage:
        return optuna.get_all_study_names(storage=storage)


def text_file(path: Path) -> None:
    path.write_text("not a database\n" * 100)


def truncated_database(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\x00")


def corrupt_database(path: Path) -> None:
    make_study(path)
    path.with_name(f"{path.name}.lock").unlink()
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + b"\xff" * 8000 + whole[8100:])


def foreign_database(path: Path) -> None:
    execute(path, "CREATE TABLE music (title TEXT)")


def foreign_wal_database(path: Path) -> None:
    execute(path, "PRAGMA journal_mode = WAL", "CREATE TABLE music (title TEXT)")


REFUSED: dict[Callable[[Path], object], str] = {
    text_file: "is not an SQLite database$",
    truncated_database: "is not an SQLite database$",
    corrupt_database: "malformed|not a database",
    foreign_database: r"holds tables of another program \(music\)",
    foreign_wal_database: r"holds tables of another program \(music\)",
    Path.mkdir: "must be a regular file",
}


@pytest.mark.parametrize(
    "options", [{"create": False}, {"create": False, "write": True}, {"create": True}], ids=str
)
@pytest.mark.parametrize(("make", "rule"), REFUSED.items(), ids=[make.__name__ for make in REFUSED])
def test_what_is_not_ours_is_refused_and_not_touched(
    tmp_path: Path, make: Callable[[Path], object], rule: str, options: dict[str, bool]
) -> None:
    path = tmp_path / "a.db"
    make(path)
    before = contents(tmp_path)
    with pytest.raises(StorageError, match=rule) as caught:
        open_storage(f"sqlite:///{path}", **options)
    assert contents(tmp_path) == before
    assert str(caught.value).startswith(f"storage sqlite:///{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("write", [False, True])
def test_missing_file_is_not_made(tmp_path: Path, write: bool) -> None:
    with pytest.raises(StorageError, match=r"the file does not exist|holds no studies"):
        open_storage(f"sqlite:///{tmp_path}/a.db", create=False, write=write)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("write", [False, True])
@pytest.mark.parametrize(
    "make", [Path.touch, lambda path: execute(path, "VACUUM")], ids=["0 bytes", "no tables"]
)
def test_empty_file_holds_no_studies_and_can_be_created_into(
    tmp_path: Path, make: Callable[[Path], object], write: bool
) -> None:
    path = tmp_path / "a.db"
    make(path)
    before = contents(tmp_path)
    with pytest.raises(StorageError, match="holds no studies"):
        open_storage(f"sqlite:///{path}", create=False, write=write)
    assert contents(tmp_path) == before
    make_study(path)
    assert names(path) == ["s"]


def test_missing_folder_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=f"the folder {tmp_path}/no does not exist"):
        open_storage(f"sqlite:///{tmp_path}/no/a.db", create=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "loop"], ids=["long", "null", "loop"])
def test_impossible_path_is_one_clean_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(StorageError):
        open_storage(f"sqlite:///{tmp_path}/{name}", create=True)


@pytest.mark.parametrize("name", ["a b.db", "a%20b.db", "a{b}.db", "a?#&.db", "ü.db", "a:b@c.db"])
def test_any_file_name_works(tmp_path: Path, name: str) -> None:
    open_storage(URL.create("sqlite", database=str(tmp_path / name)), create=True).close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, f"{name}.host", f"{name}.lock"]


def test_path_is_relative_to_the_working_folder_at_opening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with closing(open_storage("sqlite:///a.db", create=True)) as storage:
        storage.engine.dispose()
        monkeypatch.chdir("elsewhere")
        optuna.create_study(study_name="s", storage=storage)
    assert names(tmp_path / "a.db") == ["s"]


def test_reading_leaves_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    make_study(path)
    before = contents(tmp_path)
    with closing(open_storage(f"sqlite:///{path}", create=False)) as storage:
        assert len(optuna.load_study(study_name="s", storage=storage).trials) == 0
    assert contents(tmp_path) == before


def test_reader_sees_what_a_writer_adds_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    make_study(path)
    link = tmp_path / "link.db"
    link.symlink_to(path)
    with (
        closing(open_storage(f"sqlite:///{link}", create=False)) as reader,
        closing(open_storage(f"sqlite:///{path}", create=False, write=True)) as writer,
    ):
        assert len(reader.get_all_studies()) == 1
        optuna.create_study(study_name="t", storage=writer)
        assert len(reader.get_all_studies()) == 2
    assert names(link) == ["s", "t"]


def test_database_of_plain_optuna_is_read_as_it_is_and_switched_for_writing(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    plain = optuna.storages.RDBStorage(f"sqlite:///{path}")
    optuna.create_study(study_name="s", storage=plain)
    plain.engine.dispose()
    before = contents(tmp_path)
    assert names(path) == ["s"]
    assert contents(tmp_path) == before
    with (
        closing(open_storage(f"sqlite:///{path}", create=True)) as storage,
        storage.engine.connect() as connection,
    ):
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


def test_writing_connection_settings(tmp_path: Path) -> None:
    with (
        closing(open_storage(f"sqlite:///{tmp_path}/a.db", create=True)) as storage,
        storage.engine.connect() as connection,
        closing(sqlite3.connect(tmp_path / "a.db", timeout=0)) as other,
    ):
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1  # NORMAL
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 60_000
        with pytest.raises(sqlite3.OperationalError, match="locked"):  # though nothing was written yet
            other.execute("BEGIN IMMEDIATE")
        connection.rollback()
        other.execute("BEGIN IMMEDIATE")


def test_study_of_a_killed_process_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    code = (
        "import os, signal, sys, optuna; from studies.storage import open_storage\n"
        f"storage = open_storage('sqlite:///{path}', create=True)\n"
        "optuna.create_study(study_name='s', storage=storage)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "a.db-wal").stat().st_size > 0
    assert names(path) == ["s"]
    make_study(path, "t")
    assert names(path) == ["s", "t"]


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A folder that an ordinary user can reach, unlike the temporary folders of tests that root runs."""
    folder = Path(f"/tmp/cifar-search-test-{os.getpid()}")
    folder.mkdir(mode=0o755)
    yield folder
    for path in folder.rglob("*"):
        path.chmod(0o755)
    folder.chmod(0o755)
    shutil.rmtree(folder)


def as_ordinary_user(function: Callable[[], str]) -> str:
    """The function's answer in a process without root's right to write everywhere."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        if os.getuid() == 0:
            os.setuid(65534)
        try:
            answer = function()
        except StorageError as error:
            answer = str(error)
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answers:
        answer = answers.read()
    os.waitpid(child, 0)
    return answer


@pytest.mark.parametrize("locked", ["file", "folder"])
def test_read_only_file_or_folder_is_read_but_not_written(open_to_all: Path, locked: str) -> None:
    folder = open_to_all / "studies"
    folder.mkdir()
    path = folder / "a.db"
    make_study(path)
    folder.chmod(0o777 if locked == "file" else 0o555)
    path.chmod(0o444 if locked == "file" else 0o666)
    before = contents(folder)
    place = path if locked == "file" else folder

    def write() -> str:
        open_storage(f"sqlite:///{path}", create=True)
        return "was opened"

    assert as_ordinary_user(write).endswith(f"must be writable, but {place} is read-only")
    assert as_ordinary_user(lambda: str(names(path))) == "['s']"
    assert contents(folder) == before


def test_unreadable_file_is_one_clean_line(open_to_all: Path) -> None:
    path = open_to_all / "a.db"
    make_study(path)
    path.chmod(0o000)
    assert "Permission denied" in as_ordinary_user(lambda: str(names(path)))


COMES_AND_GOES = """
import random, sqlite3, sys, time
while True:
    connection = sqlite3.connect(sys.argv[1], timeout=60)
    for _ in range(3):
        rows = [(random.randint(1, 50), f"{random.random()}", "z" * random.randint(99, 9000)) for _ in "five"]
        with connection:
            connection.execute("DELETE FROM trial_user_attributes WHERE trial_id = ?", rows[0][:1])
            columns = "trial_user_attributes (trial_id, key, value_json)"
            connection.executemany(f"INSERT INTO {columns} VALUES (?, ?, json_quote(?))", rows)
    connection.close()
    time.sleep(random.random() * 0.02)
"""


@pytest.mark.slow
def test_reading_beside_a_writer_that_comes_and_goes_sees_whole_states(tmp_path: Path) -> None:
    """The last writer that leaves folds the log into the file; who ignores the log would read that torn."""
    path = tmp_path / "studies.db"
    with closing(open_storage(f"sqlite:///{path}", create=True)) as storage:
        study = optuna.create_study(study_name="s", storage=storage)
        for _ in range(50):
            study.tell(study.ask(), 0.5)
    writer = subprocess.Popen([sys.executable, "-c", COMES_AND_GOES, path])
    try:
        for _ in range(100):
            with closing(open_storage(f"sqlite:///{path}", create=False)) as reading:
                trials = reading.get_all_trials(reading.get_study_id_from_name("s"), deepcopy=False)
                assert [trial.number for trial in trials] == list(range(50))
        assert writer.poll() is None
    finally:
        writer.kill()
        writer.wait()
