"""Imagenette (fastai): ten easy classes of ImageNet, by the archive that torchvision names.

Unpacked it is a folder of images with ``train/`` and ``val/``, and is read as one: its ``val/`` validates,
and there is no test split. Beside them lies ``noisy_imagenette.csv``, a table for ``data.noise_file``.
Classes go by their WordNet IDs, as in that table.
"""

from __future__ import annotations

import http.client
import shutil
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path

from filelock import FileLock

from search.data.archives import check_members, giving_up_after
from search.data.folder import folder_part
from search.data.images import Part, Which, one_line
from search.data.request import DataRequest, DataUnavailable

VERSION = "160px"
"""torchvision's name of the archive whose images have a shorter side of 160 pixels."""
SIDE = 128
"""Images differ in size: they are resized to this many pixels square, unless ``--image-size`` is given."""
SILENCE_S = 30.0
"""Seconds without an answer after which a download is given up."""


def imagenette_part(which: Which, request: DataRequest) -> Part:
    """One part of Imagenette, downloaded and unpacked on first use.

    Raises:
        DataUnavailable: (a ValueError) if it must be downloaded and cannot be.
        ValueError: for its test split, which it does not have.
    """
    url, md5 = _archive()
    folder = request.directory / Path(url).stem
    if not folder.is_dir():
        _fetch(url, md5, folder)
    side = request.image_size or SIDE
    return replace(
        folder_part(which, replace(request, dataset=str(folder), image_size=side)), name="imagenette"
    )


def _archive() -> tuple[str, str]:
    """Where the archive is, and its MD5."""
    from torchvision.datasets import Imagenette

    url, md5 = Imagenette._ARCHIVES[VERSION]
    return url, md5


def _fetch(url: str, md5: str, folder: Path) -> None:
    from torchvision.datasets.utils import check_integrity, download_url

    root = folder.parent
    archive = root / Path(url).name
    root.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(root / ".download.lock"), giving_up_after(SILENCE_S):
            if not folder.is_dir():
                download_url(url, root, md5=md5)
                _unpack(archive, folder)
    except (OSError, EOFError, RuntimeError, http.client.HTTPException, tarfile.TarError) as error:
        there = archive.is_file() and not check_integrity(archive, md5)
        refused = ", in place of the one there, whose checksum is wrong" if there else ""
        raise DataUnavailable(
            f"imagenette is not in {root} and could not be downloaded from {url} "
            f"({one_line(getattr(error, 'reason', error))}): put that file by hand at {archive}{refused}, or "
            "use data that needs no download: --dataset digits, or --dataset FOLDER with images as "
            "train/CLASS/*"
        ) from None


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack beside the place and move there at the end, so that what is there is whole."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as beside:
        with tarfile.open(archive) as tar:
            check_members(tar, archive)
            tar.extractall(beside, filter="data")
        shutil.move(Path(beside) / folder.name, folder)
