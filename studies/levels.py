"""The levels by which a scientific parameter's trials are grouped: options, steps, or three ranges."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

from spaces.domain import Choice, Domain, Value, label
from spaces.text import short_number

_POINTS = 1000
"""Values of a domain whose labels are kept: trials share a few."""
MOST_STEPS = 8
"""A stepped range with more steps than this is cut into three ranges, like a continuous one."""


def levels(domain: Domain) -> tuple[list[str], Callable[[Value], str | None]]:
    """The labels of a domain's levels, in order, and the function from a value to its label; None for a value
    that the domain has not, which another program must have written."""
    points = list(domain.grid() or [])
    if isinstance(domain, Choice) or 0 < len(points) <= MOST_STEPS:
        return [label(point) for point in points], lru_cache(maxsize=_POINTS, typed=True)(_of(domain, label))
    scale = math.log if domain.log else float
    low, high = scale(domain.low), scale(domain.high)
    cuts = [low + (high - low) * share for share in (0, 1 / 3, 2 / 3, 1)]
    unscaled = [math.exp(cut) if domain.log else cut for cut in cuts]
    shown = _apart(unscaled)
    labels = [f"{shown[third]} to {shown[third + 1]}" for third in range(3)]
    return labels, _of(domain, lambda value: labels[sum(scale(float(value)) >= cut for cut in cuts[1:3])])


def _of(domain: Domain, label_of: Callable[[Value], str]) -> Callable[[Value], str | None]:
    """The function for the values of the domain alone."""

    def level_of(value: Value) -> str | None:
        try:
            return label_of(domain.accept(value))
        except ValueError:
            return None

    return level_of


def _apart(cuts: list[float]) -> list[str]:
    """The cuts with as few digits, but at least two, as keep them apart."""
    roundings = ([short_number(float(f"{cut:.{digits}g}")) for cut in cuts] for digits in range(2, 18))
    return next(shown for shown in roundings if len(set(shown)) == len(cuts))
