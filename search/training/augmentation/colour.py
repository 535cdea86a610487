"""Brightness, contrast and saturation, as torchvision defines them for floating-point images.

Each takes images in [0, 1] and clamps to [0, 1]. A factor of 1 changes nothing.

Shape suffixes: B = N images of the batch, C channels (1 or 3), H height, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from search.training.augmentation.draws import draw_uniform

GREY_OF_RGB = (0.2989, 0.587, 0.114)


def adjust_brightness(images_NCHW: Tensor, factors_B: Tensor) -> Tensor:
    """factor * image."""
    return (images_NCHW * factors_B[:, None, None, None]).clamp_(0, 1)


def adjust_contrast(images_NCHW: Tensor, factors_B: Tensor) -> Tensor:
    """factor * image + (1 - factor) * mean of the image's grey version."""
    channel_means_NC11 = images_NCHW.mean((2, 3), keepdim=True)
    return _blend(images_NCHW, _grey(channel_means_NC11), factors_B)


def adjust_saturation(images_NCHW: Tensor, factors_B: Tensor) -> Tensor:
    """factor * image + (1 - factor) * grey version of the image. Leaves grey images as they are."""
    return _blend(images_NCHW, _grey(images_NCHW), factors_B)


def draw_factors(n: int, strength: float, device: torch.device) -> Tensor:
    """``n`` factors uniform in [max(0, 1 - strength), 1 + strength]."""
    return draw_uniform(n, max(0.0, 1 - strength), 1 + strength, device)


def random_brightness(images_NCHW: Tensor, *, strength: float) -> Tensor:
    return adjust_brightness(images_NCHW, draw_factors(len(images_NCHW), strength, images_NCHW.device))


def random_contrast(images_NCHW: Tensor, *, strength: float) -> Tensor:
    return adjust_contrast(images_NCHW, draw_factors(len(images_NCHW), strength, images_NCHW.device))


def random_saturation(images_NCHW: Tensor, *, strength: float) -> Tensor:
    return adjust_saturation(images_NCHW, draw_factors(len(images_NCHW), strength, images_NCHW.device))


def _grey(images_NCHW: Tensor) -> Tensor:
    """ITU-R 601-2 luma of shape (N, 1, H, W); images of one channel are their own grey version."""
    if images_NCHW.shape[1] == 1:
        return images_NCHW
    red, green, blue = images_NCHW.unbind(1)
    red_share, green_share, blue_share = GREY_OF_RGB
    return (red * red_share).add_(green, alpha=green_share).add_(blue, alpha=blue_share)[:, None]


def _blend(images_NCHW: Tensor, others: Tensor, factors_B: Tensor) -> Tensor:
    factors_B111 = factors_B[:, None, None, None]
    return (images_NCHW * factors_B111).add_((1 - factors_B111) * others).clamp_(0, 1)
