"""Printing a study's effects: read, worked out, shown as tables or as JSON."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, replace

from rich.text import Text

from search.effects_view import effects_view, next_lines
from search.options import DEFAULT_STORAGE
from search.output import make_console
from spaces.text import within
from studies.effects import Effects, read_effects
from studies.storage import open_storage
from studies.study import SearchStudy
from studies.urls import masked


def show_effects(storage_url: str, name: str, as_json: bool) -> None:
    """Print the effects of the study of this name.

    Raises:
        ValueError: if there is no such database or study.
    """
    with within("--storage"):
        storage = open_storage(storage_url, create=False)
    effects = _with_storage(read_effects(SearchStudy(storage, name)), storage_url)
    if as_json:
        print(json.dumps(asdict(effects), indent=2, allow_nan=False))  # noqa: T201  a script reads this
        return
    console = make_console()
    console.print(effects_view(effects))
    console.print()
    for line in next_lines(effects):
        console.print(Text(line), soft_wrap=True)


def _with_storage(effects: Effects, storage_url: str) -> Effects:
    """The commands to type next, for this database; a URL with a password is left to the environment."""
    if storage_url == DEFAULT_STORAGE:
        return effects
    secret = masked(storage_url) != storage_url
    where = '"$CIFAR_SEARCH_STORAGE"' if secret else shlex.quote(storage_url)
    commands = (replace(each, command=f"{each.command} --storage {where}") for each in effects.next)
    return replace(effects, next=tuple(commands))
