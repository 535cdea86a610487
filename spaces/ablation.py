"""What tells two configurations apart, in steps that can be taken alone: the form of an ablation.

A step is a group of settings that move together: a section with its variant (``optimizer.name`` with all that
only this optimizer has), the settings of one parameter, a parameter with those that are active only because
of it, and the groups that ``together`` names.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from spaces.config import Configuration
from spaces.parameter import Parameter
from spaces.tree import PRESET, Tree

Together = tuple[tuple[str, ...], ...]
"""Groups of paths; what differs at or below the paths of one group moves together."""

DEFAULT_TOGETHER: Together = (("optimizer.name", "optimizer.lr", "schedule"),)
"""An optimizer moves with its learning rate and its schedule: each has its own best one."""

_ABSENT = object()


@dataclass(frozen=True)
class StepGroup:
    """Settings that move together."""

    label: str
    """The settings that name it."""
    changes: dict[str, tuple[Any, Any]]
    """By dotted path the first and the second configuration's setting; None where it has none."""


def step_groups(
    first: Configuration,
    second: Configuration,
    parameters: Iterable[Parameter] = (),
    together: Together = DEFAULT_TOGETHER,
) -> list[StepGroup]:
    """All settings in which two configurations differ, in groups that can be changed alone.

    Args:
        first: for instance a space's base.
        second: for instance the winner.
        parameters: of the space, whose conditions say what moves with what.
        together: further groups.
    """
    before, after = leaves(first.tree()), leaves(second.tree())
    differing = [p for p in dict.fromkeys([*before, *after]) if _value(before, p) != _value(after, p)]
    joined = _Groups(differing)
    for path in differing:
        if path.endswith(".name"):  # another variant: its section is another one
            joined.join(_under(differing, [path.removesuffix(".name")]))
    parameters = list(parameters)
    owners = _owners(differing, parameters)
    for owner in set(owners.values()):
        joined.join([path for path in differing if owners[path] == owner])
    for parameter in parameters:
        for parent in parameter.when:
            related = {parameter.path, parent.partition("@")[0]}
            present = [path for path in differing if owners[path] in related]
            if {owners[path] for path in present} == related:
                joined.join(present)
    for group in together:
        joined.join(_under(differing, group))
    return [
        StepGroup(_label(paths, owners), {p: (before.get(p), after.get(p)) for p in paths})
        for paths in joined.all()
    ]


def moved(start: Configuration, target: Configuration, paths: Iterable[str]) -> Configuration:
    """The configuration ``start`` with the settings at ``paths`` as ``target`` has them.

    Raises:
        ValueError: if that makes no valid configuration.
    """
    tree, goal = copy.deepcopy(start.tree()), leaves(target.tree())
    for path in paths:
        *sections, field = path.split(".")
        section: Tree = tree
        for name in sections:
            section = section.setdefault(name, {})
        if path in goal:
            section[field] = goal[path]
        else:
            section.pop(field, None)
    return Configuration.read(tree)


def leaves(tree: Tree, prefix: str = "") -> dict[str, Any]:
    """The settings of a tree by dotted path; a list is one setting."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict):
            found.update(leaves(value, f"{path}."))
        else:
            found[path] = value
    return found


class _Groups:
    """Sets of paths that are joined step by step, each in the order of all paths."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = list(paths)
        self._number = {path: index for index, path in enumerate(paths)}

    def join(self, paths: Sequence[str]) -> None:
        numbers = {self._number[path] for path in paths}
        for path, number in self._number.items():
            if number in numbers:
                self._number[path] = min(numbers)

    def all(self) -> list[list[str]]:
        numbers = dict.fromkeys(self._number[path] for path in self._paths)
        return [[path for path in self._paths if self._number[path] == number] for number in numbers]


def _owners(paths: Iterable[str], parameters: Iterable[Parameter]) -> dict[str, str]:
    """For each path the parameter's path, of those that hold it, that is nearest to it; else the path."""
    known = {path for parameter in parameters for path in _paths_of(parameter)}
    owners = {}
    for path in paths:
        holding = [each for each in known if f"{path}.".startswith(f"{each}.")]
        owners[path] = max(holding, key=len, default=path)
    return owners


def _paths_of(parameter: Parameter) -> Iterable[str]:
    """Where a parameter writes; a preset writes to many places, which stand for themselves."""
    if parameter.path != PRESET:
        return [parameter.path]
    options: list[Any] = [parameter.domain.setting(option) for option in parameter.domain.ends()]
    return {path for setting in options for path in setting}


def _label(paths: Sequence[str], owners: dict[str, str]) -> str:
    """The paths that name a group: of another variant its name alone, of a parameter's settings its path."""
    variants = [path.removesuffix("name") for path in paths if path.endswith(".name")]
    named = [p for p in paths if p.endswith(".name") or not any(p.startswith(v) for v in variants)]
    return " + ".join(dict.fromkeys(owners[path] for path in named))


def _under(paths: Sequence[str], holders: Iterable[str]) -> list[str]:
    return [path for path in paths if any(f"{path}.".startswith(f"{holder}.") for holder in holders)]


def _value(of: dict[str, Any], path: str) -> Any:
    return of.get(path, _ABSENT)
