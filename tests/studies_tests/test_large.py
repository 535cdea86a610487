"""Large databases: what is read in brief tells the same as all that is stored, and no more is read than is
told of."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import optuna
import pytest
from asked import asked
from made_studies import EPOCHS, FREE, claim, end, make_study
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.look import show_study
from studies import record, summary
from studies.effects import read_effects
from studies.export import of_best, of_trial
from studies.finalists import choose_top, confirm_name, remember_choices
from studies.importance import importances
from studies.listing import Listed, list_studies
from studies.opening import open_existing
from studies.plan import PlanRecord, PlanStudy, open_plan
from studies.reading import WHOLE, read_some, read_states
from studies.record import Outcome, SplitSpec
from studies.storage import open_storage
from studies.study import SearchStudy
from studies.summary import as_json, ranked, summarize


def every_kind(storage: RDBStorage) -> SearchStudy:
    """A search that has a trial of every kind."""
    study = make_study(storage, FREE, 40)
    for number in range(12):
        end(study, claim(study), "finished", 0.5 + 0.03 * (number % 7))
    for reason, epochs in (("pruned", 2), ("diverged", 3), ("out of memory", 0), ("interrupted", 1)):
        end(study, claim(study), reason, epochs=epochs)  # type: ignore[arg-type]
    end(study, claim(study), "finished", 0.61)
    for _ in range(3):
        end(study, claim(study), "error", epochs=0)
    study.optuna.enqueue_trial({"model.dropout": 0.1})
    end(study, claim(study), "finished", 0.9)
    study.optuna.enqueue_trial({"optimizer.lr": 17.0})
    claim(study)
    attributes = {record.SLOT: 30, record.OUTCOME: Outcome(reason="killed").model_dump(mode="json")}
    before_setup = create_trial(state=TrialState.FAIL, user_attrs=attributes)
    study.storage.create_new_trial(study.study_id, before_setup)
    study.optuna.add_trial(create_trial(value=0.99, user_attrs={"slot": "none"}))
    study.optuna.enqueue_trial({"model.dropout": 0.2})
    return study


def plan_of(study: SearchStudy) -> PlanStudy:
    """Two of its configurations, the first of them repeated once."""
    described = PlanRecord(
        kind="confirm", parent=study.name, question="q", data=study.data, parent_id=study.mark,
        split=SplitSpec(seed=0, val_size=0.1), folds=None, epochs=EPOCHS,
    )  # fmt: skip
    plan = open_plan(study.storage, confirm_name(study.name, None), described)
    choices = choose_top(study, 2)
    remember_choices(plan, choices, None)
    plan.owe([choice.planned() for choice in choices], 1)
    for value in (0.6, 0.7):
        claimed = plan.claim("somewhere:x:1:2", record.Drawing(sampler="random"))
        assert claimed is not None
        plan.close(claimed.trial_id, TrialState.COMPLETE, Outcome(reason="finished"), value=value)
    return plan


def whole(study: SearchStudy) -> SearchStudy:
    """The study as it tells of itself when all that is stored is read, by Optuna's own way."""
    same = SearchStudy(study.storage, study.name)
    same._brief = same.trials()
    return same


_SLOW = [pytest.param(server, marks=pytest.mark.slow) for server in ("postgres", "mysql")]


@pytest.fixture(params=["sqlite", *_SLOW])
def storage(request: pytest.FixtureRequest) -> Iterator[RDBStorage]:
    """Of each kind of database."""
    with closing(open_storage(request.getfixturevalue(f"{request.param}_url"), create=True)) as storage:
        yield storage


def compared(trial: FrozenTrial) -> list[Any]:
    """What of a trial both ways of reading tell."""
    setup = record.setup_of(trial) if record.CONFIGURATION in trial.user_attrs.get(record.SETUP, {}) else None
    return [
        trial._trial_id, trial.number, trial.state, trial.values, trial.params, list(trial.params),
        trial.distributions, trial.datetime_start, trial.datetime_complete, record.slot_of(trial),
        record.outcome_of(trial), record.fingerprint_of(trial) if setup is None else setup.fingerprint,
        record.sampler_of(trial) if setup is None else setup.sampler,
    ]  # fmt: skip


def check_list(storage: RDBStorage) -> None:
    """A list says of each study what the study says itself."""
    make_study(storage, FREE, None, name="empty")
    optuna.create_study(study_name="theirs", storage=storage).add_trial(create_trial(value=3.0))
    listed = {each.name: each for each in list_studies(storage)}
    assert list(listed) == ["s", "s/confirm", "empty", "theirs"]
    for name in ("s", "s/confirm", "empty"):
        study = open_existing(storage, name)
        ended = study.slots().closing_trials()
        best = max((t.value or 0.0 for t in ended if t.state == TrialState.COMPLETE), default=None)
        space = "(confirm)" if isinstance(study, PlanStudy) else study.record.space_name
        assert listed[name] == Listed(name, len(ended), space, "digits", EPOCHS, study.total(), best)
    assert listed["theirs"] == Listed("theirs", 1)


