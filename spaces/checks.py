"""Checks of a space as a whole: found out when it is read, not hours into a search."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from spaces.domain import Choice, Value, label
from spaces.parameter import Conditions, both, requirements
from spaces.text import unknown, within

if TYPE_CHECKING:
    from spaces.space import Space


def check_balance(space: Space) -> None:
    """Only a scientific choice that is always active has levels to compare.

    Raises:
        ValueError: the rule and the name.
    """
    if space.balance is None:
        return
    by_name = {parameter.name: parameter for parameter in space.parameters}
    if space.balance not in by_name:
        raise ValueError(f"balance: {unknown('parameter', space.balance, by_name)}")
    parameter = by_name[space.balance]
    if not isinstance(parameter.domain, Choice) or parameter.role != "scientific" or parameter.when:
        raise ValueError(
            f"balance: must be a scientific choice without conditions, but got {space.balance}, "
            f"which is {parameter.role}: {parameter.domain.note()}"
        )


def check_first(space: Space) -> tuple[dict[str, Value], ...]:
    """The known configurations, each as its parameters write it.

    Raises:
        ValueError: for unknown, inactive and out-of-range values, and where they make no valid configuration.
    """
    checked = []
    for number, entry in enumerate(space.first):
        with within(f"first.{number}"):
            accepted = space.accept(entry, partial=True)
            space.build(space.complete(accepted))
        checked.append(accepted)
    return tuple(checked)


def check_corners(space: Space) -> None:
    """Build a configuration for every bound and option of every parameter, alone and in pairs, the others at
    their base values.

    Raises:
        ValueError: naming the parameters, their values, and the rule that the configuration breaks.
    """
    needed = requirements(space.parameters)
    corners = [
        (f"{parameter.name} at {label(end)}", both(needed[parameter.name], {parameter.name: (end,)}))
        for parameter in space.parameters
        for end in parameter.domain.ends()
    ]
    for note, conditions in corners:
        _check(space, note, conditions)
    for (note, conditions), (other_note, other_conditions) in combinations(corners, 2):
        together = both(conditions, other_conditions)
        if all(together.values()):
            _check(space, f"{note} with {other_note}", together)


def _check(space: Space, note: str, conditions: Conditions) -> None:
    picked = {
        name: space.defaults[name] if space.defaults[name] in options else options[0]
        for name, options in conditions.items()
    }
    with within(f"parameters.{note}"):
        space.build(space.complete(picked))
