"""First weights: their statistics by formula, orthogonality, and what is left alone."""

import math

import pytest
import torch
from torch import nn

from search.training.initialization import CONSTANT, gain, initializations, initialize
from search.training.models import Shape, build_model
from spaces.config import VGG, ResNet

CIFAR = Shape(3, 32, 32, 10)
FAN_IN, FAN_OUT = 32 * 9, 64 * 9


def filled(scheme: str, activation: str = "relu") -> nn.Sequential:
    """A convolution from 32 to 64 channels, a normalization and a linear layer."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(32, 64, 3), nn.BatchNorm2d(64), nn.Linear(300, 200))
    nn.init.constant_(network[1].weight, 3.0)
    initialize(network, scheme, activation)
    return network


@pytest.mark.parametrize(
    ("scheme", "variance", "flatness"),
    [
        ("xavier-uniform", 2 / (FAN_IN + FAN_OUT), 9 / 5),
        ("xavier-normal", 2 / (FAN_IN + FAN_OUT), 3),
        ("kaiming-uniform", 2 / FAN_IN, 9 / 5),
        ("kaiming-normal", 2 / FAN_IN, 3),
    ],
)
def test_weights_have_the_variance_and_kurtosis_of_their_formula(scheme, variance, flatness):
    weight = filled(scheme)[0].weight.detach().double()
    assert weight.mean().item() == pytest.approx(0, abs=4 * math.sqrt(variance / weight.numel()))
    assert weight.var().item() == pytest.approx(variance, rel=0.05)
    assert (weight**4).mean().item() / weight.var().item() ** 2 == pytest.approx(flatness, rel=0.1)
    if scheme.endswith("uniform"):
        assert weight.abs().max().item() == pytest.approx(math.sqrt(3 * variance), rel=0.01)


@pytest.mark.parametrize(
    ("activation", "square"),
    [("relu", 2), ("leaky-relu", 2 / 1.0001), ("tanh", 25 / 9), ("elu", 2), ("gelu", 2), ("silu", 2)],
)
def test_kaiming_and_orthogonal_take_the_gain_of_the_activation_and_xavier_none(activation, square):
    assert gain(activation) ** 2 == pytest.approx(square)
    kaiming = filled("kaiming-normal", activation)[2].weight
    assert kaiming.var().item() == pytest.approx(square / 300, rel=0.03)
    xavier = filled("xavier-normal", activation)[2].weight
    assert xavier.var().item() == pytest.approx(2 / 500, rel=0.03)


def test_orthogonal_rows_are_orthogonal_and_of_the_gains_length():
    network = filled("orthogonal", "tanh")
    for weight in (network[0].weight, network[2].weight):
        rows = weight.detach().flatten(1).double()
        expected = torch.eye(len(rows), dtype=torch.float64) * 25 / 9
        torch.testing.assert_close(rows @ rows.T, expected, atol=1e-5, rtol=0)


def test_constant_makes_all_weights_equal():
    network = filled("constant")
    for weight in (network[0].weight, network[2].weight):
        assert weight.unique().tolist() == pytest.approx([CONSTANT])


@pytest.mark.parametrize("scheme", sorted(initializations))
def test_biases_become_zero_and_normalizations_stay(scheme):
    network = filled(scheme)
    assert not network[0].bias.any()
    assert not network[2].bias.any()
    assert bool((network[1].weight == 3).all())


def test_default_is_as_pytorch_draws_it():
    torch.manual_seed(0)
    expected = nn.Conv2d(32, 64, 3)
    network = filled("default")
    assert torch.equal(network[0].weight, expected.weight)
    assert torch.equal(network[0].bias, expected.bias)


def test_the_configuration_names_every_scheme_and_networks_are_filled_by_it():
    schemes = VGG.model_fields["initialization"].annotation.__args__
    assert set(schemes) == {"default", *initializations}
    model = ResNet(depth=8, initialization="constant", zero_init_last_norm=True)
    network = build_model(model, CIFAR)
    weights = [layer.weight for layer in network.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    assert all(bool((weight == CONSTANT).all()) for weight in weights)
    zeroed = [bool((m.weight == 0).all()) for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert sum(zeroed) == 3


def test_the_default_generator_alone_decides():
    first, again = (filled("kaiming-uniform")[0].weight for _ in range(2))
    assert torch.equal(first, again)
    torch.manual_seed(1)
    other = nn.Conv2d(32, 64, 3)
    initialize(other, "kaiming-uniform", "relu")
    assert not torch.equal(first, other.weight)
