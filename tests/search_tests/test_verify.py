"""A recorded training again: the same to the last bit, within a tolerance, or what differs."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch
import yaml
from exports import export, make_folder, search

from search.data.request import DataRequest
from search.interrupts import Interrupts
from search.retraining import verify as verifying
from search.retraining.screen import RetrainScreen
from search.retraining.verify import VerifyRequest, verify


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("verify")
    images = make_folder(root / "images", test=0)
    search(f"sqlite:///{root}/s.db", DataRequest(str(images), root / "data"), trials=2)
    export(f"sqlite:///{root}/s.db", root / "best.yaml")
    return root / "best.yaml"


@pytest.fixture
def again(exported: Path, tmp_path: Path, capsys):
    """Verify the file with some of its text replaced; the exit code, and what was said."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]

    def run(edits: dict[str, str], **options) -> tuple[int, str]:
        text = exported.read_text()
        for old, new in edits.items():
            assert old in text
            text = new.join(text.rsplit(old, 1))
        (tmp_path / "mine.yaml").write_text(text)
        settings = {"data_dir": exported.parent / "data", **options}
        code = verify(VerifyRequest(tmp_path / "mine.yaml", **settings), RetrainScreen(), Interrupts())
        return code, capsys.readouterr().out

    yield run
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def test_the_same_configuration_seed_and_split_give_the_same_accuracy_to_the_last_bit(again):
    code, said = again({})
    assert code == 0
    assert said.splitlines()[-1] == "verified: the same to the last bit"
    assert "seed" in said.splitlines()[0]


def accuracy(exported: Path) -> str:
    lines = exported.read_text().splitlines()
    return next(line.strip() for line in lines if line.startswith("  accuracy: "))


def test_another_value_on_the_same_device_and_versions_is_an_error(again, exported):
    code, said = again({accuracy(exported): "accuracy: 0.125"})
    assert code == 1
    assert "not the same: +" in said
    assert "although device and versions are the same" in said


def test_another_training_loss_on_a_cpu_is_an_error(again, exported):
    recorded = read_losses(exported)
    code, said = again({str(recorded[1]): str(recorded[1] * 1.0001)})
    assert code == 1
    assert "not the same: training losses differ from epoch" in said
    assert "training losses differ from epoch 2 on" in said


def read_losses(exported: Path) -> list[float]:
    return yaml.safe_load(exported.read_text())["runs"][0]["train_loss"]


GPU = "NVIDIA of tests"


@pytest.fixture
def on_gpu(monkeypatch) -> dict[str, str]:
    """The device calls itself a GPU; returned is the edit by which it is the recorded one, too."""
    name = verifying.device_name(torch.device("cpu"))
    monkeypatch.setattr(verifying, "device_name", lambda device: GPU)
    return {f"  device: {name}": f"  device: {GPU}"}


def test_on_a_gpu_the_same_bits_are_said_to_be_the_same(again, on_gpu):
    code, said = again(on_gpu)
    assert code == 0
    assert said.splitlines()[-1] == "verified: the same to the last bit"


def test_on_a_gpu_what_is_near_is_within_the_tolerance_and_never_the_same(again, on_gpu, exported):
    loss = read_losses(exported)[1]
    code, said = again(on_gpu | {str(loss): str(loss * 1.001)})
    assert code == 0
    assert said.splitlines()[-1] == "verified: within the tolerance"
    assert "the same to the last bit" not in said
    assert "validation accuracy" in said
    assert "furthest away: training loss of epoch 2 is" in said


def test_on_a_gpu_what_is_far_is_an_error_with_its_epoch(again, on_gpu, exported):
    loss = read_losses(exported)[1]
    code, said = again(on_gpu | {str(loss): str(3 * loss)})
    assert code == 1
    assert "not within the tolerance: training loss of epoch 2 is" in said
    assert "although device and versions are the same (fewer than 1 in 100" in said
    code, said = again(on_gpu | {str(loss): str(3 * loss), "    torch: ": "    torch: 1."})
    assert code == 0
    assert "which need not be the same, since torch is" in said


def test_that_losses_are_not_compared_is_said_where_bits_agree_too(again, exported):
    text = exported.read_text()
    start = text.index("  train_loss:")
    code, said = again({text[start : text.index("\nfingerprint", start)]: ""})
    assert code == 0
    assert "no training losses are recorded in the file: the accuracy alone is compared" in said
    assert said.splitlines()[-1] == "verified: the same to the last bit"


def test_on_a_gpu_an_export_without_losses_is_compared_by_accuracy(again, on_gpu, exported):
    text = exported.read_text()
    start = text.index("  train_loss:")
    losses = text[start : text.index("\nfingerprint", start)]
    code, said = again(on_gpu | {losses: "", accuracy(exported): "accuracy: 0.3"})
    assert code == 1
    assert "no training losses are recorded in the file: the accuracy alone is compared" in said
    assert "not within the tolerance: validation accuracy is" in said


def test_another_value_by_other_versions_is_said_and_no_error(again, exported):
    code, said = again({accuracy(exported): "accuracy: 0.125", "    torch: ": "    torch: 1."})
    assert code == 0
    assert "which need not be the same, since torch is" in said


def test_the_same_value_by_another_device_is_verified_with_a_word_on_it(again):
    code, said = again({"  device: CPU": "  device: CPU of an old"})
    assert code == 0
    assert "the same to the last bit, although the device is CPU" in said


@pytest.mark.parametrize(
    ("edits", "options", "said"),
    [
        ({"dropout: 0.0": "dropout: 0.1"}, {}, "nothing to verify against"),
        ({}, {"run": 2}, r"--run: the file has 1 run\(s\), but got 2"),
        ({"  hash: ": "  hash: 0"}, {}, "split recorded"),
        ({"    seed: 0": "    seed: 1"}, {}, "split: "),
        ({"  epoch: ": "  epoch: -"}, {}, r"runs\.0\.epoch"),
        ({}, {"device": "cuda:99"}, "--device"),
    ],
)
def test_what_cannot_be_verified_is_refused(again, edits, options, said):
    with pytest.raises(ValueError, match=said):
        again(edits, **options)


def test_other_data_are_refused(again, tmp_path):
    other = make_folder(tmp_path / "other", train=20, test=0)
    with pytest.raises(ValueError, match=r"--dataset: .* hash"):
        again({}, dataset=str(other))
