"""What studies of every kind share: slots that workers claim, attempts that are reported and closed.

Slots are given out, and the attempts of the dead are ended, under the study's lock, so that any number of
workers on any number of machines owe exactly N closed slots together. Parameters are drawn without it. An
attempt is ended in one transaction, by whoever comes first.
"""

from __future__ import annotations

import traceback
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from pydantic import BaseModel

from spaces.config import Configuration
from spaces.text import unknown
from studies import record
from studies.attributes import FIXED, AttributeStorage, misfits_of
from studies.deaths import NONE_ENDED, death
from studies.heartbeat import silent_trials
from studies.reading import WHOLE, Parts, read_names, read_some
from studies.record import DataRecord, Drawing, History, Outcome, Reason, SplitSpec
from studies.reports import record_heartbeats
from studies.slots import DECIDING, Slots
from studies.storage import GoneError, StorageError, again_if_lost, creation_lock, locked
from studies.tied import TiedStorage
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


_BRIEF = Parts(
    user=DECIDING,
    without={record.SETUP: record.CONFIGURATION},
    system=(FIXED,),
    intermediate_values=False,
)
_NAMES_OF_METRICS = {"study:metric_names": ["validation accuracy"]}
"""As ``Study.set_metric_names`` has it."""


def derived_seed(study_seed: int, purpose: int, index: int) -> int:
    """A seed in [0, 2**32) that differs for each purpose and index."""
    return int(np.random.SeedSequence([study_seed, purpose, index]).generate_state(1)[0])


