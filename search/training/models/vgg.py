"""VGG-style blocks."""

from __future__ import annotations

from torch import nn

from search.training.layers import (
    activations,
    dropout,
    in_order,
    map_normalization,
    vector_normalization,
)
from search.training.models.table import Shape, models
from spaces import config


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
                f"vgg with {len(model.widths)} blocks halves the image that often and needs a side of at "
                f"least {2 ** len(model.widths)}, but got images of {shape.height}x{shape.width}"
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
