"""What the trials of one process have reported: known here at once, written in batches.

A GPU ends several epochs a second. Each report would be a transaction of its own, and each decision on
pruning would read every running trial again. So reports wait here for up to a second, and pruners decide by
what the database last said of other processes' trials and by all that this process knows of its own.

Uses of Optuna's internals, held by a test: beside reading trials, pruners call the storage's
``set_trial_system_attr`` alone.
"""

from __future__ import annotations

import copy
import time
from contextlib import suppress
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial

from studies.base import Study
from studies.record import is_evidence, reports_of
from studies.reports import report_many
from studies.snapshots import Snapshot
from studies.urls import GoneError
from studies.writing import write_trial

EVERY = 1.0
"""Seconds for which a report waits at most while the process does nothing else."""
_RUNG = "completed_rung_"
"""Beginning of the system attributes by which successive halving notes a trial's accuracy at each rung."""
SHARE = 0.01
"""Of the time, what a process may take to read the trials of others for its pruner; it also reads them once
when one of its own begins or ends."""


class LiveReports:
    """The reports of a process on its own running trials."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._seen = _Seen(study.optuna)
        self._view = optuna.Study(study.name, storage=self._seen, pruner=study.optuna.pruner)  # type: ignore[arg-type]
        self._prunes = not isinstance(study.optuna.pruner, optuna.pruners.NopPruner)
        self._waiting: list[tuple[int, int, float]] = []
        self._written = time.monotonic()
        self._read_again = 0.0
        self._given_away: set[int] = set()

    def begin(self, trial_id: int) -> None:
        """A trial is this process's from now on."""
        self._seen.own[trial_id] = copy.deepcopy(self._study.storage.get_trial(trial_id))
        self._seen.trials = None

    def report(self, trial_id: int, epoch: int, value: float) -> None:
        """A trial's validation accuracy after an epoch; the first report of an epoch stays."""
        self._seen.own[trial_id].intermediate_values.setdefault(epoch, value)
        self._waiting.append((trial_id, epoch, value))

    def should_prune(self, trial_id: int) -> bool:
        """Whether the study's pruner would end the trial now."""
        if not self._prunes:
            return False
        if self._seen.trials is None:
            self._read()
        return self._study.optuna.pruner.prune(self._view, self._seen.own[trial_id])

    def end(self, trial_id: int) -> None:
        """The trial has been closed."""
        self._seen.own.pop(trial_id, None)
        self._given_away.discard(trial_id)
        self._seen.trials = None

    def given_away(self, trial_id: int) -> bool:
        """Whether the trial was found, at the last writing, to have been ended by somebody else."""
        return trial_id in self._given_away

    def write_if_due(self) -> None:
        """Write if the last time was long enough ago."""
        if time.monotonic() - self._written >= EVERY:
            self.write()

    def write(self) -> None:
        """Write what waits, and have what others did read anew before it is needed again, where that takes
        little of the time."""
        waiting, attributes = self._waiting, self._seen.attributes
        if waiting:
            uids = self._study.uids({trial_id for trial_id, _, _ in waiting})
            self._given_away |= report_many(self._study.storage, waiting, uids)
        for (trial_id, key), value in attributes.items():
            if trial_id not in self._given_away:
                with suppress(UpdateFinishedTrialError, GoneError):  # given away in this moment
                    uid = self._study.uids([trial_id])[trial_id]
                    write_trial(self._study.storage, trial_id, {}, uid=uid, system={key: value})
        self._waiting, self._seen.attributes = [], {}
        self._written = time.monotonic()
        if self._written >= self._read_again:
            self._seen.trials = None

    def _read(self) -> None:
        begin = time.monotonic()
        self._seen.trials = [_fit(trial) for trial in self._study.trials() if is_evidence(trial)]
        end = time.monotonic()
        self._read_again = end + (end - begin) / SHARE


def _fit(trial: FrozenTrial) -> FrozenTrial:
    """The trial without reports and rungs that another program must have written."""
    reports = reports_of(trial)
    rungs = [value for key, value in trial.system_attrs.items() if key.startswith(_RUNG)]
    if len(reports) == len(trial.intermediate_values) and all(map(_is_rung, rungs)):
        return trial
    fit = copy.copy(trial)
    fit.intermediate_values = reports
    fit.system_attrs = {
        key: value
        for key, value in trial.system_attrs.items()
        if not key.startswith(_RUNG) or _is_rung(value)
    }
    return fit


def _is_rung(value: object) -> bool:
    return isinstance(value, (int, float)) and 0 <= value <= 1


class _Seen(Snapshot):
    """The study's storage as pruners see it: the trials last read, with those of this process as they are."""

    def __init__(self, study: optuna.Study) -> None:
        self.trials: list[FrozenTrial] | None = None
        self.own: dict[int, FrozenTrial] = {}
        self.attributes: dict[tuple[int, str], Any] = {}
        """What pruners noted, by trial and key, and is not written yet."""
        super().__init__(study)

    def known(self) -> list[FrozenTrial]:
        assert self.trials is not None
        return [self.own.get(trial._trial_id, trial) for trial in self.trials]

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Note it, to be written with the next reports."""
        noted = copy.copy(self.own[trial_id])  # the trials that the pruner has read stay as they were
        noted.system_attrs = {**noted.system_attrs, key: value}
        self.own[trial_id] = noted
        self.attributes[trial_id, key] = value
