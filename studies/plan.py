"""A plan: a study that owes a fixed list of trainings, kept beside the search that it belongs to.

A training is an entry (a configuration) on a block (a fresh seed and a fresh split), so that every entry
meets the same blocks. Slots are numbered block by block: a plan that was interrupted has whole blocks first,
and one that is continued with more blocks, or more entries, keeps what it has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.pruners import NopPruner
from optuna.samplers import RandomSampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from pydantic import BaseModel, ConfigDict, NonNegativeInt, TypeAdapter, ValidationError

from spaces.config import Configuration, first_problem
from spaces.text import digest
from studies import record
from studies.base import (
    ABLATING,
    ABLATING_SPLITS,
    CONFIRMING,
    CONFIRMING_SPLITS,
    Claim,
    Study,
    derived_seed,
    ensure_study,
)
from studies.drawing import DrawnStudy
from studies.record import PLAN, DataRecord, Drawing, Setup, SplitSpec, outcome_of
from studies.slots import Slots
from studies.storage import locked
from studies.writing import write_trial

CELLS = "cells"
_CELLS = TypeAdapter(list[tuple[NonNegativeInt, NonNegativeInt]])
PURPOSES = {"confirm": (CONFIRMING, CONFIRMING_SPLITS), "ablate": (ABLATING, ABLATING_SPLITS)}
"""What the seeds of trainings and splits are derived for, by the kind of plan."""
ENTRY = "entry"
"""Beginning of the attributes of the entries, and an attribute of each trial: its entry's label."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)


class PlanRecord(_Record):
    """What a plan is about. Does not change once it exists."""

    format: Literal[1] = 1
    kind: Literal["confirm", "ablate"]
    parent: str
    """The search that it belongs to; empty: an exported configuration."""
    parent_id: str = ""
    """That search's own mark, since a name can come back."""
    question: str
    data: DataRecord
    split: SplitSpec
    """The split whose sizes the fresh ones have, and whose seed theirs are derived from."""
    folds: int | None
    """Parts of a cross-validation; None: repeated hold-out."""
    epochs: int
    mark: str = ""
    """Random; tells this plan from a later one of the same name."""


class PlannedEntry(_Record):
    """One configuration of a plan."""

    label: str
    fingerprint: str
    configuration: dict[str, Any]

    @classmethod
    def of(cls, label: str, configuration: Configuration) -> PlannedEntry:
        """The entry of a configuration."""
        return cls(label=label, fingerprint=configuration.fingerprint(), configuration=configuration.tree())


