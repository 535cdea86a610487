"""RandAugment and TrivialAugment: in each layer every image undergoes one operation of a list, its own.

A layer is four passes over the whole batch, whatever was drawn: one resampling for the geometric operations,
one table for the tonal ones, one matrix with offset for the colours and one blend for sharpness. Each is the
identity for the images that drew an operation of another kind. The operations, their ranges and their signs
are those of torchvision's ``RandAugment`` and ``TrivialAugmentWide``; resampling is bilinear.

Shape suffixes: B = N images of the batch, C channels, H height, W width, O operations.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from search.training.augmentation import tonal
from search.training.augmentation.colour import adjust_colour, mean_grey
from search.training.augmentation.geometry import Affine, affine
from search.training.augmentation.sharpness import adjust_sharpness

OPERATIONS = (
    "identity", "shear-x", "shear-y", "translate-x", "translate-y", "rotate", "brightness", "saturation",
    "contrast", "sharpness", "posterize", "solarize", "autocontrast", "equalize",
)  # fmt: skip
STRONGEST = 30
"""Magnitudes are whole numbers from 0 to this one."""


class Ranges(NamedTuple):
    """The amount of each operation at the strongest magnitude. At a magnitude of 0 none changes anything, but
    that solarizing still inverts pure white."""

    shear: float
    """Slope."""
    right: float
    down: float
    """Pixels; cut to whole ones."""
    rotation: float
    """Degrees."""
    factor: float
    """Brightness, saturation, contrast and sharpness: how far the factor is from 1."""
    dropped_bits: int
    """Bits that posterizing takes away."""


def randaugment_ranges(height: int, width: int) -> Ranges:
    """Cubuk et al. 2020, arXiv 1909.13719: translations of up to 150 / 331 of the side."""
    return Ranges(0.3, 150 / 331 * width, 150 / 331 * height, 30.0, 0.9, 4)


def wide_ranges() -> Ranges:
    """TrivialAugment's wide ranges (Müller and Hutter 2021, arXiv 2103.10158): translations of up to 32
    pixels whatever the image's size, so that the strongest ones empty a CIFAR image."""
    return Ranges(0.99, 32.0, 32.0, 135.0, 0.99, 6)


class Amounts(NamedTuple):
    """One layer's draws: every image's operation, by its place in OPERATIONS, and its magnitude."""

    operations_B: Tensor
    """int64."""
    magnitudes_B: Tensor
    """Whole numbers from 0 to STRONGEST, floating point."""
    signs_B: Tensor
    """1 or -1, floating point; only what can go either way takes it."""


def apply_layer(images_NCHW: Tensor, amounts: Amounts, ranges: Ranges) -> Tensor:
    """One operation for each image.

    Args:
        images_NCHW: in [0, 1], floating point. Tonal operations round them to 256 grey levels; the images
            that undergo none are not rounded.
        amounts: the draws, of the images' type.

    Returns:
        images_NCHW: in [0, 1].
    """
    shares = _shares(amounts)
    moved_NCHW = affine(images_NCHW, _affine(shares, ranges, *images_NCHW.shape[2:]))
    toned_NCHW = _tone(moved_NCHW, amounts, ranges)
    coloured_NCHW = _colour(toned_NCHW, shares, ranges)
    return adjust_sharpness(coloured_NCHW, 1 + shares["sharpness"] * ranges.factor)


def draw_amounts(n: int, magnitude: int | None, device: torch.device) -> Amounts:
    """``n`` uniform operations and signs, of the given magnitude, or (None) of uniform magnitudes."""
    operations_B = torch.randint(0, len(OPERATIONS), (n,), device=device)
    if magnitude is None:
        magnitudes_B = torch.randint(0, STRONGEST + 1, (n,), device=device).float()
    else:
        magnitudes_B = torch.full((n,), float(magnitude), device=device)
    signs_B = torch.randint(0, 2, (n,), device=device) * 2.0 - 1.0
    return Amounts(operations_B, magnitudes_B, signs_B)


def random_layers(images_NCHW: Tensor, *, layers: int, magnitude: int | None, ranges: Ranges) -> Tensor:
    """Several layers one after the other, each with its own draws."""
    for _ in range(layers):
        amounts = draw_amounts(len(images_NCHW), magnitude, images_NCHW.device)
        images_NCHW = apply_layer(images_NCHW, amounts, ranges)
    return images_NCHW.contiguous(memory_format=torch.channels_last)


def _shares(amounts: Amounts) -> dict[str, Tensor]:
    """For each operation the signed share of its range that each image gets: 0 for those of another one."""
    signed_B = amounts.magnitudes_B * amounts.signs_B / STRONGEST
    places_O = torch.arange(len(OPERATIONS), device=signed_B.device)
    shares_BO = (amounts.operations_B[:, None] == places_O) * signed_B[:, None]
    return dict(zip(OPERATIONS, shares_BO.unbind(1), strict=True))


def _affine(shares: dict[str, Tensor], ranges: Ranges, height: int, width: int) -> Affine:
    """Shears are about the upper left corner, which is to shear about the centre and then to move."""
    slopes_x_B, slopes_y_B = shares["shear-x"] * ranges.shear, shares["shear-y"] * ranges.shear
    return Affine(
        slopes_x_B=slopes_x_B,
        slopes_y_B=slopes_y_B,
        angles_B=-shares["rotate"] * ranges.rotation,
        right_B=(shares["translate-x"] * ranges.right).trunc() - slopes_x_B * (height / 2),
        down_B=(shares["translate-y"] * ranges.down).trunc() - slopes_y_B * (width / 2),
    )


def _tone(images_NCHW: Tensor, amounts: Amounts, ranges: Ranges) -> Tensor:
    tones = tonal.Tones(images_NCHW)
    histograms_NCV = tones.histograms_NCV()
    dropped_B = (amounts.magnitudes_B * ranges.dropped_bits / STRONGEST).round().long()
    tables = {
        "posterize": tonal.posterize(8 - dropped_B),
        "solarize": tonal.solarize(tonal.WHITE - amounts.magnitudes_B * (tonal.WHITE / STRONGEST)),
        "autocontrast": tonal.autocontrast(histograms_NCV),
        "equalize": tonal.equalize(histograms_NCV),
    }
    for name, tables_NCV in tables.items():
        tones.change(amounts.operations_B == OPERATIONS.index(name), tables_NCV)
    return tones.images()


def _colour(images_NCHW: Tensor, shares: dict[str, Tensor], ranges: Ranges) -> Tensor:
    brightness_B, saturation_B, contrast_B = (
        shares[name] * ranges.factor for name in ("brightness", "saturation", "contrast")
    )
    offsets_B = -contrast_B * mean_grey(images_NCHW).flatten()
    return adjust_colour(images_NCHW, 1 + brightness_B + saturation_B + contrast_B, -saturation_B, offsets_B)
