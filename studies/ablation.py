"""What each setting of a configuration is worth: put back to the base alone, and put into the base alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from studies.statistics import Interval

Kind = Literal["base", "winner", "base with", "winner without"]


@dataclass(frozen=True)
class Step:
    """One configuration of an ablation."""

    label: str
    kind: Kind
    changes: dict[str, tuple[Any, Any]]
    """Settings that differ from its reference by dotted path: the reference's and its own."""
    accuracies: tuple[float, ...]
    mean: float
    spread: float | None
    difference: Interval | None
    """Of its mean minus the reference's (the base's for "base with" and "winner", the winner's for "winner
    without"), simultaneously with all other pairs; None for the base."""
    seconds: float
    parameters_count: int | None
    multiply_adds: int | None


@dataclass(frozen=True)
class Ablation:
    """All steps: base, base with each, winner, winner without each."""

    plan: str
    blocks: int
    degrees_of_freedom: int
    confidence: float
    steps: tuple[Step, ...]
    missing: tuple[str, ...]
    """What could not be used, for people to read."""
