"""Intervals and comparisons that may be printed: each with what it assumes and where it comes from.

Where the values leave nothing to estimate an error from (a single one, or all alike, as coarse accuracies
can be), the answer is None and not an interval of no width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """From ``low`` to ``high``."""

    low: float
    high: float


def mean_interval(
    values: Sequence[float] | Values,
    confidence: float = 0.95,
    within: tuple[float, float] = (-math.inf, math.inf),
) -> Interval | None:
    """Student's t interval of the mean that ``values`` were drawn around.

    Assumes independent values that are about normal. For one mean by itself: of several, the best of which
    is looked at, use ``compare``.

    Args:
        values: any number of them, in any unit.
        confidence: coverage, in (0, 1).
        within: the least and the greatest value that there can be; the interval is cut off there.

    Returns:
        None for fewer than two values, or for values that are all alike.
    """
    from scipy import stats  # here, since it takes long to import and most commands do without

    _check_confidence(confidence)
    sample = np.asarray(values, dtype=float)
    if len(sample) < 2 or _is_rounding(float(sample.std(ddof=1)), sample):
        return None
    half = stats.t.ppf((1 + confidence) / 2, len(sample) - 1) * sample.std(ddof=1) / math.sqrt(len(sample))
    low, high = float(sample.mean() - half), float(sample.mean() + half)
    return Interval(max(within[0], low), min(within[1], high))


@dataclass(frozen=True)
class Comparison:
    """All pairs of entries that ran on the same blocks."""

    means_E: tuple[float, ...]
    blocks: int
    residual_sd: float
    """Standard deviation of one value, once its entry and its block are accounted for."""
    degrees_of_freedom: int
    half_width: float | None
    """Of every interval of a difference; None if the residual is zero, so that no error can be estimated."""
    confidence: float
    """That all intervals hold at once."""

    def interval(self, i: int, j: int) -> Interval | None:
        """Of mean i minus mean j, simultaneously with all other pairs; None without ``half_width``."""
        if self.half_width is None:
            return None
        difference = self.means_E[i] - self.means_E[j]
        return Interval(difference - self.half_width, difference + self.half_width)

    def p_value(self, i: int, j: int) -> float:
        """Tukey's adjusted p-value of "entries i and j have the same mean"; 1 without ``half_width``."""
        from scipy import stats

        if self.half_width is None:
            return 1.0
        q = abs(self.means_E[i] - self.means_E[j]) * math.sqrt(self.blocks) / self.residual_sd
        return float(stats.studentized_range.sf(q, len(self.means_E), self.degrees_of_freedom))

    def distinguished(self, i: int, j: int) -> bool:
        """Whether the interval of their difference excludes zero. False does not say that they are equal."""
        return self.half_width is not None and abs(self.means_E[i] - self.means_E[j]) > self.half_width


def compare(values_EB: Values, confidence: float = 0.95) -> Comparison:
    """Compare all pairs of entries by Tukey's honest significant difference, in randomized blocks.

    The model is ``value = entry + block + noise``, a two-way layout without replication: a block is a seed
    and a split that every entry ran on, and the noise is independent and normal, of one variance, estimated
    by the residual mean square with (E-1)(B-1) degrees of freedom. Two means differ by
    ``q(confidence; E, df) * residual_sd / sqrt(B)`` at most, for all pairs at once; so it also holds for the
    best against the rest where the best was picked from these very values. Source: Tukey (1953), The problem
    of multiple comparisons; Montgomery, Design and Analysis of Experiments, section 4.1.

    The means are those over other seeds and splits of the same images. They say less of other images, since
    the training parts of all splits overlap (Nadeau and Bengio, 2003, Inference for the generalization
    error). Parts of one cross-validation are not independent either, so that there the intervals are
    approximate (Bengio and Grandvalet, 2004, No unbiased estimator of the variance of K-fold
    cross-validation).

    Args:
        values_EB: one value for each of E >= 2 entries on each of B >= 2 blocks, none missing.
        confidence: that all intervals hold at once, in (0, 1).

    Raises:
        ValueError: if the values do not make such a layout.
    """
    _check_confidence(confidence)
    values_EB = np.asarray(values_EB, dtype=float)
    _check_layout(values_EB)
    entries, blocks = values_EB.shape
    means_E = values_EB.mean(axis=1)
    residuals_EB = values_EB - means_E[:, None] - values_EB.mean(axis=0) + values_EB.mean()
    freedom = (entries - 1) * (blocks - 1)
    spread = math.sqrt(float((residuals_EB**2).sum()) / freedom)
    if _is_rounding(spread, values_EB):
        spread, half_width = 0.0, None
    else:
        half_width = _critical(confidence, entries, freedom) * spread / math.sqrt(blocks)
    return Comparison(tuple(map(float, means_E)), blocks, spread, freedom, half_width, confidence)


