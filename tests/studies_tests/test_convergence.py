"""Convergence figures against NumPy, and at their edges."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studies.convergence import area, epochs_to, roughness

CURVES = st.lists(st.floats(0, 1), min_size=3, max_size=60)


@given(CURVES)
def test_area_is_the_trapezoidal_rule_over_the_length(curve):
    assert area(curve) == pytest.approx(np.trapezoid(curve) / (len(curve) - 1), abs=1e-12)


@given(CURVES)
def test_roughness_is_the_deviation_of_the_changes(curve):
    assert roughness(curve) == pytest.approx(np.diff(curve).std(), abs=1e-12)


@given(CURVES, st.floats(0, 1))
def test_epochs_to_a_target_are_counted_from_one(curve, target):
    reached = np.flatnonzero(np.array(curve) >= target)
    assert epochs_to(curve, target) == (reached[0] + 1 if len(reached) else None)


def test_short_curves():
    assert (epochs_to([], 0.5), area([]), roughness([])) == (None, None, None)
    assert (epochs_to([0.5], 0.5), area([0.5]), roughness([0.5])) == (1, 0.5, None)
    assert (area([0.2, 0.4]), roughness([0.2, 0.4])) == (pytest.approx(0.3), None)


def test_a_straight_line_is_smooth_and_a_zigzag_is_not():
    assert roughness([0.1, 0.2, 0.3, 0.4]) == pytest.approx(0, abs=1e-15)
    assert roughness([0.5, 0.7, 0.5, 0.7, 0.5]) == pytest.approx(0.2)
