"""What comes with the pixels of an image file: its orientation is used, and nothing else of it matters."""

from __future__ import annotations

import io
import random
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational, ImageFileDirectory_v2

from search.data.decode import decode, image_size

# what Pillow says when these tests look into damaged files themselves
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

SEEN = np.random.default_rng(0).integers(0, 256, (4, 7, 3), dtype=np.uint8)
AS_TAKEN = Image.fromarray(np.rot90(SEEN))
"""To be turned by 90 degrees clockwise, which is orientation 6."""
ORIENTATION, RESOLUTION, MAKER, EXIF_IFD = 0x0112, 0x011A, 0x010F, 0x8769
XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def exif_of(orientation: object, **kinds: int) -> bytes:
    exif = Image.Exif()
    exif[MAKER] = "camera"
    exif[RESOLUTION] = IFDRational(72, 1)
    exif[EXIF_IFD] = {0x9003: "2020:01:01 00:00:00", 0x829A: IFDRational(1, 100)}
    directory = ImageFileDirectory_v2(b"MM\x00\x2a\x00\x00\x00\x08")
    for tag, value in exif.items():
        directory[tag] = value
    directory.tagtype.update({ORIENTATION: kinds["kind"]} if kinds else {})
    directory[ORIENTATION] = orientation
    return b"MM\x00\x2a\x00\x00\x00\x08" + directory.tobytes(8)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(*chunks: bytes, before: bytes = b"IDAT") -> bytes:
    content = saved("PNG")
    place = content.index(before) - 4
    return content[:place] + b"".join(chunks) + content[place:]


def saved(kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    AS_TAKEN.save(file, kind, **options)
    return file.getvalue()


CARRIERS: dict[str, Callable[[bytes], bytes]] = {
    "png": lambda exif: png(png_chunk(b"eXIf", exif)),
    "late.png": lambda exif: png(png_chunk(b"eXIf", exif), before=b"IEND"),
    "jpg": lambda exif: saved("JPEG", exif=b"Exif\0\0" + exif),
    "webp": lambda exif: saved("WEBP", lossless=True, exif=exif),
}


def read(path: Path, content: bytes) -> np.ndarray:
    """The image, by whatever size it is said to have."""
    path.write_bytes(content)
    return np.asarray(decode(path, image_size(path), resize=False)[0])


def pixels(path: Path, content: bytes) -> np.ndarray:
    """The pixels as they lie in the file."""
    path.write_bytes(content)
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("name", CARRIERS)
def test_an_orientation_beside_a_broken_value_is_used(tmp_path: Path, name: str) -> None:
    exif = exif_of(6).replace(struct.pack(">II", 72, 1), struct.pack(">iI", -1, 0))
    exif = exif.replace(struct.pack(">HH", RESOLUTION, 5), struct.pack(">HH", RESOLUTION, 10))
    with warnings.catch_warnings(action="error"):
        read_back = Image.Exif()
        read_back.load(exif)
        assert (read_back[RESOLUTION].numerator, read_back[RESOLUTION].denominator) == (-1, 0)
    content = CARRIERS[name](exif)
    turned = np.rot90(pixels(tmp_path / name, content), -1)
    np.testing.assert_array_equal(read(tmp_path / name, content), turned)


BROKEN = {
    "no exif": b"no such data",
    "empty": b"",
    "header only": exif_of(6)[:8],
    "half a tag": exif_of(6)[:17],
    "an offset to nowhere": exif_of(6)[:4] + b"\xff\xff\xff\xf0" + exif_of(6)[8:],
    "0": exif_of(0),
    "9": exif_of(9),
    "text": exif_of("6", kind=2),
    "bytes": exif_of(b"\x06", kind=7),
}


@pytest.mark.parametrize("name", CARRIERS)
@pytest.mark.parametrize("exif", BROKEN.values(), ids=list(BROKEN))
def test_an_image_without_a_readable_orientation_is_upright(tmp_path: Path, name: str, exif: bytes) -> None:
    content = CARRIERS[name](exif)
    np.testing.assert_array_equal(read(tmp_path / name, content), pixels(tmp_path / name, content))


@pytest.mark.parametrize("name", CARRIERS)
def test_no_damage_to_exif_data_makes_an_image_unreadable(tmp_path: Path, name: str) -> None:
    whole, rng = exif_of(6), random.Random(name)
    for _ in range(100):
        exif = bytearray(whole[: rng.choice([len(whole), rng.randrange(len(whole))])])
        for place in rng.sample(range(len(exif)), min(len(exif), 5)):
            exif[place] = rng.choice([0, 1, 5, 6, 10, 255])
        content = CARRIERS[name](bytes(exif))
        as_stored = pixels(tmp_path / name, content)
        shown = read(tmp_path / name, content)
        assert any(
            np.array_equal(shown, np.rot90(side, quarters))
            for side in (as_stored, as_stored[:, ::-1])
            for quarters in range(4)
        )


def tiff(**tags: object) -> bytes:
    info = ImageFileDirectory_v2()
    for tag, (kind, value) in tags.items():
        info.tagtype[int(tag[1:])] = kind
        info[int(tag[1:])] = value
    return saved("TIFF", tiffinfo=info)


@pytest.mark.parametrize(
    ("tags", "turned"),
    [
        ({"t274": (3, 6)}, True),
        ({"t274": (3, 9)}, False),
        ({"t274": (2, "6")}, False),
        ({"t274": (3, 6), "t700": (4, 7)}, True),  # XMP that is a number
        ({"t274": (3, 6), "t700": (2, "text")}, True),
        ({"t274": (3, 6), "t34665": (4, 4_000_000_000)}, True),  # an EXIF directory beyond the end
        ({"t274": (3, 6), "t34665": (2, "text")}, True),
        ({"t700": (4, 7)}, False),
        ({"t700": (1, XMP)}, True),
        ({"t274": (3, 6), "t282": (10, IFDRational(-1, 0))}, True),
    ],
)
def test_tiff_files(tmp_path: Path, tags: dict[str, object], turned: bool) -> None:
    expected = SEEN if turned else np.asarray(AS_TAKEN)
    np.testing.assert_array_equal(read(tmp_path / "a.tif", tiff(**tags)), expected)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.png", png(png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP))),
        ("a.webp", saved("WEBP", lossless=True, xmp=XMP)),
    ],
)
def test_an_orientation_in_xmp_data_is_used(tmp_path: Path, name: str, content: bytes) -> None:
    np.testing.assert_array_equal(read(tmp_path / name, content), SEEN)


