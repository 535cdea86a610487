"""Weights in files: by this version, by earlier ones, by plain torch, and of another network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from search.training.features import build_network
from search.training.models import Shape, build_model
from search.weights import load_weights, save_weights
from spaces.config import Configuration

SHAPE = Shape(3, 32, 32, 10)
CONFIG = Configuration.read({"model": {"name": "vgg", "widths": [4, 8], "head": 8}})


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_network(CONFIG, SHAPE)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_weights(network(), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def same(one: nn.Module, other: nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_weights_come_back(path: Path) -> None:
    other = network(1)
    assert not same(network(), other)
    load_weights(other, path)
    assert same(network(), other)


def test_files_of_earlier_versions_count_batches_and_are_read(path: Path) -> None:
    torch.manual_seed(0)
    save_weights(build_model(CONFIG.model, SHAPE), path)
    assert any(name.endswith("num_batches_tracked") for name in load_file(path))
    other = network(1)
    load_weights(other, path)
    assert same(network(), other)


def test_plain_torch_reads_what_is_written_into_a_network_that_counts(path: Path) -> None:
    torch.manual_seed(1)
    plain = build_model(CONFIG.model, SHAPE)
    plain.load_state_dict(load_file(path))
    images_NCHW = torch.randn(4, 3, 32, 32)
    torch.testing.assert_close(plain.eval()(images_NCHW), network().eval()(images_NCHW))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("0.weight"), "lacks 0.weight"),
        (lambda state: state.update(more=torch.zeros(1)), "holds what the network has not: more"),
        (lambda state: state.update({"0.weight": torch.zeros(1)}), "Error.s. in loading state_dict"),
    ],
)
def test_another_networks_weights_are_refused(path: Path, change, words: str) -> None:
    state = load_file(path)
    change(state)
    save_file(state, path)
    with pytest.raises(ValueError, match=words) as raised:
        load_weights(network(), path)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)
