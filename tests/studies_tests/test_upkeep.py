"""A search with its repetitions, deleted and renamed: all of it or nothing, and nothing of others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from faults import lost_commit
from made_studies import EPOCHS, FREE, claim, end, make_study, run_all
from optuna.artifacts import upload_artifact
from optuna.storages._rdb import models

from spaces.config import Configuration
from studies.artifacts import ArtifactStore, artifact_folder, attach_text
from studies.base import Study
from studies.folders import checkpoint_folder
from studies.plan import PlannedEntry, PlanRecord, PlanStudy, open_plan
from studies.processes import process_name
from studies.record import DataRecord, Drawing, SplitSpec
from studies.storage import GoneError, Storage, open_storage
from studies.study import SearchStudy
from studies.upkeep import delete, rename, with_repetitions, work_on

ENTRY = PlannedEntry.of("a", Configuration.read({"training": {"epochs": EPOCHS}}))
Rows = dict[str, list[str]]


@pytest.fixture
def storage(database_url: str) -> Iterator[Storage]:
    with closing(open_storage(database_url, create=True)) as storage:
        yield storage


@pytest.fixture(autouse=True)
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where files of a server's studies are kept."""
    monkeypatch.setenv("CIFAR_SEARCH_SHARED", str(tmp_path / "shared"))


def search(storage: Storage, mark: str, name: str = "s") -> SearchStudy:
    return make_study(storage, FREE, 1, name, mark=mark)


def plan_record(kind: str, parent: str, mark: str, parent_id: str) -> PlanRecord:
    data = DataRecord(name="digits", hash="d", classes=("0", "1"), shape=(8, 8, 1))
    split = SplitSpec(seed=5, val_size=100)
    about = {"kind": kind, "parent": parent, "mark": mark, "parent_id": parent_id, "folds": None}
    return PlanRecord(question="?", data=data, split=split, epochs=EPOCHS, **about)


def repetition(of: Study, kind: str, mark: str, parent_id: str) -> PlanStudy:
    plan = open_plan(of.storage, f"{of.name}/{kind}", plan_record(kind, of.name, mark, parent_id))
    plan.owe([ENTRY], 1)
    return plan


def names(storage: Storage) -> set[str]:
    return set(optuna.get_all_study_names(storage=storage))


def rows(storage: Storage) -> Rows:
    with storage.engine.connect() as connection:
        tables = models.BaseModel.metadata.sorted_tables
        return {table.name: sorted(map(repr, connection.execute(sa.select(table)))) for table in tables}


@pytest.mark.parametrize("mark", ["random", ""])
def test_a_search_takes_its_repetitions_and_its_mark_to_its_new_name(storage: Storage, mark: str) -> None:
    """Those of a version that gave no marks too."""
    study = search(storage, mark)
    run_all(study, lambda parameters: 0.5)
    own = repetition(study, "confirm", mark and "m", study.record.mark)
    other = repetition(study, "ablate", "of another", "an earlier search of the name")
    marks, trials = (study.mark, own.mark), study.trials()
    rename(with_repetitions(study), "t")
    assert names(storage) == {"t", "t/confirm", other.name}
    renamed, plan = with_repetitions(SearchStudy(storage, "t"))
    assert (renamed.mark, plan.mark) == marks
    assert renamed.trials() == trials
    assert plan.name == "t/confirm"
    open_plan(storage, plan.name, plan_record("confirm", "t", "new", study.mark))  # goes on


@pytest.mark.parametrize("taken", ["t", "t/confirm"])
def test_a_name_that_is_taken_changes_nothing(storage: Storage, taken: str) -> None:
    study = search(storage, "a")
    repetition(study, "confirm", "b", "a")
    make_study(storage, FREE, 1, taken)
    before = rows(storage)
    with pytest.raises(ValueError, match=f"there is a study '{taken}' already: choose another name"):
        rename(with_repetitions(study), "t")
    assert rows(storage) == before


