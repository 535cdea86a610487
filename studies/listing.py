"""The studies of a database, each in a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from studies.plan import read_plan
from studies.reading import Parts, read_by_study, read_studies
from studies.record import CONFIGURATION, PLAN, SETUP, STUDY, TOTAL, read_study, total_in
from studies.slots import DECIDING, Slots

_PARTS = Parts(
    user=DECIDING,
    without={SETUP: CONFIGURATION},
    system=(),
    parameters=False,
    intermediate_values=False,
)


@dataclass(frozen=True)
class Listed:
    """A study as a list shows it. Of one that was not made by this program only name and trials are known."""

    name: str
    closed: int
    space: str | None = None
    dataset: str | None = None
    epochs: int | None = None
    total: int | None = None
    best: float | None = None
    """Highest validation accuracy of a completed trial."""


def list_studies(storage: RDBStorage) -> list[Listed]:
    """All studies, in the order in which they were made."""
    studies = read_studies(storage, (STUDY, PLAN, TOTAL))
    trials = read_by_study(storage, (list(TrialState), _PARTS))
    return [_listed(study.name, study.attributes, trials[study.study_id]) for study in studies]


def _listed(name: str, attributes: Mapping[str, Any], trials: Sequence[FrozenTrial]) -> Listed:
    try:
        space, dataset, epochs = _described(name, attributes)
    except ValueError:  # of another program or version
        return Listed(name, len(trials))
    closing = Slots(trials).closing_trials()
    values = [t.value for t in closing if t.state == TrialState.COMPLETE and t.value is not None]
    total, best = total_in(attributes), max(values, default=None)
    return Listed(name, len(closing), space, dataset, epochs, total, best)


def _described(name: str, attributes: Mapping[str, Any]) -> tuple[str, str, int]:
    """What a study searches or repeats, on which data, for how many epochs."""
    if PLAN in attributes:
        plan = read_plan(attributes, name)
        return f"({plan.kind})", plan.data.name, plan.epochs
    search = read_study(attributes, name)
    return search.space_name, search.data.name, search.epochs
