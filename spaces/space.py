"""A search space: a base configuration, and the parameters that vary around it.

A space is a YAML file (see the ones in ``library``):

    question: Which learning rate does each optimizer want?
    base:                      # a configuration; what is missing takes the defaults of spaces/config/
      training: {epochs: 30}
    balance: optimizer.name    # optional: the parameter whose levels get equal numbers of trials
    pruning_warmup: 0.5        # optional: share of the epochs in which nothing is pruned; 1: never
    together:                  # optional: settings that an ablation moves together (default: as here)
      - [optimizer.name, optimizer.lr, schedule]
    first:                     # optional: known configurations to try first; what is absent is drawn
      - {optimizer.name: sgd, optimizer.lr@sgd: 0.05}
    parameters:
      optimizer.name: {choice: [sgd, adam], role: scientific}
      optimizer.lr@sgd: {float: [1e-3, 1.0], log: true, role: nuisance, when: {optimizer.name: sgd}}
      optimizer.lr@adam: {float: [1e-5, 1e-2], log: true, role: nuisance, when: {optimizer.name: adam}}
      optimizer.weight_decay: {float: [1e-6, 1e-2], log: true, role: nuisance, each: optimizer.name}
      model.widths: {choice: {small: [32, 64], large: [64, 128]}, role: scientific}

A parameter is named by the path of its setting, with ``@label`` where one setting has several parameters.
``when`` lists the options of other parameters at which it is active; ``each`` makes one parameter for every
option of another. A choice whose options have names may stand for lists or for a whole section, which then
replaces the base's. Sections are set before the settings within them, and ``name`` before the others:
choosing another variant (``optimizer.name: adam``) keeps those settings written in the base that the variant
also has, and takes its defaults for the rest.

Everything derives from this data: what Optuna is asked, the configuration of a trial, the grid, the table
that the CLI prints, and the fingerprint that guards the continuing of a study.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from spaces.ablation import Together, leaves
from spaces.catalog import built_in, find
from spaces.checks import check_balance, check_corners, check_first
from spaces.config import Configuration
from spaces.domain import Choice, Trial, Value
from spaces.grid import combinations
from spaces.parameter import Parameter, connect
from spaces.reading import read_fields
from spaces.reduction import Draft, fix
from spaces.table import Row, table_rows
from spaces.text import brief, digest, dump_yaml, load_yaml, unknown, within
from spaces.tree import PRESET, Tree, at, put, put_all

__all__ = ["Row", "Space", "built_in"]

FILE_SETTINGS = ("data.noise_file", "model.weights")
"""The settings that name files."""


@dataclass(frozen=True)
class Space:
    """What may vary, and around what. Made by ``load`` or ``read``, which check it."""

    name: str
    question: str
    """One sentence: what a search of this space answers."""
    command: str
    cost: str
    result: str
    """The best known result with its range over repeats."""
    written: Tree
    """The base as written, without defaults."""
    base: Configuration
    parameters: tuple[Parameter, ...]
    """Parents before children, otherwise in the order of the file."""
    balance: str | None
    """The scientific choice whose levels get equal numbers of trials; None: a free search."""
    pruning_warmup: float | None
    """Share of the epochs in which nothing is pruned; 1: never; None: the search's default."""
    first: tuple[dict[str, Value], ...]
    """Known configurations to try first, as values of parameters; the absent ones are drawn."""
    together: Together | None
    """Groups of settings that an ablation moves together; None: ``spaces.ablation.DEFAULT_TOGETHER``."""
    text: str = field(compare=False, repr=False)
    """The file's own text, with comments; of a derived space, ``to_yaml``."""

    @classmethod
    def load(cls, name_or_path: str) -> Space:
        """A built-in space by its name, or a file: a path that ends in .yaml or .yml or has a slash.

        Raises:
            ValueError: one line with the file, the place in it, the rule and the value.
        """
        return cls.read(*find(name_or_path))

    @classmethod
    def read(cls, text: str, source: str, name: str) -> Space:
        """The space that a YAML text declares; ``source`` stands in front of every complaint.

        Raises:
            ValueError: one line with the source, the place, the rule and the value.
        """
        tree = load_yaml(text, source)
        with within(source):
            return _checked(cls(name=name, text=text, **read_fields(tree)))

    def suggest(self, trial: Trial) -> dict[str, Value]:
        """Ask an Optuna trial for the active parameters, parents first."""
        return self._walk(lambda parameter: parameter.suggest(trial))

    def configure(self, values: Mapping[str, object]) -> Configuration:
        """The configuration that values of all active parameters stand for.

        Raises:
            ValueError: for an unknown, missing or inactive parameter, and for a value out of range.
        """
        with within(f"space {self.name}"):
            return self.build(self.accept(values))

    def accept(self, values: Mapping[str, object], partial: bool = False) -> dict[str, Value]:
        """The values, each as its parameter writes it; ``partial`` lets active parameters be absent.

        Raises:
            ValueError: for an unknown, missing or inactive parameter, and for a value out of range.
        """
        by_name = {parameter.name: parameter for parameter in self.parameters}
        for name in values:
            if name not in by_name:
                raise unknown("parameter", name, by_name)
        accepted: dict[str, Value] = {}
        for name, parameter in by_name.items():
            if not parameter.is_active(accepted):
                if name in values:
                    raise ValueError(f"{name}: is active only where {parameter.condition_note()}")
            elif name in values:
                with within(name):
                    accepted[name] = parameter.domain.accept(values[name])
            elif not partial:
                raise ValueError(f"{name}: must be given, {parameter.domain.note()}")
        return accepted

    def complete(self, given: Mapping[str, Value]) -> dict[str, Value]:
        """Values of all active parameters: the given ones, and the defaults for the rest."""
        return self._walk(lambda parameter: given.get(parameter.name, self.defaults[parameter.name]))

    def build(self, values: Mapping[str, Value]) -> Configuration:
        """The configuration of values that are known to be accepted."""
        tree = self.written
        for parameter in self._by_depth:
            if parameter.name in values:
                setting = parameter.domain.setting(values[parameter.name])
                tree = put_all(tree, parameter.path, setting, Configuration)
        return Configuration.read(tree, "configuration")

    def base_value(self, parameter: Parameter) -> Value | None:
        """The parameter's value that gives the base's setting; None where there is none."""
        setting = self.base_setting(parameter)
        if isinstance(parameter.domain, Choice):
            return next((o for o in parameter.domain.options if self._gives(parameter, o, setting)), None)
        try:
            return parameter.domain.accept(setting)
        except ValueError:
            return None

    @cached_property
    def base_values(self) -> dict[str, Value]:
        """The base as values of parameters: of those that are active in it and can have its setting."""
        values: dict[str, Value] = {}
        for parameter in self.parameters:
            value = self.base_value(parameter) if parameter.is_active(values) else None
            if value is not None:
                values[parameter.name] = value
        return values

    @cached_property
    def defaults(self) -> dict[str, Value]:
        """For every parameter the base's value; where it has no such value, its own lowest or first."""
        base = {parameter.name: self.base_value(parameter) for parameter in self.parameters}
        lowest = {parameter.name: parameter.domain.ends()[0] for parameter in self.parameters}
        return {name: lowest[name] if value is None else value for name, value in base.items()}

    @property
    def levels(self) -> tuple[Value, ...]:
        """The options of the balanced parameter; none for a free search."""
        return next((tuple(p.domain.ends()) for p in self.parameters if p.name == self.balance), ())

    def with_base(self, settings: Mapping[str, object]) -> Space:
        """The same space around another base.

        Raises:
            ValueError: for a setting that the space varies, or that makes no valid configuration.
        """
        written = self.written
        with within(f"space {self.name}"):
            for path, value in settings.items():
                varied = next((p for p in self.parameters if _overlap(p.path, path)), None)
                if varied:
                    raise ValueError(
                        f"{path}: varies here (by {varied.name}), so that it cannot be set to {brief(value)}"
                    )
                written = put(written, path, value, Configuration)
            return self._derived(written, self.parameters, self.first)

    def without(self, settings: Mapping[str, object]) -> Space:
        """The space with these settings fixed: in the base, and nowhere varied any more.

        Options of a section's choice get the setting too; of options that become equal, one stays.
        Conditions and known configurations follow.

        Raises:
            ValueError: where nothing is left to vary, or a setting makes no valid configuration.
        """
        draft = Draft(self.written, self.parameters, self.first)
        with within(f"space {self.name}"):
            for path, value in settings.items():
                draft = fix(draft, path, value)
            if not draft.parameters:
                raise ValueError(f"nothing is left to vary without {', '.join(settings)}")
            return self._derived(draft.written, connect(draft.parameters), draft.first)

    def grid(self) -> list[dict[str, Value]]:
        """All combinations of options, integers and steps, each with its active parameters only.

        Raises:
            ValueError: for a parameter that is continuous or logarithmic, or for too many combinations.
        """
        with within(f"space {self.name}"):
            return combinations(self.parameters)

    def fingerprint(self) -> str:
        """A short hash of all that decides which trials are run; the question, the command and the like, and
        comments, do not count."""
        return digest(
            {
                "base": self.base.tree(),
                "written": [self._kept(p.path) for p in self.parameters if p.path.endswith(".name")],
                "parameters": [[p.name, p.spec(), list(p.domain.ends())] for p in self.parameters],
                "balance": self.balance,
                "pruning_warmup": self.pruning_warmup,
                "first": list(self.first),
            }
        )

    def to_yaml(self) -> str:
        """The space as a file that reads back equal."""
        prose = {"question": self.question, "command": self.command, "cost": self.cost, "result": self.result}
        search = {
            "balance": self.balance,
            "pruning_warmup": self.pruning_warmup,
            "first": list(self.first) or None,
            "together": None if self.together is None else [list(group) for group in self.together],
        }
        return dump_yaml(
            {
                **{key: text for key, text in prose.items() if text},
                "base": self.written,
                **{key: value for key, value in search.items() if value is not None},
                "parameters": {parameter.name: parameter.spec() for parameter in self.parameters},
            }
        )

    def files(self) -> list[str]:
        """The files that trials read besides images: tables of labels, trained weights."""
        settings = [p.domain.setting(option) for p in self.parameters for option in p.domain.ends()]
        paths = [p.path for p in self.parameters for _ in p.domain.ends()]
        written = [put_all({}, path, setting, None) for path, setting in zip(paths, settings, strict=True)]
        found = (leaves(tree) for tree in (self.base.tree(), *written))
        return sorted({str(each[path]) for each in found for path in FILE_SETTINGS if each.get(path)})

    def rows(self) -> list[Row]:
        """The parameters for a table."""
        return table_rows(self)

    def written_section(self, path: str) -> Tree:
        """What the base says of a section."""
        try:
            section: Tree = at(self.written, path)
        except KeyError:
            return {}
        return section

    def _kept(self, path: str) -> Tree:
        """Where the variant of a section changes: what was written, since that decides what is kept."""
        section = self.written_section(path.removesuffix(".name"))
        return {setting: value for setting, value in section.items() if setting != "name"}

    def base_setting(self, parameter: Parameter) -> Any:
        """The base's setting as plain data; None where its variant of the section has no such setting."""
        try:
            return at(self.base.tree(), parameter.path)
        except KeyError:
            return None

    def _gives(self, parameter: Parameter, option: Value, setting: object) -> bool:
        wanted = parameter.domain.setting(option)
        if parameter.path == PRESET:
            return self.build({parameter.name: option}) == self.base
        if not isinstance(wanted, dict):
            return bool(wanted == setting)
        try:
            tree = Configuration.read(put({}, parameter.path, wanted, Configuration)).tree()
        except ValueError:
            return False
        return bool(at(tree, parameter.path) == setting)

    def _walk(self, pick: Callable[[Parameter], Value]) -> dict[str, Value]:
        values: dict[str, Value] = {}
        for parameter in self.parameters:
            if parameter.is_active(values):
                values[parameter.name] = pick(parameter)
        return values

    @cached_property
    def _by_depth(self) -> list[Parameter]:
        """In the order of setting them: sections before their settings, ``name`` before the others."""
        return sorted(self.parameters, key=lambda p: (p.path.count("."), not p.path.endswith(".name")))

    def _derived(
        self, written: Tree, parameters: tuple[Parameter, ...], first: tuple[dict[str, Value], ...]
    ) -> Space:
        balance = self.balance if any(p.name == self.balance for p in parameters) else None
        space = replace(
            self, written=written, base=Configuration.read(written, "base"), parameters=parameters,
            first=first, balance=balance,
        )  # fmt: skip
        return replace(_checked(space), text=space.to_yaml())


def _checked(space: Space) -> Space:
    """The space with everything checked that concerns more than one of its entries."""
    check_balance(space)
    check_corners(space)
    return replace(space, first=check_first(space))


def _overlap(one: str, other: str) -> bool:
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")
