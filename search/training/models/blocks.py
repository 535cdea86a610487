"""Networks of blocks, each ended by pooling, with fully connected layers behind: from LeNet to VGG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from search.training.layers import GlobalAverage, Residual, activations, dropout, in_order
from search.training.models.parts import (
    HALVING,
    SAME,
    STRIDED,
    Side,
    Window,
    dropout_rates,
    least_side,
    norm_of_maps,
    norm_of_vectors,
    patchify,
    present,
    projection,
)
from search.training.models.table import Shape, models, require_side
from spaces import config


@dataclass(frozen=True)
class Block:
    """Convolutions, each followed by normalization and activation, and what ends them."""

    widths: tuple[int, ...]
    windows: tuple[Window, ...]
    """The window of each convolution."""
    pool: Window | None
    skip: bool = False
    """Whether the input is added before the last activation."""

    @property
    def all_windows(self) -> tuple[Window, ...]:
        return self.windows if self.pool is None else (*self.windows, self.pool)


def even(widths: Sequence[int], window: Window, pool: Window = HALVING) -> Block:
    """A block of convolutions with the same window."""
    return Block(tuple(widths), (window,) * len(widths), pool)


@models.register("tutorial")
def tutorial(model: config.Tutorial, shape: Shape) -> nn.Module:
    """The net of PyTorch's CIFAR-10 tutorial: conv 6 and 16 (5x5), pooling, then layers of 120 and 84."""
    return _network(model, shape, [even([6], Window(5)), even([16], Window(5))], [120, 84])


@models.register("lenet")
def lenet(model: config.LeNet, shape: Shape) -> nn.Module:
    """A larger LeNet: padded conv 32 and 64 (5x5), pooling, then layers of 512 and 128."""
    padded = Window(5, padding=2)
    return _network(model, shape, [even([32], padded), even([64], padded)], [512, 128])


@models.register("convnet")
def convnet(model: config.ConvNet, shape: Shape) -> nn.Module:
    """Blocks of 3x3 convolutions without padding and 2x2 max pooling, then a hidden layer."""
    blocks = [even([width] * model.convolutions, Window(3)) for width in model.widths]
    return _network(model, shape, blocks, [model.head] if model.head else [])


@models.register("alexnet")
def alexnet(model: config.AlexNet, shape: Shape) -> nn.Module:
    """AlexNet (Krizhevsky et al. 2012) for small images, with overlapping pooling."""
    pool = Window(3, stride=2, padding=1)
    blocks = [
        even([64], Window(5, padding=2), pool),
        even([192], Window(5, padding=2), pool),
        even([384, 256, 256], SAME, pool),
    ]
    return _network(model, shape, blocks, [model.head, model.head])


@models.register("vgg")
def vgg(model: config.VGG, shape: Shape) -> nn.Module:
    """VGG-style network (Simonyan and Zisserman 2015, arXiv:1409.1556) for small images, with its steps
    towards a ResNet."""
    patch = model.patch_size if model.stem == "patchify" else 1
    depth = len(model.widths)
    require_side(f"vgg with {depth} blocks, each of which halves the image,", shape, patch * 2**depth)
    blocks = [_vgg_block(model, width) for width in model.widths]
    hidden = [model.head] if model.head else []
    if model.stem == "conv":
        return nn.Sequential(*_blocks(model, shape.channels, shape.side, blocks, shape.classes, hidden))
    stem, side = _stem(model, shape)
    return nn.Sequential(*stem, *_blocks(model, model.widths[0], side, blocks, shape.classes, hidden))


def _vgg_block(model: config.VGG, width: int) -> Block:
    strided = model.pooling == "stride"
    windows = (SAME,) * (model.convolutions - 1) + (STRIDED if strided else SAME,)
    skip = model.skip == "identity-projection"
    return Block((width,) * model.convolutions, windows, None if strided else HALVING, skip)