class PlanStudy(Study):
    """The study of a plan."""

    def __init__(self, storage: RDBStorage, name: str) -> None:
        """Open an existing plan.

        Raises:
            ValueError: if there is none of this name, or it is no plan of this program.
        """
        super().__init__(storage, name)
        self.record = read_plan(self.optuna.user_attrs, name)
        self.optuna.pruner, self.optuna.sampler = NopPruner(), RandomSampler()

    @property
    def data(self) -> DataRecord:
        return self.record.data

    @property
    def mark(self) -> str:
        return self.record.mark or digest([self.name, self.study_id])

    @property
    def epochs(self) -> int:
        return self.record.epochs

    def entries(self) -> list[PlannedEntry]:
        """All configurations that were ever planned.

        Raises:
            ValueError: another program wrote in their place; ``cells`` likewise.
        """
        return _entries(self.optuna.user_attrs, self.name)

    def cells(self) -> list[tuple[int, int]]:
        """Of each slot its entry and its block."""
        return _cells(self.optuna.user_attrs, self.name)

    def block(self, block: int) -> tuple[int, SplitSpec]:
        """The seed of a block's trainings, and its split."""
        spec, folds = self.record.split, self.record.folds
        training, splitting = PURPOSES[self.record.kind]
        seed = derived_seed(spec.seed, training, block)
        index = block if folds is None else block // folds
        fresh: dict[str, Any] = {"seed": derived_seed(spec.seed, splitting, index), "pooled": True}
        if folds is not None:
            fresh |= {"val_size": None, "fold": block % folds, "folds": folds}
        return seed, spec.model_copy(update=fresh)

    def shown(self, trial: FrozenTrial) -> dict[str, Any]:
        return {"": record.text_of(trial, ENTRY), "block": trial.params.get("block")}

    def owe(self, wanted: Sequence[PlannedEntry], blocks: int) -> int:
        """Plan every wanted entry on the first ``blocks`` blocks.

        What has begun stays as it is, and what failed for good is tried again. What has not begun and is not
        wanted any more is dropped, unless another command is at work on the plan.

        Returns:
            How many trainings were dropped.
        """
        return locked(self.storage, self.study_id, lambda: self._owe(wanted, blocks))

    def _owe(self, wanted: Sequence[PlannedEntry], blocks: int) -> int:
        by_fingerprint = {entry.fingerprint: entry for entry in reversed(wanted)}
        entries = self._with_entries(list(reversed(by_fingerprint.values())))
        numbers = [i for i, entry in enumerate(entries) if entry.fingerprint in by_fingerprint]
        self._fail_lost()
        cells = self._kept_cells()
        slots = self.slots()
        good = {cell for slot, cell in enumerate(cells) if not slots.failed_for_good(slot)}
        wanted_cells = ((entry, block) for block in range(blocks) for entry in numbers)
        cells += [cell for cell in wanted_cells if cell not in good]
        dropped = set(self.cells()) - set(cells)
        self.optuna.set_user_attr(CELLS, cells)
        self.set_total(len(cells))
        return len(dropped)

    def _kept_cells(self) -> list[tuple[int, int]]:
        """The cells that stay: all while something runs, else those that have begun."""
        slots = self.slots()
        if any(trial.state == TrialState.RUNNING for trial in self.trials()):
            return self.cells()
        return self.cells()[: max(slots.attempts, default=-1) + 1]

    def _with_entries(self, wanted: Sequence[PlannedEntry]) -> list[PlannedEntry]:
        """The entries, after adding those that are new; one that is known takes its new label."""
        entries = self.entries()
        index_of = {entry.fingerprint: index for index, entry in enumerate(entries)}
        for entry in wanted:
            index = index_of.setdefault(entry.fingerprint, len(index_of))
            if entries[index : index + 1] != [entry]:
                entries[index : index + 1] = [entry]
                self.optuna.set_user_attr(f"{ENTRY} {index}", entry.model_dump(mode="json"))
        return entries

    def _prescribed(self, slot: int) -> dict[str, Any]:
        entry, block = self.cells()[slot]
        return {"entry": entry, "block": block}

    def _fits(self, values: Mapping[str, Any]) -> bool:  # noqa: ARG002
        return True

    def _slot_for(self, values: Mapping[str, Any], slots: Slots) -> int | None:  # noqa: ARG002
        raise ValueError("the trainings of a repetition are planned, and no others are run")

    def _draw(self, known: Sequence[FrozenTrial], attempt: FrozenTrial, drawing: Drawing) -> Claim:
        drawn, slot = DrawnStudy(self.optuna, known), record.slot_of(attempt) or 0
        entry_index, block = self.cells()[slot]
        trial = optuna.Trial(drawn, attempt._trial_id)
        for name, number in (("entry", entry_index), ("block", block)):
            trial.suggest_int(name, 0, max(1, number))
        entry = self.entries()[entry_index]
        seed, split = self.block(block)
        setup = Setup(
            seed=seed, repeat=block, fingerprint=entry.fingerprint, configuration=entry.configuration,
            sampler="planned", pruner="none", split=split,
            parallel=drawing.parallel, ahead=drawing.ahead,
        )  # fmt: skip
        attributes = {ENTRY: entry.label, record.SETUP: setup.model_dump(mode="json")}
        write_trial(self.storage, trial._trial_id, attributes, drawn.parameters, record.uid_of(attempt))
        configuration = Configuration.read(entry.configuration, f"entry {entry.label!r}")
        keep = self.model_name(entry.fingerprint) if block == 0 else None
        return Claim(optuna.Trial(self.optuna, trial._trial_id), slot, configuration, seed, split, keep)

    def model_name(self, fingerprint: str) -> str:
        """What the model of an entry's training on the first block is called: another one for other data."""
        seed, split = self.block(0)
        what = [fingerprint, self.data.hash, seed, split.model_dump(mode="json")]
        return f"{fingerprint[:16]}-{digest(what)}"

    def closed_trials(self) -> dict[tuple[str, int], FrozenTrial]:
        """The attempt that closed each slot, by its entry's fingerprint and its block."""
        entries, cells = self.entries(), self.cells()
        closing: dict[tuple[str, int], FrozenTrial] = {}
        for trial in self.slots().closing_trials():
            slot = record.slot_of(trial) or 0
            if slot < len(cells):  # else another program wrote it
                entry, block = cells[slot]
                closing[entries[entry].fingerprint, block] = trial
        return closing


