"""bf16 as autocast has it: float32 logits, copies of weights that change no bit, and what they save."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from digit_runs import CPU, configuration, digits_of
from torch import Tensor, nn

from search.training.engine import Run
from search.training.features import build_network, classifier_of
from search.training.models import Shape
from search.training.models.table import models
from search.training.precision import FullPrecisionLinear, WeightCopies
from search.training.resident import ResidentData
from spaces.config import Configuration

CIFAR = Shape(3, 32, 32, 10)
SMALL: dict[str, dict[str, Any]] = {
    "vgg": {"widths": [8, 8], "head": 8},
    "resnet": {"depth": 8},
    "wide-resnet": {"depth": 10, "widening": 1},
    "airbench": {"widths": [8, 16]},
    "torchvision": {"architecture": "mobilenet_v2"},
}
"""What is not as small as it could be by default."""
bf16 = torch.autocast("cpu", torch.bfloat16, cache_enabled=False)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> ResidentData:
    return digits_of(tmp_path_factory.mktemp("data"))


def network_of(name: str, loss: dict[str, Any] | None = None) -> nn.Module:
    tree: dict[str, Any] = {"model": {"name": name, **SMALL.get(name, {})}}
    torch.manual_seed(0)
    return build_network(Configuration.read(tree | ({"loss": loss} if loss else {})), CIFAR)


def test_a_classifier_in_full_precision_has_no_ties_where_bf16_has() -> None:
    torch.manual_seed(0)
    linear, features_NF = nn.Linear(64, 10), torch.randn(5000, 64).bfloat16()
    with bf16:
        rounded_NK, logits_NK = linear(features_NF), FullPrecisionLinear.of(linear)(features_NF)
    exact_NK = F.linear(features_NF.float(), linear.weight, linear.bias)
    assert torch.equal(logits_NK, exact_NK)
    assert ties(rounded_NK) > 5
    assert ties(logits_NK) == 0
    assert not torch.equal(rounded_NK.argmax(1), exact_NK.argmax(1))


def ties(logits_NK: Tensor) -> int:
    """Images whose largest two logits are equal."""
    first_N2 = logits_NK.topk(2, dim=1).values
    return int((first_N2[:, 0] == first_N2[:, 1]).sum())


@pytest.mark.parametrize("name", models)
def test_every_network_gives_float32_logits_under_autocast(name: str) -> None:
    network = network_of(name).eval()
    with bf16, torch.no_grad():
        assert network(torch.randn(2, 3, 32, 32)).dtype == torch.float32


def test_a_perceptron_gives_float32_logits_by_its_last_layer_alone() -> None:
    network = network_of("vgg", {"name": "supervised-contrastive", "head": 8})
    hidden, _, last = classifier_of(network)
    assert (type(hidden), type(last)) == (nn.Linear, FullPrecisionLinear)
    with bf16, torch.no_grad():
        assert network(torch.randn(2, 3, 32, 32)).dtype == torch.float32


def test_the_layer_in_full_precision_is_the_one_that_was_there() -> None:
    linear = nn.Linear(3, 2, bias=False)
    state = torch.get_rng_state()
    full = FullPrecisionLinear.of(linear)
    assert full.weight is linear.weight
    assert full.bias is None
    assert torch.equal(torch.get_rng_state(), state)


def trained(network: nn.Module, copies: bool) -> dict[str, Tensor]:
    """A network's state after three steps of SGD under autocast."""
    network = copy.deepcopy(network).train()
    weights = WeightCopies(network, copies)
    assert bool(weights._weights) == copies
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    torch.manual_seed(1)
    for _ in range(3):
        optimizer.zero_grad(set_to_none=True)
        with bf16:
            logits_NK = weights(torch.randn(8, 3, 32, 32).to(memory_format=torch.channels_last))
        F.cross_entropy(logits_NK, torch.arange(8)).backward()
        weights.hand_over_gradients()
        optimizer.step()
        weights.renew(trained_only=True)
    return network.state_dict()


@pytest.mark.slow
@pytest.mark.parametrize("name", models)
def test_copies_train_every_network_to_the_same_bits(name: str) -> None:
    network = network_of(name)
    plain, copied = trained(network, copies=False), trained(network, copies=True)
    assert plain.keys() == copied.keys()
    for key, value in plain.items():
        assert torch.equal(value, copied[key]), key
    start = network.state_dict()
    assert any(not torch.equal(value, start[key]) for key, value in plain.items())


def test_copies_train_a_small_network_to_the_same_bits() -> None:
    network = network_of("vgg")
    plain, copied = trained(network, copies=False), trained(network, copies=True)
    assert all(torch.equal(value, copied[key]) for key, value in plain.items())


class Shared(nn.Module):
    """Layers that share a weight, one that is there twice, and one for itself."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(4, 4), nn.Linear(4, 4)
        self.other.weight = self.one.weight
        self.twice = nn.Linear(4, 4)
        self.again = self.twice
        self.alone = nn.Linear(4, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.alone(self.again(self.twice(self.other(self.one(inputs)))))  # type: ignore[no-any-return]


def test_what_layers_share_is_left_to_autocast() -> None:
    names = {weight.name for weight in WeightCopies(Shared(), bf16=True)._weights}
    assert names == {"one.bias", "other.bias", "alone.weight", "alone.bias"}


@pytest.mark.parametrize("settings", ["plain", "averaged", "contrast"])
def test_runs_with_copies_are_those_of_autocast(
    digits: ResidentData, settings: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sections = {
        "plain": {},
        "averaged": {"optimizer": {"lookahead_steps": 3}, "training": {"ema": 0.9}},
        "contrast": {"loss": {"name": "supervised-contrastive", "head": 8, "pretraining": 0.5},
                     "augmentation": {"mixup": 0.0}},
    }[settings]  # fmt: skip
    sections["training"] = {"precision": "bf16", "epochs": 4} | sections.get("training", {})
    config = configuration(**sections)
    runs = []
    make = WeightCopies.__init__
    for copies in (True, False):
        if not copies:
            monkeypatch.setattr(WeightCopies, "__init__", lambda self, network, _: make(self, network, False))
        run = Run(config, digits, CPU, 0)
        assert bool(run._copies._weights) == copies
        while not run.finished:
            run.train_epoch()
        run.finish()
        runs.append((run.network.state_dict(), [report.val_loss for report in run.history], run.confusion()))
    (one, one_losses, one_confusion), (other, other_losses, other_confusion) = runs
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert one_losses == other_losses
    assert one_confusion == other_confusion
