"""The commands: parse, call, print; nothing else.

Nothing heavy is imported until a command needs it, so that help and the list of spaces come at once.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from search.interrupts import EXIT_CODE, Interrupts
from search.options import (
    DEFAULT_STORAGE,
    DataDir,
    Dataset,
    ImageSize,
    Json,
    Seed,
    Storage,
    TrainSize,
    ValSize,
    number_or_auto,
    seconds,
    whole,
)

USAGE_ERROR: Any = typer.BadParameter.__base__
"""Whatever is wrong with the words of a command; typer does not export it."""

app = typer.Typer(
    help="Search for the settings of small image classifiers, and get an answer that can be trusted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command()
def run(
    space: Annotated[str, typer.Option(metavar="NAME|FILE", help="A built-in search space, or a YAML file.")],
    trials: Annotated[
        int | None,
        typer.Option(
            parser=whole(1),
            metavar="N",
            help="The study's TOTAL number of trials.  [50; without end if --timeout is given]",
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(parser=seconds, metavar="TIME", help="Stop after this time: 90, 90s, 10m or 2h."),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(parser=whole(1), metavar="N", help="Epochs of a full trial.  [the space's]"),
    ] = None,
    dataset: Dataset = "cifar10",
    data_dir: DataDir = None,
    image_size: ImageSize = None,
    val_size: ValSize = None,
    train_size: TrainSize = None,
    study: Annotated[
        str | None, typer.Option(metavar="NAME", help="The study's name.  [space and data set]")
    ] = None,
    storage: Storage = DEFAULT_STORAGE,
    sampler: Annotated[
        str, typer.Option(metavar="NAME", help="auto, tpe, tpe-univariate, gp, random or grid.")
    ] = "auto",
    pruner: Annotated[
        str, typer.Option(metavar="NAME", help="auto, none, median, asha or hyperband.")
    ] = "auto",
    seed: Seed = 0,
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[
        str,
        typer.Option(metavar="NAME", help="auto (bf16 on CUDA, fp32 on a CPU), fp32 or bf16."),
    ] = "auto",
    workers: Annotated[
        Any,
        typer.Option(
            parser=number_or_auto,
            metavar="N|auto",
            help="Local processes; auto: a CPU's every core, or one on a GPU.",
        ),
    ] = "auto",
    repeat: Annotated[
        int,
        typer.Option(parser=whole(1), metavar="N", help="Seeds for each point, with --sampler grid."),
    ] = 1,
) -> None:
    """Search a space, or continue until the study has closed its total of trials."""
    interrupts = Interrupts()
    from search.coordinator import SearchRequest, run_search
    from search.data.request import DataRequest
    from search.screen import make_screen
    from spaces.space import Space
    from spaces.text import within

    with within("--space"):
        chosen = Space.load(space)
    request = SearchRequest(
        space=chosen,
        data=DataRequest(dataset, data_dir, image_size),
        storage_url=storage,
        study=study,
        trials=trials,
        timeout=timeout,
        epochs=epochs,
        val_size=val_size,
        train_size=train_size,
        sampler=sampler,
        pruner=pruner,
        seed=seed,
        device=device,
        precision=precision,
        workers=workers,
        repeat=repeat,
    )
    screen = make_screen(storage, DEFAULT_STORAGE)
    try:
        sys.exit(run_search(request, screen, interrupts))
    finally:
        screen.close()


@app.command()
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
        typer.echo(Space.load(name).text, nl=False)
    else:
        show_space(Space.load(name))


@app.command()
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


@app.command()
def studies(storage: Storage = DEFAULT_STORAGE, as_json: Json = False) -> None:
    """List the studies of a database."""
    from search.look import list_studies

    list_studies(storage, as_json)


@app.command()
def show(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="The study's name.")],
    storage: Storage = DEFAULT_STORAGE,
    as_json: Json = False,
) -> None:
    """Print a study's leaderboard, levels, importances and curves."""
    from search.look import show_study

    show_study(storage, study, as_json)


def main() -> None:
    """Run a command; a user's mistake is one line and exit code 2."""
    try:
        code = app(standalone_mode=False)
        if code == EXIT_CODE:  # typer's answer to Ctrl-C, without a word
            raise KeyboardInterrupt
        sys.exit(code)
    except USAGE_ERROR as error:
        _refuse(error.format_message())
    except ValueError as error:
        _refuse(str(error))
    except KeyboardInterrupt:
        typer.echo("cifar-search: interrupted", err=True)
        sys.exit(EXIT_CODE)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _refuse(message: str) -> None:
    typer.echo(f"cifar-search: {' '.join(message.split())}", err=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
