"""Attributes of any length on every database: read as they were set, whole or not at all, by every reader."""

from __future__ import annotations

import io
import itertools
import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from contextlib import closing
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import optuna
import optuna_dashboard
import pytest
import sqlalchemy as sa
import yaml
from faults import lost_commit
from made_studies import FREE, claim, end, make_study
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from spaces.config import Configuration
from spaces.space import Space
from studies.attributes import LONGEST, PIECES
from studies.base import ensure_study
from studies.notes import add_note, note_of
from studies.opening import open_existing
from studies.plan import PlannedEntry, PlanRecord, PlanStudy, open_plan
from studies.reading import read_attributes
from studies.record import (
    LARGEST_CONFUSION,
    STUDY,
    DataRecord,
    Drawing,
    Outcome,
    SplitRecord,
    SplitSpec,
    StudyRecord,
)
from studies.storage import Storage, StorageError, open_storage
from studies.study import SearchStudy, open_study

optuna.logging.set_verbosity(optuna.logging.ERROR)
pytestmark = pytest.mark.slow  # a minute in all
MAXIMIZE = StudyDirection.MAXIMIZE
MIXED = "'quoted' \"twice\" \\back\\\\ %s {} \n\t é 日本 🙂 \u2028"
"""Text that costs the most when it is written as JSON twice, and what statements could take for their own."""
VALUES: dict[str, Any] = {
    "empty": "",
    "longest in one row": "x" * (LONGEST - 2),
    "one more": "x" * (LONGEST - 1),
    "quotes": '"' * 70_000,
    "backslashes": "\\" * 70_000,
    "of any script": MIXED * 3_000,
    "megabyte": "y" * 1_000_000,
    "list": [[number, number / 7, None, True, "é"] for number in range(8_000)],
    "mapping": {f"{number} é": MIXED for number in range(2_000)},
    "short": 1,
    "none": None,
}
"""From one to the next an attribute grows and shrinks."""
forkserver = multiprocessing.get_context("forkserver")
forkserver.set_forkserver_preload(["studies.study", "pytest", "psycopg", "pymysql", "alembic.script"])


def readings_of_study(storage: Storage, study_id: int, *, system: bool) -> list[dict[str, Any]]:
    """A study's attributes by every way in which they are read."""
    name = storage.get_study_name_from_id(study_id)
    (frozen,) = (study for study in storage.get_all_studies() if study._study_id == study_id)
    cached = optuna.storages.get_storage(storage)
    study = optuna.load_study(study_name=name, storage=storage)
    if system:
        return [
            storage.get_study_system_attrs(study_id), frozen.system_attrs,
            cached.get_study_system_attrs(study_id), study._storage.get_study_system_attrs(study_id),
        ]  # fmt: skip
    (summary,) = (each for each in optuna.get_all_study_summaries(storage) if each.study_name == name)
    return [
        storage.get_study_user_attrs(study_id), frozen.user_attrs, cached.get_study_user_attrs(study_id),
        study.user_attrs, summary.user_attrs,
    ]  # fmt: skip


def readings_of_trial(
    storage: Storage, study_id: int, trial_id: int, *, system: bool
) -> list[dict[str, Any]]:
    """A trial's attributes by every way in which they are read."""
    study = optuna.load_study(study_name=storage.get_study_name_from_id(study_id), storage=storage)
    cached = optuna.storages.get_storage(storage)
    trials = [
        storage.get_trial(trial_id), *storage.get_all_trials(study_id), *study.get_trials(), *study.trials,
        cached.get_trial(trial_id), *cached.get_all_trials(study_id),
    ]  # fmt: skip
    found = [trial for trial in trials if trial._trial_id == trial_id]
    if system:
        return [storage.get_trial_system_attrs(trial_id), *(trial.system_attrs for trial in found)]
    return [storage.get_trial_user_attrs(trial_id), *(trial.user_attrs for trial in found)]


