"""Studies of either kind, opened by name, and storages that are checked before they are written to."""

from __future__ import annotations

from optuna.storages import RDBStorage

from studies.plan import PlanStudy, find_plan
from studies.storage import Storage, open_storage, probe
from studies.study import SearchStudy


def open_to_check(url: str) -> Storage:
    """A storage that only reads, of a database that can be written to: what a command that will write checks
    before it opens it to write, so that a refusal leaves everything as it was.

    Raises:
        StorageError: as ``open_storage`` to write.
    """
    probe(url)
    return open_storage(url, create=False)


def open_existing(storage: RDBStorage, name: str, pruner: str | None = None) -> PlanStudy | SearchStudy:
    """The study of this name: a plan, or a search to be pruned by its own pruner or the one given.

    Raises:
        ValueError: if there is none, or this program did not make it.
    """
    return find_plan(storage, name) or SearchStudy(storage, name, pruner)
