"""What a parameter can be: a range of numbers, a range of integers, or a choice.

Each kind knows how Optuna is asked for a value, which values it accepts, the points of its grid, and how it
is written in a space file. ``trial`` is anything with Optuna's three ``suggest_`` methods.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any, Protocol

from spaces.text import brief, is_plain_text, short_number, unknown

Value = bool | int | float | str
"""A parameter's value as Optuna stores it; of a named choice, the name."""
LONGEST_CHOICE = 60_000
"""Characters of all the options of a choice as JSON, which a database keeps in one row with each value."""


class Trial(Protocol):
    """The part of ``optuna.Trial`` that a space uses."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float: ...

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int: ...

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...


@dataclass(frozen=True)
class Floats:
    """Real numbers in [low, high]: uniform, log-uniform, or in steps from low."""

    low: float
    high: float
    step: float | None = None
    log: bool = False

    def suggest(self, trial: Trial, name: str) -> float:
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)

    def accept(self, value: object) -> float:
        """The value, put exactly onto its step. Raises ValueError where it is not of this range."""
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"must be a number, but got {brief(value)}")
        # a step adds up to a rounding error more than the end of the range
        slack = 1e-8 * (self.step or 0)
        if not self.low - slack <= value <= self.high + slack:
            raise ValueError(f"must be {_between(self.low, self.high)}, but got {brief(value)}")
        if self.step is None:
            return float(value)
        steps = (value - self.low) / self.step
        rounding = 4 * max(math.ulp(float(value)), math.ulp(self.low)) / self.step  # of steps far from zero
        if abs(steps - round(steps)) > 1e-8 + rounding:
            raise ValueError(f"must be {self.note()}, but got {brief(value)}")
        return self._stepped(round(steps))

    def setting(self, value: Value) -> object:
        return value

    def ends(self) -> tuple[float, ...]:
        return (self.low, self.high)

    def grid(self) -> Iterable[float] | None:
        """Every step of the range; None where it is continuous."""
        if self.step is None:
            return None
        return map(self._stepped, range(round((self.high - self.low) / self.step) + 1))

    def _stepped(self, steps: int) -> float:
        return _on_step(self.low, self.step, steps)

    def note(self) -> str:
        """The range in words, such as "log-uniform 1e-4 to 1"."""
        ends = f"{short_number(self.low)} to {short_number(self.high)}"
        if self.step is not None:
            return f"{ends} in steps of {short_number(self.step)}"
        return f"{'log-uniform' if self.log else 'uniform'} {ends}"

    def spec(self) -> dict[str, object]:
        """The range as a space file writes it."""
        return {"float": [self.low, self.high], **_options(self.step, self.log)}


@lru_cache(maxsize=10_000)
def _on_step(low: float, step: float | None, steps: int) -> float:
    return float(Decimal(repr(low)) + steps * Decimal(repr(step)))


@dataclass(frozen=True)
class Integers:
    """Integers in [low, high], both included: uniform, log-uniform, or in steps from low."""

    low: int
    high: int
    step: int = 1
    log: bool = False

    def suggest(self, trial: Trial, name: str) -> int:
        return trial.suggest_int(name, self.low, self.high, step=self.step, log=self.log)

    def accept(self, value: object) -> int:
        """The value. Raises ValueError where it is not of this range."""
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"must be an integer, but got {brief(value)}")
        if not self.low <= value <= self.high:
            raise ValueError(f"must be {_between(self.low, self.high)}, but got {brief(value)}")
        if (value - self.low) % self.step:
            raise ValueError(f"must be {self.note()}, but got {brief(value)}")
        return value

    def setting(self, value: Value) -> object:
        return value

    def ends(self) -> tuple[int, ...]:
        return (self.low, self.high)

    def grid(self) -> Iterable[int] | None:
        """Every integer of the range; None where it is logarithmic, so that its integers are not alike."""
        return None if self.log else range(self.low, self.high + 1, self.step)

    def note(self) -> str:
        """The range in words, such as "integers 2 to 8"."""
        steps = f" in steps of {self.step}" if self.step > 1 else ""
        return f"{'log-uniform ' if self.log else ''}integers {self.low} to {self.high}{steps}"

    def spec(self) -> dict[str, object]:
        """The range as a space file writes it."""
        return {"int": [self.low, self.high], **_options(self.step if self.step > 1 else None, self.log)}


@dataclass(frozen=True)
class Choice:
    """One of several values; with names, the names stand for settings that may be lists or whole sections."""

    options: tuple[Value, ...]
    """What Optuna stores: the values themselves, or their names."""
    settings: tuple[Any, ...] | None = None
    """With names: the setting that each name stands for."""

    def suggest(self, trial: Trial, name: str) -> Value:
        suggested: Value = trial.suggest_categorical(name, self.options)
        return suggested

    def accept(self, value: object) -> Value:
        """The option that equals the value. Raises ValueError where there is none."""
        for option in self.options:
            if isinstance(option, bool) == isinstance(value, bool) and option == value:
                return option
        raise unknown("choice", value, map(label, self.options))

    def setting(self, value: Value) -> Any:
        """What the configuration gets for an option."""
        return value if self.settings is None else self.settings[self.options.index(value)]

    def ends(self) -> tuple[Value, ...]:
        return self.options

    def grid(self) -> tuple[Value, ...]:
        return self.options

    def note(self) -> str:
        """The options in words."""
        return ", ".join(map(label, self.options))

    def spec(self) -> dict[str, object]:
        """The choice as a space file writes it."""
        if self.settings is None:
            return {"choice": list(self.options)}
        return {"choice": dict(zip(map(str, self.options), self.settings, strict=True))}


Domain = Floats | Integers | Choice


def label(value: Value) -> str:
    """An option as text, as YAML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return short_number(value) if isinstance(value, float) else str(value)


