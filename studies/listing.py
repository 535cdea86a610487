"""The studies of a database, each in a line."""

from __future__ import annotations

from dataclasses import dataclass

import optuna
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from studies.record import STUDY, TOTAL, read_study
from studies.slots import Slots


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
    summaries = optuna.get_all_study_summaries(storage=storage, include_best_trial=False)
    return [_listed(storage, summary) for summary in summaries]


def _listed(storage: RDBStorage, summary: optuna.study.StudySummary) -> Listed:
    if STUDY not in summary.user_attrs:
        return Listed(summary.study_name, summary.n_trials)
    try:
        record = read_study(summary.user_attrs, summary.study_name)
    except ValueError:  # of another version: it is listed like a stranger's
        return Listed(summary.study_name, summary.n_trials)
    study = optuna.load_study(study_name=summary.study_name, storage=storage)
    closing = Slots(study.get_trials(deepcopy=False)).closing_trials()
    values = [t.value for t in closing if t.state == TrialState.COMPLETE and t.value is not None]
    return Listed(
        summary.study_name,
        len(closing),
        record.space_name,
        record.data.name,
        record.epochs,
        summary.user_attrs.get(TOTAL),
        max(values, default=None),
    )
