"""A trained network with all that it needs to judge images; and the folder that it is kept in.

A folder of ``retrain`` holds ``config.yaml`` (an exported configuration, and what was trained from it) and
``model.safetensors``. Images are judged in spans of one size, in their order, so that the same images give
the same numbers in every process.

Shape suffixes: N images, B images of a batch, H height, W width, C channels, F features, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor, nn

from search.training.augmentation.pipeline import plain_batch
from search.training.augmentation.scaling import Scaling, build_scaling
from search.training.augmentation.test_time import averaged_logits
from search.training.engine import Run
from search.training.evaluation import BATCH, batch_for
from search.training.features import build_network, features
from search.training.models import Shape
from search.training.resident import ResidentData
from search.weights import load_weights
from spaces.config import Configuration, Torchvision
from studies.export import (
    TRAINED,
    ExportedConfiguration,
    ExportRecord,
    as_yaml,
    check_tree,
    read_tree,
)
from studies.files import write_text

CONFIG, WEIGHTS, METRICS = "config.yaml", "model.safetensors", "metrics.json"
"""The files of a folder of trained networks."""
Images = NDArray[np.uint8]


class Trained(ExportRecord):
    """What ``retrain`` made of an exported configuration."""

    seeds: Annotated[tuple[int, ...], Field(min_length=1)]
    """The first one's network is the one beside this file."""
    keep_validation: bool
    """Whether the validation images were held out; else they trained, too."""
    epochs: Annotated[int, Field(ge=1)]
    patience: Annotated[int, Field(ge=0)]
    """Of early stopping; 0 where all epochs were trained."""
    precision: str
    train_images: Annotated[int, Field(ge=1)]
    val_images: Annotated[int, Field(ge=0)]
    """Images that were held out for validation."""
    mean: tuple[float, ...]
    """Of each channel over the images that trained, in [0, 1]."""
    std: tuple[float, ...]
    device: str
    versions: dict[str, str]


class TrainedConfiguration(ExportedConfiguration):
    """An exported configuration, and what was trained from it."""

    trained: Trained

    @model_validator(mode="after")
    def _statistics_are_of_channels(self) -> TrainedConfiguration:
        if not len(self.trained.mean) == len(self.trained.std) == self.data.shape[2]:
            raise ValueError(
                f"trained.mean, trained.std: must have a number for each of {self.data.shape[2]} channels, "
                f"but got {list(self.trained.mean)}, {list(self.trained.std)}"
            )
        return self

    @property
    def trained_settings(self) -> Configuration:
        """The configuration as it was trained."""
        changes = {"patience": self.trained.patience, "precision": self.trained.precision}
        settings = self.settings
        return settings.model_copy(update={"training": settings.training.model_copy(update=changes)})


def write_config(config: TrainedConfiguration, folder: Path) -> None:
    """Write ``config.yaml``.

    Raises:
        ValueError: if it cannot be written.
    """
    added = {TRAINED: config.trained.model_dump(mode="json")}
    export = ExportedConfiguration.model_validate(config.model_dump(exclude={TRAINED}))
    write_text(folder / CONFIG, as_yaml(export, added))


def read_config(folder: Path) -> TrainedConfiguration:
    """Read and check ``config.yaml``.

    Raises:
        ValueError: the file, the place in it, the rule and the value.
    """
    path = folder / CONFIG
    return check_tree(TrainedConfiguration, read_tree(path), path)


