"""Brightness, contrast and saturation against torchvision's functional operations, image by image."""

import pytest
import torch
from torchvision.transforms.v2 import functional

from search.training.augmentation import colour

OPERATIONS = [
    (colour.adjust_brightness, functional.adjust_brightness),
    (colour.adjust_contrast, functional.adjust_contrast),
    (colour.adjust_saturation, functional.adjust_saturation),
]
RANDOM = [colour.random_brightness, colour.random_contrast, colour.random_saturation]


def make_images(n: int, channels: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.rand(n, channels, 8, 10, dtype=dtype, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("ours", "theirs"), OPERATIONS, ids=["brightness", "contrast", "saturation"])
def test_colour_equals_torchvision(ours, theirs, channels):
    factors_B = torch.tensor([0.0, 0.2, 0.7, 1.0, 1.3, 2.0, 5.0], dtype=torch.float64)
    images_NCHW = make_images(len(factors_B), channels)
    expected = torch.stack(
        [theirs(image, factor.item()) for image, factor in zip(images_NCHW, factors_B, strict=True)]
    )
    result = ours(images_NCHW, factors_B)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-12)
    assert (result.min() == 0 and result.max() == 1) or channels == 1  # the clamp was at work


@pytest.mark.parametrize("ours", [ours for ours, _ in OPERATIONS])
def test_factor_one_is_the_identity_and_arguments_stay_as_they_are(ours):
    images_NCHW = make_images(5, 3, torch.float32)
    before = images_NCHW.clone()
    torch.testing.assert_close(ours(images_NCHW, torch.ones(5)), images_NCHW)
    ours(images_NCHW, torch.full((5,), 0.3))
    assert torch.equal(images_NCHW, before)


@pytest.mark.parametrize(("strength", "low", "high"), [(0.4, 0.6, 1.4), (2.5, 0.0, 3.5)])
def test_factors_are_uniform_in_their_range(strength, low, high):
    torch.manual_seed(0)
    factors_B = colour.draw_factors(20_000, strength, torch.device("cpu"))
    assert low <= factors_B.min() < low + 0.01
    assert high - 0.01 < factors_B.max() <= high
    counts = torch.histc(factors_B, 10, low, high)
    assert ((counts - 2000).abs() < 250).all()


@pytest.mark.parametrize("change", RANDOM)
def test_colour_draws_differ_between_images(change):
    torch.manual_seed(0)
    images_NCHW = make_images(1, 3, torch.float32).expand(20, 3, 8, 10)
    assert len(change(images_NCHW, strength=0.5).flatten(1).unique(dim=0)) == 20
