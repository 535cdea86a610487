"""A storage for one study, that never takes another one for it.

A person may delete a study while programs work on it, and rename it, which is a new study with a copy of its
trials. SQLite then gives the ids of the study and of its trials to those that are made next. So what is read
and written of the study itself is tied to the record by which it was opened, which no other study has, and
what is written to a trial to the uid of its attempt (``studies.writing``).

Uses of Optuna's internals, held by a test: ``optuna.Study`` reads and writes its attributes by its storage's
``get_study_user_attrs``, ``get_study_system_attrs``, ``set_study_user_attr`` and ``set_study_system_attr``,
and its trials by ``get_all_trials`` and ``create_new_trial``.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any, TypeVar

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from studies.attributes import check_owner
from studies.lasting import LastingStorage
from studies.urls import GoneError

T = TypeVar("T")


class TiedStorage:
    """The storage as the owner of some user attributes sees it; all that is not said here goes to it."""

    def __init__(self, storage: RDBStorage, name: str, owner: dict[str, Any]) -> None:
        """Tie to the study ``name``, which has the user attributes ``owner`` until it is gone."""
        self._writing = storage
        self._storage = optuna.storages.get_storage(storage)
        self._name = name
        self._owner = owner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """As ``BaseStorage`` has it.

        Raises:
            GoneError: the study is not there any more.
        """

        def read() -> dict[str, Any]:
            attributes = self._storage.get_study_user_attrs(study_id)
            check_owner(attributes, self._owner)
            return attributes

        return self._told(read)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """As ``get_study_user_attrs``."""
        attributes = self._told(lambda: self._storage.get_study_system_attrs(study_id))
        self.get_study_user_attrs(study_id)  # after them, so that they were its own
        return attributes

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """As ``get_study_user_attrs``."""
        trials = self._told(lambda: self._storage.get_all_trials(study_id, deepcopy, states))
        self.get_study_user_attrs(study_id)  # after them, so that they were its own
        return trials

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """As ``get_study_user_attrs``."""
        assert isinstance(self._writing, LastingStorage)
        create = self._writing.create_new_trial
        return self._told(lambda: create(study_id, template_trial, self._owner))

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """As ``BaseStorage`` has it; raises as ``get_study_user_attrs``."""
        self._set(study_id, key, value, system=False)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """As ``set_study_user_attr``."""
        self._set(study_id, key, value, system=True)

    def _set(self, study_id: int, key: str, value: Any, *, system: bool) -> None:
        assert isinstance(self._writing, LastingStorage)
        write = self._writing.set_attribute_of
        self._told(lambda: write(study_id, self._owner, key, value, system=system))

    def _told(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except GoneError:
            raise GoneError(
                f"study {self._name!r} is not there any more: it was deleted or renamed, and what was "
                "at work on it ends"
            ) from None