@cache
def _critical(confidence: float, entries: int, freedom: int) -> float:
    """Quantile of the studentized range, by numerical integration, which takes a while."""
    from scipy import stats

    return float(stats.studentized_range.ppf(confidence, entries, freedom))


LEAST_RESAMPLED = 15
"""Values below which ``resampled_mean_interval`` was found, by simulation, to promise more than it keeps."""
_RESAMPLES = 9999


def resampled_mean_interval(
    values: Sequence[float] | Values,
    confidence: float = 0.95,
    within: tuple[float, float] = (0.0, 1.0),
    seed: int = 0,
) -> Interval | None:
    """Bootstrap-t interval of the mean of the distribution that ``values`` were drawn from.

    For accuracies of configurations that were drawn at random (or make up a whole grid, of which it is
    conservative): they are far from normal, with a long tail of bad learning rates, and there the percentile
    and BCa bootstraps of few values cover too little. Quantiles of the studentized mean of resamples take the
    place of Student's t. Source: Efron and Tibshirani (1993), An Introduction to the Bootstrap, section 12.5.

    There is none for the best of the values: the bootstrap of a maximum is inconsistent, since a resample's
    maximum is the sample's own with a probability of 63 % (Bickel and Freedman, 1981).

    Args:
        values: independent ones; where an adaptive sampler or a pruner chose them, no interval is justified.
        confidence: coverage, in (0, 1).
        within: what a mean can be at all; the interval is cut to it.
        seed: of the resampling, so that one sample has one interval.

    Returns:
        None for fewer than ``LEAST_RESAMPLED`` values, or for values that are all alike.
    """
    _check_confidence(confidence)
    sample = np.asarray(values, dtype=float)
    if len(sample) < LEAST_RESAMPLED or _is_rounding(float(sample.std(ddof=1)), sample):
        return None
    mean, error = sample.mean(), sample.std(ddof=1) / math.sqrt(len(sample))
    indices_RN = np.random.default_rng(seed).integers(0, len(sample), (_RESAMPLES, len(sample)))
    studentized_R = _studentized(sample[indices_RN], float(mean))
    low, high = np.quantile(studentized_R, [(1 - confidence) / 2, (1 + confidence) / 2], method="nearest")
    return Interval(float(max(within[0], mean - high * error)), float(min(within[1], mean - low * error)))


def _studentized(resamples_RN: Values, mean: float) -> Values:
    """How far each resample's mean is from ``mean``, in its own standard errors; a resample of values that
    are all alike is as far as can be, but for one whose mean is exact."""
    differences_R = resamples_RN.mean(axis=1) - mean
    errors_R = resamples_RN.std(axis=1, ddof=1) / math.sqrt(resamples_RN.shape[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        studentized_R: Values = np.nan_to_num(differences_R / errors_R, nan=0.0, posinf=1e9, neginf=-1e9)
    return studentized_R


def _is_rounding(spread: float, values: Values) -> bool:
    """Whether a spread is no more than the rounding of sums of these values."""
    return bool(spread <= 16 * np.finfo(float).eps * float(np.abs(values).max()))


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), but got {confidence}")


def _check_layout(values_EB: Values) -> None:
    if values_EB.ndim != 2 or min(values_EB.shape) < 2:
        raise ValueError(
            f"a comparison needs at least 2 entries on at least 2 blocks, but got shape {values_EB.shape}"
        )
    if not np.isfinite(values_EB).all():
        raise ValueError("a comparison needs finite values on all blocks, but got some that are not")
