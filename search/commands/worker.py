"""The command that joins a study."""

from __future__ import annotations

import sys
from typing import Annotated

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
    seconds,
)
from search.output import goes_on_unheard


@goes_on_unheard
def worker(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="A search, confirmation or ablation.")],
    storage: Storage = DEFAULT_STORAGE,
    timeout: Annotated[
        float | None,
        typer.Option(parser=seconds, metavar="TIME", help="Leave after this time: 90, 90s, 10m or 2h."),
    ] = None,
    dataset: OtherDataset = None,
    data_dir: DataDir = None,
    device: Device = "auto",
    workers: Workers = "auto",
    per_gpu: PerGpu = "auto",
    graphs: Graphs = True,
) -> None:
    """Help with a study that exists, from any machine, until its total is reached."""
    interrupts = Interrupts()
    from search.joining import join
    from search.placement import Resources
    from search.repeating.common import Where
    from search.screen import make_screen

    where = Where(storage, dataset, data_dir, Resources(device, workers, per_gpu, graphs))
    screen = make_screen()
    try:
        sys.exit(join(where, study, timeout, screen, interrupts))
    finally:
        screen.close()