def test_attributes_of_studies_are_read_as_they_were_set(database_url: str) -> None:
    with (
        closing(open_storage(database_url, create=True)) as storage,
        closing(open_storage(database_url, create=False)) as reader,
    ):
        study_id = storage.create_new_study([MAXIMIZE], "s")
        storage.set_study_user_attr(study_id, "other", MIXED)
        storage.set_study_system_attr(study_id, "other", MIXED)
        for name, value in VALUES.items():
            storage.set_study_user_attr(study_id, "value", value)
            storage.set_study_system_attr(study_id, "value", value)
            storage.set_study_user_attr(study_id, f"kept {name}", value)
        whole = {f"kept {name}": value for name, value in VALUES.items()} | {"other": MIXED, "value": None}
        for system, expected in ((False, whole), (True, {"other": MIXED, "value": None})):
            for seen in readings_of_study(reader, study_id, system=system):
                assert seen == expected


def test_attributes_of_trials_are_read_as_they_were_set(database_url: str) -> None:
    with (
        closing(open_storage(database_url, create=True)) as storage,
        closing(open_storage(database_url, create=False)) as reader,
    ):
        study_id = storage.create_new_study([MAXIMIZE], "s")
        trial_id = storage.create_new_trial(study_id)
        for name, value in VALUES.items():
            storage.set_trial_user_attr(trial_id, "value", value)
            storage.set_trial_system_attr(trial_id, "value", value)
            storage.set_trial_user_attr(trial_id, f"kept {name}", value)
            assert storage.get_trial_user_attrs(trial_id)["value"] == value, name
        whole = {f"kept {name}": value for name, value in VALUES.items()} | {"value": None}
        for system, expected in ((False, whole), (True, {"value": None})):
            for seen in readings_of_trial(reader, study_id, trial_id, system=system):
                assert seen == expected
        keys = {"value", *(f"kept {name}" for name in VALUES)}
        assert read_attributes(reader, study_id, keys, [trial_id], trial_id) == [whole]
        (some,) = read_attributes(reader, study_id, {"kept megabyte"}, [], 0)
        assert some["kept megabyte"] == VALUES["megabyte"]


def test_new_trials_come_with_attributes_of_any_length(database_url: str) -> None:
    with closing(open_storage(database_url, create=True)) as storage:
        study_id = storage.create_new_study([MAXIMIZE], "s")
        template = create_trial(state=TrialState.RUNNING, user_attrs=VALUES, system_attrs=dict(VALUES))
        trial_id = storage.create_new_trial(study_id, template)
        queued = optuna.load_study(study_name="s", storage=storage)
        queued.enqueue_trial({"x": 1}, user_attrs=VALUES)
        for system in (False, True):
            for seen in readings_of_trial(storage, study_id, trial_id, system=system):
                assert seen == VALUES
        assert queued.ask().user_attrs == VALUES


def test_a_shorter_value_takes_the_place_of_a_longer_one_and_back(database_url: str) -> None:
    with closing(open_storage(database_url, create=True)) as storage:
        study_id = storage.create_new_study([MAXIMIZE], "s")
        trial_id = storage.create_new_trial(study_id)
        for length in (10, 300_000, 70_000, LONGEST - 2, 0, 150_000, 149_998, LONGEST - 1, 5):
            value = ("é\\" * length)[:length]
            storage.set_study_user_attr(study_id, "value", value)
            storage.set_trial_user_attr(trial_id, "value", value)
            assert storage.get_study_user_attrs(study_id) == {"value": value}
            assert storage.get_trial(trial_id).user_attrs == {"value": value}


# --- other programs


