"""A network's penultimate features in two dimensions, by PCA and by t-SNE, coloured by class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from search.data.preview import first_of_each
from search.pictures.canvas import INK, SOFT, class_colours, new_figure, plain_axes, save, short, title

MOST = 1000
"""Images on a map: as many as t-SNE places within seconds."""
MOST_NAMED = 20
"""Classes up to which the legend names them."""
SMALLEST = 4
"""Images that a map needs."""
Points = NDArray[np.float64]


def chosen_images(labels_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """Indices, sorted, of the images on a map: the first ones of each class, ``MOST`` in all."""
    return np.sort(first_of_each(labels_N, MOST))


def pca(features_NF: NDArray[np.float32]) -> tuple[Points, float]:
    """The first two principal components, points_N2, and the share of the variance that they hold."""
    from sklearn.decomposition import PCA

    components = min(2, *features_NF.shape)
    with np.errstate(invalid="ignore"):  # features that are all alike have no variance to share out
        reduced = PCA(components, svd_solver="full").fit(features_NF.astype(np.float64))
    points_NX = reduced.transform(features_NF.astype(np.float64))
    share = float(np.nansum(reduced.explained_variance_ratio_))
    return np.pad(points_NX, ((0, 0), (0, 2 - components))), share


def tsne(features_NF: NDArray[np.float32]) -> tuple[Points, float]:
    """t-SNE's points_N2 (van der Maaten and Hinton 2008), begun at the principal components, and the
    perplexity: 30, or less for few images."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(features_NF) - 1) / 3)
    reduced = features_NF.astype(np.float64)
    if min(reduced.shape) > 50:  # as its authors do
        reduced = PCA(50, svd_solver="full").fit_transform(reduced)
    start = "pca" if reduced.shape[1] > 1 and reduced.std() > 0 else "random"
    placed = TSNE(2, perplexity=perplexity, init=start, random_state=0, n_jobs=1).fit_transform(reduced)
    return placed.astype(np.float64), perplexity


def draw_feature_map(
    features_NF: NDArray[np.float32],
    labels_N: NDArray[np.int64],
    classes: Sequence[str],
    path: Path,
    heading: str,
    images: str,
) -> bool:
    """Write two maps side by side, PCA and t-SNE, a point for each image.

    Args:
        features_NF: what enters the network's classifier.
        labels_N: the true class of each image.
        classes: their names, drawn as they are; long ones are shortened.
        path: the PNG to write.
        heading: a title, drawn as it is.
        images: what the images are, for people: "test images".

    Returns:
        False, and there is no file, for fewer than ``SMALLEST`` images or features that are not finite.

    Raises:
        ValueError: if the file cannot be written.
    """
    if len(features_NF) < SMALLEST or not np.isfinite(features_NF).all():
        return False
    (linear_N2, share), (near_N2, perplexity) = pca(features_NF), tsne(features_NF)
    figure = new_figure(10.4, 4.9)
    left, right = figure.subplots(1, 2)
    _scatter(left, linear_N2, labels_N, len(classes), f"PCA ({100 * share:.0f} % of the variance)")
    _scatter(right, near_N2, labels_N, len(classes), f"t-SNE (perplexity {perplexity:.3g})")
    if len(classes) <= MOST_NAMED:
        _legend(right, classes)
    below = f"{len(features_NF)} {images}, {features_NF.shape[1]} features each, coloured by true class"
    title(figure, heading, below)
    save(figure, path)
    return True


def _scatter(axes: Axes, points_N2: Points, labels_N: NDArray[np.int64], classes: int, name: str) -> None:
    colours = class_colours(classes)
    size = 14 if len(points_N2) <= 400 else 8
    axes.scatter(
        points_N2[:, 0],
        points_N2[:, 1],
        s=size,
        c=[colours[label] for label in labels_N.tolist()],
        alpha=0.8,
        linewidths=0,
    )
    plain_axes(axes)
    axes.set_title(name, fontsize=9, color=SOFT)


def _legend(axes: Axes, classes: Sequence[str]) -> None:
    for name, colour in zip(classes, class_colours(len(classes)), strict=True):
        axes.scatter([], [], s=28, color=[colour], linewidths=0, label=f"\N{ZERO WIDTH SPACE}{short(name)}")
    axes.legend(
        fontsize=8,
        frameon=False,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        labelcolor=INK,
        handletextpad=0.1,
    )
