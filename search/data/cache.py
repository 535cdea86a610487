"""Decoded images on disk: made once, mapped into memory ever after, shared by all processes.

Each part of a data set has a folder of its own, named by what identifies its contents: ``images.npy``,
``labels.npy``, ``sums.npy`` and ``meta.json``. It is written under another name and renamed when complete, so
that it is there whole or not at all, and two processes that make it at once both end well.

Shape suffixes: N images, H height, W width, C channels.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from search.data.images import Contents, ImageData, Part, Progress, Sums, channel_sums, one_line

FORMAT = 3
"""Raise it whenever the same files would give other contents, or a folder holds other files:
older caches are then not found any more."""


def cached(part: Part, directory: Path, progress: Progress | None = None) -> ImageData:
    """The part's images out of the cache in ``directory``, which gets them first if it has not got them.

    Raises:
        ValueError: if the cache can be neither written nor read, or the part has something to refuse.
    """
    key = hashlib.sha256(f"{FORMAT} {part.identity}".encode()).hexdigest()[:32]
    folder = directory / "cache" / key
    if not folder.is_dir():
        _build(part, folder, progress)
    return _read(part, folder)


def _build(part: Part, folder: Path, progress: Progress | None) -> None:
    draft = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    try:
        with _writing(folder.parent):
            draft.mkdir(parents=True)
        contents = part.contents()
        with _writing(folder.parent):
            _write(draft, contents, progress)
            _publish(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write(draft: Path, contents: Contents, progress: Progress | None) -> None:
    digest = hashlib.sha256(json.dumps([contents.classes, contents.shape_NHWC, contents.n_train]).encode())
    digest.update(contents.labels_N.astype("<i8").tobytes())
    sums_N2C, converted = _write_images(draft / "images.npy", contents, digest, progress)
    np.save(draft / "labels.npy", contents.labels_N, allow_pickle=False)
    np.save(draft / "sums.npy", sums_N2C, allow_pickle=False)
    meta = {
        "classes": contents.classes,
        "n_train": contents.n_train,
        "mirrors": contents.mirrors,
        "hash": digest.hexdigest(),
        "converted": converted,
        "paths": contents.paths,
    }
    (draft / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def _write_images(
    path: Path, contents: Contents, digest: Any, progress: Progress | None
) -> tuple[Sums, Counter[str]]:
    """Write and digest the images; return their channel sums, and how many were converted."""
    # written as a file and not through a map, where a full disk would kill the process
    converted: Counter[str] = Counter()
    sums: list[Sums] = []
    done, total = 0, contents.shape_NHWC[0]
    header = {"descr": "|u1", "fortran_order": False, "shape": contents.shape_NHWC}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for images_NHWC, modes in contents.chunks:
            pixels = np.ascontiguousarray(images_NHWC)
            file.write(pixels.data)
            digest.update(pixels.data)
            sums.append(channel_sums(pixels))
            converted.update(modes)
            done += len(pixels)
            if progress:
                progress(done, total)
        file.flush()
        os.fsync(file.fileno())
    assert done == total
    return np.concatenate(sums), converted


def _publish(draft: Path, folder: Path) -> None:
    try:
        draft.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        # else another process was first, with the same contents


def _read(part: Part, folder: Path) -> ImageData:
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        return ImageData(
            name=part.name,
            classes=tuple(meta["classes"]),
            images_NHWC=np.load(folder / "images.npy", mmap_mode="c", allow_pickle=False),
            labels_N=np.load(folder / "labels.npy", allow_pickle=False),
            sums_N2C=np.load(folder / "sums.npy", allow_pickle=False),
            n_train=meta["n_train"],
            mirrors=meta["mirrors"],
            hash=meta["hash"],
            converted=meta["converted"],
            has_test=part.has_test,
            paths=tuple(meta["paths"]),
            test_fault=part.test_fault,
            left_out=part.left_out,
            notes=part.notes,
        )
    except (OSError, ValueError, EOFError, KeyError, TypeError) as error:
        raise ValueError(
            f"the image cache {folder} cannot be read ({one_line(error)}): "
            "delete that folder to have it made anew"
        ) from None


@contextmanager
def _writing(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"the image cache {directory} cannot be written ({error.strerror or one_line(error)}): "
            "choose another folder by --data-dir or $CIFAR_SEARCH_DATA"
        ) from None