@dataclass(frozen=True)
class Stops:
    """How often those who work on a study were told to leave."""

    of_leaders: int
    """A command that leads it was stopped before it was complete: those that joined leave."""
    requested: int
    """A person asked for it: all leave."""


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
            attributes = optuna.load_study(study_name=name, storage=storage).user_attrs
        except KeyError:
            raise ValueError(unknown_study(storage, name)) from None
        self.storage = storage
        self.name = name
        self.owner = {key: attributes[key] for key in (record.STUDY, record.PLAN) if key in attributes}
        """What tells this study from all others, also from a later one of the same name or id."""
        tied = TiedStorage(storage, name, self.owner)
        self.optuna = optuna.Study(name, storage=tied)  # type: ignore[arg-type]
        self._uids: dict[int, str] = {}
        self._brief: list[FrozenTrial] | None = None

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

    def together(self) -> AbstractContextManager[None]:
        """Write the attributes that are set within the ``with`` block in one transaction, at its end."""
        assert isinstance(self.storage, AttributeStorage)
        return self.storage.together()

    def is_of(self, attributes: Mapping[str, Any]) -> bool:
        """Whether a study with these user attributes is this one."""
        return self.owner.items() <= attributes.items()

    def total(self) -> int | None:
        """Slots that the study owes; None: as many as fit its time."""
        return record.total_in(self.optuna.user_attrs)

    def set_total(self, total: int | None) -> None:
        """Change how many slots the study owes."""
        self.optuna.set_user_attr(record.TOTAL, total)

    def would_be_lowered(self, total: int | None) -> bool:
        """Whether the study owes more slots than that; one that was never told how many does not."""
        attributes = self.optuna.user_attrs
        if total is None or record.TOTAL not in attributes:
            return False
        owed = record.total_in(attributes)
        return owed is None or total < owed

    def notices(self) -> list[str]:
        """What changed between the sessions of this study: devices, versions, methods."""
        notices = self.optuna.user_attrs.get(record.NOTICES)
        return [text for text in notices if isinstance(text, str)] if isinstance(notices, list) else []

    def add_notice(self, text: str) -> None:
        """Record, once, something that a reader of the results should know."""
        if text not in self.notices():
            self.optuna.set_user_attr(record.NOTICES, [*self.notices(), text])

    def stops(self) -> Stops:
        """What those who work on the study were told so far; who comes later goes by what is added."""
        attributes = self.optuna.user_attrs
        told = (attributes.get(key) for key in (record.STOPS, record.STOP_REQUESTS))
        return Stops(*(count if type(count) is int else 0 for count in told))

    def add_stop(self) -> None:
        """Tell the workers that joined the study to leave."""
        self.optuna.set_user_attr(record.STOPS, self.stops().of_leaders + 1)

    def request_stop(self) -> None:
        """Tell all who work on the study to put their trials back and leave."""
        self.optuna.set_user_attr(record.STOP_REQUESTS, self.stops().requested + 1)

    def trials(self) -> list[FrozenTrial]:
        """All attempts."""
        return self.optuna.get_trials(deepcopy=False)

    def trials_in_brief(self) -> list[FrozenTrial]:
        """All attempts as they are compared with each other, in a small part of the time and memory: with
        parameters, values and outcomes, but without curves, configurations and what else is large."""
        return self._read(_BRIEF, None) if self._brief is None else self._brief

    @contextmanager
    def at_one_moment(self) -> Iterator[None]:
        """Within the ``with`` block the trials in brief are those of its beginning, read once."""
        before, self._brief = self._brief, self.trials_in_brief()
        try:
            yield
        finally:
            self._brief = before

    def whole_trials(self, numbers: Collection[int]) -> list[FrozenTrial]:
        """The attempts with these numbers, in their order."""
        return self._read(WHOLE, numbers)

    def _read(self, parts: Parts, numbers: Collection[int] | None) -> list[FrozenTrial]:
        trials = read_some(self.storage, self.study_id, parts, numbers)
        self.optuna._storage.get_study_user_attrs(self.study_id)  # after them, so that they were its own
        return trials

    def slots(self) -> Slots:
        """All attempts, by slot."""
        return Slots(self.trials())

    def is_complete(self) -> bool:
        """Whether the study has closed all the slots that it owes."""
        total = self.total()
        return total is not None and self.slots().closed() >= total

    def claim(
        self,
        worker: str,
        drawing: Drawing,
        begun: Callable[[int], None] = lambda _: None,
        leader: str | None = None,
    ) -> Claim | None:
        """Take an open slot.

        Args:
            worker: the name of a process (``studies.processes``).
            drawing: how its parameters are drawn.
            leader: the name of the process that sees the worker end, if there is one.
            begun: called with the id of the attempt before anything is drawn, which may take its time: from
                then on signs of life are expected.

        Returns:
            None if no slot is open now (others may still be running), or nothing came of this one: what was
            drawn makes no configuration, drawing failed, or the attempt was given away meanwhile.
        """
        self.trials()  # what ended since the last time, so that little is left to read under the lock
        mine = {record.WORKER: worker, record.CLAIM: uuid.uuid4().hex}
        mine |= {record.LEADER: leader} if leader else {}
        taken = locked(self.storage, self.study_id, lambda: self._take(mine))
        if taken is None:
            return None
        trial_id, known = taken
        self._uids[trial_id] = mine[record.CLAIM]
        begun(trial_id)
        others = [other for other in known if other._trial_id != trial_id]
        try:
            record_heartbeats(self.storage, self.uids([trial_id]))
            trial = self.storage.get_trial(trial_id)
            if record.uid_of(trial) != mine[record.CLAIM]:  # deleted, and its id given to another
                return None
            return self._draw(sorted([*others, trial], key=lambda trial: trial.number), trial, drawing)
        except (UpdateFinishedTrialError, GoneError):  # given away or deleted while it was drawn
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
        queued = self._take_from_queue(trials, slots, mine)
        return self._new_attempt(slots, mine) if queued is None else queued, trials

    def _new_attempt(self, slots: Slots, mine: Mapping[str, str]) -> int:
        """Start an attempt together with its slot, so that it is never without one."""
        slot = slots.next_open()
        begun = create_trial(
            state=TrialState.RUNNING,
            system_attrs={FIXED: self._known(slot, slots)},
            user_attrs={record.SLOT: slot, record.ATTEMPT: len(slots.attempts.get(slot, [])) + 1, **mine},
        )
        return self.optuna._storage.create_new_trial(self.study_id, begun)

    def _known(self, slot: int, slots: Slots) -> dict[str, Any]:
        """What is known of a slot's parameters before the sampler is asked. A retry has those of its slot,
        unless it was ended before all were drawn, or another program changed them; then the same seed draws
        the same ones."""
        earlier = slots.attempts.get(slot, [])
        if not earlier:
            return self._prescribed(slot)
        decided = next((trial for trial in earlier if record.SETUP in trial.user_attrs), None)
        known = decided.params if decided else earlier[-1].system_attrs.get(FIXED)
        changed = misfits_of(decided or earlier[-1])
        return self._prescribed(slot) if known is None or changed or not self._fits(known) else known

    @abstractmethod
    def _fits(self, values: Mapping[str, Any]) -> bool:
        """Whether parameters can have these values: others were written by another program."""

    def _take_from_queue(
        self, trials: Sequence[FrozenTrial], slots: Slots, mine: Mapping[str, str]
    ) -> int | None:
        """Start the first attempt that somebody queued through Optuna and that has a slot now; return its id.
        Those that can never be run are failed, and take no slot."""
        for waiting in trials:
            if waiting.state != TrialState.WAITING:
                continue
            values = waiting.system_attrs.get(FIXED, {})
            try:
                if why := misfits_of(waiting).get(FIXED):
                    raise ValueError(why)
                slot = self._slot_for(values, slots)
            except ValueError as error:
                self._refuse_queued(waiting, str(error))
                continue
            if slot is not None and self._start_queued(waiting, values, slot, slots, mine):
                return waiting._trial_id
        return None

    def _start_queued(
        self,
        waiting: FrozenTrial,
        values: Mapping[str, Any],
        slot: int,
        slots: Slots,
        mine: Mapping[str, str],
    ) -> bool:
        """Start it with its values and what else is known of its slot; false if another program did so, or
        ended or deleted it, in this moment."""
        attempt = len(slots.attempts.get(slot, [])) + 1
        attributes = {**mine, record.SLOT: slot, record.ATTEMPT: attempt, record.QUEUED: True}
        fixed = {FIXED: {**values, **self._known(slot, slots)}}
        try:
            write_trial(self.storage, waiting._trial_id, attributes, system=fixed)
            return self.storage.set_trial_state_values(waiting._trial_id, TrialState.RUNNING)
        except (UpdateFinishedTrialError, GoneError):
            return False

    def _close_invalid(self, attempt: FrozenTrial, why: str) -> None:
        """End an attempt of which the parameters make no configuration."""
        if attempt.user_attrs.get(record.QUEUED):
            self._refuse_queued(attempt, why, record.uid_of(attempt))
        else:
            self.close(attempt._trial_id, TrialState.FAIL, Outcome(reason="invalid", message=why))

    def _refuse_queued(self, trial: FrozenTrial, why: str, uid: str | None = None) -> None:
        """End an attempt that somebody queued and that cannot be run; its slot, if it has one, is free."""
        ending = {record.OUTCOME: Outcome(reason="invalid", message=why).model_dump(mode="json")}
        with suppress(GoneError):
            end_trial(
                self.storage, trial._trial_id, TrialState.FAIL, None, {**ending, record.SLOT: None}, uid,
                before=trial.state,
            )  # fmt: skip
            self.add_notice(f"trial {trial.number}, which was queued by hand, cannot be run: {why}")

    @abstractmethod
    def _slot_for(self, values: Mapping[str, Any], slots: Slots) -> int | None:
        """The slot of a trial that somebody queued with these parameters; None if none is open now.

        Raises:
            ValueError: it can never be run.
        """

    @abstractmethod
    def _prescribed(self, slot: int) -> dict[str, Any]:
        """What is known of a slot's parameters before the sampler is asked."""

    @abstractmethod
    def _draw(self, known: Sequence[FrozenTrial], attempt: FrozenTrial, drawing: Drawing) -> Claim | None:
        """Draw what an attempt is to run, after all that is known, itself included; without the lock."""

    def uids(self, trial_ids: Iterable[int]) -> dict[int, str | None]:
        """Of attempts that were claimed here, the uid that each has in the storage, to which what is written
        is tied."""
        return {trial_id: self._uids.get(trial_id) for trial_id in trial_ids}

    def close(
        self,
        trial_id: int,
        state: TrialState,
        outcome: Outcome,
        history: History | None = None,
        value: float | None = None,
        confusion: list[list[int]] | None = None,
    ) -> bool:
        """End an attempt; false if it was given to another worker or deleted in the meantime, and nothing is
        written."""
        ending: dict[str, Any] = {record.OUTCOME: outcome.model_dump(mode="json")}
        pieces = history.pieces() if history else ()
        ending |= {record.history_key(index): piece for index, piece in enumerate(pieces)}
        if confusion and len(confusion) <= record.LARGEST_CONFUSION:
            ending[record.CONFUSION] = confusion
        uid = self._uids.get(trial_id)
        try:
            if end_trial(self.storage, trial_id, state, value, ending, uid):
                return True
            trial = self.storage.get_trial(trial_id)  # ours all the same, if the answer was lost
        except GoneError:
            return False
        same = trial.user_attrs.get(record.OUTCOME) == ending[record.OUTCOME]
        return same and trial.state == state and value in (None, trial.value)

    def put_back(self, trial_id: int) -> bool:
        """End an attempt that was not trained, so that its slot is open again; as ``close``."""
        return self.close(trial_id, TrialState.FAIL, Outcome(reason="interrupted"))

    def _fail_lost(self, ended: Mapping[str, Reason] = NONE_ENDED) -> list[FrozenTrial]:
        """As ``fail_lost``, under the lock; return all attempts as they are then."""
        trials = self.trials()  # first, since it is refused where the study is gone
        silent, any_ended = set(silent_trials(self.storage, self.study_id)), False
        for trial in trials:
            if trial.state != TrialState.RUNNING or not (outcome := death(trial, ended, silent)):
                continue
            any_ended = True
            ending = {record.OUTCOME: outcome.model_dump(mode="json")}
            uid = record.uid_of(trial)
            with suppress(GoneError):  # deleted in this moment
                end_trial(self.storage, trial._trial_id, TrialState.FAIL, None, ending, uid)
        return self.trials() if any_ended else trials

    def fail_lost(self, ended: Mapping[str, Reason] = NONE_ENDED) -> None:
        """End the attempts of all that are known to be dead, so that their slots are open again.

        Args:
            ended: by the names of workers that were seen to end, the reason of their attempts.
        """
        locked(self.storage, self.study_id, lambda: self._fail_lost(ended))


