"""Taking a setting out of a space: what becomes of the parameters, conditions and known configurations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from spaces.config import Configuration
from spaces.domain import Choice, Value
from spaces.parameter import Conditions, Parameter, both
from spaces.tree import PRESET, Tree, at, put, put_all

First = tuple[dict[str, Value], ...]


@dataclass(frozen=True)
class Draft:
    """The parts of a space that fixing a setting changes."""

    written: Tree
    parameters: tuple[Parameter, ...]
    first: First


def fix(draft: Draft, path: str, value: object) -> Draft:
    """The draft with a setting fixed in the base and in every option of its section's choice."""
    for parameter in draft.parameters:
        if parameter.path.startswith(f"{path}."):
            raise ValueError(f"{path}: {parameter.name} varies within it; fix its settings one by one")
    for parameter in draft.parameters:
        if parameter.path == path:
            draft = _settle(draft, parameter, _option_for(parameter, value))
    for parameter in draft.parameters:
        if parameter.path == PRESET or path.startswith(f"{parameter.path}."):
            draft = _narrow(draft, parameter, path, value)
    written = put(draft.written, path, value, Configuration)
    return Draft(written, draft.parameters, _tidy(draft.first, draft.parameters))


def _option_for(parameter: Parameter, value: object) -> Value | None:
    if not isinstance(parameter.domain, Choice):
        return None
    return next((o for o in parameter.domain.options if parameter.domain.setting(o) == value), None)


def _settle(draft: Draft, settled: Parameter, option: Value | None) -> Draft:
    """Remove a parameter that from now on has this option. Children of the option inherit the parameter's own
    conditions; children of other options go too (None: all children)."""
    kept: list[Parameter] = []
    lost: list[Parameter] = []
    for parameter in draft.parameters:
        if settled.name in parameter.when:
            freed = _free(parameter.when, settled, option)
            (lost if freed is None else kept).append(
                parameter if freed is None else replace(parameter, when=freed)
            )
        elif parameter.name != settled.name:
            kept.append(parameter)
    draft = Draft(draft.written, (*kept, *lost), draft.first)
    for parameter in lost:
        draft = _settle(draft, parameter, None)
    return draft


def _free(when: Conditions, settled: Parameter, option: Value | None) -> Conditions | None:
    """A child's conditions once its parent is settled; None where they can no longer hold."""
    if option is None or option not in when[settled.name]:
        return None
    freed = both(
        {parent: options for parent, options in when.items() if parent != settled.name}, settled.when
    )
    return freed if all(freed.values()) else None


def _narrow(draft: Draft, parameter: Parameter, path: str, value: object) -> Draft:
    """Fix a setting in every option of a section's choice. Of options that become equal, one stays:
    preferably one that was like that before, since its name is still true."""
    assert isinstance(parameter.domain, Choice)
    base = draft.written if parameter.path == PRESET else {}
    before = {o: _resolved(parameter, parameter.domain.setting(o), base) for o in parameter.domain.options}
    settings = {option: _with(parameter, option, path, value, before[option]) for option in before}
    after = {option: _resolved(parameter, setting, base) for option, setting in settings.items()}
    ranked = sorted(before, key=lambda option: after[option] != before[option])
    stands_for = {o: next(other for other in ranked if after[other] == after[o]) for o in before}
    stay = tuple(option for option in before if stands_for[option] == option)
    narrowed = Choice(stay, tuple(settings[option] for option in stay))
    parameters = tuple(_follow(p, parameter, narrowed) for p in draft.parameters)
    first = tuple(
        {k: stands_for[v] if k == parameter.name else v for k, v in entry.items()} for entry in draft.first
    )
    draft = Draft(draft.written, parameters, first)
    for child in parameters:
        if child.when.get(parameter.name) == ():
            draft = _settle(draft, child, None)
    return draft if len(stay) > 1 else _settle_last(draft, parameter, narrowed)


def _follow(parameter: Parameter, changed: Parameter, domain: Choice) -> Parameter:
    if parameter.name == changed.name:
        return replace(parameter, domain=domain)
    return (
        replace(parameter, when=both(parameter.when, {changed.name: domain.options}))
        if (changed.name in parameter.when)
        else parameter
    )


def _settle_last(draft: Draft, parameter: Parameter, domain: Choice) -> Draft:
    """A choice of one option is none: the option goes into the base."""
    option = domain.options[0]
    written = put_all(draft.written, parameter.path, domain.setting(option), Configuration)
    return _settle(replace(draft, written=written), parameter, option)


def _with(parameter: Parameter, option: Value, path: str, value: object, resolved: Any) -> Any:
    """The option's section with the setting, where it has such a setting."""
    assert isinstance(parameter.domain, Choice)
    setting = parameter.domain.setting(option)
    try:
        if at(resolved, path.removeprefix(f"{parameter.path}.")) == value:
            return setting
    except KeyError:
        return setting
    if parameter.path == PRESET:
        return {**setting, path: value}
    tree = put({}, parameter.path, setting, Configuration)
    return at(put(tree, path, value, Configuration), parameter.path)


def _resolved(parameter: Parameter, setting: object, base: Tree) -> Any:
    """The section (of a preset: the whole configuration) that an option stands for, with its defaults."""
    tree = Configuration.read(put_all(base, parameter.path, setting, Configuration)).tree()
    return tree if parameter.path == PRESET else at(tree, parameter.path)


def _tidy(first: First, parameters: tuple[Parameter, ...]) -> First:
    """Known configurations without values that are no longer active, and no entry twice."""
    tidied: list[dict[str, Value]] = []
    for entry in first:
        kept: dict[str, Value] = {}
        for parameter in parameters:
            if parameter.name in entry and parameter.is_active(kept):
                kept[parameter.name] = entry[parameter.name]
        if kept and kept not in tidied:
            tidied.append(kept)
    return tuple(tidied)
