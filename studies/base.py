"""What studies of every kind share: slots that workers claim, attempts that are reported and closed.

Optuna is driven by ask and tell. Every decision about slots is made under the study's lock, so that any
number of workers on any number of machines owe exactly N closed slots together.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from pydantic import BaseModel

from spaces.config import Configuration
from spaces.text import unknown
from studies import record
from studies.drawing import DrawnStudy
from studies.heartbeat import silent_trials
from studies.processes import is_dead
from studies.record import DataRecord, Drawing, History, Outcome, Reason, SplitSpec
from studies.slots import Slots
from studies.storage import locked
from studies.writing import end_trial, write_trial

(
    TRAINING,
    SAMPLING,
    CONFIRMING,
    CONFIRMING_SPLITS,
    RETRAINING,
    ABLATING,
    ABLATING_SPLITS,
) = range(7)
"""What seeds are derived for. A winner that was chosen on the blocks of a confirmation is not ablated on the
same ones."""


def derived_seed(study_seed: int, purpose: int, index: int) -> int:
    """A seed in [0, 2**32) that differs for each purpose and index."""
    return int(np.random.SeedSequence([study_seed, purpose, index]).generate_state(1)[0])


@dataclass(frozen=True)
class Claim:
    """A slot that a worker is to run."""

    trial: optuna.Trial
    slot: int
    configuration: Configuration
    seed: int
    split: SplitSpec
    keep: str | None = None
    """Name under which the trained weights are kept where an order asks for that; None: not this one's."""

    @property
    def trial_id(self) -> int:
        return self.trial._trial_id


