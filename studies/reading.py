"""Studies and trials as they are stored, read without an object for each row: an eighth of the computing of
Optuna's own way, which counts where many workers read the running trials again at every step. Of trials in
large databases only the parts are read that are asked for.

Uses of Optuna's internals, held by a test: the columns of the tables of ``optuna.storages._rdb.models`` that
hold studies and trials, and the names by which ``TrialValueModel`` and ``TrialIntermediateValueModel`` write
of which kind a number is.
"""

from __future__ import annotations

import functools
import json
import math
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

import sqlalchemy as sa
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    json_to_distribution,
)
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState

from spaces.text import brief
from studies.attributes import FIXED, PIECES, UNREAD, joined, value_of
from studies.dashboard_attributes import sensible
from studies.retries import lasting
from studies.sqlite import READING

_AT_ONCE = 1000
"""Trials whose rows are asked for in one statement: fewer than any database takes by name."""
_BEYOND = {"INF_POS": math.inf, "INF_NEG": -math.inf, "NAN": math.nan}
"""By their names, kinds of numbers that databases have no number for."""
_studies = models.StudyModel.__table__.c
_study_user = models.StudyUserAttributeModel.__table__.c
_trials = models.TrialModel.__table__.c
_parameters = models.TrialParamModel.__table__.c
_values = models.TrialValueModel.__table__.c
_user = models.TrialUserAttributeModel.__table__.c
_system = models.TrialSystemAttributeModel.__table__.c
_reports = models.TrialIntermediateValueModel.__table__.c
T = TypeVar("T")


@dataclass(frozen=True)
class Parts:
    """What is read of trials beside state, number, times and values. What is not read is empty."""

    user: Collection[str] | None = None
    """Keys of user attributes; None: all."""
    without: Mapping[str, str] = field(default_factory=dict)
    """By the key of a user attribute that is a mapping: what is left out of it, since it is large."""
    system: Collection[str] | None = None
    """Keys of system attributes; None: all."""
    parameters: bool = True
    intermediate_values: bool = True


WHOLE = Parts()


def read_trials(
    connection: sa.Connection, *conditions: sa.ColumnElement[bool], parts: Parts = WHOLE
) -> list[FrozenTrial]:
    """The trials whose rows of ``TrialModel`` meet all conditions, in the order of their ids.

    A trial that had ended when its own row was read is whole; one that had not may be seen with what was
    written since.
    """
    return [trial for _, trial in _read(connection, conditions, parts)]


def _read(
    connection: sa.Connection, conditions: Iterable[sa.ColumnElement[bool]], parts: Parts
) -> Iterator[tuple[int, FrozenTrial]]:
    """Trials, each with the id of its study."""
    own = sa.select(
        _trials.trial_id, _trials.study_id, _trials.number, _as_stored(_trials.state).label("state"),
        _as_stored(_trials.datetime_start).label("datetime_start"),
        _as_stored(_trials.datetime_complete).label("datetime_complete"),
    )  # fmt: skip
    found = connection.execute(own.where(*conditions).order_by(_trials.trial_id)).all()
    rows = [row for row in found if isinstance(row.number, int)]  # SQLite takes anything
    for start in range(0, len(rows), _AT_ONCE):
        some = rows[start : start + _AT_ONCE]
        details = _Details(connection, some, parts)
        yield from ((row.study_id, details.trial(row)) for row in some)


def read_some(
    storage: RDBStorage, study_id: int, parts: Parts, numbers: Collection[int] | None = None
) -> list[FrozenTrial]:
    """Parts of a study's trials, of all or of those with the numbers given, in the order of their numbers."""
    conditions = [_trials.study_id == study_id]
    if numbers is not None:
        conditions.append(_trials.number.in_(numbers))
    found = _lasting(storage, lambda connection: read_trials(connection, *conditions, parts=parts))
    return sorted(found, key=lambda trial: trial.number)


