"""The commands that change a study as a whole: stop, delete and rename."""

from __future__ import annotations

from typing import Annotated

import typer

from search.options import DEFAULT_STORAGE, Storage, Yes
from search.output import goes_on_unheard


@goes_on_unheard
def stop(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="A search, confirmation or ablation.")],
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Tell all who work on a study, on any machine, to put their trials back and leave."""
    from search.upkeep import stop_study

    stop_study(storage, study)


@goes_on_unheard
def delete(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="A search, confirmation or ablation.")],
    storage: Storage = DEFAULT_STORAGE,
    yes: Yes = False,
) -> None:
    """Delete a study with its repetitions, checkpoints and artifacts."""
    from search.upkeep import delete_study

    delete_study(storage, study, yes)


@goes_on_unheard
def rename(
    old: Annotated[str, typer.Argument(metavar="OLD", help="The search's name.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="The name that it is to have.")],
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Give a search another name, and its repetitions theirs after it."""
    from search.upkeep import rename_study

    rename_study(storage, old, new)
