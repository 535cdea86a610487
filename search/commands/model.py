"""The commands that turn a study into a network: export, retrain, verify and predict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from search.interrupts import Interrupts
from search.memory import keeping_what_is_read
from search.options import DEFAULT_STORAGE, DataDir, Json, OtherDataset, Storage, Workers, whole
from search.output import goes_on_unheard, say

Exported = Annotated[Path, typer.Argument(metavar="FILE", help="A file that export wrote.")]
Device = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="auto (of the kind that was recorded, if there is one), cpu, cuda or cuda:N."
    ),
]


@goes_on_unheard
def export(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="The search's name.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The YAML file to write.")],
    trial: Annotated[
        int | None, typer.Option(parser=whole(0), metavar="N", help="This trial.  [the best configuration]")
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(parser=whole(1), metavar="K", help="The K best, as FILE-1.yaml to FILE-K.yaml."),
    ] = None,
    confirmed: Annotated[
        bool, typer.Option("--confirmed", help="The finalist that confirm found the best.")
    ] = False,
    storage: Storage = DEFAULT_STORAGE,
    dataset: OtherDataset = None,
    data_dir: DataDir = None,
) -> None:
    """Write a configuration with all that is needed to train it again, anywhere."""
    from search.retraining.exporting import ExportRequest, export_study

    request = ExportRequest(study, output, trial, top, confirmed, storage, dataset, data_dir)
    with keeping_what_is_read():
        lines = export_study(request)
    for line in lines:
        say(line)


@goes_on_unheard
def retrain(
    file: Exported,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where all results go; it is continued.")
    ],
    seeds: Annotated[int, typer.Option(parser=whole(1), metavar="N", help="Trainings.")] = 3,
    keep_validation: Annotated[
        bool,
        typer.Option(
            "--keep-validation", help="Hold the validation images out, and stop early if configured."
        ),
    ] = False,
    dataset: OtherDataset = None,
    data_dir: DataDir = None,
    device: Device = "auto",
    precision: Annotated[
        str, typer.Option(metavar="NAME", help="recorded, auto, fp32 or bf16.")
    ] = "recorded",
    workers: Workers = "auto",
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Train an exported configuration for keeps, and judge it once on the test images."""
    interrupts = Interrupts()
    from search.retraining.retrain import RetrainRequest
    from search.retraining.retrain import retrain as train
    from search.retraining.screen import RetrainScreen

    request = RetrainRequest(
        file, output, seeds, keep_validation, dataset, data_dir, device, precision, workers, storage
    )
    raise typer.Exit(train(request, RetrainScreen(), interrupts))


@goes_on_unheard
def verify(
    file: Exported,
    run: Annotated[
        int, typer.Option(parser=whole(1), metavar="K", help="Which of the file's runs, from 1.")
    ] = 1,
    dataset: OtherDataset = None,
    data_dir: DataDir = None,
    device: Device = "auto",
) -> None:
    """Train a recorded run again: the same to the last bit, on a GPU within a tolerance, or what differs."""
    interrupts = Interrupts()
    from search.retraining.screen import RetrainScreen
    from search.retraining.verify import VerifyRequest
    from search.retraining.verify import verify as train_again

    request = VerifyRequest(file, run, dataset, data_dir, device)
    raise typer.Exit(train_again(request, RetrainScreen(), interrupts))


def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A folder of retrain, or a seed's in it.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE|FOLDER...", help="Files to judge.")],
    top: Annotated[int, typer.Option(parser=whole(1), metavar="N", help="Classes to give.")] = 1,
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda or cuda:N.")] = "cpu",
    as_json: Json = False,
) -> None:
    """Give the class of images, and its probability."""
    from search.retraining import predict as judge

    predictions = judge.predict(run, images, top, device)
    if as_json:
        print(judge.as_json(list(predictions)))  # noqa: T201  a script reads this
        return
    for prediction in predictions:
        say(judge.as_line(prediction))
