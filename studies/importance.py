"""How much each parameter has to do with being among the best trials: PED-ANOVA, and how steady that is.

Optuna's evaluator draws nothing at random, so that a seed makes no difference to it. Its figures do depend
on which trials a search happened to see, and on few of them: the best tenth. The spread given here is over
resamples of the completed trials, with replacement. It says how steady the figures are, and is no interval,
since an adaptive search does not draw its trials independently.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from studies.ped_anova import QUANTILE, PedAnova

LEAST = 10
"""Completed trials below which nothing is said."""
RESAMPLES = 50


@dataclass(frozen=True)
class Importance:
    """One parameter's share. The shares of all parameters add up to 1."""

    parameter: str
    share: float
    """Of all completed trials."""
    mean: float
    """Over the resamples."""
    spread: float
    """Standard deviation over the resamples."""
    first: float
    """Part of the resamples, in [0, 1], in which it is the most important one."""


@dataclass(frozen=True)
class Importances:
    """All parameters of the completed trials, the most important first."""

    parameters: tuple[Importance, ...]
    trials: int
    """Completed ones."""
    best: int
    """How many of them count as the best, in which parameters are looked at: a tenth, rounded up, and more
    where accuracies are equal."""
    resamples: int
    """Those that could be used: not all of one accuracy."""
    reason: str | None
    """Why there are none; None where there are."""


def importances(trials: Iterable[FrozenTrial]) -> dict[str, float]:
    """Shares of the completed trials, the largest first; empty where there are too few, or all are alike."""
    completed = _completed(trials)
    return PedAnova(completed).shares() if len(completed) >= LEAST else {}


def resampled_importances(
    trials: Iterable[FrozenTrial], resamples: int = RESAMPLES, seed: int = 0
) -> Importances:
    """Shares of the completed trials, with their mean and spread over ``resamples`` resamples of them."""
    completed = _completed(trials)
    analysis = PedAnova(completed)
    shares = analysis.shares() if len(completed) >= LEAST else {}
    if not shares:
        few = f"there are {len(completed)} completed trials, and at least {LEAST} are needed"
        reason = few if len(completed) < LEAST else "the best trials cannot be told from the others"
        return Importances((), len(completed), 0, 0, reason)
    random, count = np.random.default_rng(seed), len(completed)
    drawn = (random.integers(0, count, count) for _ in range(resamples))
    found = [resampled for indices in drawn if (resampled := analysis.shares(indices))]
    winners = Counter(next(iter(resampled)) for resampled in found)
    parameters = tuple(
        _importance(name, share, [resampled.get(name, 0.0) for resampled in found], winners[name])
        for name, share in shares.items()
    )
    return Importances(parameters, len(completed), _best(completed), len(found), None)


def _importance(name: str, share: float, resampled: list[float], wins: int) -> Importance:
    count = len(resampled)
    mean = float(np.mean(resampled)) if count else share
    spread = float(np.std(resampled, ddof=1)) if count > 1 else 0.0
    return Importance(name, share, mean, spread, wins / max(count, 1))


def _completed(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    return [t for t in trials if t.state == TrialState.COMPLETE and math.isfinite(t.value or 0.0)]


def _best(completed: list[FrozenTrial]) -> int:
    values = sorted((trial.value or 0.0 for trial in completed), reverse=True)
    least = values[math.ceil(QUANTILE * len(values)) - 1]
    return sum(value >= least for value in values)
