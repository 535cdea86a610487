"""How a run converged, as figures of its validation curve: how soon, how high on the whole, how smoothly.

All take accuracies (or any figure) of epochs 1, 2, ... in order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Convergence:
    """The figures of one curve."""

    target: float
    epochs_to_target: int | None
    area: float | None
    roughness: float | None


def convergence(curve: Sequence[float], target: float) -> Convergence:
    """All figures of a curve, with the epoch at which it reached ``target``."""
    return Convergence(target, epochs_to(curve, target), area(curve), roughness(curve))


def epochs_to(curve: Sequence[float], target: float) -> int | None:
    """The first epoch, counted from 1, whose value is at least ``target``; None if none is."""
    return next((epoch for epoch, value in enumerate(curve, start=1) if value >= target), None)


def area(curve: Sequence[float]) -> float | None:
    """The area under the curve, by trapezoids, over its length in epochs: its mean height.

    In the curve's own unit, so that runs of different length compare. One epoch: its value; none: None.
    """
    if len(curve) < 2:
        return curve[0] if curve else None
    return math.fsum((left + right) / 2 for left, right in pairwise(curve)) / (len(curve) - 1)


def roughness(curve: Sequence[float]) -> float | None:
    """The standard deviation (of the population) of the change from one epoch to the next.

    0 for a straight line, rising or not. None for fewer than three epochs, which have no two changes.
    """
    changes = [right - left for left, right in pairwise(curve)]
    if len(changes) < 2:
        return None
    mean = math.fsum(changes) / len(changes)
    return math.sqrt(math.fsum((change - mean) ** 2 for change in changes) / len(changes))