class Study(ABC):
    """A study of this program: Optuna's study, and what it owes."""

    def __init__(self, storage: RDBStorage, name: str) -> None:
        """Open an existing study.

        Raises:
            ValueError: if there is none of this name.
        """
        try:
            self.optuna = optuna.load_study(study_name=name, storage=storage)
        except KeyError:
            raise ValueError(unknown_study(storage, name)) from None
        self.storage = storage
        self.name = name
        self._begun: int | None = None
        """The attempt that the claim under way has started."""

    @property
    @abstractmethod
    def data(self) -> DataRecord:
        """What its trials train on."""

    @property
    @abstractmethod
    def epochs(self) -> int:
        """Epochs of a full trial."""

    @property
    @abstractmethod
    def mark(self) -> str:
        """Tells this study from all others, also from later ones of the same name."""

    def shown(self, trial: FrozenTrial) -> dict[str, Any]:
        """What tells a trial from the others, for people."""
        return dict(trial.params)

    @property
    def study_id(self) -> int:
        return self.optuna._study_id

    def total(self) -> int | None:
        """Slots that the study owes; None: as many as fit its time."""
        total: int | None = self.optuna.user_attrs.get(record.TOTAL)
        return total

    def set_total(self, total: int | None) -> None:
        """Change how many slots the study owes."""
        self.optuna.set_user_attr(record.TOTAL, total)

    def notices(self) -> list[str]:
        """What changed between the sessions of this study: devices, versions, methods."""
        return list(self.optuna.user_attrs.get(record.NOTICES, []))

    def add_notice(self, text: str) -> None:
        """Record, once, something that a reader of the results should know."""
        if text not in self.notices():
            self.optuna.set_user_attr(record.NOTICES, [*self.notices(), text])

    def stops(self) -> int:
        """How often a command that leads the study was stopped before it was complete."""
        stops: int = self.optuna.user_attrs.get(record.STOPS, 0)
        return stops

    def add_stop(self) -> None:
        """Tell the workers that joined the study to leave."""
        self.optuna.set_user_attr(record.STOPS, self.stops() + 1)

    def trials(self) -> list[FrozenTrial]:
        """All attempts."""
        return self.optuna.get_trials(deepcopy=False)

    def slots(self) -> Slots:
        """All attempts, by slot."""
        return Slots(self.trials())

    def is_complete(self) -> bool:
        """Whether the study has closed all the slots that it owes."""
        total = self.total()
        return total is not None and self.slots().closed() >= total

    def claim(self, worker: str, drawing: Drawing) -> Claim | None:
        """Take an open slot for ``worker``, the name of a process (``studies.processes``); None if none is
        open now (others may still be running), or what was drawn for it makes no configuration, which closes
        it."""
        self._begun = None
        self.trials()  # what ended since the last time, so that little is left to read under the lock
        others = locked(self.storage, self.name, lambda: self._begin(worker))
        if self._begun is None:
            return None
        trial = self.storage.get_trial(self._begun)
        known = sorted([*others, trial], key=lambda trial: trial.number)
        try:
            self.storage.record_heartbeat(trial._trial_id)
            return self._draw(known, trial, drawing)
        except UpdateFinishedTrialError:  # given away while it was drawn
            return None

    def _begin(self, worker: str) -> list[FrozenTrial]:
        """Start an attempt of an open slot, if there is one, which says who runs it; return all others. What
        this began before it lost the lock is put back first."""
        if self._begun is not None:
            self.put_back(self._begun)
            self._begun = None
        trials, total = self._fail_lost(), self.total()
        slots = Slots(trials)
        if total is not None and slots.taken() >= total:
            return trials
        waiting = next((trial for trial in trials if trial.state == TrialState.WAITING), None)
        if waiting is None:
            self._begun = self._new_attempt(slots, worker)
        elif self._take_from_queue(waiting, slots, worker):
            self._begun = waiting._trial_id
        return [trial for trial in trials if trial is not waiting]

    def _new_attempt(self, slots: Slots, worker: str) -> int:
        """Start an attempt together with its slot, so that it is never without one. A retry has its slot's
        parameters, unless it was ended before all were drawn; then the same seed draws the same ones."""
        slot = slots.next_open()
        earlier = slots.attempts.get(slot, [])
        decided = next((trial.params for trial in earlier if record.SETUP in trial.user_attrs), None)
        values = self._prescribed(slot) if decided is None else decided
        begun = create_trial(
            state=TrialState.RUNNING,
            system_attrs={"fixed_params": values},  # as Study.enqueue_trial has it
            user_attrs={record.SLOT: slot, record.ATTEMPT: len(earlier) + 1, record.WORKER: worker},
        )
        return self.storage.create_new_trial(self.study_id, begun)

    def _take_from_queue(self, waiting: FrozenTrial, slots: Slots, worker: str) -> bool:
        """Start an attempt that somebody queued through Optuna; false if another program has just done so."""
        attributes: dict[str, Any] = {record.WORKER: worker}
        if record.slot_of(waiting) is None:
            attributes |= {record.ATTEMPT: 1, record.SLOT: slots.next_open()}
        write_trial(self.storage, waiting._trial_id, attributes)
        return self.storage.set_trial_state_values(waiting._trial_id, TrialState.RUNNING)

    @abstractmethod
    def _prescribed(self, slot: int) -> dict[str, Any]:
        """What is known of a slot's parameters before the sampler is asked."""

    @abstractmethod
    def _draw(self, known: Sequence[FrozenTrial], begun: FrozenTrial, drawing: Drawing) -> Claim | None:
        """Draw what the attempt that was begun is to run, after all that is known, itself included; without
        the lock."""

    def _write_drawn(self, drawn: DrawnStudy, trial_id: int, attributes: dict[str, Any]) -> None:
        """Write what was drawn of a trial together with what follows from it."""
        write_trial(self.storage, trial_id, attributes, drawn.parameters)

    def close(
        self,
        trial_id: int,
        state: TrialState,
        outcome: Outcome,
        history: History | None = None,
        value: float | None = None,
        confusion: list[list[int]] | None = None,
    ) -> bool:
        """End an attempt; false if it was given to another worker in the meantime, and nothing is written."""
        ending: dict[str, Any] = {record.OUTCOME: outcome.model_dump(mode="json")}
        pieces = history.pieces() if history else ()
        ending |= {record.history_key(index): piece for index, piece in enumerate(pieces)}
        if confusion and len(confusion) <= record.LARGEST_CONFUSION:
            ending[record.CONFUSION] = confusion
        if end_trial(self.storage, trial_id, state, value, ending):
            return True
        trial = self.storage.get_trial(trial_id)  # ours all the same, if the answer was lost
        same = trial.user_attrs.get(record.OUTCOME) == ending[record.OUTCOME]
        return same and trial.state == state and value in (None, trial.value)

    def put_back(self, trial_id: int) -> bool:
        """End an attempt that was not begun, so that its slot is open again; as ``close``."""
        return self.close(trial_id, TrialState.FAIL, Outcome(reason="interrupted"))

    def _fail_lost(self, dead_workers: Collection[str] = (), reason: Reason = "killed") -> list[FrozenTrial]:
        """As ``fail_lost``, under the lock; return all attempts as they are then."""
        lost, ended = set(silent_trials(self.storage, self.study_id)), False
        trials = self.trials()
        for trial in trials:
            if trial.state != TrialState.RUNNING:
                continue
            worker = trial.user_attrs.get(record.WORKER, "")
            if worker in dead_workers:
                outcome = Outcome(reason=reason, message="its worker was ended")
            elif is_dead(worker):
                outcome = Outcome(reason="killed", message="its worker died")
            elif trial._trial_id in lost:
                outcome = Outcome(reason="lost", message="its worker fell silent")
            else:
                continue
            ended = True
            self.close(trial._trial_id, TrialState.FAIL, outcome)
        return self.trials() if ended else trials

    def fail_lost(self, dead_workers: Collection[str], reason: Reason = "killed") -> None:
        """End the attempts of the workers given and of all that are known to be dead, so that their slots are
        open again; ``reason`` is that of the workers given."""
        locked(self.storage, self.name, lambda: self._fail_lost(dead_workers, reason))


def unknown_study(storage: RDBStorage, name: str) -> str:
    """One line for a study that is not there, with those that are."""
    return str(unknown("study", name, optuna.get_all_study_names(storage=storage)))


def ensure_study(storage: RDBStorage, name: str, attribute: str, content: BaseModel) -> None:
    """Create the study of this name with its record, unless there is one already; under the study's lock."""
    try:
        created = optuna.create_study(study_name=name, storage=storage, direction="maximize")
    except DuplicatedStudyError:
        created = optuna.load_study(study_name=name, storage=storage)
    if just_created(created):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            created.set_metric_names(["validation accuracy"])
        created.set_user_attr(attribute, content.model_dump(mode="json"))


def just_created(study: optuna.Study) -> bool:
    """Whether the study is still empty: new, or left by a process that died right after creating it."""
    ours = study.directions == [optuna.study.StudyDirection.MAXIMIZE]
    return ours and not study.user_attrs and not study.get_trials(deepcopy=False)
