"""A folder of images as a data set: ``train/CLASS/*``, and optionally ``val/CLASS/*`` and ``test/CLASS/*``.

Classes are sorted, and so are the files of a class. Hidden files and files that are no images are left out.
Of the test images not even the names are looked at, unless they are what is asked for.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from search.data.decode import decode_all, image_size
from search.data.images import Contents, Part, Which
from search.data.request import DataRequest

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""torchvision's IMG_EXTENSIONS, written out because importing torchvision takes seconds."""


class Found(NamedTuple):
    """An image file that was found: its path in the data set, its label, and what tells that it changed."""

    path: str
    label: int
    size: int
    modified_ns: int


def folder_part(which: Which, request: DataRequest) -> Part:
    """One part of the folder ``request.dataset``, found and checked by names, with no image decoded.

    Raises:
        ValueError: one line with the folder, class or file and the rule that it breaks.
    """
    root = request.folder
    classes = _checked_classes(root)
    has_test = (root / "test").is_dir()
    if which == "test" and not has_test:
        raise ValueError(f"--dataset {root}: has no test split, since there is no folder test/ in it")
    files = [file for split in _splits(root, which) for file in _images(root, split, classes)]
    first = files[0] if which == "train" else _images(root, "train", classes)[0]
    size_HW = _size_of_all(root / first.path, request.image_size)
    return Part(
        name=root.name,
        identity=_identity(root, files, size_HW, request.image_size),
        has_test=has_test,
        contents=lambda: Contents(
            classes=classes,
            shape_NHWC=(len(files), *size_HW, 3),
            labels_N=np.array([file.label for file in files], np.int64),
            n_train=sum(file.path.startswith("train/") for file in files),
            mirrors=True,
            chunks=decode_all([root / file.path for file in files], size_HW, request.image_size is not None),
            paths=tuple(file.path for file in files),
        ),
    )


def _splits(root: Path, which: Which) -> tuple[str, ...]:
    if which == "test":
        return ("test",)
    return ("train", "val") if (root / "val").is_dir() else ("train",)


def _checked_classes(root: Path) -> tuple[str, ...]:
    """The class names of train/, after making sure that val/ and test/, where they exist, have the same."""
    if not (root / "train").is_dir():
        raise ValueError(f"--dataset {root}: must hold its images as train/CLASS/*, but has no folder train/")
    classes = _class_names(root / "train")
    if not classes:
        raise ValueError(f"{root / 'train'}: must hold images as train/CLASS/*, but there is no image at all")
    if len(classes) == 1:
        raise ValueError(
            f"{root / 'train'}: at least two classes are needed, but there is only {classes[0]!r}"
        )
    for split in ("val", "test"):
        if (root / split).is_dir():
            _must_agree(root / split, classes, _class_names(root / split))
    return classes


def _must_agree(folder: Path, expected: Iterable[str], names: Iterable[str]) -> None:
    lacking, added = sorted(set(expected) - set(names)), sorted(set(names) - set(expected))
    if lacking or added:
        differences = [f"lacks {lacking[0]!r}"] * bool(lacking) + [f"adds {added[0]!r}"] * bool(added)
        raise ValueError(f"{folder}: must have the same classes as train/, but {' and '.join(differences)}")


def _class_names(folder: Path) -> tuple[str, ...]:
    return tuple(name for name, status in _listing(folder) if stat.S_ISDIR(status.st_mode))


def _images(root: Path, split: str, classes: tuple[str, ...]) -> list[Found]:
    by_class = [_images_of_class(root, f"{split}/{name}", label) for label, name in enumerate(classes)]
    if not any(by_class):
        raise ValueError(f"{root / split}: there is no image at all ({', '.join(IMAGE_SUFFIXES)})")
    for name, images in zip(classes, by_class, strict=True):
        if not images:
            raise ValueError(f"{root / split / name}: every class needs an image, but this one has none")
    return [file for images in by_class for file in images]


def _images_of_class(root: Path, folder: str, label: int) -> list[Found]:
    images = []
    for name, status in _listing(root / folder):
        if stat.S_ISDIR(status.st_mode):
            raise ValueError(
                f"{root / folder / name}: a class must hold its images itself, but this is a folder"
            )
        if name.lower().endswith(IMAGE_SUFFIXES):
            if not stat.S_ISREG(status.st_mode):
                raise ValueError(f"{root / folder / name}: an image must be a regular file")
            images.append(Found(f"{folder}/{name}", label, status.st_size, status.st_mtime_ns))
    return images


def _listing(folder: Path) -> list[tuple[str, os.stat_result]]:
    """What is in a folder, sorted by name, without what is hidden. Links are followed one step at a time, so
    that a loop of them is an error and no endless walk."""
    try:
        with os.scandir(folder) as entries:
            listed = [(entry.name, entry.stat()) for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise ValueError(f"{error.filename or folder}: cannot be read ({error.strerror})") from None
    for name, _ in listed:
        if not name.isprintable():
            raise ValueError(f"{folder}: a name must be printable text, but got {name!a}")
    return sorted(listed)


def _size_of_all(first: Path, wanted: int | None) -> tuple[int, int]:
    """Height and width that every image must have: those of the first training image, unless resized."""
    return image_size(first) if wanted is None else (wanted, wanted)


def _identity(root: Path, files: list[Found], size_HW: tuple[int, int], resized_to: int | None) -> str:
    digest = hashlib.sha256(f"folder {root} {size_HW} {resized_to}".encode(errors="surrogateescape"))
    for file in files:
        digest.update(f"\n{file.path}\0{file.size}\0{file.modified_ns}".encode())
    return digest.hexdigest()
