"""Normalizations against hand-written formulas in float64, and the orders of layers."""

import numpy as np
import pytest
import torch
from torch import nn

from search.training.layers import activations, dropout, in_order, map_normalization, vector_normalization

EPS = 1e-5


def by_hand(images: np.ndarray, name: str, groups: int) -> np.ndarray:
    """Subtract the mean and divide by the deviation over the axes that each name stands for."""
    n, c, h, w = images.shape
    if name == "batch":
        axes, grouped = (0, 2, 3), images
    elif name == "layer":
        axes, grouped = (1, 2, 3), images
    elif name == "instance":
        axes, grouped = (2, 3), images
    else:
        axes, grouped = (2, 3, 4), images.reshape(n, groups, c // groups, h, w)
    mean, variance = grouped.mean(axes, keepdims=True), grouped.var(axes, keepdims=True)
    return ((grouped - mean) / np.sqrt(variance + EPS)).reshape(n, c, h, w)


@pytest.mark.parametrize("name", ["batch", "layer", "instance", "group"])
def test_map_normalizations_follow_their_formulas(name):
    images = np.random.default_rng(0).normal(3.0, 2.0, (4, 6, 5, 5))
    layer = map_normalization(name, 6, (5, 5), groups=3).double().train()
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(0.5, 2.0, 6, dtype=torch.float64))
        layer.bias.copy_(torch.linspace(-1.0, 1.0, 6, dtype=torch.float64))
    expected = by_hand(images, name, 3) * np.linspace(0.5, 2, 6)[:, None, None]
    expected += np.linspace(-1, 1, 6)[:, None, None]
    np.testing.assert_allclose(layer(torch.from_numpy(images)).detach().numpy(), expected, atol=1e-10)


def test_batch_normalization_of_vectors_is_over_the_batch_and_layer_over_features():
    features = np.random.default_rng(0).normal(3.0, 2.0, (8, 5))
    batch = vector_normalization("batch", 5).double().train()(torch.from_numpy(features)).detach().numpy()
    layer = vector_normalization("layer", 5).double()(torch.from_numpy(features)).detach().numpy()
    np.testing.assert_allclose(
        batch, (features - features.mean(0)) / np.sqrt(features.var(0) + EPS), atol=1e-10
    )
    centred = features - features.mean(1, keepdims=True)
    np.testing.assert_allclose(layer, centred / np.sqrt(features.var(1, keepdims=True) + EPS), atol=1e-10)


@pytest.mark.parametrize("name", ["instance", "group", "none"])
def test_vectors_have_no_instance_or_group_normalization(name):
    assert vector_normalization(name, 5) is None


def test_instance_normalization_of_single_positions_is_refused():
    with pytest.raises(ValueError, match="more than one position, but got 1x1"):
        map_normalization("instance", 4, (1, 1), 1)


def test_batch_normalization_uses_running_statistics_in_eval():
    layer = map_normalization("batch", 2, (4, 4), 1).double().train()
    images = torch.randn(16, 2, 4, 4, dtype=torch.float64) * 3 + 1
    layer(images)
    mean = 0.1 * images.mean((0, 2, 3))
    variance = 0.9 + 0.1 * images.var((0, 2, 3), unbiased=True)
    expected = (images - mean[:, None, None]) / torch.sqrt(variance[:, None, None] + EPS)
    torch.testing.assert_close(layer.eval()(images), expected)


@pytest.mark.parametrize(("kind", "whole_maps"), [("element", False), ("channel", True)])
def test_dropout_zeroes_its_share_and_scales_the_rest(kind, whole_maps):
    torch.manual_seed(0)
    dropped = dropout(0.25, kind).train()(torch.ones(64, 32, 4, 4))
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert (dropped == 0).float().mean().item() == pytest.approx(0.25, abs=0.03)
    maps = (dropped == 0).float().mean((2, 3))
    assert bool(((maps == 0) | (maps == 1)).all()) == whole_maps


def test_no_dropout_is_no_layer():
    assert dropout(0.0, "element") is None


def test_orders_are_what_their_names_say():
    norm, activation, pool, drop = nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.5)
    expected = {
        "norm-dropout": [norm, activation, pool, drop],
        "dropout-norm": [drop, norm, activation, pool],
        "norm": [norm, activation, pool],
        "dropout": [activation, pool, drop],
        "neither": [activation, pool],
    }
    for order, layers in expected.items():
        assert in_order(order, norm, activation, pool, drop) == layers
    assert in_order("norm-dropout", None, activation, None, None) == [activation]


ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "leaky-relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "tanh": np.tanh,
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "gelu": lambda x: np.array(
        [v * 0.5 * (1 + np.vectorize(__import__("math").erf)(v / np.sqrt(2))) for v in x]
    ),
    "silu": lambda x: x / (1 + np.exp(-x)),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_follow_their_formulas(name):
    x = np.linspace(-3, 3, 31)
    np.testing.assert_allclose(
        activations[name]()(torch.from_numpy(x.copy())).numpy(), ACTIVATIONS[name](x), atol=1e-12
    )


def test_every_activation_of_the_configuration_is_built_and_unknown_ones_are_named():
    assert set(activations) == set(ACTIVATIONS)
    with pytest.raises(ValueError, match=r"unknown activation 'rellu'.*did you mean 'relu'"):
        activations["rellu"]


def test_a_registry_refuses_to_register_a_name_twice():
    with pytest.raises(ValueError, match="activation 'relu' is registered twice"):
        activations.register("relu")
