"""The commands that look and change nothing: spaces, data sets and studies."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from search.memory import keeping_what_is_read
from search.options import (
    DEFAULT_STORAGE,
    DataDir,
    ImageSize,
    Json,
    Seed,
    Storage,
    TrainSize,
    ValSize,
    whole,
)


def spaces(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME|FILE", help="The space to show.  [all, as a list]")
    ] = None,
    yaml: Annotated[bool, typer.Option("--yaml", help="Print the file, ready to copy and edit.")] = False,
) -> None:
    """List the search spaces with their questions, or show one."""
    from spaces.catalog import built_in

    if name is None:
        from search.space_tables import list_spaces

        list_spaces(built_in())
        return
    from search.space_tables import show_space
    from spaces.space import Space

    if yaml:
        text = Space.load(name).text
        # a file, whatever its encoding; on a terminal what that takes
        typer.echo(text if sys.stdout.isatty() else text.encode(), nl=False)
    else:
        show_space(Space.load(name))


def data(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FOLDER", help="cifar10, cifar100, imagenette, digits, or a folder of images."
        ),
    ],
    data_dir: DataDir = None,
    image_size: ImageSize = None,
    val_size: ValSize = None,
    train_size: TrainSize = None,
    seed: Seed = 0,
    preview: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw a hundred images as a labelled grid.")
    ] = None,
    augment: Annotated[
        str | None,
        typer.Option(
            metavar="SPACE", help="With --preview: augment each row by settings drawn from this space."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Describe a data set: sizes, classes, splits, channel statistics, hash."""
    from search.data.request import DataRequest
    from search.look import describe_data

    if augment is not None and preview is None:
        raise ValueError("--augment: needs --preview FILE.png to draw into")
    request = DataRequest(dataset, data_dir, image_size)
    describe_data(request, (val_size, train_size, seed), preview, augment, as_json)


def studies(storage: Storage = DEFAULT_STORAGE, as_json: Json = False) -> None:
    """List the studies of a database."""
    from search.look import list_studies

    with keeping_what_is_read():
        list_studies(storage, as_json)


def show(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="The study's name.")],
    storage: Storage = DEFAULT_STORAGE,
    as_json: Json = False,
    page: Annotated[
        int | None,
        typer.Option(parser=whole(1), metavar="N", help="Which hundred of the trials' curves.  [the last]"),
    ] = None,
) -> None:
    """Print a study's leaderboard, levels, importances and curves."""
    from search.look import show_study

    with keeping_what_is_read():
        show_study(storage, study, as_json, page)
