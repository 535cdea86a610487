"""Optuna's ``RDBStorage`` whose calls survive an outage of the database, and never act twice.

A call whose error passes (``studies.retries``) is repeated. The answer to a commit may have been lost with
its connection, so that a write may have been done all the same, or will be in a moment. Writes that set a
value are simply done again. The others look first, when nothing is on its way any more: a new trial and the
start of a waiting one carry a token of their own, by which they are found; a trial that has ended as it was
to end was ended by this call, and a study that is there and still empty was made by it.

Uses of Optuna's internals, held by a test:

- ``RDBStorage``'s public methods, each one transaction, and of its private ones ``_get_trials``,
  ``_get_best_trial_id``, ``_get_stale_trial_ids``, ``_set_trial_param`` and ``_create_new_trial``, which
  Optuna's own cache calls;
- ``RDBStorage._get_prepared_new_trial``, ``RDBStorage._set_trial_attr_without_commit``,
  ``RDBStorage.scoped_session`` and ``storage._create_scoped_session``, and those of ``studies.attributes``;
- ``optuna.storages._rdb.models``: ``StudyModel``, ``TrialModel`` and ``TrialSystemAttributeModel``.
"""

from __future__ import annotations

import copy
import functools
import json
import uuid
from collections.abc import Callable, Container, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa
from optuna.storages._base import DEFAULT_STUDY_NAME_PREFIX
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from studies.attributes import TOKEN, AttributeStorage, Renaming, check_owner, hold
from studies.reading import read_trials
from studies.retries import gone, lasting

READS = (
    "get_all_studies",
    "get_study_id_from_name",
    "check_parameters",
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
    "set_attribute_of",
    "_write_settings",
    "set_trial_user_attr",
    "set_trial_system_attr",
    "set_trial_param",
    "_set_trial_param",
    "set_trial_intermediate_value",
    "record_heartbeat",
)
"""Writes that do the same when they are done twice."""


