"""How pixels in [0, 1] enter the network: the same scaling for training and for validation.

Shape suffixes: N images, C channels, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Scaling = Callable[[Tensor], Tensor]
"""Takes images_NCHW, floating point in [0, 1], and returns them scaled, in the same layout."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
ONE_GREY_LEVEL = 1 / 255


@dataclass(frozen=True)
class ChannelScaling:
    """factor * image + offset, by channel, with the constants on the device: a call copies nothing."""

    factors_C11: Tensor
    offsets_C11: Tensor

    @classmethod
    def standardizing(cls, mean_C: Tensor, std_C: Tensor) -> ChannelScaling:
        """(image - mean) / std."""
        factors_C11 = std_C.reciprocal()[:, None, None]
        return cls(factors_C11, -mean_C[:, None, None] * factors_C11)

    def __call__(self, images_NCHW: Tensor) -> Tensor:
        return torch.addcmul(self.offsets_C11, images_NCHW, self.factors_C11)


def unit(images_NCHW: Tensor) -> Tensor:
    """[0, 1], as they are."""
    return images_NCHW


def symmetric(images_NCHW: Tensor) -> Tensor:
    """(image - 0.5) / 0.5: [-1, 1]."""
    return images_NCHW * 2 - 1


def per_image(images_NCHW: Tensor) -> Tensor:
    """Each image to mean 0 and deviation 1 over its channels and positions.

    The deviation counts as at least 1 / sqrt(C * H * W), so that a uniform image becomes 0
    (TensorFlow's ``per_image_standardization``).
    """
    centred_NCHW = images_NCHW - images_NCHW.mean((1, 2, 3), keepdim=True)
    variances_N111 = centred_NCHW.square().mean((1, 2, 3), keepdim=True)
    return centred_NCHW * variances_N111.clamp(min=1 / math.prod(images_NCHW.shape[1:])).rsqrt()


def build_scaling(kind: str, mean_C: Tensor, std_C: Tensor) -> Scaling:
    """The scaling that ``Data.scaling`` names.

    Args:
        kind: unit, standardize, symmetric, imagenet or per-image.
        mean_C, std_C: channel mean and deviation of the training images in [0, 1], floating point, on the
            device where images will be scaled. Only standardize takes their values.

    Raises:
        ValueError: for an unknown kind.
    """
    if kind not in _BUILDERS:
        raise ValueError(f"scaling must be one of {', '.join(_BUILDERS)}, but got {kind!r}")
    return _BUILDERS[kind](mean_C, std_C)


def _standardize(mean_C: Tensor, std_C: Tensor) -> Scaling:
    """A deviation below one of 256 grey levels counts as one: a constant channel becomes 0, not NaN."""
    return ChannelScaling.standardizing(mean_C, std_C.clamp(min=ONE_GREY_LEVEL))


def _imagenet(mean_C: Tensor, _std_C: Tensor) -> Scaling:
    """ImageNet's statistics; their mean over red, green and blue for images of one channel."""
    mean_3, std_3 = mean_C.new_tensor(IMAGENET_MEAN), mean_C.new_tensor(IMAGENET_STD)
    if len(mean_C) == 1:
        return ChannelScaling.standardizing(mean_3.mean(0, keepdim=True), std_3.mean(0, keepdim=True))
    return ChannelScaling.standardizing(mean_3, std_3)


_BUILDERS: dict[str, Callable[[Tensor, Tensor], Scaling]] = {
    "unit": lambda _mean_C, _std_C: unit,
    "standardize": _standardize,
    "symmetric": lambda _mean_C, _std_C: symmetric,
    "imagenet": _imagenet,
    "per-image": lambda _mean_C, _std_C: per_image,
}
