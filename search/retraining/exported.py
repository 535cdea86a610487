"""The data, split and device that an exported configuration names, found here and checked."""

from __future__ import annotations

from pathlib import Path

import torch

from search.data.images import ImageData, Progress
from search.data.request import DataRequest
from search.data.sources import SOURCES, load
from search.data.split import Split
from search.prepare import check_recorded, resolve_device, split_of
from spaces.text import within
from studies.export import ExportedConfiguration, ExportedRun


def request_of(export: ExportedConfiguration, dataset: str | None, data_dir: Path | None) -> DataRequest:
    """Where the data are: what ``--dataset`` says, else what the export says.

    Raises:
        ValueError: if neither says it.
    """
    known = export.data.name if export.data.name in SOURCES else ""
    source = dataset or export.data.source or known
    if not source:
        raise ValueError(
            f"--dataset: must be given, since the export names data {export.data.name!r} without their folder"
        )
    return DataRequest(source, data_dir, export.data.image_size)


def load_exported(
    request: DataRequest, export: ExportedConfiguration, progress: Progress | None = None
) -> ImageData:
    """The training and validation images.

    Raises:
        ValueError: if they are not there, or are not those of the export.
    """
    data = load(request, progress)
    check_recorded(data, export.data, request.dataset)
    _, height, width, channels = data.images_NHWC.shape
    if (data.classes, (height, width, channels)) != (export.data.classes, export.data.shape):
        raise ValueError("data: classes and shape must be those of the data with this hash, but are others")
    return data


def exported_split(run: ExportedRun, data: ImageData) -> Split:
    """The split of a recorded run.

    Raises:
        ValueError: if these data and this version of the program make another one.
    """
    with within("split"):
        split = split_of(run.split, data)
        counts = (len(split.train_indices), len(split.val_indices))
        recorded = (run.split.train_images, run.split.val_images)
        if recorded != counts:
            raise ValueError(
                f"train_images and val_images must be those of the split, {counts}, but got {recorded}"
            )
    return split


def device_for(name: str, run: ExportedRun) -> torch.device:
    """The device asked for; "auto": of the kind that the run was recorded on, if there is one.

    Raises:
        ValueError: if there is no such device.
    """
    return resolve_device("cpu" if name == "auto" and run.device.startswith("CPU") else name)
