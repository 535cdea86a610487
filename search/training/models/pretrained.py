"""torchvision's networks: resized input, a new classifier, trained weights, and frozen blocks.

torchvision is imported when one is built: most runs have no need of it.

Shapes: N images, C channels, H height, W width.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from search.training.models.table import Shape, models, require_side
from search.training.registry import Registry
from spaces import config
from spaces.text import within

LEAST_SIDE = 32
"""All of these networks halve the image five times."""

Blocks = list[nn.Module]
Weights = dict[str, Tensor]
divisions: Registry[Callable[[Any], Blocks]] = Registry("architecture")
"""Functions from a network to its blocks in order, all but the head and its dropout."""


@divisions.register("resnet18")
def resnet18_blocks(network: Any) -> Blocks:
    """The stem, and the eight residual blocks."""
    stages = (network.layer1, network.layer2, network.layer3, network.layer4)
    return [nn.ModuleList([network.conv1, network.bn1]), *(block for stage in stages for block in stage)]


@divisions.register("vgg16")
def vgg16_blocks(network: Any) -> Blocks:
    """Five blocks of convolutions that end with pooling, and two hidden layers with their dropout between."""
    blocks, layers = [], []
    for layer in network.features:
        layers.append(layer)
        if isinstance(layer, nn.MaxPool2d):
            blocks.append(nn.ModuleList(layers))
            layers = []
    return [*blocks, nn.ModuleList(network.classifier[:3]), nn.ModuleList(network.classifier[3:5])]


@divisions.register("mobilenet_v2")
def mobilenet_v2_blocks(network: Any) -> Blocks:
    """The first convolution, 17 inverted residual blocks and the last convolution."""
    return list(network.features)


@divisions.register("efficientnet_b0")
def efficientnet_b0_blocks(network: Any) -> Blocks:
    """The first convolution, seven stages and the last convolution."""
    return list(network.features)


class ResizedNetwork(nn.Module):
    """A network behind a resize to its input, with blocks that may be frozen."""

    def __init__(self, network: nn.Module, input_size: int, frozen: Sequence[nn.Module]) -> None:
        """``input_size`` 0 takes images as they are. ``frozen`` are parts of the network."""
        super().__init__()
        self.network = network
        self.input_size = input_size
        self._frozen = tuple(frozen)  # a tuple, so that they are not registered a second time
        for part in self._frozen:
            part.requires_grad_(False)

    def train(self, mode: bool = True) -> ResizedNetwork:
        """Frozen parts stay in evaluation mode: their statistics and their dropout do not move either."""
        super().train(mode)
        for part in self._frozen:
            part.eval()
        return self

    def forward(self, images_NCHW: Tensor) -> Tensor:
        if images_NCHW.shape[1] == 1:
            images_NCHW = images_NCHW.expand(-1, 3, -1, -1)
        size = torch.Size([self.input_size] * 2)
        if self.input_size and images_NCHW.shape[2:] != size:
            images_NCHW = F.interpolate(images_NCHW, size=size, mode="bilinear", antialias=True)
        return self.network(images_NCHW)  # type: ignore[no-any-return]


@models.register("torchvision")
def pretrained(model: config.Torchvision, shape: Shape) -> nn.Module:
    """torchvision's network of this name with a new classifier, its weights as torchvision draws them."""
    from torchvision.models import get_model

    if shape.channels not in (1, 3):
        raise ValueError(f"{model.architecture} takes images of 1 or 3 channels, but got {shape.channels}")
    if not model.input_size:
        require_side(f"{model.architecture} without input_size", shape, LEAST_SIDE)
    network = get_model(model.architecture, weights=None)
    name, classifier = _classifier(network)
    network.set_submodule(name, nn.Linear(classifier.in_features, shape.classes))
    return ResizedNetwork(network, model.input_size, _frozen(divisions[model.architecture](network), model))


def _classifier(network: nn.Module) -> tuple[str, nn.Linear]:
    """The last fully connected layer and its name."""
    return [(name, part) for name, part in network.named_modules() if isinstance(part, nn.Linear)][-1]


def _frozen(blocks: Blocks, model: config.Torchvision) -> Blocks:
    """The blocks that are not trained."""
    if model.trainable == "all":
        return []
    return blocks if model.trainable == "head" else blocks[: -model.trainable]


def load_weights(network: nn.Module, model: config.Torchvision) -> None:
    """Give all but the classifier the weights that the configuration names.

    Raises:
        ValueError: one line, if there are none to be had, or they are another network's.
    """
    if model.pretrained == "imagenet":
        _fill(network, _download(model.architecture))
    elif model.weights:
        with within(f"model.weights: {model.weights}"):
            _fill(network, _read(Path(model.weights)))


def _download(architecture: str) -> Weights:
    from torchvision.models import get_model_weights

    weights = get_model_weights(architecture)["IMAGENET1K_V1"]
    try:
        found: Weights = weights.get_state_dict(
            progress=False, check_hash=True, map_location="cpu", weights_only=True
        )
    except (OSError, RuntimeError, HTTPException) as error:
        raise ValueError(
            f"model.pretrained: {architecture}'s ImageNet weights could not be downloaded from {weights.url} "
            f"({_first_line(error)}); put that file into {torch.hub.get_dir()}/checkpoints, or name one by "
            "model.weights: FILE"
        ) from None
    return found


def _read(path: Path) -> Weights:
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        raise ValueError(f"cannot be read as weights ({_first_line(error)})") from None
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ValueError("must hold a state dict: tensors by name")
    return found


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _fill(network: nn.Module, weights: Weights) -> None:
    """Load weights by torchvision's names; the classifier's, of whatever size, are left out."""
    inner = network.get_submodule("network")
    head, _ = _classifier(inner)
    weights = {name: value for name, value in weights.items() if name.rpartition(".")[0] != head}
    expected = {n: v for n, v in inner.state_dict().items() if n.rpartition(".")[0] != head}
    for name, value in expected.items():
        # files from before 2018 do not count batches, and nothing here uses the count
        if name not in weights and not name.endswith("num_batches_tracked"):
            raise ValueError(f"must hold {name}, but does not")
        if name in weights and weights[name].shape != value.shape:
            shapes = f"{tuple(value.shape)}, but got {tuple(weights[name].shape)}"
            raise ValueError(f"{name} must have the shape {shapes}")
    for name in weights:
        if name not in expected:
            raise ValueError(f"holds {name}, which the network does not have")
    inner.load_state_dict(weights, strict=False)
