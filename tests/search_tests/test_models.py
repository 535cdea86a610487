"""What holds for every network: shapes, gradients, precision, memory, repeatability, refusals and costs."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from search.training.models import Prepared, Shape, build_model, cost
from search.training.models.table import models
from spaces import config
from spaces.config import (
    VGG,
    Airbench,
    AlexNet,
    Configuration,
    ConvNet,
    LeNet,
    ResNet,
    ResNet9,
    Torchvision,
    Tutorial,
    WideResNet,
)
from spaces.tree import sections

CIFAR = Shape(3, 32, 32, 10)
DIGITS = Shape(1, 8, 8, 10)
FASHION = Shape(1, 28, 28, 10)
TINY_IMAGENET = Shape(3, 64, 64, 7)
WIDE = Shape(3, 24, 40, 5)

# the network, and the least square image that it takes
NETWORKS = {
    "tutorial": (Tutorial(), 16),
    "lenet": (LeNet(), 4),
    "convnet": (ConvNet(widths=(4, 8), head=16), 16),
    "alexnet": (AlexNet(head=32), 1),
    "vgg": (VGG(widths=(4, 8, 8), head=16, dropout=(0.1, 0.0, 0.2)), 8),
    "vgg-towards-resnet": (
        VGG(widths=(4, 8), pooling="stride", global_pooling=True, skip="identity-projection",
            stem="patchify", head_dropout=0.2),
        8,
    ),
    "resnet": (ResNet(depth=8, width=4), 4),
    "resnet-18-layout": (ResNet(depth=18, width=4), 8),
    "resnet-everything": (
        ResNet(depth=8, width=4, shortcut="padding", squeeze_excite=2, stochastic_depth=0.1, dropout=0.1,
               head_dropout=0.1, stem="patchify", activation="silu"),
        8,
    ),
    "resnet9": (ResNet9(width=4, squeeze_excite=4, stochastic_depth=0.1, dropout=(0.1, 0.2)), 8),
    "wide-resnet": (WideResNet(depth=10, widening=1, dropout=0.1, squeeze_excite=8), 4),
    "wide-resnet-patchify": (WideResNet(depth=10, widening=1, stem="patchify", stochastic_depth=0.1), 8),
    "airbench": (Airbench(widths=(4, 8, 8)), 9),
    "airbench-without-whitening": (Airbench(widths=(4, 8), whitening=False, dirac=False), 5),
    "torchvision": (Torchvision(architecture="resnet18"), 32),
    "torchvision-resized": (Torchvision(architecture="resnet18", input_size=32), 1),
}  # fmt: skip
SHAPES = {"cifar": CIFAR, "digits": DIGITS, "fashion": FASHION, "tiny-imagenet": TINY_IMAGENET, "wide": WIDE}
FITTING = [
    pytest.param(model, shape, id=f"{name}-{shape_name}")
    for name, (model, least) in NETWORKS.items()
    for shape_name, shape in SHAPES.items()
    if min(shape.side) >= least
]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def small(least: int) -> Shape:
    """Colour images of a side that a network takes, and that leaves statistics to batch normalization."""
    return Shape(3, max(least, 8), max(least, 8), 10)


def images_of(shape: Shape, count: int = 4) -> torch.Tensor:
    return torch.randn(count, shape.channels, shape.height, shape.width)


def prepared(model: config.Model, shape: Shape) -> nn.Module:
    """A network ready to train."""
    network = build_model(model, shape)
    if isinstance(network, Prepared):
        network.prepare_on(images_of(shape, 8))
    return network


def test_every_section_has_its_builder():
    assert set(sections(Configuration, "model")) == set(models)
    assert {model.name for model, _ in NETWORKS.values()} == set(models)


@pytest.mark.parametrize(("model", "shape"), FITTING)
def test_logits_of_every_class_and_no_value_needed_on_the_host(model, shape):
    """On the meta device there are no values: whatever asked for one, in training too, would fail."""
    with torch.device("meta"):
        network = models[model.name](model, shape).train()
        logits = network(images_of(shape))
    assert logits.shape == (4, shape.classes)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters() if parameter.requires_grad)


@pytest.mark.parametrize(("model", "least"), NETWORKS.values(), ids=NETWORKS)
def test_gradients_reach_every_trained_parameter(model, least):
    shape = small(least)
    network = prepared(model, shape).train()
    F.cross_entropy(network(images_of(shape, 6)), torch.arange(6)).backward()
    untouched = [
        name
        for name, parameter in network.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.any())
    ]
    assert untouched == []


@pytest.mark.parametrize(("model", "least"), NETWORKS.values(), ids=NETWORKS)
def test_a_net_too_deep_for_the_image_is_refused_with_the_sizes(model, least):
    fits = cost(model, Shape(3, least, least, 10))
    assert fits.parameters > 0
    patchy = getattr(model, "stem", "conv") == "patchify"
    less = least - (2 if patchy else 1)
    if less > 0:
        with pytest.raises(ValueError, match=rf"at least {least}, but got images of {less}x{less + 2}$"):
            build_model(model, Shape(3, less, less + 2, 10))


@pytest.mark.parametrize(("model", "least"), NETWORKS.values(), ids=NETWORKS)
def test_bf16_autocast_gives_nearly_the_same_logits(model, least):
    shape = small(least)
    network = prepared(model, shape).eval()
    images = images_of(shape, 16)
    with torch.no_grad():
        full = network(images)
        with torch.autocast("cpu", torch.bfloat16):
            half = network(images)
    assert half.dtype == torch.bfloat16
    spread = full.std().item()
    torch.testing.assert_close(half.float(), full, atol=0.25 * spread + 1e-3, rtol=0.05)


@pytest.mark.parametrize(("model", "least"), NETWORKS.values(), ids=NETWORKS)
def test_weights_are_channels_last_and_so_are_maps(model, least):
    shape = small(least)
    network = build_model(model, shape).eval()
    layouts = []
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            assert layer.weight.is_contiguous(memory_format=torch.channels_last)
            layer.register_forward_hook(lambda _layer, inputs, _out: layouts.append(inputs[0].stride(1) == 1))
    network(images_of(shape).contiguous(memory_format=torch.channels_last))
    assert layouts
    assert all(layouts)


@pytest.mark.parametrize(("model", "least"), NETWORKS.values(), ids=NETWORKS)
def test_the_last_linear_layer_is_the_classifier(model, least):
    network = build_model(model, small(least))
    assert [layer for layer in network.modules() if isinstance(layer, nn.Linear)][-1].out_features == 10


@pytest.mark.parametrize(("model", "least"), NETWORKS.values(), ids=NETWORKS)
def test_weights_come_from_the_default_generator_and_the_state_holds_all(model, least):
    shape = small(least)
    torch.manual_seed(3)
    network = prepared(model, shape)
    torch.manual_seed(3)
    twin = prepared(model, shape)
    other = build_model(model, shape)
    images = images_of(shape, 8)
    assert torch.equal(network.eval()(images), twin.eval()(images))
    assert not torch.equal(network(images), other.eval()(images))
    network.train()(images)  # moves running statistics
    other.load_state_dict(network.state_dict())
    assert torch.equal(network.eval()(images), other(images))


def test_parameters_and_multiply_adds_follow_from_the_shapes():
    counted = cost(VGG(widths=(4, 6), convolutions=1, head=5, normalization="none", order="neither"), CIFAR)
    parameters = (3 * 9 * 4 + 4) + (4 * 9 * 6 + 6) + (6 * 8 * 8 * 5 + 5) + (5 * 10 + 10)
    multiply_adds = 32 * 32 * 3 * 9 * 4 + 16 * 16 * 4 * 9 * 6 + 6 * 8 * 8 * 5 + 5 * 10
    assert (counted.parameters, counted.multiply_adds) == (parameters, multiply_adds)


@pytest.mark.parametrize(("model", "least"), NETWORKS.values(), ids=NETWORKS)
def test_costs_are_those_of_the_network_that_is_built_as_torch_counts_them(model, least):
    shape = small(least)
    network = build_model(model, shape)
    assert cost(model, shape).parameters == sum(parameter.numel() for parameter in network.parameters())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.zeros(1, shape.channels, shape.height, shape.width))
    assert cost(model, shape).multiply_adds == counter.get_total_flops() // 2


PLAIN = {"tutorial": Tutorial, "convnet": ConvNet, "alexnet": AlexNet, "vgg": VGG}
RESIDUAL = {"resnet": ResNet, "wide-resnet": WideResNet, "resnet9": ResNet9}
SMALL = {
    "convnet": {"widths": (4, 8), "head": 8}, "alexnet": {"head": 8}, "vgg": {"widths": (4, 8), "head": 8},
    "resnet": {"depth": 8, "width": 4}, "wide-resnet": {"depth": 10, "widening": 1}, "resnet9": {"width": 4},
}  # fmt: skip


@pytest.mark.parametrize("name", [*PLAIN, *RESIDUAL])
@pytest.mark.parametrize("normalization", ["batch", "ghost", "layer", "instance", "group", "none"])
def test_every_normalization_is_built_into_every_network(name, normalization):
    settings = SMALL.get(name, {}) | {"groups": 2, "normalization": normalization}
    if normalization == "ghost":
        settings |= {"normalization": "batch", "ghost_batches": 2}
    model = (PLAIN | RESIDUAL)[name](**settings)
    shape = Shape(3, 16, 16, 10)
    network = build_model(model, shape).train()
    expected = {
        "batch": "BatchNorm2d", "ghost": "GhostBatchNorm2d", "layer": "GroupNorm",
        "instance": "InstanceNorm2d", "group": "GroupNorm", "none": None,
    }[normalization]  # fmt: skip
    kinds = {type(layer).__name__ for layer in network.modules()}
    found = {kind for kind in kinds if kind.endswith(("Norm2d", "GroupNorm"))}
    assert found == ({expected} if expected else set())
    network(images_of(shape)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("name", [*PLAIN, *RESIDUAL])
def test_batch_norm_momentum_reaches_every_batch_normalization(name):
    model = (PLAIN | RESIDUAL)[name](
        **SMALL.get(name, {}), normalization="batch", batch_norm_momentum=0.03, ghost_batches=2
    )
    norms = [m for m in build_model(model, CIFAR).modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert {(norm.momentum, norm.parts) for norm in norms} == {(0.03, 2)}
