"""One study: created or continued, its slots claimed by workers, their attempts reported and closed.

Optuna is driven by ask and tell. Every decision about slots is made under the study's lock, so that any
number of workers on any number of machines owe exactly N closed slots together.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from spaces.config import Configuration
from spaces.space import Space
from spaces.text import brief
from studies import record
from studies.heartbeat import silent_trials
from studies.methods import build_pruner, build_sampler, resolve_sampler
from studies.processes import is_dead
from studies.record import History, Outcome, Reason, Setup, StudyRecord
from studies.slots import Slots
from studies.storage import study_lock

_TRAINING, _SAMPLING = 0, 1
LONGEST_NAME = 200
"""Characters of a study's name."""
optuna.logging.set_verbosity(optuna.logging.WARNING)  # the screen tells of every trial already


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

    @property
    def trial_id(self) -> int:
        return self.trial._trial_id


class SearchStudy:
    """A study of this program: Optuna's study, its record and its space."""

    def __init__(self, storage: RDBStorage, name: str, pruner: str | None = None) -> None:
        """Open an existing study, to be pruned by its own pruner or by the one given.

        Raises:
            ValueError: if there is none of this name, or it was not made by this program.
        """
        try:
            self.optuna = optuna.load_study(study_name=name, storage=storage)
        except KeyError:
            raise ValueError(unknown_study(storage, name)) from None
        self.storage = storage
        self.name = name
        self.record = record.read_study(self.optuna.user_attrs, name)
        self.space = Space.read(self.record.space, f"space of study {name!r}", self.record.space_name)
        self.pruner = pruner or self.record.pruner
        self.optuna.pruner = build_pruner(self.pruner, self.record.epochs, self.space.pruning_warmup)

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

    def claim(self, worker: str, parallel: int, sampler: str) -> Claim | None:
        """Take an open slot for ``worker``; None if none is open now (others may still be running), or what
        was drawn for it makes no configuration, which closes it.

        Args:
            worker: the name of its process (``studies.processes``).
            parallel: how many trials run at once, which decides what the sampler "auto" means.
            sampler: its name.
        """
        with study_lock(self.storage, self.name):
            self._fail_lost()
            slots, total = self.slots(), self.total()
            if total is not None and slots.taken() >= total:
                return None
            slot = self._queued(slots, worker)
            chosen = resolve_sampler(sampler, bool(self.space.levels), parallel)
            return self._ask(slot, slots, chosen)

    def _queued(self, slots: Slots, worker: str) -> int:
        """The slot of the attempt that Optuna will give next: of one that a worker did not live to start, or
        of a new one. From before it runs, the attempt says who runs it and has given a sign of life."""
        if not self._waiting():
            self._enqueue(slots.next_open(), slots)
        queued = self._waiting()[0]
        slot = record.slot_of(queued)
        if slot is None:  # someone queued a configuration through Optuna itself
            slot = slots.next_open()
            self._give_slot(queued, slot)
        self.storage.set_trial_user_attr(queued._trial_id, record.WORKER, worker)
        self.storage.record_heartbeat(queued._trial_id)
        return slot

    def _waiting(self) -> list[FrozenTrial]:
        return self.optuna.get_trials(deepcopy=False, states=(TrialState.WAITING,))

    def _enqueue(self, slot: int, slots: Slots) -> None:
        """Queue an attempt together with its slot, so that it is never without one. A retry has its slot's
        parameters, unless it was ended before all were drawn; then the same seed draws the same ones."""
        earlier = slots.attempts.get(slot, [])
        decided = next((trial.params for trial in earlier if record.SETUP in trial.user_attrs), None)
        values = self._prescribed(slot) if decided is None else decided
        self.optuna.enqueue_trial(values, user_attrs={record.SLOT: slot, record.ATTEMPT: len(earlier) + 1})

    def _give_slot(self, queued: FrozenTrial, slot: int) -> None:
        for key, value in ((record.ATTEMPT, 1), (record.SLOT, slot)):
            self.storage.set_trial_user_attr(queued._trial_id, key, value)

    def _prescribed(self, slot: int) -> dict[str, Any]:
        """What is known of a slot's parameters before the sampler is asked."""
        if self.record.sampler == "grid":
            points = self.space.grid()
            return dict(points[slot % len(points)])
        first = list(self.space.first)
        if not self.space.levels:
            return dict(first[slot]) if slot < len(first) else {}
        balance, level = self.space.balance or "", self._level(slot)
        position = slot // len(self.space.levels)
        of_level = [values for values in first if values.get(balance, level) == level]
        return dict(of_level[position]) if position < len(of_level) else {}

    def _level(self, slot: int) -> Any:
        return self.space.levels[slot % len(self.space.levels)]

    def _fixed(self, slot: int) -> dict[str, Any]:
        """The balanced parameter's level: the same number of slots for each."""
        balanced = self.space.balance and self.record.sampler != "grid"
        return {self.space.balance: self._level(slot)} if self.space.balance and balanced else {}

    def _ask(self, slot: int, slots: Slots, sampler: str) -> Claim | None:
        seed = derived_seed(self.record.seed, _SAMPLING, slot)
        self.optuna.sampler = build_sampler(sampler, seed, self._fixed(slot))
        trial = self.optuna.ask()
        values = self.space.suggest(trial)
        try:
            configuration = self.space.configure(values)
        except ValueError as error:
            outcome = Outcome(reason="invalid", message=str(error))
            self._close(trial._trial_id, TrialState.FAIL, outcome, History(), None)
            return None
        repeat = _repeat(slots, slot, configuration.fingerprint())
        setup = Setup(
            seed=derived_seed(self.record.seed, _TRAINING, repeat),
            repeat=repeat,
            fingerprint=configuration.fingerprint(),
            configuration=configuration.tree(),
            sampler=sampler,
            pruner=self.pruner,
        )
        trial.set_user_attr(record.SETUP, setup.model_dump(mode="json"))
        return Claim(trial, slot, configuration, setup.seed)

    def close(
        self,
        trial_id: int,
        state: TrialState,
        outcome: Outcome,
        history: History | None = None,
        value: float | None = None,
    ) -> bool:
        """End an attempt; false if it was given to another worker in the meantime, and nothing is written."""
        with study_lock(self.storage, self.name):
            return self._close(trial_id, state, outcome, history or History(), value)

    def _close(
        self, trial_id: int, state: TrialState, outcome: Outcome, history: History, value: float | None
    ) -> bool:
        trial = self.storage.get_trial(trial_id)
        if trial.state != TrialState.RUNNING:
            return False
        for index, piece in enumerate(history.pieces()):
            self.storage.set_trial_user_attr(trial_id, record.history_key(index), piece)
        self.storage.set_trial_user_attr(trial_id, record.OUTCOME, outcome.model_dump(mode="json"))
        self.optuna.tell(trial.number, value, state=state)
        return True

    def _fail_lost(self, dead_workers: Collection[str] = (), reason: Reason = "lost") -> None:
        lost = set(silent_trials(self.storage, self.study_id))
        for trial in self.optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            worker = trial.user_attrs.get(record.WORKER, "")
            if worker in dead_workers:
                outcome = Outcome(reason=reason, message="its worker was ended")
            elif trial._trial_id in lost or is_dead(worker):
                outcome = Outcome(reason="lost", message="its worker died or fell silent")
            else:
                continue
            self._close(trial._trial_id, TrialState.FAIL, outcome, History(), None)

    def fail_lost(self, dead_workers: Collection[str], reason: Reason = "lost") -> None:
        """End the attempts of the workers given and of all that are known to be dead, so that their slots are
        open again; ``reason`` is that of the workers given."""
        with study_lock(self.storage, self.name):
            self._fail_lost(dead_workers, reason)


