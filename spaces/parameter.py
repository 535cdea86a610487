"""One parameter of a search space: a setting, its domain, its role, and when it is active."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from itertools import combinations
from typing import Any, Literal

from spaces.domain import Choice, Domain, Trial, Value, label, read_domain
from spaces.text import brief, is_plain_text, plain, unknown, within
from spaces.tree import PRESET

Role = Literal["scientific", "nuisance"]
Conditions = dict[str, tuple[Value, ...]]
"""Parents by name, and the options of each at which the parameter is active; all of them must hold."""

LONGEST_NAME = 500
"""Bytes of a parameter's name with its label; databases hold 512."""
ROLES = ("scientific", "nuisance")
_KEYS = ("float", "int", "choice", "step", "log", "role", "when", "each")


@dataclass(frozen=True)
class Parameter:
    """A setting that varies."""

    name: str
    """What Optuna calls it: the path, or path@label where one path has several parameters."""
    domain: Domain
    role: Role
    """scientific: what the question is about; nuisance: tuned so that the comparison is fair."""
    when: Conditions

    @property
    def path(self) -> str:
        """The dotted path of the setting (or whole section) in the configuration."""
        return self.name.partition("@")[0]

    def is_active(self, values: Mapping[str, Value]) -> bool:
        """Whether all conditions hold, given the values of the active parents."""
        return all(values.get(parent) in options for parent, options in self.when.items())

    def suggest(self, trial: Trial) -> Value:
        """Ask an Optuna trial for a value."""
        return self.domain.accept(self.domain.suggest(trial, self.name))

    def condition_note(self) -> str:
        """The conditions in words, such as "optimizer.name is sgd or adam"; empty without conditions."""
        return ", ".join(
            f"{parent} is {' or '.join(map(label, options))}" for parent, options in self.when.items()
        )

    def spec(self) -> dict[str, object]:
        """The parameter as a space file writes it."""
        when = {p: options[0] if len(options) == 1 else list(options) for p, options in self.when.items()}
        return {**self.domain.spec(), "role": self.role, **({"when": when} if when else {})}


def read_parameters(tree: object) -> tuple[Parameter, ...]:
    """The parameters that a space file declares, parents before children, otherwise in its order.

    Raises:
        ValueError: the parameter, the rule and the value.
    """
    if not isinstance(tree, dict) or not tree:
        raise ValueError(f"parameters: must be a mapping of at least one parameter, but got {brief(tree)}")
    declared = []
    for name, spec in tree.items():
        with within(f"parameters.{plain(name)}"):
            declared.append(_read_one(name, spec))
    by_name = {parameter.name: parameter for parameter, _ in declared}
    expanded: list[Parameter] = []
    for parameter, each in declared:
        with within(f"parameters.{parameter.name}"):
            expanded += [parameter] if each is None else _for_each(parameter, each, by_name)
    return connect(expanded)


def _read_one(name: object, spec: object) -> tuple[Parameter, str | None]:
    """The parameter as declared, with conditions not yet checked, and the parent that ``each`` names."""
    if not isinstance(name, str) or not is_plain_text(name) or "" in name.split("@", 1):
        raise ValueError(f"a name must be a dotted path, or path@label, but got {brief(name)}")
    if not isinstance(spec, dict):
        raise ValueError(
            f"must be a mapping such as {{float: [0, 1], role: nuisance}}, but got {brief(spec)}"
        )
    for key in spec:
        if key not in _KEYS:
            raise unknown("key", key, _KEYS)
    each = spec.get("each")
    if each is not None and ("@" in name or not isinstance(each, str)):
        raise ValueError(
            f"each: must name a choice, and makes the labels itself, but got {brief(each)} for {name}"
        )
    parameter = Parameter(name, read_domain(spec), _read_role(spec), _read_when(spec.get("when", {})))
    _check_preset(parameter)
    return parameter, each


def _check_preset(parameter: Parameter) -> None:
    """A preset's options are names of settings that are put together."""
    settings = getattr(parameter.domain, "settings", None) or (None,)
    if parameter.path == PRESET and not all(isinstance(setting, dict) for setting in settings):
        raise ValueError(
            "must be a choice of names, each with dotted paths and their settings, such as "
            f"{{plain: {{}}, dropout: {{model.dropout: 0.2}}}}, but got {parameter.domain.note()}"
        )


def _read_role(spec: dict[str, Any]) -> Role:
    match spec.get("role"):
        case "scientific":
            return "scientific"
        case "nuisance":
            return "nuisance"
        case None:
            raise ValueError(f"role: must be given, one of {', '.join(ROLES)}")
        case other:
            raise unknown("role", other, ROLES)


def _read_when(when: object) -> Conditions:
    if not isinstance(when, dict):
        raise ValueError(f"when: must be a mapping of parameter to option or options, but got {brief(when)}")
    conditions = {parent: tuple(x) if isinstance(x, list) else (x,) for parent, x in when.items()}
    for parent, options in conditions.items():
        if not options:
            raise ValueError(f"when: {plain(parent)}: needs at least one option, but got []")
    return conditions


