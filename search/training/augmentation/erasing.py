"""Blanking out a part of each image: cutout and random erasing. Both act after scaling and write 0.

Shape suffixes: B = N images of the batch, C channels, H height, W width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from search.training.augmentation.boxes import Boxes
from search.training.augmentation.draws import draw_chances, draw_points, draw_uniform

ERASED_ASPECT = (0.3, 3.3)


def blank(images_NCHW: Tensor, boxes: Boxes) -> Tensor:
    """The images with 0 inside their boxes."""
    # masked_fill would be as fast, but leaves channels_last
    return images_NCHW * (~boxes.mask(*images_NCHW.shape[2:])).to(images_NCHW.dtype)


def cutout_side(share: float, height: int, width: int) -> int:
    """Side of cutout's square in pixels: the share of the image's shorter side, rounded; it can be 0."""
    return round(share * min(height, width))


def cutout(images_NCHW: Tensor, rows_B: Tensor, columns_B: Tensor, side: int) -> Tensor:
    """Blank out a square about a pixel of each image, cut off at the border (DeVries and Taylor 2017).

    Args:
        images_NCHW: scaled images.
        rows_B, columns_B: the square's centre, int64, within the image.
        side: pixels; at least 1.
    """
    sides_B = torch.full_like(rows_B, side)
    return blank(images_NCHW, Boxes.centred(rows_B, columns_B, sides_B, sides_B))


def random_cutout(images_NCHW: Tensor, *, side: int) -> Tensor:
    """Cutout about a uniform pixel."""
    n, _, height, width = images_NCHW.shape
    return cutout(images_NCHW, *draw_points(n, height, width, images_NCHW.device), side)


def erasing_boxes(
    areas_B: Tensor, aspects_B: Tensor, down_B: Tensor, right_B: Tensor, height: int, width: int
) -> Boxes:
    """The rectangles of random erasing (Zhong et al. 2020, algorithm 1).

    A side that would not fit is cut to the image's, where the paper draws again: a number of tries that
    depends on the draws would not keep its shape. Only rectangles near the largest area and the most
    extreme aspect are touched by it.

    Args:
        areas_B: shares of the image's area, above 0.
        aspects_B: height over width, above 0.
        down_B, right_B: in [0, 1): where the rectangle lies among all places in which it fits.
    """
    heights_B = (areas_B * aspects_B * (height * width)).sqrt().round().clamp(1, height)
    widths_B = (areas_B / aspects_B * (height * width)).sqrt().round().clamp(1, width)
    tops_B = (down_B * (height - heights_B + 1)).floor()
    lefts_B = (right_B * (width - widths_B + 1)).floor()
    return Boxes(tops_B.long(), lefts_B.long(), heights_B.long(), widths_B.long())


def draw_erasing_boxes(
    n: int, areas: tuple[float, float], height: int, width: int, device: torch.device
) -> Boxes:
    """Shares of the area uniform in a range, aspect log-uniform in [0.3, 3.3], place uniform."""
    areas_B = draw_uniform(n, *areas, device)
    aspects_B = draw_uniform(n, math.log(ERASED_ASPECT[0]), math.log(ERASED_ASPECT[1]), device).exp()
    down_B, right_B = torch.rand(n, device=device), torch.rand(n, device=device)
    return erasing_boxes(areas_B, aspects_B, down_B, right_B, height, width)


def random_erasing(images_NCHW: Tensor, *, probability: float, areas: tuple[float, float]) -> Tensor:
    """Each image loses a rectangle with the given probability."""
    n, _, height, width = images_NCHW.shape
    boxes = draw_erasing_boxes(n, areas, height, width, images_NCHW.device)
    chosen_B = draw_chances(n, probability, images_NCHW.device)
    return blank(images_NCHW, boxes._replace(heights_B=boxes.heights_B * chosen_B))
