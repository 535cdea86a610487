"""What every section of a configuration is made of: the base class, and types with their bounds."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from spaces.text import PLAIN_TEXT, brief, is_plain_text


def _printable(name: str) -> str:
    if not is_plain_text(name):
        raise ValueError(f"the name of a file must be {PLAIN_TEXT}, but got {brief(name)}")
    return name


Share = Annotated[float, Field(ge=0.0, le=1.0)]
Rate = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1, le=65_536)]
CountOrNone = Annotated[int, Field(ge=0, le=65_536)]
"""0 stands for none, or for a default that the field names."""
Seed = Annotated[int, Field(ge=0, lt=2**63)]
FileName = Annotated[str, AfterValidator(_printable)]


def as_tuple(value: Any) -> Any:
    """A list, as YAML gives it, as the tuple that a frozen section holds."""
    return tuple(value) if isinstance(value, list) else value


class Section(BaseModel):
    """Base of every part of a configuration: frozen, strictly typed, and without unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