def asked(app: Callable[..., Any], path: str, method: str = "GET", body: object = None) -> Any:
    """What optuna-dashboard answers."""
    sent = b"" if body is None else json.dumps(body).encode()
    environment: dict[str, Any] = {
        "PATH_INFO": path, "REQUEST_METHOD": method, "CONTENT_LENGTH": str(len(sent)),
        "CONTENT_TYPE": "application/json", "wsgi.input": io.BytesIO(sent),
    }  # fmt: skip
    setup_testing_defaults(environment)
    return json.loads(b"".join(app(environment, lambda *_: None)) or b"null")


def test_a_copy_holds_all_of_it_in_any_storage(database_url: str, tmp_path: Path) -> None:
    plain = f"sqlite:///{tmp_path}/plain.db"
    with closing(open_storage(database_url, create=True)) as storage:
        study = optuna.create_study(study_name="s", storage=storage)
        study.set_user_attr("value", VALUES)
        trial = study.ask()
        trial.set_user_attr("value", VALUES)
        study.tell(trial, 0.5)
        for target, name in ((storage, "copy"), (RDBStorage(plain), "s")):
            optuna.copy_study(
                from_study_name="s", from_storage=storage, to_storage=target, to_study_name=name
            )
            copy = optuna.load_study(study_name=name, storage=target)
            assert copy.user_attrs == {"value": VALUES}
            assert copy.trials[0].user_attrs == {"value": VALUES}


def test_the_dashboard_shows_and_renames_a_study_with_long_attributes(database_url: str) -> None:
    with closing(open_storage(database_url, create=True)) as storage:
        study = make_study(storage, FREE, 1, "before")
        study.optuna.set_user_attr("value", MIXED * 3_000)
        end(study, claim(study), "finished")
        app = optuna_dashboard.wsgi(storage)
        assert PIECES not in json.dumps(asked(app, "/api/studies"))
        shown = asked(app, f"/api/studies/{study.study_id}")
        attributes = {each["key"]: each["value"] for each in shown["user_attrs"]}
        assert attributes["value"] == MIXED * 3_000
        asked(app, f"/api/studies/{study.study_id}/rename", "POST", {"study_name": "after"})
        renamed = SearchStudy(storage, "after")
        assert renamed.record == study.record
        assert renamed.optuna.user_attrs["value"] == MIXED * 3_000
        assert len(renamed.trials()) == 1


def test_optunas_own_storage_sees_the_study_and_what_it_writes_is_read(database_url: str) -> None:
    with closing(open_storage(database_url, create=True)) as storage:
        study = make_study(storage, FREE, 2)
        study.optuna.set_user_attr("value", "x" * 200_000)
        url = storage.engine.url.render_as_string(hide_password=False)
        foreign = RDBStorage(url)
        theirs = optuna.load_study(study_name="s", storage=foreign)
        assert theirs.user_attrs[STUDY] == storage.get_study_user_attrs(study.study_id)[STUDY]
        theirs.set_user_attr("value", "shorter")
        assert storage.get_study_user_attrs(study.study_id)["value"] == "shorter"
        study.optuna.set_user_attr("value", "y" * 100_000)
        assert storage.get_study_user_attrs(study.study_id)["value"] == "y" * 100_000
        optuna.delete_study(study_name="s", storage=foreign)
        with storage.engine.begin() as connection:
            assert connection.scalar(sa.text("SELECT count(*) FROM study_user_attributes")) == 0
        foreign.engine.dispose()


# --- several processes


def overwrite(url: str, letter: str, owner: str, enough: Event) -> None:
    """Give an attribute values of one letter each, of four lengths, until it is enough."""
    with closing(open_storage(url, create=False, write=True)) as storage:
        write = storage.set_study_user_attr if owner == "study" else storage.set_trial_user_attr
        for number in itertools.count():
            write(1, "value", letter * (70_000 + 60_000 * (number % 4)))
            if enough.is_set():
                return


