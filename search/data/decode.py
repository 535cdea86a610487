"""Decoding image files to uint8 RGB, refusing by name whatever would not give the image that was meant.

Shape suffixes: N images, H height, W width, C channels.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from search.data.images import Chunk, one_line

# only what folders may hold: some of Pillow's other readers start programs (EPS starts Ghostscript)
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP")
CHUNK = 64
IN_PLACE = 512
MOST_PROCESSES = 8
ORIENTATION = 0x0112
"""EXIF's tag for how a camera was held; of 5 and more, width and height change places."""
T = TypeVar("T")


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of an image file as it is to be seen, from its header alone.

    Raises:
        ValueError: if it cannot be read.
    """
    return _open(path, _seen_size)


def _seen_size(image: Image.Image) -> tuple[int, int]:
    lies = image.getexif().get(ORIENTATION, 1) in range(5, 9)
    return (image.width, image.height) if lies else (image.height, image.width)


def decode(path: Path, size_HW: tuple[int, int], resize: bool) -> tuple[Image.Image, str]:
    """One file as an RGB image of ``size_HW``, upright as its EXIF data say, and the mode that it had.

    With ``resize`` the image is stretched to that size (bilinear, antialiased as Pillow does it); else it
    must have it already. Several pictures in one file are refused, except those of phones (MPO), whose
    first is the photograph.

    Raises:
        ValueError: naming the file and the rule that it breaks.
    """
    image, frames, deep = _open(path, _load)
    if frames > 1:
        raise ValueError(f"{path}: an image must be a single picture, but this file holds {frames}")
    if deep:
        raise ValueError(f"{path}: an image must have 8 bits a channel, but this one's mode is {deep}")
    if (image.height, image.width) != size_HW and not resize:
        raise ValueError(
            f"{path}: all images must have one size unless --image-size is given, but this one is "
            f"{_size(*image.size)} and the first training image {_size(*size_HW[::-1])} (width x height)"
        )
    rgb = _to_rgb(image)
    return (rgb.resize(size_HW[::-1], Image.Resampling.BILINEAR) if resize else rgb), image.mode


def decode_all(paths: Sequence[Path], size_HW: tuple[int, int], resize: bool) -> Iterator[Chunk]:
    """The images of many files, chunk after chunk in the order of the paths, decoded by several processes.

    Processes, since Pillow spends the time of small images in Python: 50,000 of 32x32 took 5.0 s by one
    thread, 7.7 s by two, and 2.8 s by two processes.
    """
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    if len(paths) <= IN_PLACE:
        yield from (_decode_chunk(chunk, size_HW, resize) for chunk in chunks)
        return
    processes = min(_cores(), MOST_PROCESSES)
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=spawn, initializer=_leave_interrupts_to_the_parent)
    try:
        yield from _in_order(pool, chunks, size_HW, resize, ahead=4 * processes)
    finally:
        pool.shutdown(cancel_futures=True)


def _in_order(
    pool: ProcessPoolExecutor,
    chunks: Sequence[Sequence[Path]],
    size_HW: tuple[int, int],
    resize: bool,
    ahead: int,
) -> Iterator[Chunk]:
    """Only ``ahead`` chunks are under way at once, so that decoded images do not pile up in memory."""
    waiting: deque[Future[Chunk]] = deque()
    for chunk in chunks:
        waiting.append(pool.submit(_decode_chunk, chunk, size_HW, resize))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _decode_chunk(paths: Sequence[Path], size_HW: tuple[int, int], resize: bool) -> Chunk:
    images_NHWC = np.empty((len(paths), *size_HW, 3), np.uint8)
    converted: Counter[str] = Counter()
    for image_HWC, path in zip(images_NHWC, paths, strict=True):
        image, mode = decode(path, size_HW, resize)
        image_HWC[:] = np.asarray(image)
        converted.update([mode] if mode != "RGB" else [])
    return images_NHWC, converted


def _open(path: Path, read: Callable[[Image.Image], T]) -> T:
    # Pillow's decoders raise errors of many kinds on damaged files; each of them means the same here
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(path, formats=FORMATS) as image:
                return read(image)
        except UnidentifiedImageError:
            raise ValueError(
                f"{path}: must be an image ({', '.join(FORMATS)}), but is none, or damaged"
            ) from None
        except Exception as error:
            raise ValueError(f"{path}: the image cannot be read ({one_line(error)})") from None


def _load(image: Image.Image) -> tuple[Image.Image, int, str | None]:
    """The decoded image, upright; how many pictures the file holds, not counting a phone's further ones; and
    what ``_deep_mode`` says."""
    frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    deep = _deep_mode(image)
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    return image, frames, deep


def _deep_mode(image: Image.Image) -> str | None:
    """The mode of an image with more than 8 bits a channel, before it is decoded; None for others."""
    if image.mode.startswith(("I", "F")):
        return image.mode
    # Pillow makes 8 bits of 16 bits of colour, and then says no more of it
    for tile in getattr(image, "tile", ()):
        raw, *options = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        if re.search(r";(16|32)[BLNF]", str(raw)):
            return str(raw)
        if tile[0].startswith("ppm") and options[0] > 255:
            return f"{raw} with values to {options[0]}"
    return None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns of the direct way
    return image.convert("RGB")


def _size(width: int, height: int) -> str:
    return f"{width}x{height}"


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
