"""Normalizations against hand-written formulas in float64, and the orders of layers."""

import numpy as np
import pytest
import torch
from torch import nn

from search.training.layers import (
    GlobalAverage,
    MoreChannels,
    NormSettings,
    Residual,
    SqueezeExcite,
    StochasticDepth,
    Subsample,
    activations,
    dropout,
    in_order,
    map_normalization,
    vector_normalization,
)

EPS = 1e-5
SETTINGS = NormSettings()


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
    layer = map_normalization(name, 6, (5, 5), NormSettings(groups=3)).double().train()
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(0.5, 2.0, 6, dtype=torch.float64))
        layer.bias.copy_(torch.linspace(-1.0, 1.0, 6, dtype=torch.float64))
    expected = by_hand(images, name, 3) * np.linspace(0.5, 2, 6)[:, None, None]
    expected += np.linspace(-1, 1, 6)[:, None, None]
    np.testing.assert_allclose(layer(torch.from_numpy(images)).detach().numpy(), expected, atol=1e-10)


def test_batch_normalization_of_vectors_is_over_the_batch_and_layer_over_features():
    features = np.random.default_rng(0).normal(3.0, 2.0, (8, 5))
    batch = (
        vector_normalization("batch", 5, SETTINGS)
        .double()
        .train()(torch.from_numpy(features))
        .detach()
        .numpy()
    )
    layer = vector_normalization("layer", 5, SETTINGS).double()(torch.from_numpy(features)).detach().numpy()
    np.testing.assert_allclose(
        batch, (features - features.mean(0)) / np.sqrt(features.var(0) + EPS), atol=1e-10
    )
    centred = features - features.mean(1, keepdims=True)
    np.testing.assert_allclose(layer, centred / np.sqrt(features.var(1, keepdims=True) + EPS), atol=1e-10)


@pytest.mark.parametrize("name", ["instance", "group", "none"])
def test_vectors_have_no_instance_or_group_normalization(name):
    assert vector_normalization(name, 5, SETTINGS) is None


def test_instance_normalization_of_single_positions_is_refused():
    with pytest.raises(ValueError, match="more than one position, but got 1x1"):
        map_normalization("instance", 4, (1, 1), SETTINGS)


@pytest.mark.parametrize("momentum", [0.1, 0.4])
def test_batch_normalization_uses_running_statistics_in_eval(momentum):
    layer = map_normalization("batch", 2, (4, 4), NormSettings(momentum=momentum)).double().train()
    images = torch.randn(16, 2, 4, 4, dtype=torch.float64) * 3 + 1
    layer(images)
    mean = momentum * images.mean((0, 2, 3))
    variance = 1 - momentum + momentum * images.var((0, 2, 3), unbiased=True)
    expected = (images - mean[:, None, None]) / torch.sqrt(variance[:, None, None] + EPS)
    torch.testing.assert_close(layer.eval()(images), expected)


@pytest.mark.parametrize(("images", "sizes"), [(12, [4, 4, 4]), (11, [4, 4, 3])])
def test_ghost_batches_are_normalized_one_by_one_and_remembered_in_turn(images, sizes):
    maps = np.random.default_rng(0).normal(3.0, 2.0, (images, 2, 4, 4))
    layer = map_normalization("batch", 2, (4, 4), NormSettings(momentum=0.2, ghost_batches=3)).double()
    expected, mean, variance, start = [], np.zeros(2), np.ones(2), 0
    for size in sizes:
        part = maps[start : start + size]
        expected.append(by_hand(part, "batch", 1))
        mean = 0.8 * mean + 0.2 * part.mean((0, 2, 3))
        variance = 0.8 * variance + 0.2 * part.var((0, 2, 3), ddof=1)
        start += size
    seen = layer.train()(torch.from_numpy(maps)).detach().numpy()
    np.testing.assert_allclose(seen, np.concatenate(expected), atol=1e-10)
    expected_in_eval = (maps - mean[:, None, None]) / np.sqrt(variance[:, None, None] + EPS)
    seen_in_eval = layer.eval()(torch.from_numpy(maps)).detach().numpy()
    np.testing.assert_allclose(seen_in_eval, expected_in_eval, atol=1e-10)


def test_ghost_batches_of_vectors_are_normalized_one_by_one():
    features = np.random.default_rng(0).normal(3.0, 2.0, (8, 5))
    layer = vector_normalization("batch", 5, NormSettings(ghost_batches=2)).double().train()
    halves = [(half - half.mean(0)) / np.sqrt(half.var(0) + EPS) for half in np.split(features, 2)]
    seen = layer(torch.from_numpy(features)).detach().numpy()
    np.testing.assert_allclose(seen, np.concatenate(halves), atol=1e-10)


def test_ghost_batches_keep_maps_channels_last():
    layer = map_normalization("batch", 8, (4, 4), NormSettings(ghost_batches=2)).train()
    maps = torch.randn(8, 8, 4, 4).to(memory_format=torch.channels_last)
    assert layer(maps).is_contiguous(memory_format=torch.channels_last)


def test_squeeze_and_excitation_follows_its_formula():
    layer = SqueezeExcite(6, 3).double()
    maps = torch.from_numpy(np.random.default_rng(0).normal(size=(4, 6, 5, 5)))
    (w1, b1), (w2, b2) = (
        (part.weight.detach().numpy(), part.bias.detach().numpy()) for part in (layer.squeeze, layer.excite)
    )
    hidden = np.maximum(maps.numpy().mean((2, 3)) @ w1.T + b1, 0)
    scales = 1 / (1 + np.exp(-(hidden @ w2.T + b2)))
    assert w1.shape == (2, 6)
    np.testing.assert_allclose(
        layer(maps).detach().numpy(), maps.numpy() * scales[:, :, None, None], atol=1e-12
    )


def test_stochastic_depth_drops_whole_images_and_keeps_the_mean():
    torch.manual_seed(0)
    layer = StochasticDepth(0.25).train()
    out = layer(torch.ones(4000, 2, 3, 3, dtype=torch.float64))
    assert out.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert bool((out.flatten(1).std(1) == 0).all())
    assert (out[:, 0, 0, 0] == 0).double().mean().item() == pytest.approx(0.25, abs=0.03)
    maps = torch.randn(5, 2, 3, 3)
    assert torch.equal(layer.eval()(maps), maps)


def test_a_padded_shortcut_takes_every_other_position_and_adds_zeros():
    maps = torch.arange(2 * 3 * 5 * 4, dtype=torch.float64).view(2, 3, 5, 4)
    out = nn.Sequential(Subsample(2), MoreChannels(2))(maps).numpy()
    assert out.shape == (2, 5, 3, 2)
    np.testing.assert_array_equal(out[:, :3], maps.numpy()[:, :, ::2, ::2])
    assert not out[:, 3:].any()


def test_a_residual_adds_branch_and_shortcut():
    maps = torch.randn(2, 3, 4, 4)
    assert torch.equal(Residual(nn.Tanh(), nn.Identity())(maps), maps + maps.tanh())


def test_a_global_average_is_the_mean_of_each_map():
    maps = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    np.testing.assert_allclose(GlobalAverage()(torch.from_numpy(maps)).numpy(), maps.mean((2, 3)))


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
