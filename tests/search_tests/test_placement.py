"""Where trials are trained: the rule that chooses how many share a GPU, and what commands may ask for."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from search import placement, prepare
from search.placement import BUSY, MOST, Placement, Resources, place, processes_on
from search.training.features import network_cost
from search.training.models import Shape
from spaces.config import Configuration

CIFAR = Shape(3, 32, 32, 10)


def configuration(batch_size: int = 128, **model: Any) -> Configuration:
    return Configuration.read({"model": {"name": "vgg"} | model, "training": {"batch_size": batch_size}})


def small(batch_size: int = 128) -> Configuration:
    return configuration(batch_size, widths=[8], convolutions=1, head=0)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """Two GPUs, of which no placement asks anything."""
    devices = [torch.device("cuda:0"), torch.device("cuda:1")]
    monkeypatch.setattr(prepare, "resolve_devices", lambda _name: list(devices))
    return devices


def test_every_gpu_has_a_worker_with_as_many_trials_as_keep_it_busy(gpus: list[torch.device]) -> None:
    section = configuration(128)
    work = 6 * network_cost(section, CIFAR).multiply_adds * 128
    wanted = -(-BUSY // work)
    assert 1 < wanted < MOST
    chosen = place(Resources(), section, CIFAR)
    assert (chosen.devices, chosen.workers, chosen.per_gpu) == (("cuda:0", "cuda:1"), 2, wanted)
    assert chosen.parallel == 2 * wanted
    assert chosen.rule.startswith(f"{int(wanted)} trial(s) side by side")
    assert f"{work / 1e9:.3g} GFLOP" in chosen.rule
    assert "--per-gpu" in chosen.rule
    assert place(Resources(), section, CIFAR) == chosen


def test_the_rule_falls_with_the_work_of_a_step_and_has_bounds(gpus: list[torch.device]) -> None:
    sizes = (8, 32, 64, 128, 256, 1024, 8192)
    numbers = [place(Resources(), configuration(size), CIFAR).per_gpu for size in sizes]
    assert numbers == sorted(numbers, reverse=True)
    assert (numbers[0], numbers[-1]) == (MOST, 1)
    assert len(set(numbers)) > 3


def test_a_number_that_is_asked_for_is_taken_without_a_rule(gpus: list[torch.device]) -> None:
    chosen = place(Resources(per_gpu=20, graphs=False), small(), CIFAR)
    assert (chosen.workers, chosen.per_gpu, chosen.rule, chosen.graphs) == (2, 20, "", False)


def test_workers_that_share_gpus_have_one_trial_each(gpus: list[torch.device]) -> None:
    chosen = place(Resources(workers=3), small(), CIFAR)
    assert (chosen.workers, chosen.per_gpu) == (3, 1)
    assert "shared by workers already" in chosen.rule
    assert place(Resources(workers=3, per_gpu=4), small(), CIFAR).parallel == 12
    assert place(Resources(workers=1), small(), CIFAR).per_gpu == MOST


def test_workers_take_devices_in_turn(gpus: list[torch.device]) -> None:
    chosen = place(Resources(workers=5), small(), CIFAR)
    assert [chosen.device_of(worker) for worker in range(5)] == [f"cuda:{worker % 2}" for worker in range(5)]


@pytest.mark.parametrize(
    ("workers", "per_gpu", "owed", "expected"),
    [
        (2, 4, None, (2, 4)),
        (2, 4, 100, (2, 4)),
        (2, 4, 8, (2, 4)),
        (2, 4, 7, (2, 4)),
        (2, 4, 5, (2, 3)),
        (2, 4, 2, (2, 1)),
        (2, 4, 1, (1, 1)),
        (2, 4, 0, (1, 1)),
        (8, 1, 3, (3, 1)),
    ],
)
def test_no_more_places_than_slots(
    workers: int, per_gpu: int, owed: int | None, expected: tuple[int, int]
) -> None:
    fitted = Placement(("cuda:0", "cuda:1"), workers, per_gpu, rule="r").for_slots(owed)
    assert (fitted.workers, fitted.per_gpu) == expected
    assert fitted.rule == "r"


def test_a_cpu_has_a_worker_for_each_core_and_draws_nothing_ahead() -> None:
    chosen = place(Resources("cpu"), small(), CIFAR)
    assert chosen == Placement(("cpu",), processes_on("cpu"))
    assert chosen.ahead == 0
    assert place(Resources("cpu", workers=3, per_gpu=1), small(), CIFAR).workers == 3
    assert Placement(("cuda:0",), 1).ahead == 1
    with pytest.raises(ValueError, match=r"--per-gpu: must be 1 or auto on a CPU.*but got 2"):
        place(Resources("cpu", per_gpu=2), small(), CIFAR)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match=r"--device:.*cuda:3"):
        place(Resources("cuda:3"), small(), CIFAR)


def test_it_is_said_in_words(gpus: list[torch.device]) -> None:
    words = place(Resources(per_gpu=3), small(), CIFAR).text()
    assert words == "2 worker(s) on cuda:0, cuda:1, 3 trials side by side each"
    assert Placement(("cpu",), 2).text() == "2 worker(s) on cpu"


def test_what_keeps_a_gpu_busy_is_the_three_block_vgg_with_512_images() -> None:
    section = configuration(512, widths=[32, 64, 128], convolutions=2, head=128)
    assert placement._work_of_step(section, CIFAR) == pytest.approx(BUSY, rel=0.3)
