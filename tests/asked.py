"""What databases are asked, for tests of how much is read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa


@dataclass
class Asked:
    """What was asked of databases."""

    statements: list[str] = field(default_factory=list)
    trials_with_values: set[int] = field(default_factory=set)
    """Ids of the trials whose intermediate values were read."""


@contextmanager
def asked() -> Iterator[Asked]:
    """What all engines are asked within the ``with`` block."""
    seen = Asked()

    def note(_1: Any, _2: Any, statement: str, parameters: Any, *_: Any) -> None:
        seen.statements.append(statement)
        if "FROM trial_intermediate_values" in statement:
            values = parameters.values() if isinstance(parameters, dict) else parameters
            seen.trials_with_values |= set(values)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)
