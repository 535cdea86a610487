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
from typing import Any, cast

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import (
    TrialIntermediateValueModel,
    TrialModel,
    TrialParamModel,
    TrialUserAttributeModel,
)
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import TrialState
from sqlalchemy.dialects import mysql, postgresql, sqlite

from studies.retries import lasting

Parameter = tuple[str, float, BaseDistribution]
"""Name, value as Optuna stores it, distribution."""


def write_trial(
    storage: RDBStorage,
    trial_id: int,
    attributes: Mapping[str, Any],
    parameters: Sequence[Parameter] = (),
) -> None:
    """Write user attributes and parameters of a trial that has not ended; all or none are stored.

    A parameter that is there stays.

    Raises:
        UpdateFinishedTrialError: the trial has ended.
    """
    lasting(storage.engine, lambda: _write(storage, trial_id, attributes, parameters))


def _write(
    storage: RDBStorage, trial_id: int, attributes: Mapping[str, Any], parameters: Sequence[Parameter]
) -> None:
    with _create_scoped_session(storage.scoped_session) as session:
        trial = TrialModel.find_or_raise_by_id(trial_id, session, for_update=True)
        storage.check_trial_is_updatable(trial_id, cast(TrialState, trial.state))
        for key, value in attributes.items():
            storage._set_trial_attr_without_commit(session, TrialUserAttributeModel, trial_id, key, value)
        if parameters:
            rows = [_row(trial_id, *parameter) for parameter in parameters]
            session.connection().execute(_unless_there(storage.engine.dialect.name), rows)


def end_trial(
    storage: RDBStorage, trial_id: int, state: TrialState, value: float | None, attributes: Mapping[str, Any]
) -> bool:
    """End a running trial with its user attributes; all is stored, or nothing.

    Of several processes that end the same trial one does. As with ``Study.tell``, a pruned trial has the
    value of its last report, unless that is NaN.

    Returns:
        Whether it was running. If the answer of the database was lost, false, though it was ended so.
    """
    return lasting(storage.engine, lambda: _end(storage, trial_id, state, value, attributes))


def _end(
    storage: RDBStorage, trial_id: int, state: TrialState, value: float | None, attributes: Mapping[str, Any]
) -> bool:
    with _create_scoped_session(storage.scoped_session) as session:
        trial = TrialModel.find_or_raise_by_id(trial_id, session, for_update=True)
        if trial.state != TrialState.RUNNING:
            return False
        for key, content in attributes.items():
            storage._set_trial_attr_without_commit(session, TrialUserAttributeModel, trial_id, key, content)
        ends_with = _last_value(session, trial_id) if state == TrialState.PRUNED else value
        if ends_with is not None:
            storage._set_trial_value_without_commit(session, trial, 0, ends_with)
        trial.state, trial.datetime_complete = state, datetime.now()
    return True


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


def _unless_there(dialect: str) -> sa.Insert:
    """Insert a parameter unless its trial has it."""
    if dialect == "mysql":
        return mysql.insert(TrialParamModel).on_duplicate_key_update(param_name=TrialParamModel.param_name)
    if dialect == "postgresql":
        return postgresql.insert(TrialParamModel).on_conflict_do_nothing()
    return sqlite.insert(TrialParamModel).on_conflict_do_nothing()