@dataclass(frozen=True)
class TrainedModel:
    """A network that judges images."""

    network: nn.Module
    configuration: Configuration
    scaling: Scaling
    classes: tuple[str, ...]
    device: torch.device
    batch: int = BATCH
    """Images judged at a time."""

    @classmethod
    def of(cls, network: nn.Module, configuration: Configuration, data: ResidentData) -> TrainedModel:
        """The network, which learnt these data, on their device."""
        scaling = build_scaling(configuration.data.scaling, data.mean_C, data.std_C)
        batch = _batch(configuration, data.shape, data.device)
        return cls(network.eval(), configuration, scaling, data.classes, data.device, batch)

    @classmethod
    def of_run(cls, run: Run) -> TrainedModel:
        """The network of a run that is finished."""
        return cls.of(run.network, run.config, run.data)

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> TrainedModel:
        """The network of a folder of ``retrain``.

        Raises:
            ValueError: if a file of it is not there or not right.
        """
        config = read_config(folder)
        height, width, channels = config.data.shape
        shape = Shape(channels, height, width, len(config.data.classes))
        settings = config.trained_settings
        network = build_network(_from_scratch(settings), shape)
        load_weights(network, folder / WEIGHTS)
        mean_C = torch.tensor(config.trained.mean, device=device)
        std_C = torch.tensor(config.trained.std, device=device)
        scaling = build_scaling(settings.data.scaling, mean_C, std_C)
        batch = _batch(settings, shape, device)
        return cls(network.to(device).eval(), settings, scaling, config.data.classes, device, batch)

    def log_probabilities(self, images_NHWC: Images) -> Tensor:
        """log_p_NK of clean images (uint8), float32 on the CPU."""
        return self._judged(images_NHWC, lambda *batch: self.network(self._clean(*batch)))

    def augmented_log_probabilities(self, images_NHWC: Images) -> Tensor | None:
        """As ``log_probabilities``, with the configuration's test-time augmentation; None if it has none."""
        kind = self.configuration.training.test_time_augmentation
        if kind == "none":
            return None
        return self._judged(
            images_NHWC,
            lambda images, indices_B: averaged_logits(self.network, images, indices_B, kind, self.scaling),
        )

    def features(self, images_NHWC: Images) -> NDArray[np.float32]:
        """What enters the network's classifier for clean images: features_NF."""
        parts = self._batches(
            images_NHWC, lambda images, indices_B: features(self.network, self._clean(images, indices_B))
        )
        return torch.cat([part.float().flatten(1).cpu() for part in parts]).numpy()

    def first_filters(self) -> NDArray[np.float32] | None:
        """Filters of the first layer with weights, filters_OCHW; None if it is no 2-D convolution that sees
        several pixels."""
        first = next((module for module in self.network.modules() if list(module.parameters(False))), None)
        if not isinstance(first, nn.Conv2d) or first.weight.shape[2:] == (1, 1):
            return None
        return first.weight.detach().float().cpu().numpy()

    def _clean(self, images_NHWC: Tensor, indices_B: Tensor) -> Tensor:
        return plain_batch(images_NHWC, indices_B, self.scaling)

    def _judged(self, images_NHWC: Images, logits: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        parts = self._batches(images_NHWC, logits)
        return torch.cat([part.float().log_softmax(1).cpu() for part in parts])

    @torch.no_grad()
    def _batches(self, images_NHWC: Images, look: Callable[[Tensor, Tensor], Tensor]) -> Iterator[Tensor]:
        """What ``look`` gives for each span of images."""
        bf16 = self.configuration.training.precision == "bf16"
        for start in range(0, len(images_NHWC), self.batch):
            span_NHWC = np.ascontiguousarray(images_NHWC[start : start + self.batch])
            images = torch.from_numpy(span_NHWC).to(self.device)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16, cache_enabled=False):
                yield look(images, torch.arange(len(images), device=self.device))


def _batch(configuration: Configuration, shape: Shape, device: torch.device) -> int:
    """How many images are judged at a time: what fits, and on no device more than on a CPU."""
    return min(BATCH, batch_for(configuration, shape, device))


def _from_scratch(settings: Configuration) -> Configuration:
    """The same network, without the weights that its training began with: it is about to get others."""
    if not isinstance(settings.model, Torchvision):
        return settings
    plain: dict[str, Any] = {"pretrained": "none", "weights": "", "trainable": "all"}
    return settings.model_copy(update={"model": settings.model.model_copy(update=plain)})