@pytest.mark.slow
@pytest.mark.parametrize("owner", ["study", "trial"])
def test_readers_never_see_a_mixture_of_two_writers(database_url: str, owner: str) -> None:
    with closing(open_storage(database_url, create=True)) as storage:
        study_id = storage.create_new_study([MAXIMIZE], "s")
        trial_id = storage.create_new_trial(study_id)
        enough = forkserver.Event()
        writers: list[BaseProcess] = [
            forkserver.Process(target=overwrite, args=(database_url, letter, owner, enough))
            for letter in "ab"
        ]
        for writer in writers:
            writer.start()
        try:
            seen: set[str] = set()
            while len(seen) < 6 and all(writer.is_alive() for writer in writers):
                seen |= values_read(storage, owner, study_id, trial_id)
        finally:
            enough.set()
            for writer in writers:
                writer.join()
        assert [writer.exitcode for writer in writers] == [0, 0]
        assert {len(value) for value in seen} <= {70_000, 130_000, 190_000, 250_000}
        assert all(len(set(value)) == 1 for value in seen)


def values_read(storage: Storage, owner: str, study_id: int, trial_id: int) -> set[str]:
    """What the attribute is, by two ways to read it; nothing before it was first set."""
    if owner == "study":
        found = [storage.get_study_user_attrs(study_id), storage.get_all_studies()[0].user_attrs]
    else:
        found = [storage.get_trial_user_attrs(trial_id), storage.get_trial(trial_id).user_attrs]
    assert all(attributes.keys() <= {"value"} for attributes in found)
    return {attributes["value"] for attributes in found if attributes}


# --- whole or not at all


def create_and_be_killed(url: str, table: str, after: int) -> None:
    """Make a study, and be killed when so many rows were sent to this table."""
    with closing(open_storage(url, create=True)) as storage:
        sent = 0

        @sa.event.listens_for(storage.engine, "after_cursor_execute")
        def _kill(_c: Any, _cursor: Any, statement: str, _p: Any, _context: Any, many: bool) -> None:
            nonlocal sent
            sent += statement.startswith(f"INSERT INTO {table}")
            if sent >= after:
                os.kill(os.getpid(), signal.SIGKILL)

        make_study(storage, long_space(), 1)


def long_space() -> str:
    """A space file with a long text."""
    return FREE.replace("What helps?", f"What helps? {'Really. ' * 20_000}")


@pytest.mark.slow
@pytest.mark.parametrize("table", ["study_user_attributes", "study_system_attributes"])
def test_a_study_whose_maker_is_killed_meanwhile_is_not_there(database_url: str, table: str) -> None:
    open_storage(database_url, create=True).close()
    maker = forkserver.Process(target=create_and_be_killed, args=(database_url, table, 1))
    maker.start()
    maker.join()
    assert maker.exitcode == -signal.SIGKILL
    with closing(open_storage(database_url, create=False, write=True)) as storage:
        assert storage.get_all_studies() == []
        study = make_study(storage, long_space(), 1)
        assert "Really. Really." in study.space.question
        assert [each.study_name for each in storage.get_all_studies()] == ["s"]


