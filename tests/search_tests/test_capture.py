"""CUDA graphs against the same steps launched one by one. On a GPU: ``pytest -n0`` and this file's name.

Everything drawn (order, augmentation) has to be the same bit for bit, and losses as far as bf16 goes: the
same kernels run, but some of them add up in an order of their own.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_augmentation_pipeline import CONFIGURATIONS
from test_capturable import CATALOGUE, SMALL
from torch import Tensor, nn

from search.training.engine import Run
from search.training.lanes import CudaLane, Graphed
from search.training.resident import ResidentData
from spaces.config import Configuration

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="there is no GPU, and CUDA graphs are captured nowhere else"
)
GPU = torch.device("cuda:0")
STEPS, BATCH, EPOCHS = 10, 64, 5
TOLERANCE = {"rtol": 0.03, "atol": 0.03}
"""Of losses, after up to 50 steps in bf16."""


@pytest.fixture(autouse=True, scope="module")
def the_same_convolutions() -> Iterator[None]:
    """Every time, in place of the fastest; what is left to chance is the order of a few sums."""
    torch.backends.cudnn.deterministic = True
    yield
    torch.backends.cudnn.deterministic = False


@pytest.fixture(scope="module")
def data() -> ResidentData:
    """Noisy pictures of ten classes, each brighter in a place of its own."""
    generator = torch.Generator().manual_seed(0)
    labels_N = torch.randint(0, 10, (STEPS * BATCH + 600,), generator=generator)
    images_NHWC = torch.randint(0, 160, (len(labels_N), 32, 32, 3), generator=generator)
    for label in range(10):
        images_NHWC[labels_N == label, 3 * label : 3 * label + 3, :, label % 3] += 90
    indices_N = torch.randperm(len(labels_N), generator=generator)
    return ResidentData(
        images_NHWC=images_NHWC.to(torch.uint8),
        labels_N=labels_N,
        train_indices=indices_N[600:],
        val_indices=indices_N[:600],
        mean_C=torch.full((3,), 0.33),
        std_C=torch.full((3,), 0.2),
        classes=tuple("0123456789"),
        hash="",
    ).to(GPU)


@pytest.fixture(scope="module")
def lane() -> CudaLane:
    return CudaLane(GPU)


@pytest.fixture(scope="module")
def other_lane() -> CudaLane:
    return CudaLane(GPU)


@pytest.fixture(scope="module")
def step_by_step() -> CudaLane:
    return CudaLane(GPU, graphs=False)


def configuration(**sections: Any) -> Configuration:
    tree: dict[str, Any] = {
        "model": SMALL,
        "optimizer": {"name": "sgd", "lr": 0.01},
        "augmentation": {"shift": 2, "flip": 0.5},
        "training": {"epochs": EPOCHS, "batch_size": BATCH, "log_every": 1},
    }
    for name, section in sections.items():
        whole = name == "model" or "name" in section
        tree[name] = section if whole else tree.get(name, {}) | section
    return Configuration.read(tree)


class Watched:
    """A run of which every batch is kept, as it enters the network, by operations of the step itself."""

    def __init__(self, config: Configuration, data: ResidentData, lane: CudaLane, seed: int = 3) -> None:
        self.run = Run(config, data, GPU, seed, lane)
        self.batches_SBCHW = torch.zeros(STEPS, BATCH, 3, 32, 32, device=GPU)
        self.drawn: list[Tensor] = []
        augment, steps_done, batches_SBCHW = self.run._augment, self.run._steps_done, self.batches_SBCHW

        def keeping(images_NHWC: Tensor, indices_B: Tensor, targets_BK: Tensor, epoch: Tensor) -> Any:
            images_NCHW, targets_BK = augment(images_NHWC, indices_B, targets_BK, epoch)
            batches_SBCHW.index_copy_(0, steps_done % STEPS, images_NCHW[None].contiguous())
            return images_NCHW, targets_BK

        keeping.images = augment.images  # type: ignore[attr-defined]
        self.run._augment = keeping  # type: ignore[assignment]

    def begin(self) -> None:
        self.run.begin_epoch()

    def end(self) -> None:
        self.run.end_epoch()
        self.drawn += [self.run._order_SB.clone(), self.batches_SBCHW.clone()]

    def train(self, epochs: int = EPOCHS) -> Watched:
        for _ in range(epochs):
            self.begin()
            self.end()
        return self

    @property
    def losses(self) -> Tensor:
        """Of every step, and of every validation."""
        steps = [loss for report in self.run.history for _, loss, _ in report.steps]
        return torch.tensor(steps + [report.val_loss for report in self.run.history])


def assert_captured(run: Run, judged: bool = True) -> None:
    for work in (run._graphed_step, run._graphed_judgement)[: 1 + judged]:
        assert isinstance(work, Graphed)
        assert work.eager == ""
        assert work._graph is not None


def assert_same(one: Watched, other: Watched) -> None:
    for mine, its in zip(one.drawn, other.drawn, strict=True):
        assert torch.equal(mine, its)
    assert one.losses.isfinite().all()
    torch.testing.assert_close(one.losses, other.losses, **TOLERANCE)


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_whole_catalogue_trains_as_step_by_step(
    data: ResidentData, lane: CudaLane, step_by_step: CudaLane, name: str
) -> None:
    config = configuration(**CATALOGUE[name])
    captured = Watched(config, data, lane).train()
    assert_captured(captured.run, judged=captured.run._phase.epochs > 1)
    eager = Watched(config, data, step_by_step).train()
    assert eager.run.eager == "CUDA graphs are off"
    assert_same(captured, eager)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_every_augmentation_draws_as_step_by_step(
    data: ResidentData, lane: CudaLane, step_by_step: CudaLane, name: str
) -> None:
    config = configuration(augmentation=dict(CONFIGURATIONS[name]), training={"epochs": 2})
    captured = Watched(config, data, lane).train(2)
    assert_captured(captured.run)
    assert_same(captured, Watched(config, data, step_by_step).train(2))


def test_steps_are_no_copies_of_the_one_that_was_captured(data: ResidentData, lane: CudaLane) -> None:
    one_place = data.train_indices[:1].expand(len(data.train_indices)).contiguous()
    same = ResidentData(**vars(data) | {"train_indices": one_place})
    config = configuration(augmentation={"shift": 4, "flip": 0.0}, training={"epochs": 2})
    batches_SBCHW = Watched(config, same, lane).train(2).drawn[3]
    differing = [not torch.equal(batches_SBCHW[0], batches_SBCHW[step]) for step in range(1, STEPS)]
    assert all(differing)


CONTRAST = {"name": "supervised-contrastive", "pretraining": 0.5, "head": 8, "classifier_lr": 0.01}


def test_both_phases_of_contrast_are_captured(
    data: ResidentData, lane: CudaLane, step_by_step: CudaLane
) -> None:
    training = {"epochs": 6, "ema": 0.9}
    config = configuration(loss=CONTRAST, training=training)
    captured = Watched(config, data, lane).train(3)
    assert captured.run._phase.name == "features"
    assert_captured(captured.run)
    captured.train(3)
    assert captured.run._phase.name == "classes"
    assert_captured(captured.run)
    assert_same(captured, Watched(config, data, step_by_step).train(6))


LIVELY = {
    "model": SMALL | {"dropout": 0.2},
    "augmentation": {"shift": 2, "flip": 0.5, "rotation": 10.0, "mixup": 0.2},
    "optimizer": {"name": "adamw", "lr": 3e-4, "weight_decay": 0.1},
}


def test_two_lanes_at_once_give_the_same_as_one_after_the_other(
    data: ResidentData, lane: CudaLane, other_lane: CudaLane
) -> None:
    configs = [configuration(**LIVELY), configuration(training={"ema": 0.9})]
    alone = [Watched(config, data, lane, seed).train() for seed, config in enumerate(configs)]
    before = torch.cuda.get_rng_state(GPU)
    beside = [
        Watched(config, data, where, seed)
        for seed, (config, where) in enumerate(zip(configs, (lane, other_lane), strict=True))
    ]
    for _ in range(EPOCHS):
        for each in beside:
            each.begin()
        for each in beside:
            each.end()
    assert torch.equal(torch.cuda.get_rng_state(GPU), before)
    for one, other in zip(alone, beside, strict=True):
        assert_captured(other.run)
        assert_same(one, other)


class Waiting(nn.Module):
    """A network that asks for what it computed, which nothing captured can."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images_NCHW: Tensor) -> Tensor:
        assert images_NCHW.mean().item() < 1e9
        logits_NK: Tensor = self.network(images_NCHW)
        return logits_NK