def read_by_study(
    storage: RDBStorage, *wanted: tuple[Collection[TrialState], Parts]
) -> dict[int, list[FrozenTrial]]:
    """Parts of all trials in the database, by the id of their study and in the order of their own.

    Args:
        storage: the database.
        wanted: states, and the parts that are read of trials in them. A trial that goes from one state to
            another meanwhile is seen in the one that is read later, so that later states come last.
    """

    def read(connection: sa.Connection) -> dict[int, tuple[int, FrozenTrial]]:
        return {
            trial._trial_id: (study_id, trial)
            for states, parts in wanted
            for study_id, trial in _read(connection, [_trials.state.in_(states)], parts)
        }

    by_study: dict[int, list[FrozenTrial]] = defaultdict(list)
    for _, (study_id, trial) in sorted(_lasting(storage, read).items()):
        by_study[study_id].append(trial)
    return by_study


@dataclass(frozen=True)
class StoredStudy:
    """A study as the database has it, with some of its user attributes."""

    study_id: int
    name: str
    attributes: Mapping[str, Any]


def read_studies(storage: RDBStorage, keys: Collection[str]) -> list[StoredStudy]:
    """All studies, in the order in which they were made, with their user attributes of these keys."""
    names = sa.select(_studies.study_id, _studies.study_name).order_by(_studies.study_id)
    attributes = sa.select(_study_user.study_id, _study_user.key, _study_user.value_json)

    def read(connection: sa.Connection) -> tuple[Sequence[Any], dict[int, list[Any]]]:
        there = connection.execute(names).all()  # first, so that each is seen with what it was made with
        return there, _by_first(connection.execute(attributes.where(_called(_study_user.key, keys))))

    there, found = _lasting(storage, read)
    return [StoredStudy(study_id, name, _attributes(found[study_id])) for study_id, name in there]


@dataclass(frozen=True)
class StudyState:
    """What changes of a study when a trial ends or an attribute is set; equal as long as nothing does."""

    study_id: int
    name: str
    fixed: frozenset[str]
    """Which it has of those attributes that do not change."""
    attributes: frozenset[tuple[str, str]]
    """The other user attributes, as they are stored."""
    ended: frozenset[tuple[TrialState, int]]
    """How many trials have ended in which state."""


def read_states(storage: RDBStorage, fixed: Collection[str]) -> list[StudyState]:
    """All studies, in three statements, however many there are; ``fixed`` are the keys of user attributes
    that do not change, of which the values are not read."""
    is_fixed = _study_user.key.in_(fixed)
    keys = sa.select(_study_user.study_id, _study_user.key, sa.case((~is_fixed, _study_user.value_json)))
    ended = (
        sa.select(_trials.study_id, _trials.state, sa.func.count())
        .where(_trials.state.in_([state for state in TrialState if state.is_finished()]))
        .group_by(_trials.study_id, _trials.state)
    )

    def read(connection: sa.Connection) -> list[StudyState]:
        names = connection.execute(sa.select(_studies.study_id, _studies.study_name)).all()
        attributes, counts = _by_first(connection.execute(keys)), _by_first(connection.execute(ended))
        return [
            StudyState(
                study_id,
                name,
                frozenset(key for key, text in attributes[study_id] if text is None),
                frozenset((key, text) for key, text in attributes[study_id] if text is not None),
                frozenset(counts[study_id]),
            )
            for study_id, name in names
        ]

    return _lasting(storage, read)


def _by_first(rows: Iterable[Any]) -> dict[int, list[Any]]:
    """Rows by their first column, each as a tuple of the others."""
    found: dict[int, list[Any]] = defaultdict(list)
    for row in rows:
        found[row[0]].append(row[1:])
    return found


def read_names(storage: RDBStorage) -> list[str]:
    """The names of all studies, in the order in which they were made."""
    names = sa.select(_studies.study_name).order_by(_studies.study_id)
    return _lasting(storage, lambda connection: list(connection.scalars(names)))


