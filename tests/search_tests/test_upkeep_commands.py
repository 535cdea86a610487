"""The commands stop, delete and rename, and the question before a total is lowered."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from commands import called, refused
from made_studies import FREE, claim, end, make_study
from running import Command, data_folder, run_words, soon, start, training, trials_of

from studies.opening import open_existing
from studies.record import outcome_of
from studies.storage import open_storage
from studies.study import SearchStudy

__all__ = ["data_folder", "start"]
Start = Callable[..., Command]
LONG = ("--epochs", "50000")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder with a study of four trials, of which a worker elsewhere runs one."""
    here = tmp_path / "here"
    here.mkdir()
    with closing(open_storage(f"sqlite:///{here / 'cifar-search.db'}", create=True)) as storage:
        claim(make_study(storage, FREE, 4))
    return here


def total_of(url: str) -> int | None:
    with closing(open_storage(url, create=False)) as storage:
        return open_existing(storage, "s").total()


MISTAKES = [
    (("stop", "x"), "unknown study 'x': known are s"),
    (("delete", "x", "--yes"), "unknown study 'x': known are s"),
    (("rename", "x", "y"), "unknown study 'x': known are s"),
    (("rename", "s", "s"), "NEW: must be another name than the study has, but got 's'"),
    (("rename", "s", ""), "must not be empty"),
    (("rename", "s", " "), "NEW: must have 1 to 200 printable characters"),
    (("rename", "s", "mysql://u:secret@h/d"), "NEW: must be a name, but got a URL"),
    (("rename", "s", "a/ablate"), "NEW: must not end in /confirm or /ablate"),
    (
        ("rename", "s", "t"),
        "study 's' must have no running trial, but has 1 (of somewhere:1): stop it first",
    ),
    (("delete", "s", "--yes"), "study 's' must have no running trial, but has 1 (of somewhere:1)"),
]


@pytest.mark.parametrize(("words", "told"), MISTAKES, ids=lambda value: " ".join(value)[:30])
def test_a_mistake_is_a_line_and_changes_nothing(folder: Path, words: tuple[str, ...], told: str) -> None:
    with closing(open_storage(f"sqlite:///{folder / 'cifar-search.db'}", create=False)) as storage:
        before = storage.get_all_studies(), storage.get_all_trials(1)
        code, out, error = called(folder, *words)
        assert (code, out, len(error.splitlines())) == (2, "", 1)
        assert told in error
        assert (storage.get_all_studies(), storage.get_all_trials(1)) == before


def test_stop_says_who_works_and_that_nobody_does(folder: Path) -> None:
    assert "study 's': 1 running trial(s) of somewhere:1 are put back" in called(folder, "stop", "s")[1]
    with closing(
        open_storage(f"sqlite:///{folder / 'cifar-search.db'}", create=False, write=True)
    ) as storage:
        study = open_existing(storage, "s")
        study.fail_lost({"somewhere:x:1:2": "interrupted"})
    assert called(folder, "stop", "s") == (
        0, "study 's': no trial is running. Commands that start later are not stopped\n", ""
    )  # fmt: skip


@pytest.mark.slow
def test_a_total_is_lowered_only_by_who_says_yes(tmp_path: Path, sqlite_url: str, start: Start) -> None:
    del start  # which leaves the space
    (tmp_path / "here").mkdir()
    (tmp_path / "tiny.yaml").rename(tmp_path / "here" / "tiny.yaml")

    def run(trials: int | None, *more: str) -> tuple[int, str, str]:
        return called(tmp_path / "here", *run_words(sqlite_url, trials, 0, *more))

    assert run(5)[0] == 0
    assert refused(tmp_path / "here", *run_words(sqlite_url, 1, 0)) == (
        "cifar-search: --trials: study 's' owes 5 trials and has closed 0: lower it to 1? "
        "There is no terminal to ask at: add --yes to agree"
    )
    assert total_of(sqlite_url) == 5
    assert (run(None)[0], total_of(sqlite_url)) == (0, 5)
    assert (run(3, "--yes")[0], total_of(sqlite_url)) == (0, 3)
    assert (run(None, "--timeout", "9")[0], total_of(sqlite_url)) == (0, None)
    assert "owes any number of trials and has closed 0: lower it to 9?" in run(9)[2]


