"""Residual networks for small images: ResNet, WideResNet and ResNet-9.

Shapes: N images, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from search.training.layers import (
    MoreChannels,
    Residual,
    Scale,
    SqueezeExcite,
    StochasticDepth,
    Subsample,
    activations,
    dropout,
)
from search.training.models.parts import (
    HALVING,
    SAME,
    STRIDED,
    Side,
    Window,
    average_head,
    conv_norm_act,
    dropout_rates,
    first_convolution,
    needs_bias,
    norm_of_maps,
    present,
    projection,
)
from search.training.models.table import Shape, models, require_side
from spaces import config


@models.register("resnet")
def resnet(model: config.ResNet, shape: Shape) -> nn.Module:
    """ResNet (He et al. 2016, arXiv:1512.03385) with basic blocks, for small images."""
    widths = model.residual_filters
    per_stage = 2 if model.depth == 18 else (model.depth - 2) // 6
    _require_side(model, f"resnet of depth {model.depth}", shape, len(widths) - 1)
    convolution, side = first_convolution(model, shape, widths[0], _conv_bias(model))
    layers = present(convolution, norm_of_maps(model, widths[0], side), activations[model.activation]())
    channels, depths = widths[0], _depth_rates(model, per_stage * len(widths))
    for stage, (width, rate) in enumerate(zip(widths, dropout_rates(model), strict=True)):
        for index in range(per_stage):
            window = STRIDED if stage and not index else SAME
            layers.append(_basic_block(model, channels, width, side, window, rate, next(depths)))
            layers.append(activations[model.activation]())
            channels, side = width, window.side(side)
    return nn.Sequential(*layers, *average_head(channels, shape.classes, model.head_dropout))


def _require_side(model: config.ResidualNetwork, what: str, shape: Shape, halvings: int) -> None:
    patch = model.patch_size if model.stem == "patchify" else 1
    require_side(f"{what}, which halves the image {halvings} times,", shape, patch * 2**halvings)


def _conv_bias(model: config.ResidualNetwork) -> bool:
    """A shift that the normalization subtracts again would be a parameter without effect."""
    return model.normalization not in ("batch", "instance")


def _depth_rates(model: config.ResidualNetwork, branches: int) -> Iterator[float]:
    """Rates of stochastic depth: rate * l / L for branch l of L (Huang et al. 2016, equation 4)."""
    return iter([model.stochastic_depth * (branch + 1) / branches for branch in range(branches)])


def _branch_end(model: config.ResidualNetwork, width: int, depth_rate: float) -> list[nn.Module]:
    """What may come last in a residual branch: squeeze-and-excitation, and stochastic depth."""
    return present(
        SqueezeExcite(width, model.squeeze_excite) if model.squeeze_excite else None,
        StochasticDepth(depth_rate) if depth_rate else None,
    )


def _basic_block(
    model: config.ResNet,
    channels: int,
    width: int,
    side: Side,
    window: Window,
    rate: float,
    depth_rate: float,
) -> nn.Module:
    """Two 3x3 convolutions around which the input goes; the activation after the sum comes next."""
    inside = window.side(side)
    last_norm = norm_of_maps(model, width, inside)
    if model.zero_init_last_norm and last_norm is not None:
        nn.init.zeros_(last_norm.weight)  # type: ignore[arg-type]
    branch = [
        *conv_norm_act(model, channels, width, side, window),
        *present(dropout(rate, model.dropout_kind)),
        *present(SAME.convolution(width, width, needs_bias(last_norm)), last_norm),
        *_branch_end(model, width, depth_rate),
    ]
    return Residual(nn.Sequential(*branch), _shortcut(model, channels, width, side, window))


def _shortcut(model: config.ResNet, channels: int, width: int, side: Side, window: Window) -> nn.Module:
    if channels == width and window.stride == 1:
        return nn.Identity()
    if model.shortcut == "padding":
        return nn.Sequential(Subsample(window.stride), MoreChannels(width - channels))
    projected = projection(channels, width, window.stride, _conv_bias(model))
    return nn.Sequential(*projected, *present(norm_of_maps(model, width, window.side(side))))


class PreActivationBlock(nn.Module):
    """Normalization and activation, then a residual branch (He et al. 2016b, arXiv:1603.05027).

    The input itself is added to the branch where the shapes agree (``shortcut`` None); else a 1x1 convolution
    of the activated input.
    """

    def __init__(self, enter: nn.Module, branch: nn.Module, shortcut: nn.Module | None) -> None:
        super().__init__()
        self.enter = enter
        self.branch = branch
        self.shortcut = shortcut

    def forward(self, maps_NCHW: Tensor) -> Tensor:
        entered_NCHW = self.enter(maps_NCHW)
        kept_NCHW = maps_NCHW if self.shortcut is None else self.shortcut(entered_NCHW)
        return kept_NCHW + self.branch(entered_NCHW)  # type: ignore[no-any-return]


@models.register("wide-resnet")
def wide_resnet(model: config.WideResNet, shape: Shape) -> nn.Module:
    """WideResNet (Zagoruyko and Komodakis 2016, arXiv:1605.07146), with dropout between convolutions."""
    widths, per_stage = model.residual_filters, (model.depth - 4) // 6
    _require_side(model, "wide-resnet", shape, len(widths) - 1)
    channels, depths = model.filters[0], _depth_rates(model, per_stage * len(widths))
    convolution, side = first_convolution(model, shape, channels, bias=_conv_bias(model))
    layers: list[nn.Module] = [convolution]
    for stage, (width, rate) in enumerate(zip(widths, dropout_rates(model), strict=True)):
        for index in range(per_stage):
            window = STRIDED if stage and not index else SAME
            layers.append(_pre_activation_block(model, channels, width, side, window, rate, next(depths)))
            channels, side = width, window.side(side)
    layers += _norm_act(model, channels, side)
    return nn.Sequential(*layers, *average_head(channels, shape.classes, model.head_dropout))


def _norm_act(model: config.WideResNet, channels: int, side: Side) -> list[nn.Module]:
    """Normalization and activation; not in place, since without a normalization the shortcut needs what the
    activation takes."""
    activation = activations[model.activation]()
    if isinstance(activation, (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SiLU)):
        activation.inplace = False
    return present(norm_of_maps(model, channels, side), activation)


def _pre_activation_block(
    model: config.WideResNet,
    channels: int,
    width: int,
    side: Side,
    window: Window,
    rate: float,
    depth_rate: float,
) -> nn.Module:
    bias = _conv_bias(model)
    branch = [
        window.convolution(channels, width, bias),
        *_norm_act(model, width, window.side(side)),
        *present(dropout(rate, model.dropout_kind)),
        SAME.convolution(width, width, bias),
        *_branch_end(model, width, depth_rate),
    ]
    changes = channels != width or window.stride > 1
    shortcut = nn.Sequential(*projection(channels, width, window.stride, bias)) if changes else None
    enter = nn.Sequential(*_norm_act(model, channels, side))
    return PreActivationBlock(enter, nn.Sequential(*branch), shortcut)


@models.register("resnet9")
def resnet9(model: config.ResNet9, shape: Shape) -> nn.Module:
    """ResNet-9 (Page 2018, https://myrtle.ai/learn/how-to-train-your-resnet/)."""
    first, second, third, fourth = model.filters
    _require_side(model, "resnet9", shape, 3)
    convolution, side = first_convolution(model, shape, first, _conv_bias(model))
    layers = present(convolution, norm_of_maps(model, first, side), activations[model.activation]())
    depths, rates = _depth_rates(model, 2), dropout_rates(model)
    for channels, width, rate in (
        (first, second, rates[0]),
        (second, third, None),
        (third, fourth, rates[1]),
    ):
        layers += [*conv_norm_act(model, channels, width, side, SAME), HALVING.max_pooling()]
        side = HALVING.side(side)
        if rate is not None:
            layers.append(_activated_block(model, width, side, rate, next(depths)))
    head = present(nn.MaxPool2d(side), nn.Flatten(), dropout(model.head_dropout, "element"))
    return nn.Sequential(
        *layers, *head, nn.Linear(fourth, shape.classes, bias=False), Scale(model.logit_scale)
    )


def _activated_block(
    model: config.ResNet9, width: int, side: Side, rate: float, depth_rate: float
) -> nn.Module:
    """A residual block whose branch ends with an activation, with none after the sum."""
    branch = [
        *conv_norm_act(model, width, width, side, SAME),
        *present(dropout(rate, model.dropout_kind)),
        *conv_norm_act(model, width, width, side, SAME),
        *_branch_end(model, width, depth_rate),
    ]
    return Residual(nn.Sequential(*branch), nn.Identity())