def _stem(model: config.VGG, shape: Shape) -> tuple[list[nn.Module], Side]:
    """A patchify layer with its normalization and activation, and the side of its maps."""
    width = model.widths[0]
    convolution, side = patchify(model.patch_size, shape.channels, width, shape, _conv_bias(model))
    return present(convolution, _norm(model, width, side), activations[model.activation]()), side


def _network(model: config.BlockNetwork, shape: Shape, blocks: list[Block], hidden: list[int]) -> nn.Module:
    """Blocks and fully connected layers, for images that leave at least one position after the last block."""
    least = least_side(window for block in blocks for window in block.all_windows)
    require_side(model.name, shape, least)
    return nn.Sequential(*_blocks(model, shape.channels, shape.side, blocks, shape.classes, hidden))


def _blocks(
    model: config.BlockNetwork,
    channels: int,
    side: Side,
    blocks: list[Block],
    classes: int,
    hidden: list[int],
) -> list[nn.Module]:
    """All layers behind the stem, as one flat list."""
    layers: list[nn.Module] = []
    for block, rate in zip(blocks, dropout_rates(model), strict=True):
        layers += _block(model, channels, side, block, rate)
        channels = block.widths[-1]
        for window in block.all_windows:
            side = window.side(side)
    if isinstance(model, config.VGG) and model.global_pooling:
        return [*layers, GlobalAverage(), *_head_dropout(model), nn.Linear(channels, classes)]
    return [*layers, nn.Flatten(), *_head(model, channels * side[0] * side[1], hidden, classes)]


def _block(
    model: config.BlockNetwork, channels: int, side: Side, block: Block, rate: float
) -> list[nn.Module]:
    layers: list[nn.Module] = []
    incoming, entered = channels, side
    for width, window in zip(block.widths[:-1], block.windows[:-1], strict=True):
        side = window.side(side)
        layers.append(window.convolution(channels, width, _conv_bias(model)))
        layers += in_order(
            model.order, _norm(model, width, side), activations[model.activation](), None, None
        )
        channels = width
    width, window = block.widths[-1], block.windows[-1]
    activation = activations[model.activation]()
    layers.append(window.convolution(channels, width, _conv_bias(model)))
    ending = in_order(
        model.order,
        _norm(model, width, window.side(side)),
        activation,
        block.pool.max_pooling() if block.pool else None,
        dropout(rate, model.dropout_kind),
    )
    if not block.skip:
        return layers + ending
    before = ending.index(activation)
    shortcut = _shortcut(model, incoming, width, entered, block.windows)
    return [Residual(nn.Sequential(*layers, *ending[:before]), shortcut), *ending[before:]]


def _shortcut(
    model: config.BlockNetwork, channels: int, width: int, side: Side, windows: Sequence[Window]
) -> nn.Module:
    """Around a block's convolutions: nothing, or a 1x1 convolution and normalization to the new shape."""
    stride = max(window.stride for window in windows)
    if channels == width and stride == 1:
        return nn.Identity()
    projected = projection(channels, width, stride, _conv_bias(model))
    return nn.Sequential(*projected, *present(_norm(model, width, Window(1, stride).side(side))))


def _conv_bias(model: config.BlockNetwork) -> bool:
    """A shift that the normalization subtracts again would be a parameter without effect."""
    return model.order in ("dropout", "neither") or model.normalization not in ("batch", "instance")


def _norm(model: config.BlockNetwork, channels: int, side: Side) -> nn.Module | None:
    return None if model.order in ("dropout", "neither") else norm_of_maps(model, channels, side)


def _head(model: config.BlockNetwork, features: int, hidden: list[int], classes: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for units in hidden:
        layers.append(nn.Linear(features, units))
        layers += in_order(
            model.order,
            norm_of_vectors(model, units),
            activations[model.activation](),
            None,
            dropout(model.head_dropout, "element"),
        )
        features = units
    return [*layers, nn.Linear(features, classes)]


def _head_dropout(model: config.BlockNetwork) -> list[nn.Module]:
    """Dropout of globally pooled features."""
    return present(dropout(model.head_dropout, "element")) if "dropout" in model.order else []
