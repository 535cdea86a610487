"""Checks of a space as a whole: found out when it is read, not hours into a search."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from random import Random
from typing import TYPE_CHECKING

from spaces.domain import Choice, Value, label
from spaces.parameter import Conditions, both, requirements
from spaces.text import unknown, within

if TYPE_CHECKING:
    from spaces.space import Space

Corner = tuple[str, Value]
"""A parameter's name and a bound or option of it."""


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
    """Build configurations with every bound and option of every parameter, and with every two of them.

    Raises:
        ValueError: naming the parameters, their values, and the rule that the configuration breaks.
    """
    needed = requirements(space.parameters)
    corners = {
        (parameter.name, end): both(needed[parameter.name], {parameter.name: (end,)})
        for parameter in space.parameters
        for end in parameter.domain.ends()
    }
    for conditions in corners.values():
        _build(space, space.complete(_pick(space, conditions)), conditions)
    _check_pairs(space, corners)


def _check_pairs(space: Space, corners: Mapping[Corner, Conditions]) -> None:
    # the parameters outside a pair are drawn, so that one configuration covers hundreds of pairs
    draw = Random(0)
    covered: set[tuple[Corner, Corner]] = set()
    for pair in combinations(corners, 2):
        together = both(corners[pair[0]], corners[pair[1]])
        if pair in covered or not all(together.values()):
            continue
        drawn = {parameter.name: draw.choice(parameter.domain.ends()) for parameter in space.parameters}
        values = space.complete({**drawn, **_pick(space, together)})
        try:
            space.build(values)
        except ValueError:
            _blame(space, values, corners)
        covered.update(combinations(values.items(), 2))


def _blame(space: Space, values: Mapping[str, Value], corners: Mapping[Corner, Conditions]) -> None:
    """Raise the complaint about an invalid configuration, with as few of its values as bring it about."""
    for one, other in combinations(values.items(), 2):
        together = both(corners[one], corners[other])
        _build(
            space, space.complete(_pick(space, together)), {name: (value,) for name, value in (one, other)}
        )
    _build(space, values, {name: (value,) for name, value in values.items() if value != space.defaults[name]})


def _pick(space: Space, conditions: Conditions) -> dict[str, Value]:
    """Values that fulfil conditions, the base's where they do."""
    default = space.defaults
    return {
        name: default[name] if default[name] in options else options[0]
        for name, options in conditions.items()
    }


def _build(space: Space, values: Mapping[str, Value], named: Conditions) -> None:
    """Build a configuration; a complaint names these of its values."""
    try:
        space.build(values)
    except ValueError as error:
        note = ", ".join(f"{name}={label(options[0])}" for name, options in named.items())
        raise ValueError(f"parameters.{next(iter(named))}: with {note}: {error}") from None
