"""The commands: parse, call, print; nothing else.

Nothing heavy is imported until a command needs it, so that help and the list of spaces come at once.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    pass

DEFAULT_STORAGE = "sqlite:///cifar-search.db"

app = typer.Typer(
    help="Search for the settings of small image classifiers, and get an answer that can be trusted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Storage = Annotated[
    str,
    typer.Option(help="Database URL of the studies.", envvar="CIFAR_SEARCH_STORAGE", show_envvar=True),
]
Dataset = Annotated[
    str,
    typer.Option(help="cifar10, cifar100, digits, or a folder of images (train/CLASS/*, val/, test/)."),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Where downloads and the cache of decoded images live.  [env: CIFAR_SEARCH_DATA; default: the "
        "user's cache folder]"
    ),
]
ImageSize = Annotated[int | None, typer.Option(min=1, help="Resize images to this many pixels square.")]
ValSize = Annotated[
    str | None,
    typer.Option(help="Validation images: a share (0.1) or a count (5000) of the training images."),
]
TrainSize = Annotated[
    int | None, typer.Option(min=1, help="Train on a stratified subset of this many images.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


@app.command()
def run(
    space: Annotated[str, typer.Option(help="A built-in search space, or the path of a YAML file.")],
    trials: Annotated[
        int | None,
        typer.Option(
            min=1, help="The study's TOTAL number of trials.  [default: 50, or no limit with --timeout]"
        ),
    ] = None,
    timeout: Annotated[
        str | None, typer.Option(help="Stop after this time: seconds, or 90s, 10m, 2h.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of a full trial.  [default: the space's]")
    ] = None,
    dataset: Dataset = "cifar10",
    data_dir: DataDir = None,
    image_size: ImageSize = None,
    val_size: ValSize = None,
    train_size: TrainSize = None,
    study: Annotated[str | None, typer.Option(help="Name.  [default: space and data set]")] = None,
    storage: Storage = DEFAULT_STORAGE,
    sampler: Annotated[str, typer.Option(help="auto, tpe, tpe-univariate, gp, random or grid.")] = "auto",
    pruner: Annotated[str, typer.Option(help="auto, none, median, asha or hyperband.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the split, the sampler and every training.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[
        str, typer.Option(help="fp32 or bf16.  [auto: bf16 on CUDA, fp32 on a CPU]")
    ] = "auto",
    workers: Annotated[
        str, typer.Option(help="Local processes: a number, or auto (a CPU: one for each core; a GPU: 1).")
    ] = "auto",
    repeat: Annotated[int, typer.Option(min=1, help="Seeds for each point, with --sampler grid.")] = 1,
) -> None:
    """Search a space, or continue until the study has closed its total of trials."""
    from search.coordinator import SearchRequest, run_search
    from search.data.request import DataRequest
    from search.screen import make_screen
    from spaces.space import Space

    request = SearchRequest(
        space=Space.load(space),
        data=DataRequest(dataset, data_dir, image_size),
        storage_url=storage,
        study=study,
        trials=trials,
        timeout=None if timeout is None else _seconds(timeout),
        epochs=epochs,
        val_size=_val_size(val_size),
        train_size=train_size,
        sampler=sampler,
        pruner=pruner,
        seed=seed,
        device=device,
        precision=precision,
        workers=_workers(workers),
        repeat=repeat,
    )
    screen = make_screen(storage, DEFAULT_STORAGE)
    try:
        raise typer.Exit(run_search(request, screen))
    finally:
        screen.close()


@app.command()
def spaces(
    name: Annotated[str | None, typer.Argument(help="A built-in space, or a YAML file.")] = None,
    yaml: Annotated[bool, typer.Option("--yaml", help="Print the file, ready to copy and edit.")] = False,
) -> None:
    """List the search spaces with their questions, or show one."""
    from spaces.space import Space, built_in

    if name is None:
        from search.space_tables import list_spaces

        list_spaces(built_in())
    elif yaml:
        typer.echo(Space.load(name).text, nl=False)
    else:
        from search.space_tables import show_space

        show_space(Space.load(name))


@app.command()
def data(
    dataset: Annotated[str, typer.Argument(help="cifar10, cifar100, digits, or a folder of images.")],
    data_dir: DataDir = None,
    image_size: ImageSize = None,
    val_size: ValSize = None,
    train_size: TrainSize = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the split.")] = 0,
    preview: Annotated[
        Path | None, typer.Option(help="Draw the first hundred images into this PNG file.")
    ] = None,
    augment: Annotated[
        str | None,
        typer.Option(help="With --preview: augment each row by a configuration drawn from this space."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Describe a data set: sizes, classes, splits, channel statistics, hash."""
    from search.data.request import DataRequest
    from search.look import describe_data

    request = DataRequest(dataset, data_dir, image_size)
    split = (_val_size(val_size), train_size, seed)
    if augment is not None and preview is None:
        raise ValueError("--augment: needs --preview FILE.png to draw into")
    describe_data(request, split, preview, augment, as_json)


@app.command()
def studies(storage: Storage = DEFAULT_STORAGE, as_json: Json = False) -> None:
    """List the studies of a database."""
    from search.look import list_studies

    list_studies(storage, as_json)


@app.command()
def show(
    study: Annotated[str, typer.Argument(help="The study's name.")],
    storage: Storage = DEFAULT_STORAGE,
    as_json: Json = False,
) -> None:
    """Print a study's leaderboard, levels, importances and curves."""
    from search.look import show_study

    show_study(storage, study, as_json)


def _seconds(text: str) -> float:
    units = {"": 1, "s": 1, "m": 60, "h": 3600}
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    seconds = float(match[1]) * units[match[2]] if match else 0.0
    if seconds <= 0:
        raise ValueError(f"--timeout: must be a positive time such as 90, 90s, 10m or 2h, but got {text!r}")
    return seconds


def _val_size(text: str | None) -> float | int | None:
    if text is None:
        return None
    try:
        size = int(text) if re.fullmatch(r"[+-]?\d+", text) else float(text)
    except ValueError:
        size = 0
    if not (0 < size < 1 or (isinstance(size, int) and size >= 1)):
        raise ValueError(
            f"--val-size: must be a share between 0 and 1 or a whole number of images, but got {text!r}"
        )
    return size


def _workers(text: str) -> int | None:
    if text == "auto":
        return None
    if not re.fullmatch(r"\d+", text) or int(text) < 1:
        raise ValueError(f"--workers: must be auto or a whole number of at least 1, but got {text!r}")
    return int(text)


def main() -> None:
    """Run a command; a user's mistake is one line and exit code 2."""
    usage_error = typer.BadParameter.__mro__[1]
    try:
        sys.exit(app(standalone_mode=False))
    except usage_error as error:
        _refuse(error.format_message())  # type: ignore[attr-defined]
    except ValueError as error:
        _refuse(str(error))
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _refuse(message: str) -> None:
    typer.echo(f"cifar-search: {' '.join(message.split())}", err=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
