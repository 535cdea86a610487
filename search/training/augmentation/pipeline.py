"""From a configuration to a batch: the stages that it enables, in one fixed order.

Gather (with shift and mirroring), geometry, colour, scaling, cutout, erasing, mixing. What the
configuration leaves off is not in the list, draws nothing and costs nothing.

Shape suffixes: N images of the data set, B images of the batch (N in NCHW), H height, W width, C channels,
K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from search.training.augmentation import colour, erasing, gather, geometry, mixing
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
        self._gather = _gathering(config)
        self._stages = _stages(config, shape_HWC, scaling)
        self._draw_weights = _mixing_weights(config)

    def __call__(
        self, images_all_NHWC: Tensor, indices_B: Tensor, targets_BK: Tensor
    ) -> tuple[Tensor, Tensor]:
        """An augmented, scaled batch and its targets.

        Args:
            images_all_NHWC: the whole data set on its device, uint8, contiguous; only read.
            indices_B: which images, int64, on that device.
            targets_BK: their target probabilities, floating point.

        Returns:
            images_NCHW, float32 and channels_last in memory, and targets_BK, mixed as the images are.
        """
        images_NCHW = self.images(images_all_NHWC, indices_B)
        if self._draw_weights is None:
            return images_NCHW, targets_BK
        return mixing.random_mix(images_NCHW, targets_BK, draw=self._draw_weights)

    def images(self, images_all_NHWC: Tensor, indices_B: Tensor) -> Tensor:
        """The batch's images with everything but MixUp and CutMix: a view of each image on its own."""
        images_NCHW = self._gather(images_all_NHWC, indices_B)
        for stage in self._stages:
            images_NCHW = stage(images_NCHW)
        return images_NCHW


def plain_batch(images_all_NHWC: Tensor, indices_B: Tensor, scaling: Scaling) -> Tensor:
    """Clean, scaled images for validation: float32 NCHW, channels_last in memory."""
    return scaling(gather.gather_whole(images_all_NHWC, indices_B))


def preview_batch(config: Augmentation, images_all_NHWC: Tensor, indices_B: Tensor) -> Tensor:
    """Augmented images to look at: float32 NCHW in [0, 1], not scaled, blanked parts black.

    Raises:
        ValueError: as Augmenter does.
    """
    _, height, width, channels = images_all_NHWC.shape
    augmenter = Augmenter(config, (height, width, channels), unit)
    no_targets_BK = images_all_NHWC.new_zeros((len(indices_B), 1)).float()
    return augmenter(images_all_NHWC, indices_B, no_targets_BK)[0]


def _check(config: Augmentation, shape_HWC: tuple[int, int, int]) -> None:
    height, width, _ = shape_HWC
    if config.shift >= min(height, width):
        raise ValueError(
            "augmentation.shift must be smaller than the image's shorter side, "
            f"but got shift={config.shift} for images of {width}x{height} pixels"
        )


def _gathering(config: Augmentation) -> Callable[[Tensor, Tensor], Tensor]:
    if not config.shift and not config.flip:
        return gather.gather_whole
    return partial(gather.random_gather, shift=config.shift, flip=config.flip, padding=config.padding)


def _stages(config: Augmentation, shape_HWC: tuple[int, int, int], scaling: Scaling) -> tuple[Stage, ...]:
    """Every stage between gather and mixing, in order; those that would change nothing are left out."""
    height, width, channels = shape_HWC
    side = erasing.cutout_side(config.cutout, height, width)
    stages: tuple[tuple[object, Stage], ...] = (
        (
            config.rotation or config.scale or config.shear,
            partial(geometry.random_affine, rotation=config.rotation, scale=config.scale, shear=config.shear),
        ),
        (config.brightness, partial(colour.random_brightness, strength=config.brightness)),
        (config.contrast, partial(colour.random_contrast, strength=config.contrast)),
        (config.saturation and channels == 3, partial(colour.random_saturation, strength=config.saturation)),
        (scaling is not unit, scaling),
        (side, partial(erasing.random_cutout, side=side)),
        (config.erasing, partial(erasing.random_erasing, probability=config.erasing)),
    )
    return tuple(stage for enabled, stage in stages if enabled)


def _mixing_weights(config: Augmentation) -> mixing.DrawWeights | None:
    if config.mixup and config.cutmix:
        return partial(mixing.draw_either_weights, mixup=config.mixup, cutmix=config.cutmix)
    if config.mixup:
        return partial(mixing.draw_mixup_weights, alpha=config.mixup)
    if config.cutmix:
        return partial(mixing.draw_cutmix_weights, alpha=config.cutmix)
    return None