def read_attributes(
    storage: RDBStorage, study_id: int, keys: Collection[str], trial_ids: Collection[int], newer_than: int
) -> list[dict[str, Any]]:
    """Some user attributes of some trials of a study: of those named, and of those with a higher id."""
    some = sa.or_(_trials.trial_id.in_(trial_ids), _trials.trial_id > newer_than)
    query = (
        sa.select(_user.trial_id, _user.key, _user.value_json)
        .join(models.TrialModel.__table__, _trials.trial_id == _user.trial_id)
        .where(_trials.study_id == study_id, some)
        .where(_called(_user.key, keys))
    )
    found: dict[int, dict[str, Any]] = defaultdict(dict)
    for trial_id, key, text in _lasting(storage, lambda connection: list(connection.execute(query))):
        found[trial_id][key] = value_of(text)
    return [joined(attributes) for attributes in found.values()]


def _lasting(storage: RDBStorage, read: Callable[[sa.Connection], T]) -> T:
    """What is read by a connection, in one transaction, after an outage too."""

    def attempt() -> T:
        with storage.engine.connect().execution_options(**{READING: True}) as connection:
            return read(connection)

    return lasting(storage.engine, attempt)


def _called(column: Any, keys: Collection[str]) -> sa.ColumnElement[bool]:
    """Whether a row is an attribute of one of these keys, or a piece of one."""
    return sa.or_(column.in_(keys), column.startswith(PIECES))


def _as_stored(column: Any) -> Any:
    """A column of names or times as the driver gives it: in SQLite's may stand anything."""
    return sa.type_coerce(column, sa.String)


class _Details:
    """What the other tables hold of some trials, by trial."""

    def __init__(self, connection: sa.Connection, trials: Sequence[Any], parts: Parts) -> None:
        self._ids = [row.trial_id for row in trials]
        self._connection = connection
        self._without = parts.without
        nothing: dict[int, list[Any]] = defaultdict(list)
        self.values = self._by_trial(
            _values.trial_id, _values.value, _as_stored(_values.value_type), order=_values.objective
        )
        self.user = self._attributes(_user, parts.user)
        self.system = self._attributes(_system, parts.system)
        self.parameters = self.reports = nothing
        if parts.parameters:
            self.parameters = self._by_trial(
                _parameters.trial_id, _parameters.param_name, _parameters.param_value,
                _parameters.distribution_json, order=_parameters.param_id,
            )  # fmt: skip
        if parts.intermediate_values:
            self.reports = self._by_trial(
                _reports.trial_id, _reports.step, _reports.intermediate_value,
                _as_stored(_reports.intermediate_value_type),
            )  # fmt: skip

    def _attributes(self, table: Any, keys: Collection[str] | None) -> dict[int, list[Any]]:
        if keys is not None and not keys:
            return defaultdict(list)
        some = sa.true() if keys is None else _called(table.key, keys)
        return self._by_trial(table.trial_id, table.key, table.value_json, where=some)

    def _by_trial(
        self, trial: Any, *columns: Any, order: Any = None, where: sa.ColumnElement[bool] | None = None
    ) -> dict[int, list[Any]]:
        query = sa.select(trial, *columns).where(trial.in_(self._ids)).order_by(order)
        if where is not None:
            query = query.where(where)
        return _by_first(self._connection.execute(query).all())  # at once: half the time of one by one

    def trial(self, row: Any) -> FrozenTrial:
        """The trial with this row of its own."""
        values = list(_numbers(enumerate(self.values[row.trial_id])).values()) or None
        state = TrialState.__members__.get(row.state, TrialState.FAIL)
        parameters: dict[str, tuple[BaseDistribution, Any]] = {}
        system = sensible(_attributes(self.system[row.trial_id]))
        if FIXED in system and not isinstance(system[FIXED], dict):
            known = system.pop(FIXED)
            system[UNREAD] = {FIXED: f"its parameters must be a mapping, but are {brief(known)}"}
        for name, value, text in self.parameters[row.trial_id]:
            if not isinstance(name, str):
                continue
            try:
                kind = _kind(text)
                parameters[sys.intern(name)] = kind.distribution, kind.value(value)
            except ValueError as error:
                system.setdefault(UNREAD, {})[name] = str(error)
        return FrozenTrial(
            number=row.number,
            state=TrialState.FAIL if state == TrialState.COMPLETE and values is None else state,
            value=None,
            values=values,
            datetime_start=_local(row.datetime_start),
            datetime_complete=_local(row.datetime_complete),
            params={name: value for name, (_, value) in parameters.items()},
            distributions={name: kind for name, (kind, _) in parameters.items()},
            user_attrs=self._shortened(_attributes(self.user[row.trial_id])),
            system_attrs=system,
            intermediate_values=_numbers((step, stored) for step, *stored in self.reports[row.trial_id]),
            trial_id=row.trial_id,
        )

    def _shortened(self, attributes: dict[str, Any]) -> dict[str, Any]:
        for key, left_out in self._without.items():
            if isinstance(attributes.get(key), dict):
                attributes[key].pop(left_out, None)
        return attributes


