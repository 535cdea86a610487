"""The N trainings that a study owes. Each slot is closed by one attempt; Optuna's trials are attempts.

A slot is closed when an attempt of it completed or was pruned, or when it failed for good: at once for
reasons that repeat themselves, else after three failed attempts. One that was interrupted or crowded out does
not count as a failure. Of attempts whose workers died before it was known what they would train, which is
hardly ever due to the slot, it takes ten.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable

from optuna.trial import FrozenTrial, TrialState

from studies.record import FINAL_REASONS, SETUP, reason_of, slot_of

ATTEMPTS = 3
BARREN_ATTEMPTS = 10
"""Attempts without parameters after which a slot is given up: drawing them may be what kills the workers."""
_UNCOUNTED = ("interrupted", "crowded out")
_OF_WORKERS = ("killed", "lost")
_CLOSING = (TrialState.COMPLETE, TrialState.PRUNED)
_LIVING = (TrialState.RUNNING, TrialState.WAITING)


class Slots:
    """A view of a study's trials by slot, at one moment."""

    def __init__(self, trials: Iterable[FrozenTrial]) -> None:
        self.attempts: dict[int, list[FrozenTrial]] = defaultdict(list)
        for trial in trials:
            slot = slot_of(trial)
            if slot is not None:
                self.attempts[slot].append(trial)

    def is_closed(self, slot: int) -> bool:
        """Whether the slot needs no further attempt."""
        attempts = self.attempts.get(slot, [])
        return any(trial.state in _CLOSING for trial in attempts) or self.failed_for_good(slot)

    def failed_for_good(self, slot: int) -> bool:
        """Whether the slot was given up."""
        attempts = self.attempts.get(slot, [])
        if any(trial.state in _CLOSING for trial in attempts):
            return False
        failed = [trial for trial in attempts if trial.state == TrialState.FAIL]
        counted = [reason_of(trial) for trial in failed if _counts(trial)]
        return (
            len(counted) >= ATTEMPTS
            or any(reason in FINAL_REASONS for reason in counted)
            or sum(map(_is_barren, failed)) >= BARREN_ATTEMPTS
        )

    def is_living(self, slot: int) -> bool:
        """Whether an attempt of the slot is running or queued."""
        return any(trial.state in _LIVING for trial in self.attempts.get(slot, []))

    def next_open(self) -> int:
        """The lowest slot that needs an attempt and has none living."""
        return next(s for s in itertools.count() if not self.is_living(s) and not self.is_closed(s))

    def taken(self) -> int:
        """How many slots are closed or being trained."""
        return sum(self.is_closed(slot) or self._is_running(slot) for slot in self.attempts)

    def _is_running(self, slot: int) -> bool:
        return any(trial.state == TrialState.RUNNING for trial in self.attempts[slot])

    def closed(self) -> int:
        """How many slots are closed."""
        return sum(self.is_closed(slot) for slot in self.attempts)

    def closing_trials(self) -> list[FrozenTrial]:
        """Of each closed slot the attempt that closed it, in the order of slots."""
        return [closing for slot in sorted(self.attempts) if (closing := self._closing(slot))]

    def _closing(self, slot: int) -> FrozenTrial | None:
        for trial in self.attempts[slot]:
            if trial.state in _CLOSING:
                return trial
        return self.attempts[slot][-1] if self.failed_for_good(slot) else None


def _counts(failed: FrozenTrial) -> bool:
    """Whether a failed attempt is one of those after which its slot is given up."""
    return reason_of(failed) not in _UNCOUNTED and not _is_barren(failed)


def _is_barren(failed: FrozenTrial) -> bool:
    """Whether the worker died before it was known what to train."""
    return reason_of(failed) in _OF_WORKERS and SETUP not in failed.user_attrs
