"""torchvision's networks: new heads, resizing, freezing, and weights from files that the tests make."""

import urllib.error
import urllib.request

import pytest
import safetensors.torch
import torch
import torchvision
from torch import nn
from torchvision.transforms.v2 import functional as reference

from search.training.models import Shape, build_model, cost
from search.training.models.pretrained import divisions
from search.training.models.table import models
from spaces.config import Configuration, Torchvision
from spaces.config.models.pretrained import BLOCKS

CIFAR = Shape(3, 32, 32, 10)
HEADS = {
    "resnet18": "fc",
    "vgg16": "classifier.6",
    "mobilenet_v2": "classifier.1",
    "efficientnet_b0": "classifier.1",
}


@pytest.fixture(scope="module")
def donor() -> nn.Module:
    """A ResNet-18 for 1,000 classes as torchvision makes it, with statistics as if it had been trained."""
    torch.manual_seed(5)
    network = torchvision.models.resnet18(weights=None)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean)
    return network


@pytest.fixture(scope="module")
def weights(donor, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(donor.state_dict(), path)
    return str(path)


def on_meta(model: Torchvision, shape: Shape = CIFAR) -> nn.Module:
    with torch.device("meta"):
        return models["torchvision"](model, shape)


@pytest.mark.parametrize("architecture", HEADS)
def test_the_head_is_replaced_and_the_rest_is_torchvisions(architecture):
    network = on_meta(Torchvision(architecture=architecture), Shape(3, 32, 32, 7)).network
    with torch.device("meta"):
        original = torchvision.models.get_model(architecture, weights=None)
    head = HEADS[architecture]
    assert network.get_submodule(head).out_features == 7
    seen, expected = network.state_dict(), original.state_dict()
    assert [name for name in seen if seen[name].shape != expected[name].shape] == [
        f"{head}.weight", f"{head}.bias"
    ]  # fmt: skip
    assert seen.keys() == expected.keys()


@pytest.mark.parametrize(
    ("architecture", "parameters"),
    # torchvision's documentation, for 1,000 classes
    [("resnet18", 11_689_512), ("vgg16", 138_357_544), ("mobilenet_v2", 3_504_872),
     ("efficientnet_b0", 5_288_548)],
)  # fmt: skip
def test_parameter_counts_are_torchvisions(architecture, parameters):
    assert cost(Torchvision(architecture=architecture), Shape(3, 32, 32, 1000)).parameters == parameters


@pytest.mark.parametrize("architecture", HEADS)
def test_costs_grow_with_the_input_size_and_need_no_weights(architecture):
    small = Torchvision(architecture=architecture, weights="nowhere.pth")
    large = Torchvision(architecture=architecture, input_size=64, pretrained="imagenet")
    assert cost(large, CIFAR).multiply_adds > 3 * cost(small, CIFAR).multiply_adds


@pytest.mark.parametrize("architecture", HEADS)
def test_blocks_and_head_divide_all_parameters(architecture):
    with torch.device("meta"):
        network = torchvision.models.get_model(architecture, weights=None)
    blocks = divisions[architecture](network)
    assert len(blocks) == BLOCKS[architecture]
    inside = [parameter for block in blocks for parameter in block.parameters()]
    head = list(network.get_submodule(HEADS[architecture]).parameters())
    assert len({id(parameter) for parameter in inside}) == len(inside)
    assert {id(p) for p in inside} | {id(p) for p in head} == {id(p) for p in network.parameters()}


@pytest.mark.parametrize("architecture", HEADS)
@pytest.mark.parametrize("trainable", ["head", 1, 2])
def test_all_but_the_last_blocks_are_frozen_in_evaluation(architecture, trainable):
    model = Torchvision(architecture=architecture, trainable=trainable, weights="not read here")
    network = on_meta(model).train()
    blocks = divisions[architecture](network.network)
    kept = 0 if trainable == "head" else trainable
    for index, block in enumerate(blocks):
        free = index >= len(blocks) - kept
        assert {p.requires_grad for p in block.parameters()} <= {free}
        layers = [m for m in block.modules() if isinstance(m, (nn.BatchNorm2d, nn.Dropout))]
        assert {layer.training for layer in layers} <= {free}
    assert all(p.requires_grad for p in network.network.get_submodule(HEADS[architecture]).parameters())
    assert {m.training for m in network.eval().modules()} == {False}


def test_training_moves_nothing_that_is_frozen(weights):
    model = Torchvision(weights=weights, trainable=2)
    network = build_model(model, CIFAR).train()
    frozen = divisions["resnet18"](network.network)[:-2]
    before = [value.clone() for block in frozen for value in block.state_dict().values()]
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    moving = {name: value.clone() for name, value in network.network.layer4.state_dict().items()}
    network(torch.randn(4, 3, 32, 32)).logsumexp(1).sum().backward()
    optimizer.step()
    after = [value for block in frozen for value in block.state_dict().values()]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert all(not torch.equal(moving[n], v) for n, v in network.network.layer4.state_dict().items())


@pytest.mark.parametrize(("side", "size"), [(32, 48), (48, 32)])
def test_images_are_resized_as_torchvision_does(side, size):
    network = on_meta(Torchvision(input_size=size), Shape(3, side, side, 10))
    seen = []
    network.network = nn.Identity()
    network.network.register_forward_hook(lambda _layer, inputs, _out: seen.append(inputs[0]))
    images = torch.rand(2, 3, side, side)
    network(images)
    expected = reference.resize(images, [size, size], antialias=True)
    torch.testing.assert_close(seen[0], expected)


def test_images_of_the_inputs_size_are_left_alone():
    network = on_meta(Torchvision(input_size=32))
    network.network = nn.Identity()
    images = torch.rand(2, 3, 32, 32)
    assert network(images) is images


def test_grey_images_are_repeated_in_three_channels():
    network = on_meta(Torchvision(input_size=32), Shape(1, 8, 8, 10))
    network.network = nn.Identity()
    images = torch.rand(2, 1, 8, 8)
    colours = network(images).unbind(1)
    assert len(colours) == 3
    assert torch.equal(colours[0], colours[1])
    assert torch.equal(colours[0], colours[2])


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_come_from_a_file_without_its_head(donor, weights, tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        safetensors.torch.save_file(donor.state_dict(), path)
    else:
        path = weights
    network = build_model(Torchvision(weights=str(path)), CIFAR).network
    for name, value in donor.state_dict().items():
        if not name.startswith("fc."):
            assert torch.equal(network.state_dict()[name], value), name
    assert network.fc.weight.shape == (10, 512)


def spoilt(tmp_path, change) -> str:
    """A weights file with one thing wrong."""
    state = torchvision.models.resnet18(weights=None).state_dict()
    change(state)
    torch.save(state, tmp_path / "spoilt.pth")
    return str(tmp_path / "spoilt.pth")


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda state: state.pop("layer1.0.conv1.weight"), "must hold layer1.0.conv1.weight, but does not"),
        (lambda state: state.update(extra=torch.zeros(1)), "holds extra, which the network does not have"),
        (lambda state: state.update({"bn1.bias": torch.zeros(3)}),
         r"bn1.bias must have the shape \(64,\), but got \(3,\)"),
        (lambda state: state.update(epoch=3), "must hold a state dict: tensors by name"),
    ],
)  # fmt: skip
def test_another_networks_weights_are_refused(tmp_path, change, rule):
    path = spoilt(tmp_path, change)
    with pytest.raises(ValueError, match=rf"^model\.weights: {path}: {rule}$"):
        build_model(Torchvision(weights=path), CIFAR)


