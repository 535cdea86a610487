"""Signs of life of running trials, by the database's own clock.

Uses of Optuna's internals, held by a test: ``RDBStorage.engine`` and the tables ``TrialModel`` and
``TrialHeartbeatModel``. Optuna's own heartbeat thread is not used, because it ends at the first error of the
database.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import TrialHeartbeatModel, TrialModel
from optuna.trial import TrialState

from studies.connections import patience
from studies.reports import NO_UIDS, Uids, record_heartbeats, record_heartbeats_once
from studies.retries import lasting

INTERVAL = 10.0
"""Seconds between two signs of life."""
GRACE = 120.0
"""Seconds of silence after which a running trial counts as lost. An outage of the database silences all; when
it ends after ``OUTAGE`` seconds, the living have time to be heard before someone misses them."""
PATIENCE = 60.0
"""Seconds to wait for the answer to a sign of life, so that another one is in time for ``GRACE``."""
_PAUSE = 1.0
"""Seconds until the next attempt after an error."""


def silent_trials(storage: RDBStorage, study_id: int, grace: float = GRACE) -> list[int]:
    """Ids of the study's running trials that gave no sign of life for ``grace`` seconds.

    A running trial that never gave one is given its first, so that it is silent a grace period later; so is
    one whose last one lies in the future, since the database's clock was set back.
    """
    query = (
        sa.select(TrialModel.trial_id, TrialHeartbeatModel.heartbeat, sa.func.now())
        .outerjoin(TrialHeartbeatModel, TrialHeartbeatModel.trial_id == TrialModel.trial_id)
        .where(TrialModel.study_id == study_id, TrialModel.state == TrialState.RUNNING)
    )
    rows = lasting(storage.engine, lambda: _rows(storage.engine, query))
    silences = {trial_id: _silence(heartbeat, now) for trial_id, heartbeat, now in rows}
    unknown: Uids = {trial_id: None for trial_id, silence in silences.items() if silence is None}
    if unknown:
        record_heartbeats(storage, unknown)
    limit = timedelta(seconds=grace)
    return [trial_id for trial_id, silence in silences.items() if silence is not None and silence > limit]


def _silence(heartbeat: datetime | None, now: datetime) -> timedelta | None:
    """Since the last sign of life; None if there was none, or if it is yet to come by more than a second, as
    one of a transaction beside this one may be."""
    if heartbeat is None:
        return None
    silence = now.replace(tzinfo=None) - heartbeat.replace(tzinfo=None)
    return None if silence < -timedelta(seconds=1) else max(silence, timedelta(0))


def _rows(engine: sa.Engine, query: sa.Select[Any]) -> Sequence[Any]:
    with engine.connect() as connection:
        return connection.execute(query).all()


class Heartbeat:
    """A thread that gives signs of life for a set of trials, and survives errors of the database."""

    def __init__(self, storage: RDBStorage, interval: float = INTERVAL) -> None:
        self._storage = storage
        self._interval = interval
        self._uids: Uids = NO_UIDS
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="heartbeat")
        self._thread.start()

    def watch(self, uids: Uids) -> None:
        """From now on give signs of life for these attempts, and no others."""
        self._uids = dict(uids)

    def close(self) -> None:
        """End the thread."""
        self._ended.set()
        self._thread.join()

    def _beat(self) -> None:
        pause = self._interval
        while not self._ended.wait(pause):
            pause = self._interval
            try:
                if uids := self._uids:
                    with patience(PATIENCE):
                        record_heartbeats_once(self._storage, uids)
            except Exception:  # a lasting outage shows where results are stored
                pause = min(self._interval, _PAUSE)
