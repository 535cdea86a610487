"""A search: a study whose slots are drawn from a space, created or continued."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

from spaces.domain import Domain, Value
from spaces.space import Space
from spaces.text import brief, digest, is_plain_text
from studies import record
from studies.attributes import UNREAD, AttributeStorage, misfits_of
from studies.base import SAMPLING, TRAINING, Claim, Study, derived_seed, ensure_study, just_created
from studies.drawing import DrawnStudy, excerpt
from studies.methods import build_pruner, build_sampler, resolve_sampler
from studies.reading import read_attributes
from studies.record import DataRecord, Drawing, Setup, StudyRecord
from studies.slots import Slots
from studies.storage import locked
from studies.writing import write_trial

LONGEST_NAME = 200
"""Characters of a study's name."""
optuna.logging.set_verbosity(optuna.logging.WARNING)  # the screen tells of every trial already


class SearchStudy(Study):
    """A study that searches a space: Optuna's study, its record and its space."""

    def __init__(self, storage: RDBStorage, name: str, pruner: str | None = None) -> None:
        """Open an existing search, to be pruned by its own pruner or by the one given.

        Raises:
            ValueError: if there is none of this name, or it was not made by this program.
        """
        super().__init__(storage, name)
        self.record = record.read_study(self.optuna.user_attrs, name)
        self.space = Space.read(self.record.space, f"space of study {name!r}", self.record.space_name)
        self.pruner = pruner or self.record.pruner
        self.optuna.pruner = build_pruner(self.pruner, self.record.epochs, self.space.pruning_warmup)

    @property
    def data(self) -> DataRecord:
        return self.record.data

    @property
    def mark(self) -> str:
        return self.record.mark or digest([self.name, self.study_id])

    @property
    def epochs(self) -> int:
        return self.record.epochs

    def _prescribed(self, slot: int) -> dict[str, Any]:
        """What is known of a slot's parameters before the sampler is asked."""
        if self.record.sampler == "grid":
            return dict(self._points[slot % len(self._points)])
        first = list(self.space.first)
        if not self.space.levels:
            return dict(first[slot]) if slot < len(first) else {}
        balance, level = self.space.balance or "", self._level(slot)
        position = slot // len(self.space.levels)
        of_level = [values for values in first if values.get(balance, level) == level]
        return dict(of_level[position]) if position < len(of_level) else {}

    @cached_property
    def _points(self) -> list[dict[str, Value]]:
        """The grid's."""
        return self.space.grid()

    def _level(self, slot: int) -> Any:
        return self.space.levels[slot % len(self.space.levels)]

    def _fixed(self, slot: int) -> dict[str, Any]:
        """The balanced parameter's level: the same number of slots for each."""
        balanced = self.space.balance and self.record.sampler != "grid"
        return {self.space.balance: self._level(slot)} if self.space.balance and balanced else {}

    def _slot_for(self, values: Mapping[str, Any], slots: Slots) -> int | None:
        """The lowest open slot of which nothing else is known, so that a grid's points, the levels' shares,
        the space's first configurations and what was interrupted stay as they are."""
        accepted = self.space.accept(values, partial=True)
        total = self.total()
        fitting = [
            slot
            for slot in range(self._some_beyond(slots) if total is None else total)
            if not slots.is_closed(slot)
            and _agree(accepted, {**self._known(slot, slots), **self._fixed(slot)})
        ]
        if not fitting and self.record.sampler == "grid":
            raise ValueError("no slot is left for the grid's points with these values")
        return next((slot for slot in fitting if not slots.is_running(slot)), None)

    def _some_beyond(self, slots: Slots) -> int:
        """So many slots that some of the last have no attempt yet and nothing but their level prescribed."""
        used = max(slots.attempts, default=-1) + 1
        return used + (len(self.space.first) + 1) * max(len(self.space.levels), 1)

    def _draw(self, known: Sequence[FrozenTrial], attempt: FrozenTrial, drawing: Drawing) -> Claim | None:
        slot = record.slot_of(attempt) or 0
        seed = derived_seed(self.record.seed, SAMPLING, slot)
        chosen = resolve_sampler(drawing.sampler, bool(self.space.levels), drawing.parallel)
        drawn = DrawnStudy(self.optuna, excerpt(self._evidence_of(known), seed))
        drawn.sampler = build_sampler(chosen, seed, self._fixed(slot))
        values = self.space.suggest(optuna.Trial(drawn, attempt._trial_id))
        try:
            configuration = self.space.configure(values)
        except ValueError as error:
            write_trial(self.storage, attempt._trial_id, {}, drawn.parameters, record.uid_of(attempt))
            self._close_invalid(attempt, str(error))
            return None

        def decide() -> int:
            """Write the setup under the lock, so that no other slot has the same repeat."""
            others = [trial for trial in known if trial is not attempt]
            repeat = self._repeat(others, slot, configuration.fingerprint())
            setup = Setup(
                seed=derived_seed(self.record.seed, TRAINING, repeat),
                repeat=repeat,
                fingerprint=configuration.fingerprint(),
                configuration=configuration.tree(),
                sampler=chosen,
                pruner=self.pruner,
                parallel=drawing.parallel,
                ahead=drawing.ahead,
            )
            attributes = {record.SETUP: setup.model_dump(mode="json")}
            write_trial(self.storage, attempt._trial_id, attributes, drawn.parameters, record.uid_of(attempt))
            return setup.seed

        training_seed = locked(self.storage, self.study_id, decide)
        trial = optuna.Trial(self.optuna, attempt._trial_id)
        return Claim(trial, slot, configuration, training_seed, self.record.split)

    def evidence(self) -> list[FrozenTrial]:
        """The attempts that make sense, with the parameters that do."""
        return self._evidence_of(self.trials())

    def _evidence_of(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        return [self.fitting(trial) for trial in trials if record.is_evidence(trial)]

    def fitting(self, trial: FrozenTrial) -> FrozenTrial:
        """The trial without those parameters that the space cannot have given it, so that another program
        wrote them; ``misfits_of`` tells of them."""
        misfits = misfits_of(trial) | self._misfits(trial.params)
        if not misfits:
            return trial
        fitting = copy.copy(trial)
        fitting.params = {n: value for n, value in trial.params.items() if n not in misfits}
        fitting.distributions = {n: domain for n, domain in trial.distributions.items() if n not in misfits}
        fitting.system_attrs = {**trial.system_attrs, UNREAD: misfits}
        return fitting

    def _misfits(self, values: Mapping[str, Any]) -> dict[str, str]:
        found = {}
        for name, value in values.items():
            try:
                self._domain(name).accept(value)
            except ValueError as error:
                found[name] = str(error)
        return found

    def _fits(self, values: Mapping[str, Any]) -> bool:
        return not self._misfits(values)

    def _domain(self, name: str) -> Domain:
        if name not in self._domains:
            raise ValueError("is no parameter of the space")
        return self._domains[name]

    @cached_property
    def _domains(self) -> dict[str, Domain]:
        return {parameter.name: parameter.domain for parameter in self.space.parameters}

    def _repeat(self, known: Sequence[FrozenTrial], slot: int, fingerprint: str) -> int:
        """How often the configuration was asked for before, by other slots; a retry keeps its own number."""
        repeats = [-1]
        for other, setup in self._setups(known):
            if setup["fingerprint"] != fingerprint:
                continue
            if other == slot:
                return int(setup["repeat"])
            repeats.append(int(setup["repeat"]))
        return max(repeats) + 1

    def _setups(self, known: Sequence[FrozenTrial]) -> list[tuple[int | None, Mapping[str, Any]]]:
        """The slots and setups of all attempts: of those known, and what was written since."""
        decided = (trial.user_attrs for trial in known)
        keys = {record.SLOT, record.SETUP}
        without = [trial._trial_id for trial in known if record.SETUP not in trial.user_attrs]
        newest = max((trial._trial_id for trial in known), default=0)
        written = read_attributes(self.storage, self.study_id, keys, without, newest)
        return [
            (attributes.get(record.SLOT), attributes[record.SETUP])
            for attributes in [*decided, *written]
            if record.is_setup(attributes.get(record.SETUP))
        ]


def _agree(some: Mapping[str, Any], others: Mapping[str, Any]) -> bool:
    """Whether no parameter has another value in the one than in the other."""
    return all(some[name] == others[name] for name in some.keys() & others.keys())


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
        ValueError: naming what differs, if the study is another search, or a parameter whose name the
            database cannot hold.
    """
    assert isinstance(storage, AttributeStorage)
    space = Space.read(wanted.space, f"space of study {name!r}", wanted.space_name)
    storage.check_parameters([parameter.name for parameter in space.parameters])
    ensure_study(storage, name, record.STUDY, wanted)
    study = SearchStudy(storage, name)
    refuse_other_search(study, wanted)

    def set_total() -> None:
        if not (keep_total and record.TOTAL in study.optuna.user_attrs):
            study.set_total(total)

    locked(storage, study.study_id, set_total)
    return study


def check_continuation(storage: RDBStorage, name: str, wanted: StudyRecord) -> SearchStudy | None:
    """The study of this name, unless there is none yet; only reads.

    Raises:
        ValueError: naming what differs, if it is another search, or another spelling that the database takes
            for this name.
    """
    try:
        there = optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        return None
    if just_created(there):
        return None
    study = SearchStudy(storage, name)
    refuse_other_search(study, wanted)
    return study


def check_name(name: str) -> str:
    """Return ``name`` if a study may be called so.

    Raises:
        ValueError: if it is blank, too long, no plain text, a URL, or would look like an option or a plan's
            name.
    """
    if not name.strip() or len(name) > LONGEST_NAME or not is_plain_text(name) or name[0] == "-":
        raise ValueError(
            f"must have 1 to {LONGEST_NAME} printable characters, the first not a dash, but got {len(name)}: "
            f"{brief(name)}"
        )
    if "://" in name:  # not repeated: it may hold a password, and names are shown everywhere
        raise ValueError("must be a name, but got a URL (that of a database belongs to --storage)")
    if re.search(r"/(confirm(-\d+-fold)?|ablate)$", name):
        raise ValueError(
            f"must not end in /confirm or /ablate, which name repetitions, but got {brief(name)}"
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
        "the content of the files named": of.files,
    }
