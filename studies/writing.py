"""What is known of a trial at one moment, written in one transaction: each would be a commit of its own.

Uses of Optuna's internals, held by a test: ``RDBStorage._set_trial_attr_without_commit`` and
``_set_trial_value_without_commit``, ``RDBStorage.scoped_session``, ``storage._create_scoped_session``, and of
``optuna.storages._rdb.models`` ``TrialModel``, ``TrialParamModel``, ``TrialIntermediateValueModel`` and
``TrialUserAttributeModel``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, cast

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import (
    TrialIntermediateValueModel,
    TrialModel,
    TrialParamModel,
    TrialSystemAttributeModel,
    TrialUserAttributeModel,
)
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import TrialState
from sqlalchemy.dialects import mysql, postgresql, sqlite

from studies.reports import are_attempts
from studies.retries import lasting

Parameter = tuple[str, float, BaseDistribution]
"""Name, value as Optuna stores it, distribution."""


def write_trial(
    storage: RDBStorage,
    trial_id: int,
    attributes: Mapping[str, Any],
    parameters: Sequence[Parameter] = (),
    uid: str | None = None,
    system: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Write user and system attributes and parameters of a trial that has not ended; all or none are stored.

    A parameter that is there stays.

    Args:
        storage: of the trial.
        trial_id: the trial's.
        attributes: user attributes.
        parameters: as they were drawn.
        uid: the attempt's; None: whichever trial has the id.
        system: system attributes.

    Raises:
        UpdateFinishedTrialError: the trial has ended, or is another attempt than that of the uid.
        GoneError: there is no trial of this id.
    """
    lasting(storage.engine, lambda: _write(storage, trial_id, attributes, parameters, uid, system))


def _write(
    storage: RDBStorage,
    trial_id: int,
    attributes: Mapping[str, Any],
    parameters: Sequence[Parameter],
    uid: str | None,
    system: Mapping[str, Any],
) -> None:
    with _create_scoped_session(storage.scoped_session) as session:
        trial = TrialModel.find_or_raise_by_id(trial_id, session, for_update=True)
        storage.check_trial_is_updatable(trial_id, cast(TrialState, trial.state))
        if not _is_attempt(session, trial_id, uid):
            raise UpdateFinishedTrialError(f"trial {trial_id} is another one by now")
        for kind, those in ((TrialUserAttributeModel, attributes), (TrialSystemAttributeModel, system)):
            for key, value in those.items():
                storage._set_trial_attr_without_commit(session, kind, trial_id, key, value)
        if parameters:
            rows = [_row(trial_id, *parameter) for parameter in parameters]
            session.connection().execute(_unless_there(storage.engine.dialect.name, rows))


def end_trial(
    storage: RDBStorage,
    trial_id: int,
    state: TrialState,
    value: float | None,
    attributes: Mapping[str, Any],
    uid: str | None = None,
    *,
    before: TrialState = TrialState.RUNNING,
) -> bool:
    """End a trial with its user attributes; all is stored, or nothing.

    Of several processes that end the same trial one does. As with ``Study.tell``, a pruned trial has the
    value of its last report, unless that is NaN.

    Returns:
        Whether it was in the state ``before``, and is the attempt with this uid where one is given. If the
        answer of the database was lost, false, though it was ended so.

    Raises:
        GoneError: there is no trial of this id.
    """
    return lasting(storage.engine, lambda: _end(storage, trial_id, state, value, attributes, uid, before))


def _end(
    storage: RDBStorage,
    trial_id: int,
    state: TrialState,
    value: float | None,
    attributes: Mapping[str, Any],
    uid: str | None,
    before: TrialState,
) -> bool:
    with _create_scoped_session(storage.scoped_session) as session:
        trial = TrialModel.find_or_raise_by_id(trial_id, session, for_update=True)
        if trial.state != before or not _is_attempt(session, trial_id, uid):
            return False
        for key, content in attributes.items():
            storage._set_trial_attr_without_commit(session, TrialUserAttributeModel, trial_id, key, content)
        ends_with = _last_value(session, trial_id) if state == TrialState.PRUNED else value
        if ends_with is not None:
            storage._set_trial_value_without_commit(session, trial, 0, ends_with)
        trial.state, trial.datetime_complete = state, datetime.now()
    return True


def _is_attempt(session: Any, trial_id: int, uid: str | None) -> bool:
    """Whether the trial is the attempt with this uid, and not a later one that was given its id."""
    query = sa.select(TrialModel.trial_id).where(
        TrialModel.trial_id == trial_id, are_attempts({trial_id: uid})
    )
    return session.connection().execute(query).first() is not None


def _last_value(session: Any, trial_id: int) -> float | None:
    """What the trial reported last; None for nothing, and for NaN."""
    reports = TrialIntermediateValueModel
    query = (
        sa.select(reports.intermediate_value, reports.intermediate_value_type)
        .where(reports.trial_id == trial_id)
        .order_by(reports.step.desc())
        .limit(1)
    )
    last = session.connection().execute(query).first()
    value = None if last is None else reports.stored_repr_to_intermediate_value(*last)
    return None if value is None or math.isnan(value) else float(value)


def _row(trial_id: int, name: str, value: float, distribution: BaseDistribution) -> dict[str, Any]:
    return {
        "trial_id": trial_id,
        "param_name": name,
        "param_value": value,
        "distribution_json": distribution_to_json(distribution),
    }


def _unless_there(dialect: str, rows: list[dict[str, Any]]) -> sa.Insert:
    """Insert parameters, in one statement, unless their trial has them."""
    if dialect == "mysql":
        new = mysql.insert(TrialParamModel).values(rows)
        return new.on_duplicate_key_update(param_name=TrialParamModel.param_name)
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    return insert(TrialParamModel).values(rows).on_conflict_do_nothing()