def test_what_is_read_in_brief_tells_the_same_as_all_that_is_stored(storage: RDBStorage) -> None:
    study = every_kind(storage)
    plan_of(study)
    states = {trial.state for trial in study.trials()}
    assert states == set(TrialState)
    assert list(map(compared, study.trials_in_brief())) == list(map(compared, study.trials()))
    assert summarize(study) == summarize(whole(study))
    assert summarize(study).given_up
    assert ranked(study) == ranked(whole(study))
    assert read_effects(study) == read_effects(whole(study))
    assert any("another program" in line for line in read_effects(study).missing)
    assert study.whole_trials([5, 2, 1000]) == [study.trials()[2], study.trials()[5]]
    check_list(storage)


def test_a_list_takes_as_many_statements_for_many_studies_as_for_few(sqlite_url: str) -> None:
    with closing(open_storage(sqlite_url, create=True)) as storage:
        counts = []
        for last in (5, 50):
            for number in range(last - 5, last):
                study = make_study(storage, FREE, 2, name=f"s{number}")
                end(study, claim(study), "finished")
            with asked() as seen:
                list_studies(storage)
            counts.append(len(seen.statements))
            assert not seen.trials_with_values
    assert counts[0] == counts[1] < 15


def _show(study: SearchStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.look.PAGE", 3)
    show_study(str(study.storage.engine.url.render_as_string(hide_password=False)), study.name, as_json=False)


TOLD: dict[str, tuple[Callable[..., Any], int]] = {
    "summary": (lambda study, _: summarize(study), 0),
    "importances": (lambda study, _: importances(study.trials_in_brief()), 0),
    "export": (lambda study, _: of_best(study, "sqlite:///x.db"), 1),
    "export of a trial": (lambda study, _: of_trial(study, "sqlite:///x.db", 4), 1),
    "effects": (lambda study, _: read_effects(study), 5),
    "show": (_show, 3),
}
"""What is told of a study, and of how many trials at most the curves are needed: in ``effects``, those of the
best at each of five levels."""


@pytest.mark.parametrize("told", TOLD)
def test_no_curves_are_read_but_those_of_trials_that_are_told_of(
    sqlite_url: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell, most = TOLD[told]
    with closing(open_storage(sqlite_url, create=True)) as storage:
        study = make_study(storage, FREE, 8)
        for number in range(8):
            end(study, claim(study), "finished", 0.5 + number / 100)
        monkeypatch.setenv("COLUMNS", "200")
        with asked() as seen:
            tell(SearchStudy(storage, "s"), monkeypatch)
    assert len(seen.trials_with_values) <= most


def test_json_is_told_while_it_is_read(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "_AT_ONCE", 2)
    with closing(open_storage(sqlite_url, create=True)) as storage:
        study = make_study(storage, FREE, 8)
        for _ in range(5):
            end(study, claim(study), "finished")
        read, pieces = [], []
        with asked() as seen:
            for piece in as_json(study):
                pieces.append(piece)
                read.append(len(seen.trials_with_values))
    assert read == [0, 2, 2, 4, 4, 5, 5]
    assert [trial["number"] for trial in json.loads("".join(pieces))["trials"]] == list(range(5))


def test_a_page_of_trials_is_shown_and_which(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("search.look.PAGE", 3)
    monkeypatch.setenv("COLUMNS", "200")

    def shown(page: int | None) -> tuple[list[int], str]:
        show_study(sqlite_url, "s", as_json=False, page=page)
        text = capsys.readouterr().out.split("validation accuracy by epoch")[1]
        cells = [line.split("│")[1].strip() for line in text.splitlines() if line.startswith("│")]
        return [int(cell) for cell in cells if cell], text.splitlines()[-1]

    with closing(open_storage(sqlite_url, create=True)) as storage:
        study = make_study(storage, FREE, 8)
        for _ in range(3):
            end(study, claim(study), "finished")
        assert shown(None)[0] == [0, 1, 2]
        assert "--page" not in shown(None)[1]
        for _ in range(4):
            end(study, claim(study), "finished")
    assert shown(None) == ([6], "trials 6 to 6 of 7; the others: --page 1 to 3")
    assert shown(2) == ([3, 4, 5], "trials 3 to 5 of 7; the others: --page 1 to 3")
    with pytest.raises(ValueError, match=r"--page: must be 1 to 3, of 3 trials each, but got 4"):
        show_study(sqlite_url, "s", as_json=False, page=4)
    with pytest.raises(ValueError, match=r"--page: is of the table of a search's trials: leave it out"):
        show_study(sqlite_url, "s", as_json=True, page=1)


def test_what_only_reads_an_sqlite_file_does_not_wait_for_who_writes(sqlite_url: str) -> None:
    with closing(open_storage(sqlite_url, create=True)) as storage:
        study = make_study(storage, FREE, 8)
        end(study, claim(study), "finished")
        other = open_storage(sqlite_url, create=False, write=True)
        with closing(other), other.engine.begin() as writing:
            writing.exec_driver_sql("UPDATE trials SET number = number")
            assert len(read_some(storage, study.study_id, WHOLE)) == 1
            assert len(list_studies(storage)) == len(read_states(storage, ())) == 1
