"""Samplers and pruners: explicit tables, and the defaults with their reasons.

A sampler is built anew for every slot from the study's seed and the slot's number. So a continued search does
not replay the draws that were already made, and an interrupted one goes on as if it had never stopped.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Container
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from spaces.text import unknown

UNIVARIATE_FROM = 8
"""Parallel trials from which TPE samples each parameter alone: with many pending trials the multivariate
model, which then rests on few results, was measured to fall behind."""

samplers: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True),
    "tpe-univariate": lambda seed: optuna.samplers.TPESampler(
        seed=seed, multivariate=False, constant_liar=True
    ),
    "gp": lambda seed: optuna.samplers.GPSampler(seed=seed, deterministic_objective=False),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "grid": lambda seed: optuna.samplers.RandomSampler(seed=seed),
}
"""name -> seed -> sampler. The points of "grid" come from the space, slot by slot, so that nothing is left
for its sampler to draw."""


def check_sampler(name: str) -> str:
    """Return ``name`` if there is such a sampler.

    Raises:
        ValueError: listing the known ones.
    """
    if name != "auto" and name not in samplers:
        raise unknown("sampler", name, ["auto", *samplers])
    return name


def resolve_sampler(name: str, balanced: bool, parallel: int) -> str:
    """What "auto" stands for: TPE; univariate for balanced comparisons and from 8 parallel trials on, where
    it was measured to be best."""
    if name != "auto":
        return name
    return "tpe-univariate" if balanced or parallel >= UNIVARIATE_FROM else "tpe"


def build_sampler(name: str, seed: int, fixed: dict[str, Any]) -> BaseSampler:
    """The sampler for one slot; parameters in ``fixed`` keep their given values."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        sampler = samplers[name](seed)
        return optuna.samplers.PartialFixedSampler(fixed, sampler) if fixed else sampler


def _median(epochs: int, warmup: int) -> BasePruner:
    return optuna.pruners.MedianPruner(n_startup_trials=10, n_warmup_steps=warmup, n_min_trials=5)


class _WithoutFailed(optuna.Study):
    """A study as it would be if no attempt had failed."""

    def __init__(self, study: optuna.Study) -> None:
        self.__dict__.update(study.__dict__)

    def get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        trials = super().get_trials(deepcopy, states)
        return [trial for trial in trials if trial.state != TrialState.FAIL]


class _Halving(optuna.pruners.SuccessiveHalvingPruner):
    """Asynchronous successive halving in which a slot that was run twice, since its first attempt was
    interrupted, does not compete with itself."""

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        return super().prune(_WithoutFailed(study), trial)


def _asha(epochs: int, warmup: int) -> BasePruner:
    return _Halving(min_resource=min(warmup, epochs), reduction_factor=2)


def _hyperband(epochs: int, warmup: int) -> BasePruner:
    return optuna.pruners.HyperbandPruner(
        min_resource=min(warmup, epochs), max_resource=epochs, reduction_factor=2
    )


pruners: dict[str, Callable[[int, int], BasePruner]] = {
    "none": lambda epochs, warmup: optuna.pruners.NopPruner(),
    "median": _median,
    "asha": _asha,
    "hyperband": _hyperband,
}
"""name -> (epochs of a full trial, epochs in which none is pruned) -> pruner. Steps are finished epochs."""


def check_pruner(name: str) -> str:
    """Return ``name`` if there is such a pruner.

    Raises:
        ValueError: listing the known ones.
    """
    if name != "auto" and name not in pruners:
        raise unknown("pruner", name, ["auto", *pruners])
    return name


def resolve_pruner(name: str, time_is_the_budget: bool, space_warmup: float | None) -> str:
    """What "auto" stands for: none if the space asks for it (a warm-up of 1), successive halving if time is
    the budget, else the median rule. At a fixed number of trials halving was measured to lose, at a fixed
    amount of computing to win."""
    if name != "auto":
        return name
    if space_warmup == 1:
        return "none"
    return "asha" if time_is_the_budget else "median"


def build_pruner(name: str, epochs: int, space_warmup: float | None) -> BasePruner:
    """The pruner of a study whose full trials have ``epochs`` epochs.

    Nothing is pruned in the first ``space_warmup`` (a share) of the epochs, or, without one, in a third of
    them and at least 5 (median), a quarter and at most 5 (asha, hyperband).
    """
    if space_warmup is not None:
        warmup = max(1, math.ceil(space_warmup * epochs))
    elif name == "median":
        warmup = max(5, math.ceil(epochs / 3))
    else:
        warmup = max(1, min(5, epochs // 4))
    return pruners[name](epochs, warmup)
