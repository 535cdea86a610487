"""Networks: their layers, sizes, costs and refusals."""

import pytest
import torch
from torch import nn

from search.training.models import Shape, build_model, cost
from search.training.models.vgg import block_rates
from spaces.config import VGG

CIFAR = Shape(3, 32, 32, 10)
DIGITS = Shape(1, 8, 8, 10)


def kinds(model: nn.Module) -> list[str]:
    return [type(layer).__name__ for layer in model]


def test_vgg_has_the_layers_that_its_settings_name():
    model = VGG(widths=(4, 6), convolutions=2, head=5, dropout=0.3, head_dropout=0.5, order="norm-dropout")
    block = ["Conv2d", "BatchNorm2d", "ReLU", "Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d", "Dropout"]
    head = ["Flatten", "Linear", "BatchNorm1d", "ReLU", "Dropout", "Linear"]
    assert kinds(build_model(model, CIFAR)) == [*block, *block, *head]


def test_dropout_before_normalization_acts_in_the_last_convolution_only():
    model = VGG(widths=(4,), convolutions=2, head=5, dropout=0.3, head_dropout=0.5, order="dropout-norm")
    assert kinds(build_model(model, CIFAR)) == [
        "Conv2d", "BatchNorm2d", "ReLU", "Conv2d", "Dropout", "BatchNorm2d", "ReLU", "MaxPool2d",
        "Flatten", "Linear", "Dropout", "BatchNorm1d", "ReLU", "Linear",
    ]  # fmt: skip


@pytest.mark.parametrize("order", ["norm-dropout", "dropout-norm", "norm", "dropout", "neither"])
@pytest.mark.parametrize("normalization", ["batch", "layer", "instance", "group", "none"])
@pytest.mark.parametrize("shape", [CIFAR, DIGITS], ids=["cifar", "digits"])
def test_every_order_and_normalization_gives_logits_of_every_class(order, normalization, shape):
    model = VGG(
        widths=(8, 16, 16), head=16, order=order, normalization=normalization, dropout=0.1, head_dropout=0.1
    )
    network = build_model(model, shape)
    images = torch.randn(4, shape.channels, shape.height, shape.width)
    logits = network(images)
    assert logits.shape == (4, shape.classes)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_parameters_and_multiply_adds_follow_from_the_shapes():
    counted = cost(VGG(widths=(4, 6), convolutions=1, head=5, normalization="none", order="neither"), CIFAR)
    parameters = (3 * 9 * 4 + 4) + (4 * 9 * 6 + 6) + (6 * 8 * 8 * 5 + 5) + (5 * 10 + 10)
    multiply_adds = 32 * 32 * 3 * 9 * 4 + 16 * 16 * 4 * 9 * 6 + 6 * 8 * 8 * 5 + 5 * 10
    assert (counted.parameters, counted.multiply_adds) == (parameters, multiply_adds)


def test_a_net_too_deep_for_the_image_is_refused_with_the_sizes():
    with pytest.raises(ValueError, match=r"vgg with 4 blocks .* at least 16, but got images of 8x8"):
        build_model(VGG(widths=(8, 8, 8, 8)), DIGITS)


def test_dropout_profiles():
    assert block_rates(0.3, "constant", 3) == [0.3, 0.3, 0.3]
    assert block_rates(0.3, "rising", 3) == pytest.approx([0.1, 0.2, 0.3])


def test_models_are_channels_last():
    assert build_model(VGG(), CIFAR)[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_groups_must_divide_the_widths():
    with pytest.raises(ValueError, match="groups must divide every width"):
        VGG(widths=(12,), groups=8, normalization="group")
