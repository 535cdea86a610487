"""Intermediate values and signs of life of several trials, each written in one transaction.

Uses of Optuna's internals, held by a test: ``RDBStorage.engine`` and the tables ``TrialModel``,
``TrialIntermediateValueModel`` (with ``intermediate_value_to_stored_repr``) and ``TrialHeartbeatModel``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import sqlalchemy as sa
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import TrialHeartbeatModel, TrialIntermediateValueModel, TrialModel
from optuna.trial import TrialState
from sqlalchemy.dialects import mysql, postgresql, sqlite

from studies.retries import lasting

Report = tuple[int, int, float]
"""Id of a trial, step, value."""


def report_many(storage: RDBStorage, reports: Iterable[Report]) -> set[int]:
    """Write intermediate values of any number of trials; all or none of them are stored.

    As with ``Trial.report``, a step that has a value keeps it, and NaN and infinite values are kept as such.

    Returns:
        The ids of the trials that are not running (any more), whose values were left out.
    """
    wanted = list(reports)
    ids = sorted({trial_id for trial_id, _, _ in wanted})
    return lasting(storage.engine, lambda: _report(storage.engine, ids, wanted)) if wanted else set()


def _report(engine: sa.Engine, ids: list[int], reports: list[Report]) -> set[int]:
    # Locked, so that no trial ends between the look at it and the commit.
    query = (
        sa.select(TrialModel.trial_id)
        .where(TrialModel.trial_id.in_(ids), TrialModel.state == TrialState.RUNNING)
        .order_by(TrialModel.trial_id)
        .with_for_update(read=True)
    )
    with engine.begin() as connection:
        running = set(connection.scalars(query))
        rows = [_row(*report) for report in sorted(reports, key=_place) if report[0] in running]
        if rows:
            connection.execute(_unless_there(engine.dialect.name), rows)
    return set(ids) - running


def _place(report: Report) -> tuple[int, int]:
    """The order in which all processes write, so that none waits for one that waits for it."""
    return report[:2]


def _row(trial_id: int, step: int, value: float) -> dict[str, Any]:
    stored, kind = TrialIntermediateValueModel.intermediate_value_to_stored_repr(float(value))
    return {
        "trial_id": trial_id,
        "step": step,
        "intermediate_value": stored,
        "intermediate_value_type": kind,
    }


def _unless_there(dialect: str) -> sa.Insert:
    """Insert a value unless its trial's step has one."""
    if dialect == "mysql":
        insert = mysql.insert(TrialIntermediateValueModel)
        return insert.on_duplicate_key_update(step=TrialIntermediateValueModel.step)
    if dialect == "postgresql":
        return postgresql.insert(TrialIntermediateValueModel).on_conflict_do_nothing()
    return sqlite.insert(TrialIntermediateValueModel).on_conflict_do_nothing()


def record_heartbeats(storage: RDBStorage, trial_ids: Collection[int]) -> None:
    """Give a sign of life for each of the trials, by the database's clock; one that is gone is passed over.

    Not repeated after an error of the database: the next sign of life comes soon enough.
    """
    with storage.engine.begin() as connection:
        connection.execute(_sign_of_life(storage.engine.dialect.name, sorted(trial_ids)))


def _sign_of_life(dialect: str, trial_ids: list[int]) -> sa.Insert:
    now = sa.select(TrialModel.trial_id, sa.func.now()).where(TrialModel.trial_id.in_(trial_ids))
    columns, values = ["trial_id", "heartbeat"], now.order_by(TrialModel.trial_id)
    if dialect == "mysql":
        into = mysql.insert(TrialHeartbeatModel).from_select(columns, values)
        return into.on_duplicate_key_update(heartbeat=sa.func.now())
    renewed: dict[str, Any] = {"index_elements": ["trial_id"], "set_": {"heartbeat": sa.func.now()}}
    if dialect == "postgresql":
        return (
            postgresql.insert(TrialHeartbeatModel)
            .from_select(columns, values)
            .on_conflict_do_update(**renewed)
        )
    return sqlite.insert(TrialHeartbeatModel).from_select(columns, values).on_conflict_do_update(**renewed)
