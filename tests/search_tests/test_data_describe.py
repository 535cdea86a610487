"""What is said and drawn of a data set."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

from search.data.describe import describe, statistics_of
from search.data.images import ImageData, channel_sums
from search.data.preview import _shortened, draw_grid, first_of_each
from search.data.sources import DataRequest, load
from search.data.split import make_split

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("channels", [1, 3])
def test_statistics_are_those_of_all_pixels(channels: int) -> None:
    images_NHWC = RNG.integers(0, 256, (50, 5, 6, channels), dtype=np.uint8)
    images_NHWC[..., 0] //= 3
    indices_M = RNG.permutation(50)[:30]
    mean_C, std_C = statistics_of(image_data(images_NHWC), indices_M)
    scaled = images_NHWC[indices_M].astype(np.float64) / 255
    np.testing.assert_allclose(mean_C, scaled.mean(axis=(0, 1, 2)), rtol=1e-13)
    np.testing.assert_allclose(std_C, scaled.std(axis=(0, 1, 2)), rtol=1e-12)


@pytest.mark.parametrize("height", [3, 1024])
def test_statistics_of_nearly_equal_pixels_lose_nothing(height: int) -> None:
    """One pixel of millions differs: float64 sums of squares would cancel, and int32 would overflow."""
    images_NHWC = np.full((2, height, 1024, 1), 255, np.uint8)
    images_NHWC[1, 2, 1] = 254
    pixels = images_NHWC.size
    mean_C, std_C = statistics_of(image_data(images_NHWC), np.arange(2))
    assert mean_C[0] == (255 * pixels - 1) / (255 * pixels)
    assert std_C[0] == pytest.approx(np.sqrt((pixels - 1) / pixels**2) / 255, rel=1e-14)
    assert statistics_of(image_data(images_NHWC), np.array([0]))[1][0] == 0


def image_data(images_NHWC: np.ndarray) -> ImageData:
    """A data set of two classes in turn, three quarters of it for training."""
    return ImageData(
        name="pets",
        classes=("a", "b"),
        images_NHWC=images_NHWC,
        labels_N=np.arange(len(images_NHWC)) % 2,
        sums_N2C=channel_sums(images_NHWC),
        n_train=3 * len(images_NHWC) // 4,
        mirrors=True,
        hash="0",
        converted={"L": 3},
        has_test=False,
        paths=(),
    )


def test_a_description_counts_and_is_plain(tmp_path: Path) -> None:
    data = load(DataRequest("digits", tmp_path))
    split = make_split(data.labels_N, data.n_train, train_size=200, seed=1)
    described = describe(data, split)
    assert json.loads(json.dumps(described)) == described
    assert (described["height"], described["width"], described["channels"]) == (8, 8, 1)
    assert described["images"] == 1438
    assert sum(described["train"].values()) == 200
    for digit in range(10):
        assert described["validation"][str(digit)] == (data.labels_N[split.val_indices] == digit).sum()
    assert described["hash"] == data.hash
    assert described["has_test"]
    assert not described["mirrors"]
    assert described["split"] == split.describe()
    np.testing.assert_allclose(described["mean"], data.images_NHWC[split.train_indices].mean() / 255)


def test_the_first_images_take_turns_over_the_classes() -> None:
    labels_N = np.array([0, 0, 0, 0, 1, 2, 2, 2])
    assert first_of_each(labels_N, 6).tolist() == [0, 4, 5, 1, 6, 2]
    assert first_of_each(labels_N, 100).tolist() == [0, 4, 5, 1, 6, 2, 7, 3]
    assert len(first_of_each(np.zeros(500, int))) == 100


def colours(count: int, height: int, width: int) -> np.ndarray:
    """Images of one colour each, all different."""
    levels = np.arange(count * 3, dtype=np.uint8).reshape(count, 1, 1, 3) % 251
    return np.broadcast_to(levels, (count, height, width, 3)).copy()


@pytest.mark.parametrize(("height", "width"), [(8, 8), (32, 32), (300, 300), (20, 40)])
def test_the_grid_shows_every_image_in_rows_of_ten(tmp_path: Path, height: int, width: int) -> None:
    images_NHWC = colours(80, height, width)
    draw_grid(images_NHWC, np.arange(80) % 3, ("a", "b", "c"), tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as picture:
        sheet = np.asarray(picture).astype(int)
    assert picture.format == "PNG"
    cell_y, cell_x = sheet.shape[0] // 8, sheet.shape[1] // 10
    for index in range(80):
        row, column = divmod(index, 10)
        cell = sheet[row * cell_y : (row + 1) * cell_y, column * cell_x : (column + 1) * cell_x].reshape(
            -1, 3
        )
        coloured = (np.abs(cell - images_NHWC[index, 0, 0]).max(axis=1) <= 1).mean()
        assert coloured > 0.25
        assert (cell == 255).all(axis=1).any()


def test_small_images_are_enlarged_pixel_by_pixel(tmp_path: Path) -> None:
    checkers = np.zeros((1, 8, 8, 1), np.uint8)
    checkers[0, ::2, ::2] = 128
    draw_grid(checkers, np.zeros(1, int), ("one",), tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as picture:
        tile = np.asarray(picture)[8:104, 8:104, 0]
    np.testing.assert_array_equal(tile, checkers[0, :, :, 0].repeat(12, axis=0).repeat(12, axis=1))


def test_names_are_shortened_until_they_fit() -> None:
    font = ImageFont.load_default(12)
    assert _shortened("automobile", font, 96) == "automobile"
    long = "a golden retriever puppy"
    short = _shortened(long, font, 96)
    assert font.getlength(short) <= 96 < font.getlength(long)
    start, end = short.split("...")
    assert long.startswith(start)
    assert long.endswith(end)
    assert len(start) > 3
    assert font.getlength(_shortened("W" * 300, font, 96)) <= 96


def test_a_picture_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    images_NHWC = colours(2, 8, 8)
    with pytest.raises(ValueError, match=r"grid\.png: the picture cannot be written .No such file"):
        draw_grid(images_NHWC, np.zeros(2, int), ("a",), tmp_path / "nowhere/grid.png")


def test_a_description_tells_of_conversions() -> None:
    data = image_data(colours(40, 4, 5))
    described = describe(data, make_split(data.labels_N, data.n_train))
    assert described["converted"] == {"L": 3}
    assert described["validation"] == {"a": 5, "b": 5}
    assert described["train"] == {"a": 15, "b": 15}
    assert not described["has_test"]