def read_domain(spec: dict[str, Any]) -> Domain:
    """The domain that a parameter's entry declares by exactly one of ``float``, ``int`` and ``choice``.

    Raises:
        ValueError: the rule and the value.
    """
    kinds: dict[str, Callable[[dict[str, Any]], Domain]] = {
        "float": _read_floats,
        "int": _read_integers,
        "choice": _read_choice,
    }
    given = [kind for kind in kinds if kind in spec]
    if len(given) != 1:
        raise ValueError(
            f"needs exactly one of {', '.join(kinds)}, but got {', '.join(given) or 'none of them'}"
        )
    return kinds[given[0]](spec)


def _read_floats(spec: dict[str, Any]) -> Floats:
    low, high = (_number(bound, "float") for bound in _bounds(spec, "float"))
    step = _number(spec["step"], "step") if "step" in spec else None
    domain = Floats(low, high, step, _log(spec))
    _check_range(domain)
    if step is not None and (Decimal(repr(high)) - Decimal(repr(low))) % Decimal(repr(step)):
        raise ValueError(f"step: must divide the range, but got step={step}, float={spec['float']}")
    return domain


def _read_integers(spec: dict[str, Any]) -> Integers:
    low, high = (_integer(bound, "int") for bound in _bounds(spec, "int"))
    step = _integer(spec["step"], "step") if "step" in spec else 1
    domain = Integers(low, high, step, _log(spec))
    _check_range(domain)
    if (high - low) % step:
        raise ValueError(f"step: must divide the range, but got step={step}, int={spec['int']}")
    return domain


def _check_range(domain: Floats | Integers) -> None:
    bounds = [domain.low, domain.high]
    if domain.low >= domain.high:
        raise ValueError(f"low < high must hold, but got {bounds}")
    if domain.step is not None and domain.step <= 0:
        raise ValueError(f"step: must be above 0, but got {domain.step}")
    if domain.log and domain.low <= 0:
        raise ValueError(f"low > 0 must hold with log: true, but got {bounds}")


def _log(spec: dict[str, Any]) -> bool:
    log = spec.get("log", False)
    if not isinstance(log, bool):
        raise ValueError(f"log: must be true or false, but got {brief(log)}")
    if log and "step" in spec:
        raise ValueError(f"step: a log range has no steps, but got step={brief(spec['step'])} with log: true")
    return log


def _bounds(spec: dict[str, Any], kind: str) -> list[Any]:
    bounds = spec[kind]
    if not isinstance(bounds, list) or len(bounds) != 2:
        raise ValueError(f"{kind}: must be a list of low and high, but got {brief(bounds)}")
    return bounds


def _number(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{what}: must be a number, but got {brief(value)}")
    if abs(value) > 1e300 or math.isnan(value):
        raise ValueError(f"{what}: must be finite, but got {brief(value)}")
    return float(value)


def _integer(value: object, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{what}: must be an integer, but got {brief(value)}")
    if abs(value) >= 2**53:
        raise ValueError(f"{what}: must be within 53 bits, but got {brief(value)}")
    return value


def _read_choice(spec: dict[str, Any]) -> Choice:
    for option in ("step", "log"):
        if option in spec:
            raise ValueError(f"{option}: a choice has none, but got {option}={brief(spec[option])}")
    choice = spec["choice"]
    if isinstance(choice, dict):
        domain = Choice(tuple(_name(name) for name in choice), tuple(choice.values()))
    elif isinstance(choice, list):
        domain = Choice(tuple(_option(option) for option in choice))
    else:
        raise ValueError(f"choice: must be a list or a mapping of names, but got {brief(choice)}")
    _check_options(domain)
    return domain


def _check_options(domain: Choice) -> None:
    if len(domain.options) < 2:
        raise ValueError(f"choice: needs at least two options, but got {list(domain.options)}")
    for settings in (domain.options, domain.settings or ()):
        for i, value in enumerate(settings):
            if value in settings[:i]:
                raise ValueError(f"choice: no option may come twice, but got {brief(value)} again")
    written = len(json.dumps(domain.options))
    if written > LONGEST_CHOICE:
        raise ValueError(
            f"choice: its options must have at most {LONGEST_CHOICE} characters in all, written as JSON, but "
            f"got {written}: give fewer or shorter ones"
        )


def _name(name: object) -> str:
    if not isinstance(name, str) or not name or not is_plain_text(name):
        raise ValueError(f"choice: a name must be text (in quotes if need be), but got {brief(name)}")
    return name


def _option(option: object) -> Value:
    if isinstance(option, bool) or (isinstance(option, str) and is_plain_text(option)):
        return option
    if isinstance(option, int):
        return _integer(option, "choice")
    if isinstance(option, float):
        return _number(option, "choice")
    raise ValueError(
        f"choice: an option must be text, a number, true or false, but got {brief(option)}; "
        "give other values names: {small: [32, 64], ...}"
    )


def _between(low: float, high: float) -> str:
    return f"from {short_number(low)} to {short_number(high)}"


def _options(step: float | None, log: bool) -> dict[str, object]:
    return {**({"step": step} if step is not None else {}), **({"log": True} if log else {})}
