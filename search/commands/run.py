"""The command that searches."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from search.interrupts import Interrupts
from search.options import (
    DEFAULT_STORAGE,
    DataDir,
    Dataset,
    Device,
    GpusPerWorker,
    Graphs,
    ImageSize,
    PerGpu,
    Ray,
    RunWorkers,
    Seed,
    Storage,
    TrainSize,
    ValSize,
    seconds,
    whole,
)
from search.output import goes_on_unheard


@goes_on_unheard
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
    yes: Annotated[
        bool, typer.Option("--yes", help="Lower the study's total without a question, for scripts.")
    ] = False,
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
    device: Device = "auto",
    precision: Annotated[
        str,
        typer.Option(metavar="NAME", help="auto (bf16 on CUDA, fp32 on a CPU), fp32 or bf16."),
    ] = "auto",
    workers: RunWorkers = "auto",
    per_gpu: PerGpu = "auto",
    graphs: Graphs = True,
    ray: Ray = None,
    gpus_per_worker: GpusPerWorker = None,
    repeat: Annotated[
        int,
        typer.Option(parser=whole(1), metavar="N", help="Seeds for each point, with --sampler grid."),
    ] = 1,
) -> None:
    """Search a space, or continue until the study has closed its total of trials."""
    interrupts = Interrupts()
    from search.cluster.request import ray_request
    from search.coordinator import SearchRequest, run_search
    from search.data.request import DataRequest
    from search.placement import Resources
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
        yes=yes,
        timeout=timeout,
        epochs=epochs,
        val_size=val_size,
        train_size=train_size,
        sampler=sampler,
        pruner=pruner,
        seed=seed,
        resources=Resources(device, workers, per_gpu, graphs),
        ray=ray_request(ray, gpus_per_worker),
        precision=precision,
        repeat=repeat,
    )
    screen = make_screen()
    try:
        sys.exit(run_search(request, screen, interrupts))
    finally:
        screen.close()
