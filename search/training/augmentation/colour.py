"""Brightness, contrast, saturation, hue and grey, as torchvision defines them for floating-point images.

Each takes images in [0, 1] and clamps to [0, 1]. A factor of 1 or a turn of 0 changes nothing.

Shape suffixes: B = N images of the batch, C channels (1 or 3), H height, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from search.training.augmentation.draws import draw_chances, draw_factors, draw_symmetric

GREY_OF_RGB = (0.2989, 0.587, 0.114)


def adjust_brightness(images_NCHW: Tensor, factors_B: Tensor) -> Tensor:
    """factor * image."""
    return (images_NCHW * factors_B[:, None, None, None]).clamp_(0, 1)


def adjust_contrast(images_NCHW: Tensor, factors_B: Tensor) -> Tensor:
    """factor * image + (1 - factor) * mean of the image's grey version."""
    return blend(images_NCHW, mean_grey(images_NCHW), factors_B)


def adjust_saturation(images_NCHW: Tensor, factors_B: Tensor) -> Tensor:
    """factor * image + (1 - factor) * grey version of the image. Leaves grey images as they are."""
    return blend(images_NCHW, grey(images_NCHW), factors_B)


def adjust_colour(images_NCHW: Tensor, factors_B: Tensor, greys_B: Tensor, offsets_B: Tensor) -> Tensor:
    """factor * image + share * grey version of the image + offset: one matrix and one offset for each image.

    Brightness is (factor, 0, 0), saturation (factor, 1 - factor, 0) and contrast (factor, 0, (1 - factor) *
    mean grey).
    """
    tint_N1HW = (grey(images_NCHW) * greys_B[:, None, None, None]).add_(offsets_B[:, None, None, None])
    return torch.addcmul(tint_N1HW, images_NCHW, factors_B[:, None, None, None]).clamp_(0, 1)


def adjust_hue(images_NCHW: Tensor, turns_B: Tensor) -> Tensor:
    """Turn the hue and keep HSV's saturation and value. Leaves grey images as they are.

    The way back from HSV (Smith 1978) in closed form, instead of by its six cases: a channel is
    value - chroma * absence, where red's absence is 2 - |h - 3|, green's |h - 2| - 1 and blue's |h - 4| - 1,
    each clamped to [0, 1], of the hue h in sixths of the circle.

    Args:
        images_NCHW: in [0, 1].
        turns_B: shares of the colour circle.
    """
    if images_NCHW.shape[1] == 1:
        return images_NCHW
    images_NCHW = images_NCHW.contiguous()  # whole planes, which a CPU takes several times as fast
    value_NHW = images_NCHW.amax(1)
    chroma_NHW = value_NHW - images_NCHW.amin(1)
    hue_NHW = _hue(images_NCHW, value_NHW, chroma_NHW).add_(6 * turns_B[:, None, None])
    hue_NHW -= 6 * (hue_NHW / 6).floor_()
    absences = (2 - (hue_NHW - 3).abs_(), (hue_NHW - 2).abs_() - 1, (hue_NHW - 4).abs_() - 1)
    turned = [torch.addcmul(value_NHW, chroma_NHW, part.clamp_(0, 1), value=-1) for part in absences]
    return torch.stack(turned, dim=1).contiguous(memory_format=torch.channels_last)


def random_brightness(images_NCHW: Tensor, *, strength: float, probability: float = 1.0) -> Tensor:
    return adjust_brightness(images_NCHW, _factors(images_NCHW, strength, probability))


def random_contrast(images_NCHW: Tensor, *, strength: float, probability: float = 1.0) -> Tensor:
    return adjust_contrast(images_NCHW, _factors(images_NCHW, strength, probability))


def random_saturation(images_NCHW: Tensor, *, strength: float, probability: float = 1.0) -> Tensor:
    return adjust_saturation(images_NCHW, _factors(images_NCHW, strength, probability))


def random_hue(images_NCHW: Tensor, *, strength: float, probability: float = 1.0) -> Tensor:
    """Turn the hue by up to ``strength`` of the circle, either way."""
    n, device = len(images_NCHW), images_NCHW.device
    turns_B = draw_symmetric(n, strength, device)
    if probability < 1:
        turns_B = turns_B * draw_chances(n, probability, device)
    return adjust_hue(images_NCHW, turns_B)


def random_grayscale(images_NCHW: Tensor, *, probability: float) -> Tensor:
    """Each image becomes its grey version with the given probability."""
    coloured_B = ~draw_chances(len(images_NCHW), probability, images_NCHW.device)
    return adjust_saturation(images_NCHW, coloured_B.to(images_NCHW.dtype))


def grey(images_NCHW: Tensor) -> Tensor:
    """ITU-R 601-2 luma of shape (N, 1, H, W); images of one channel are their own grey version."""
    if images_NCHW.shape[1] == 1:
        return images_NCHW
    red, green, blue = images_NCHW.unbind(1)
    red_share, green_share, blue_share = GREY_OF_RGB
    return (red * red_share).add_(green, alpha=green_share).add_(blue, alpha=blue_share)[:, None]


def mean_grey(images_NCHW: Tensor) -> Tensor:
    """The mean of each image's grey version: (N, 1, 1, 1)."""
    return grey(images_NCHW.mean((2, 3), keepdim=True))


def blend(images_NCHW: Tensor, others: Tensor, factors_B: Tensor) -> Tensor:
    """factor * image + (1 - factor) * other, clamped; ``others`` broadcasts against the images."""
    factors_B111 = factors_B[:, None, None, None]
    return (images_NCHW * factors_B111).add_((1 - factors_B111) * others).clamp_(0, 1)


def _factors(images_NCHW: Tensor, strength: float, probability: float) -> Tensor:
    return draw_factors(len(images_NCHW), strength, probability, images_NCHW.device)


def _hue(images_NCHW: Tensor, value_NHW: Tensor, chroma_NHW: Tensor) -> Tensor:
    """Hue in sixths of the circle, in [-1, 5]; any where there is no colour."""
    red_NHW, green_NHW, blue_NHW = images_NCHW.unbind(1)
    divisor_NHW = chroma_NHW.clamp(min=1e-8)
    from_red = (green_NHW - blue_NHW) / divisor_NHW
    from_green = (blue_NHW - red_NHW) / divisor_NHW + 2
    from_blue = (red_NHW - green_NHW) / divisor_NHW + 4
    not_red = torch.where(value_NHW == green_NHW, from_green, from_blue)
    return torch.where(value_NHW == red_NHW, from_red, not_red)
