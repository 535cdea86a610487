"""Pictures of what the network has learnt at each step of an ablation: its penultimate features in 2-D."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from search.data.request import DataRequest
from search.pictures.feature_map import chosen_images, draw_feature_map
from search.prepare import StudyData, resolve_device
from search.retraining.trained import TrainedModel
from search.training.engine import fit
from search.training.features import build_network
from search.training.shortage import is_shortage
from search.weights import load_weights, save_weights
from spaces.config import Configuration
from studies.ablation import Variant
from studies.plan import PlanStudy
from studies.record import SplitSpec

MODELS = "models"
"""Where in the folder the first model of each step is kept."""


def draw_features(
    request: DataRequest,
    plan: PlanStudy,
    steps: Sequence[Variant],
    folder: Path,
    device_name: str,
    say: Callable[[str], None],
) -> Iterator[Path]:
    """Draw each step's features of the validation images of the first block; the files, as they are written.

    A step that was trained before models were kept is trained again, from the same seed on the same split.
    """
    seed, split = plan.block(0)
    drawing = _Drawing(request, plan, split, seed, resolve_device(device_name))
    names = [plan.model_name(step.configuration.fingerprint()) for step in steps]
    models = [folder / MODELS / f"{name}.safetensors" for name in names]
    absent = {path for path in models if not path.exists()}
    if absent:
        say(f"{len(absent)} training(s) more, one after the other, since these models were not kept")
    for number, (step, weights) in enumerate(zip(steps, models, strict=True)):
        try:
            if not weights.exists():
                drawing.train(step.configuration, weights)
        except (ValueError, RuntimeError, MemoryError) as error:
            if not isinstance(error, ValueError) and not is_shortage(error):
                raise
            say(f"{step.label} is not drawn: {error}")
            continue
        path = folder / f"{number:02d}-{re.sub(r'[^a-z0-9._]+', '-', step.label.lower())}.png"
        if drawing.draw(step, weights, path):
            yield path


def check_writable(folder: Path) -> None:
    """Make the folder of models.

    Raises:
        ValueError: if nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"--features: {folder} cannot be written ({error.strerror or error})") from None


class _Drawing:
    """The images that all steps are drawn with."""

    def __init__(
        self, request: DataRequest, plan: PlanStudy, split: SplitSpec, seed: int, device: torch.device
    ) -> None:
        self._data = StudyData(request, plan.data, device).divided(split)
        self._device = device
        self._seed = seed
        validated_N = self._data.val_indices.cpu()
        chosen_M = torch.from_numpy(chosen_images(self._data.labels_N.cpu()[validated_N].numpy()))
        self._indices_M = validated_N[chosen_M]
        if device.type == "cpu":
            torch.set_num_threads(1)  # as its workers have, so that a training gives the same again

    def train(self, configuration: Configuration, weights: Path) -> None:
        run, _ = fit(configuration, self._data, self._device, self._seed)
        save_weights(run.network, weights)

    def draw(self, step: Variant, weights: Path, path: Path) -> bool:
        network = build_network(step.configuration, self._data.shape)
        load_weights(network, weights)
        model = TrainedModel.of(network.to(self._device), step.configuration, self._data)
        images_MHWC = self._data.images_NHWC.cpu()[self._indices_M].numpy()
        labels_M = self._data.labels_N.cpu()[self._indices_M].numpy().astype(np.int64)
        features_MF = model.features(images_MHWC)
        what = "validation images of the first split"
        return draw_feature_map(features_MF, labels_M, self._data.classes, path, step.label, what)
