"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) by torchvision's classes: downloaded on first use.

The archives are pickles. torchvision compares their MD5 with the published one when a data set is made,
before it reads anything out of them; a file that differs is never opened as a pickle.
"""

from __future__ import annotations

import http.client
import posixpath
import socket
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from filelock import FileLock

from search.data.arrays import in_chunks, resized_shape
from search.data.images import Contents, Part, Which, one_line
from search.data.request import DataRequest, DataUnavailable
from spaces.text import brief

if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10

Archive: TypeAlias = Literal["cifar10", "cifar100"]
SILENCE_S = 30.0
"""Seconds without an answer after which a download is given up."""


def archive_part(archive: Archive, which: Which, request: DataRequest) -> Part:
    """One part of CIFAR-10 or CIFAR-100: 32x32, three channels, a test part of 10,000 images."""
    return Part(
        name=archive,
        identity=f"{archive} {which} {request.image_size}",
        has_test=True,
        contents=lambda: _contents(archive, which, request),
    )


def _contents(archive: Archive, which: Which, request: DataRequest) -> Contents:
    opened = _opened(_only(_torchvision_class(archive), which), which, request)
    images_NHWC = opened.data
    return Contents(
        classes=tuple(opened.classes),
        shape_NHWC=resized_shape(images_NHWC, request.image_size),
        labels_N=np.array(opened.targets, np.int64),
        n_train=len(images_NHWC) if which == "train" else 0,
        mirrors=True,
        chunks=in_chunks(images_NHWC, request.image_size),
    )


def _torchvision_class(archive: Archive) -> type[CIFAR10]:
    from torchvision.datasets import CIFAR10, CIFAR100

    classes: dict[Archive, type[CIFAR10]] = {"cifar10": CIFAR10, "cifar100": CIFAR100}
    return classes[archive]


def _only(dataset: type[CIFAR10], which: Which) -> type[CIFAR10]:
    """The class without the other part's files: torchvision would read those too, to check them."""
    other = "test_list" if which == "train" else "train_list"
    return type(dataset.__name__, (dataset,), {other: []})


def _opened(dataset: type[CIFAR10], which: Which, request: DataRequest) -> CIFAR10:
    root = request.directory
    try:
        with FileLock(root / ".download.lock"), giving_up_after(SILENCE_S):
            return dataset(root, train=which == "train", download=True)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise DataUnavailable(_what_to_do(request.dataset, dataset, root, error)) from None


def _what_to_do(name: str, dataset: type[CIFAR10], root: Path, error: Exception) -> str:
    archive = root / dataset.filename
    refused = ", in place of the one there, whose checksum is wrong" if _is_another(archive, dataset) else ""
    cause = getattr(error, "reason", error)  # what urllib wraps
    return (
        f"{name} is not in {root} and could not be downloaded from {dataset.url} ({one_line(cause)}): "
        f"put that file by hand at {archive}{refused}, or use data that needs no download: "
        "--dataset digits, or --dataset FOLDER with images as train/CLASS/*"
    )


def _is_another(archive: Path, dataset: type[CIFAR10]) -> bool:
    from torchvision.datasets.utils import check_integrity

    return archive.is_file() and not check_integrity(archive, dataset.tgz_md5)


def check_members(tar: tarfile.TarFile, archive: Path) -> None:
    """Refuse an archive that could write outside of the folder that it is unpacked into.

    tarfile's filter "data" refuses the same, but has been led around by links (CVE-2025-4517); what we
    unpack needs no links.

    Raises:
        ValueError: naming the member.
    """
    for member in tar:
        name = posixpath.normpath(member.name)
        if f"{name}/".startswith(("/", "../")) or not (member.isfile() or member.isdir()):
            raise ValueError(
                f"{archive}: an archive may hold only files and folders below its own, but got "
                f"{brief(member.name)}: delete it, and get it from where it was published"
            )


@contextmanager
def giving_up_after(seconds: float) -> Iterator[None]:
    """Let downloads fail after so long a silence."""
    # torchvision's download sets no limit, and a firewall that swallows packets would hold it for ever
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
