"""What repeating the best configurations on fresh seeds and splits has shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from studies.statistics import Interval


@dataclass(frozen=True)
class Finalist:
    """One configuration that was repeated."""

    label: str
    trials: tuple[int, ...]
    """Numbers of the search's trials that ran it."""
    parameters: dict[str, Any]
    level: str | None
    """The level of the compared parameter that it is the best of; None unless levels were confirmed."""
    search_accuracy: float
    """Mean of its trials in the search."""
    accuracies: tuple[float, ...]
    """One for each complete block, in the order of blocks."""
    mean: float
    spread: float | None
    """Standard deviation over the blocks; None for a single one."""
    interval: Interval | None
    """Of the mean, by Student's t, for this finalist by itself."""
    difference: Interval | None
    """Of its mean minus the best one's, simultaneously with all other pairs; None for the best itself."""
    distinguished: bool
    """Whether it was distinguished from the best."""
    cheapest: bool
    """Whether it is the one of least training time among the best and those not distinguished from it."""
    seconds: float
    """Mean training time."""
    parameters_count: int | None
    multiply_adds: int | None

    @property
    def gap(self) -> float:
        """What being selected flattered: the score in the search minus the mean."""
        return self.search_accuracy - self.mean


@dataclass(frozen=True)
class Finalists:
    """All of them, best mean first."""

    study: str
    """The search."""
    plan: str
    """The study of the repetitions."""
    folds: int | None
    blocks: int
    """Complete blocks: fresh seeds and splits that every finalist was trained on."""
    parameter: str | None
    """The parameter whose levels were confirmed."""
    finalists: tuple[Finalist, ...]
    degrees_of_freedom: int
    confidence: float
    missing: tuple[str, ...]
    """What could not be used, for people to read."""
