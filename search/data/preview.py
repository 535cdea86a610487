"""A picture of the first hundred images, with their classes.

Shape suffixes: N images, H height, W width, C channels, M some of the images.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from search.data.images import Images, Labels, one_line
from studies.files import whole

COLUMNS = 10
MOST = 100
TILE = 96
GAP = 8
TEXT = 14
PAPER, INK = "white", "black"


def first_of_each(labels_N: Labels, count: int = MOST) -> Labels:
    """Indices of the first images, one class after the other in turn: with ten classes, a column for each."""
    by_class_N = np.argsort(labels_N, kind="stable")
    sorted_labels_N = labels_N[by_class_N]
    rank_N = np.arange(len(labels_N)) - np.searchsorted(sorted_labels_N, sorted_labels_N)
    return by_class_N[np.lexsort((sorted_labels_N, rank_N))][:count]


def draw_grid(images_NHWC: Images, labels_N: Labels, classes: Sequence[str], path: Path) -> None:
    """Write a PNG of at most 100 images in rows of ten, each with its class under it.

    Small images are enlarged pixel by pixel, large ones reduced.

    Args:
        images_NHWC: uint8, 1 or 3 channels.
        labels_N: index of each image's class.
        classes: their names; long ones are shortened in the middle.
        path: the file to write.

    Raises:
        ValueError: if the file cannot be written.
    """
    tiles = [_tile(image_HWC) for image_HWC in images_NHWC[:MOST]]
    step_x = max(TILE, tiles[0].width) + GAP
    step_y = tiles[0].height + TEXT + GAP
    rows = -(-len(tiles) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * step_x + GAP, rows * step_y + GAP), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(TEXT - 2)
    for index, (tile, label) in enumerate(zip(tiles, labels_N, strict=False)):
        left, top = GAP + index % COLUMNS * step_x, GAP + index // COLUMNS * step_y
        middle = left + (step_x - GAP) // 2
        sheet.paste(tile, (middle - tile.width // 2, top))
        name = _shortened(classes[label], font, step_x - GAP)
        draw.text((middle, top + tile.height + 1), name, INK, font, anchor="ma")
    _save(sheet, path)


def _tile(image_HWC: Images) -> Image.Image:
    image = Image.fromarray(image_HWC[:, :, 0] if image_HWC.shape[2] == 1 else image_HWC)
    longest = max(image.size)
    if longest > TILE:
        image.thumbnail((TILE, TILE))
        return image
    factor = TILE // longest
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def _shortened(name: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    kept, shown = len(name), name
    while font.getlength(shown) > width and kept > 2:
        kept -= 1
        shown = f"{name[: (kept + 1) // 2]}...{name[len(name) - kept // 2 :]}"
    return shown


def _save(sheet: Image.Image, path: Path) -> None:
    try:
        with whole(path) as file:
            sheet.save(file, format="PNG")
    except OSError as error:
        raise ValueError(
            f"{path}: the picture cannot be written ({error.strerror or one_line(error)})"
        ) from None
