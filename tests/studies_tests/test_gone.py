"""Studies and trials that are deleted while somebody works on them: nothing is written into those that get
their ids, and nothing is left of them."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from made_studies import EPOCHS, FREE
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.study import StudyDirection
from optuna.trial import TrialState

from spaces.config import Configuration
from spaces.space import Space
from studies.artifacts import Artifact, ArtifactStore, attach
from studies.base import Claim, Study
from studies.heartbeat import Heartbeat
from studies.live import LiveReports
from studies.looks import Look, add_looks
from studies.notes import add_note, set_generated
from studies.plan import PlannedEntry, PlanRecord, PlanStudy, open_plan
from studies.record import DataRecord, Drawing, Outcome, SplitRecord, SplitSpec, StudyRecord
from studies.reports import record_heartbeats
from studies.storage import GoneError, Storage, open_storage
from studies.study import SearchStudy, open_study
from studies.views import View, set_view

pytestmark = pytest.mark.slow  # a minute in all
RANDOM = Drawing(sampler="random")
DATA = DataRecord(name="digits", hash="d", classes=("0", "1"), shape=(8, 8, 1))
ENTRY = PlannedEntry.of("a", Configuration.read({"training": {"epochs": EPOCHS}}))
LOOK = Look(
    date=datetime(2030, 1, 1, tzinfo=UTC),
    folder="f",
    seeds=(0,),
    accuracies=(0.5,),
    fingerprint="f",
    version="1",
)
TABLES = models.BaseModel.metadata.sorted_tables
WORKER, DEAD = "elsewhere:place:1:2", "elsewhere:place:3:4"


@pytest.fixture
def storage(database_url: str) -> Iterator[Storage]:
    with closing(open_storage(database_url, create=True)) as storage:
        yield storage


def search(storage: RDBStorage, mark: str, name: str = "s") -> SearchStudy:
    """A search of four slots; ``mark`` is as random as a command makes it."""
    space = Space.read(FREE, "mine", "mine")
    described = StudyRecord(
        space_name="mine", space=space.to_yaml(), space_fingerprint=space.fingerprint(), data=DATA,
        split=SplitRecord(seed=0, val_size=0.1, hash="s", train_images=900, val_images=100),
        epochs=EPOCHS, precision="fp32", seed=0, sampler="random", pruner="asha", mark=mark,
    )  # fmt: skip
    return open_study(storage, name, described, 4)


def plan(storage: RDBStorage, mark: str, name: str = "s/confirm") -> PlanStudy:
    described = PlanRecord(
        kind="confirm", parent="s", question="?", data=DATA, split=SplitSpec(seed=5, val_size=100),
        folds=None, epochs=EPOCHS, mark=mark,
    )  # fmt: skip
    opened = open_plan(storage, name, described)
    opened.owe([ENTRY], 4)
    return opened


Make = Callable[..., Any]


@dataclass
class Old:
    """A worker's hold on a study: an attempt that has reported, and one that has not."""

    study: Any
    folder: Path
    claims: list[Claim] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reports = LiveReports(self.study)
        for _ in range(2):
            claim = self.study.claim(WORKER, RANDOM)
            assert claim is not None
            self.reports.begin(claim.trial_id)
            self.claims.append(claim)
        self.reports.report(self.trial_id, 1, 0.5)
        self.reports.write()
        self.noted = self.study.trials()[0]

    @property
    def trial_id(self) -> int:
        return self.claims[0].trial_id

    def report(self) -> bool:
        """What the pruner notes is written with it."""
        self.reports.report(self.trial_id, 2, 0.75)
        self.reports.should_prune(self.trial_id)
        self.reports.write()
        return not self.reports.given_away(self.trial_id)

    def live(self) -> None:
        ids = [claim.trial_id for claim in self.claims]
        record_heartbeats(self.study.storage, self.study.uids(ids))
        heart = Heartbeat(self.study.storage, interval=0.01)
        heart.watch(self.study.uids(ids))
        time.sleep(0.1)
        heart.close()

    def attach(self) -> bool:
        artifact = Artifact("a.txt", "text/plain", 1, lambda: b"")
        return attach(self.study, ArtifactStore(self.folder), self.trial_id, artifact)


