"""The airbench network (Jordan 2024, arXiv:2404.00498).

Shapes: N images, C channels, H height, W width, P = C * 2 * 2 values of a patch, L patches.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search.training.layers import Scale, activations
from search.training.models.parts import HALVING, SAME, Window
from search.training.models.table import Shape, models, require_side
from spaces import config

PATCH = Window(2)


class Airbench(nn.Sequential):
    """The network's layers; the first one may want to see training images before training."""

    def __init__(
        self, *layers: Any, whitening_eps: float | None = None, whitening_bias_epochs: int = 0
    ) -> None:
        """``whitening_eps`` None: no whitening, as in the parts that slicing gives."""
        super().__init__(*layers)
        self.whitening_eps = whitening_eps
        self.whitening_bias_epochs = whitening_bias_epochs

    @torch.no_grad()
    def prepare_on(self, images_NCHW: Tensor) -> None:
        """Fix the first convolution from scaled training images; no effect without whitening."""
        first = self[0]
        assert isinstance(first, nn.Conv2d)
        if self.whitening_eps is not None:
            first.weight.copy_(whitening_filters(images_NCHW, self.whitening_eps))

    def freeze_before(self, epoch: int) -> bool:
        """Fix the whitening's bias from epoch ``whitening_bias_epochs`` on; backward passes then end behind
        the first layer. No effect without whitening."""
        bias = self[0].bias
        if self.whitening_eps is None or epoch < self.whitening_bias_epochs or not bias.requires_grad:
            return False
        bias.requires_grad_(False)
        return True


def whitening_filters(images_NCHW: Tensor, eps: float) -> Tensor:
    """Filters (2P, C, 2, 2) whose first half makes patches uncorrelated, of about variance 1; then the same
    negated, since what follows is not odd (section 3.2).

    The rows of the first half are v / sqrt(l + eps), with l and v the eigenvalues, falling, and eigenvectors
    of the mean of x x^T over all 2x2 patches x, in float64. The filters are on the images' device.
    """
    # on the CPU, where so small a matrix is quick and its eigenvectors are the same in every process
    values, vectors_PP = torch.linalg.eigh(patch_moments(images_NCHW).cpu())
    rows_PP = (vectors_PP / (values + eps).sqrt()).T.flip(0)
    channels = images_NCHW.shape[1]
    filters = torch.cat([rows_PP, -rows_PP]).reshape(-1, channels, PATCH.kernel, PATCH.kernel)
    return filters.to(images_NCHW.device)


def patch_moments(images_NCHW: Tensor) -> Tensor:
    """The mean of x x^T over all 2x2 patches x, shape (P, P), float64, on the images' device.

    The values of a patch are in the order of a convolution's weights: channel, row, column.
    """
    count, channels, height, width = images_NCHW.shape
    size = PATCH.kernel**2 * channels
    sums_PP = images_NCHW.new_zeros(size, size, dtype=torch.float64)
    for some_NCHW in torch.split(images_NCHW, 500):  # bounds memory
        patches_PL = _patches(some_NCHW.double())
        sums_PP += patches_PL @ patches_PL.T
    return sums_PP / (count * (height - 1) * (width - 1))


def _patches(images_NCHW: Tensor) -> Tensor:
    """All 2x2 patches as columns, shape (P, L).

    They are made of four slices: ``F.unfold`` would launch a kernel for every image.
    """
    channels, height, width = images_NCHW.shape[1:]
    slices = [
        images_NCHW[:, :, row : height - 1 + row, column : width - 1 + column]
        for row in range(PATCH.kernel)
        for column in range(PATCH.kernel)
    ]
    return torch.stack(slices, 2).permute(1, 2, 0, 3, 4).reshape(channels * len(slices), -1)


class ShiftNorm(nn.BatchNorm2d):
    """Batch normalization with a learnt shift only, which learns ``lr_factor`` times as fast under SGD.

    The shift is sqrt(f) * bias: the bias's gradient is sqrt(f) times the shift's, and so is the shift's step
    the bias's, f times together. Epsilon is 1e-12, as in the paper's code.
    """

    def __init__(self, channels: int, momentum: float, lr_factor: float) -> None:
        super().__init__(channels, eps=1e-12, momentum=momentum)
        self.weight.requires_grad_(False)
        self.bias_scale = math.sqrt(lr_factor)

    def forward(self, maps_NCHW: Tensor) -> Tensor:
        assert self.momentum is not None
        return F.batch_norm(
            maps_NCHW,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias * self.bias_scale,
            self.training,
            self.momentum,
            self.eps,
        )


@models.register("airbench")
def airbench(model: config.Airbench, shape: Shape) -> nn.Module:
    """The network of airbench94 (Jordan 2024, section 3), for any size of image."""
    require_side(
        f"airbench with {len(model.widths)} groups, each of which halves the image,",
        shape,
        2 ** len(model.widths) + 1,
    )
    channels, side = 2 * PATCH.kernel**2 * shape.channels, PATCH.side(shape.side)
    first = PATCH.convolution(shape.channels, channels, bias=True)
    nn.init.zeros_(first.bias)  # type: ignore[arg-type]
    first.weight.requires_grad_(not model.whitening)
    layers: list[nn.Module] = [activations[model.activation]()]
    for width in model.widths:
        layers += _group(model, channels, width)
        channels, side = width, HALVING.side(side)
    layers += [nn.MaxPool2d(side), nn.Flatten(), nn.Linear(channels, shape.classes, bias=False)]
    eps = model.whitening_eps if model.whitening else None
    return Airbench(
        first,
        *layers,
        Scale(model.logit_scale),
        whitening_eps=eps,
        whitening_bias_epochs=model.whitening_bias_epochs,
    )


def _group(model: config.Airbench, channels: int, width: int) -> list[nn.Module]:
    return [
        _convolution(model, channels, width),
        HALVING.max_pooling(),
        ShiftNorm(width, model.batch_norm_momentum, model.bias_lr_factor),
        activations[model.activation](),
        _convolution(model, width, width),
        ShiftNorm(width, model.batch_norm_momentum, model.bias_lr_factor),
        activations[model.activation](),
    ]


def _convolution(model: config.Airbench, channels: int, width: int) -> nn.Conv2d:
    """A 3x3 convolution without bias; with dirac, its first filters pass its first channels on."""
    convolution = SAME.convolution(channels, width, bias=False)
    if model.dirac:
        with torch.no_grad():
            nn.init.dirac_(convolution.weight[:channels])
    return convolution
