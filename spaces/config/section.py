"""What every section of a configuration is made of: the base class, and types with their bounds."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Rate = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]


def as_tuple(value: Any) -> Any:
    """A list, as YAML gives it, as the tuple that a frozen section holds."""
    return tuple(value) if isinstance(value, list) else value


class Section(BaseModel):
    """Base of every part of a configuration: frozen, strictly typed, and without unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