def _repeat(slots: Slots, slot: int, fingerprint: str) -> int:
    """How often the configuration was asked for before, by other slots; a retry keeps its own number."""
    repeats = [-1]
    for other, trials in slots.attempts.items():
        for trial in trials:
            setup: Mapping[str, Any] = trial.user_attrs.get(record.SETUP, {})
            if setup.get("fingerprint") != fingerprint:
                continue
            if other == slot:
                return int(setup["repeat"])
            repeats.append(int(setup["repeat"]))
    return max(repeats) + 1


def unknown_study(storage: RDBStorage, name: str) -> str:
    """One line for a study that is not there, with those that are."""
    from spaces.text import unknown

    return str(unknown("study", name, optuna.get_all_study_names(storage=storage)))


def open_study(
    storage: RDBStorage, name: str, wanted: StudyRecord, total: int | None, keep_total: bool = False
) -> SearchStudy:
    """Create the study, or continue the one of this name if it is the same search.

    Args:
        storage: open to write.
        name: the study's.
        wanted: the search that it must be.
        total: slots that it owes; None: without end.
        keep_total: whether a study that exists keeps its own total.

    Raises:
        ValueError: naming what differs, if the study is another search.
    """
    with study_lock(storage, name):
        try:
            created = optuna.create_study(study_name=name, storage=storage, direction="maximize")
        except DuplicatedStudyError:
            created = optuna.load_study(study_name=name, storage=storage)
        if _just_created(created):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                created.set_metric_names(["validation accuracy"])
            created.set_user_attr(record.STUDY, wanted.model_dump(mode="json"))
        study = SearchStudy(storage, name)
        refuse_other_search(study, wanted)
        if not (keep_total and record.TOTAL in study.optuna.user_attrs):
            study.set_total(total)
    return study


