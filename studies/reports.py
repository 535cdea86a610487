"""Intermediate values and signs of life of several trials, each written in one transaction.

Uses of Optuna's internals, held by a test: ``RDBStorage.engine`` and the tables ``TrialModel``,
``TrialIntermediateValueModel`` (with ``intermediate_value_to_stored_repr``), ``TrialUserAttributeModel`` and
``TrialHeartbeatModel``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

import sqlalchemy as sa
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import (
    TrialHeartbeatModel,
    TrialIntermediateValueModel,
    TrialModel,
    TrialUserAttributeModel,
)
from optuna.trial import TrialState
from sqlalchemy.dialects import mysql, postgresql, sqlite

from studies.record import CLAIM
from studies.retries import lasting

Report = tuple[int, int, float]
"""Id of a trial, step, value."""
Uids: TypeAlias = Mapping[int, str | None]
"""By the id of a trial the uid of its attempt, since SQLite gives the id of a deleted trial to another one;
None: whichever trial has the id."""
NO_UIDS: Uids = MappingProxyType({})


def report_many(storage: RDBStorage, reports: Iterable[Report], uids: Uids = NO_UIDS) -> set[int]:
    """Write intermediate values of any number of trials; all or none of them are stored.

    As with ``Trial.report``, a step that has a value keeps it, and NaN and infinite values are kept as such.

    Returns:
        The ids of the trials that are not running (any more), or are not the attempts with these uids, whose
        values were left out.
    """
    wanted = list(reports)
    ids = sorted({trial_id for trial_id, _, _ in wanted})
    attempts = {trial_id: uids.get(trial_id) for trial_id in ids}
    return lasting(storage.engine, lambda: _report(storage.engine, attempts, wanted)) if wanted else set()


def are_attempts(uids: Uids) -> sa.ColumnElement[bool]:
    """The condition that a row of ``TrialModel`` is one of these attempts."""
    attribute = TrialUserAttributeModel
    claimed = sa.exists().where(
        attribute.trial_id == TrialModel.trial_id,
        attribute.key == CLAIM,
        attribute.value_json.in_([json.dumps(uid) for uid in uids.values() if uid is not None]),
    )
    untied = [trial_id for trial_id, uid in uids.items() if uid is None]
    return sa.or_(TrialModel.trial_id.in_(untied), claimed)


def _report(engine: sa.Engine, uids: Uids, reports: list[Report]) -> set[int]:
    # Locked, so that no trial ends between the look at it and the commit.
    query = (
        sa.select(TrialModel.trial_id)
        .where(TrialModel.trial_id.in_(uids), TrialModel.state == TrialState.RUNNING, are_attempts(uids))
        .order_by(TrialModel.trial_id)
        .with_for_update(read=True)
    )
    with engine.begin() as connection:
        running = set(connection.scalars(query))
        rows = [_row(*report) for report in sorted(reports, key=_place) if report[0] in running]
        if rows:
            connection.execute(_unless_there(engine.dialect.name), rows)
    return set(uids) - running


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


def record_heartbeats(storage: RDBStorage, uids: Uids) -> None:
    """Give a sign of life for each of the attempts, by the database's clock; what is gone is passed over."""
    lasting(storage.engine, lambda: record_heartbeats_once(storage, uids))


def record_heartbeats_once(storage: RDBStorage, uids: Uids) -> None:
    """As ``record_heartbeats``, and not again after an error of the database."""
    with storage.engine.begin() as connection:
        connection.execute(_sign_of_life(storage.engine.dialect.name, uids))


def _sign_of_life(dialect: str, uids: Uids) -> sa.Insert:
    living = TrialModel.trial_id.in_(uids), are_attempts(uids)
    now = sa.select(TrialModel.trial_id, sa.func.now()).where(*living)
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
