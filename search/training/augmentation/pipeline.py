"""From a configuration to a batch: the stages that it enables, in one fixed order.

Gather (with shift and mirroring), policy, geometry, colour, tones, sharpness, scaling, cutout, erasing,
mixing. What the configuration leaves off is not in the list, draws nothing and costs nothing.

Shape suffixes: N images of the data set, B images of the batch (N in NCHW), H height, W width, C channels,
K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from search.training.augmentation import (
    colour,
    erasing,
    gather,
    geometry,
    mixing,
    policy,
    sharpness,
    tonal,
)
from search.training.augmentation.scaling import Scaling, unit
from spaces.config import Augmentation

Stage = Callable[[Tensor], Tensor]
"""Takes images_NCHW and returns them changed, of the same shape, type and memory layout."""


class Augmenter:
    """One configuration's augmentation. Holds no state: randomness is the device's default generator.

    Args:
        config: what to do, and how strongly.
        shape_HWC: height, width and channels (1 or 3) of the data set's images.
        scaling: how pixels enter the network; its constants lie on the images' device.

    Raises:
        ValueError: for a setting that makes no sense for the images' size.
    """

    def __init__(self, config: Augmentation, shape_HWC: tuple[int, int, int], scaling: Scaling) -> None:
        _check(config, shape_HWC)
        self._config = config
        self._stages = _stages(config, shape_HWC, scaling)
        self._draw_weights = _mixing_weights(config)

    def __call__(
        self, images_all_NHWC: Tensor, indices_B: Tensor, targets_BK: Tensor, epoch: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """An augmented, scaled batch and its targets.

        Args:
            images_all_NHWC: the whole data set on its device, uint8, contiguous; only read.
            indices_B: which images, int64, on that device.
            targets_BK: their target probabilities, floating point.
            epoch: epochs trained so far, int64 of shape (1,), on that device; read by alternating flip.

        Returns:
            images_NCHW, float32 and channels_last in memory, and targets_BK, mixed as the images are.
        """
        images_NCHW = self.images(images_all_NHWC, indices_B, epoch)
        if self._draw_weights is None:
            return images_NCHW, targets_BK
        return mixing.random_mix(images_NCHW, targets_BK, draw=self._draw_weights)

    def images(self, images_all_NHWC: Tensor, indices_B: Tensor, epoch: Tensor | None = None) -> Tensor:
        """The batch's images with everything but MixUp and CutMix: a view of each image on its own."""
        images_NCHW = self._gather(images_all_NHWC, indices_B, epoch)
        for stage in self._stages:
            images_NCHW = stage(images_NCHW)
        return images_NCHW

    def _gather(self, images_all_NHWC: Tensor, indices_B: Tensor, epoch: Tensor | None) -> Tensor:
        config = self._config
        if not (config.shift or config.flip or config.alternating_flip):
            return gather.gather_whole(images_all_NHWC, indices_B)
        assert epoch is not None or not config.alternating_flip, "alternating flip needs the epoch"
        return gather.random_gather(
            images_all_NHWC,
            indices_B,
            shift=config.shift,
            flip=config.flip,
            padding=config.padding,
            alternating=epoch if config.alternating_flip else None,
        )


def plain_batch(images_all_NHWC: Tensor, indices_B: Tensor, scaling: Scaling) -> Tensor:
    """Clean, scaled images for validation: float32 NCHW, channels_last in memory."""
    return scaling(gather.gather_whole(images_all_NHWC, indices_B))


def preview_batch(config: Augmentation, images_all_NHWC: Tensor, indices_B: Tensor) -> Tensor:
    """Augmented images to look at, as in the first epoch: float32 NCHW in [0, 1], not scaled, blanked parts
    black.

    Raises:
        ValueError: as Augmenter does.
    """
    _, height, width, channels = images_all_NHWC.shape
    augmenter = Augmenter(config, (height, width, channels), unit)
    no_targets_BK = images_all_NHWC.new_zeros((len(indices_B), 1)).float()
    first_epoch = torch.zeros(1, dtype=torch.int64, device=indices_B.device)
    return augmenter(images_all_NHWC, indices_B, no_targets_BK, first_epoch)[0]


def _check(config: Augmentation, shape_HWC: tuple[int, int, int]) -> None:
    height, width, _ = shape_HWC
    if config.shift >= min(height, width):
        raise ValueError(
            "augmentation.shift must be smaller than the image's shorter side, "
            f"but got shift={config.shift} for images of {width}x{height} pixels"
        )


def _stages(config: Augmentation, shape_HWC: tuple[int, int, int], scaling: Scaling) -> tuple[Stage, ...]:
    """Every stage between gather and mixing, in order; those that would change nothing are left out."""
    height, width, channels = shape_HWC
    coloured = channels == 3
    side = erasing.cutout_side(config.cutout, height, width)
    areas = (config.erasing_smallest, config.erasing_largest)
    stages: tuple[tuple[object, Stage], ...] = (
        *_policies(config, height, width),
        _geometry(config),
        _strength(colour.random_brightness, config.brightness, config.brightness_probability),
        _strength(colour.random_contrast, config.contrast, config.contrast_probability),
        _strength(colour.random_saturation, config.saturation * coloured, config.saturation_probability),
        _strength(colour.random_hue, config.hue * coloured, config.hue_probability),
        (config.grayscale and coloured, partial(colour.random_grayscale, probability=config.grayscale)),
        _tones(config),
        _strength(sharpness.random_sharpness, config.sharpen, config.sharpen_probability),
        (scaling is not unit, scaling),
        (side, partial(erasing.random_cutout, side=side)),
        (config.erasing, partial(erasing.random_erasing, probability=config.erasing, areas=areas)),
    )
    return tuple(stage for enabled, stage in stages if enabled)


def _policies(config: Augmentation, height: int, width: int) -> tuple[tuple[object, Stage], ...]:
    rand = partial(
        policy.random_layers,
        layers=config.randaugment_layers,
        magnitude=config.randaugment_magnitude,
        ranges=policy.randaugment_ranges(height, width),
    )
    trivial = partial(policy.random_layers, layers=1, magnitude=None, ranges=policy.wide_ranges())
    return (
        (config.policy == "randaugment" and config.randaugment_layers, rand),
        (config.policy == "trivialaugment", trivial),
    )


def _geometry(config: Augmentation) -> tuple[object, Stage]:
    ranges = geometry.Ranges(config.rotation, config.scale, config.shear, config.shear_y, config.translation)
    return any(ranges), partial(geometry.random_affine, ranges=ranges)


def _tones(config: Augmentation) -> tuple[object, Stage]:
    enabled = config.posterize or config.solarize or config.autocontrast or config.equalize
    return enabled, partial(
        tonal.random_tones,
        posterizing=config.posterize,
        bits=config.posterize_bits,
        solarizing=config.solarize,
        threshold=config.solarize_threshold,
        autocontrasting=config.autocontrast,
        equalizing=config.equalize,
    )


def _strength(change: Callable[..., Tensor], strength: float, probability: float) -> tuple[object, Stage]:
    return strength and probability, partial(change, strength=strength, probability=probability)


def _mixing_weights(config: Augmentation) -> mixing.DrawWeights | None:
    if config.mixup and config.cutmix:
        return partial(mixing.draw_either_weights, mixup=config.mixup, cutmix=config.cutmix)
    if config.mixup:
        return partial(mixing.draw_mixup_weights, alpha=config.mixup)
    if config.cutmix:
        return partial(mixing.draw_cutmix_weights, alpha=config.cutmix)
    return None
