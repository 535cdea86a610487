"""Keeps what our studies show on the dashboard up to date while they grow: notes, pictures, figures.

A thread with a storage of its own looks every few seconds at what has changed, and writes only that. It waits
out a storage that does not answer, and does not touch studies that this program did not make.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.exceptions import OptunaError
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from search.dashboard.content import artifacts_of, charts_of, deserving, observed
from search.dashboard.graphs import save_graph
from search.dashboard.notes import study_note, trial_note
from studies import record
from studies.artifacts import ArtifactStore, attach
from studies.base import Study
from studies.notes import set_generated
from studies.opening import open_existing
from studies.record import PLAN
from studies.storage import Storage, StorageError, open_storage
from studies.urls import clean_message

if TYPE_CHECKING:
    from studies.figures import Chart
    from studies.summary import Entry

INTERVAL = 10.0
"""Seconds between two looks."""
REST = 4
"""Times as long as a look took, at least, until the next: browsers are answered by the same process."""
GRAPH = "cifar-search-"
"""Beginning of the identifiers of our figures."""
NOTED = 200
"""Trials of a study that get a note, best first: every note is read whenever a browser asks for the study."""
_OUTAGES = (StorageError, OptunaError, SQLAlchemyError, OSError)
"""What may be otherwise at the next look; of anything else there is nothing new before the study changes."""


@dataclass
class _Seen:
    """What was written for a study, so that the same is not compared with the database again."""

    study: Study
    stamp: object = None
    notes: dict[int, str] = field(default_factory=dict)


class Refresher:
    """The thread."""

    def __init__(
        self, storage_url: str, folder: Path, say: Callable[[str], None], interval: float = INTERVAL
    ) -> None:
        self._url, self._say, self._interval = storage_url, say, interval
        self._store = ArtifactStore(folder)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dashboard refresher", daemon=True)
        self._seen: dict[int, _Seen] = {}
        self._said: set[str] = set()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after what is being written, which is waited for as long as a person would."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(timeout=10)

    def _run(self) -> None:
        storage: Storage | None = None
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                storage = storage or open_storage(self._url, create=False, write=True)
                self.refresh(storage)
            except Exception as error:  # whatever it is, the dashboard itself goes on
                self._complain("the dashboard's notes and figures are not up to date", error)
            self._stopping.wait(max(self._interval, REST * (time.monotonic() - began)))
        if storage is not None:
            storage.close()

    def refresh(self, storage: Storage) -> None:
        """Look at all studies once, and write what has changed."""
        there = {each._study_id: each for each in storage.get_all_studies() if _is_ours(each)}
        self._know(storage, {study_id: each.study_name for study_id, each in there.items()})
        stamps = {study_id: _stamp(seen, there[study_id]) for study_id, seen in self._seen.items()}
        for seen in self._seen.values():
            name = seen.study.name
            related = [stamps[i] for i, other in self._seen.items() if _belongs(other.study.name, name)]
            if seen.stamp != related and not self._stopping.is_set() and self._write(storage, seen):
                seen.stamp = related

    def _know(self, storage: Storage, names: dict[int, str]) -> None:
        """Open the studies that are new, and forget those that are gone."""
        for gone in self._seen.keys() - names.keys():
            del self._seen[gone]
        for study_id, name in names.items():
            if study_id in self._seen:
                continue
            try:
                self._seen[study_id] = _Seen(open_existing(storage, name))
            except StorageError:
                raise
            except ValueError as error:  # of another version, or deleted in this moment
                self._complain(f"study {name!r} is shown as it is", error)

    def _write(self, storage: Storage, seen: _Seen) -> bool:
        """Write all that the study shows; whether that was not cut short."""
        for write in self._tasks(storage, seen):
            if self._stopping.is_set():
                return False
            try:
                write()
            except _OUTAGES:
                raise
            except Exception as error:  # one that cannot be shown does not keep the others from it
                self._complain(f"study {seen.study.name!r} is not shown whole", error)
        return True

    def _tasks(self, storage: Storage, seen: _Seen) -> Iterable[Callable[[], Any]]:
        study = seen.study
        yield partial(self._note, seen, None)
        for trial in noted(study.trials()):
            yield partial(self._note, seen, trial)
        for draw in charts_of(study):
            yield partial(self._graphs, study, draw)
        for trial, entry in deserving(study):
            yield partial(self._artifacts, storage, study, trial, entry)

    def _graphs(self, study: Study, draw: Callable[[], list[Chart]]) -> None:
        for chart in draw():
            save_graph(study, f"{GRAPH}{chart.name}", chart.figure)

    def _artifacts(self, storage: Storage, study: Study, trial: FrozenTrial, entry: Entry | None) -> None:
        for artifact in artifacts_of(study, trial, entry, self._url):
            attach(storage, self._store, study.study_id, trial._trial_id, artifact)

    def _note(self, seen: _Seen, trial: FrozenTrial | None) -> None:
        key = -1 if trial is None else trial.number
        if trial is not None and key in seen.notes:
            return  # an ended trial does not change
        if trial is None:
            text = study_note(seen.study, self._url)
        else:
            text = trial_note(seen.study, trial, observed(seen.study, trial))
        if seen.notes.get(key) != text:
            set_generated(seen.study, text, trial)
            seen.notes[key] = text

    def _complain(self, what: str, error: Exception) -> None:
        """Say once what went wrong, in a line."""
        line = f"{what}: {clean_message(error, self._url)}"
        if line not in self._said:
            self._said.add(line)
            self._say(line)


def noted(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """The ended trials that get a note: the best completed ones, then the others."""
    ended = [trial for trial in trials if trial.state.is_finished()]
    return sorted(ended, key=lambda t: (t.state != TrialState.COMPLETE, -(t.value or 0.0), t.number))[:NOTED]


def _is_ours(study: FrozenStudy) -> bool:
    return record.STUDY in study.user_attrs or PLAN in study.user_attrs


def _belongs(other: str, name: str) -> bool:
    """Whether the study ``name`` shows what ``other`` has found: it is the same, its plan, or its search."""
    return other == name or other.startswith(f"{name}/") or name.startswith(f"{other}/")


def _stamp(seen: _Seen, study: FrozenStudy) -> object:
    """What changes with what there is to show: how many trials have ended, and the study's attributes. Trials
    that have ended are read once."""
    ended = Counter(trial.state for trial in seen.study.trials() if trial.state.is_finished())
    return ended, repr(sorted(study.user_attrs.items()))
