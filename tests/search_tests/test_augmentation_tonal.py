"""Posterize, solarize, autocontrast and equalize against torchvision on uint8 images, level by level."""

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from search.training.augmentation import tonal

EVERY_B = torch.ones(1, dtype=torch.bool)


def make_levels(n: int, channels: int, height: int, width: int) -> Tensor:
    """Images of many kinds: of all levels, of few, dark, bright, of one level, and black and white."""
    generator = torch.Generator().manual_seed(0)
    lows = torch.randint(0, 256, (n, channels, 1, 1), generator=generator)
    highs = torch.randint(0, 256, (n, channels, 1, 1), generator=generator)
    u = torch.rand(n, channels, height, width, generator=generator) ** 2
    levels = (lows + u * (highs - lows)).round()
    levels[0] = 0
    levels[1] = 255
    levels[2] = 77
    levels[3] = (levels[3] > levels[3].mean()) * 255.0
    levels[4, 0] = 12
    return levels.to(torch.uint8)


def changed(levels: Tensor, tables) -> Tensor:
    """All images looked up in the tables, as levels again."""
    tones = tonal.Tones(levels / 255)
    tones.change(EVERY_B.expand(len(levels)), tables(tones))
    return (tones.images() * 255).round().to(torch.uint8)


SHAPES = [(3, 32, 32), (1, 8, 8), (3, 17, 23)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bits", range(9))
def test_posterize_equals_torchvision(bits, shape):
    levels = make_levels(20, *shape)
    result = changed(levels, lambda _: tonal.posterize(torch.full((20,), bits)))
    assert torch.equal(result, functional.posterize(levels, bits))


@pytest.mark.parametrize("shape", SHAPES)
def test_solarize_equals_torchvision(shape):
    levels = make_levels(20, *shape)
    thresholds = [0, 1, 8.5, 76, 77, 78, 127.5, 128, 254.9, 255, *range(10, 200, 19)]
    result = changed(levels, lambda _: tonal.solarize(torch.tensor(thresholds)))
    expected = [functional.solarize(image, t) for image, t in zip(levels, thresholds, strict=True)]
    assert torch.equal(result, torch.stack(expected))


@pytest.mark.parametrize("shape", SHAPES)
def test_autocontrast_equals_torchvision(shape):
    levels = make_levels(200, *shape)
    result = changed(levels, lambda tones: tonal.autocontrast(tones.histograms_NCV()))
    assert torch.equal(result, functional.autocontrast(levels))


@pytest.mark.parametrize("shape", SHAPES)
def test_equalize_equals_torchvision(shape):
    levels = make_levels(200, *shape)
    result = changed(levels, lambda tones: tonal.equalize(tones.histograms_NCV()))
    assert torch.equal(result, torch.stack([functional.equalize(image) for image in levels]))
    assert torch.equal(result, levels) == (shape == (1, 8, 8))


def test_histograms_count_levels_and_follow_the_tables():
    levels = make_levels(10, 3, 9, 7)
    tones = tonal.Tones(levels / 255)
    for present in (levels, functional.posterize(levels, 3)):
        expected = torch.stack([torch.bincount(c.flatten(), minlength=256) for c in present.flatten(0, 1)])
        assert torch.equal(tones.histograms_NCV(), expected.view(10, 3, 256))
        tones.change(EVERY_B.expand(10), tonal.posterize(torch.full((10,), 3)))


def test_all_four_together_are_one_after_the_other():
    levels = make_levels(50, 3, 32, 32)
    result = tonal.random_tones(
        levels / 255, posterizing=1.0, bits=5, solarizing=1.0, threshold=100, autocontrasting=1.0,
        equalizing=1.0,
    )  # fmt: skip
    step_by_step = functional.solarize(functional.posterize(levels, 5), 100)
    expected = functional.equalize(functional.autocontrast(step_by_step))
    assert torch.equal((result * 255).round().to(torch.uint8), expected)


SINGLE = {
    "posterize": ({"posterizing": 0.3, "bits": 2}, lambda image: functional.posterize(image, 2)),
    "solarize": ({"solarizing": 0.3, "threshold": 60}, lambda image: functional.solarize(image, 60)),
    "autocontrast": ({"autocontrasting": 0.3}, functional.autocontrast),
    "equalize": ({"equalizing": 0.3}, functional.equalize),
}


@pytest.mark.parametrize(("settings", "theirs"), SINGLE.values(), ids=SINGLE)
def test_each_image_changes_with_its_probability_or_stays_unrounded(settings, theirs):
    torch.manual_seed(0)
    images_NCHW = torch.rand(1000, 3, 17, 17) * 0.8 + 0.1
    result = tonal.random_tones(images_NCHW, **settings)
    same_N = (result == images_NCHW).flatten(1).all(1)
    assert 250 < (~same_N).sum() < 350
    rounded = (images_NCHW[~same_N] * 255).round().to(torch.uint8)
    expected = torch.stack([theirs(image) for image in rounded])
    assert torch.equal((result[~same_N] * 255).round().to(torch.uint8), expected)


def test_draws_of_two_operations_are_independent():
    torch.manual_seed(0)
    images_NCHW = torch.full((4000, 1, 4, 4), 200 / 255)
    result = tonal.random_tones(images_NCHW, posterizing=0.5, bits=1, solarizing=0.5, threshold=10)
    levels, counts = (result[:, 0, 0, 0] * 255).round().unique(return_counts=True)
    assert levels.tolist() == [55, 127, 128, 200]  # solarized, both, posterized, neither
    assert ((counts - 1000).abs() < 150).all()


def test_whole_levels_come_back_bit_for_bit():
    """A table look-up gives the same floating-point number as the selection from the data set."""
    levels = torch.arange(256).view(1, 1, 16, 16)
    images_NCHW = levels.float().mul(1 / 255)
    tones = tonal.Tones(images_NCHW)
    tones.change(EVERY_B, tones.tables_NCV)
    assert torch.equal(tones.images(), images_NCHW)
