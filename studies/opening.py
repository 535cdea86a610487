"""Studies of either kind, opened by name."""

from __future__ import annotations

from optuna.storages import RDBStorage

from studies.plan import PlanStudy, find_plan
from studies.study import SearchStudy


def open_existing(storage: RDBStorage, name: str, pruner: str | None = None) -> PlanStudy | SearchStudy:
    """The study of this name: a plan, or a search to be pruned by its own pruner or the one given.

    Raises:
        ValueError: if there is none, or this program did not make it.
    """
    return find_plan(storage, name) or SearchStudy(storage, name, pruner)