def _for_each(parameter: Parameter, each: str, by_name: dict[str, Parameter]) -> list[Parameter]:
    """One parameter for every option of the parent, or for those that its ``when`` names."""
    domain = _choice(each, by_name, "each")
    with within(f"when: {each}"):
        options = [domain.accept(option) for option in parameter.when.get(each, domain.options)]
    return [
        replace(parameter, name=f"{parameter.name}@{label(option)}", when={**parameter.when, each: (option,)})
        for option in options
    ]


def _choice(parent: str, by_name: Mapping[str, Parameter], key: str) -> Choice:
    if parent not in by_name:
        raise ValueError(f"{key}: {unknown('parameter', parent, by_name)}")
    domain = by_name[parent].domain
    if not isinstance(domain, Choice):
        raise ValueError(f"{key}: must refer to a choice, but got {parent}, which is {domain.note()}")
    return domain


def connect(parameters: Iterable[Parameter]) -> tuple[Parameter, ...]:
    """Check the conditions between parameters, and put parents before children.

    Raises:
        ValueError: for a name or setting declared twice, an unknown parent or option, a cycle, or conditions
            that can never hold.
    """
    by_name: dict[str, Parameter] = {}
    for parameter in parameters:
        if parameter.name in by_name:
            raise ValueError(f"parameters.{parameter.name}: declared twice")
        length = len(parameter.name.encode())
        if length > LONGEST_NAME:
            raise ValueError(
                f"parameters.{brief(parameter.name)}: a name must have at most {LONGEST_NAME} bytes with its "
                f"label, but got {length}: shorten the label, or the option that it is the name of"
            )
        by_name[parameter.name] = parameter
    for name, parameter in by_name.items():
        with within(f"parameters.{name}"):
            by_name[name] = replace(parameter, when=_checked_conditions(parameter.when, by_name))
    ordered = _parents_first(by_name)
    _check_exclusive(ordered)
    return ordered


def _checked_conditions(when: Conditions, by_name: Mapping[str, Parameter]) -> Conditions:
    checked: Conditions = {}
    for parent, options in when.items():
        domain = _choice(parent, by_name, "when")
        with within(f"when: {parent}"):
            checked[parent] = tuple(domain.accept(option) for option in options)
    return checked


def _parents_first(by_name: Mapping[str, Parameter]) -> tuple[Parameter, ...]:
    """In the order of declaration, except that a parameter waits for its parents."""
    ordered: dict[str, Parameter] = {}
    while waiting := [parameter for name, parameter in by_name.items() if name not in ordered]:
        ready = next((parameter for parameter in waiting if parameter.when.keys() <= ordered.keys()), None)
        if ready is None:
            raise ValueError(_cycle_note(waiting[0], ordered, by_name))
        ordered[ready.name] = ready
    return tuple(ordered.values())


def _cycle_note(start: Parameter, placed: Container[str], by_name: Mapping[str, Parameter]) -> str:
    trail = [start.name]
    while trail[-1] not in trail[:-1]:
        trail.append(next(parent for parent in by_name[trail[-1]].when if parent not in placed))
    cycle = " -> ".join(trail[trail.index(trail[-1]) :])
    return f"parameters.{trail[-1]}: when: conditions must not form a cycle, but got {cycle}"


def requirements(ordered: Iterable[Parameter]) -> dict[str, Conditions]:
    """For each parameter, its conditions together with those of its parents, and theirs. Options that exclude
    each other leave an empty tuple: such a parameter can never be active."""
    needed: dict[str, Conditions] = {}
    for parameter in ordered:
        needed[parameter.name] = reduce(both, (needed[parent] for parent in parameter.when), parameter.when)
    return needed


def both(one: Conditions, other: Conditions) -> Conditions:
    """The conditions under which both hold."""
    shared = {
        parent: tuple(option for option in options if option in other.get(parent, options))
        for parent, options in one.items()
    }
    return {**other, **shared}


def _check_exclusive(ordered: tuple[Parameter, ...]) -> None:
    """Every parameter can be active, and no two parameters of one setting at the same time."""
    needed = requirements(ordered)
    for parameter in ordered:
        for parent, options in needed[parameter.name].items():
            if not options:
                raise ValueError(
                    f"parameters.{parameter.name}: when: can never be active: its conditions on {parent} "
                    "exclude each other"
                )
    for one, other in combinations(ordered, 2):
        if one.path == other.path and all(both(needed[one.name], needed[other.name]).values()):
            raise ValueError(
                f"parameters.{other.name}: varies the same setting as {one.name}, so that their conditions "
                f"must exclude each other, but got {other.condition_note() or 'none'} and "
                f"{one.condition_note() or 'none'}"
            )