class Results:
    """What a plan's trainings came to: a table of entries by blocks, of what is complete."""

    def __init__(self, plan: PlanStudy, fingerprints: Sequence[str]) -> None:
        """Collect the results of the entries named.

        A training that diverged counts with the accuracy of its last epoch. An entry that has no result at
        all is left out, then every block that lacks one of the others.
        """
        self._closing = plan.closed_trials()
        labels = {entry.fingerprint: entry.label for entry in plan.entries()}
        wanted = list(dict.fromkeys(fingerprints))
        numbers = sorted({block for _, block in self._closing})
        self.missing: list[str] = []
        self.fingerprints = [f for f in wanted if any(self._value(f, block) is not None for block in numbers)]
        for fingerprint in wanted:
            if fingerprint not in self.fingerprints:
                self.missing.append(f"{labels.get(fingerprint, fingerprint)} has no result")
        self.blocks = [
            block for block in numbers if all(self._value(f, block) is not None for f in self.fingerprints)
        ]
        partly = [str(block) for block in numbers if block not in self.blocks and self._any(block)]
        if partly:
            self.missing.append(f"incomplete block(s) are left out: {', '.join(partly)}")
        self._note_divergence(labels)

    def _note_divergence(self, labels: Mapping[str, str]) -> None:
        for fingerprint in self.fingerprints:
            ended = [outcome_of(trial) for trial in self.trials(fingerprint)]
            diverged = sum(outcome is not None and outcome.reason == "diverged" for outcome in ended)
            if diverged:
                which = f"{diverged} of {len(ended)} trainings of {labels[fingerprint]}"
                self.missing.append(f"{which} diverged, and count as they are")

    def _any(self, block: int) -> bool:
        return any(self._value(fingerprint, block) is not None for fingerprint in self.fingerprints)

    def _value(self, fingerprint: str, block: int) -> float | None:
        trial = self._closing.get((fingerprint, block))
        return None if trial is None or trial.state == TrialState.FAIL else trial.value

    @property
    def values_EB(self) -> NDArray[np.float64]:
        """Accuracies of the entries on the complete blocks."""
        rows = [[self._value(f, block) for block in self.blocks] for f in self.fingerprints]
        return np.array(rows, np.float64).reshape(len(self.fingerprints), len(self.blocks))

    def trials(self, fingerprint: str) -> list[FrozenTrial]:
        """An entry's trials on the complete blocks."""
        return [self._closing[fingerprint, block] for block in self.blocks]


def open_plan(storage: RDBStorage, name: str, wanted: PlanRecord) -> PlanStudy:
    """Create the plan, or continue the one of this name if it is about the same.

    Raises:
        ValueError: naming what differs.
    """

    ensure_study(storage, name, PLAN, wanted)
    plan = PlanStudy(storage, name)
    refuse_other_plan(plan, wanted)
    return plan


def refuse_other_plan(plan: PlanStudy, wanted: PlanRecord) -> None:
    """Raise ``ValueError`` naming what differs, unless ``wanted`` is the plan's own record."""
    there, here = (_identity(each) for each in (plan.record, wanted))
    differing = [
        f"{key} is {there[key]} there, but {here[key]} now" for key in there if there[key] != here[key]
    ]
    if differing:
        raise ValueError(f"study {plan.name!r} cannot be continued: {'; '.join(differing)}")


def find_plan(storage: RDBStorage, name: str) -> PlanStudy | None:
    """The plan of this name; None if there is no study of this name, or it is no plan."""
    try:
        attributes = optuna.load_study(study_name=name, storage=storage).user_attrs
    except KeyError:
        return None
    return PlanStudy(storage, name) if PLAN in attributes else None


def read_plan(attributes: Mapping[str, Any], name: str) -> PlanRecord:
    """The record of a plan.

    Raises:
        ValueError: if there is none among a study's attributes, or one with another format.
    """
    if PLAN not in attributes:
        raise ValueError(f"study {name!r} is no plan of cifar-search, though its name is that of one")
    with _named(name):
        return PlanRecord.model_validate(attributes[PLAN])


def _identity(of: PlanRecord) -> dict[str, Any]:
    return {
        "the kind": of.kind,
        "the search": f"{of.parent!r} ({of.parent_id[:8] or 'unmarked'})",
        "the hash of the data set": of.data.hash[:12],
        "the split": of.split.model_dump(include=set(SplitSpec.model_fields)),
        "the number of folds": of.folds,
        "the epochs": of.epochs,
    }


def _entries(attributes: Mapping[str, Any], name: str) -> list[PlannedEntry]:
    entries: list[PlannedEntry] = []
    with _named(name):
        while f"{ENTRY} {len(entries)}" in attributes:
            entries.append(PlannedEntry.model_validate(attributes[f"{ENTRY} {len(entries)}"]))
    return entries


def _cells(attributes: Mapping[str, Any], name: str) -> list[tuple[int, int]]:
    with _named(name):
        cells = _CELLS.validate_python(attributes.get(CELLS, []))
    for entry in {entry for entry, _ in cells}:
        if f"{ENTRY} {entry}" not in attributes:
            raise ValueError(f"study {name!r} cannot be read: it has no entry {entry}")
    return cells


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Say of which study something is that cannot be read."""
    try:
        yield
    except ValidationError as error:
        raise ValueError(f"study {name!r} cannot be read: {first_problem(error)}") from None
