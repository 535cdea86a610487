"""The commands that train configurations of a search again: confirm and ablate."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from search.interrupts import Interrupts
from search.options import (
    DEFAULT_STORAGE,
    DataDir,
    Device,
    Graphs,
    OtherDataset,
    PerGpu,
    Storage,
    Workers,
    paths,
    whole,
)
from search.output import goes_on_unheard


@goes_on_unheard
def confirm(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="The search whose best are repeated.")],
    top: Annotated[
        int, typer.Option(parser=whole(1), metavar="N", help="How many of the best configurations.")
    ] = 5,
    seeds: Annotated[
        int | None,
        typer.Option(
            parser=whole(1), metavar="N", help="Fresh seeds, each with a fresh split.  [5, or 1 with --folds]"
        ),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(parser=whole(2), metavar="K", help="K-fold cross-validation in place of hold-out."),
    ] = None,
    per_level: Annotated[
        str | None,
        typer.Option(
            metavar="PARAMETER", help="The best of each level of this parameter, in place of --top."
        ),
    ] = None,
    dataset: OtherDataset = None,
    data_dir: DataDir = None,
    storage: Storage = DEFAULT_STORAGE,
    device: Device = "auto",
    workers: Workers = "auto",
    per_gpu: PerGpu = "auto",
    graphs: Graphs = True,
) -> None:
    """Repeat the best configurations on fresh seeds and fresh splits, at full length."""
    interrupts = Interrupts()
    from search.placement import Resources
    from search.repeating.common import Where
    from search.repeating.confirm import confirm as carry_out
    from search.screen import make_screen

    where = Where(storage, dataset, data_dir, Resources(device, workers, per_gpu, graphs))
    repeats = (seeds or (1 if folds else 5), folds)
    screen = make_screen()
    try:
        sys.exit(carry_out(where, study, (top, per_level), repeats, screen, interrupts))
    finally:
        screen.close()


@goes_on_unheard
def ablate(
    source: Annotated[
        str, typer.Argument(metavar="STUDY|FILE", help="A search, or an exported configuration (.yaml).")
    ],
    seeds: Annotated[
        int, typer.Option(parser=whole(1), metavar="N", help="Fresh seeds, each with a fresh split.")
    ] = 3,
    together: Annotated[
        list[Any] | None,
        typer.Option(
            parser=paths,
            metavar="PATH,PATH...",
            help="Settings that move together, besides the space's own groups. May be repeated.",
        ),
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Keep each step's first model here, and draw its features."),
    ] = None,
    dataset: OtherDataset = None,
    data_dir: DataDir = None,
    storage: Storage = DEFAULT_STORAGE,
    device: Device = "auto",
    workers: Workers = "auto",
    per_gpu: PerGpu = "auto",
    graphs: Graphs = True,
) -> None:
    """Say what each setting of the winner is worth: put back alone, and put into the base alone."""
    interrupts = Interrupts()
    from search.placement import Resources
    from search.repeating.ablate import ablate as carry_out
    from search.repeating.common import Where
    from search.screen import make_screen

    where = Where(storage, dataset, data_dir, Resources(device, workers, per_gpu, graphs))
    screen = make_screen()
    try:
        sys.exit(carry_out(where, source, (seeds, tuple(together or ()), features), screen, interrupts))
    finally:
        screen.close()
