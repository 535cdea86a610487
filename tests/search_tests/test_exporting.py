"""The command ``export``: the best, one trial, several, and the finalist that was confirmed."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from exports import make_folder, search

from search.data.request import DataRequest
from search.objective import TrialRun
from search.prepare import StudyData, split_of
from search.repeating.common import plan_record, start_of
from search.retraining.exporting import ExportRequest, export_study
from studies.export import read_export
from studies.finalists import choose_top, confirm_name, remember_choices
from studies.plan import find_plan, open_plan
from studies.record import Drawing
from studies.statistics import mean_interval
from studies.storage import open_storage
from studies.study import SearchStudy


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Two trials of a search, and a plan of both on two fresh seeds and splits, all of them trained."""
    root = tmp_path_factory.mktemp("exporting")
    request = DataRequest(str(make_folder(root / "images", test=0)), root / "data")
    search(f"sqlite:///{root}/s.db", request, trials=2)
    with closing(open_storage(f"sqlite:///{root}/s.db", create=False, write=True)) as storage:
        study = SearchStudy(storage, "s")
        choices = choose_top(study, 2)
        start = start_of(study)
        plan = open_plan(storage, confirm_name("s", None), plan_record("confirm", start, None))
        plan.owe([choice.planned() for choice in choices], 2)
        remember_choices(plan, choices, None)
        data = StudyData(request, study.data, torch.device("cpu"))
        while not plan.is_complete():
            claim = plan.claim("here", Drawing(sampler="auto"))
            assert claim is not None
            run = TrialRun(plan, claim, data.divided(claim.split))
            while run.advance():
                pass
    return root


def request(root: Path, file: str, **changes) -> ExportRequest:
    settings = {"study": "s", "storage_url": f"sqlite:///{root}/s.db", "data_dir": root / "data", **changes}
    return ExportRequest(output=root / file, **settings)


def test_the_confirmed_finalist_has_the_best_mean_its_interval_and_the_runs_that_made_it(root):
    (line, *_) = export_study(request(root, "confirmed.yaml", confirmed=True))
    assert "repeated hold-out, n = 2" in line
    export = read_export(root / "confirmed.yaml")
    values = [run.accuracy for run in export.runs]
    assert export.score.mean == pytest.approx(np.mean(values))
    assert export.score.n == len(values) == 2
    interval = mean_interval(values, within=(0.0, 1.0))
    assert (export.score.low, export.score.high) == (
        (interval.low, interval.high) if interval else (None, None)
    )
    with closing(open_storage(f"sqlite:///{root}/s.db", create=False)) as storage:
        plan = find_plan(storage, "s/confirm")
        assert plan is not None
        means: dict[str, list[float]] = {}
        for (fingerprint, _), trial in plan.closed_trials().items():
            means.setdefault(fingerprint, []).append(trial.value or 0.0)
        assert max(np.mean(each) for each in means.values()) == pytest.approx(export.score.mean)
        assert np.mean(means[export.fingerprint]) == pytest.approx(export.score.mean)
    from search.data.sources import load

    data = load(DataRequest(str(root / "images"), root / "data"))
    splits = [split_of(run.split, data) for run in export.runs]
    assert [split.hash for split in splits] == [run.split.hash for run in export.runs]
    assert len({run.split.hash for run in export.runs}) == len({run.seed for run in export.runs}) == 2
    for split, run in zip(splits, export.runs, strict=True):
        assert (len(split.train_indices), len(split.val_indices)) == (
            run.split.train_images,
            run.split.val_images,
        )


def test_several_are_numbered_and_each_names_its_own_command(root):
    lines = export_study(request(root, "two.yaml", top=2))
    assert "two-1.yaml" in lines[0]
    first, second = (read_export(root / f"two-{rank}.yaml") for rank in (1, 2))
    assert first.score.mean >= second.score.mean
    assert f"two-2.yaml --seeds 3 -o {'runs/two-2'}" in second.command
    export_study(request(root, "same.yaml"))
    assert read_export(root / "same.yaml").settings == first.settings


@pytest.mark.parametrize(
    ("changes", "file", "said"),
    [
        ({"trial": 0, "top": 2}, "x.yaml", "--trial, --top, --confirmed: at most one"),
        ({"top": 2, "confirmed": True}, "x.yaml", "at most one"),
        ({}, "x.json", r"-o: must end in \.yaml"),
        ({"study": "ss"}, "x.yaml", "unknown study 'ss'.*did you mean 's'"),
        ({"study": "s/confirm"}, "x.yaml", "s/confirm"),
        ({"trial": 9}, "x.yaml", "--trial: .*got 9"),
        ({"top": 9}, "x.yaml", "--top: .*got 9"),
        ({"storage_url": "sqlite:///no.db"}, "x.yaml", r"--storage .*no\.db"),
        ({"confirmed": True, "dataset": "digits"}, "x.yaml", "--confirmed needs the data: --dataset: .*hash"),
    ],
)
def test_what_users_get_wrong_is_refused_and_nothing_is_written(root, changes, file, said):
    with pytest.raises(ValueError, match=said):
        export_study(request(root, file, **changes))
    assert not (root / file).exists()