def test_mysql_takes_another_spelling_of_the_same_name_alone(mysql_url: str) -> None:
    with closing(open_storage(mysql_url, create=True)) as storage:
        study, other = search(storage, "a"), search(storage, "b", "Digits")
        rename([study], "S")
        assert SearchStudy(storage, "S").study_id == study.study_id
        with pytest.raises(ValueError, match="holds the study 'Digits', whose name this database takes"):
            rename([SearchStudy(storage, "S")], "dígits")
        assert names(storage) == {"S", other.name}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("server", ["postgres", "mysql"])
def test_a_rename_of_which_the_answer_is_lost_is_done_once(
    request: pytest.FixtureRequest, server: str, when: str
) -> None:
    with closing(open_storage(request.getfixturevalue(f"{server}_url"), create=True)) as storage:
        study = search(storage, "a")
        repetition(study, "confirm", "b", "a")
        studies = with_repetitions(study)
        with lost_commit(storage.engine, when):
            rename(studies, "t")
        assert names(storage) == {"t", "t/confirm"}


def test_a_study_is_deleted_with_its_repetitions_files_and_nothing_else(
    storage: Storage, database_url: str, tmp_path: Path
) -> None:
    store = ArtifactStore(artifact_folder(database_url))
    (tmp_path / "mine.txt").write_text("mine")

    def with_files(study: Study) -> Study:
        trial = study.optuna.ask()
        attach_text(study, store, trial._trial_id, "a.txt", study.name)
        for owner in (trial, study.optuna):
            upload_artifact(
                study_or_trial=owner, file_path=str(tmp_path / "mine.txt"),
                artifact_store=store, storage=storage,
            )  # fmt: skip
        study.optuna.tell(trial, 0.5)
        checkpoint_folder(database_url, study).mkdir(parents=True)
        return study

    kept = with_files(search(storage, "kept", "kept"))
    rest, files = rows(storage), sorted(tmp_path.rglob("*"))
    study = with_files(search(storage, "a"))
    with_files(repetition(study, "confirm", "b", "a"))
    storage.set_study_system_attr(study.study_id, "artifacts:../mine.txt", "null")
    for each in reversed(with_repetitions(study)):
        delete(each, database_url)
    assert rows(storage) == rest
    assert sorted(tmp_path.rglob("*")) == files
    assert kept.trials()
    with pytest.raises(GoneError):
        study.trials()


def test_a_study_is_not_deleted_while_somebody_works_on_it(storage: Storage, database_url: str) -> None:
    study = make_study(storage, FREE, 4)
    of_dead = study.claim(process_name(2**22 + 1) + "1", Drawing(sampler="random"))
    working = claim(study)
    assert work_on(study).trials == 1
    before = rows(storage)
    with pytest.raises(ValueError, match=r"'s' must have no running trial, but has 1 \(of somewhere:1\)"):
        delete(study, database_url)
    assert rows(storage) == before
    end(study, working, "finished")
    assert of_dead is not None
    delete(study, database_url)
    assert not names(storage)


def test_who_works_is_named_by_the_command_that_leads(storage: Storage) -> None:
    study = make_study(storage, FREE, 4)
    for worker in ("h:x:1:2", "h:x:3:4"):
        study.claim(worker, Drawing(sampler="random"), leader="h:x:5:6")
    study.claim("g:x:7:8", Drawing(sampler="random"))
    study.optuna.ask()
    work = work_on(study)
    assert (work.trials, work.commands) == (4, ("h:5", "g:7", "another program"))


def test_no_more_is_owed_than_before_without_a_question(storage: Storage) -> None:
    study = make_study(storage, FREE, 4)
    lower = [study.would_be_lowered(total) for total in (3, 4, 5, None)]
    study.set_total(None)
    assert lower == [True, False, False, False]
    assert study.would_be_lowered(10**6)
    assert not study.would_be_lowered(None)
