"""Trials as they are stored, read without an object for each row: an eighth of the computing of Optuna's own
way, which counts where many workers read the running trials again at every step.

Uses of Optuna's internals, held by a test: the columns of the tables of ``optuna.storages._rdb.models`` that
hold trials, and how ``TrialValueModel`` and ``TrialIntermediateValueModel`` write numbers.
"""

from __future__ import annotations

import functools
import json
import sys
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial

from studies.retries import lasting

_FEW = 1000
"""Trials up to which their rows are asked for by name: fewer than any database takes in one statement."""
_trials = models.TrialModel.__table__.c
_parameters = models.TrialParamModel.__table__.c
_values = models.TrialValueModel.__table__.c
_user = models.TrialUserAttributeModel.__table__.c
_system = models.TrialSystemAttributeModel.__table__.c
_reports = models.TrialIntermediateValueModel.__table__.c


def read_trials(connection: sa.Connection, *conditions: sa.ColumnElement[bool]) -> list[FrozenTrial]:
    """The trials whose rows of ``TrialModel`` meet all conditions, in the order of their ids.

    A trial that had ended when its own row was read is whole; one that had not may be seen with what was
    written since.
    """
    own = sa.select(
        _trials.trial_id, _trials.study_id, _trials.number, _trials.state,
        _trials.datetime_start, _trials.datetime_complete,
    )  # fmt: skip
    rows = connection.execute(own.where(*conditions).order_by(_trials.trial_id)).all()
    if not rows:
        return []
    details = _Details(connection, rows)
    return [details.trial(row) for row in rows]


def read_attributes(
    storage: RDBStorage, study_id: int, keys: Collection[str], trial_ids: Collection[int], newer_than: int
) -> list[dict[str, Any]]:
    """Some user attributes of some trials of a study: of those named, and of those with a higher id."""
    some = sa.or_(_trials.trial_id.in_(trial_ids), _trials.trial_id > newer_than)
    query = (
        sa.select(_user.trial_id, _user.key, _user.value_json)
        .join(models.TrialModel.__table__, _trials.trial_id == _user.trial_id)
        .where(_trials.study_id == study_id, some, _user.key.in_(keys))
    )

    def read() -> list[Any]:
        with storage.engine.connect() as connection:
            return list(connection.execute(query))

    found: dict[int, dict[str, Any]] = defaultdict(dict)
    for trial_id, key, text in lasting(storage.engine, read):
        found[trial_id][key] = json.loads(text)
    return list(found.values())


class _Details:
    """What the other tables hold of some trials, by trial."""

    def __init__(self, connection: sa.Connection, trials: Sequence[Any]) -> None:
        self._ids: Any = [row.trial_id for row in trials]
        if len(self._ids) > _FEW:
            studies = {row.study_id for row in trials}
            self._ids = sa.select(_trials.trial_id).where(
                _trials.study_id.in_(studies), _trials.trial_id >= trials[0].trial_id
            )
        self._connection = connection
        self.parameters = self._by_trial(
            _parameters.trial_id, _parameters.param_name, _parameters.param_value,
            _parameters.distribution_json, order=_parameters.param_id,
        )  # fmt: skip
        self.values = self._by_trial(
            _values.trial_id, _values.value, _values.value_type, order=_values.objective
        )
        self.user = self._by_trial(_user.trial_id, _user.key, _user.value_json)
        self.system = self._by_trial(_system.trial_id, _system.key, _system.value_json)
        self.reports = self._by_trial(
            _reports.trial_id, _reports.step, _reports.intermediate_value, _reports.intermediate_value_type
        )

    def _by_trial(self, trial: Any, *columns: Any, order: Any = None) -> dict[int, list[Any]]:
        query = sa.select(trial, *columns).where(trial.in_(self._ids)).order_by(order)
        rows: dict[int, list[Any]] = defaultdict(list)
        for trial_id, *row in self._connection.execute(query).all():  # at once: half the time of one by one
            rows[trial_id].append(row)
        return rows

    def trial(self, row: Any) -> FrozenTrial:
        """The trial with this row of its own."""
        number_of = models.TrialValueModel.stored_repr_to_value
        report_of = models.TrialIntermediateValueModel.stored_repr_to_intermediate_value
        parameters = [
            (sys.intern(name), value, _distribution(text))
            for name, value, text in self.parameters[row.trial_id]
        ]
        return FrozenTrial(
            number=row.number,
            state=row.state,
            value=None,
            values=[number_of(*stored) for stored in self.values[row.trial_id]] or None,
            datetime_start=_local(row.datetime_start),
            datetime_complete=_local(row.datetime_complete),
            params={name: kind.to_external_repr(value) for name, value, kind in parameters},
            distributions={name: kind for name, _, kind in parameters},
            user_attrs=_attributes(self.user[row.trial_id]),
            system_attrs=_attributes(self.system[row.trial_id]),
            intermediate_values={step: report_of(*stored) for step, *stored in self.reports[row.trial_id]},
            trial_id=row.trial_id,
        )


def _attributes(rows: Iterable[Sequence[str]]) -> dict[str, Any]:
    return {sys.intern(key): json.loads(text) for key, text in rows}


@functools.lru_cache(maxsize=1024)
def _distribution(text: str) -> BaseDistribution:
    """The distribution; all trials of a study share a few."""
    return json_to_distribution(text)


def _local(utc: datetime | None) -> datetime | None:
    """The time as this machine's clocks show it, which is what Optuna gives."""
    return None if utc is None else utc.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)
