"""scikit-learn's handwritten digits: 1,797 grey images of 8x8, part of its installation.

Alpaydin and Kaynak 1998, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from search.data.arrays import in_chunks, resized_shape
from search.data.images import Contents, Labels, Part, Which
from search.data.request import DataRequest


def digits_part(which: Which, request: DataRequest) -> Part:
    """The digits, 0..16 scaled to 0..255, one channel. A mirrored digit is no digit."""
    return Part(
        name="digits",
        identity=f"digits {which} {request.image_size}",
        has_test=True,
        contents=lambda: _contents(which, request.image_size),
    )


def _contents(which: Which, image_size: int | None) -> Contents:
    from sklearn.datasets import load_digits

    digits = load_digits()
    chosen_N = _in_test(digits.target) == (which == "test")
    images_NHWC = np.rint(digits.images[chosen_N, :, :, None] * (255 / 16)).astype(np.uint8)
    return Contents(
        classes=tuple(str(name) for name in digits.target_names),
        shape_NHWC=resized_shape(images_NHWC, image_size),
        labels_N=digits.target[chosen_N].astype(np.int64),
        n_train=len(images_NHWC) if which == "train" else 0,
        mirrors=False,
        chunks=in_chunks(images_NHWC, image_size),
    )


def _in_test(labels_N: Labels) -> NDArray[np.bool_]:
    """Every fifth image of each class: no seed and no version of a library can change which those are."""
    in_test_N = np.zeros(len(labels_N), bool)
    for label in np.unique(labels_N):
        in_test_N[np.flatnonzero(labels_N == label)[2::5]] = True
    return in_test_N
