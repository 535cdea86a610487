"""A folder of images as a data set: ``train/CLASS/*``, and optionally ``val/CLASS/*`` and ``test/CLASS/*``.

Classes are sorted, and so are the files of a class. Hidden files and files that are no images are left out.
Of the test images not even the names are looked at, unless they are what is asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path

import numpy as np

from search.data.decode import decode_all, size_of_first
from search.data.files import Found, Listing, by_suffix, class_folders, list_split, misnamed, notes_on
from search.data.images import Contents, Part, Which
from search.data.refusals import listed
from search.data.request import DataRequest
from spaces.text import plain

WITHOUT = {"val": "validate on a share of train/", "test": "retrain without a test split"}
"""What comes of taking a split's folder away."""


def folder_part(which: Which, request: DataRequest) -> Part:
    """One part of the folder ``request.dataset``, found and checked by names, with no image decoded but the
    first, for its size.

    What is wrong with ``test/`` is refused only where ``which`` asks for it.

    Raises:
        ValueError: one line with the folder, class or files and the rule that they break.
    """
    root = request.folder
    _must_be_storable(root)
    train = _training_folders(root)
    classes = tuple(train)
    splits = _test_folders(root, classes) if which == "test" else _search_folders(root, train)
    files, left_out = _listed(root, splits)
    sized = files if which == "train" else _listed(root, {"train": train}).files
    size_HW = _size_of_all(root, sized, request.image_size)
    fault = "" if which == "test" else _fault_of_test(root, classes)
    return Part(
        name=root.name,
        identity=_identity(
            root, files, size_HW, request.image_size, respelt=classes != tuple(train.values())
        ),
        has_test=(root / "test").is_dir() and not fault,
        contents=lambda: _contents(root, files, classes, size_HW, resize=request.image_size is not None),
        test_fault=fault,
        left_out=by_suffix(left_out),
        notes=notes_on(root, left_out),
    )


def _contents(
    root: Path, files: list[Found], classes: tuple[str, ...], size_HW: tuple[int, int], resize: bool
) -> Contents:
    return Contents(
        classes=classes,
        shape_NHWC=(len(files), *size_HW, 3),
        labels_N=np.array([file.label for file in files], np.int64),
        n_train=sum(file.path.startswith("train/") for file in files),
        mirrors=True,
        chunks=decode_all([root / file.path for file in files], size_HW, resize),
        paths=tuple(file.path for file in files),
    )


def _listed(root: Path, splits: dict[str, dict[str, str]]) -> Listing:
    """What is in some splits, one after the other."""
    listings = [list_split(root, split, folders.values()) for split, folders in splits.items()]
    return Listing(
        [file for listing in listings for file in listing.files],
        [path for listing in listings for path in listing.left_out],
    )


def _must_be_storable(root: Path) -> None:
    try:
        str(root).encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"--dataset {plain(root)}: the path of a folder must be UTF-8 text, since studies record it; "
            "rename the folder"
        ) from None


def _training_folders(root: Path) -> dict[str, str]:
    """The classes of train/, each with its folder's name."""
    if not (root / "train").is_dir():
        raise ValueError(
            f"--dataset {root}: must hold its images as train/CLASS/*, but has no folder train/"
            f"{_hints(root, 'train')}"
        )
    folders = class_folders(root / "train")
    if not folders:
        raise ValueError(f"{root / 'train'}: must hold images as train/CLASS/*, but there is no image at all")
    if len(folders) == 1:
        raise ValueError(
            f"{root / 'train'}: at least two classes are needed, but there is only {next(iter(folders))!r}"
        )
    return folders


def _hints(root: Path, split: str) -> str:
    return "".join(f" ({hint})" for hint in misnamed(root, split))


def _search_folders(root: Path, train: dict[str, str]) -> dict[str, dict[str, str]]:
    """The class folders of train/ and, if it is there, val/."""
    if not (root / "val").is_dir():
        return {"train": train}
    val = class_folders(root / "val")
    difference = _difference(root, "val", tuple(train), val)
    if difference:
        raise ValueError(difference)
    return {"train": train, "val": val}


def _test_folders(root: Path, classes: tuple[str, ...]) -> dict[str, dict[str, str]]:
    if not (root / "test").is_dir():
        raise ValueError(
            f"--dataset {root}: has no test split, since there is no folder test/ in it{_hints(root, 'test')}"
        )
    test = class_folders(root / "test")
    difference = _difference(root, "test", classes, test)
    if difference:
        raise ValueError(difference)
    return {"test": test}


def _fault_of_test(root: Path, classes: tuple[str, ...]) -> str:
    """Why test/ would be refused by the names of its folders; "" if it would not, or is not there."""
    try:
        if (root / "test").is_dir():
            _test_folders(root, classes)
    except ValueError as error:
        return str(error)
    return ""


def _difference(root: Path, split: str, classes: Collection[str], there: Collection[str]) -> str:
    """How the classes of a split differ from those of train/, as a refusal; "" if they do not."""
    lacking = [name for name in classes if name not in there]
    added = [name for name in there if name not in classes]
    found = (("lacks", lacking), ("adds", added))
    differences = [f"{verb} {listed(names)}" for verb, names in found if names]
    if not differences:
        return ""
    what = " and ".join(differences) if there else f"has no folder {split}/CLASS/"
    return (
        f"{root / split}: must have the same classes as train/, but {what}: give both the same folders, or "
        f"move {split}/ elsewhere to {WITHOUT[split]}"
    )


def _size_of_all(root: Path, files: list[Found], wanted: int | None) -> tuple[int, int]:
    """Height and width that every image must have: those of the first training image, unless resized."""
    return size_of_first([root / file.path for file in files]) if wanted is None else (wanted, wanted)


def _identity(
    root: Path, files: list[Found], size_HW: tuple[int, int], resized_to: int | None, respelt: bool
) -> str:
    # earlier versions cached classes as folders spell them; of those that NFC changes, the cache is made anew
    kind = "folder NFC" if respelt else "folder"
    digest = hashlib.sha256(f"{kind} {root} {size_HW} {resized_to}".encode())
    for file in files:
        digest.update(f"\n{file.path}\0{file.size}\0{file.modified_ns}".encode())
    return digest.hexdigest()