def check_continuation(storage: RDBStorage, name: str, wanted: StudyRecord) -> None:
    """Refuse to continue a study of this name that is another search; only reads.

    Raises:
        ValueError: naming what differs.
    """
    if name not in optuna.get_all_study_names(storage=storage):
        return
    if not _just_created(optuna.load_study(study_name=name, storage=storage)):
        refuse_other_search(SearchStudy(storage, name), wanted)


def _just_created(study: optuna.Study) -> bool:
    """Whether the study is still empty: new, or left by a process that died right after creating it."""
    ours = study.directions == [optuna.study.StudyDirection.MAXIMIZE]
    return ours and not study.user_attrs and not study.get_trials(deepcopy=False)


def check_name(name: str) -> str:
    """Return ``name`` if a study may be called so.

    Raises:
        ValueError: if it is blank, too long, or not printable.
    """
    if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
        raise ValueError(
            f"must have 1 to {LONGEST_NAME} printable characters, but got {len(name)}: {brief(name)}"
        )
    return name


def refuse_other_search(study: SearchStudy, wanted: StudyRecord) -> None:
    """Raise ``ValueError`` naming what differs, unless ``wanted`` is the study's own search."""
    there, here = _identity(study.record), _identity(wanted)
    differing = [
        f"{key} is {there[key]} in the study, but {here[key]} now" for key in there if there[key] != here[key]
    ]
    if differing:
        raise ValueError(
            f"study {study.name!r} cannot be continued: {'; '.join(differing)} (choose another --study NAME)"
        )


def _identity(of: StudyRecord) -> dict[str, Any]:
    return {
        "the hash of the data set": of.data.hash[:12],
        "the image size": "x".join(str(side) for side in of.data.shape),
        "the epochs": of.epochs,
        "the precision": of.precision,
        "the seed": of.seed,
        "the training size": of.split.train_size,
        "the validation size": of.split.val_size,
        "the split": of.split.hash,
        "the space": f"{of.space_name} ({of.space_fingerprint[:8]})",
        "sampling on the grid": of.sampler == "grid",
        "the repeats of the grid": of.repeat,
    }
