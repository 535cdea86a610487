"""Cutout and random erasing against loops over pixels."""

import math

import numpy as np
import pytest
import torch

from search.training.augmentation.boxes import Boxes
from search.training.augmentation.draws import draw_points
from search.training.augmentation.erasing import (
    blank,
    cutout,
    cutout_side,
    draw_erasing_boxes,
    erasing_boxes,
    random_cutout,
    random_erasing,
)

CPU = torch.device("cpu")


def make_images(n: int, channels: int, height: int, width: int) -> torch.Tensor:
    return torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(0)) + 0.1


@pytest.mark.parametrize(("channels", "height", "width"), [(3, 32, 32), (1, 8, 8), (3, 5, 9)])
@pytest.mark.parametrize("side", [1, 3, 4, 16])
def test_cutout_equals_the_loop(channels, height, width, side):
    rows_B, columns_B = (
        grid.flatten() for grid in torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    )
    images_NCHW = make_images(len(rows_B), channels, height, width)
    expected = images_NCHW.numpy().copy()
    for image, row, column in zip(expected, rows_B.tolist(), columns_B.tolist(), strict=True):
        top, left = row - side // 2, column - side // 2
        image[:, max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = 0
    assert np.array_equal(cutout(images_NCHW, rows_B, columns_B, side).numpy(), expected)


def test_cutout_side_is_a_share_of_the_shorter_side():
    assert cutout_side(0.5, 32, 32) == 16
    assert cutout_side(0.25, 8, 20) == 2
    assert cutout_side(0.0, 32, 32) == 0


def test_cutout_centres_are_uniform_over_all_pixels():
    torch.manual_seed(0)
    rows_B, columns_B = draw_points(30_000, 3, 5, CPU)
    counts = torch.bincount(rows_B * 5 + columns_B, minlength=15)
    assert len(counts) == 15
    assert ((counts - 2000).abs() < 250).all()


def test_random_cutout_blanks_at_most_its_square():
    torch.manual_seed(0)
    blanked_N = (random_cutout(make_images(300, 1, 8, 8), side=4) == 0).sum((1, 2, 3))
    assert blanked_N.max() == 16
    assert blanked_N.min() == 4  # about a corner pixel: two of four rows and columns


def test_blank_equals_the_loop():
    generator = torch.Generator().manual_seed(2)
    boxes = Boxes(*(torch.randint(low, 12, (50,), generator=generator) for low in (-4, -4, 0, 0)))
    images_NCHW = make_images(50, 3, 9, 7)
    expected = images_NCHW.clone()
    for n, (top, left, height, width) in enumerate(zip(*(part.tolist() for part in boxes), strict=True)):
        for row in range(9):
            for column in range(7):
                if top <= row < top + height and left <= column < left + width:
                    expected[n, :, row, column] = 0
    assert torch.equal(blank(images_NCHW, boxes), expected)


def test_erasing_boxes_equal_the_paper_where_they_fit():
    areas = [0.02, 0.1, 0.2, 0.33, 0.25, 0.33, 0.33]
    aspects = [1.0, 0.3, 3.3, 1.0, 2.0, 3.3, 0.3]
    down, right = [0.0, 0.5, 0.999, 0.3, 0.0, 0.0, 0.9], [0.999, 0.0, 0.1, 0.7, 0.0, 0.0, 0.9]
    draws = (torch.tensor(part, dtype=torch.float64) for part in (areas, aspects, down, right))
    boxes = erasing_boxes(*draws, 32, 24)
    for n, (area, aspect) in enumerate(zip(areas, aspects, strict=True)):
        height = min(round(math.sqrt(area * 32 * 24 * aspect)), 32)
        width = min(round(math.sqrt(area * 32 * 24 / aspect)), 24)
        top, left = int(down[n] * (32 - height + 1)), int(right[n] * (24 - width + 1))
        assert [int(part[n]) for part in boxes] == [top, left, height, width]


@pytest.mark.parametrize(("height", "width"), [(32, 32), (8, 8), (3, 5)])
def test_drawn_boxes_lie_within_the_image_and_reach_its_borders(height, width):
    torch.manual_seed(0)
    boxes = draw_erasing_boxes(5000, (0.02, 0.33), height, width, CPU)
    assert boxes.heights_B.min() >= 1
    assert boxes.widths_B.min() >= 1
    assert boxes.tops_B.min() == 0
    assert boxes.lefts_B.min() == 0
    assert (boxes.tops_B + boxes.heights_B).max() == height
    assert (boxes.lefts_B + boxes.widths_B).max() == width


@pytest.mark.parametrize(("low", "high"), [(0.02, 0.33), (0.1, 0.2)])
def test_drawn_boxes_have_the_given_areas_and_the_papers_aspects(low, high):
    torch.manual_seed(0)
    boxes = draw_erasing_boxes(20_000, (low, high), 200, 200, CPU)
    shares_B = boxes.heights_B * boxes.widths_B / 40_000
    aspects_B = boxes.heights_B / boxes.widths_B
    assert low - 0.003 < shares_B.min() < low + 0.002
    assert high - 0.005 < shares_B.max() < high + 0.005
    assert abs(shares_B.mean() - (low + high) / 2) < 0.003
    assert 0.28 < aspects_B.min() < 0.32
    assert 3.1 < aspects_B.max() < 3.5
    assert abs(aspects_B.log().mean()) < 0.02  # as often upright as lying


@pytest.mark.parametrize(("probability", "low", "high"), [(1.0, 1000, 1000), (0.25, 200, 300)])
def test_erasing_probability(probability, low, high):
    torch.manual_seed(0)
    erased = random_erasing(make_images(1000, 3, 8, 8), probability=probability, areas=(0.02, 0.33))
    assert low <= int((erased == 0).any(3).any(2).any(1).sum()) <= high
