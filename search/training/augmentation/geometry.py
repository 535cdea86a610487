"""Rotation, change of size and shear, composed into one matrix and one resampling for every image.

Shape suffixes: B = N images of the batch, C channels, H height, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from search.training.augmentation.draws import draw_uniform


def affine(images_NCHW: Tensor, angles_B: Tensor, factors_B: Tensor, shears_B: Tensor) -> Tensor:
    """Rotate, resize and shear each image about its centre, bilinearly, with 0 outside.

    Signs and centre are those of torchvision's ``affine`` with bilinear interpolation, ``translate=[0, 0]``
    and ``shear=[shear, 0]``.

    Args:
        images_NCHW: floating point.
        angles_B: degrees, clockwise.
        factors_B: change of size, above 0; 1 keeps it, 2 doubles it.
        shears_B: degrees along x, between -90 and 90, both excluded.

    Returns:
        images_NCHW: of the same shape and type, channels_last in memory.
    """
    grid_BHW2 = _grid(_inverse_matrices(angles_B, factors_B, shears_B), *images_NCHW.shape[2:])
    sampled_NCHW = grid_sample(
        images_NCHW, grid_BHW2, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return sampled_NCHW.contiguous(memory_format=torch.channels_last)


def draw_affine(
    n: int, rotation: float, scale: float, shear: float, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """``n`` angles uniform in [-rotation, rotation] degrees, factors in [1 - scale, 1 + scale] and shears in
    [-shear, shear] degrees."""
    angles_B = draw_uniform(n, -rotation, rotation, device)
    factors_B = draw_uniform(n, 1 - scale, 1 + scale, device)
    shears_B = draw_uniform(n, -shear, shear, device)
    return angles_B, factors_B, shears_B


def random_affine(images_NCHW: Tensor, *, rotation: float, scale: float, shear: float) -> Tensor:
    """Rotate, resize and shear by drawn amounts."""
    draws = draw_affine(len(images_NCHW), rotation, scale, shear, images_NCHW.device)
    return affine(images_NCHW, *draws)


Matrices = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]


def _inverse_matrices(angles_B: Tensor, factors_B: Tensor, shears_B: Tensor) -> Matrices:
    """From output to input positions, by rows; every entry has shape (B,).

    The forward matrix is factor * R(angle) [[1, -tan(shear)], [0, 1]], whose last factor's inverse is
    [[1, tan(shear)], [0, 1]].
    """
    cosine, sine = torch.cos(torch.deg2rad(angles_B)), torch.sin(torch.deg2rad(angles_B))
    slant = torch.tan(torch.deg2rad(shears_B))
    first_row = (cosine - slant * sine) / factors_B, (sine + slant * cosine) / factors_B
    return first_row, (-sine / factors_B, cosine / factors_B)


def _grid(matrices: Matrices, height: int, width: int) -> Tensor:
    """Where each output pixel is sampled, in grid_sample's units: x and y of shape (B, H, W, 2).

    Written out rather than by ``affine_grid``, whose matrix product would lose digits to TF32 or autocast.
    """
    (xx, xy), (yx, yy) = matrices
    columns_1W = _centred(width, xx)[None]
    rows_1H1 = _centred(height, xx)[None, :, None]
    x_BHW = (xx[:, None] * columns_1W)[:, None, :] + xy[:, None, None] * rows_1H1
    y_BHW = (yx[:, None] * columns_1W)[:, None, :] + yy[:, None, None] * rows_1H1
    return torch.stack((x_BHW * (2 / width), y_BHW * (2 / height)), dim=-1)


def _centred(side: int, like: Tensor) -> Tensor:
    """Pixel centres along a side, in pixels from the image's middle."""
    return torch.arange(side, dtype=like.dtype, device=like.device) - (side - 1) / 2
