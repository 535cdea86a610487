"""Networks: from a model's configuration and the data's shape to a module, and what it costs to run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from search.training.initialization import initialize
from search.training.models import airbench, blocks, residual  # noqa: F401 (register their networks)
from search.training.models.pretrained import load_weights
from search.training.models.table import Freezing, Prepared, Shape, models
from spaces import config

__all__ = ["Cost", "Freezing", "Prepared", "Shape", "build_model", "cost", "cost_of", "largest_layer"]


def build_model(model: config.Model, shape: Shape) -> nn.Module:
    """The untrained network, channels last in memory, initialized from the default CPU generator.

    Raises:
        ValueError: if the network does not fit images of this shape, or its weights are not to be had.
    """
    network = models[model.name](model, shape)
    if isinstance(model, config.Network):
        initialize(network, model.initialization, model.activation)
    if isinstance(model, config.Torchvision):
        load_weights(network, model)
    return network.to(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Cost:
    """A network's size, known before any training."""

    parameters: int
    multiply_adds: int
    """Multiplications and additions, as pairs, of one image's forward pass (convolutions and products)."""


def cost(model: config.Model, shape: Shape) -> Cost:
    """Count parameters and multiply-adds without memory or arithmetic (on torch's meta device)."""
    return cost_of(lambda: models[model.name](model, shape), shape)


def cost_of(build: Callable[[], nn.Module], shape: Shape) -> Cost:
    """``cost`` of whatever network ``build`` makes for images of this shape."""
    network, image_1CHW = _on_meta(build, shape)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image_1CHW)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Cost(parameters, counter.get_total_flops() // 2)


def largest_layer(build: Callable[[], nn.Module], shape: Shape) -> int:
    """The most values that a layer of the network takes in and gives out for one image, without memory or
    arithmetic."""
    network, image_1CHW = _on_meta(build, shape)
    sizes: list[int] = []

    def see(_layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        sizes.append(output.numel() + sum(value.numel() for value in inputs))

    for module in network.modules():
        if not list(module.children()):
            module.register_forward_hook(see)
    with torch.no_grad():
        network(image_1CHW)
    return max(sizes)


def _on_meta(build: Callable[[], nn.Module], shape: Shape) -> tuple[nn.Module, Tensor]:
    """The network in eval mode and an image for it, both without values."""
    with torch.device("meta"):
        return build().eval(), torch.empty(1, shape.channels, shape.height, shape.width)
