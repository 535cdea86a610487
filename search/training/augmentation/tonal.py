"""Operations on grey levels: one table of 256 entries for every image and channel, and one look-up.

Posterize, solarize, autocontrast and equalize each send every grey level of a channel to another, whatever
the pixel's place. So they are made into a table, several into the table of their composition, and the pixels
are touched once to count them (where the operation asks how frequent they are) and once to look them up.
All four are torchvision's (v2, on uint8), level by level.

Shape suffixes: N images of the batch, C channels, H height, W width, V = 256 grey levels; B = N draws.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from search.training.augmentation.draws import draw_chances

LEVELS = 256
WHITE = 255


class Tones:
    """A batch of images as grey levels, and the tables that they are going to be looked up in.

    Args:
        images_NCHW: in [0, 1]; rounded to the nearest of 256 levels.
    """

    def __init__(self, images_NCHW: Tensor) -> None:
        n, channels = images_NCHW.shape[:2]
        self._images_NCHW = images_NCHW.contiguous()  # whole planes, which a CPU takes several times as fast
        self._changed_B = torch.zeros(n, dtype=torch.bool, device=images_NCHW.device)
        self.tables_NCV = _levels(images_NCHW.device).expand(n, channels, LEVELS)

    @cached_property
    def _cells_NCHW(self) -> Tensor:
        """Where each pixel's level stands in the flattened tables."""
        levels_NCHW = (self._images_NCHW * WHITE).round_().long()
        n, channels = levels_NCHW.shape[:2]
        starts = torch.arange(0, n * channels * LEVELS, LEVELS, device=levels_NCHW.device)
        return levels_NCHW.add_(starts.view(n, channels, 1, 1))

    @cached_property
    def _counts_NCV(self) -> Tensor:
        """How many pixels of each level the images had at first."""
        cells = self._cells_NCHW.flatten()
        counts = torch.zeros(self.tables_NCV.numel(), dtype=torch.int64, device=cells.device)
        ones = torch.ones(1, dtype=torch.int64, device=cells.device).expand_as(cells)
        return counts.scatter_add_(0, cells, ones).view(self.tables_NCV.shape)

    def histograms_NCV(self) -> Tensor:
        """How many pixels have each level, once changed as decided so far."""
        return torch.zeros_like(self._counts_NCV).scatter_add_(-1, self.tables_NCV, self._counts_NCV)

    def change(self, chosen_B: Tensor, tables_NCV: Tensor) -> None:
        """Send the chosen images' present levels through further tables."""
        further_NCV = tables_NCV.expand_as(self.tables_NCV).gather(-1, self.tables_NCV)
        self.tables_NCV = torch.where(chosen_B[:, None, None], further_NCV, self.tables_NCV)
        self._changed_B = self._changed_B | chosen_B

    def images(self) -> Tensor:
        """The changed images in [0, 1], contiguous in memory; the others as they were, unrounded."""
        values = (self.tables_NCV.to(self._images_NCHW.dtype) * (1 / WHITE)).flatten()
        changed_NCHW = values.index_select(0, self._cells_NCHW.flatten()).view(self._images_NCHW.shape)
        return torch.where(self._changed_B[:, None, None, None], changed_NCHW, self._images_NCHW)


def posterize(bits_B: Tensor) -> Tensor:
    """Tables (B, 1, V) that keep a level's highest bits, int64 from 0 to 8."""
    steps_B = 2 ** (8 - bits_B)
    return _levels(bits_B.device) & -steps_B[:, None, None]


def solarize(thresholds_B: Tensor) -> Tensor:
    """Tables (B, 1, V) that invert the levels from a threshold on, a level from 0 to 255."""
    levels_V = _levels(thresholds_B.device)
    return torch.where(levels_V >= thresholds_B[:, None, None], WHITE - levels_V, levels_V)


def autocontrast(histograms_NCV: Tensor) -> Tensor:
    """Tables that stretch each channel over all levels: its lowest becomes 0, its highest 255.

    A channel of a single level stays as it is.
    """
    lowest_NC1, highest_NC1 = _extremes(histograms_NCV)
    levels_V = _levels(histograms_NCV.device)
    flat_NC1 = lowest_NC1 == highest_NC1
    steps_NC1 = torch.where(flat_NC1, 1.0, (highest_NC1 - lowest_NC1).float() * (1 / WHITE))
    above_NCV = (levels_V - torch.where(flat_NC1, 0, lowest_NC1)).float()
    return (above_NCV / steps_NC1).clamp_(0, WHITE).long()


def equalize(histograms_NCV: Tensor) -> Tensor:
    """Tables that make each channel's levels about equally frequent.

    With s the number of pixels below the highest level over 255, rounded down, level v becomes the number of
    pixels below v over s, rounded. A channel where s is 0 (all images of fewer than 256 pixels) stays as it
    is.
    """
    levels_V = _levels(histograms_NCV.device)
    _, highest_NC1 = _extremes(histograms_NCV)
    below_NCV = histograms_NCV.cumsum(-1) - histograms_NCV
    steps_NC1 = below_NCV.gather(-1, highest_NC1) // 255
    safe_NC1 = steps_NC1.clamp(min=1)
    tables_NCV = ((below_NCV + safe_NC1 // 2) // safe_NC1).clamp_(0, WHITE)
    return torch.where(steps_NC1 == 0, levels_V, tables_NCV)


def random_tones(
    images_NCHW: Tensor,
    *,
    posterizing: float = 0.0,
    bits: int = 8,
    solarizing: float = 0.0,
    threshold: int = LEVELS,
    autocontrasting: float = 0.0,
    equalizing: float = 0.0,
) -> Tensor:
    """Posterize, solarize, autocontrast and equalize in this order, each with its own probability.

    Args:
        images_NCHW: in [0, 1]; an image that undergoes any of the four is rounded to grey levels first.
        posterizing, solarizing, autocontrasting, equalizing: probabilities; 0 costs nothing.
        bits: what posterizing keeps, 1 to 8.
        threshold: the lowest level that solarizing inverts.
    """
    n, device = len(images_NCHW), images_NCHW.device
    tones = Tones(images_NCHW)
    if posterizing:
        tables = posterize(torch.full((n,), bits, device=device))
        tones.change(draw_chances(n, posterizing, device), tables)
    if solarizing:
        tables = solarize(torch.full((n,), threshold, device=device))
        tones.change(draw_chances(n, solarizing, device), tables)
    if autocontrasting:
        tones.change(draw_chances(n, autocontrasting, device), autocontrast(tones.histograms_NCV()))
    if equalizing:
        tones.change(draw_chances(n, equalizing, device), equalize(tones.histograms_NCV()))
    return tones.images().contiguous(memory_format=torch.channels_last)


def _levels(device: torch.device) -> Tensor:
    return torch.arange(LEVELS, device=device)


def _extremes(histograms_NCV: Tensor) -> tuple[Tensor, Tensor]:
    """The lowest and the highest level that occur: (N, C, 1) each."""
    levels_V = _levels(histograms_NCV.device)
    there_NCV = histograms_NCV > 0
    lowest_NC1 = torch.where(there_NCV, levels_V, WHITE).amin(-1, keepdim=True)
    highest_NC1 = torch.where(there_NCV, levels_V, 0).amax(-1, keepdim=True)
    return lowest_NC1, highest_NC1
