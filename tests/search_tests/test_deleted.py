"""A study that is deleted or renamed on the dashboard while commands train its trials."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import sqlalchemy as sa
from made_studies import FREE, make_study
from optuna.storages._rdb import models
from optuna.trial import TrialState
from running import Command, data_folder, run_words, soon, start

from studies.base import Study
from studies.opening import open_existing
from studies.record import outcome_of, slot_of
from studies.storage import open_storage

__all__ = ["data_folder", "start"]
pytestmark = pytest.mark.slow
Start = Callable[..., Command]
GONE = "study {!r} is not there any more: it was deleted or renamed"
LONG = "10000"
"""Epochs of which no machine trains all before a study is deleted."""
QUICK = """
question: Which learning rate?
base:
  model: {name: vgg, widths: [4], convolutions: 1, head: 0, normalization: none}
  training: {epochs: 1, batch_size: 64}
parameters:
  optimizer.lr: {float: [1e-3, 0.3], log: true, role: nuisance}
  model.dropout: {float: [0.0, 0.5], step: 0.1, role: scientific}
"""


class Dashboard:
    """``cifar-search dashboard``, told by requests as a browser sends them."""

    def __init__(self, start: Start, url: str) -> None:
        self.command = start("dashboard", "--storage", url)
        assert soon(lambda: "http://" in self.command.output), self.command.output
        found = re.search(r"http://\S+/", self.command.output)
        assert found is not None
        self._address = found[0]

    def ask(self, method: str, path: str, **body: object) -> int:
        request = Request(f"{self._address}api/{path}", json.dumps(body).encode(), method=method)
        request.add_header("Content-Type", "application/json")
        with urlopen(request, timeout=60) as answer:
            status: int = answer.status
        return status

    def delete(self, study: Study) -> None:
        assert self.ask("DELETE", f"studies/{study.study_id}") == 204

    def rename(self, study: Study, name: str) -> None:
        assert self.ask("POST", f"studies/{study.study_id}/rename", study_name=name) == 201

    def lives_on(self) -> bool:
        """Whether it still answers, and has said nothing of a fault."""
        with urlopen(f"{self._address}api/studies", timeout=60) as answer:
            assert answer.status == 200
        return "Traceback" not in self.command.output and self.command.process.poll() is None


@contextmanager
def opened(url: str, name: str) -> Iterator[Study]:
    with closing(open_storage(url, create=False, write=True)) as storage:
        yield open_existing(storage, name)


def everything(url: str) -> dict[str, list[Any]]:
    tables = models.BaseModel.metadata.sorted_tables
    with closing(open_storage(url, create=False)) as storage, storage.engine.connect() as connection:
        return {table.name: sorted(map(repr, connection.execute(sa.select(table)))) for table in tables}


def says_once_that_it_is_gone(command: Command, name: str) -> bool:
    """Whether it ends with the exit code of a refusal and one line on why, and leaves no process."""
    assert command.ended() == 2, command.output
    assert command.leaves_nothing_behind()
    assert "Traceback" not in command.output, command.output
    told = [line for line in command.output.splitlines() if "not there any more" in line]
    assert len(told) == 1, command.output
    assert not re.search(r"worker ends|worker\(s\) died", command.output), command.output
    return GONE.format(name) in told[0]


def begin(start: Start, url: str, words: list[str], name: str, trials: int) -> Command:
    """A command that works on a study in which so many trials are trained by now."""
    command = start(*words)
    assert soon(lambda: has_begun(url, name, trials) or command.process.poll() is not None), command.output
    assert command.process.poll() is None, command.output
    return command


def has_begun(url: str, name: str, trials: int) -> bool:
    with suppress(ValueError), opened(url, name) as study:  # there is none yet
        training = [t for t in study.trials() if t.state == TrialState.RUNNING and t.intermediate_values]
        return len(training) >= trials
    return False


def results(study: Study) -> dict[int | None, float | None]:
    """By slot."""
    return {slot_of(trial): trial.value for trial in study.slots().closing_trials()}


def test_a_search_that_is_deleted_ends_at_once_and_spares_the_next_of_its_ids(
    start: Start, sqlite_url: str
) -> None:
    command = begin(start, sqlite_url, run_words(sqlite_url, 4, 2, "--epochs", LONG), "s", 2)
    joined = begin(start, sqlite_url, ["worker", "s", "--storage", sqlite_url, "--workers", "1"], "s", 3)
    dashboard = Dashboard(start, sqlite_url)
    with opened(sqlite_url, "s") as study:
        ids = sorted(trial._trial_id for trial in study.trials())
        dashboard.delete(study)
        new = make_study(study.storage, FREE, 4)
        for _ in ids:
            new.optuna.ask()
        assert new.study_id == study.study_id
        assert sorted(trial._trial_id for trial in new.trials()) == ids
        assert says_once_that_it_is_gone(command, "s")
        assert says_once_that_it_is_gone(joined, "s")
        assert {trial.state for trial in new.trials()} == {TrialState.RUNNING}
        assert [(t.intermediate_values, t.user_attrs) for t in new.trials()] == [({}, {})] * len(ids)
    assert everything(sqlite_url)["trial_heartbeats"] == []
    assert dashboard.lives_on()


def test_a_search_on_a_server_that_is_deleted_ends_at_once(start: Start, postgres_url: str) -> None:
    command = begin(start, postgres_url, run_words(postgres_url, 4, 2, "--epochs", LONG), "s", 2)
    words = ["worker", "s", "--storage", postgres_url, "--workers", "1"]
    joined = begin(start, postgres_url, words, "s", 3)
    dashboard = Dashboard(start, postgres_url)
    with opened(postgres_url, "s") as study:
        dashboard.delete(study)
    assert says_once_that_it_is_gone(command, "s")
    assert says_once_that_it_is_gone(joined, "s")
    left = {name for name, rows in everything(postgres_url).items() if rows}
    assert left == {"version_info"}
    assert dashboard.lives_on()


def test_a_search_that_is_renamed_ends_at_once_and_goes_on_under_its_new_name(
    start: Start, sqlite_url: str, tmp_path: Path
) -> None:
    (tmp_path / "quick.yaml").write_text(QUICK)
    words = run_words(sqlite_url, 100_000, 1, space="quick")
    command, dashboard = begin(start, sqlite_url, words, "s", 0), Dashboard(start, sqlite_url)
    with opened(sqlite_url, "s") as study:
        assert soon(lambda: study.slots().closed() > 6)
        before = results(study)
        dashboard.rename(study, "t")
    assert says_once_that_it_is_gone(command, "s")
    with opened(sqlite_url, "t") as renamed:
        done = results(renamed)
        assert before.items() <= done.items()
        words[words.index("s")] = "t"
        words[words.index("--trials") + 1] = str(len(done) + 2)
        assert start(*words, "--yes").ended() == 0
        after = results(renamed)
    assert done.items() <= after.items()
    assert sorted(after) == list(range(len(done) + 2))
    assert dashboard.lives_on()


@pytest.mark.parametrize("deleted", ["s/confirm", "s"])
def test_a_confirmation_of_which_a_study_is_deleted_ends_with_a_line(
    start: Start, sqlite_url: str, tmp_path: Path, deleted: str
) -> None:
    """Its own; or the search's, which is not needed until the results are told."""
    (tmp_path / "long.yaml").write_text(QUICK.replace("epochs: 1,", "epochs: 1500,"))
    assert start(*run_words(sqlite_url, 1, 1, space="long")).ended() == 0
    words = ["confirm", "s", "--top", "1", "--seeds", "2", "--storage", sqlite_url, "--workers", "1"]
    command, dashboard = begin(start, sqlite_url, words, "s/confirm", 1), Dashboard(start, sqlite_url)
    with opened(sqlite_url, deleted) as study:
        dashboard.delete(study)
    if deleted == "s/confirm":
        assert says_once_that_it_is_gone(command, deleted)
    else:
        assert command.ended() in (0, 2), command.output
        assert command.leaves_nothing_behind()
        assert "Traceback" not in command.output, command.output
        with opened(sqlite_url, "s/confirm") as plan:
            assert plan.is_complete()
    assert dashboard.lives_on()


