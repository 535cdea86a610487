"""Schedules against closed forms and torch's own schedulers."""

import math
from typing import get_args

import numpy as np
import pytest
import torch

from search.training.schedules import schedule_table, schedules
from spaces import config

STEPS = 40
EVERY = [section() for section in get_args(get_args(config.Schedule)[0])]


def torch_rates(make) -> np.ndarray:
    """The rates that a torch scheduler gives over STEPS steps from a full rate of 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make(optimizer)
    rates = []
    for _ in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return np.array(rates)


def test_constant_is_one_throughout():
    assert schedule_table(config.Constant(), STEPS).tolist() == [1.0] * STEPS


def test_step_follows_multisteplr():
    table = schedule_table(config.Step(milestones=(0.5, 0.75), gamma=0.1), STEPS)
    expected = torch_rates(lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [20, 30], gamma=0.1))
    np.testing.assert_allclose(table, expected, rtol=1e-12)


def test_cosine_follows_cosineannealinglr():
    table = schedule_table(config.Cosine(final=0.1), STEPS)
    expected = torch_rates(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, STEPS, eta_min=0.1))
    np.testing.assert_allclose(table, expected, rtol=1e-9)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_polynomial_follows_its_formula_and_torch(power):
    table = schedule_table(config.Polynomial(power=power, final=0.1), STEPS)
    np.testing.assert_allclose(table, [0.1 + 0.9 * (1 - s / STEPS) ** power for s in range(STEPS)])
    to_zero = schedule_table(config.Polynomial(power=power), STEPS)
    expected = torch_rates(lambda o: torch.optim.lr_scheduler.PolynomialLR(o, STEPS, power=power))
    np.testing.assert_allclose(to_zero, expected, rtol=1e-9)


@pytest.mark.parametrize("schedule", EVERY, ids=lambda schedule: schedule.name)
def test_per_epoch_the_rate_is_constant_within_an_epoch_and_moves_between(schedule):
    section = schedule.model_copy(update={"per": "epoch", "warmup": 0.2})
    table_ES = schedule_table(section, 10, 7).reshape(10, 7)
    assert (table_ES == table_ES[:, :1]).all()
    assert table_ES[:2, 0].tolist() == [0.5, 1.0]
    per_step = schedule.model_copy(update={"warmup": 0.2})
    np.testing.assert_allclose(table_ES[:, 0], schedule_table(per_step, 10))
    assert schedule_table(per_step, 10, 7).shape == (70,)


def test_every_schedule_of_the_configuration_has_a_formula():
    assert set(schedules) == {section.name for section in EVERY}


def test_cosine_restarts_follow_torch_where_cycles_are_whole_steps():
    # cycles of 1 + 2 + 4 sevenths of 42 steps: 6, 12 and 24 steps
    table = schedule_table(config.CosineRestarts(cycles=3, growth=2.0), 42)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=6, T_mult=2)
    for step in range(42):
        # at the first step of a cycle a share that is not exact in binary may fall to the cycle before
        if step not in (6, 18):
            assert table[step] == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9), step
        optimizer.step()
        scheduler.step()


def test_cosine_restarts_begin_again_at_the_full_rate():
    table = schedule_table(config.CosineRestarts(cycles=2, growth=1.0), 40)
    assert table[0] == table[20] == 1.0
    assert table[19] < 0.01
    np.testing.assert_allclose(table[:20], table[20:])


def test_one_cycle_matches_its_closed_form():
    schedule = config.OneCycle(peak=0.25, start=0.04, final=0.001)
    table = schedule_table(schedule, STEPS)
    for step in range(STEPS):
        t = step / STEPS
        if t < 0.25:
            expected = 1 + (0.04 - 1) * (1 + math.cos(math.pi * t / 0.25)) / 2
        else:
            expected = 0.001 + (1 - 0.001) * (1 + math.cos(math.pi * (t - 0.25) / 0.75)) / 2
        assert table[step] == pytest.approx(expected, rel=1e-12)
    assert table.argmax() == 10


def test_triangular_is_two_straight_lines():
    table = schedule_table(config.Triangular(peak=0.25, start=0.2, final=0.1), STEPS)
    for step in range(STEPS):
        t = step / STEPS
        expected = 0.2 + 0.8 * t / 0.25 if t < 0.25 else 1 - 0.9 * (t - 0.25) / 0.75
        assert table[step] == pytest.approx(expected, rel=1e-12)


def test_warmup_rises_linearly_and_the_schedule_runs_over_the_rest():
    table = schedule_table(config.Cosine(warmup=0.1), 100)
    np.testing.assert_allclose(table[:10], np.arange(1, 11) / 10)
    np.testing.assert_allclose(table[10:], schedule_table(config.Cosine(), 90))


@pytest.mark.parametrize("steps", [1, 2, 3, 1000])
@pytest.mark.parametrize("schedule", EVERY, ids=lambda schedule: schedule.name)
def test_every_schedule_has_a_factor_between_0_and_1_for_each_step(schedule, steps):
    for warmup in (0.0, 0.3, 0.99):
        table = schedule_table(schedule.model_copy(update={"warmup": warmup}), steps)
        assert table.shape == (steps,)
        assert np.isfinite(table).all()
        assert table.min() >= 0
        assert table.max() <= 1


FROM_ZERO = [config.Triangular(), config.OneCycle(start=0.0)]


@pytest.mark.parametrize("epochs", range(1, 8))
@pytest.mark.parametrize("per", ["step", "epoch"])
@pytest.mark.parametrize("schedule", [*EVERY, *FROM_ZERO], ids=lambda schedule: schedule.name)
def test_no_epoch_trains_at_a_rate_of_0(schedule, per, epochs):
    for warmup in (0.0, 0.3):
        section = schedule.model_copy(update={"per": per, "warmup": warmup})
        for steps in (1, 3):
            rates_ES = schedule_table(section, epochs, steps).reshape(epochs, steps)
            assert (rates_ES.max(axis=1) > 0.005).all(), (warmup, steps)


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [
        (1, [2 / 3]),
        (2, [1, 2 / 3]),
        (3, [2 / 3, 8 / 9, 4 / 9]),
        (4, [1 / 2, 1, 2 / 3, 1 / 3]),
        (5, [2 / 5, 4 / 5, 4 / 5, 8 / 15, 4 / 15]),
        (6, [1 / 3, 2 / 3, 8 / 9, 2 / 3, 4 / 9, 2 / 9]),
        (7, [2 / 7, 4 / 7, 20 / 21, 16 / 21, 12 / 21, 8 / 21, 4 / 21]),
    ],
)
def test_a_triangle_from_0_begins_in_the_middle_of_its_first_epoch(epochs, expected):
    np.testing.assert_allclose(schedule_table(config.Triangular(per="epoch"), epochs), expected)


@pytest.mark.parametrize("epochs", range(1, 8))
def test_one_cycle_from_0_begins_in_the_middle_of_its_first_epoch(epochs):
    table = schedule_table(config.OneCycle(start=0.0, final=0.0, per="epoch"), epochs)
    shares = [0.5 / epochs, *(epoch / epochs for epoch in range(1, epochs))]
    np.testing.assert_allclose(table, [half_cosines(t) for t in shares])


@pytest.mark.parametrize("epochs", range(1, 8))
@pytest.mark.parametrize(
    ("schedule", "rate"),
    [
        (config.Constant(), lambda t: 1.0),
        (config.Step(milestones=(0.5, 0.75), gamma=0.1), lambda t: 0.1 ** ((t >= 0.5) + (t >= 0.75))),
        (config.Cosine(), lambda t: (1 + math.cos(math.pi * t)) / 2),
        (config.Polynomial(power=2.0), lambda t: (1 - t) ** 2),
        (config.CosineRestarts(cycles=2, growth=1.0), lambda t: (1 + math.cos(math.pi * (2 * t % 1))) / 2),
        (config.OneCycle(peak=0.3, start=0.04, final=0.04), lambda t: 0.04 + 0.96 * half_cosines(t)),
        (
            config.Triangular(start=0.2, final=0.2),
            lambda t: 0.2 + 0.8 * (4 * t if t < 0.25 else (1 - t) / 0.75),
        ),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_an_epoch_has_the_rate_at_its_beginning(schedule, rate, epochs):
    table = schedule_table(schedule.model_copy(update={"per": "epoch"}), epochs)
    np.testing.assert_allclose(table, [rate(epoch / epochs) for epoch in range(epochs)], atol=1e-12)


def half_cosines(t: float) -> float:
    """Up from 0 to 1 at t = 0.3, and down to 0 again."""
    return (1 - math.cos(math.pi * t / 0.3)) / 2 if t < 0.3 else (1 + math.cos(math.pi * (t - 0.3) / 0.7)) / 2


@pytest.mark.parametrize(("epochs", "again"), [(23, 10), (46, 20), (92, 40)])
def test_a_cycle_begins_with_the_epoch_at_which_it_is_due(epochs, again):
    # cycles of 1 and 1.3: the second is due after 10 / 23, which is not exact in binary
    table = schedule_table(config.CosineRestarts(cycles=2, growth=1.3, per="epoch"), epochs)
    assert table[again] == pytest.approx(1.0)
    assert table.min() > 1e-4
