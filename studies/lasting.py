"""Optuna's ``RDBStorage`` whose calls survive an outage of the database, and never act twice.

A call whose error passes (``studies.retries``) is repeated. The answer to a commit may have been lost with
its connection, so that a write may have been done all the same. Writes that set a value are simply done
again. The others look first: a new trial and the start of a waiting one carry a token of their own, by which
they are found; a trial that has ended as it was to end was ended by this call, and a study that is there and
still empty was made by it.

Uses of Optuna's internals, held by a test:

- ``RDBStorage``'s public methods, each one transaction, and of its private ones ``_get_trials``,
  ``_get_best_trial_id``, ``_get_stale_trial_ids``, ``_set_trial_param`` and ``_create_new_trial``, which
  Optuna's own cache calls;
- ``RDBStorage._get_prepared_new_trial``, ``RDBStorage._set_trial_attr_without_commit``,
  ``RDBStorage.scoped_session`` and ``storage._create_scoped_session``;
- ``optuna.storages._rdb.models``: ``StudyModel``, ``TrialModel`` and ``TrialSystemAttributeModel``.
"""

from __future__ import annotations

import copy
import functools
import json
import uuid
from collections.abc import Callable, Container, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from optuna.storages import RDBStorage
from optuna.storages._base import DEFAULT_STUDY_NAME_PREFIX
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from studies.reading import read_trials
from studies.retries import lasting

TOKEN = "cifar-search:token"
"""System attribute of a trial: who made it, or started it from the queue. Random for each such call."""
READS = (
    "get_all_studies",
    "get_study_id_from_name",
    "get_study_name_from_id",
    "get_study_directions",
    "get_study_user_attrs",
    "get_study_system_attrs",
    "get_all_trials",
    "get_n_trials",
    "get_best_trial",
    "get_trial_id_from_study_id_trial_number",
    "get_trial_number_from_id",
    "get_trial_param",
    "get_trial_params",
    "get_trial_user_attrs",
    "get_trial_system_attrs",
    "_get_best_trial_id",
    "_get_stale_trial_ids",
)
SETTERS = (
    "set_study_user_attr",
    "set_study_system_attr",
    "set_trial_user_attr",
    "set_trial_system_attr",
    "set_trial_param",
    "_set_trial_param",
    "set_trial_intermediate_value",
    "record_heartbeat",
)
"""Writes that do the same when they are done twice."""