@pytest.mark.parametrize("server", ["postgres_url", "mysql_url"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_long_study_is_made_once_when_the_answer_is_lost(
    server: str, when: str, request: pytest.FixtureRequest
) -> None:
    with closing(open_storage(request.getfixturevalue(server), create=True)) as storage:
        wanted = record_of(long_space(), ("0", "1"))
        with lost_commit(storage.engine, when):
            ensure_study(storage, "s", STUDY, wanted)
        assert SearchStudy(storage, "s").record == wanted
        assert len(storage.get_all_studies()) == 1


# --- records of this program


def record_of(space: str, classes: tuple[str, ...]) -> StudyRecord:
    read = Space.read(space, "mine", "mine")
    return StudyRecord(
        space_name="mine", space=read.to_yaml(), space_fingerprint=read.fingerprint(),
        data=DataRecord(name="digits", hash="d", classes=classes, shape=(8, 8, 1)),
        split=SplitRecord(seed=0, val_size=0.1, hash="s", train_images=900, val_images=100),
        epochs=4, precision="fp32", seed=0, sampler="random", pruner="none",
    )  # fmt: skip


def test_a_study_of_many_classes_with_long_names_is_made_and_read(database_url: str) -> None:
    classes = tuple(f"{number:04} {'猫' * 100}" for number in range(1000))
    with closing(open_storage(database_url, create=True)) as storage:
        study = open_study(storage, "s", record_of(FREE, classes), 2)
        size = LARGEST_CONFUSION
        claimed = claim(study)
        study.close(
            claimed.trial_id,
            TrialState.COMPLETE,
            Outcome(reason="finished", epoch=4, message="m" * 70_000),
            value=0.5,
            confusion=[[12345] * size] * size,
        )
    with closing(open_storage(database_url, create=False)) as storage:
        again = SearchStudy(storage, "s")
        assert again.data.classes == classes
        (trial,) = again.trials()
        assert trial.user_attrs["confusion"] == [[12345] * size] * size


def test_long_texts_notices_and_notes_are_kept(database_url: str) -> None:
    with closing(open_storage(database_url, create=True)) as storage:
        study = make_study(storage, long_space(), 1)
        notices = [f"{number}: {MIXED}" for number in range(1500)]
        study.optuna.set_user_attr("notices", notices)
        study.add_notice("the last")
        for _ in range(5):
            add_note(study, "日" * 20_000)
    with closing(open_storage(database_url, create=False)) as storage:
        again = open_existing(storage, "s")
        assert again.notices() == [*notices, "the last"]
        assert note_of(again).count("日") == 100_000


def test_a_plan_of_very_many_cells_is_owed_and_run(database_url: str) -> None:
    with closing(open_storage(database_url, create=True)) as storage:
        record = PlanRecord(
            kind="confirm", parent="s", question="q" * 100_000, data=record_of(FREE, ("0", "1")).data,
            split=SplitSpec(seed=0, val_size=0.1), folds=None, epochs=4,
        )  # fmt: skip
        plan = open_plan(storage, "s/confirm", record)
        entry = PlannedEntry.of("e" * 1000, Configuration())
        plan.owe([entry], 20_000)
        assert plan.claim("somewhere:x:1:2", Drawing(sampler="random")) is not None
    with closing(open_storage(database_url, create=False)) as storage:
        again = PlanStudy(storage, "s/confirm")
        assert again.cells() == [(0, block) for block in range(20_000)]
        assert (again.total(), again.entries(), again.record.question) == (20_000, [entry], "q" * 100_000)
        assert again.trials()[0].params == {"entry": 0, "block": 0}


@pytest.mark.parametrize("server", ["postgres_url", "mysql_url"])
def test_a_name_that_does_not_fit_leaves_nothing(server: str, request: pytest.FixtureRequest) -> None:
    with closing(open_storage(request.getfixturevalue(server), create=True)) as storage:
        with pytest.raises(StorageError, match=r"too long|no room"):
            make_study(storage, FREE, 1, "n" * 600)
        with storage.engine.begin() as connection:
            for table in ("studies", "study_user_attributes", "study_system_attributes", "study_directions"):
                assert connection.scalar(sa.text(f"SELECT count(*) FROM {table}")) == 0


# --- what is not cut: parameters

MANY = {f"option {number} {'x' * 40}": number / 10_000 for number in range(2_000)}


def long_choice() -> str:
    return yaml.safe_dump(
        {
            "question": "Which?",
            "base": {"training": {"epochs": 4}},
            "parameters": {"model.dropout": {"choice": MANY, "role": "scientific"}},
        },
        sort_keys=False,
    )


def test_a_choice_that_no_row_holds_is_refused_when_the_space_is_read() -> None:
    with pytest.raises(ValueError, match=r"parameters\.model\.dropout: choice: .*fewer or shorter"):
        Space.read(long_choice(), "mine.yaml", "mine")
