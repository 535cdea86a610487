"""Test-time augmentation: views against pad and crop, the figure beside the value, and where it is off."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from search.data.request import DataRequest
from search.data.sources import load
from search.data.split import make_split
from search.prepare import adapt
from search.training.augmentation.scaling import build_scaling
from search.training.augmentation.test_time import VIEWS, averaged_logits
from search.training.engine import Run, fit
from search.training.resident import ResidentData, make_resident
from spaces.config import Configuration
from spaces.space import Space

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> ResidentData:
    data = load(DataRequest("digits", tmp_path_factory.mktemp("data")))
    return make_resident(data, make_split(data.labels_N, data.n_train, 0.2, 300, seed=0), CPU)


def configuration(kind: str = "none", **training) -> Configuration:
    return Configuration.read(
        {
            "model": {"name": "vgg", "widths": [8, 16], "convolutions": 1, "head": 16, "dropout": 0.1},
            "optimizer": {"name": "sgd", "lr": 0.05},
            "training": {"epochs": 2, "batch_size": 32, "test_time_augmentation": kind} | training,
        }
    )


def reference(network, images_NCHW: Tensor, kind: str) -> Tensor:
    """The averages that airbench's paper describes, on scaled images padded by a mirrored pixel."""

    def mirror(images: Tensor) -> Tensor:
        return (network(images) + network(images.flip(3))) / 2

    if kind == "mirror":
        return mirror(images_NCHW)
    padded = pad(images_NCHW, (1, 1, 1, 1), mode="reflect")
    up_left, down_right = padded[:, :, :-2, :-2], padded[:, :, 2:, 2:]
    return mirror(images_NCHW) / 2 + (mirror(up_left) + mirror(down_right)) / 4


@pytest.mark.parametrize("shape_HWC", [(8, 8, 1), (12, 9, 3)])
@pytest.mark.parametrize("kind", VIEWS)
def test_logits_are_averaged_over_the_views(kind, shape_HWC):
    height, width, channels = shape_HWC
    torch.manual_seed(0)
    images_NHWC = torch.randint(0, 256, (9, *shape_HWC), dtype=torch.uint8)
    scaling = build_scaling("standardize", torch.full((channels,), 0.4), torch.full((channels,), 0.25))
    weights = torch.randn(channels * height * width, 4)
    indices_B = torch.tensor([5, 0, 8, 8])
    scaled_NCHW = scaling(images_NHWC[indices_B].permute(0, 3, 1, 2) / 255)

    def network(images: Tensor) -> Tensor:
        return torch.tanh(images.flatten(1) @ weights)

    result = averaged_logits(network, images_NHWC, indices_B, kind, scaling)
    torch.testing.assert_close(result, reference(network, scaled_NCHW, kind), rtol=0, atol=1e-5)


def test_weights_sum_to_one():
    for views in VIEWS.values():
        assert sum(view.weight for view in views) == 1


@pytest.mark.parametrize("kind", VIEWS)
def test_the_figure_stands_beside_the_value_and_changes_nothing(digits, kind):
    plain_run, plain = fit(configuration(), digits, CPU, seed=4)
    run, result = fit(configuration(kind), digits, CPU, seed=4)
    assert plain.tta_accuracy is None
    assert (result.value, result.epoch) == (plain.value, plain.epoch)
    plain_weights = plain_run.network.state_dict()
    assert all(torch.equal(value, plain_weights[name]) for name, value in run.network.state_dict().items())

    scaling = build_scaling("standardize", digits.mean_C, digits.std_C)
    images_NCHW = scaling(digits.images_NHWC[digits.val_indices].permute(0, 3, 1, 2) / 255)
    plain_run.network.eval()
    with torch.no_grad():
        predicted = reference(plain_run.network, images_NCHW, kind).argmax(1)
    expected = (predicted == digits.labels_N[digits.val_indices]).double().mean().item()
    assert result.tta_accuracy == pytest.approx(expected, abs=0.004)
    assert result.tta_accuracy != result.value  # mirrored digits are no digits


def test_the_figure_is_of_the_epoch_that_early_stopping_returned_to(digits):
    run = Run(configuration("mirror", patience=1, epochs=8), digits, CPU, seed=1)
    figures = {}
    while not run.finished:
        report = run.train_epoch()
        figures[report.epoch] = run._test_time_accuracy()
    result = run.finish()
    assert result.epoch < run.epoch
    assert figures[result.epoch] != figures[run.epoch]
    assert result.tta_accuracy == figures[result.epoch]


def test_the_engine_tells_the_augmentation_its_epoch(digits):
    config = configuration().model_copy(
        update={"augmentation": Configuration.read({"augmentation": {"alternating_flip": True}}).augmentation}
    )
    run, epochs = Run(config, digits, CPU, seed=0), []
    augment = run._augment

    def recorded(images_NHWC, indices_B, targets_BK, epoch):
        epochs.append(epoch.tolist())
        return augment(images_NHWC, indices_B, targets_BK, epoch)

    run._augment = recorded
    while not run.finished:
        run.train_epoch()
    assert epochs == [[0]] * 9 + [[1]] * 9


FIXED = """
question: Does mirroring help?
base:
  augmentation: {alternating_flip: true}
  training: {test_time_augmentation: mirror-shift}
parameters:
  optimizer.lr: {float: [1.0e-3, 0.1], log: true, role: nuisance}
"""
VARIED = """
question: Does mirroring help?
parameters:
  optimizer.lr: {float: [1.0e-3, 0.1], log: true, role: nuisance}
  augmentation.alternating_flip: {choice: [true, false], role: scientific}
  augmentation.flip: {choice: [0.0, 0.5], role: scientific, when: {augmentation.alternating_flip: [false]}}
  training.test_time_augmentation: {choice: [none, mirror, mirror-shift], role: scientific}
"""


@pytest.mark.parametrize("text", [FIXED, VARIED])
def test_nothing_mirrors_where_that_changes_labels(text):
    space = Space.read(text, "test", "test")
    adapted = adapt(space, SimpleNamespace(name="digits", mirrors=False), None, "fp32")
    base = adapted.space.base
    assert (base.augmentation.flip, base.augmentation.alternating_flip) == (0.0, False)
    assert base.training.test_time_augmentation == "none"
    assert [parameter.name for parameter in adapted.space.parameters] == ["optimizer.lr"]
    assert [change.split(" fixed off")[0] for change in adapted.changes] == [
        "flips are",
        "test-time augmentation is",
    ]
    kept = adapt(space, SimpleNamespace(name="pets", mirrors=True), None, "fp32")
    assert kept.changes == ()
    assert len(kept.space.parameters) == len(space.parameters)
