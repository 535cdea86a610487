"""The grid of a space: every combination of what its parameters can be."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from spaces.domain import Value
from spaces.parameter import Parameter

LARGEST = 100_000


def combinations(parameters: Iterable[Parameter]) -> list[dict[str, Value]]:
    """Values of the active parameters for every combination; the last parameter changes fastest.

    Raises:
        ValueError: for a parameter that is continuous or logarithmic, or for more than ``LARGEST`` of them.
    """
    found: list[dict[str, Value]] = [{}]
    for parameter in parameters:
        if parameter.domain.grid() is None:
            raise ValueError(
                f"{parameter.name}: has no grid, being {parameter.domain.note()}: give it a step or a choice"
            )
        extended = (longer for known in found for longer in _extended(known, parameter))
        found = list(islice(extended, LARGEST + 1))
        if len(found) > LARGEST:
            raise ValueError(f"its grid has more than {LARGEST:,} combinations")
    return found


def _extended(known: dict[str, Value], parameter: Parameter) -> Iterable[dict[str, Value]]:
    if not parameter.is_active(known):
        return (known,)
    return ({**known, parameter.name: value} for value in parameter.domain.grid() or ())
