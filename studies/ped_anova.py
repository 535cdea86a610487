"""PED-ANOVA (Watanabe, Bansal and Hutter 2023) of many samples of the same trials.

It asks how differently each parameter is spread among the best tenth of the trials and among all of them. So
of a trial it needs nothing but its value and into which cell of a grid each of its parameters falls, which is
worked out once: a sample is a count of cells. Optuna's own evaluator goes through all trials again for each
sample, and importing it takes a second and 90 MB. What comes out is the same, which a test holds: the grid,
the quantile, the densities (Parzen estimators with bandwidths by Scott's rule) and the weights of parameters
that not all trials have are those of ``optuna.importance.PedAnovaImportanceEvaluator``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial

QUANTILE = 0.1
"""Share of the trials that count as the best."""
_CELLS = 50
"""Of a grid, at most."""
_NARROWEST = 0.5 / 1.64
"""Standard deviation of a kernel, in cells, of which nine tenths stay in its own cell."""
_LEAST = 2
"""Trials of a sample that must have a parameter from the same domain."""

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class _Spread:
    """The trials that have a parameter from one domain, and the cells that they fall into."""

    parameter: str
    size: int
    """Cells."""
    ordered: bool
    """Whether cells beside each other are alike."""
    cells_N: Indices
    """Of each trial; -1 where it has not the parameter from this domain."""


class PedAnova:
    """Trials of a study that maximizes, which completed with finite values."""

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        self._values_N = np.array([trial.value for trial in trials], np.float64)
        self._names = list(dict.fromkeys(name for trial in trials for name in trial.distributions))
        self._spreads = [spread for name in self._names for spread in _spreads(name, trials)]

    def shares(self, drawn_N: Indices | None = None) -> dict[str, float]:
        """Shares of the variance of all trials, or of a sample of them, given by their indices; the largest
        first. Empty where nothing tells the best from the others."""
        drawn_N = np.arange(len(self._values_N)) if drawn_N is None else drawn_N
        best_N = _are_best(self._values_N[drawn_N])
        if best_N.all():
            return {}
        found = dict.fromkeys(self._names, 0.0)
        for spread in self._spreads:
            found[spread.parameter] += _importance(spread, spread.cells_N[drawn_N], best_N)
        whole = sum(found.values())
        shares = {name: each / whole if whole else 1 / len(found) for name, each in found.items()}
        ranked = sorted(shares.items(), key=lambda item: -item[1])
        return {name: share for name, share in ranked if math.isfinite(share)}


def _are_best(values_N: NDArray[np.float64]) -> NDArray[np.bool_]:
    last = math.ceil(QUANTILE * len(values_N)) - 1
    return np.asarray(values_N >= -np.partition(-values_N, last)[last])


def _importance(spread: _Spread, cells_N: Indices, best_N: NDArray[np.bool_]) -> float:
    having_N = cells_N >= 0
    having, best = int(having_N.sum()), int((having_N & best_N).sum())
    if having < _LEAST or not best:
        return 0.0
    weight = (best / best_N.sum()) ** 2 / (having / len(cells_N))
    density_of_best = _density(spread, cells_N[having_N & best_N])
    density_of_all = _density(spread, cells_N[having_N])
    return float(weight * (density_of_all @ (density_of_best / density_of_all - 1) ** 2))


def _density(spread: _Spread, cells_N: Indices) -> NDArray[np.float64]:
    """The share of each cell by kernels around those that were seen, and one that says nothing."""
    counts_S = np.bincount(cells_N, minlength=spread.size)
    seen_K = np.flatnonzero(counts_S)
    weights_K = counts_S[seen_K]
    kernels = _smooth if spread.ordered else _apart
    shares_KS = kernels(seen_K, weights_K, spread.size)
    weighted_S = np.append(weights_K, 1.0) / (weights_K.sum() + 1.0) @ shares_KS
    return np.asarray(weighted_S + 1e-12)


def _apart(seen_K: Indices, _: Indices, size: int) -> NDArray[np.float64]:
    """Kernels of cells without an order."""
    shares_KS = np.full((len(seen_K) + 1, size), 1 / (len(seen_K) + 1))
    shares_KS[np.arange(len(seen_K)), seen_K] += 1
    return np.asarray(shares_KS / shares_KS.sum(axis=1, keepdims=True))


def _smooth(seen_K: Indices, weights_K: Indices, size: int) -> NDArray[np.float64]:
    """Normal kernels, cut off at the ends of the grid."""
    from scipy.special import ndtr  # here, since most commands do without

    widths_K = np.append(np.full(len(seen_K), _width(seen_K, weights_K)), size)
    centres_K = np.append(seen_K, (size - 1) / 2)
    edges_E = np.arange(size + 1) - 0.5
    below_KE = ndtr((edges_E - centres_K[:, None]) / widths_K[:, None])
    return np.asarray(np.diff(below_KE) / (below_KE[:, -1:] - below_KE[:, :1]))


def _width(seen_K: Indices, weights_K: Indices) -> float:
    """Scott's rule, with the interquartile range where that is the less."""
    count, up_to_K = float(weights_K.sum()), np.cumsum(weights_K)
    mean = seen_K @ weights_K / count
    deviation = math.sqrt((seen_K - mean) ** 2 @ weights_K / max(1, count - 1))
    first = np.searchsorted(up_to_K, count // 4, side="left")
    third = min(len(seen_K) - 1, int(np.searchsorted(up_to_K, count * 3 // 4, side="right")))
    between = float(seen_K[third] - seen_K[first])
    return max(float(1.059 * min(between / 1.34, deviation) * count**-0.2), _NARROWEST)


def _spreads(name: str, trials: Sequence[FrozenTrial]) -> list[_Spread]:
    """Of a parameter, one for each domain that trials have it from and that leaves a choice."""
    by_domain: dict[BaseDistribution, list[int]] = {}
    for index, trial in enumerate(trials):
        if name in trial.distributions:
            by_domain.setdefault(trial.distributions[name], []).append(index)
    found = []
    for domain, indices in by_domain.items():
        if not domain.single():
            ordered = not isinstance(domain, CategoricalDistribution)
            cells_N = np.full(len(trials), -1)
            size, cells_N[indices] = _cells(domain, [trials[index].params[name] for index in indices])
            found.append(_Spread(name, size, ordered, cells_N))
    return found


def _cells(domain: BaseDistribution, values: Sequence[object]) -> tuple[int, Indices]:
    """The number of a domain's cells, and those that the values fall into."""
    if isinstance(domain, CategoricalDistribution):
        cells = [int(domain.to_internal_repr(value)) for value in values]  # type: ignore[arg-type]
        return len(domain.choices), np.array(cells)
    assert isinstance(domain, (FloatDistribution, IntDistribution))
    steps = _steps(domain)
    scaled_N = np.array(values, np.float64)
    low, high = float(domain.low), float(domain.high)
    if domain.log:
        scaled_N, low, high = np.log(scaled_N), math.log(low), math.log(high)
    cells_N = np.ceil((scaled_N - low) / ((high - low) / (steps - 1)) - 0.5)
    return steps, np.clip(cells_N, 0, steps - 1).astype(np.int64)


def _steps(domain: FloatDistribution | IntDistribution) -> int:
    if isinstance(domain, IntDistribution) and domain.log:
        return min(int(np.ceil(np.log(domain.high - domain.low + 1) / np.log(2))) + 1, _CELLS)
    if domain.step is not None:
        return min(round((domain.high - domain.low) / domain.step) + 1, _CELLS)
    return _CELLS
