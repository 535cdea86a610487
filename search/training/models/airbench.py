"""The airbench network (Jordan 2024, arXiv:2404.00498).

Shapes: N images, C channels, H height, W width, P = C * 2 * 2 values of a patch.
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

    def __init__(self, *layers: Any, whitening_eps: float | None = None) -> None:
        """``whitening_eps`` None: no whitening, as in the parts that slicing gives."""
        super().__init__(*layers)
        self.whitening_eps = whitening_eps

    @torch.no_grad()
    def prepare_on(self, images_NCHW: Tensor) -> None:
        """Fix the first convolution from scaled training images; no effect without whitening."""
        first = self[0]
        assert isinstance(first, nn.Conv2d)
        if self.whitening_eps is not None:
            first.weight.copy_(whitening_filters(images_NCHW, self.whitening_eps))


def whitening_filters(images_NCHW: Tensor, eps: float) -> Tensor:
    """Filters (2P, C, 2, 2) whose first half makes patches uncorrelated, of about variance 1; then the same
    negated, since what follows is not odd (section 3.2).

    The rows of the first half are v / sqrt(l + eps), with l and v the eigenvalues, falling, and eigenvectors
    of the mean of x x^T over all 2x2 patches x, in float64.
    """
    values, vectors_PP = torch.linalg.eigh(patch_moments(images_NCHW))
    rows_PP = (vectors_PP / (values + eps).sqrt()).T.flip(0)
    channels = images_NCHW.shape[1]
    return torch.cat([rows_PP, -rows_PP]).reshape(-1, channels, PATCH.kernel, PATCH.kernel)


def patch_moments(images_NCHW: Tensor) -> Tensor:
    """The mean of x x^T over all 2x2 patches x, shape (P, P), float64."""
    size = PATCH.kernel**2 * images_NCHW.shape[1]
    sums_PP = images_NCHW.new_zeros(size, size, dtype=torch.float64)
    patches = 0
    for some_NCHW in torch.split(images_NCHW, 500):  # bounds memory
        patches_NPL = F.unfold(some_NCHW.double(), PATCH.kernel)
        sums_PP += torch.einsum("npl,nql->pq", patches_NPL, patches_NPL)
        patches += len(some_NCHW) * patches_NPL.shape[2]
    return sums_PP / patches


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
    return Airbench(first, *layers, Scale(model.logit_scale), whitening_eps=eps)


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
