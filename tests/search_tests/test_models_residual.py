"""Residual networks: published parameter counts, layouts, blocks by formula, and how they start."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from search.training.layers import Residual, SqueezeExcite, StochasticDepth
from search.training.models import Shape, build_model, cost
from search.training.models.residual import PreActivationBlock
from spaces.config import ResNet, ResNet9, WideResNet

CIFAR = Shape(3, 32, 32, 10)


def convolutions(network: nn.Module) -> list[nn.Conv2d]:
    return [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]


def branches(network: nn.Module) -> list[nn.Module]:
    return [block for block in network if isinstance(block, (Residual, PreActivationBlock))]


def normal(maps: torch.Tensor) -> torch.Tensor:
    """Batch normalization as it starts: no scale, no shift."""
    return F.batch_norm(maps, None, None, training=True)


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        # He et al. 2016, table 6: 0.27M, 0.46M, 0.85M, 1.7M with option A
        (ResNet(depth=20, shortcut="padding"), 269_722),
        (ResNet(depth=32, shortcut="padding"), 464_154),
        (ResNet(depth=56, shortcut="padding"), 853_018),
        (ResNet(depth=110, shortcut="padding"), 1_727_962),
        # and with projections: two more 1x1 convolutions with their normalizations
        (ResNet(depth=20), 269_722 + 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64),
        (ResNet(depth=18), 11_173_962),
        # Zagoruyko and Komodakis 2016, tables 3 and 4: 2.7M, 8.9M, 36.5M
        (WideResNet(depth=16, widening=4), 2_748_890),
        (WideResNet(depth=40, widening=4), 8_949_210),
        (WideResNet(depth=28, widening=10), 36_479_194),
        (ResNet9(), 6_573_120),
    ],
    ids=lambda value: f"{value.name}-{getattr(value, 'depth', '')}" if hasattr(value, "name") else "",
)
def test_parameter_counts_are_the_published_ones(model, parameters):
    assert cost(model, CIFAR).parameters == parameters


def test_resnet_20_counts_by_formula():
    """A 3x3 convolution has 9ab weights, a normalization 2b; stages of 3 blocks, 6 convolutions."""
    total = 9 * 3 * 16 + 2 * 16
    for first, width in ((16, 16), (16, 32), (32, 64)):
        total += 9 * first * width + 5 * 9 * width**2 + 6 * 2 * width
    assert cost(ResNet(shortcut="padding"), CIFAR).parameters == total + 64 * 10 + 10


@pytest.mark.parametrize(
    ("model", "layers"), [(ResNet(depth=20), 20), (ResNet(depth=32), 32), (ResNet(depth=18), 18)]
)
def test_depth_counts_the_layers_with_weights_outside_of_shortcuts(model, layers):
    with torch.device("meta"):
        network = build_model(model, CIFAR)
    main = [c for c in convolutions(network) if c.kernel_size == (3, 3)]
    assert len(main) + 1 == layers


def test_wide_resnet_depth_counts_its_layers_and_three_projections():
    with torch.device("meta"):
        network = build_model(WideResNet(depth=22, widening=1), CIFAR)
    sizes = [c.kernel_size[0] for c in convolutions(network)]
    assert (sizes.count(3), sizes.count(1)) == (22 - 3, 2)
    with torch.device("meta"):
        widened = build_model(WideResNet(depth=22, widening=2), CIFAR)
    assert [c.kernel_size[0] for c in convolutions(widened)].count(1) == 3


@pytest.mark.parametrize(
    ("model", "sides"),
    [
        (ResNet(depth=8, width=4), [32, 16, 8]),
        (ResNet(depth=18, width=4), [32, 32, 16, 16, 8, 8, 4, 4]),
        (WideResNet(depth=10, widening=1), [32, 16, 8]),
        (ResNet(depth=8, width=4, stem="patchify", patch_size=4), [8, 4, 2]),
    ],
)
def test_stages_halve_their_maps(model, sides):
    network, seen = build_model(model, CIFAR), []
    for block in branches(network):
        block.register_forward_hook(lambda _block, _inputs, maps: seen.append(maps.shape[2]))
    network(torch.randn(2, 3, 32, 32))
    assert seen == sides


def test_a_basic_block_follows_its_formula():
    """relu(normal(conv(relu(normal(conv(x))))) + normal(project(x)))"""
    torch.manual_seed(0)
    network = build_model(ResNet(depth=8, width=4), CIFAR).double().train()
    block = branches(network)[1]
    first, _, _, second, _ = block.branch
    projection = convolutions(block.shortcut)[0]
    maps = torch.randn(4, 4, 8, 8, dtype=torch.float64)
    inside = normal(F.conv2d(maps, first.weight, stride=2, padding=1)).relu()
    inside = normal(F.conv2d(inside, second.weight, padding=1))
    expected = inside + normal(F.conv2d(maps, projection.weight, stride=2))
    torch.testing.assert_close(block(maps), expected)
    after = network[list(network).index(block) + 1]
    assert isinstance(after, nn.ReLU)


@pytest.mark.parametrize(("index", "stride"), [(0, 1), (1, 2)])
def test_a_pre_activation_block_follows_its_formula(index, stride):
    """x + conv(relu(normal(conv(relu(normal(x)))))); a projection of the activated x where shapes change."""
    torch.manual_seed(0)
    network = build_model(WideResNet(depth=10, widening=1), CIFAR).double().train()
    block = branches(network)[index]
    first, second = convolutions(block.branch)
    maps = torch.randn(4, 16, 8, 8, dtype=torch.float64)
    entered = normal(maps).relu()
    inside = normal(F.conv2d(entered, first.weight, stride=stride, padding=1)).relu()
    shortcut = maps
    if block.shortcut is not None:
        shortcut = F.conv2d(entered, convolutions(block.shortcut)[0].weight, stride=stride)
    torch.testing.assert_close(block(maps), shortcut + F.conv2d(inside, second.weight, padding=1))
    assert (block.shortcut is None) == (index == 0)


def test_a_wide_resnet_without_normalization_leaves_its_shortcut_alone():
    """The activation must not be in place, or it would change what goes around the branch."""
    network = build_model(WideResNet(depth=10, widening=1, normalization="none"), CIFAR)
    maps = torch.randn(2, 16, 8, 8)
    before = maps.clone()
    branches(network)[0](maps)
    assert torch.equal(maps, before)


def test_resnet9_has_residuals_after_the_second_and_fourth_convolution():
    network = build_model(ResNet9(width=4), CIFAR)
    conv, pooled = ["Conv2d", "BatchNorm2d", "ReLU"], ["Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d"]
    assert [type(layer).__name__ for layer in network] == [
        *conv, *pooled, "Residual", *pooled, *pooled, "Residual", "MaxPool2d", "Flatten", "Linear", "Scale"
    ]  # fmt: skip
    assert [c.out_channels for c in convolutions(network)] == [4, 8, 8, 8, 16, 32, 32, 32]
    assert network[-2].bias is None
    maps = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(network.eval()(maps), 0.125 * network[:-1](maps))


@pytest.mark.parametrize("normalization", ["batch", "layer", "group", "instance"])
@pytest.mark.parametrize("squeeze_excite", [0, 2])
def test_a_zeroed_last_norm_makes_every_block_its_shortcut_at_the_start(normalization, squeeze_excite):
    model = ResNet(
        depth=8, width=4, groups=2, normalization=normalization, zero_init_last_norm=True,
        squeeze_excite=squeeze_excite,
    )  # fmt: skip
    maps = torch.randn(4, 4, 8, 8)
    for block in branches(build_model(model, CIFAR).train()):
        torch.testing.assert_close(block(maps), block.shortcut(maps))
        maps = block.shortcut(maps)
    ordinary = branches(build_model(model.model_copy(update={"zero_init_last_norm": False}), CIFAR))[0]
    assert not torch.allclose(ordinary(torch.ones(4, 4, 8, 8)), torch.ones(4, 4, 8, 8))


@pytest.mark.parametrize(
    "model",
    [
        ResNet(depth=20, width=4, stochastic_depth=0.5),
        WideResNet(depth=16, widening=1, stochastic_depth=0.5),
        ResNet9(width=4, stochastic_depth=0.5),
    ],
    ids=lambda model: model.name,
)
def test_stochastic_depth_grows_linearly_and_ends_each_branch(model):
    blocks = branches(build_model(model, CIFAR))
    rates = [list(block.branch)[-1].rate for block in blocks]
    assert rates == pytest.approx([0.5 * (i + 1) / len(blocks) for i in range(len(blocks))])
    plain = build_model(model.model_copy(update={"stochastic_depth": 0.0}), CIFAR)
    assert not any(isinstance(layer, StochasticDepth) for layer in plain.modules())


@pytest.mark.parametrize(
    "model",
    [ResNet(depth=8, width=4, squeeze_excite=4), WideResNet(depth=10, widening=1, squeeze_excite=4),
     ResNet9(width=4, squeeze_excite=4)],
    ids=lambda model: model.name,
)  # fmt: skip
def test_squeeze_and_excitation_is_in_every_branch_with_its_ratio(model):
    blocks = branches(build_model(model, CIFAR))
    widths = model.residual_filters
    found = [layer for block in blocks for layer in block.branch if isinstance(layer, SqueezeExcite)]
    assert [(se.squeeze.in_features, se.squeeze.out_features) for se in found] == [
        (width, width // 4) for width in widths
    ]


def test_dropout_is_between_the_convolutions_by_stage():
    model = ResNet(depth=14, width=4, dropout=(0.1, 0.0, 0.3), dropout_kind="channel", head_dropout=0.4)
    network = build_model(model, CIFAR)
    names = [[type(layer).__name__ for layer in block.branch] for block in branches(network)]
    dropped = ["Conv2d", "BatchNorm2d", "ReLU", "Dropout2d", "Conv2d", "BatchNorm2d"]
    without = [name for name in dropped if name != "Dropout2d"]
    assert names == [dropped] * 2 + [without] * 2 + [dropped] * 2
    assert [layer.p for layer in network.modules() if isinstance(layer, nn.Dropout2d)] == [0.1] * 2 + [
        0.3
    ] * 2
    assert [type(layer).__name__ for layer in network][-3:] == ["GlobalAverage", "Dropout", "Linear"]


def test_a_patchify_stem_is_a_convolution_over_patches():
    network = build_model(ResNet(depth=8, width=4, stem="patchify", patch_size=4), CIFAR)
    stem, images = network[0].double(), torch.randn(2, 3, 32, 32, dtype=torch.float64)
    patches = images.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).flatten(3)
    expected = patches @ stem.weight.flatten(1).T
    torch.testing.assert_close(stem(images), expected.permute(0, 3, 1, 2))


def test_strided_projections_pick_positions_first():
    """oneDNN issue 6035: the backward pass of a strided 1x1 convolution may write beyond its memory."""
    for model in (ResNet(depth=8, width=4), WideResNet(depth=10, widening=1)):
        strides = {c.stride for c in convolutions(build_model(model, CIFAR)) if c.kernel_size == (1, 1)}
        assert strides == {(1, 1)}


@pytest.mark.parametrize(
    ("section", "settings", "message"),
    [
        (ResNet, {"depth": 21}, "depth must be 18 or 6n+2 (20, 32, 44, 56, 110), but got 21"),
        (WideResNet, {"depth": 20}, "depth must be 6n+4 (16, 22, 28, 40), but got 20"),
        (ResNet, {"squeeze_excite": 32}, "must not exceed the narrowest block's 16 filters, but got 32"),
        (ResNet, {"zero_init_last_norm": True, "normalization": "none"}, "zero_init_last_norm needs a norm"),
        (ResNet, {"normalization": "group", "groups": 5}, "groups must divide every width"),
        (WideResNet, {"normalization": "group", "groups": 32}, "groups must divide every width"),
        (ResNet9, {"dropout": (0.1, 0.1, 0.1)}, "a rate for each of the 2 blocks"),
    ],
)
def test_settings_that_make_no_sense_are_refused(section, settings, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the message is looked at below)
        section(**settings)
    assert message in str(error.value)
