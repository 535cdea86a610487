"""The airbench network: its layers, whitening against NumPy, its start, fast biases, and runs with it."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from search.training.engine import Run
from search.training.models import Shape, build_model, cost
from search.training.models.airbench import ShiftNorm, patch_moments, whitening_filters
from search.training.optimizers import build_optimizer, full_rate
from search.training.resident import ResidentData
from spaces.config import Airbench, Configuration
from spaces.space import Space

CIFAR = Shape(3, 32, 32, 10)
CPU = torch.device("cpu")


def related_images(channels: int = 3) -> torch.Tensor:
    """Noise that is smoothed, so that neighbouring values have much in common."""
    noise = torch.randn(40, channels, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return F.avg_pool2d(noise, 3, stride=1)


def test_layers_are_those_of_the_paper():
    network = build_model(Airbench(), CIFAR)
    group = ["Conv2d", "MaxPool2d", "ShiftNorm", "GELU", "Conv2d", "ShiftNorm", "GELU"]
    assert [type(layer).__name__ for layer in network] == [
        "Conv2d", "GELU", *group, *group, *group, "MaxPool2d", "Flatten", "Linear", "Scale"
    ]  # fmt: skip
    convolutions = [layer for layer in network if isinstance(layer, nn.Conv2d)]
    assert [(c.out_channels, c.kernel_size[0], c.bias is not None) for c in convolutions] == [
        (24, 2, True), (64, 3, False), (64, 3, False), (256, 3, False), (256, 3, False), (256, 3, False),
        (256, 3, False),
    ]  # fmt: skip
    images, seen = torch.randn(2, 3, 32, 32), []
    network[-4].register_forward_hook(lambda _layer, inputs, maps: seen.append((inputs[0].shape, maps.shape)))
    torch.testing.assert_close(network.eval()(images), network[:-1](images) / 9)
    assert seen[0] == ((2, 256, 3, 3), (2, 256, 1, 1))


def test_it_has_the_papers_1_97_million_parameters():
    convolutions = 9 * (24 * 64 + 64 * 64 + 64 * 256 + 3 * 256 * 256)
    norms = 2 * (2 * 64 + 4 * 256)
    assert cost(Airbench(), CIFAR).parameters == 24 * 12 + 24 + convolutions + norms + 2560 == 1_972_792


@pytest.mark.parametrize("channels", [1, 3])
def test_whitening_filters_follow_numpy(channels):
    images, eps = related_images(channels).numpy(), 5e-4
    patches = [
        images[n, :, y : y + 2, x : x + 2].ravel()
        for n in range(len(images))
        for y in range(images.shape[2] - 1)
        for x in range(images.shape[3] - 1)
    ]
    moments = sum(np.outer(patch, patch) for patch in patches) / len(patches)
    filters = whitening_filters(torch.from_numpy(images), eps).numpy()
    half = channels * 4
    rows = filters[:half].reshape(half, half)
    assert filters.shape == (2 * half, channels, 2, 2)
    np.testing.assert_array_equal(filters[half:], -filters[:half])
    values = np.linalg.eigvalsh(moments)[::-1]
    np.testing.assert_allclose(rows @ moments @ rows.T, np.diag(values / (values + eps)), atol=1e-10)


@pytest.mark.parametrize("shape", [(1, 9, 6), (3, 5, 11), (3, 32, 32)], ids=str)
def test_patch_moments_are_those_of_unfolded_patches(shape):
    images = torch.rand(507, *shape, generator=torch.Generator().manual_seed(0))  # more than one chunk
    patches = F.unfold(images.double(), 2)
    expected = torch.einsum("npl,nql->pq", patches, patches) / (patches.shape[0] * patches.shape[2])
    moments = patch_moments(images)
    assert moments.dtype == torch.float64
    torch.testing.assert_close(moments, expected, rtol=1e-13, atol=0)


def test_the_space_trains_at_the_published_rate_and_decay():
    """airbench takes 11.5 and 0.0153 for 1,024 * (1 + 1 / (1 - momentum)) images of summed gradients."""
    kilostep = 1024 * (1 + 1 / (1 - 0.85))
    published_rate, published_share = 1024 * 11.5 / kilostep, 1024 * 0.0153 / kilostep
    space = Space.load("fast-94")
    first = space.configure(space.first[0])
    for settings in (space.base, first):
        section = settings.optimizer
        rate = torch.tensor(full_rate(section, settings.training.batch_size))
        (group,) = build_optimizer(section, nn.Linear(2, 2), rate).param_groups
        assert group["momentum"] == 0.85
        assert group["lr"].item() == pytest.approx(published_rate, rel=0.01)
        assert group["lr"].item() * group["weight_decay"] == pytest.approx(published_share, rel=0.01)


def test_prepared_first_layer_whitens_and_stays_fixed():
    network = build_model(Airbench(widths=(4,)), Shape(3, 10, 10, 10))
    images = related_images()
    network.prepare_on(images.float())
    maps = network[0](images.float())[:, :12].double().transpose(0, 1).flatten(1)
    covariance = (maps @ maps.T / maps.shape[1]).detach()
    diagonal = covariance.diagonal()
    assert (covariance - diagonal.diag()).abs().max().item() < 1e-3
    assert 0.5 < diagonal.min().item() <= diagonal.max().item() < 1.001
    assert not network[0].weight.requires_grad
    assert network[0].bias.requires_grad
    assert not network[0].bias.any()


def test_without_whitening_the_first_layer_is_left_to_training():
    network = build_model(Airbench(widths=(4,), whitening=False), Shape(3, 10, 10, 10))
    before = network[0].weight.clone()
    network.prepare_on(related_images().float())
    assert torch.equal(network[0].weight, before)
    assert network[0].weight.requires_grad


def test_dirac_convolutions_start_by_passing_their_first_channels_on():
    network = build_model(Airbench(widths=(32, 48)), CIFAR)
    for layer in [layer for layer in network if isinstance(layer, nn.Conv2d)][1:]:
        channels = layer.in_channels
        maps = torch.randn(2, channels, 5, 5)
        torch.testing.assert_close(layer(maps)[:, :channels], maps)
        rest = layer.weight[channels:]
        assert rest.numel() == 0 or rest.std().item() > 0
    plain = build_model(Airbench(widths=(32,), dirac=False), CIFAR)[2]
    assert not torch.allclose(plain(torch.ones(1, 24, 5, 5))[:, :24], torch.ones(1, 24, 5, 5))


def test_the_norm_only_shifts_and_learns_its_shift_faster_under_sgd():
    """One step of SGD moves the shift 16 times as far as that of an ordinary normalization."""
    maps = torch.randn(8, 2, 4, 4, dtype=torch.float64)
    weights = torch.randn(8, 2, 4, 4, dtype=torch.float64)
    shifts = []
    for norm in (ShiftNorm(2, 0.4, 16.0), nn.BatchNorm2d(2, eps=1e-12, momentum=0.4, affine=True)):
        norm = norm.double().train()
        (norm(maps) * weights).sum().backward()
        torch.optim.SGD([norm.bias], lr=0.1).step()
        centred = maps - maps.mean((0, 2, 3), keepdim=True)
        plain = centred / maps.var((0, 2, 3), keepdim=True, unbiased=False).sqrt()
        shift = norm(maps) - plain
        torch.testing.assert_close(shift, shift.mean((0, 2, 3), keepdim=True).expand_as(shift))
        shifts.append(shift[0, :, 0, 0].detach())
    torch.testing.assert_close(shifts[0], 16 * shifts[1])


def coloured(count: int = 60) -> ResidentData:
    """Images of three classes, each brightest in a channel of its own."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 3
    images = torch.randint(0, 120, (count, 10, 10, 3), generator=generator)
    images[torch.arange(count), :, :, labels] += 100
    return ResidentData(
        images_NHWC=images.to(torch.uint8), labels_N=labels, train_indices=torch.arange(45),
        val_indices=torch.arange(45, count), mean_C=torch.full((3,), 0.35), std_C=torch.full((3,), 0.2),
        classes=("red", "green", "blue"), hash="coloured",
    )  # fmt: skip


