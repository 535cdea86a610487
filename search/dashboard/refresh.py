"""Keeps what our studies show on the dashboard up to date while they grow: notes, pictures, figures.

A thread with a storage of its own looks every few seconds at what has changed, and writes only that. It waits
out a storage that does not answer, and does not touch studies that this program did not make.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.exceptions import OptunaError
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from search.dashboard.content import artifacts_of, charts_of, deserving, observed
from search.dashboard.graphs import save_graph
from search.dashboard.notes import study_note, trial_note
from spaces.text import digest
from studies import record
from studies.artifacts import ArtifactStore, attach
from studies.base import Study
from studies.notes import set_generated
from studies.opening import open_existing
from studies.reading import StudyState, read_states
from studies.record import PLAN, is_evidence
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

    owner: str = ""
    """Digest of what tells the study from a later one of the same id."""
    states: list[StudyState] | None = None
    """Those that it was written for, its own and of related studies; None before it was."""
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
        there = [state for state in read_states(storage, (record.STUDY, PLAN)) if state.fixed]
        self._seen = {state.study_id: self._seen.get(state.study_id, _Seen()) for state in there}
        for state, related in zip(there, _with_related(there), strict=True):
            seen = self._seen[state.study_id]
            if seen.states != related and not self._stopping.is_set():
                study = self._open(storage, state.name, seen)
                if study is None or self._write(study, seen):
                    seen.states = related

    def _open(self, storage: Storage, name: str, seen: _Seen) -> Study | None:
        """The study; None if it is not to be written."""
        try:
            study = open_existing(storage, name)
        except StorageError:
            raise
        except ValueError as error:  # of another version, or deleted in this moment
            self._complain(f"study {name!r} is shown as it is", error)
            return None
        owner = digest(study.owner)
        if seen.owner != owner:
            seen.owner, seen.notes = owner, {}
        return study

    def _write(self, study: Study, seen: _Seen) -> bool:
        """Write all that the study shows; whether that was not cut short."""
        with study.at_one_moment():
            for write in self._tasks(study, seen):
                if self._stopping.is_set():
                    return False
                try:
                    write()
                except _OUTAGES:
                    raise
                except Exception as error:  # one that cannot be shown does not keep the others from it
                    self._complain(f"study {study.name!r} is not shown whole", error)
        return True

    def _tasks(self, study: Study, seen: _Seen) -> Iterable[Callable[[], Any]]:
        yield partial(self._note, study, seen, None)
        ended = noted(study.trials_in_brief())  # such a trial does not change any more
        for trial in study.whole_trials([each.number for each in ended if each.number not in seen.notes]):
            yield partial(self._note, study, seen, trial)
        for draw in charts_of(study):
            yield partial(self._graphs, study, draw)
        for trial, entry in deserving(study):
            yield partial(self._artifacts, study, trial, entry)

    def _graphs(self, study: Study, draw: Callable[[], list[Chart]]) -> None:
        for chart in draw():
            save_graph(study, f"{GRAPH}{chart.name}", chart.figure)

    def _artifacts(self, study: Study, trial: FrozenTrial, entry: Entry | None) -> None:
        for artifact in artifacts_of(study, trial, entry, self._url):
            attach(study, self._store, trial._trial_id, artifact)

    def _note(self, study: Study, seen: _Seen, trial: FrozenTrial | None) -> None:
        if trial is None:
            key, text = -1, study_note(study, self._url)
        else:
            key, text = trial.number, trial_note(study, trial, observed(study, trial))
        if seen.notes.get(key) != text:
            set_generated(study, text, trial)
            seen.notes[key] = text

    def _complain(self, what: str, error: Exception) -> None:
        """Say once what went wrong, in a line."""
        line = f"{what}: {clean_message(error, self._url)}"
        if line not in self._said:
            self._said.add(line)
            self._say(line)


def noted(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """The ended trials that get a note: the best completed ones, then the others."""
    ended = [trial for trial in trials if trial.state.is_finished() and is_evidence(trial)]
    return sorted(ended, key=lambda t: (t.state != TrialState.COMPLETE, -(t.value or 0.0), t.number))[:NOTED]


def _with_related(states: Sequence[StudyState]) -> list[list[StudyState]]:
    """Of each study its own state, and those of the studies whose results it shows too: its plans, or the
    search that it belongs to, which are told by their names."""
    by_name = {state.name: state for state in states}
    related = {state.name: [state] for state in states}
    for state in states:
        parts = state.name.split("/")
        for search in ("/".join(parts[:length]) for length in range(1, len(parts))):
            if search in by_name:
                related[search].append(state)
                related[state.name].append(by_name[search])
    return [related[state.name] for state in states]
