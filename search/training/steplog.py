"""Training figures of every few steps: taken from the device with the epoch, averaged on the host."""

from __future__ import annotations

from collections.abc import Sequence

LIMIT = 1000
"""At most so many points of one training are kept."""

Point = tuple[int, float, float]
"""The number of steps done, and mean training loss and accuracy of the steps since the point before."""


class StepLog:
    """Averages over spans of ``interval`` steps, also across the ends of epochs."""

    def __init__(self, every: int, steps: int) -> None:
        """``every`` (1 or more) is doubled until ``steps`` steps give no more than ``LIMIT`` points."""
        self.interval = every
        while steps // self.interval > LIMIT:
            self.interval *= 2
        self.waiting: list[list[float]] = []
        """Loss and accuracy of the steps since the last point."""
        self.done = 0
        """The steps up to the last point."""

    def take(self, figures_S2: Sequence[Sequence[float]]) -> tuple[Point, ...]:
        """Add the steps of an epoch, loss and accuracy of each; return the points that are now complete."""
        self.waiting += [list(figures) for figures in figures_S2]
        points = []
        while len(self.waiting) >= self.interval:
            span, self.waiting = self.waiting[: self.interval], self.waiting[self.interval :]
            self.done += self.interval
            loss, accuracy = (sum(column) / self.interval for column in zip(*span, strict=True))
            points.append((self.done, loss, accuracy))
        return tuple(points)