@pytest.mark.parametrize(
    "content",
    [b"", b"weights?", b"\x80\x02}q\x00.", b"PK\x03\x04 and no more"],
    ids=["empty", "text", "pickle", "zip"],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_that_hold_no_weights_are_refused_in_one_line(tmp_path, content, suffix):
    path = tmp_path / f"file{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^model\.weights: {path}: .+") as error:
        build_model(Torchvision(weights=str(path)), CIFAR)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["nowhere.pth", "nowhere.safetensors", ""])
def test_a_missing_file_or_a_folder_is_refused(tmp_path, name):
    path = str(tmp_path / name)
    with pytest.raises(ValueError, match=rf"^model\.weights: {path}: cannot be read as weights \(.+\)$"):
        build_model(Torchvision(weights=path), CIFAR)


def test_a_pickle_is_not_run(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (print, ("run!",))

    torch.save({"fc.weight": Harmful()}, tmp_path / "harmful.pth")
    with pytest.raises(ValueError, match="cannot be read as weights"):
        build_model(Torchvision(weights=str(tmp_path / "harmful.pth")), CIFAR)


def test_weights_that_cannot_be_downloaded_are_a_clean_error(tmp_path, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise urllib.error.URLError("no network here")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr("torch.hub.urlopen", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(
        ValueError, match=r"^model\.pretrained: resnet18's ImageNet weights could not"
    ) as error:
        build_model(Torchvision(pretrained="imagenet"), CIFAR)
    message = str(error.value)
    assert "https://download.pytorch.org/models/resnet18" in message
    assert "no network here" in message
    assert "model.weights: FILE" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("model", "shape", "rule"),
    [
        (Torchvision(), Shape(3, 28, 28, 10), "at least 32, but got images of 28x28"),
        (Torchvision(), Shape(4, 32, 32, 10), "takes images of 1 or 3 channels, but got 4"),
    ],
)
def test_images_that_do_not_fit_are_refused(model, shape, rule):
    with pytest.raises(ValueError, match=rule):
        build_model(model, shape)


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"architecture": "resnet19"}, "architecture: "),
        ({"pretrained": "imagenet", "weights": "file.pth"}, "from pretrained or from a file, not both"),
        ({"trainable": "head"}, "would freeze random weights"),
        ({"trainable": 10, "pretrained": "imagenet"}, "must not exceed the 9 blocks of resnet18, but got 10"),
        ({"trainable": 0, "pretrained": "imagenet"}, "trainable: must be all, head, or a number of last"),
        ({"trainable": True, "pretrained": "imagenet"}, "trainable: must be all, head, or a number of last"),
        (
            {"trainable": "tail", "pretrained": "imagenet"},
            "trainable: must be all, head, or a number of last",
        ),
        ({"input_size": 16}, "input_size must be 0 or at least 32"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, rule):
    with pytest.raises(ValueError, match=r"^configuration: model") as error:
        Configuration.read({"model": {"name": "torchvision", **settings}})
    assert rule in str(error.value)
