"""Learning-rate schedules as closed forms of the share of the run that has passed.

Each is a function of t in [0, 1) that gives the rate as a share of the full one. A run tabulates it once, a
value for every step, so that no step waits for the host.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from search.training.registry import Registry
from spaces import config

Shares = NDArray[np.float64]
schedules: Registry[Callable[..., Shares]] = Registry("schedule")
"""Functions (configuration section, t_T) -> factor_T."""

_ROUNDING = 1e-9
"""By which shares of a run may be off: a cycle that begins with a step must not wait for the next."""


def schedule_table(schedule: config.Schedule, epochs: int, steps_per_epoch: int = 1) -> Shares:
    """The factor of the learning rate at each step, shape (epochs * steps_per_epoch,), in [0, 1].

    With ``warmup`` the first share of the steps rises linearly, 1/n, 2/n, ..., n/n, and the schedule itself
    runs over the n steps that are left: step i has its factor at t = i / n, where it begins, as torch's
    schedulers have it. Only a first step whose factor would be 0, so that it trained nothing, has that of its
    middle, t = 1 / (2 n). With ``per`` epoch each epoch counts as one step, whose factor all its steps have.
    """
    if schedule.per == "epoch":
        return np.repeat(_table(schedule, epochs), steps_per_epoch)
    return _table(schedule, epochs * steps_per_epoch)


def _table(schedule: config.Schedule, steps: int) -> Shares:
    rising = round(schedule.warmup * steps)
    left = steps - rising
    formula, t = schedules[schedule.name], np.arange(left) / max(left, 1)
    if left and not formula(schedule, t[:1]).any():
        t[0] = 0.5 / left
    after = formula(schedule, t)
    return np.concatenate([np.arange(1, rising + 1) / max(rising, 1), after])


def _half_cosine(start: float, end: float, t: Shares) -> Shares:
    return end + (start - end) * (1 + np.cos(np.pi * t)) / 2


@schedules.register("constant")
def constant(schedule: config.Constant, t: Shares) -> Shares:
    """The full rate throughout."""
    return np.ones_like(t)


@schedules.register("step")
def step(schedule: config.Step, t: Shares) -> Shares:
    """gamma ** (number of milestones passed)."""
    passed = (t[:, None] >= np.asarray(schedule.milestones)[None, :]).sum(axis=1)
    return np.asarray(schedule.gamma**passed, dtype=np.float64)


@schedules.register("cosine")
def cosine(schedule: config.Cosine, t: Shares) -> Shares:
    """Loshchilov and Hutter 2017 (arXiv:1608.03983), equation 5, a single cycle."""
    return _half_cosine(1.0, schedule.final, t)


@schedules.register("polynomial")
def polynomial(schedule: config.Polynomial, t: Shares) -> Shares:
    """final + (1 - final) * (1 - t) ** power ("poly", Liu et al. 2015, arXiv:1506.04579)."""
    return np.asarray(schedule.final + (1 - schedule.final) * (1 - t) ** schedule.power, dtype=np.float64)


@schedules.register("cosine-restarts")
def cosine_restarts(schedule: config.CosineRestarts, t: Shares) -> Shares:
    """Loshchilov and Hutter 2017 (arXiv:1608.03983), equation 5, with cycles that grow by a factor."""
    lengths = schedule.growth ** np.arange(schedule.cycles)
    ends = np.cumsum(lengths) / lengths.sum()
    starts = np.concatenate([[0.0], ends[:-1]])
    cycle = np.minimum(np.searchsorted(ends - _ROUNDING, t, side="right"), schedule.cycles - 1)
    return _half_cosine(1.0, schedule.final, (t - starts[cycle]) / (ends - starts)[cycle])


@schedules.register("one-cycle")
def one_cycle(schedule: config.OneCycle, t: Shares) -> Shares:
    """Smith and Topin 2018 (arXiv:1708.07120) with half cosines, as in torch's OneCycleLR."""
    up = _half_cosine(schedule.start, 1.0, t / schedule.peak)
    down = _half_cosine(1.0, schedule.final, (t - schedule.peak) / (1 - schedule.peak))
    return np.where(t < schedule.peak, up, down)


@schedules.register("triangular")
def triangular(schedule: config.Triangular, t: Shares) -> Shares:
    """One triangle of Smith 2017 (arXiv:1506.01186)."""
    return np.interp(t, [0.0, schedule.peak, 1.0], [schedule.start, 1.0, schedule.final])
