"""What lies in a folder of images: the folders of its classes, their image files, and what is left out."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from search.data.refusals import Problem, Unusable, refusal_of
from spaces.text import PLAIN_TEXT, is_plain_text, plain

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""torchvision's IMG_EXTENSIONS, written out because importing torchvision takes seconds, and another one of
JPEG. Neither GIF, whose files are mostly films, nor AVIF, which not every build of Pillow reads."""
SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev", "eval"),
    "test": ("test", "testing"),
}
"""The folders that are read, and by what names, in letters of either case, others call them."""
EXAMPLES = 3
SUFFIXES_SHOWN = 5
FOLDER_IN_CLASS = "a class must hold its images itself, but this is a folder"
NAME_RULE = f"a name must be {PLAIN_TEXT}: rename it"


class Found(NamedTuple):
    """An image file that was found: its path in the data set, its label, and what tells that it changed."""

    path: str
    label: int
    size: int
    modified_ns: int


class Listing(NamedTuple):
    """The image files of a split, sorted by class and name; and the paths in the data set of files that are
    left out."""

    files: list[Found]
    left_out: list[str]


def class_folders(folder: Path) -> dict[str, str]:
    """The names of a split's classes in Unicode's form NFC, sorted; with each, its folder's name as it is on
    the disk, where macOS may spell an accent in another way.

    Raises:
        ValueError: if the folder cannot be read, a name is no plain text, or two are one in NFC.
    """
    names = [entry.name for entry in _entries(folder) if _is_folder(entry)]
    unplain = [(folder / name, NAME_RULE) for name in names if not is_plain_text(name)]
    if unplain:
        raise refusal_of(unplain)
    spelt: dict[str, str] = {}
    for name in names:
        other = spelt.setdefault(unicodedata.normalize("NFC", name), name)
        if other != name:
            raise ValueError(
                f"{folder}: a class must have one folder, but {other!a} and {name!a} are one name, "
                "spelt in two ways of Unicode: put their images into one of them"
            )
    return dict(sorted(spelt.items()))


def list_split(root: Path, split: str, folders: Iterable[str]) -> Listing:
    """The images in a split's class folders, whose labels are their places.

    Raises:
        ValueError: naming the files that cannot be used, and classes without an image.
    """
    left_out = [f"{split}/{entry.name}" for entry in _entries(root / split) if not _is_folder(entry)]
    found = Listing([], left_out)
    problems: list[Problem] = []
    empty: list[Problem] = []
    for label, name in enumerate(folders):
        before = len(found.files) + len(problems)
        _list_class(root, f"{split}/{name}", label, found, problems)
        if len(found.files) + len(problems) == before:
            empty.append((root / split / name, "every class needs an image, but this one has none"))
    if not found.files and not problems:
        others = f"; left out: {_counted(by_suffix(left_out))}" if left_out else ""
        raise ValueError(f"{root / split}: there is no image at all ({', '.join(IMAGE_SUFFIXES)}){others}")
    if problems or empty:
        raise refusal_of(problems + empty)
    return found


def _list_class(root: Path, folder: str, label: int, found: Listing, problems: list[Problem]) -> None:
    for entry in _entries(root / folder):
        path = f"{folder}/{entry.name}"
        try:
            if _is_image(entry):
                status = entry.stat()
                found.files.append(Found(path, label, status.st_size, status.st_mtime_ns))
            else:
                found.left_out.append(path)
        except Unusable as error:
            problems.append((root / path, str(error)))
        except OSError as error:
            problems.append((root / path, f"cannot be read ({error.strerror})"))


def _is_image(entry: os.DirEntry[str]) -> bool:
    """Whether an entry of a class is one of its images; what other files are or are called does not matter.

    Raises:
        OSError: if it cannot be seen what it is.
        Unusable: if it is neither an image nor to be left out.
    """
    if not entry.name.lower().endswith(IMAGE_SUFFIXES):
        if Path(entry).is_dir():
            raise Unusable(FOLDER_IN_CLASS)
        return False
    if not is_plain_text(entry.name):
        raise Unusable(NAME_RULE)
    mode = entry.stat().st_mode
    if stat.S_ISDIR(mode):
        raise Unusable(FOLDER_IN_CLASS)
    if not stat.S_ISREG(mode):
        raise Unusable("an image must be a regular file")
    return True


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder, sorted by name, without what is hidden."""
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    except OSError as error:
        raise ValueError(f"{plain(str(folder))}: cannot be read ({error.strerror})") from None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Links are followed one step at a time, so that a loop of them is an error and no endless walk; so is
    a link to nowhere, which may be meant as a class."""
    try:
        return stat.S_ISDIR(entry.stat().st_mode) if entry.is_symlink() else entry.is_dir()
    except OSError as error:
        raise ValueError(f"{plain(entry.path)}: cannot be read ({error.strerror})") from None


def by_suffix(paths: Iterable[str]) -> dict[str, int]:
    """How many files there are of each suffix in lower case, most first; "" for files without one."""
    counts = Counter(os.path.splitext(path)[1].lower() for path in paths)  # noqa: PTH122  pathlib is slower
    return dict(counts.most_common())


def notes_on(root: Path, left_out: Sequence[str]) -> tuple[str, ...]:
    """Lines for people: which files are not read, and which folders look as if they should be."""
    notes = [line for split in SPLITS for line in misnamed(root, split)]
    if left_out:
        examples = ", ".join(plain(path) for path in left_out[:EXAMPLES])
        rule = "only files in a class's folder with the suffix of an image are read"
        notes.insert(0, f"left out: {_counted(by_suffix(left_out))} (such as {examples}): {rule}")
    return tuple(notes)


def misnamed(root: Path, split: str) -> list[str]:
    """A line for each folder that is not read but is called almost like the folder of this split."""
    names = [entry.name for entry in _entries(root) if entry.name.lower() in SPLITS[split]]
    folders = [name for name in names if name not in SPLITS and (root / name).is_dir()]
    remedy = f", since there is {split}/" if (root / split).exists() else f": name it {split}/"
    return [f"{name}/ is not read{remedy}" for name in folders if not _are_one(root / name, root / split)]


def _are_one(folder: Path, split: Path) -> bool:
    """Whether both names lead to the same folder, as where Train is also train."""
    return split.exists() and folder.samefile(split)


def _counted(suffixes: Mapping[str, int]) -> str:
    shown = [f"{count} {plain(suffix) or 'without a suffix'}" for suffix, count in suffixes.items()]
    more = [f"{len(shown) - SUFFIXES_SHOWN} more suffixes"] if len(shown) > SUFFIXES_SHOWN else []
    return ", ".join(shown[:SUFFIXES_SHOWN] + more)
