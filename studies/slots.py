"""The N trainings that a study owes. Each slot is closed by one attempt; Optuna's trials are attempts.

A slot is closed when an attempt of it completed or was pruned, or when it was given up: at once for reasons
that repeat themselves, else after three failures. A worker that died counts as a failure only where it says
something of the slot: it died alone, and the attempt got no further than those before it. One of which it is
not known why it ended, or whose worker died before it was known what it would train, is hardly ever due to
the slot: of those it takes ten. What was interrupted or crowded out is no failure.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable

from optuna.trial import FrozenTrial, TrialState

from studies.record import FINAL_REASONS, OUTCOME, SETUP, SLOT, reached_by, reason_of, slot_of

ATTEMPTS = 3
DOUBTFUL_ATTEMPTS = 10
"""Attempts that ended with their workers, for unknown reasons, after which a slot is given up."""
_UNCOUNTED = ("interrupted", "crowded out")
_CLOSING = (TrialState.COMPLETE, TrialState.PRUNED)
DECIDING = (SLOT, OUTCOME, SETUP)
"""User attributes that decide all of this."""


class Slots:
    """A view of a study's trials by slot, at one moment."""

    def __init__(self, trials: Iterable[FrozenTrial]) -> None:
        self.attempts: dict[int, list[FrozenTrial]] = defaultdict(list)
        for trial in trials:
            slot = slot_of(trial)
            if slot is not None and trial.state != TrialState.WAITING:  # it gets its slot when it is begun
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
        return _are_hopeless([trial for trial in attempts if trial.state == TrialState.FAIL])

    def next_open(self) -> int:
        """The lowest slot that needs an attempt and has none running."""
        return next(s for s in itertools.count() if not self.is_running(s) and not self.is_closed(s))

    def taken(self) -> int:
        """How many slots are closed or being trained."""
        return sum(self.is_closed(slot) or self.is_running(slot) for slot in self.attempts)

    def is_running(self, slot: int) -> bool:
        """Whether an attempt of the slot is running."""
        return any(trial.state == TrialState.RUNNING for trial in self.attempts.get(slot, []))

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


def _are_hopeless(failed: Iterable[FrozenTrial]) -> bool:
    """Whether these attempts of a slot, in their order, are enough to give it up."""
    errors = kills = doubtful = furthest = 0
    for trial in failed:
        reason, reached = reason_of(trial), reached_by(trial)
        if reason in FINAL_REASONS:
            return True
        if reached > furthest:
            furthest, kills, doubtful = reached, 0, 0
        if reason == "lost" or (reason == "killed" and SETUP not in trial.user_attrs):
            doubtful += 1
        elif reason == "killed":
            kills += 1
        elif reason not in _UNCOUNTED:
            errors += 1
        if errors + kills >= ATTEMPTS or doubtful >= DOUBTFUL_ATTEMPTS:
            return True
    return False
