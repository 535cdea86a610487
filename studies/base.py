"""What studies of every kind share: slots that workers claim, attempts that are reported and closed.

Slots are given out, and the attempts of the dead are ended, under the study's lock, so that any number of
workers on any number of machines owe exactly N closed slots together. Parameters are drawn without it. An
attempt is ended in one transaction, by whoever comes first.
"""

from __future__ import annotations

import traceback
import uuid
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
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
from studies.heartbeat import silent_trials
from studies.processes import is_dead
from studies.record import DataRecord, Drawing, History, Outcome, Reason, SplitSpec
from studies.slots import Slots
from studies.storage import StorageError, locked
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

    def claim(
        self, worker: str, drawing: Drawing, begun: Callable[[int], None] = lambda _: None
    ) -> Claim | None:
        """Take an open slot.

        Args:
            worker: the name of a process (``studies.processes``).
            drawing: how its parameters are drawn.
            begun: called with the id of the attempt before anything is drawn, which may take its time: from
                then on signs of life are expected.

        Returns:
            None if no slot is open now (others may still be running), or nothing came of this one: what was
            drawn makes no configuration, drawing failed, or the attempt was given away meanwhile.
        """
        self.trials()  # what ended since the last time, so that little is left to read under the lock
        mine = {record.WORKER: worker, record.CLAIM: uuid.uuid4().hex}
        taken = locked(self.storage, self.name, lambda: self._take(mine))
        if taken is None:
            return None
        trial_id, known = taken
        begun(trial_id)
        trial = self.storage.get_trial(trial_id)
        others = [other for other in known if other._trial_id != trial_id]
        try:
            self.storage.record_heartbeat(trial_id)
            return self._draw(sorted([*others, trial], key=lambda trial: trial.number), trial, drawing)
        except UpdateFinishedTrialError:  # given away while it was drawn
            return None
        except StorageError:
            raise
        except Exception:  # a fault of the sampler or the space, which must not end the study
            message = traceback.format_exc(limit=-8)[-2000:]
            self.close(trial_id, TrialState.FAIL, Outcome(reason="error", message=message))
            return None

    def _take(self, mine: Mapping[str, str]) -> tuple[int, list[FrozenTrial]] | None:
        """Start an attempt of an open slot, if there is one, with the attributes ``mine``; under the lock.

        Returns:
            Its id, and all attempts as they were before. If the lock was lost when the attempt had been
            started, it is found by its attributes.
        """
        trials, total = self._fail_lost(), self.total()
        for trial in trials:
            if trial.state == TrialState.RUNNING and mine.items() <= trial.user_attrs.items():
                return trial._trial_id, trials
        slots = Slots(trials)
        if total is not None and slots.taken() >= total:
            return None
        waiting = next((trial for trial in trials if trial.state == TrialState.WAITING), None)
        if waiting is None:
            return self._new_attempt(slots, mine), trials
        return (waiting._trial_id, trials) if self._take_from_queue(waiting, slots, mine) else None

    def _new_attempt(self, slots: Slots, mine: Mapping[str, str]) -> int:
        """Start an attempt together with its slot, so that it is never without one. A retry has its slot's
        parameters, unless it was ended before all were drawn; then the same seed draws the same ones."""
        slot = slots.next_open()
        earlier = slots.attempts.get(slot, [])
        decided = next((trial.params for trial in earlier if record.SETUP in trial.user_attrs), None)
        values = self._prescribed(slot) if decided is None else decided
        begun = create_trial(
            state=TrialState.RUNNING,
            system_attrs={"fixed_params": values},  # as Study.enqueue_trial has it
            user_attrs={record.SLOT: slot, record.ATTEMPT: len(earlier) + 1, **mine},
        )
        return self.storage.create_new_trial(self.study_id, begun)

    def _take_from_queue(self, waiting: FrozenTrial, slots: Slots, mine: Mapping[str, str]) -> bool:
        """Start an attempt that somebody queued through Optuna; false if another program did so, or ended it,
        in this moment."""
        attributes: dict[str, Any] = dict(mine)
        if record.slot_of(waiting) is None:
            attributes |= {record.ATTEMPT: 1, record.SLOT: slots.next_open()}
        try:
            write_trial(self.storage, waiting._trial_id, attributes)
            return self.storage.set_trial_state_values(waiting._trial_id, TrialState.RUNNING)
        except UpdateFinishedTrialError:
            return False

    @abstractmethod
    def _prescribed(self, slot: int) -> dict[str, Any]:
        """What is known of a slot's parameters before the sampler is asked."""

    @abstractmethod
    def _draw(self, known: Sequence[FrozenTrial], attempt: FrozenTrial, drawing: Drawing) -> Claim | None:
        """Draw what an attempt is to run, after all that is known, itself included; without the lock."""

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
        """End an attempt that was not trained, so that its slot is open again; as ``close``."""
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