def test_what_cannot_be_captured_goes_on_step_by_step_with_the_same_numbers(
    data: ResidentData, lane: CudaLane, step_by_step: CudaLane
) -> None:
    config = configuration(**LIVELY)
    runs = [Watched(config, data, where) for where in (lane, step_by_step)]
    for each in runs:
        each.run.network = Waiting(each.run.network)
        each.train()
    assert "captur" in runs[0].run.eager
    assert_same(*runs)
    torch.cuda.empty_cache()
    assert_same(assert_lane_works(data, lane), Watched(config, data, step_by_step).train())


def assert_lane_works(data: ResidentData, lane: CudaLane) -> Watched:
    captured = Watched(configuration(**LIVELY), data, lane).train()
    assert_captured(captured.run)
    return captured


@pytest.mark.parametrize("work", ["_step", "_judge"])
@pytest.mark.parametrize("times", [1, 2])
def test_a_capture_that_does_not_fit_is_tried_again_with_an_empty_cache(
    data: ResidentData,
    lane: CudaLane,
    step_by_step: CudaLane,
    monkeypatch: pytest.MonkeyPatch,
    work: str,
    times: int,
) -> None:
    function, failures = getattr(Run, work), []

    def too_much(run: Run) -> None:
        function(run)
        if torch.cuda.is_current_stream_capturing() and len(failures) < times:
            failures.append(1)
            raise torch.OutOfMemoryError("CUDA out of memory")

    config = configuration(**LIVELY)
    with monkeypatch.context() as patch:
        patch.setattr(Run, work, too_much)
        watched = Watched(config, data, lane)
        if times == 1:
            watched.train()
            assert_captured(watched.run)
            assert_same(watched, Watched(config, data, step_by_step).train())
        else:
            with pytest.raises(torch.OutOfMemoryError):
                watched.train()
    assert len(failures) == times
    torch.cuda.empty_cache()
    assert_lane_works(data, lane)