def test_mistyped_trials_in_the_queue_are_named_and_cost_no_result(
    start: Start, sqlite_url: str, tmp_path: Path
) -> None:
    (tmp_path / "quick.yaml").write_text(QUICK)
    words = run_words(sqlite_url, 2, 2, space="quick")
    assert start(*words).ended() == 0
    with opened(sqlite_url, "s") as study:
        study.optuna.enqueue_trial({"optimizer.lrr": 0.1})
        study.optuna.enqueue_trial({"optimizer.lr": 0.25, "model.dropout": 0.5})
        study.optuna.enqueue_trial({"optimizer.lr": "0.1"}, user_attrs={"slot": 2})
        study.optuna.enqueue_trial({"model.dropout": 0.45})
        words[words.index("--trials") + 1] = "6"
        assert start(*words).ended() == 0
        trials = study.trials()
    done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert sorted(map(slot_of, done)) == list(range(6))
    assert [t.number for t in done if t.params == {"optimizer.lr": 0.25, "model.dropout": 0.5}] == [3]
    refused = [trial for trial in trials if trial.state == TrialState.FAIL]
    assert [trial.number for trial in refused] == [2, 4, 5]
    show = start("show", "s", "--storage", sqlite_url)
    assert show.ended() == 0
    told = " ".join(show.output.split())
    for trial in refused:
        outcome = outcome_of(trial)
        assert outcome is not None
        assert f"trial {trial.number}, which was queued by hand, cannot be run: {outcome.message}" in told
