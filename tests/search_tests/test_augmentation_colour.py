"""Colours and sharpness against torchvision's functional operations, image by image."""

import pytest
import torch
from torchvision.transforms.v2 import functional

from search.training.augmentation import colour, sharpness
from search.training.augmentation.draws import draw_factors

OPERATIONS = [
    (colour.adjust_brightness, functional.adjust_brightness),
    (colour.adjust_contrast, functional.adjust_contrast),
    (colour.adjust_saturation, functional.adjust_saturation),
    (sharpness.adjust_sharpness, functional.adjust_sharpness),
]
NAMES = ["brightness", "contrast", "saturation", "sharpness"]
RANDOM = [
    colour.random_brightness,
    colour.random_contrast,
    colour.random_saturation,
    colour.random_hue,
    sharpness.random_sharpness,
]


def make_images(n: int, channels: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.rand(n, channels, 8, 10, dtype=dtype, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("ours", "theirs"), OPERATIONS, ids=NAMES)
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
    factors_B = draw_factors(20_000, strength, 1.0, torch.device("cpu"))
    assert low <= factors_B.min() < low + 0.01
    assert high - 0.01 < factors_B.max() <= high
    counts = torch.histc(factors_B, 10, low, high)
    assert ((counts - 2000).abs() < 250).all()


@pytest.mark.parametrize("change", RANDOM)
def test_colour_draws_differ_between_images(change):
    torch.manual_seed(0)
    images_NCHW = make_images(1, 3, torch.float32).expand(20, 3, 8, 10)
    assert len(change(images_NCHW, strength=0.5).flatten(1).unique(dim=0)) == 20


@pytest.mark.parametrize("change", RANDOM)
@pytest.mark.parametrize("probability", [0.25, 0.75])
def test_images_that_are_not_drawn_stay_as_they_are(change, probability):
    torch.manual_seed(0)
    images_NCHW = make_images(1, 3, torch.float32).expand(2000, 3, 8, 10)
    changed = change(images_NCHW, strength=0.5, probability=probability)
    differences_N = (changed - images_NCHW).abs().amax((1, 2, 3))
    share = (differences_N > 1e-3).float().mean()
    assert abs(share - probability) < 0.04
    assert (differences_N[differences_N <= 1e-3] < 1e-6).float().mean() > 0.95  # the rest: small draws


def test_small_images_are_not_sharpened():
    for size in [(2, 9), (9, 1)]:
        images_NCHW = torch.rand(3, 3, *size)
        factors_B = torch.tensor([0.0, 1.0, 3.0])
        assert torch.equal(sharpness.adjust_sharpness(images_NCHW, factors_B), images_NCHW)
        assert torch.equal(functional.adjust_sharpness(images_NCHW, 3.0), images_NCHW)


@pytest.mark.parametrize("channels", [1, 3])
def test_hue_equals_torchvision(channels):
    turns = [-0.5, -0.31, -0.1, 0.0, 0.02, 0.25, 0.5]
    images_NCHW = make_images(len(turns), channels, torch.float32)
    images_NCHW[:, :, 0] = images_NCHW[:, :1, 0]  # grey pixels
    images_NCHW[:, :, 1] = (images_NCHW[:, :, 1] * 3).round() / 3  # ties between channels, black and white
    expected = torch.stack(
        [functional.adjust_hue(image, turn) for image, turn in zip(images_NCHW, turns, strict=True)]
    )
    result = colour.adjust_hue(images_NCHW, torch.tensor(turns))
    torch.testing.assert_close(result, expected, rtol=0, atol=2e-6)
    torch.testing.assert_close(result[turns.index(0.0)], images_NCHW[turns.index(0.0)], rtol=0, atol=1e-6)


def test_hue_turns_red_to_green_by_a_third():
    red_1311 = torch.tensor([1.0, 0.0, 0.0])[None, :, None, None]
    turned = colour.adjust_hue(red_1311.expand(2, 3, 1, 1), torch.tensor([1 / 3, -1 / 3]))
    torch.testing.assert_close(turned[:, :, 0, 0], torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))


def test_hue_draws_reach_both_ends_of_their_range():
    torch.manual_seed(0)
    red_NCHW = torch.tensor([1.0, 0.0, 0.0])[None, :, None, None].expand(5000, 3, 1, 1)
    green_N, blue_N = colour.random_hue(red_NCHW, strength=0.1)[:, 1:, 0, 0].unbind(1)
    # within a sixth of the circle from red, green (or blue) grows by 6 for each turn
    assert green_N.max() == pytest.approx(0.6, abs=0.002)
    assert blue_N.max() == pytest.approx(0.6, abs=0.002)
    assert ((green_N > 0) ^ (blue_N > 0)).float().mean() > 0.99
    assert green_N.mean() == pytest.approx(0.15, abs=0.01)


@pytest.mark.parametrize("probability", [0.3, 1.0])
def test_grayscale_equals_torchvision_where_drawn(probability):
    torch.manual_seed(0)
    images_NCHW = make_images(2000, 3)
    result = colour.random_grayscale(images_NCHW, probability=probability)
    grey_NCHW = functional.rgb_to_grayscale(images_NCHW, num_output_channels=3)
    grey_N = (result == result[:, :1]).flatten(1).all(1)
    torch.testing.assert_close(result[grey_N], grey_NCHW[grey_N])
    assert torch.equal(result[~grey_N], images_NCHW[~grey_N])
    assert abs(grey_N.float().mean() - probability) < 0.04


@pytest.mark.parametrize("channels", [1, 3])
def test_one_matrix_with_offset_is_each_of_the_three(channels):
    factors_B = torch.tensor([0.1, 0.9, 1.0, 1.9], dtype=torch.float64)
    images_NCHW = make_images(len(factors_B), channels)
    nothing_B = torch.zeros_like(factors_B)
    means_B = colour.mean_grey(images_NCHW).flatten()
    for theirs, greys_B, offsets_B in [
        (functional.adjust_brightness, nothing_B, nothing_B),
        (functional.adjust_saturation, 1 - factors_B, nothing_B),
        (functional.adjust_contrast, nothing_B, (1 - factors_B) * means_B),
    ]:
        expected = torch.stack(
            [theirs(image, factor.item()) for image, factor in zip(images_NCHW, factors_B, strict=True)]
        )
        result = colour.adjust_colour(images_NCHW, factors_B, greys_B, offsets_B)
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-12)
