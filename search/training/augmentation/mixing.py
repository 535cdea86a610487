"""MixUp and CutMix: images and their target probabilities mixed with those of another image of the batch.

An image's partner is the one before it in the batch, whose order is a random permutation already. Both
techniques are one blend by a map of weights: MixUp's is the same at every pixel, CutMix's is 0 in a
rectangle and 1 elsewhere. The targets are blended by the map's mean, and so always fit the pixels.

Shape suffixes: B = N images of the batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from search.training.augmentation.boxes import Boxes
from search.training.augmentation.draws import draw_chances, draw_points

DrawWeights = Callable[[int, int, int, torch.device], Tensor]
"""Takes the batch's size, height, width and device, and draws weights_B1HW or weights_B111."""


def mix(images_NCHW: Tensor, targets_BK: Tensor, weights_B1HW: Tensor) -> tuple[Tensor, Tensor]:
    """Blend each image and its target with the ones before it in the batch.

    Args:
        images_NCHW: scaled images.
        targets_BK: probabilities of the classes, floating point.
        weights_B1HW: share in [0, 1] that an image keeps of itself, by pixel; (B, 1, 1, 1) for all pixels.
    """
    weights_B1 = weights_B1HW.mean((1, 2, 3))[:, None]
    return (
        torch.lerp(partners(images_NCHW), images_NCHW, weights_B1HW),
        torch.lerp(partners(targets_BK), targets_BK, weights_B1),
    )


def partners(batch_B: Tensor) -> Tensor:
    """For each entry of a batch the one before it, for the first the last; in the batch's memory format."""
    return torch.cat([batch_B[-1:], batch_B[:-1]])  # on CUDA, roll gives up channels_last


def symmetric_beta(alpha: float, u_B: Tensor, v_B: Tensor) -> Tensor:
    """Draws from Beta(alpha, alpha), each made from two uniform draws in [0, 1); exact for every alpha > 0.

    With W = u^(1/alpha) and c = cos(2 pi v), the draw is (1 + c sqrt((1 - W) / (W + (1 - W) c^2))) / 2
    (Devroye 1996, "Random variate generation in one line of code", from Bailey's polar method for Student's
    t, 1994). Unlike the ratio of two gamma draws it rejects nothing, and does not underflow for small alpha.
    """
    log_w_B = u_B.log() / alpha
    rest_B = -torch.expm1(log_w_B)
    cosine_B = torch.cos(2 * math.pi * v_B)
    lean_B = cosine_B * (rest_B / (log_w_B.exp() + rest_B * cosine_B.square())).sqrt()
    return ((1 + lean_B) / 2).clamp(0, 1)


def draw_beta(n: int, alpha: float, device: torch.device) -> Tensor:
    """``n`` draws from Beta(alpha, alpha)."""
    return symmetric_beta(alpha, torch.rand(n, device=device), torch.rand(n, device=device))


def cutmix_weights(kept_B: Tensor, rows_B: Tensor, columns_B: Tensor, height: int, width: int) -> Tensor:
    """CutMix's map: 0 in the partner's rectangle, 1 elsewhere (Yun et al. 2019, equation 2).

    Args:
        kept_B: the paper's lambda in [0, 1]: the rectangle's sides are sqrt(1 - lambda) of the image's,
            rounded to pixels. Since it is cut off at the border, more can be kept.
        rows_B, columns_B: the rectangle's centre, int64, within the image.

    Returns:
        weights_B1HW: of kept_B's type.
    """
    sides_B = (1 - kept_B).sqrt()
    heights_B, widths_B = (sides_B * height).round().long(), (sides_B * width).round().long()
    boxes = Boxes.centred(rows_B, columns_B, heights_B, widths_B)
    return (~boxes.mask(height, width)).to(kept_B.dtype)


def draw_mixup_weights(n: int, _height: int, _width: int, device: torch.device, *, alpha: float) -> Tensor:
    """MixUp's weights from Beta(alpha, alpha), one for every image (Zhang et al. 2018): (n, 1, 1, 1)."""
    return draw_beta(n, alpha, device)[:, None, None, None]


def draw_cutmix_weights(n: int, height: int, width: int, device: torch.device, *, alpha: float) -> Tensor:
    """CutMix's maps with lambda from Beta(alpha, alpha) and a uniform centre: (n, 1, height, width)."""
    return cutmix_weights(draw_beta(n, alpha, device), *draw_points(n, height, width, device), height, width)


def draw_either_weights(
    n: int, height: int, width: int, device: torch.device, *, mixup: float, cutmix: float
) -> Tensor:
    """For each image, by a fair draw, weights of MixUp or of CutMix, of the given alphas."""
    chosen_B111 = draw_chances(n, 0.5, device)[:, None, None, None]
    mixup_B111 = draw_mixup_weights(n, height, width, device, alpha=mixup)
    cutmix_B1HW = draw_cutmix_weights(n, height, width, device, alpha=cutmix)
    return torch.where(chosen_B111, mixup_B111, cutmix_B1HW)


def random_mix(images_NCHW: Tensor, targets_BK: Tensor, *, draw: DrawWeights) -> tuple[Tensor, Tensor]:
    """Mix with drawn weights."""
    n, _, height, width = images_NCHW.shape
    return mix(images_NCHW, targets_BK, draw(n, height, width, images_NCHW.device))