TO_TRIALS: dict[str, Callable[[Old], Any]] = {
    "complete": lambda old: old.study.close(
        old.trial_id, TrialState.COMPLETE, Outcome(reason="finished"), None, 0.9
    ),
    "prune": lambda old: old.study.close(old.trial_id, TrialState.PRUNED, Outcome(reason="pruned")),
    "put back": lambda old: old.study.put_back(old.trial_id),
    "report": Old.report,
    "signs of life": Old.live,
}
TO_STUDIES: dict[str, Callable[[Old], Any]] = {
    "claim": lambda old: old.study.claim(WORKER, RANDOM),
    "put back the dead's": lambda old: old.study.fail_lost({WORKER: "killed"}),
    "total": lambda old: old.study.set_total(99),
    "notice": lambda old: old.study.add_notice("another device"),
    "stop": lambda old: old.study.add_stop(),
    "request to stop": lambda old: old.study.request_stop(),
    "note": lambda old: add_note(old.study, "mine"),
    "note on a trial": lambda old: add_note(old.study, "mine", old.noted),
    "generated note": lambda old: set_generated(old.study, "ours"),
    "generated note on a trial": lambda old: set_generated(old.study, "ours", old.noted),
    "artifact": Old.attach,
    "name of the metric": lambda old: old.study.optuna.set_metric_names(["another"]),
}
TO_SEARCHES: dict[str, Callable[[Old], Any]] = {"looks": lambda old: add_looks(old.study, [LOOK])}
TO_PLANS: dict[str, Callable[[Old], Any]] = {
    "owe": lambda old: old.study.owe([ENTRY], 9),
    "view": lambda old: set_view(old.study, "top", View()),
}
WRITES: dict[Make, dict[str, Callable[[Old], Any]]] = {
    search: TO_TRIALS | TO_STUDIES | TO_SEARCHES,
    plan: TO_TRIALS | TO_STUDIES | TO_PLANS,
}


def rows(storage: RDBStorage) -> dict[str, list[Any]]:
    """All that the database holds."""
    with storage.engine.connect() as connection:
        return {table.name: sorted(map(repr, connection.execute(sa.select(table)))) for table in TABLES}


def forget_ids(storage: RDBStorage) -> None:
    """Let a server give again the ids that have become free at the end, as SQLite does."""
    dialect = storage.engine.dialect.name
    with storage.engine.begin() as connection:
        for table, key in (("studies", "study_id"), ("trials", "trial_id")):
            if dialect == "postgresql":
                highest = f"(SELECT coalesce(max({key}), 0) + 1 FROM {table})"
                sequence = f"pg_get_serial_sequence('{table}', '{key}')"
                connection.exec_driver_sql(f"SELECT setval({sequence}, {highest}, false)")
            elif dialect == "mysql":
                connection.exec_driver_sql(f"ALTER TABLE {table} AUTO_INCREMENT = 1")


def replace(old: Old, make: Make) -> Study:
    """Delete the study, and make another of the same name and the same ids, at work and with a queue."""
    storage = old.study.storage
    storage.delete_study(old.study.study_id)
    assert rows(storage)["trials"] == rows(storage)["studies"] == []
    forget_ids(storage)
    new = make(storage, "new")
    claims = [new.claim(worker, RANDOM) for worker in ("elsewhere:place:5:6", DEAD)]
    new.optuna.ask()  # by another program: it gives no signs of life
    new.optuna.enqueue_trial({})
    assert new.study_id == old.study.study_id
    assert [claim.trial_id for claim in claims] == [claim.trial_id for claim in old.claims]
    silence(storage)
    return new


def silence(storage: RDBStorage) -> None:
    """Let all signs of life be from long ago, so that another one shows."""
    with storage.engine.begin() as connection:
        connection.execute(sa.update(models.TrialHeartbeatModel).values(heartbeat=datetime(2020, 1, 1)))


def is_refused(write: Callable[[Old], Any], old: Old) -> bool:
    """Whether it says, by its result or in a line, that what it was meant for is gone."""
    try:
        return not write(old)
    except GoneError as error:
        return re.fullmatch(".* (was|were) deleted or renamed.*", str(error)) is not None


def changing(old: Old, writes: dict[str, Callable[[Old], Any]]) -> list[str]:
    """Those of the writes that are not refused, or change a row."""
    before, guilty = rows(old.study.storage), []
    for name, write in writes.items():
        if not is_refused(write, old) or rows(old.study.storage) != before:
            guilty.append(name)
        before = rows(old.study.storage)
    return guilty


