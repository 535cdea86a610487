"""Images that come as one array: handed to the cache in chunks, resized if asked for.

Shape suffixes: N images, H height, W width, C channels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from math import prod

import numpy as np
from PIL import Image

from search.data.images import Chunk, Images

CHUNK_BYTES = 4_000_000
"""Of decoded images, about: they are handed on before the next are made."""


def in_chunks(images_NHWC: Images, image_size: int | None) -> Iterator[Chunk]:
    """The images in order, each resized to ``image_size`` square unless that is None."""
    count = max(1, CHUNK_BYTES // prod(resized_shape(images_NHWC, image_size)[1:]))
    for start in range(0, len(images_NHWC), count):
        chunk_NHWC = images_NHWC[start : start + count]
        yield resized(chunk_NHWC, image_size) if image_size else chunk_NHWC, Counter()


def resized(images_NHWC: Images, size: int) -> Images:
    """Each image stretched to ``size`` square (bilinear, antialiased as Pillow does it), 1 or 3 channels."""
    channels = images_NHWC.shape[3]
    resized_NHWC = np.empty((len(images_NHWC), size, size, channels), np.uint8)
    for target_HWC, image_HWC in zip(resized_NHWC, images_NHWC, strict=True):
        image = Image.fromarray(image_HWC[:, :, 0] if channels == 1 else image_HWC)
        pixels = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
        target_HWC[:] = pixels.reshape(size, size, channels)
    return resized_NHWC


def resized_shape(images_NHWC: Images, size: int | None) -> tuple[int, int, int, int]:
    """The shape of ``images_NHWC`` after resizing."""
    count, height, width, channels = images_NHWC.shape
    return count, size or height, size or width, channels