class LastingStorage(AttributeStorage):
    """An ``RDBStorage`` whose calls survive an outage of the database.

    Every method raises ``OutageError``, one line without a password, when the outage does not end in time.
    """

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        name = f"{DEFAULT_STUDY_NAME_PREFIX}{uuid.uuid4()}" if study_name is None else study_name
        return self.create_whole_study(directions, name, {}, {})

    def create_whole_study(
        self,
        directions: Sequence[StudyDirection],
        study_name: str,
        user_attrs: Mapping[str, Any],
        system_attrs: Mapping[str, Any],
    ) -> int:
        create = super().create_whole_study
        return lasting(
            self.engine,
            lambda: create(directions, study_name, user_attrs, system_attrs),
            lambda: self._new_study(directions, study_name, user_attrs, system_attrs),
        )

    def _new_study(
        self,
        directions: Sequence[StudyDirection],
        name: str,
        user_attrs: Mapping[str, Any],
        system_attrs: Mapping[str, Any],
    ) -> int | None:
        """The study of this name if it is as it was to be made, and nothing has been done with it yet."""
        try:
            study_id = self.get_study_id_from_name(name)
        except KeyError:
            return None
        is_new = (
            not self.get_n_trials(study_id)
            and self.get_study_user_attrs(study_id) == user_attrs
            and self.get_study_system_attrs(study_id) == system_attrs
            and self.get_study_directions(study_id) == list(directions)
        )
        return study_id if is_new else None

    def rename_studies(self, renamings: Sequence[Renaming]) -> None:
        rename = super().rename_studies
        lasting(self.engine, lambda: rename(renamings), lambda: self._are_named(renamings) or None)

    def _are_named(self, renamings: Sequence[Renaming]) -> bool:
        return all(self.get_study_name_from_id(each.study_id) == each.name for each in renamings)

    def delete_study(self, study_id: int) -> None:
        lasting(self.engine, lambda: self._delete(study_id), lambda: self._is_gone(study_id) or None)

    def _delete(self, study_id: int) -> None:
        """As ``RDBStorage.delete_study``, which gives up silently where a trial is written meanwhile."""
        trials = models.TrialModel.__table__.c
        ids = sa.select(trials.trial_id).where(trials.study_id == study_id)
        with _create_scoped_session(self.scoped_session) as session:
            models.StudyModel.find_or_raise_by_id(study_id, session, for_update=True)
            session.connection().execute(ids.order_by(trials.trial_id).with_for_update()).all()
            for table in reversed(models.BaseModel.metadata.sorted_tables):
                if "study_id" in table.c:
                    session.connection().execute(table.delete().where(table.c.study_id == study_id))
                elif "trial_id" in table.c:
                    session.connection().execute(table.delete().where(table.c.trial_id.in_(ids)))

    def _is_gone(self, study_id: int) -> bool:
        query = sa.select(models.StudyModel.study_id).where(models.StudyModel.study_id == study_id)
        return self._scalar(query) is None

    def create_new_trial(
        self,
        study_id: int,
        template_trial: FrozenTrial | None = None,
        owner: Mapping[str, Any] = MappingProxyType({}),
    ) -> int:
        """As ``RDBStorage`` has it, provided that the study has all the user attributes ``owner``.

        Raises:
            GoneError: it has not, or is not there.
        """
        return self._create_new_trial(study_id, template_trial, owner)._trial_id

    def _create_new_trial(
        self,
        study_id: int,
        template_trial: FrozenTrial | None = None,
        owner: Mapping[str, Any] = MappingProxyType({}),
    ) -> FrozenTrial:
        token = uuid.uuid4().hex
        template = copy.deepcopy(template_trial) or create_trial(state=TrialState.RUNNING)
        template.system_attrs = {**template.system_attrs, TOKEN: token}
        return lasting(
            self.engine,
            lambda: self._create_once(study_id, template, owner),
            lambda: self._trial_with(study_id, token),
        )

    def _create_once(self, study_id: int, template: FrozenTrial, owner: Mapping[str, Any]) -> FrozenTrial:
        """As ``RDBStorage._create_new_trial``, which repeats itself without a look at what was done."""
        with _create_scoped_session(self.scoped_session) as session:
            check_owner(hold(session, study_id), owner)
            row = self._get_prepared_new_trial(study_id, template, session)
            return self._created(row, template)

    @staticmethod
    def _created(row: Any, template: FrozenTrial) -> FrozenTrial:
        trial = copy.deepcopy(template)
        del trial.system_attrs[TOKEN]
        trial.number, trial._trial_id, trial.datetime_start = row.number, row.trial_id, row.datetime_start
        return trial

    def _trial_with(self, study_id: int, token: str) -> FrozenTrial | None:
        self._wait_for(models.StudyModel, study_id)
        trial_id = self._scalar(_bearer(token).where(models.TrialModel.study_id == study_id))
        return None if trial_id is None else self.get_trial(trial_id)

    def _has_token(self, trial_id: int, token: str) -> bool:
        self._wait_for(models.TrialModel, trial_id)
        return self._scalar(_bearer(token).where(models.TrialModel.trial_id == trial_id)) is not None

    def _wait_for(self, kind: Any, number: int) -> None:
        """Wait until no transaction holds a study or a trial: one whose connection was lost may still be on
        its way to its commit. Then it is over, and what it did can be seen."""
        with _create_scoped_session(self.scoped_session) as session:
            kind.find_or_raise_by_id(number, session, for_update=True)

    def _scalar(self, query: sa.Select[Any]) -> Any:
        with self.engine.begin() as connection:
            return connection.scalar(query)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        found = self._read(models.TrialModel.trial_id == trial_id)
        if not found:
            raise gone(self.engine.url)
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
        self._wait_for(models.TrialModel, trial_id)
        trial = self.get_trial(trial_id)
        return trial.state == state and (values is None or trial.values == list(values))

    def _start(self, trial_id: int) -> bool:
        token, refuse = uuid.uuid4().hex, super().set_trial_state_values

        def start() -> bool:
            return self._start_once(trial_id, token) or refuse(trial_id, TrialState.RUNNING)

        def started() -> bool | None:
            return self._has_token(trial_id, token) or None

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


def _bearer(token: str) -> sa.Select[Any]:
    """The trial that bears a token."""
    attribute = models.TrialSystemAttributeModel
    return (
        sa.select(attribute.trial_id)
        .join(models.TrialModel, models.TrialModel.trial_id == attribute.trial_id)
        .where(attribute.key == TOKEN, attribute.value_json == json.dumps(token))
    )


def _made_lasting(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: LastingStorage, *arguments: Any, **named: Any) -> Any:
        return lasting(self.engine, lambda: method(self, *arguments, **named))

    return call


for _name in READS + SETTERS:
    setattr(LastingStorage, _name, _made_lasting(getattr(AttributeStorage, _name)))
