"""What is known of a trial at one moment, written in one transaction: each would be a commit of its own.

Uses of Optuna's internals, held by a test: ``RDBStorage._set_trial_attr_without_commit``,
``RDBStorage.scoped_session``, ``storage._create_scoped_session`` and the tables ``TrialParamModel`` and
``TrialUserAttributeModel``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import TrialParamModel, TrialUserAttributeModel
from optuna.storages._rdb.storage import _create_scoped_session
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
    """Write user attributes (one at least) and parameters of a running trial; all or none are stored.

    A parameter that is there stays.

    Raises:
        UpdateFinishedTrialError: the trial has ended.
    """
    lasting(storage.engine, lambda: _write(storage, trial_id, attributes, parameters))


def _write(
    storage: RDBStorage, trial_id: int, attributes: Mapping[str, Any], parameters: Sequence[Parameter]
) -> None:
    with _create_scoped_session(storage.scoped_session) as session:
        for key, value in attributes.items():  # first, since that refuses a trial that has ended
            storage._set_trial_attr_without_commit(session, TrialUserAttributeModel, trial_id, key, value)
        if parameters:
            rows = [_row(trial_id, *parameter) for parameter in parameters]
            session.connection().execute(_unless_there(storage.engine.dialect.name), rows)


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
