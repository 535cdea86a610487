"""What a run trains on: one data set and its split, resident on the training device as uint8.

Shapes: N images, H height, W width, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from search.data.describe import statistics_of
from search.data.sources import ImageData
from search.data.split import Split
from search.training.models import Shape


@dataclass(frozen=True)
class ResidentData:
    """Images and labels on a device, and which of them train and validate."""

    images_NHWC: Tensor
    """uint8; on a CPU the memory-mapped cache itself, shared by all workers."""
    labels_N: Tensor
    train_indices: Tensor
    val_indices: Tensor
    mean_C: Tensor
    """Channel means of the training images, in [0, 1]."""
    std_C: Tensor
    classes: tuple[str, ...]
    hash: str
    paths: tuple[str, ...] = ()
    """Each image's path in its folder; empty unless the data set is a folder."""

    @property
    def shape(self) -> Shape:
        """What a network for these data takes in and tells apart."""
        _, height, width, channels = self.images_NHWC.shape
        return Shape(channels, height, width, len(self.classes))

    @property
    def device(self) -> torch.device:
        return self.images_NHWC.device

    def to(self, device: torch.device) -> ResidentData:
        """The same data on ``device``; nothing is copied if they are there already."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, value in values.items():
            values[name] = value.to(device) if isinstance(value, Tensor) else value
        return ResidentData(**values)


def make_resident(data: ImageData, split: Split, device: torch.device) -> ResidentData:
    """Put a data set and its split on a device."""
    nothing = torch.empty(0, dtype=torch.int64, device=device)
    whole = ResidentData(
        images_NHWC=torch.from_numpy(data.images_NHWC).to(device),
        labels_N=torch.from_numpy(data.labels_N).to(device),
        train_indices=nothing,
        val_indices=nothing,
        mean_C=nothing,
        std_C=nothing,
        classes=data.classes,
        hash=data.hash,
        paths=data.paths,
    )
    return with_split(whole, data, split)


def with_split(resident: ResidentData, data: ImageData, split: Split) -> ResidentData:
    """The same images, which stay where they are, divided by another split; ``data`` are they on the host."""
    mean_C, std_C = statistics_of(data, split.train_indices)
    device = resident.device
    return replace(
        resident,
        train_indices=torch.from_numpy(split.train_indices).to(device),
        val_indices=torch.from_numpy(split.val_indices).to(device),
        mean_C=torch.tensor(mean_C, dtype=torch.float32, device=device),
        std_C=torch.tensor(std_C, dtype=torch.float32, device=device),
    )
