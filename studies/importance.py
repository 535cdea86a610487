"""How much each parameter has to do with being among the best trials: PED-ANOVA, and how steady that is.

Optuna's evaluator draws nothing at random, so that a seed makes no difference to it. Its figures do depend
on which trials a search happened to see, and on few of them: the best tenth. The spread given here is over
resamples of the completed trials, with replacement. It says how steady the figures are, and is no interval,
since an adaptive search does not draw its trials independently.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

LEAST = 10
"""Completed trials below which nothing is said."""
RESAMPLES = 50
_SAME = "Target and region quantiles select the same set of trials"


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


class _Resample(optuna.Study):
    """A study as it would be with other trials. Nothing is written."""

    def __init__(self, study: optuna.Study, trials: Sequence[FrozenTrial]) -> None:
        self.__dict__.update(study.__dict__)
        self._trials = [copy.copy(trial) for trial in trials]
        for number, trial in enumerate(self._trials):  # a trial that was drawn twice is two
            trial._trial_id = number

    def get_trials(
        self,
        deepcopy: bool = True,  # noqa: ARG002  Optuna's signature
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        return [trial for trial in self._trials if states is None or trial.state in states]


def importances(study: optuna.Study) -> dict[str, float]:
    """Shares of the completed trials, the largest first; empty where there are too few, or all are alike."""
    if len(_completed(study)) < LEAST:
        return {}
    return _shares(study)


def resampled_importances(study: optuna.Study, resamples: int = RESAMPLES, seed: int = 0) -> Importances:
    """Shares of the completed trials, with their mean and spread over ``resamples`` resamples of them."""
    completed = _completed(study)
    shares = importances(study)
    if not shares:
        few = f"there are {len(completed)} completed trials, and at least {LEAST} are needed"
        reason = few if len(completed) < LEAST else "the best trials cannot be told from the others"
        return Importances((), len(completed), 0, 0, reason)
    random = np.random.default_rng(seed)
    drawn = (
        [completed[i] for i in random.integers(0, len(completed), len(completed))] for _ in range(resamples)
    )
    found = [resampled for trials in drawn if (resampled := _shares(_Resample(study, trials)))]
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


def _completed(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _best(completed: list[FrozenTrial]) -> int:
    values = sorted((trial.value or 0.0 for trial in completed), reverse=True)
    least = values[math.ceil(0.1 * len(values)) - 1]
    return sum(value >= least for value in values)


def _shares(study: optuna.Study) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of being experimental, and of parameters that few trials had
        warnings.filterwarnings("error", _SAME)
        try:
            shares = optuna.importance.get_param_importances(study)
        except UserWarning:  # the best trials are all alike, so that nothing tells them apart
            return {}
    return {name: share for name, share in shares.items() if math.isfinite(share)}