def test_a_validation_that_cannot_be_captured_leaves_the_steps_as_they_are(
    data: ResidentData, lane: CudaLane, step_by_step: CudaLane, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = Run._judge

    def waiting(run: Run) -> None:
        judge(run)
        assert run._judged_4.sum().item() >= 0

    config = configuration(**LIVELY)
    with monkeypatch.context() as patch:
        patch.setattr(Run, "_judge", waiting)
        watched = Watched(config, data, lane).train()
    assert "captur" in watched.run.eager
    assert_captured(watched.run, judged=False)
    assert_same(watched, Watched(config, data, step_by_step).train())


def test_a_run_that_does_not_fit_leaves_the_lane_usable(data: ResidentData, lane: CudaLane) -> None:
    gc.collect()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(GPU).total_memory
    try:
        torch.cuda.set_per_process_memory_fraction(
            (torch.cuda.memory_reserved(GPU) + 64 * 2**20) / total, GPU
        )
        large = {"name": "wide-resnet", "depth": 16, "widening": 4}
        with pytest.raises(torch.OutOfMemoryError):
            Run(configuration(model=large, training={"batch_size": 512}), data, GPU, 0, lane).train_epoch()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, GPU)
    gc.collect()
    torch.cuda.empty_cache()
    assert_lane_works(data, lane)


def test_one_run_after_the_other_takes_no_more_memory(data: ResidentData, lane: CudaLane) -> None:
    gc.collect()
    held = []
    for _ in range(10):
        run = Run(configuration(**LIVELY), data, GPU, 0, lane)
        for _ in range(2):
            run.train_epoch()
        run.finish()
        assert_captured(run)
        del run
        held.append((torch.cuda.memory_allocated(GPU), torch.cuda.memory_reserved(GPU)))
    assert held[-1] == held[2]  # at once, without any collection of garbage


def test_a_run_continued_from_its_state_goes_on_the_same(
    data: ResidentData, lane: CudaLane, other_lane: CudaLane, tmp_path: Path
) -> None:
    config = configuration(**LIVELY, training={"ema": 0.9, "patience": 5})
    whole = Watched(config, data, lane).train(2)
    torch.save(whole.run.state_dict(), tmp_path / "state.pt")
    whole.train(3)
    second = Watched(config, data, other_lane, seed=99)
    second.run.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    second.train(3)
    assert_captured(second.run)
    second.drawn = whole.drawn[:4] + second.drawn
    assert_same(whole, second)
    assert second.run.finish().epoch == whole.run.finish().epoch


def test_times_are_those_of_the_device(data: ResidentData, lane: CudaLane) -> None:
    run = Run(configuration(), data, GPU, 0, lane)
    for _ in range(2):
        run.begin_epoch()
        lane.wait()
        report = run.end_epoch()
        assert 0 < STEPS * BATCH / report.images_per_second < report.seconds < 60
    result = run.finish()
    assert result.value == report.val_accuracy
    assert sum(map(sum, run.confusion())) == 600
