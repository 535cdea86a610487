"""Files that cannot be used, all named in one line."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

from spaces.text import plain

MOST = 10
"""Names in one message; of more, only the number is told."""
Problem: TypeAlias = tuple[Path, str]
"""A file or folder, and the rule that it breaks."""


class Unusable(Exception):
    """The rule that a file breaks, without the file's name."""


def refusal_of(problems: Sequence[Problem]) -> ValueError:
    """The error, to be raised, for at least one file: one line with the first ten, each rule once, and the
    count of all."""
    if len(problems) == 1:
        path, rule = problems[0]
        return ValueError(f"{plain(str(path))}: {rule}")
    folder = os.path.commonpath([path.parent for path, _ in problems])
    named: dict[str, list[str]] = {}
    for path, rule in problems[:MOST]:
        named.setdefault(rule, []).append(plain(str(path.relative_to(folder))))
    lines = "; ".join(f"{', '.join(names)}: {rule}" for rule, names in named.items())
    more = f"; and {len(problems) - MOST} more" if len(problems) > MOST else ""
    return ValueError(f"{plain(folder)}: {len(problems)} files cannot be used: {lines}{more}")


def listed(names: Iterable[str]) -> str:
    """Plain names in quotes, for a message: the first ten, and the count of the rest."""
    quoted = [f"'{name}'" for name in names]
    more = f" and {len(quoted) - MOST} more" if len(quoted) > MOST else ""
    return ", ".join(quoted[:MOST]) + more