@pytest.mark.parametrize(
    "content",
    [
        png(png_chunk(b"iCCP", b"profile\0\0no zlib stream")),
        png(png_chunk(b"pHYs", b"\0" * 9)),
        png(png_chunk(b"tEXt", b"Raw profile type exif\0\nexif\n  4\nzz zz\n")),
        png(png_chunk(b"eXIf", b"MM")),
    ],
    ids=["colour profile", "resolution", "raw profile", "exif"],
)
def test_other_data_that_are_damaged_do_not_matter(tmp_path: Path, content: bytes) -> None:
    np.testing.assert_array_equal(read(tmp_path / "a.png", content), np.asarray(AS_TAKEN))


def test_nothing_is_warned_of_and_no_warning_is_an_error(tmp_path: Path) -> None:
    exif = exif_of(6)[:-30]
    for name in CARRIERS:
        (tmp_path / f"a.{name}").write_bytes(CARRIERS[name](exif))
    code = (
        "import sys; from pathlib import Path; from search.data.decode import decode, image_size\n"
        "for path in sorted(Path(sys.argv[1]).iterdir()): print(decode(path, (4, 7), False)[0].size)"
    )
    for flags in ([], ["-W", "error::UserWarning"]):
        command = [sys.executable, *flags, "-c", code, str(tmp_path)]
        run = subprocess.run(command, capture_output=True, text=True)
        assert (run.stdout.split("\n"), run.stderr) == (["(7, 4)"] * 4 + [""], "")


def test_damaged_pixels_are_refused_whatever_the_metadata(tmp_path: Path) -> None:
    content = png(png_chunk(b"eXIf", exif_of(6)))
    end = content.index(b"IDAT")
    (tmp_path / "a.png").write_bytes(content[: end + 20])
    with pytest.raises(ValueError, match=r"a\.png: the image cannot be read"):
        decode(tmp_path / "a.png", (4, 7), resize=False)
