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
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from search.data.images import Chunk, Images, one_line
from search.data.refusals import Problem, Unusable, refusal_of
from search.fork_server import end_with_this_process

# only what folders may hold: some of Pillow's other readers start programs (EPS starts Ghostscript)
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP")
CHUNK = 64
IN_PLACE = 512
MOST_PROCESSES = 8
ORIENTATION = 0x0112
"""EXIF's tag for how a camera was held."""
TURNS: Mapping[object, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image upright, by its orientation."""
Decoded: TypeAlias = tuple[Images, Counter[str], list[Problem]]
"""A chunk, and the files of it that could not be used; in their places the images mean nothing."""
T = TypeVar("T")


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of an image file as it is to be seen.

    Raises:
        Unusable: if it cannot be read.
    """
    image = _open(path, _upright)
    return image.height, image.width


def size_of_first(paths: Sequence[Path]) -> tuple[int, int]:
    """Height and width, as it is to be seen, of the first of these files that can be read.

    Raises:
        ValueError: if none can be, naming them.
    """
    problems: list[Problem] = []
    for path in paths:
        try:
            return image_size(path)
        except Unusable as error:
            problems.append((path, str(error)))
    raise refusal_of(problems)


def decode(path: Path, size_HW: tuple[int, int], resize: bool) -> tuple[Image.Image, str]:
    """One file as an RGB image of ``size_HW``, upright as its EXIF or XMP data say, and the mode that it had.

    With ``resize`` the image is stretched to that size (bilinear, antialiased as Pillow does it); else it
    must have it already. Several pictures in one file are refused, except those of phones (MPO), whose
    first is the photograph. Nothing but the orientation is wanted of the data that come with the pixels:
    where they are damaged, the image is taken to be upright.

    Raises:
        ValueError: naming the file and the rule that it breaks.
    """
    try:
        return _decoded(path, size_HW, resize)
    except Unusable as error:
        raise refusal_of([(path, str(error))]) from None


def _decoded(path: Path, size_HW: tuple[int, int], resize: bool) -> tuple[Image.Image, str]:
    rgb, mode = _open(path, _load)
    if (rgb.height, rgb.width) == size_HW:
        return rgb, mode
    if resize:
        return rgb.resize(size_HW[::-1], Image.Resampling.BILINEAR), mode
    raise Unusable(
        f"all images must have one size unless --image-size is given, but this one is {_size(*rgb.size)} and "
        f"the first training image {_size(*size_HW[::-1])} (width x height)"
    )


def decode_all(paths: Sequence[Path], size_HW: tuple[int, int], resize: bool) -> Iterator[Chunk]:
    """The images of many files, chunk after chunk in the order of the paths, decoded by several processes.

    Processes, since Pillow spends the time of small images in Python: 50,000 of 32x32 took 5.0 s by one
    thread, 7.7 s by two, and 2.8 s by two processes.

    Raises:
        ValueError: at the end, after all files have been looked at, naming those that cannot be used.
    """
    problems: list[Problem] = []
    for images_NHWC, converted, refused in _decoded_chunks(paths, size_HW, resize):
        problems += refused
        if not problems:
            yield images_NHWC, converted
    if problems:
        raise refusal_of(problems)


def _decoded_chunks(paths: Sequence[Path], size_HW: tuple[int, int], resize: bool) -> Iterator[Decoded]:
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    if len(paths) <= IN_PLACE:
        yield from (_decode_chunk(chunk, size_HW, resize) for chunk in chunks)
        return
    processes = min(_cores(), MOST_PROCESSES)
    end_with_this_process()
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
) -> Iterator[Decoded]:
    """Only ``ahead`` chunks are under way at once, so that decoded images do not pile up in memory."""
    waiting: deque[Future[Decoded]] = deque()
    for chunk in chunks:
        waiting.append(pool.submit(_decode_chunk, chunk, size_HW, resize))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _decode_chunk(paths: Sequence[Path], size_HW: tuple[int, int], resize: bool) -> Decoded:
    images_NHWC = np.empty((len(paths), *size_HW, 3), np.uint8)
    converted: Counter[str] = Counter()
    problems: list[Problem] = []
    for image_HWC, path in zip(images_NHWC, paths, strict=True):
        try:
            image, mode = _decoded(path, size_HW, resize)
        except Unusable as error:
            problems.append((path, str(error)))
        else:
            image_HWC[:] = np.asarray(image)
            converted.update([mode] if mode != "RGB" else [])
    return images_NHWC, converted, problems


def _open(path: Path, read: Callable[[Image.Image], T]) -> T:
    # Pillow's decoders raise errors of many kinds on damaged files; each of them means the same here
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Pillow says of metadata, whatever Python was told of warnings
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(path, formats=FORMATS) as image:
                return read(image)
        except Unusable:
            raise
        except UnidentifiedImageError:
            raise Unusable(f"must be an image ({', '.join(FORMATS)}), but is none, or damaged") from None
        except Exception as error:
            raise Unusable(f"the image cannot be read ({one_line(error)})") from None


def _load(image: Image.Image) -> tuple[Image.Image, str]:
    """The decoded image, upright and in RGB, and the mode that it had."""
    frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if frames > 1:
        raise Unusable(f"an image must be a single picture, but this file holds {frames}")
    deep = _deep_mode(image)
    if deep:
        raise Unusable(f"an image must have 8 bits a channel, but this one's mode is {deep}")
    upright = _upright(image)
    return _to_rgb(upright), upright.mode


def _upright(image: Image.Image) -> Image.Image:
    """The decoded image, turned as it was taken."""
    if image.format == "TIFF":
        turn = _take_turn(image)  # first, since this reader acts on all metadata at the end of the pixels
        image.load()
    else:
        image.load()  # first, since a PNG's metadata may come after its pixels
        turn = _take_turn(image)
    return image if turn is None else image.transpose(turn)


def _take_turn(image: Image.Image) -> Image.Transpose | None:
    """What the image must be turned by, if anything; its EXIF data are forgotten, so that nothing else in
    them matters."""
    turn = None
    with suppress(Exception):  # as many kinds of error as of damage
        turn = TURNS.get(image.getexif().get(ORIENTATION))
    exif = image.getexif()
    for tag in list(exif):
        del exif[tag]
    return turn


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