def unknown_study(storage: RDBStorage, name: str) -> str:
    """One line for a study that is not there, with those that are."""
    return str(unknown("study", name, read_names(storage)))


def ensure_study(storage: RDBStorage, name: str, attribute: str, content: BaseModel) -> None:
    """Create the study of this name with its record, whole or not at all, unless there is one already.

    An empty study of this name, such as the dashboard makes, is taken.

    Raises:
        StorageError: the database cannot hold the name, or takes it for that of another study.
    """
    assert isinstance(storage, AttributeStorage)
    described = {attribute: content.model_dump(mode="json")}

    def ensure() -> None:
        try:
            there = optuna.load_study(study_name=name, storage=storage)
        except KeyError:
            storage.create_whole_study([StudyDirection.MAXIMIZE], name, described, _NAMES_OF_METRICS)
            return
        if just_created(there):
            with storage.together():
                for key, value in _NAMES_OF_METRICS.items():
                    storage.set_study_system_attr(there._study_id, key, value)
                storage.set_study_user_attr(there._study_id, attribute, described[attribute])

    again_if_lost(lambda: creation_lock(storage), ensure)


def just_created(study: optuna.Study) -> bool:
    """Whether the study is still empty: new, and made by another program."""
    ours = study.directions == [StudyDirection.MAXIMIZE]
    return ours and not study.user_attrs and not study.get_trials(deepcopy=False)
