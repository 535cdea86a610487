"""The command that says which settings of a study mattered, and how sure that is."""

from __future__ import annotations

from typing import Annotated

import typer

from search.memory import keeping_what_is_read
from search.options import DEFAULT_STORAGE, Json, Storage


def effects(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="The study's name.")],
    storage: Storage = DEFAULT_STORAGE,
    as_json: Json = False,
) -> None:
    """Say which settings mattered, how sure that is, and which command would settle the rest."""
    from search.effects import show_effects

    with keeping_what_is_read():
        show_effects(storage, study, as_json)
