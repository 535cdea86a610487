"""Random changes of the training images."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from spaces.config.section import NonNegative, Rate, Section, Share


class Augmentation(Section):
    """Random changes of the training images, drawn anew for every image. Zero switches each one off."""

    flip: Share = 0.0
    """Probability of mirroring left to right."""
    shift: Annotated[int, Field(ge=0, le=64)] = 0
    """Largest translation in pixels, by padding that much and cropping at random."""
    padding: Literal["zero", "reflect", "edge"] = "zero"
    """What a shift brings in: black, the mirrored border, or the repeated border pixel."""
    rotation: Annotated[float, Field(ge=0.0, le=180.0)] = 0.0
    """Largest rotation in degrees: the angle is uniform in [-rotation, rotation]."""
    scale: Rate = 0.0
    """Largest relative change of size: the factor is uniform in [1 - scale, 1 + scale]."""
    shear: Annotated[float, Field(ge=0.0, le=60.0)] = 0.0
    """Largest shear along x in degrees: uniform in [-shear, shear]."""
    brightness: NonNegative = 0.0
    """The image is multiplied by a factor uniform in [max(0, 1 - brightness), 1 + brightness]."""
    contrast: NonNegative = 0.0
    """The image is blended with its mean grey by a factor uniform in [max(0, 1 - contrast), 1 + contrast]."""
    saturation: NonNegative = 0.0
    """The image is blended with its grey version, factor as for contrast. No effect on grey images."""
    cutout: Rate = 0.0
    """Side of the square that is blanked out, as a share of the image's side (0.5: 16 of 32 pixels)."""
    erasing: Share = 0.0
    """Probability of random erasing: a rectangle of 2 to 33 % of the area is blanked out."""
    mixup: NonNegative = 0.0
    """Alpha of MixUp: images and labels are blended by a weight from Beta(alpha, alpha)."""
    cutmix: NonNegative = 0.0
    """Alpha of CutMix: a rectangle whose share is 1 - Beta(alpha, alpha) comes from another image.
    With MixUp on as well, each image gets one of the two, by a fair draw."""