def configuration() -> Configuration:
    return Configuration.read(
        {
            "model": {"name": "airbench", "widths": [8, 8]},
            "optimizer": {"name": "sgd", "lr": 0.02},
            "training": {"epochs": 2, "batch_size": 15},
        }
    )


def test_a_run_prepares_the_network_on_clean_training_images_and_repeats():
    data = coloured()
    first, second = (Run(configuration(), data, CPU, seed=4) for _ in range(2))
    pixels = data.images_NHWC[data.train_indices].permute(0, 3, 1, 2) / 255
    expected = whitening_filters((pixels - 0.35) / 0.2, 5e-4).float()
    torch.testing.assert_close(first.network[0].weight.abs(), expected.abs(), atol=1e-4, rtol=1e-3)
    start = first.network[0].weight.clone()
    for run in (first, second):
        run.train_epoch()
        run.train_epoch()
    assert torch.equal(first.network[0].weight, start)
    for name, value in first.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[name]), name


def test_a_runs_state_holds_the_whitening():
    data = coloured()
    whole, first, other = (Run(configuration(), data, CPU, seed) for seed in (4, 4, 5))
    with torch.no_grad():
        other.network[0].weight.zero_()
    first.train_epoch()
    other.load_state_dict(first.state_dict())
    for run in (whole, whole, other):
        run.train_epoch()
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, other.network.state_dict()[name]), name