@pytest.mark.filterwarnings("ignore:.*set_metric_names:optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("make", WRITES)
def test_nothing_is_written_into_a_study_that_was_given_the_ids_of_a_deleted_one(
    storage: Storage, tmp_path: Path, make: Make
) -> None:
    old = Old(make(storage, "old"), tmp_path / "artifacts")
    replace(old, make)
    assert changing(old, WRITES[make]) == []


@pytest.mark.filterwarnings("ignore:.*set_metric_names:optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("make", WRITES)
def test_nothing_is_written_of_a_study_that_is_deleted(storage: Storage, tmp_path: Path, make: Make) -> None:
    old = Old(make(storage, "old"), tmp_path / "artifacts")
    storage.delete_study(old.study.study_id)
    assert changing(old, WRITES[make]) == []
    assert {name for name, there in rows(storage).items() if there} == {"version_info"}


def test_what_is_written_is_written_where_the_study_is_there(storage: Storage, tmp_path: Path) -> None:
    """Or the tests above would hold for whatever does nothing at all."""
    for make, writes in WRITES.items():
        for name, write in writes.items():
            old = Old(make(storage, name, f"{name} of {make.__name__}"), tmp_path / "artifacts")
            silence(storage)
            before = rows(storage)
            write(old)
            assert rows(storage) != before, name


@pytest.mark.parametrize("make", WRITES)
def test_an_attempt_is_not_drawn_in_a_study_that_took_the_place_of_its_own(
    storage: Storage, tmp_path: Path, make: Make
) -> None:
    """Deleted right after the attempt was begun."""
    old, states = Old(make(storage, "old"), tmp_path / "artifacts"), []
    new: list[Study] = []

    def replaced(trial_id: int) -> None:
        storage.delete_study(old.study.study_id)
        forget_ids(storage)
        new.append(make(storage, "new"))
        while (claim := new[0].claim("elsewhere:place:5:6", RANDOM)) and claim.trial_id < trial_id:
            pass
        assert claim is not None
        assert claim.trial_id == trial_id
        states.append(rows(storage))

    with suppress(GoneError):
        assert old.study.claim(WORKER, RANDOM, replaced) is None
    assert [rows(storage)] == states


def test_an_attempt_that_was_deleted_before_it_was_trained_ends_with_a_line(
    storage: Storage, tmp_path: Path
) -> None:
    old = Old(search(storage, "old"), tmp_path / "artifacts")
    claim = old.study.claim(WORKER, RANDOM)
    storage.delete_study(old.study.study_id)
    with pytest.raises(GoneError, match="deleted or renamed"):
        old.reports.begin(claim.trial_id)


def test_an_attempt_is_not_begun_in_a_study_that_took_the_place_of_its_own(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deleted while the slot of the attempt is looked for."""
    old, states = Old(search(storage, "old"), tmp_path / "artifacts"), []

    def replaced(_: int) -> dict[str, Any]:
        storage.delete_study(old.study.study_id)
        forget_ids(storage)
        kind, described = [StudyDirection.MAXIMIZE], {"cifar-search": {"mark": "new"}}
        assert storage.create_whole_study(kind, "s", described, {}) == old.study.study_id
        states.append(rows(storage))
        return {}

    monkeypatch.setattr(old.study, "_prescribed", replaced)
    with pytest.raises(GoneError, match="deleted or renamed"):
        old.study.claim(WORKER, RANDOM)
    assert [rows(storage)] == states


def delete_trials(storage: Storage, *trial_ids: int) -> None:
    """As a foreign program does it."""
    with storage.engine.begin() as connection:
        for table in reversed(TABLES):
            if "trial_id" in table.c:
                connection.execute(table.delete().where(table.c.trial_id.in_(trial_ids)))
    forget_ids(storage)


@pytest.mark.parametrize("make", WRITES)
def test_nothing_is_written_into_a_trial_that_was_given_the_id_of_a_deleted_one(
    storage: Storage, tmp_path: Path, make: Make
) -> None:
    old = Old(make(storage, "old"), tmp_path / "artifacts")
    ids = [claim.trial_id for claim in old.claims]
    delete_trials(storage, *ids)
    assert changing(old, TO_TRIALS) == []
    other = type(old.study)(storage, old.study.name)
    again = [other.claim("elsewhere:place:5:6", RANDOM) for _ in ids]
    assert [claim.trial_id for claim in again] == ids
    assert changing(old, TO_TRIALS) == []
    assert [other.put_back(claim.trial_id) for claim in again] == [True, True]


def test_a_deleted_study_is_gone_whole_though_its_trials_are_written_all_the_while(database_url: str) -> None:
    begun, stopping, refusals = threading.Barrier(5), threading.Event(), []

    def work(number: int) -> None:
        with closing(open_storage(database_url, create=False, write=True)) as own:
            study = SearchStudy(own, "s")
            claim = study.claim(f"elsewhere:place:{number}:1", RANDOM)
            assert claim is not None
            reports = LiveReports(study)
            reports.begin(claim.trial_id)
            begun.wait(60)
            for epoch in range(10**6):
                reports.report(claim.trial_id, epoch, 0.5)
                reports.write()
                record_heartbeats(own, study.uids([claim.trial_id]))
                if reports.given_away(claim.trial_id) or stopping.is_set():
                    refusals.append(reports.given_away(claim.trial_id))
                    return

    with closing(open_storage(database_url, create=True)) as storage:
        study = search(storage, "old")
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        begun.wait(60)
        time.sleep(0.2)
        storage.delete_study(study.study_id)
        stopping_soon = threading.Timer(20, stopping.set)
        stopping_soon.start()
        for thread in threads:
            thread.join()
        stopping_soon.cancel()
        assert refusals == [True] * 4
        assert {name for name, there in rows(storage).items() if there} == {"version_info"}
        with pytest.raises(ValueError, match="'s'"):
            SearchStudy(storage, "s")