class LastingStorage(RDBStorage):
    """An ``RDBStorage`` whose calls survive an outage of the database.

    Every method raises ``OutageError``, one line without a password, when the outage does not end in time.
    """

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        name = study_name or f"{DEFAULT_STUDY_NAME_PREFIX}{uuid.uuid4()}"
        create = super().create_new_study
        return lasting(
            self.engine, lambda: create(directions, name), lambda: self._new_study(directions, name)
        )

    def _new_study(self, directions: Sequence[StudyDirection], name: str) -> int | None:
        """The study of this name if nothing has been done with it yet."""
        try:
            study_id = self.get_study_id_from_name(name)
        except KeyError:
            return None
        used = (
            self.get_n_trials(study_id)
            or self.get_study_user_attrs(study_id)
            or self.get_study_system_attrs(study_id)
            or self.get_study_directions(study_id) != list(directions)
        )
        return None if used else study_id

    def delete_study(self, study_id: int) -> None:
        delete = super().delete_study
        lasting(self.engine, lambda: delete(study_id), lambda: self._is_gone(study_id) or None)

    def _is_gone(self, study_id: int) -> bool:
        query = sa.select(models.StudyModel.study_id).where(models.StudyModel.study_id == study_id)
        with self.engine.connect() as connection:
            return connection.scalar(query) is None

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        return self._create_new_trial(study_id, template_trial)._trial_id

    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        token = uuid.uuid4().hex
        template = copy.deepcopy(template_trial) or create_trial(state=TrialState.RUNNING)
        template.system_attrs = {**template.system_attrs, TOKEN: token}
        return lasting(
            self.engine,
            lambda: self._create_once(study_id, template),
            lambda: self._trial_with(study_id, token),
        )

    def _create_once(self, study_id: int, template: FrozenTrial) -> FrozenTrial:
        """As ``RDBStorage._create_new_trial``, which repeats itself without a look at what was done."""
        with _create_scoped_session(self.scoped_session) as session:
            models.StudyModel.find_or_raise_by_id(study_id, session, for_update=True)
            row = self._get_prepared_new_trial(study_id, template, session)
            return self._created(row, template)

    @staticmethod
    def _created(row: Any, template: FrozenTrial) -> FrozenTrial:
        trial = copy.deepcopy(template)
        trial.number, trial._trial_id, trial.datetime_start = row.number, row.trial_id, row.datetime_start
        return trial

    def _trial_with(self, study_id: int, token: str) -> FrozenTrial | None:
        attribute = models.TrialSystemAttributeModel
        query = (
            sa.select(attribute.trial_id)
            .join(models.TrialModel, models.TrialModel.trial_id == attribute.trial_id)
            .where(models.TrialModel.study_id == study_id)
            .where(attribute.key == TOKEN, attribute.value_json == json.dumps(token))
        )
        with self.engine.begin() as connection:
            trial_id = connection.scalar(query)
        return None if trial_id is None else self.get_trial(trial_id)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        found = self._read(models.TrialModel.trial_id == trial_id)
        if not found:
            raise KeyError(models.NOT_FOUND_MSG)
        return found[0]

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        """Those beyond an id, and those included of the others: what Optuna's cache lacks."""
        trial = models.TrialModel
        later = trial.trial_id > trial_id_greater_than
        conditions = [
            trial.study_id == study_id,
            sa.or_(later, trial.trial_id.in_(included_trial_ids)) if trial_id_greater_than > -1 else later,
        ]
        if states is not None:
            conditions.append(trial.state.in_([state for state in TrialState if state in states]))
        found = self._read(*conditions)
        if not found:
            self.get_study_name_from_id(study_id)  # raises KeyError for a study that is not there
        return found

    def _read(self, *conditions: sa.ColumnElement[bool]) -> list[FrozenTrial]:
        def read() -> list[FrozenTrial]:
            with _create_scoped_session(self.scoped_session) as session:
                return read_trials(session.connection(), *conditions)

        return lasting(self.engine, read)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        if state == TrialState.RUNNING and values is None:
            return self._start(trial_id)
        change = super().set_trial_state_values
        return lasting(
            self.engine,
            lambda: change(trial_id, state, values),
            lambda: self._is_so(trial_id, state, values) or None,
        )

    def _is_so(self, trial_id: int, state: TrialState, values: Sequence[float] | None) -> bool:
        trial = self.get_trial(trial_id)
        return trial.state == state and (values is None or trial.values == list(values))

    def _start(self, trial_id: int) -> bool:
        token, refuse = uuid.uuid4().hex, super().set_trial_state_values

        def start() -> bool:
            return self._start_once(trial_id, token) or refuse(trial_id, TrialState.RUNNING)

        def started() -> bool | None:
            return self.get_trial_system_attrs(trial_id).get(TOKEN) == token or None

        return lasting(self.engine, start, started)

    def _start_once(self, trial_id: int, token: str) -> bool:
        """Start a waiting trial and mark it, in one transaction; false if it does not wait."""
        trials = models.TrialModel.__table__
        change = (
            sa.update(trials)
            .where(trials.c.trial_id == trial_id, trials.c.state == TrialState.WAITING)
            .values(state=TrialState.RUNNING, datetime_start=datetime.now(UTC).replace(tzinfo=None))
        )
        with _create_scoped_session(self.scoped_session) as session:
            started = bool(session.connection().execute(change).rowcount)
            if started:
                kind = models.TrialSystemAttributeModel
                self._set_trial_attr_without_commit(session, kind, trial_id, TOKEN, token)
        return started


def _made_lasting(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: LastingStorage, *arguments: Any, **named: Any) -> Any:
        return lasting(self.engine, lambda: method(self, *arguments, **named))

    return call


for _name in READS + SETTERS:
    setattr(LastingStorage, _name, _made_lasting(getattr(RDBStorage, _name)))
