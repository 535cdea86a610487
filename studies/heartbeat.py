"""Signs of life of running trials, by the database's own clock.

Uses of Optuna's internals, held by a test: ``RDBStorage.record_heartbeat``, ``RDBStorage.engine`` and the
tables ``TrialModel`` and ``TrialHeartbeatModel``. Optuna's own heartbeat thread is not used, because it ends
at the first error of the database.
"""

from __future__ import annotations

import threading
from datetime import timedelta

import sqlalchemy as sa
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import TrialHeartbeatModel, TrialModel
from optuna.trial import TrialState

INTERVAL = 10.0
"""Seconds between two signs of life."""
GRACE = 60.0
"""Seconds of silence after which a running trial counts as lost."""


def silent_trials(storage: RDBStorage, study_id: int, grace: float = GRACE) -> list[int]:
    """Ids of the study's running trials that gave no sign of life for ``grace`` seconds.

    A running trial that never gave one is given its first, so that it is silent a grace period later.
    """
    query = (
        sa.select(TrialModel.trial_id, TrialHeartbeatModel.heartbeat, sa.func.now())
        .outerjoin(TrialHeartbeatModel, TrialHeartbeatModel.trial_id == TrialModel.trial_id)
        .where(TrialModel.study_id == study_id, TrialModel.state == TrialState.RUNNING)
    )
    with storage.engine.connect() as connection:
        rows = connection.execute(query).all()
    silent = []
    for trial_id, heartbeat, now in rows:
        if heartbeat is None:
            storage.record_heartbeat(trial_id)
        elif now.replace(tzinfo=None) - heartbeat.replace(tzinfo=None) > timedelta(seconds=grace):
            silent.append(trial_id)
    return silent


class Heartbeat:
    """A thread that gives a sign of life for one trial at a time, and survives errors of the database."""

    def __init__(self, storage: RDBStorage, interval: float = INTERVAL) -> None:
        self._storage = storage
        self._interval = interval
        self._trial_id: int | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="heartbeat")
        self._thread.start()

    def watch(self, trial_id: int | None) -> None:
        """From now on give signs of life for this trial (None: for none)."""
        self._trial_id = trial_id

    def close(self) -> None:
        """End the thread."""
        self._ended.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._ended.wait(self._interval):
            trial_id = self._trial_id
            if trial_id is None:
                continue
            try:
                self._storage.record_heartbeat(trial_id)
            except Exception:  # the next one may get through; a lasting outage shows where results are stored
                continue
