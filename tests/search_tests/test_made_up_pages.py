"""Reports and the dashboard's pages of a study into which another program wrote."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest
from made_studies import FREE, forge, make_study, run_all
from test_dashboard import call

from search.dashboard.content import artifacts_of, charts_of, deserving, observed
from search.dashboard.notes import study_note, trial_note
from search.dashboard.server import guarded_app
from studies import record
from studies.files import write_text
from studies.report.content import make_report
from studies.report.page import render
from studies.storage import open_storage
from studies.study import SearchStudy

MADE_UP = {
    record.SLOT: ("x",),
    record.SETUP: ("x", {}),
    record.OUTCOME: ("x", {}, {"reason": "finished", "seconds": {}, "versions": "x"}),
    record.HISTORY: ("x", {"lr": "x"}),
    record.CONFUSION: ("x", [[1], [2]]),
    record.WORKER: ({},),
}


ROWS = (
    "UPDATE trial_params SET distribution_json = 'x' WHERE param_id = 1",
    "UPDATE trial_params SET param_value = 99",
    "UPDATE trial_values SET value = NULL WHERE trial_id = 1",
    "UPDATE trial_values SET value_type = 'INF_POS', value = NULL",
    "UPDATE trial_intermediate_values SET intermediate_value = 'x' WHERE trial_id = 1",
    "UPDATE trial_intermediate_values SET intermediate_value_type = 'NAN', intermediate_value = NULL",
    "UPDATE trial_user_attributes SET value_json = 'x' WHERE trial_id = 1",
    "UPDATE trials SET state = 'x' WHERE trial_id = 1",
    "INSERT INTO study_system_attributes (study_id, key, value_json) VALUES (1, 'artifacts:ab', '5')",
    "INSERT INTO study_system_attributes (study_id, key, value_json) VALUES (1, 'dashboard:note_ver', '[]')",
    "INSERT INTO study_system_attributes (study_id, key, value_json) "
    "VALUES (1, 'dashboard:1:note_str:5', '\"x\"')",
    "INSERT INTO study_system_attributes (study_id, key, value_json) "
    "VALUES (1, 'dashboard:artifacts:1:ab', '\"{}\"')",
    "INSERT INTO trial_system_attributes (trial_id, key, value_json) VALUES (1, 'artifacts:ab', 'x')",
    "UPDATE trial_system_attributes SET value_json = '5' WHERE key = 'fixed_params'",
    "UPDATE study_system_attributes SET value_json = '5' WHERE key = 'study:metric_names'",
)
"""What another program can do to the rows of a study."""


@pytest.mark.slow
def test_a_report_of_characters_that_are_none_is_written(sqlite_url: str, tmp_path: Path) -> None:
    with closing(open_storage(sqlite_url, create=True)) as storage:
        study = make_study(storage, FREE, 2)
        run_all(study, lambda values: 0.5 + values["optimizer.lr"] / 10)
        study.add_notice("half of a letter: \ud83d")
        write_text(
            tmp_path / "r.html", render(make_report(storage, ["s"], sqlite_url, sqlite_url, resamples=2))
        )
    assert "half of a letter: \\ud83d" in (tmp_path / "r.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("statement", ROWS)
def test_pages_and_reports_are_made_of_rows_that_make_sense(
    statement: str, sqlite_url: str, tmp_path: Path
) -> None:
    with closing(open_storage(sqlite_url, create=True)) as storage:
        study = make_study(storage, FREE, 3)
        run_all(study, lambda values: 0.5 + values["optimizer.lr"] / 10)
        study.optuna.enqueue_trial({"optimizer.lr": 0.1})
        with storage.engine.begin() as connection:
            connection.exec_driver_sql(statement)
        app = guarded_app(storage, tmp_path, "127.0.0.1", sqlite_url, read_only=False)
        for page in ("/api/studies", "/api/studies/1"):
            status, _, body = call(app, page)
            assert status == 200
            json.loads(body, parse_constant=pytest.fail)
        assert render(make_report(storage, ["s"], sqlite_url, sqlite_url, resamples=2))
        again = SearchStudy(storage, "s")
        assert study_note(again, sqlite_url)
        for trial, entry in deserving(again):
            assert list(artifacts_of(again, trial, entry, sqlite_url))


@pytest.mark.slow
@pytest.mark.parametrize("key", MADE_UP)
def test_they_are_made_of_what_makes_sense(key: str, sqlite_url: str) -> None:
    with closing(open_storage(sqlite_url, create=True)) as storage:
        study = make_study(storage, FREE, 3)
        run_all(study, lambda values: 0.5 + values["optimizer.lr"] / 10)
        for value in MADE_UP[key]:
            forge(study, key, value, 1)
            again = SearchStudy(storage, "s")
            assert render(make_report(storage, ["s"], sqlite_url, sqlite_url, resamples=2))
            assert study_note(again, sqlite_url)
            for trial in again.trials():
                assert trial_note(again, trial, observed(again, trial))
            for trial, entry in deserving(again):
                assert list(artifacts_of(again, trial, entry, sqlite_url))
            for draw in charts_of(again):
                assert draw() is not None
