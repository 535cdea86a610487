"""Where images come from: a registered name, or the path of a folder.

Adding a data set is one row in ``SOURCES``: its name, and a function from the wanted part and the request
to the ``Part`` that the cache will read if it has to.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from search.data.archives import archive_part
from search.data.cache import cached
from search.data.digits import digits_part
from search.data.folder import folder_part
from search.data.imagenette import imagenette_part
from search.data.images import ImageData, Part, Progress, Which
from search.data.request import DataRequest, DataUnavailable
from spaces.text import unknown

__all__ = ["SOURCES", "DataRequest", "DataUnavailable", "ImageData", "load", "load_test"]

SOURCES: dict[str, Callable[[Which, DataRequest], Part]] = {
    "cifar10": partial(archive_part, "cifar10"),
    "cifar100": partial(archive_part, "cifar100"),
    "digits": digits_part,
    "imagenette": imagenette_part,
}


def load(request: DataRequest, progress: Progress | None = None) -> ImageData:
    """The training images, and the data set's own validation images after them. Test images stay closed.

    Args:
        request: which data set, from where, at what size.
        progress: called with the images done and all images, while they are decoded for the first time.

    Raises:
        DataUnavailable: (a ValueError) if it must be downloaded and cannot be.
        ValueError: one line with what is refused and the rule.
    """
    return cached(_part("train", request), request.directory, progress)


def load_test(request: DataRequest, progress: Progress | None = None) -> ImageData:
    """The test images, of which ``n_train`` is 0. Arguments and errors as for ``load``."""
    return cached(_part("test", request), request.directory, progress)


def _part(which: Which, request: DataRequest) -> Part:
    if request.dataset in SOURCES:
        return SOURCES[request.dataset](which, request)
    if not request.dataset or not os.path.isdir(request.folder):  # noqa: PTH112  also of names too long
        raise ValueError(
            f"--dataset: {unknown('data set', request.dataset, SOURCES)}; a path must be an existing folder"
        )
    return folder_part(which, request)
