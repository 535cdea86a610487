"""Reports and the dashboard's pages of a study into which another program wrote."""

from __future__ import annotations

from contextlib import closing

import pytest
from made_studies import FREE, forge, make_study, run_all

from search.dashboard.content import artifacts_of, charts_of, deserving, observed
from search.dashboard.notes import study_note, trial_note
from studies import record
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
