"""Networks: from a model's configuration and the data's shape to a module, and what it costs to run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from search.training.layers import (
    activations,
    dropout,
    in_order,
    map_normalization,
    vector_normalization,
)
from search.training.registry import Registry
from spaces import config


@dataclass(frozen=True)
class Shape:
    """What a network takes in and tells apart."""

    channels: int
    height: int
    width: int
    classes: int


models: Registry[Callable[..., nn.Module]] = Registry("model")
"""Builders: (configuration section, Shape) -> module from images_NCHW to logits_NK."""


def build_model(model: config.Model, shape: Shape) -> nn.Module:
    """The untrained network, channels last in memory, initialized from the default CPU generator.

    Raises:
        ValueError: if the network does not fit images of this shape.
    """
    return models[model.name](model, shape).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


@dataclass(frozen=True)
class Cost:
    """A network's size, known before any training."""

    parameters: int
    multiply_adds: int
    """Multiplications and additions, as pairs, of one image's forward pass (convolutions and products)."""


def cost(model: config.Model, shape: Shape) -> Cost:
    """Count parameters and multiply-adds without memory or arithmetic (on torch's meta device)."""
    with torch.device("meta"):
        network = build_model(model, shape).eval()
        image_1CHW = torch.empty(1, shape.channels, shape.height, shape.width)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image_1CHW)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Cost(parameters, counter.get_total_flops() // 2)


def block_rates(rate: float, profile: str, blocks: int) -> list[float]:
    """The dropout rate of each block: constant, or rising linearly to ``rate`` in the last."""
    if profile == "constant":
        return [rate] * blocks
    return [rate * (block + 1) / blocks for block in range(blocks)]


@models.register("vgg")
def vgg(model: config.VGG, shape: Shape) -> nn.Module:
    """VGG-style network (Simonyan and Zisserman 2015, arXiv:1409.1556) for small images."""
    layers: list[nn.Module] = []
    channels, side = shape.channels, (shape.height, shape.width)
    rates = block_rates(model.dropout, model.dropout_profile, len(model.widths))
    for width, rate in zip(model.widths, rates, strict=True):
        if min(side) < 2:
            raise ValueError(
                f"vgg with {len(model.widths)} blocks halves the image that often and needs a side of at least "
                f"{2 ** len(model.widths)}, but got images of {shape.height}x{shape.width}"
            )
        layers += _block(model, channels, width, side, rate)
        channels, side = width, (side[0] // 2, side[1] // 2)
    return nn.Sequential(*layers, nn.Flatten(), *_head(model, channels * side[0] * side[1], shape.classes))


def _block(
    model: config.VGG, channels: int, width: int, side: tuple[int, int], rate: float
) -> list[nn.Module]:
    layers: list[nn.Module] = []
    # A shift that the normalization subtracts again would be a parameter without effect.
    biased = model.order in ("dropout", "neither") or model.normalization not in ("batch", "instance")
    for index in range(model.convolutions):
        last = index == model.convolutions - 1
        layers.append(nn.Conv2d(width if index else channels, width, 3, padding=1, bias=biased))
        layers += in_order(
            model.order,
            map_normalization(model.normalization, width, side, model.groups),
            activations[model.activation](),
            nn.MaxPool2d(2) if last else None,
            dropout(rate, model.dropout_kind) if last else None,
        )
    return layers


def _head(model: config.VGG, features: int, classes: int) -> list[nn.Module]:
    if not model.head:
        return [nn.Linear(features, classes)]
    after = in_order(
        model.order,
        vector_normalization(model.normalization, model.head),
        activations[model.activation](),
        None,
        dropout(model.head_dropout, "element"),
    )
    return [nn.Linear(features, model.head), *after, nn.Linear(model.head, classes)]
