"""Training figures of every few steps: means over spans, also across epochs, and no more than a limit."""

import numpy as np
import pytest

from search.training.steplog import LIMIT, StepLog


@pytest.mark.parametrize("every", [1, 3, 7, 10, 50])
def test_points_are_means_of_consecutive_steps(every):
    figures = np.random.default_rng(0).random((40, 2))
    log = StepLog(every, 40)
    points = [point for epoch in figures.reshape(4, 10, 2) for point in log.take(epoch.tolist())]
    assert [done for done, _, _ in points] == list(range(every, 41, every))
    for done, loss, accuracy in points:
        np.testing.assert_allclose((loss, accuracy), figures[done - every : done].mean(0), rtol=1e-12)


@pytest.mark.parametrize(("steps", "interval"), [(LIMIT * 5, 5), (LIMIT * 5 + 5, 10), (LIMIT * 19, 20)])
def test_the_interval_is_doubled_until_the_points_are_few_enough(steps, interval):
    log = StepLog(5, steps)
    assert log.interval == interval
    points = log.take([(0.0, 0.0)] * steps)
    assert len(points) <= LIMIT
