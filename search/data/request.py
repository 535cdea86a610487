"""What a user asks for with ``--dataset``, ``--data-dir`` and ``--image-size``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

LARGEST_SIDE = 1024
"""Pixels to which images may be resized: more than any network here takes."""


class DataUnavailable(ValueError):
    """A known data set is neither here nor to be had over the network; one line that says what to do."""


@dataclass(frozen=True)
class DataRequest:
    """Which images to load. Small and picklable, so that every worker process can load them for itself."""

    dataset: str
    """A registered name, or the path of a folder of images (``./digits`` is a folder, ``digits`` is not)."""
    data_dir: Path | None = None
    """Where downloads and the cache live; None: ``$CIFAR_SEARCH_DATA``, else the user's cache folder."""
    image_size: int | None = None
    """Resize every image to this many pixels square (bilinear, antialiased); None: their own size."""

    def __post_init__(self) -> None:
        if self.image_size is not None and not 1 <= self.image_size <= LARGEST_SIDE:
            raise ValueError(f"--image-size must be 1 to {LARGEST_SIDE} pixels, but got {self.image_size}")

    @property
    def directory(self) -> Path:
        """The data folder that this request means. It may not exist yet.

        Raises:
            ValueError: if none is named, and the user has no home folder.
        """
        chosen = self.data_dir or os.environ.get("CIFAR_SEARCH_DATA")
        if chosen:
            return _path(chosen)
        from studies.folders import of_user  # takes as long as reading the images

        return _path(of_user("cache", "name a folder by --data-dir or $CIFAR_SEARCH_DATA"))

    @property
    def folder(self) -> Path:
        """``dataset`` read as a path."""
        return _path(self.dataset)


def _path(text: str | Path) -> Path:
    # pathlib fails for a user who does not exist, and for links that go in a circle
    return Path(os.path.realpath(os.path.expanduser(text)))  # noqa: PTH111
