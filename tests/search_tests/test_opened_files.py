"""No process of a command opens a database file, or one that SQLite keeps beside it, in any other way than
through SQLite: a process that closes such a file has lost all its locks on it, and the next process to end
then takes away the write-ahead log of a database that is in use."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.request import urlopen

import pytest
from dashboard_studies import make_search
from running import Command, data_folder, pid_of, run_words, soon, start, trials_of

from studies.storage import open_storage

__all__ = ["data_folder", "start"]

WATCHER = """
import os
import sys
import traceback

LOG = os.open(os.environ["OPENED_FILES"], os.O_CREAT | os.O_WRONLY | os.O_APPEND)
ENDS = (".db", ".db-wal", ".db-shm", ".db-journal")


def watch(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        path = os.fsdecode(arguments[0])
        if path.endswith(ENDS):
            place = "".join(traceback.format_stack()[-5:-1])
            os.write(LOG, f"{os.getpid()} opened {path}\\n{place}\\n".encode())


def begin():
    os.write(LOG, f"{os.getpid()} is watched\\n".encode())


sys.addaudithook(watch)
os.register_at_fork(after_in_child=begin)
begin()
"""


class Opened:
    """What the watched processes wrote down."""

    def __init__(self, log: Path) -> None:
        self._log = log

    def databases(self) -> list[str]:
        """Each opening of a database file, with the end of its stack."""
        parts = re.split(r"^(?=\d+ (?:opened|is watched))", self._log.read_text(), flags=re.MULTILINE)
        return [part for part in parts if " opened " in part]

    def watched(self) -> set[int]:
        """The processes that carried the watcher."""
        return {int(pid) for pid in re.findall(r"^(\d+) is watched$", self._log.read_text(), re.MULTILINE)}


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Opened:
    """From now on every new process, and those forked from it, writes down what it opens."""
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch" / "sitecustomize.py").write_text(WATCHER)
    there = [path for path in [os.environ.get("PYTHONPATH")] if path]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "watch"), *there]))
    monkeypatch.setenv("OPENED_FILES", str(tmp_path / "opened"))
    return Opened(tmp_path / "opened")


def test_a_list_and_a_note_open_no_database_file(
    start: Callable[..., Command], sqlite_url: str, opened: Opened
) -> None:
    with closing(open_storage(sqlite_url, create=True)) as storage:
        make_search(storage, "s", 1)
    commands = [
        start("studies", "--storage", sqlite_url),
        start("note", "s", "A note.", "--storage", sqlite_url),
    ]
    assert [command.ended() for command in commands] == [0, 0], [command.output for command in commands]
    assert {command.process.pid for command in commands} <= opened.watched()
    assert not opened.databases(), opened.databases()[0]


@pytest.mark.slow
def test_no_command_opens_a_database_file(
    start: Callable[..., Command], sqlite_url: str, tmp_path: Path, opened: Opened
) -> None:
    at = ("--storage", sqlite_url)
    steps = (
        run_words(sqlite_url, 2, 0, "--epochs", "2"),
        ["worker", "s", *at, "--workers", "1"],
        run_words(sqlite_url, 3, 1, "--epochs", "2"),
        ["confirm", "s", *at, "--top", "2", "--seeds", "1", "--workers", "1"],
        ["ablate", "s", *at, "--seeds", "1", "--workers", "1"],
        ["effects", "s", *at],
        ["show", "s", *at],
        ["export", "s", *at, "-o", "best.yaml"],
        ["retrain", "best.yaml", *at, "--seeds", "1", "-o", "runs/best"],
        ["report", "s", *at, "-o", "report.html"],
    )
    for words in steps:
        command = start(*words)
        assert command.ended() == 0, command.output
        assert not opened.databases(), (words, opened.databases()[0])
    assert {pid_of(trial) for trial in trials_of(sqlite_url)} <= opened.watched()

    dashboard = start("dashboard", *at)
    assert soon(lambda: "http://" in dashboard.output), dashboard.output
    (address,) = re.findall(r"http://\S+/", dashboard.output)
    for page in ("dashboard/", "api/studies", "api/studies/1"):
        with urlopen(address + page) as answer:
            assert answer.status == 200
    artifacts = tmp_path / "studies.db.artifacts"
    assert soon(lambda: artifacts.is_dir() and list(artifacts.iterdir())), dashboard.output
    dashboard.interrupt(signal.SIGINT)
    assert dashboard.ended() == 0, dashboard.output
    assert dashboard.process.pid in opened.watched()
    assert not opened.databases(), opened.databases()[0]
