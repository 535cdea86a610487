"""Intervals and comparisons: against SciPy, a textbook, least squares, and (slow) simulated coverage."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from studies.statistics import LEAST_RESAMPLED, Interval, compare, mean_interval, resampled_mean_interval

Array = NDArray[np.float64]

GRAFTS = np.array(
    [
        [90.3, 89.2, 98.2, 93.9, 87.4, 97.9],
        [92.5, 89.5, 90.6, 94.7, 87.0, 95.8],
        [85.5, 90.8, 89.6, 86.2, 88.0, 93.4],
        [82.5, 89.5, 85.6, 87.4, 78.9, 90.7],
    ]
)
"""Montgomery, Design and Analysis of Experiments, table 4.3: yields of vascular grafts at four extrusion
pressures, in six batches of resin as blocks."""


def drawn(entries: int, blocks: int, seed: int = 0) -> Array:
    random = np.random.default_rng(seed)
    return 0.8 + random.normal(size=blocks) * 0.05 + random.normal(size=(entries, blocks)) * 0.01


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_the_interval_of_a_mean_is_that_of_scipys_t_test(confidence: float) -> None:
    values = drawn(1, 7)[0]
    expected = stats.ttest_1samp(values, 0).confidence_interval(confidence)
    assert mean_interval(values, confidence) == Interval(
        pytest.approx(expected.low, rel=1e-12), pytest.approx(expected.high, rel=1e-12)
    )
    middle = float(values.mean())
    assert mean_interval(values, confidence, (0.0, middle)) == Interval(
        pytest.approx(expected.low, rel=1e-12), middle
    )
    assert mean_interval(values, confidence, (middle, 1.0)).low == middle


@pytest.mark.parametrize("values", [[], [0.5], [0.7, 0.7, 0.7], [0.1 + 0.2, 0.3, 0.3], [0.0, 0.0]])
def test_there_is_no_interval_where_no_error_can_be_estimated(values: list[float]) -> None:
    assert mean_interval(values) is None
    assert resampled_mean_interval(values * 10) is None or len(set(values)) > 1


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, -0.1])
def test_a_confidence_that_is_none_is_refused(confidence: float) -> None:
    for function in (mean_interval, resampled_mean_interval):
        with pytest.raises(ValueError, match=r"confidence must be in \(0, 1\), but got"):
            function([0.1, 0.2], confidence)
    with pytest.raises(ValueError, match=r"confidence must be in \(0, 1\), but got"):
        compare(GRAFTS, confidence)


def test_two_entries_are_compared_as_by_a_paired_t_test() -> None:
    values_EB = drawn(2, 6)
    comparison = compare(values_EB)
    paired = stats.ttest_rel(values_EB[0], values_EB[1])
    expected = paired.confidence_interval(0.95)
    found = comparison.interval(0, 1)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-6)
    assert comparison.p_value(0, 1) == pytest.approx(paired.pvalue, rel=1e-6)
    assert comparison.degrees_of_freedom == 5


def test_a_textbooks_randomized_blocks_give_its_numbers() -> None:
    comparison = compare(GRAFTS)
    assert comparison.means_E == pytest.approx([92.82, 91.68, 88.92, 85.77], abs=0.006)
    assert comparison.degrees_of_freedom == 15
    assert comparison.residual_sd**2 == pytest.approx(7.33, abs=0.005)
    treatments = 6 * np.var(comparison.means_E) * 4
    assert treatments == pytest.approx(178.17, abs=0.005)
    assert treatments / 3 / comparison.residual_sd**2 == pytest.approx(8.11, abs=0.005)
    assert comparison.half_width == pytest.approx(4.08 * math.sqrt(7.33 / 6), rel=2e-3)  # q(4, 15) = 4.08
    pairs = [pair for pair in combinations(range(4), 2) if comparison.distinguished(*pair)]
    assert pairs == [(0, 3), (1, 3)]


@pytest.mark.parametrize(("entries", "blocks"), [(2, 2), (3, 5), (7, 4)])
def test_the_residual_is_that_of_least_squares_on_entries_and_blocks(entries: int, blocks: int) -> None:
    values_EB = drawn(entries, blocks)
    design = np.zeros((entries * blocks, entries + blocks))
    for row in range(entries * blocks):
        design[row, row // blocks] = design[row, entries + row % blocks] = 1
    fitted, _, rank, _ = np.linalg.lstsq(design, values_EB.ravel(), rcond=None)
    residual = values_EB.ravel() - design @ fitted
    comparison = compare(values_EB)
    assert comparison.degrees_of_freedom == entries * blocks - rank
    assert comparison.residual_sd == pytest.approx(math.sqrt(residual @ residual / (values_EB.size - rank)))


def test_what_all_entries_share_in_a_block_changes_nothing() -> None:
    values_EB = drawn(4, 5)
    shifted = compare(values_EB + np.array([0.1, -0.2, 0.0, 0.05, -0.05]))
    assert shifted.half_width == pytest.approx(compare(values_EB).half_width)


def test_an_interval_its_p_value_and_what_is_distinguished_agree() -> None:
    comparison = compare(GRAFTS)
    for i, j in combinations(range(4), 2):
        interval = comparison.interval(i, j)
        other_way = comparison.interval(j, i)
        assert interval is not None
        assert other_way == Interval(pytest.approx(-interval.high), pytest.approx(-interval.low))
        excludes_zero = interval.low > 0 or interval.high < 0
        assert comparison.distinguished(i, j) == excludes_zero == (comparison.p_value(i, j) < 0.05)
    assert not comparison.distinguished(2, 2)
    assert comparison.p_value(2, 2) == pytest.approx(1.0)


def test_more_entries_make_the_intervals_wider_since_more_is_promised() -> None:
    few, many = compare(drawn(2, 200)), compare(drawn(6, 200))
    assert few.half_width is not None
    assert many.half_width is not None
    assert many.half_width / many.residual_sd > 1.2 * few.half_width / few.residual_sd


@pytest.mark.parametrize(
    "values_EB",
    [
        np.full((3, 4), 0.1 + 0.2),
        np.zeros((2, 2)),
        np.array([[0.10, 0.21, 0.33], [0.15, 0.26, 0.38]]),  # one entry better by the same in every block
    ],
)
def test_without_a_residual_nothing_is_claimed(values_EB: Array) -> None:
    comparison = compare(values_EB)
    assert comparison.half_width is None
    assert comparison.residual_sd == 0
    assert comparison.interval(0, 1) is None
    assert comparison.p_value(0, 1) == 1
    assert not comparison.distinguished(0, 1)


@pytest.mark.parametrize(
    ("values_EB", "problem"),
    [
        (np.zeros((1, 5)), "at least 2 entries on at least 2 blocks"),
        (np.zeros((5, 1)), "at least 2 entries on at least 2 blocks"),
        (np.zeros(5), "at least 2 entries"),
        (np.array([[0.1, 0.2], [0.3, math.nan]]), "finite values"),
    ],
)
def test_what_is_no_layout_is_refused(values_EB: Array, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        compare(values_EB)


def test_a_resampled_interval_is_about_students_for_many_normal_values() -> None:
    values = np.random.default_rng(3).normal(0.8, 0.02, 400)
    student, resampled = mean_interval(values), resampled_mean_interval(values)
    assert student is not None
    assert resampled is not None
    assert (resampled.low, resampled.high) == pytest.approx((student.low, student.high), abs=3e-4)


def test_a_resampled_interval_reaches_further_to_the_side_of_the_long_tail() -> None:
    values = np.array([0.9 - 0.01 * i for i in range(14)] + [0.2, 0.1])
    interval = resampled_mean_interval(values)
    assert interval is not None
    assert values.mean() - interval.low > 1.3 * (interval.high - values.mean())


def test_a_resampled_interval_is_the_same_again_and_stays_within_accuracies() -> None:
    values = [0.99, 0.98, 0.995, 0.97, 0.99, 0.98] + [0.99, 0.98, 0.1] * 3
    interval = resampled_mean_interval(values)
    assert interval == resampled_mean_interval(values)
    assert interval is not None
    assert 0 <= interval.low < np.mean(values) < interval.high <= 1
    assert resampled_mean_interval(values[: LEAST_RESAMPLED - 1]) is None
    mostly_alike = resampled_mean_interval([0.9] * 14 + [0.8])
    assert mostly_alike is not None
    assert math.isfinite(mostly_alike.low + mostly_alike.high)


# Coverage. Each interval that the program prints, over many repetitions with known truths. The tolerance is
# four standard deviations of the number of hits, so that a correct method fails once in 15,000 runs.


def tolerance(confidence: float, repetitions: int) -> float:
    return 4 * math.sqrt(confidence * (1 - confidence) / repetitions)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3, 5, 20])
def test_the_t_interval_covers_the_mean_as_often_as_it_says(count: int) -> None:
    random = np.random.default_rng(count)
    found = [mean_interval(random.normal(0.7, 0.03, count)) for _ in range(4000)]
    covered = np.mean([one is not None and one.low <= 0.7 <= one.high for one in found])
    assert covered == pytest.approx(0.95, abs=tolerance(0.95, 4000))


@pytest.mark.slow
@pytest.mark.parametrize(("entries", "blocks"), [(2, 3), (3, 2), (5, 5), (8, 3)])
def test_tukeys_intervals_cover_all_differences_at_once(entries: int, blocks: int) -> None:
    random = np.random.default_rng(entries)
    truth_E = 0.7 + 0.01 * np.arange(entries) * (entries % 2)  # with differences, and without any
    repetitions, all_covered, best_covered = 4000, 0, 0
    for _ in range(repetitions):
        noise_EB = random.normal(0, 0.02, (entries, blocks))
        comparison = compare(truth_E[:, None] + random.normal(0, 0.05, blocks) + noise_EB)
        covers = {
            (i, j): abs((comparison.means_E[i] - comparison.means_E[j]) - (truth_E[i] - truth_E[j]))
            <= (comparison.half_width or 0)
            for i, j in combinations(range(entries), 2)
        }
        best = int(np.argmax(comparison.means_E))
        all_covered += all(covers.values())
        best_covered += all(covered for pair, covered in covers.items() if best in pair)
    assert all_covered / repetitions == pytest.approx(0.95, abs=tolerance(0.95, repetitions))
    assert best_covered / repetitions >= 0.95 - tolerance(0.95, repetitions)


def plateau(rates: Array, random: np.random.Generator) -> Array:
    """Accuracies that fall off gently on both sides of a good learning rate."""
    shape = 0.85 - 0.3 * np.clip(rates - 0.6, 0, 1) - 0.1 * np.clip(0.3 - rates, 0, 1)
    return shape + random.normal(0, 0.005, rates.shape)


def cliff(rates: Array, random: np.random.Generator) -> Array:
    """Accuracies that fall to chance above some learning rate."""
    return np.where(rates > 0.7, 0.1, 0.8 + 0.1 * rates) + random.normal(0, 0.005, rates.shape)


def bowl(rates: Array, random: np.random.Generator) -> Array:
    """Accuracies around a best learning rate."""
    return 0.9 - 0.8 * (rates - 0.6) ** 2 + random.normal(0, 0.005, rates.shape)


Landscape = Callable[[Array, np.random.Generator], Array]
LANDSCAPES = [plateau, cliff, bowl]
APPROXIMATE = 0.015
"""By how much bootstrap-t may fall short of its confidence, being approximate: measured at the fewest
values for which it is used, where it falls short most."""


@pytest.mark.slow
@pytest.mark.parametrize("landscape", LANDSCAPES)
@pytest.mark.parametrize("count", [LEAST_RESAMPLED, 30])
def test_the_bootstrap_covers_a_levels_mean_in_a_random_search(landscape: Landscape, count: int) -> None:
    random = np.random.default_rng(count)
    truth = landscape(random.random(2_000_000), random).mean()
    repetitions = 1500
    found = [resampled_mean_interval(landscape(random.random(count), random)) for _ in range(repetitions)]
    covered = np.mean([one is not None and one.low <= truth <= one.high for one in found])
    assert covered >= 0.95 - APPROXIMATE - tolerance(0.95, repetitions)


@pytest.mark.slow
@pytest.mark.parametrize("levels", [3, 6])
@pytest.mark.parametrize("landscape", LANDSCAPES)
def test_the_bootstrap_covers_the_means_of_all_levels_at_once(landscape: Landscape, levels: int) -> None:
    random = np.random.default_rng(levels)
    truth = landscape(random.random(2_000_000), random).mean()
    repetitions, covered = 500, 0
    for _ in range(repetitions):
        samples = [landscape(random.random(LEAST_RESAMPLED), random) for _ in range(levels)]
        found = [resampled_mean_interval(sample, 1 - 0.05 / levels) for sample in samples]
        covered += all(one is not None and one.low <= truth <= one.high for one in found)
    assert covered / repetitions >= 0.95 - APPROXIMATE - tolerance(0.95, repetitions)


@pytest.mark.slow
@pytest.mark.parametrize("landscape", LANDSCAPES)
def test_the_bootstrap_covers_the_mean_over_a_whole_grid_more_often_than_it_says(
    landscape: Landscape,
) -> None:
    random = np.random.default_rng(5)
    grid = np.linspace(0, 1, LEAST_RESAMPLED)
    truth = np.mean([landscape(grid, random) for _ in range(20_000)])
    found = [resampled_mean_interval(landscape(grid, random)) for _ in range(700)]
    assert np.mean([one is not None and one.low <= truth <= one.high for one in found]) >= 0.99