@pytest.mark.slow
def test_the_questions_at_a_terminal(sqlite_url: str, start: Start) -> None:
    lower = run_words(sqlite_url, 1, 0)
    delete = ["delete", "s", "--storage", sqlite_url]
    assert start(*run_words(sqlite_url, 5, 0)).ended() == 0

    def answered(words: list[str], keys: bytes) -> tuple[int, str]:
        command = start(*words, terminal=True)
        assert soon(lambda: "[y/N] " in command.output), command.output
        command.type(keys)
        return command.ended(), command.output.splitlines()[-1]

    declined = (2, "cifar-search: nothing was changed, since the answer was not yes")
    assert answered(lower, b"\n") == (2, declined[1].replace("nothing", "--trials: nothing"))
    assert answered(lower, b"\x03")[0] == 130
    assert answered(delete, b"n\n") == declined
    assert answered(delete, b"\x04") == declined
    assert total_of(sqlite_url) == 5
    assert answered(lower, b"y\n")[0] == 0
    assert total_of(sqlite_url) == 1
    assert answered(delete, b"Yes\n") == (0, "deleted study 's' with 0 trials")


@pytest.mark.slow
def test_all_who_work_on_a_study_are_stopped_and_nobody_who_comes_later(
    start: Start, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIFAR_SEARCH_SHARED", str(tmp_path))
    words = run_words(database_url, 50, 1, *LONG)
    commands = [start(*words)]
    assert soon(lambda: training(database_url)), commands[0].output
    commands += [start(*words), start("worker", "s", "--storage", database_url, "--workers", "1")]
    assert soon(lambda: len(training(database_url)) == 3), [each.output for each in commands]
    stop = start("stop", "s", "--storage", database_url)
    assert stop.ended() == 0
    for command in commands:
        assert f":{command.process.pid}" in stop.output
        assert command.ended() == 0, command.output
        assert "told to stop; running trials were put back. The same command continues" in command.output
        assert command.leaves_nothing_behind()
    attempts = trials_of(database_url)
    assert [outcome_of(trial).reason for trial in attempts] == ["interrupted"] * 3

    again = [start(*words), start("worker", "s", "--storage", database_url, "--workers", "1")]
    assert soon(lambda: len(training(database_url)) == 2), [each.output for each in again]
    again[0].interrupt()  # of those that lead, it stops no other but those that joined
    assert [each.ended() for each in again] == [130, 0]


@pytest.mark.slow
def test_the_repetitions_of_a_search_are_stopped_by_its_name(
    start: Start, sqlite_url: str, tmp_path: Path
) -> None:
    assert start(*run_words(sqlite_url, 1, 0, *LONG)).ended() == 0
    with closing(open_storage(sqlite_url, create=False, write=True)) as storage:
        search = SearchStudy(storage, "s")
        end(search, claim(search), "finished")
    confirm = start("confirm", "s", "--top", "1", "--storage", sqlite_url, "--workers", "1")
    assert soon(lambda: "s/confirm: 5 trainings" in confirm.output), confirm.output

    def trains() -> bool:
        with closing(open_storage(sqlite_url, create=False)) as storage:
            trials = open_existing(storage, "s/confirm").trials()
            return any(trial.intermediate_values for trial in trials)

    assert soon(trains), confirm.output
    stop = start("stop", "s", "--storage", sqlite_url)
    assert stop.ended() == 0
    assert "study 's/confirm': 1 running trial(s) of " in stop.output
    assert confirm.ended() == 0, confirm.output
    assert "told to stop; running trials were put back" in confirm.output
    assert start("rename", "s", "t", "--storage", sqlite_url).ended() == 0
    assert list(tmp_path.rglob("*.checkpoint"))
    delete = start("delete", "t", "--yes", "--storage", sqlite_url)
    assert delete.ended() == 0
    assert "deleted study 't' with 1 trials, 't/confirm' with 1 trials" in delete.output
    assert not list(tmp_path.rglob("*.checkpoint"))
