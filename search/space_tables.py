"""How search spaces are listed and shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from search.output import make_console

if TYPE_CHECKING:
    from spaces.space import Space


def list_spaces(questions: dict[str, str]) -> None:
    """Print the built-in spaces with their questions."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("space", no_wrap=True)
    table.add_column("question")
    for name, question in questions.items():
        table.add_row(name, Text(question))
    console = make_console()
    console.print(table)
    console.print("\ncifar-search spaces NAME shows one; --yaml prints it, ready to copy and edit")


def show_space(space: Space) -> None:
    """Print a space: its question, its parameters, and the base that they vary."""
    console = make_console()
    for key in ("question", "command", "cost", "result"):
        console.print(Text(f"{key + ':':<10}{getattr(space, key)}"))
    if space.levels:
        console.print(Text(f"balance:  the same number of trials for each {space.balance}"))
    table = Table(title="parameters", title_justify="left")
    for column in ("parameter", "values", "role", "active if", "base"):
        table.add_column(column, overflow="fold")
    for row in space.rows():
        table.add_row(
            *(Text(cell) for cell in (row.parameter, row.values, row.role, row.condition, row.base))
        )
    console.print(table)
    console.print("base (all that is not varied is fixed at this):")
    from spaces.text import dump_yaml

    console.print(Text(dump_yaml(space.base.tree())))
