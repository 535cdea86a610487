"""From the resident data set to a batch: selection, shift and mirroring in one gather.

The data set stays as it is, uint8 and shared between processes; what a shift brings in at the border comes
from arithmetic on the indices, so that nothing is ever padded.

Shape suffixes: N images of the data set, B images of the batch, H height, W width, C channels.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from search.training.augmentation.draws import draw_chances

Padding = Literal["zero", "reflect", "edge"]


def gather_whole(images_NHWC: Tensor, indices_B: Tensor) -> Tensor:
    """The chosen images as they are: float32 NCHW in [0, 1], channels_last in memory."""
    return _as_floats(images_NHWC.index_select(0, indices_B))


def gather_moved(
    images_NHWC: Tensor,
    indices_B: Tensor,
    *,
    corners: tuple[Tensor, Tensor] | None = None,
    flips_B: Tensor | None = None,
    padding: Padding = "zero",
) -> Tensor:
    """The chosen images, each cropped at its own place and then mirrored or not.

    The same as padding by at least the largest shift, cropping to the old size and mirroring the crop,
    in this order (torchvision's RandomCrop and RandomHorizontalFlip), bit for bit.

    Args:
        images_NHWC: the whole data set, uint8, contiguous.
        indices_B: which images, int64.
        corners: tops_B and lefts_B: where the crop's first pixel lies in the image, int64, each smaller in
            size than the image's side. (0, 0) leaves an image in place; None: nothing moves.
        flips_B: which crops are mirrored left to right, boolean; None: none is.
        padding: what lies outside the image: 0, the mirrored border without the border pixel itself
            (numpy's "reflect"), or the repeated border pixel.

    Returns:
        images_NCHW: float32 in [0, 1], channels_last in memory.
    """
    height, width = images_NHWC.shape[1:3]
    rows_BH = torch.arange(height, device=images_NHWC.device)[None]
    columns_BW = torch.arange(width, device=images_NHWC.device)[None]
    if flips_B is not None:
        columns_BW = torch.where(flips_B[:, None], width - 1 - columns_BW, columns_BW)
    if corners is None:
        return _gather_pixels(images_NHWC, indices_B, rows_BH, columns_BW)
    tops_B, lefts_B = corners
    rows_BH = rows_BH + tops_B[:, None]
    columns_BW = columns_BW + lefts_B[:, None]
    sources = _inside(rows_BH, height, padding), _inside(columns_BW, width, padding)
    images_NCHW = _gather_pixels(images_NHWC, indices_B, *sources)
    if padding == "zero":
        images_NCHW = images_NCHW * _is_inside(rows_BH, columns_BW, height, width)
    return images_NCHW


def draw_corners(n: int, shift: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Tops and lefts of ``n`` crops, each uniform over the whole numbers in [-shift, shift]."""
    tops_B = torch.randint(-shift, shift + 1, (n,), device=device)
    lefts_B = torch.randint(-shift, shift + 1, (n,), device=device)
    return tops_B, lefts_B


def alternating_flips(indices_B: Tensor, epoch: Tensor) -> Tensor:
    """Which images are mirrored in an epoch: each in every other one (Jordan 2024, arXiv 2404.00498, 3.6).

    Whether it begins with the even or the odd epochs is a fixed hash of the image's index: no run has to keep
    a draw for every image.

    Args:
        indices_B: the images' places in the data set, int64.
        epoch: epochs trained so far, int64 of shape (1,), on the same device.
    """
    return (_random_bits(indices_B) + epoch) % 2 == 1


def random_gather(
    images_NHWC: Tensor,
    indices_B: Tensor,
    *,
    shift: int = 0,
    flip: float = 0.0,
    padding: Padding = "zero",
    alternating: Tensor | None = None,
) -> Tensor:
    """The chosen images, shifted by up to ``shift`` pixels and mirrored with probability ``flip``, or, given
    the epoch, by turns."""
    n, device = len(indices_B), images_NHWC.device
    corners = draw_corners(n, shift, device) if shift else None
    flips_B = draw_chances(n, flip, device) if flip else None
    if alternating is not None:
        flips_B = alternating_flips(indices_B, alternating)
    return gather_moved(images_NHWC, indices_B, corners=corners, flips_B=flips_B, padding=padding)


def _random_bits(numbers_B: Tensor) -> Tensor:
    """One bit for each number, 0 or 1: the last of an integer hash (xor with itself shifted, multiply;
    twice), kept to 32 bits so that no product overflows 64."""
    for _ in range(2):
        numbers_B = ((numbers_B ^ (numbers_B >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
    return (numbers_B ^ (numbers_B >> 16)) & 1


def _gather_pixels(images_NHWC: Tensor, indices_B: Tensor, rows_BH: Tensor, columns_BW: Tensor) -> Tensor:
    _, height, width, channels = images_NHWC.shape
    starts_BH = (indices_B[:, None] * height + rows_BH) * width
    pixels_BHW = starts_BH[:, :, None] + columns_BW[:, None, :]
    taken = images_NHWC.view(-1, channels).index_select(0, pixels_BHW.flatten())
    return _as_floats(taken.view(-1, height, width, channels))


def _as_floats(images_BHWC: Tensor) -> Tensor:
    return images_BHWC.to(torch.float32).mul_(1 / 255).permute(0, 3, 1, 2)


def _inside(positions: Tensor, side: int, padding: Padding) -> Tensor:
    """Positions outside [0, side - 1] led back into it; for zero padding, to a pixel that is then masked."""
    if padding == "reflect":
        return (side - 1) - ((side - 1) - positions.abs()).abs()
    return positions.clamp(0, side - 1)


def _is_inside(rows_BH: Tensor, columns_BW: Tensor, height: int, width: int) -> Tensor:
    """1 where a pixel comes from inside its image, 0 elsewhere: float32 of shape (B, 1, H, W)."""
    rows_inside_BH = (rows_BH >= 0) & (rows_BH < height)
    columns_inside_BW = (columns_BW >= 0) & (columns_BW < width)
    return (rows_inside_BH[:, None, :, None] & columns_inside_BW[:, None, None, :]).to(torch.float32)
