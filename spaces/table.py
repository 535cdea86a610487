"""The parameters of a space in words, for a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from spaces.domain import label
from spaces.parameter import Parameter
from spaces.text import brief

if TYPE_CHECKING:
    from spaces.space import Space


class Row(NamedTuple):
    """A parameter as a table shows it, all in words."""

    parameter: str
    values: str
    role: str
    condition: str
    base: str
    """The base's option or setting; empty where the parameter is not active in the base."""


def table_rows(space: Space) -> list[Row]:
    """One row for each parameter, parents before children."""
    return [
        Row(p.name, p.domain.note(), p.role, p.condition_note(), _base_note(space, p))
        for p in space.parameters
    ]


def _base_note(space: Space, parameter: Parameter) -> str:
    value = space.base_values.get(parameter.name, space.base_setting(parameter))
    if value is None or not parameter.is_active(space.base_values):
        return ""
    if not isinstance(value, dict):
        return label(value) if isinstance(value, (bool, int, float, str)) else brief(value)
    told = {k: v for k, v in value.items() if k == "name" or k in space.written_section(parameter.path)}
    return ", ".join(f"{k}: {v}" for k, v in told.items()) or "defaults"
