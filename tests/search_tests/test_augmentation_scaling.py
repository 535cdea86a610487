"""Input scaling against torchvision's normalize and NumPy in float64."""

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from search.training.augmentation import build_scaling

IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def make_images(channels: int) -> torch.Tensor:
    return torch.rand(6, channels, 9, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) ** 2


def statistics(images_NCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return images_NCHW.mean((0, 2, 3)), images_NCHW.std((0, 2, 3), correction=0)


def scale(kind: str, images_NCHW: torch.Tensor) -> torch.Tensor:
    return build_scaling(kind, *statistics(images_NCHW))(images_NCHW)


@pytest.mark.parametrize("channels", [1, 3])
def test_standardize_gives_mean_zero_and_deviation_one(channels):
    means_C, stds_C = statistics(scale("standardize", make_images(channels)))
    torch.testing.assert_close(means_C, torch.zeros_like(means_C), rtol=0, atol=1e-12)
    torch.testing.assert_close(stds_C, torch.ones_like(stds_C), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "mean", "std"),
    [("unit", [0.0] * 3, [1.0] * 3), ("symmetric", [0.5] * 3, [0.5] * 3), ("imagenet", *IMAGENET)],
)
def test_fixed_scalings_equal_torchvision_normalize(kind, mean, std):
    images_NCHW = make_images(3)
    torch.testing.assert_close(scale(kind, images_NCHW), functional.normalize(images_NCHW, mean, std))


def test_imagenet_of_one_channel_takes_the_mean_statistics():
    images_NCHW = make_images(1)
    expected = (images_NCHW - np.mean(IMAGENET[0])) / np.mean(IMAGENET[1])
    torch.testing.assert_close(scale("imagenet", images_NCHW), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_per_image_equals_numpy(channels):
    images_NCHW = make_images(channels)
    images_NCHW[0] = 0.3  # uniform: becomes 0
    images_NCHW[1] = 0.5 + 1e-3 * images_NCHW[1]  # flatter than the least deviation that counts
    result = scale("per-image", images_NCHW).numpy()
    for image, scaled in zip(images_NCHW.numpy(), result, strict=True):
        expected = (image - image.mean()) / max(image.std(), 1 / np.sqrt(image.size))
        np.testing.assert_allclose(scaled, expected, rtol=0, atol=1e-12)
    assert np.abs(result[0]).max() < 1e-12
    assert abs(result[2].std() - 1) < 1e-12


def test_standardize_of_a_constant_channel_is_zero():
    images_NCHW = make_images(3)
    images_NCHW[:, 1] = 0.25
    scaled = scale("standardize", images_NCHW)
    assert scaled.isfinite().all()
    assert scaled[:, 1].abs().max() < 1e-12


def test_unknown_scaling_is_refused():
    with pytest.raises(ValueError, match=r"scaling must be one of unit, standardize.*got 'whiten'"):
        build_scaling("whiten", torch.zeros(3), torch.ones(3))
