"""Random changes of the training images."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from spaces.config.section import NonNegative, Rate, Section, Share

Degrees = Annotated[float, Field(ge=0.0, le=60.0)]
Area = Annotated[float, Field(gt=0.0, le=1.0)]


class Augmentation(Section):
    """Random changes of the training images, drawn anew for every image. Zero switches each one off.

    They act in the order of the fields; flip and shift are one selection of pixels, rotation to translation
    one resampling. Where a ``_probability`` is below 1, the images that are not drawn stay as they are.
    """

    flip: Share = 0.0
    """Probability of mirroring left to right."""
    alternating_flip: bool = False
    """Mirroring by turns instead of by chance: every image is mirrored in every other epoch, half of the
    images in the even ones and half in the odd ones (Jordan 2024, arXiv 2404.00498, section 3.6)."""
    shift: Annotated[int, Field(ge=0, le=64)] = 0
    """Largest translation in pixels, by padding that much and cropping at random."""
    padding: Literal["zero", "reflect", "edge"] = "zero"
    """What a shift brings in: black, the mirrored border, or the repeated border pixel."""

    policy: Literal["none", "randaugment", "trivialaugment"] = "none"
    """Operations drawn from a list of fourteen: identity, shears, translations, rotation, brightness,
    saturation, contrast, sharpness, posterize, solarize, autocontrast, equalize. randaugment: several, of one
    magnitude (Cubuk et al. 2020); trivialaugment: one, of any magnitude, with the wide ranges (Müller and
    Hutter 2021)."""
    randaugment_layers: Annotated[int, Field(ge=0, le=8)] = 2
    """RandAugment's N: operations in a row, each image drawing its own. Each costs as much as the first."""
    randaugment_magnitude: Annotated[int, Field(ge=0, le=30)] = 9
    """RandAugment's M, of 30."""

    rotation: Annotated[float, Field(ge=0.0, le=180.0)] = 0.0
    """Largest rotation in degrees: the angle is uniform in [-rotation, rotation]."""
    scale: Rate = 0.0
    """Largest relative change of size: the factor is uniform in [1 - scale, 1 + scale]."""
    shear: Degrees = 0.0
    """Largest shear along x in degrees: uniform in [-shear, shear]."""
    shear_y: Degrees = 0.0
    """Largest shear along y in degrees: uniform in [-shear_y, shear_y]."""
    translation: Rate = 0.0
    """Largest translation as a share of the side, in fractions of pixels and with black brought in: uniform
    in [-translation, translation] of the width, and of the height."""

    brightness: NonNegative = 0.0
    """The image is multiplied by a factor uniform in [max(0, 1 - brightness), 1 + brightness]."""
    brightness_probability: Share = 1.0
    """Probability that an image's brightness changes."""
    contrast: NonNegative = 0.0
    """The image is blended with its mean grey by a factor uniform in [max(0, 1 - contrast), 1 + contrast]."""
    contrast_probability: Share = 1.0
    """Probability that an image's contrast changes."""
    saturation: NonNegative = 0.0
    """The image is blended with its grey version, factor as for contrast. No effect on grey images."""
    saturation_probability: Share = 1.0
    """Probability that an image's saturation changes."""
    hue: Annotated[float, Field(ge=0.0, le=0.5)] = 0.0
    """Largest turn of the hue, as a share of the colour circle: uniform in [-hue, hue]. No effect on grey
    images."""
    hue_probability: Share = 1.0
    """Probability that an image's hue changes."""
    grayscale: Share = 0.0
    """Probability that an image loses its colours."""

    posterize: Share = 0.0
    """Probability of posterizing: of each pixel's eight bits only the highest are kept."""
    posterize_bits: Annotated[int, Field(ge=1, le=8)] = 4
    """Bits that posterizing keeps; 8 changes nothing."""
    solarize: Share = 0.0
    """Probability of solarizing: levels from a threshold on are inverted."""
    solarize_threshold: Annotated[int, Field(ge=0, le=255)] = 128
    """The lowest grey level, 0 to 255, that solarizing inverts; 0 inverts the whole image."""
    autocontrast: Share = 0.0
    """Probability of stretching each channel over all grey levels."""
    equalize: Share = 0.0
    """Probability of making each channel's grey levels equally frequent. No effect on images of fewer than
    256 pixels, whose histogram is too coarse for it."""

    sharpen: NonNegative = 0.0
    """The image is blended with a smoothed version of itself by a factor uniform in
    [max(0, 1 - sharpen), 1 + sharpen]: above 1 it becomes sharper, below 1 softer."""
    sharpen_probability: Share = 1.0
    """Probability that an image's sharpness changes."""

    cutout: Rate = 0.0
    """Side of the square that is blanked out, as a share of the image's side (0.5: 16 of 32 pixels)."""
    erasing: Share = 0.0
    """Probability of random erasing: a rectangle is blanked out (Zhong et al. 2020)."""
    erasing_smallest: Area = 0.02
    """Smallest area that is erased, as a share of the image's. The area is uniform between the two."""
    erasing_largest: Area = 0.33
    """Largest area that is erased."""
    mixup: NonNegative = 0.0
    """Alpha of MixUp: images and labels are blended by a weight from Beta(alpha, alpha)."""
    cutmix: NonNegative = 0.0
    """Alpha of CutMix: a rectangle whose share is 1 - Beta(alpha, alpha) comes from another image.
    With MixUp on as well, each image gets one of the two, by a fair draw."""

    @model_validator(mode="after")
    def _one_way_of_flipping(self) -> Augmentation:
        if self.alternating_flip and self.flip:
            raise ValueError(
                "alternating_flip and a random flip exclude each other: flip must be 0 with it, "
                f"but got flip={self.flip}"
            )
        return self

    @model_validator(mode="after")
    def _areas_in_order(self) -> Augmentation:
        if self.erasing_smallest > self.erasing_largest:
            raise ValueError(
                "erasing_smallest must not exceed erasing_largest, but got "
                f"erasing_smallest={self.erasing_smallest}, erasing_largest={self.erasing_largest}"
            )
        return self
