"""A layer that stops learning before the end: the bias of airbench's whitening."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from digit_runs import CPU, digits_of
from test_lanes import Replaying
from test_operations import Counted
from torch import Tensor

from search.training.engine import Run
from search.training.models import build_model
from search.training.resident import ResidentData
from spaces.config import Airbench, Configuration

EPOCHS = 4


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> ResidentData:
    return digits_of(tmp_path_factory.mktemp("data"))


def configuration(learns_for: int, **optimizer: Any) -> Configuration:
    settings = {"name": "sgd", "lr": 0.02, "weight_decay": 0.1, "decay_norms_and_biases": True}
    return Configuration.read(
        {
            "model": {"name": "airbench", "widths": [8], "whitening_bias_epochs": learns_for},
            "optimizer": settings | optimizer,
            "training": {"epochs": EPOCHS, "batch_size": 32},
        }
    )


def biases(run: Run) -> list[Tensor]:
    """The whitening's bias at the start and after each epoch."""
    seen = [run.network[0].bias.detach().clone()]  # type: ignore[index, union-attr]
    for _ in range(EPOCHS):
        run.train_epoch()
        seen.append(run.network[0].bias.detach().clone())  # type: ignore[index, union-attr]
    return seen


def changes(values: list[Tensor]) -> list[bool]:
    return [not torch.equal(one, other) for one, other in pairwise(values)]


@pytest.mark.parametrize("learns_for", [0, 1, 3, 100])
def test_the_bias_learns_for_so_many_epochs_and_neither_decays_nor_coasts_after(
    digits: ResidentData, learns_for: int
) -> None:
    run = Run(configuration(learns_for), digits, CPU, 0)
    assert changes(biases(run)) == [epoch < learns_for for epoch in range(EPOCHS)]
    assert run.history[-1].train_loss < run.history[0].train_loss


@pytest.mark.parametrize("name", ["adamw", "adamax", "nadam", "radam", "adagrad", "muon"])
def test_no_optimizer_moves_what_is_fixed(digits: ResidentData, name: str) -> None:
    run = Run(configuration(1, name=name, lr=1e-3), digits, CPU, 0)
    assert changes(biases(run)) == [True, False, False, False]


def test_without_whitening_the_first_layer_learns_to_the_end() -> None:
    network = build_model(Airbench(widths=(8,), whitening=False), digits_shape())
    assert not network.freeze_before(99)  # type: ignore[operator]
    assert all(parameter.requires_grad for parameter in network[0].parameters())  # type: ignore[index]


def digits_shape() -> Any:
    from search.training.models import Shape

    return Shape(1, 8, 8, 10)


def test_gradients_end_behind_the_first_layer_once_it_is_fixed(digits: ResidentData) -> None:
    counts = []
    for learns_for in (0, 1, 2):
        run = Run(configuration(learns_for), digits, CPU, 0)
        run.train_epoch()
        run.start_epoch()
        with Counted() as counted, run._random.active():
            run._step()
        counts.append(counted.calls["convolution_backward"])
    assert counts == [2, 2, 3]


def test_fixing_a_layer_captures_the_step_anew_and_the_validation_not(digits: ResidentData) -> None:
    lane = Replaying()
    captured, plain = Run(configuration(2), digits, CPU, 0, lane), Run(configuration(2), digits, CPU, 0)
    assert [bias.tolist() for bias in biases(captured)] == [bias.tolist() for bias in biases(plain)]
    assert lane.captured == ["_step", "_judge", "_step"]


def test_a_run_goes_on_from_any_epoch_and_back_to_one_in_which_the_layer_learnt(
    digits: ResidentData, tmp_path: Path
) -> None:
    config = configuration(2, lookahead_steps=3)
    whole = Run(config, digits, CPU, 0)
    for epoch in range(1, EPOCHS + 1):
        whole.train_epoch()
        torch.save(whole.state_dict(), tmp_path / f"{epoch}.pt")
    other = Run(config, digits, CPU, 9, prepare=False)
    for epoch in (3, 2, 1):
        other.load_state_dict(torch.load(tmp_path / f"{epoch}.pt", weights_only=True))
        while not other.finished:
            other.train_epoch()
        for name, value in whole.network.state_dict().items():
            assert torch.equal(value, other.network.state_dict()[name]), (epoch, name)


def test_a_run_that_is_not_trained_looks_at_no_images(
    digits: ResidentData, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    network = type(Run(configuration(1), digits, CPU, 0, prepare=False).network)
    prepare_on = network.prepare_on  # type: ignore[attr-defined]

    def noted(self: Any, images_NCHW: Tensor) -> None:
        seen.append(len(images_NCHW))
        prepare_on(self, images_NCHW)

    monkeypatch.setattr(network, "prepare_on", noted)
    few = dataclasses.replace(digits, train_indices=digits.train_indices[:64])
    Run(configuration(1), few, CPU, 0, prepare=False)
    assert seen == []
    Run(configuration(1), few, CPU, 0)
    assert seen == [64]
