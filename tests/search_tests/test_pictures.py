"""Pictures as PNG: right numbers in the right places, text that stays text, and nothing where nothing is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from search.pictures.canvas import literal, new_figure, save, short
from search.pictures.confusion import draw_confusion_matrix
from search.pictures.curves import Curves, draw_learning_curves
from search.pictures.feature_map import MOST, chosen_images, draw_feature_map, pca, tsne
from search.pictures.tiles import MOST_WRONG, draw_filters, draw_misclassified
from search.retraining.trained import TrainedModel
from spaces.config import Configuration

HOSTILE = ["$x^$", "\\frac{", "_hidden", "a" * 300, "<b>&amp;", "%s {0}", "line\nbreak", "猫", "", "$"]


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def test_text_is_drawn_as_it_is_and_a_formula_is_never_read(tmp_path):
    for name in [*HOSTILE, "$\\frac{1}{$"]:
        figure = new_figure(2, 1)
        drawn = figure.text(0, 0.5, literal(name))
        save(figure, tmp_path / "x.png")
        shown, is_formula = drawn._preprocess_math(drawn.get_text())
        assert not is_formula
        assert shown == name.replace("\n", "\N{REPLACEMENT CHARACTER}")


def test_long_names_keep_both_ends():
    assert short("automobile") == "automobile"
    assert short("a" * 20 + "b" * 20, 9) == "aaaa…bbbb"
    assert len(short("x" * 500)) == 14


@pytest.mark.parametrize("count", [2, 10, 100])
def test_pictures_of_any_number_of_hostile_class_names_are_drawn(tmp_path, count):
    classes = [f"{HOSTILE[k % len(HOSTILE)]}{k}" for k in range(count)]
    counts_KK = np.eye(count, dtype=np.int64) * 3
    draw_confusion_matrix(counts_KK, classes, tmp_path / "c.png", "$x^$", "$y^$")
    labels_N = np.arange(count).repeat(3)
    features_NF = np.random.default_rng(0).normal(size=(len(labels_N), 5)).astype(np.float32)
    assert draw_feature_map(features_NF, labels_N, classes, tmp_path / "f.png", "$x^$", "$images")
    images = np.zeros((len(labels_N), 4, 4, 3), np.uint8)
    wrong_N = (labels_N + 1) % count
    shown = draw_misclassified(
        images, labels_N, wrong_N, np.full(len(labels_N), 0.5), classes, tmp_path / "m.png", "$"
    )
    assert shown == min(len(labels_N), MOST_WRONG)
    for name in "cfm":
        assert pixels(tmp_path / f"{name}.png").std() > 1
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_perfect_confusion_matrix_is_dark_on_its_diagonal_alone(tmp_path):
    draw_confusion_matrix(np.diag([5, 5, 5]), ["a", "b", "c"], tmp_path / "right.png", "t")
    draw_confusion_matrix(np.diag([5, 5, 5])[::-1], ["a", "b", "c"], tmp_path / "wrong.png", "t")
    dark = {name: pixels(tmp_path / f"{name}.png").sum(2) < 200 for name in ("right", "wrong")}
    rows, columns = np.nonzero(dark["right"] & ~dark["wrong"])
    assert np.corrcoef(rows, columns)[0, 1] > 0.9, "from the upper left to the lower right"
    rows, columns = np.nonzero(dark["wrong"] & ~dark["right"])
    assert np.corrcoef(rows, columns)[0, 1] < -0.9


def test_curves_with_gaps_one_epoch_and_two_phases_are_drawn(tmp_path):
    one = Curves([1.0], [0.5], [1.1], [0.4])
    gaps = Curves([5.0, None, float("nan"), 1.0], [0.1, 0.2, None, 0.4], first_of_classes=3)
    draw_learning_curves([one, gaps], tmp_path / "curves.png", "t", "b")
    both = pixels(tmp_path / "curves.png")
    draw_learning_curves([gaps], tmp_path / "curves.png", "t", "b")
    blue, orange = np.array([31, 119, 180]), np.array([255, 127, 14])
    assert (np.abs(pixels(tmp_path / "curves.png") - blue).sum(2) < 40).any()
    assert not (np.abs(pixels(tmp_path / "curves.png") - orange).sum(2) < 40).any(), "nothing was validated"
    assert (np.abs(both - orange).sum(2) < 120).any()


def test_the_surest_mistakes_are_shown_and_none_is_no_picture(tmp_path):
    images = np.zeros((3, 2, 2, 3), np.uint8)
    images[0], images[1], images[2] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    labels, predicted = np.array([0, 1, 1]), np.array([1, 0, 1])
    draw = [images, labels, predicted, np.array([0.6, 0.9, 1.0]), ["a", "b"], tmp_path / "m.png", "t"]
    assert draw_misclassified(*draw) == 2
    shown = pixels(tmp_path / "m.png")
    red, green, blue = ((shown == colour).all(2) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255)))
    assert not blue.any(), "it was right"
    assert np.nonzero(green)[1].max() < np.nonzero(red)[1].min(), "the surest comes first"
    assert draw_misclassified(images, labels, labels, *draw[3:5], tmp_path / "none.png", "t") == 0
    assert not (tmp_path / "none.png").exists()


def test_filters_share_one_scale_about_zero(tmp_path):
    filters = np.zeros((2, 3, 3, 3), np.float32)
    filters[0, 0], filters[1, 2] = 2.0, -2.0
    draw_filters(filters, tmp_path / "f.png", "t")
    shown = pixels(tmp_path / "f.png")
    for colour in ((255, 127, 127), (127, 127, 0)):
        assert (np.abs(shown - np.array(colour)).max(2) <= 1).sum() > 1000


def test_only_a_first_convolution_over_several_pixels_has_filters():
    def first_filters(*layers: nn.Module):
        model = TrainedModel(
            nn.Sequential(*layers), Configuration(), lambda x: x, ("a", "b"), torch.device("cpu")
        )
        return model.first_filters()

    convolution = nn.Conv2d(3, 4, 5)
    filters = first_filters(nn.Dropout(), convolution, nn.Conv2d(4, 2, 3))
    assert filters is not None
    np.testing.assert_array_equal(filters, convolution.weight.detach().numpy())
    assert first_filters(nn.Flatten(), nn.Linear(12, 2), nn.Conv2d(3, 4, 3)) is None
    assert first_filters(nn.Conv2d(3, 4, 1)) is None


def test_principal_components_are_those_of_the_singular_values():
    values_NF = np.random.default_rng(1).normal(size=(40, 6)) @ np.diag([5, 3, 1, 1, 1, 1])
    points_N2, share = pca(values_NF.astype(np.float32))
    u, s, _ = np.linalg.svd(values_NF - values_NF.mean(0), full_matrices=False)
    np.testing.assert_allclose(np.abs(points_N2), np.abs(u[:, :2] * s[:2]), atol=1e-4)
    assert share == pytest.approx((s[:2] ** 2).sum() / (s**2).sum(), abs=1e-5)


def test_the_map_keeps_apart_what_lies_apart_and_is_the_same_again():
    noise = np.random.default_rng(2).normal(size=(60, 60))
    features_NF = (noise + 40 * (np.arange(60) % 2)[:, None]).astype(np.float32)
    points_N2, perplexity = tsne(features_NF)
    assert perplexity == pytest.approx(59 / 3)
    one, other = points_N2[::2], points_N2[1::2]
    assert np.linalg.norm(one.mean(0) - other.mean(0)) > 2 * max(one.std(), other.std())
    np.testing.assert_array_equal(points_N2, tsne(features_NF)[0])


@pytest.mark.parametrize("features", [np.zeros((3, 5)), np.full((20, 5), np.nan)])
def test_too_few_images_or_no_finite_features_make_no_map(tmp_path, features):
    labels_N = np.zeros(len(features), np.int64)
    assert not draw_feature_map(features.astype(np.float32), labels_N, ["a"], tmp_path / "f.png", "t", "i")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("features", [np.zeros((12, 5)), np.arange(12.0)[:, None]])
def test_features_that_are_all_alike_or_single_are_drawn(tmp_path, features):
    labels_N = np.zeros(12, np.int64)
    assert draw_feature_map(features.astype(np.float32), labels_N, ["a"], tmp_path / "f.png", "t", "i")


def test_a_map_shows_equally_many_of_each_class():
    labels_N = np.array([0] * 5000 + [1] * 5000)
    chosen_M = chosen_images(labels_N)
    assert len(chosen_M) == MOST
    assert (labels_N[chosen_M] == 0).sum() == MOST // 2
    assert (np.diff(chosen_M) > 0).all()


def test_a_picture_that_cannot_be_written_is_said_with_its_name(tmp_path):
    with pytest.raises(ValueError, match=r"none/x\.png: the picture cannot be written"):
        draw_confusion_matrix(np.eye(2, dtype=np.int64), ["a", "b"], tmp_path / "none" / "x.png", "t")
