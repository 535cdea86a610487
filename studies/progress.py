"""A running study at one moment, and how long it may still take."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from studies.base import Study
from studies.processes import short_name
from studies.record import accuracy_of, curve_of, outcome_of, reason_of, slot_of, worker_of


@dataclass(frozen=True)
class Running:
    """A trial that is being trained."""

    number: int
    parameters: dict[str, Any]
    accuracies: tuple[float, ...]
    """Validation accuracy after each epoch so far."""
    worker: str
    """Who trains it: host and PID."""


@dataclass(frozen=True)
class Ended:
    """A closed slot."""

    slot: int
    number: int
    reason: str
    accuracy: float | None
    epochs: int
    seconds: float
    parameters: dict[str, Any]
    message: str


@dataclass(frozen=True)
class Progress:
    """What there is to show."""

    total: int | None
    epochs: int
    running: tuple[Running, ...]
    ended: tuple[Ended, ...]
    earlier: frozenset[int]
    """The slots that were closed before this command began."""
    seconds_left: float | None
    """Estimate from the speed since the first epoch that was seen to end; None while there is none."""

    @property
    def best(self) -> Ended | None:
        """The completed trial with the highest accuracy."""
        completed = [end for end in self.ended if end.accuracy is not None and end.reason != "pruned"]
        return max(completed, key=lambda end: end.accuracy or 0.0, default=None)


class ProgressMeter:
    """Watches one study from the moment that it is made."""

    def __init__(self, study: Study) -> None:
        self._study = study
        slots = study.slots()
        self._earlier = frozenset(slot for slot in slots.attempts if slots.is_closed(slot))
        self._epochs_before = _epochs_trained(study.trials())
        self._first: tuple[float, int] | None = None
        """When the first epoch was seen to end, and how many epochs had been trained by then: starting up
        takes time that says nothing about the time that is left."""

    def read(self) -> Progress:
        """Look at the study."""
        slots = self._study.slots()
        ended = tuple(self._ended(trial) for trial in slots.closing_trials())
        trials = [trial for attempts in slots.attempts.values() for trial in attempts]
        running = tuple(self._running(trial) for trial in trials if trial.state == TrialState.RUNNING)
        return Progress(
            total=self._study.total(),
            epochs=self._study.epochs,
            running=running,
            ended=ended,
            earlier=self._earlier,
            seconds_left=self._left(trials, running, ended),
        )

    def _left(
        self, trials: list[FrozenTrial], running: tuple[Running, ...], ended: tuple[Ended, ...]
    ) -> float | None:
        seconds = self._seconds_per_epoch(_epochs_trained(trials))
        total, full = self._study.total(), self._study.epochs
        if total is None or seconds is None:
            return None
        usual = sum(end.epochs for end in ended) / len(ended) if ended else full
        done = sum(min(len(run.accuracies), usual) for run in running)
        left = (total - len(ended)) * usual - done
        return max(left, 0.0) * seconds

    def _seconds_per_epoch(self, trained: int) -> float | None:
        """Wall time for each epoch of any worker, since the first one that was seen to end."""
        if trained == self._epochs_before:
            return None
        start, before = self._first = self._first or (time.monotonic(), trained)
        return (time.monotonic() - start) / (trained - before) if trained > before else None

    def _running(self, trial: FrozenTrial) -> Running:
        worker = short_name(worker_of(trial))
        return Running(trial.number, self._study.shown(trial), tuple(curve_of(trial)), worker)

    def _ended(self, trial: FrozenTrial) -> Ended:
        outcome = outcome_of(trial)
        return Ended(
            slot=slot_of(trial) or 0,
            number=trial.number,
            reason=reason_of(trial),
            accuracy=accuracy_of(trial),
            epochs=len(trial.intermediate_values),
            seconds=outcome.seconds if outcome else 0.0,
            parameters=self._study.shown(trial),
            message=outcome.message if outcome else "",
        )


def _epochs_trained(trials: list[FrozenTrial]) -> int:
    return sum(len(trial.intermediate_values) for trial in trials)
