"""The study as a sampler sees it while it draws one trial: read once, and written once.

Optuna reads the trial list again for each parameter of each trial, with all that runs, and stores each
parameter in a transaction of its own. And a sampler looks at every trial for each parameter, so that its time
grows with the study: one of several thousand trials is shown to it in a sample.

Uses of Optuna's internals, held by a test: a trial stores a parameter by the storage's ``set_trial_param``.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from studies.snapshots import Snapshot
from studies.writing import Parameter

LONGEST = 2000
"""Trials with a value up to which a sampler is shown all."""
BEST = 100
"""Of more than that, those that are always shown: TPE models the best 25, and the others as a crowd."""


def excerpt(trials: Sequence[FrozenTrial], seed: int) -> list[FrozenTrial]:
    """The trials that a sampler is shown, in their order.

    In a study with more than ``LONGEST`` trials that have a value these are so many of them, the best and a
    random sample of the others, and all that run. The best are those with the highest values, and after them,
    as TPE ranks them, pruned ones by how far they came.
    """
    ranked = sorted(
        (trial for trial in trials if trial.value is not None and trial.state.is_finished()),
        key=_rank,
        reverse=True,
    )
    if len(ranked) <= LONGEST:
        return list(trials)
    sample = random.Random(seed).sample(ranked[BEST:], LONGEST - BEST)
    kept = {trial.number for trial in [*ranked[:BEST], *sample]}
    return [trial for trial in trials if trial.number in kept or not trial.state.is_finished()]


def _rank(trial: FrozenTrial) -> tuple[float, float]:
    length = math.inf if trial.state == TrialState.COMPLETE else trial.last_step or 0
    return length, trial.value or 0.0


class DrawnStudy(optuna.Study):
    """A study of which the trials are known, and in which the parameters drawn wait to be written."""

    def __init__(self, study: optuna.Study, trials: Sequence[FrozenTrial]) -> None:
        """Take what is known; ``trials`` are in the order of their numbers."""
        self._known = _Known(study, trials)
        super().__init__(
            study.study_name,
            storage=self._known,  # type: ignore[arg-type]
            sampler=study.sampler,
            pruner=study.pruner,
        )

    @property
    def parameters(self) -> list[Parameter]:
        """What was drawn."""
        return self._known.parameters


class _Known(Snapshot):
    """A study's storage with its trials as they were, and a place for what is drawn."""

    def __init__(self, study: optuna.Study, trials: Sequence[FrozenTrial]) -> None:
        self.parameters: list[Parameter] = []
        self._trials = trials
        super().__init__(study)

    def known(self) -> list[FrozenTrial]:
        return list(self._trials)

    def set_trial_param(
        self, _trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        """Keep a parameter, to be written with the others."""
        self.parameters.append((param_name, param_value_internal, distribution))
