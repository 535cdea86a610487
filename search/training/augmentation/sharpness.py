"""Sharpness, as torchvision defines it for floating-point images.

Shape suffixes: B = N images of the batch, C channels, H height, W width.
"""

from __future__ import annotations

from torch import Tensor

from search.training.augmentation.colour import blend
from search.training.augmentation.draws import draw_factors


def adjust_sharpness(images_NCHW: Tensor, factors_B: Tensor) -> Tensor:
    """factor * image + (1 - factor) * smoothed image, clamped to [0, 1]: above 1 sharper, below 1 softer.

    Images with a side of at most two pixels stay as they are.
    """
    if min(images_NCHW.shape[2:]) <= 2:
        return images_NCHW
    return blend(images_NCHW, smooth(images_NCHW), factors_B)


def smooth(images_NCHW: Tensor) -> Tensor:
    """Each pixel with the mean of its 3x3 surroundings, itself counted five times; the border as it is.

    The sum is made of slices: one-channel convolutions and pooling take several times as long on a CPU.
    """
    rows = images_NCHW[:, :, :-2] + images_NCHW[:, :, 1:-1]
    rows += images_NCHW[:, :, 2:]
    squares = rows[..., :-2] + rows[..., 1:-1]
    squares += rows[..., 2:]
    squares.add_(images_NCHW[:, :, 1:-1, 1:-1], alpha=4)
    smoothed_NCHW = images_NCHW.clone()
    smoothed_NCHW[:, :, 1:-1, 1:-1] = squares.mul_(1 / 13)
    return smoothed_NCHW


def random_sharpness(images_NCHW: Tensor, *, strength: float, probability: float = 1.0) -> Tensor:
    factors_B = draw_factors(len(images_NCHW), strength, probability, images_NCHW.device)
    return adjust_sharpness(images_NCHW, factors_B)
