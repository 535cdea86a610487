"""Networks of blocks: their layers in order, parameter counts, and VGG's steps towards a ResNet."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from search.training.models import Shape, build_model, cost
from search.training.models.parts import Window, block_rates, least_side
from spaces.config import VGG, AlexNet, ConvNet, LeNet, Tutorial

CIFAR = Shape(3, 32, 32, 10)
DIGITS = Shape(1, 8, 8, 10)


def kinds(model: nn.Module) -> list[str]:
    return [type(layer).__name__ for layer in model]


def convolutions(model: nn.Module) -> list[tuple[int, int, int, int]]:
    """Filters, kernel, stride and padding of each convolution."""
    found = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    return [(c.out_channels, c.kernel_size[0], c.stride[0], c.padding[0]) for c in found]


def linear(model: nn.Module) -> list[int]:
    return [layer.out_features for layer in model.modules() if isinstance(layer, nn.Linear)]


def rates(model: nn.Module) -> list[float]:
    return [layer.p for layer in model.modules() if isinstance(layer, (nn.Dropout, nn.Dropout2d))]


def parameters(model, shape: Shape = CIFAR) -> int:
    return cost(model, shape).parameters


def conv(inputs: int, outputs: int, kernel: int) -> int:
    """Weights and biases of a convolution."""
    return outputs * (inputs * kernel**2 + 1)


def full(inputs: int, outputs: int) -> int:
    return outputs * (inputs + 1)


def test_the_tutorial_net_is_pytorchs():
    network = build_model(Tutorial(), CIFAR)
    stage = ["Conv2d", "ReLU", "MaxPool2d"]
    assert kinds(network) == [*stage, *stage, "Flatten", "Linear", "ReLU", "Linear", "ReLU", "Linear"]
    assert convolutions(network) == [(6, 5, 1, 0), (16, 5, 1, 0)]
    assert linear(network) == [120, 84, 10]
    assert parameters(Tutorial()) == 62_006


def test_the_lenet_has_dropout_in_blocks_and_head():
    network = build_model(LeNet(), CIFAR)
    stage, hidden = ["Conv2d", "ReLU", "MaxPool2d", "Dropout"], ["Linear", "ReLU", "Dropout"]
    assert kinds(network) == [*stage, *stage, "Flatten", *hidden, *hidden, "Linear"]
    assert convolutions(network) == [(32, 5, 1, 2), (64, 5, 1, 2)]
    assert rates(network) == [0.25, 0.25, 0.5, 0.5]
    dense = full(64 * 8 * 8, 512) + full(512, 128) + full(128, 10)
    assert parameters(LeNet()) == conv(3, 32, 5) + conv(32, 64, 5) + dense


def test_the_convnet_of_experiment_b():
    network = build_model(ConvNet(dropout=(0.1, 0.2), head_dropout=0.5), CIFAR)
    stage = ["Conv2d", "ReLU", "Conv2d", "ReLU", "MaxPool2d", "Dropout"]
    assert kinds(network) == [*stage, *stage, "Flatten", "Linear", "ReLU", "Dropout", "Linear"]
    assert convolutions(network) == [(32, 3, 1, 0), (32, 3, 1, 0), (64, 3, 1, 0), (64, 3, 1, 0)]
    assert linear(network) == [512, 10]
    assert rates(network) == [0.1, 0.2, 0.5]
    blocks = conv(3, 32, 3) + conv(32, 32, 3) + conv(32, 64, 3) + conv(64, 64, 3)
    assert parameters(ConvNet()) == blocks + full(64 * 5 * 5, 512) + full(512, 10)


@pytest.mark.parametrize(("activation", "kind"), [("leaky-relu", "LeakyReLU"), ("tanh", "Tanh")])
def test_the_net_of_experiment_e_is_a_vgg(activation, kind):
    model = VGG(widths=(32, 64), head=512, dropout=0.25, head_dropout=0.5, activation=activation)
    network = build_model(model, CIFAR)
    convolution = ["Conv2d", "BatchNorm2d", kind]
    stage = [*convolution, *convolution, "MaxPool2d", "Dropout"]
    head = ["Flatten", "Linear", "BatchNorm1d", kind, "Dropout", "Linear"]
    assert kinds(network) == [*stage, *stage, *head]
    assert [c[0] for c in convolutions(network)] == [32, 32, 64, 64]
    assert linear(network) == [512, 10]
    assert rates(network) == [0.25, 0.25, 0.5]


def test_alexnet_has_five_convolutions_and_overlapping_pooling():
    network = build_model(AlexNet(head=4096, head_dropout=0.5), CIFAR)
    pooled = ["Conv2d", "ReLU", "MaxPool2d"]
    hidden = ["Linear", "ReLU", "Dropout"]
    assert kinds(network) == [
        *pooled, *pooled, "Conv2d", "ReLU", "Conv2d", "ReLU", *pooled, "Flatten", *hidden, *hidden, "Linear"
    ]  # fmt: skip
    assert [c[:2] for c in convolutions(network)] == [(64, 5), (192, 5), (384, 3), (256, 3), (256, 3)]
    pools = [layer for layer in network if isinstance(layer, nn.MaxPool2d)]
    assert {(pool.kernel_size, pool.stride) for pool in pools} == {(3, 2)}
    blocks = conv(3, 64, 5) + conv(64, 192, 5) + conv(192, 384, 3) + conv(384, 256, 3) + conv(256, 256, 3)
    assert parameters(AlexNet()) == blocks + full(256 * 16, 1024) + full(1024, 1024) + full(1024, 10)


def test_alexnet_has_dropout_in_three_blocks():
    network = build_model(AlexNet(dropout=0.3, dropout_profile="rising", normalization="batch"), CIFAR)
    assert rates(network) == pytest.approx([0.1, 0.2, 0.3])
    assert kinds(network)[-1] == "Linear"
    assert kinds(network).count("BatchNorm2d") == 5
    assert kinds(network).count("BatchNorm1d") == 2


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
    logits = network(torch.randn(4, shape.channels, shape.height, shape.width))
    assert logits.shape == (4, shape.classes)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_convolutions_have_a_bias_where_nothing_subtracts_it():
    def biased(**settings: object) -> bool:
        return build_model(VGG(**settings), CIFAR)[0].bias is not None

    assert not biased(normalization="batch")
    assert not biased(normalization="instance")
    assert biased(normalization="layer")
    assert biased(normalization="batch", order="dropout")


def test_strided_convolutions_replace_pooling_at_the_same_size():
    strided = VGG(widths=(4, 8), pooling="stride")
    network = build_model(strided, CIFAR)
    assert "MaxPool2d" not in kinds(network)
    assert convolutions(network) == [(4, 3, 1, 1), (4, 3, 2, 1), (8, 3, 1, 1), (8, 3, 2, 1)]
    assert parameters(strided) == parameters(VGG(widths=(4, 8)))


def test_global_pooling_replaces_the_fully_connected_layer():
    network = build_model(VGG(widths=(4, 8), head=16, global_pooling=True, head_dropout=0.3), CIFAR)
    assert kinds(network)[-3:] == ["GlobalAverage", "Dropout", "Linear"]
    assert network[-1].in_features == 8
    without = build_model(VGG(widths=(4, 8), global_pooling=True, head_dropout=0.3, order="norm"), CIFAR)
    assert kinds(without)[-2:] == ["GlobalAverage", "Linear"]


@pytest.mark.parametrize("pooling", ["max", "stride"])
def test_a_skip_adds_the_projected_input_before_the_last_activation(pooling):
    torch.manual_seed(0)
    model = VGG(widths=(4,), pooling=pooling, skip="identity-projection", activation="tanh")
    network = build_model(model, CIFAR).double().train()
    block, images = network[0], torch.randn(4, 3, 32, 32, dtype=torch.float64)
    first, norm, _, second, last_norm = block.branch
    *_, projection, projection_norm = block.shortcut
    stride = 2 if pooling == "stride" else 1

    def normal(maps: torch.Tensor) -> torch.Tensor:
        return F.batch_norm(maps, None, None, training=True)

    inside = torch.tanh(normal(F.conv2d(images, first.weight, padding=1)))
    inside = normal(F.conv2d(inside, second.weight, stride=stride, padding=1))
    outside = normal(F.conv2d(images, projection.weight, stride=stride))
    expected = torch.tanh(inside + outside)
    if pooling == "max":
        expected = F.max_pool2d(expected, 2)
    torch.testing.assert_close(network[: 2 if pooling == "stride" else 3](images), expected)
    assert [type(m).__name__ for m in (norm, last_norm, projection_norm)] == ["BatchNorm2d"] * 3


def test_a_skip_is_the_identity_where_shapes_agree():
    network = build_model(VGG(widths=(4, 4), skip="identity-projection", order="dropout-norm"), CIFAR)
    shortcuts = [type(layer.shortcut).__name__ for layer in network if hasattr(layer, "shortcut")]
    assert shortcuts == ["Sequential", "Identity"]


def test_a_patchify_stem_comes_before_the_blocks():
    network = build_model(VGG(widths=(4, 8), stem="patchify", patch_size=4, normalization="layer"), CIFAR)
    assert convolutions(network)[0] == (4, 4, 4, 0)
    assert kinds(network)[:3] == ["Conv2d", "GroupNorm", "ReLU"]
    assert network[:3](torch.randn(2, 3, 32, 32)).shape == (2, 4, 8, 8)
    assert network[0].bias is not None


def test_patches_must_divide_the_image():
    with pytest.raises(ValueError, match=r"must divide the image's sides, but got patches of 3 and .* 32x32"):
        build_model(VGG(widths=(8,), stem="patchify", patch_size=3), CIFAR)


def test_vgg_too_deep_is_refused_with_its_blocks():
    with pytest.raises(ValueError, match=r"vgg with 4 blocks.* at least 16, but got images of 8x8"):
        build_model(VGG(widths=(8, 8, 8, 8)), DIGITS)


def test_dropout_profiles():
    assert block_rates(0.3, "constant", 3) == [0.3, 0.3, 0.3]
    assert block_rates(0.3, "rising", 3) == pytest.approx([0.1, 0.2, 0.3])
    assert block_rates((0.1, 0.5, 0.2), "constant", 3) == [0.1, 0.5, 0.2]


def test_the_least_side_is_the_first_that_leaves_a_position():
    windows = [Window(5), Window(2, 2), Window(3, 2, 1), Window(3)]
    least = least_side(windows)

    def left(side: int) -> int:
        for window in windows:
            side = min(window.side((side, side)))
        return side

    assert left(least) == 1
    assert left(least - 1) < 1


def test_windows_follow_torchs_sizes():
    maps = torch.zeros(1, 1, 13, 9)
    for window in (Window(3), Window(5, 2, 2), Window(2, 2), Window(3, 2, 1), Window(1, 2)):
        assert window.convolution(1, 1, bias=False)(maps).shape[2:] == window.side((13, 9))
        if window.padding <= window.kernel // 2:
            assert window.max_pooling()(maps).shape[2:] == window.side((13, 9))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"widths": (12,), "groups": 8, "normalization": "group"}, "groups must divide every width"),
        ({"dropout": (0.1, 0.2)}, "a rate for each of the 3 blocks, but got (0.1, 0.2)"),
        ({"dropout": (0.1, 0.2, 0.3), "dropout_profile": "rising"}, "needs dropout_profile constant"),
        ({"dropout": (0.1, 1.0, 0.3)}, "must be a rate in [0, 1), or a list of them"),
        ({"dropout": ()}, "must be a rate in [0, 1), or a list of them"),
        ({"dropout": "0.1"}, "must be a rate in [0, 1), or a list of them"),
        ({"normalization": "layer", "ghost_batches": 2}, "ghost_batches cut up batch normalization"),
    ],
)
def test_combinations_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the message is looked at below)
        VGG(**settings)
    assert message in str(error.value)
