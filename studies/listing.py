"""The studies of a database, each in a line."""

from __future__ import annotations

from dataclasses import dataclass

import optuna
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from studies.opening import open_existing
from studies.study import SearchStudy


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
    try:
        study = open_existing(storage, summary.study_name)
    except ValueError:  # of another program or version
        return Listed(summary.study_name, summary.n_trials)
    closing = study.slots().closing_trials()
    values = [t.value for t in closing if t.state == TrialState.COMPLETE and t.value is not None]
    return Listed(
        study.name,
        len(closing),
        study.record.space_name if isinstance(study, SearchStudy) else f"({study.record.kind})",
        study.data.name,
        study.epochs,
        study.total(),
        max(values, default=None),
    )