def _attributes(rows: Iterable[Sequence[str]]) -> dict[str, Any]:
    named = ((key, text) for key, text in rows if isinstance(key, str))  # another program may leave it out
    return joined({sys.intern(key): _interned(value_of(text)) for key, text in named})


def _interned(value: Any) -> Any:
    """The value; the keys of a mapping, which are the same for all trials, are kept once."""
    return {sys.intern(key): each for key, each in value.items()} if isinstance(value, dict) else value


def _numbers(rows: Iterable[tuple[Any, Sequence[Any]]]) -> dict[int, float]:
    """Numbers with what says of which kind they are, without those that Optuna cannot have stored."""
    found = {}
    for step, (stored, kind) in rows:
        number = _BEYOND.get(kind, stored if kind == "FINITE" and _is_finite(stored) else None)
        if isinstance(step, int) and number is not None:
            found[step] = number
    return found


@dataclass(frozen=True)
class _Kind:
    """What a parameter can be, as it is stored."""

    distribution: BaseDistribution
    choices: Mapping[Any, Any] | None
    """By the number that is stored for it; None: it is stored as it is."""
    positive: bool
    """Whether it has a logarithm."""
    whole: bool

    def value(self, stored: Any) -> Any:
        """The value that is stored as this number. One beyond the range is told by who knows the space:
        Optuna itself takes it from a queue.

        Raises:
            ValueError: it is none of this kind.
        """
        if self.choices is not None:
            if stored in self.choices:
                return self.choices[stored]
        elif _is_finite(stored) and (stored > 0 or not self.positive):
            return int(stored) if self.whole else stored
        raise ValueError(f"{self.distribution} has no value {brief(stored)}")


@functools.lru_cache(maxsize=1024)
def _kind(text: str) -> _Kind:
    """The distribution; all trials of a study share a few.

    Raises:
        ValueError: it is none that a trial of ours can have a parameter from.
    """
    try:
        bounds = json.loads(text)["attributes"]
        if all(map(_is_plain, bounds.get("choices", ()))):
            return _kind_of(json_to_distribution(text))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        pass
    raise ValueError(f"its distribution is none: {brief(text)}")


def _kind_of(distribution: BaseDistribution) -> _Kind:
    if isinstance(distribution, CategoricalDistribution):
        return _Kind(distribution, dict(enumerate(distribution.choices)), positive=False, whole=False)
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    whole = isinstance(distribution, IntDistribution)
    return _Kind(distribution, None, positive=distribution.log, whole=whole)


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, (str, int, float))


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _local(stored: object) -> datetime | None:
    """The time as this machine's clocks show it, which is what Optuna gives; None for what is no time."""
    try:
        utc = datetime.fromisoformat(stored) if isinstance(stored, str) else stored
        return (
            utc.replace(tzinfo=UTC).astimezone().replace(tzinfo=None) if isinstance(utc, datetime) else None
        )
    except (ValueError, OverflowError):
        return None
