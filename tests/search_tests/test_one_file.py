"""One SQLite file that serves many at once: a dashboard, searches, notes, and other programs that read it."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import optuna
import pytest
from dashboard_studies import make_foreign
from optuna_dashboard import get_note
from running import PATIENCE, Command, closed_exactly, data_folder, run_words, soon, start

from studies.notes import note_of
from studies.opening import open_existing
from studies.storage import open_storage

__all__ = ["data_folder", "start"]

SOAK = float(os.environ.get("CIFAR_SEARCH_TEST_SOAK", "120"))
"""Seconds of the soak."""
PAUSE = 10.0
"""Seconds between two commands of a series: two cores are idle half of the time."""
TROUBLE = re.compile(r"damaged|malformed|\blocked\b|Traceback", re.IGNORECASE)
READER = """
import signal, sqlite3, sys, time
path, copy = sys.argv[1:]
told = []
signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
looks = 0
while not told:
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=60)
    database.execute("SELECT count(*) FROM trials").fetchone()
    assert database.execute("PRAGMA quick_check").fetchone() == ("ok",)
    if looks % 5 == 0:
        backup = sqlite3.connect(copy)
        database.backup(backup)
        assert backup.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        backup.close()
    database.close()
    looks += 1
    time.sleep(1)
print(looks)
"""
"""What another program does: it looks at the file each second, and copies it."""


class Dashboard:
    """The command ``dashboard``, running, and what a browser asks of it."""

    def __init__(self, start: Callable[..., Command], url: str) -> None:
        self.command = start("dashboard", "--storage", url)
        assert soon(lambda: "http://" in self.command.output), self.command.output
        self._address = re.findall(r"http://\S+/", self.command.output)[0]

    def get(self, path: str) -> Any:
        with urlopen(self._address + path, timeout=PATIENCE) as answer:
            return json.load(answer)

    def append(self, study_id: int, text: str) -> None:
        """Write a line below the note on a study, as who edits it in the browser; again if it has changed."""
        while True:
            note = self.get(f"api/studies/{study_id}")["note"]
            body = {"version": note["version"] + 1, "body": f"{note['body']}\n{text}\n"}
            request = Request(
                f"{self._address}api/studies/{study_id}/note",
                json.dumps(body).encode(),
                {"Content-Type": "application/json"},
                method="PUT",
            )
            try:
                with urlopen(request, timeout=PATIENCE) as answer:
                    assert answer.status == 204
                    return
            except HTTPError as refusal:
                with refusal:
                    if refusal.code != 409:  # another one was first
                        raise

    def lost_files(self) -> list[str]:
        """Files of the database that it has open, though they have been deleted."""
        links = Path(f"/proc/{self.command.process.pid}/fd").iterdir()
        names = [str(link.readlink()) for link in links if link.is_symlink()]
        return [name for name in names if ".db" in name and name.endswith("(deleted)")]

    def end(self) -> None:
        self.command.interrupt(signal.SIGINT)
        assert self.command.ended() == 0, self.command.output


def check_integrity(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.slow
def test_a_dashboard_keeps_the_file_when_a_command_beside_it_ends(
    start: Callable[..., Command], sqlite_url: str, tmp_path: Path
) -> None:
    first = start(*run_words(sqlite_url, 1, 1, "--epochs", "2"))
    assert first.ended() == 0, first.output
    dashboard = Dashboard(start, sqlite_url)
    assert soon(lambda: dashboard.get("api/studies/1")["note"]["body"])  # its own thread has looked, too
    noted = start("note", "s", "A by the command line", "--storage", sqlite_url)
    assert noted.ended() == 0, noted.output
    dashboard.append(1, "B in the browser")
    more = start(*run_words(sqlite_url, 2, 1, "--epochs", "2"))
    assert more.ended() == 0, more.output
    lost = dashboard.lost_files()
    dashboard.end()

    assert not lost
    check_integrity(tmp_path / "studies.db")
    assert closed_exactly(sqlite_url, 2)
    with closing(open_storage(sqlite_url, create=False)) as storage:
        note = note_of(open_existing(storage, "s"))
    assert "A by the command line" in note
    assert "B in the browser" in note


class Series:
    """A command that is typed again and again, with pauses, each time with the next number from 1."""

    def __init__(self, words: Callable[[int], list[str]]) -> None:
        self._words = words
        self._rested = 0.0
        self.typed: list[Command] = []

    def go_on(self, start: Callable[..., Command], more: bool) -> bool:
        """Type the command when its time has come, if there is to be ``more``; whether one is running."""
        if self.typed and self.typed[-1].process.poll() is None:
            self._rested = time.monotonic() + PAUSE
            return True
        if not more or time.monotonic() < self._rested:
            return False
        self.typed.append(start(*self._words(len(self.typed) + 1)))
        return True


class Soak:
    """All that goes on at once on the file of a search ``s``."""

    def __init__(self, start: Callable[..., Command], url: str) -> None:
        at = ["--storage", url]
        self._start = start
        self.dashboard = Dashboard(start, url)
        self.searching = Series(lambda number: run_words(url, 2 + number, 1, "--epochs", "2"))
        self.noting = Series(lambda number: ["note", "s", f"typed {number}.", *at])
        self.confirming = Series(
            lambda number: ["confirm", "s", "--top", "2", "--seeds", str(number), "--workers", "1", *at]
        )
        self.saved = 0

    def last(self, seconds: float, noted: int) -> None:
        """Let all go on for a while, and then to its end; the dashboard saves a note on the study ``noted``
        every few seconds."""
        until = time.monotonic() + seconds
        while self._go_on(time.monotonic() < until) or time.monotonic() < until:
            assert self.dashboard.get("api/studies")
            self.saved += 1
            self.dashboard.append(noted, f"saved {self.saved}.")
            time.sleep(3)

    def _go_on(self, more: bool) -> bool:
        running = [each.go_on(self._start, more) for each in (self.searching, self.noting, self.confirming)]
        return any(running)

    def commands(self) -> list[Command]:
        return [
            self.dashboard.command,
            *self.searching.typed,
            *self.noting.typed,
            *self.confirming.typed,
        ]


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Start the program that reads; it is killed at the end of the test."""
    started: list[subprocess.Popen[str]] = []

    def begin() -> subprocess.Popen[str]:
        words = [sys.executable, "-c", READER, str(tmp_path / "studies.db"), str(tmp_path / "copy.db")]
        started.append(subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_one_file_serves_all_at_once_for_minutes(
    start: Callable[..., Command],
    sqlite_url: str,
    tmp_path: Path,
    reader: Callable[[], subprocess.Popen[str]],
) -> None:
    first = start(*run_words(sqlite_url, 2, 1, "--epochs", "2"))
    assert first.ended() == 0, first.output
    with closing(open_storage(sqlite_url, create=False, write=True)) as storage:
        foreign_id = make_foreign(storage, "foreign")._study_id
    soak, reading = Soak(start, sqlite_url), reader()
    soak.last(SOAK, foreign_id)
    lost = soak.dashboard.lost_files()
    soak.dashboard.end()
    reading.terminate()
    looks, _ = reading.communicate(timeout=PATIENCE)

    assert reading.returncode == 0, looks
    assert int(looks) > 1
    for command in soak.commands():
        assert command.process.returncode == 0, command.output
        assert not TROUBLE.search(command.output), command.output
    assert not lost
    check_integrity(tmp_path / "studies.db")
    assert closed_exactly(sqlite_url, 2 + len(soak.searching.typed))
    with closing(open_storage(sqlite_url, create=False)) as storage:
        note = note_of(open_existing(storage, "s"))
        foreign = get_note(optuna.load_study(study_name="foreign", storage=storage))
        plan = open_existing(storage, "s/confirm")
        assert plan.slots().closed() == plan.total()
        assert all(trial.state.is_finished() for trial in plan.trials())
    assert re.findall(r"^typed (\d+)\.$", note, re.MULTILINE) == numbers(len(soak.noting.typed))
    assert re.findall(r"^saved (\d+)\.$", foreign, re.MULTILINE) == numbers(soak.saved)


def numbers(last: int) -> list[str]:
    return [str(number) for number in range(1, last + 1)]
