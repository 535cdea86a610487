"""CUDA graphs against the same steps launched one by one, on a GPU and with recorded graphs on a CPU.

On a GPU: ``pytest -n0`` and this file's name. Everything drawn (order, augmentation) has to be the same bit
for bit, and losses as far as bf16 goes: the same kernels run, but some of them add up in an order of their
own. On a CPU (``-m slow``) the graphs are recorded (``recorded_graph.py``), and all is the same bit for bit.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from recorded_graph import cuda_lanes_on_the_cpu
from test_augmentation_pipeline import CONFIGURATIONS
from test_capturable import CATALOGUE, SMALL
from torch import Tensor, nn
from torch.optim import adadelta, rmsprop

from search.training import engine
from search.training.engine import Run
from search.training.lanes import CudaLane, Graphed
from search.training.optimizers import build_optimizer
from search.training.precision import WeightCopies
from search.training.resident import ResidentData
from spaces.config import Configuration

TOLERANCE = {"rtol": 0.03, "atol": 0.03}
"""Of losses on a GPU, after up to 50 steps in bf16."""
TINY: dict[str, dict[str, Any]] = {
    "airbench": {"widths": [8, 8], "whitening_bias_epochs": 1},
    "alexnet": {"head": 16},
    "convnet": {"widths": [4, 8], "head": 8},
    "resnet": {"depth": 8},
    "resnet9": {"width": 4},
    "vgg": {"widths": [8, 8], "head": 8},
    "wide-resnet": {"depth": 10, "widening": 1},
}
"""What makes a network small enough for a CPU, by its name."""


@dataclass(frozen=True)
class Place:
    """Where the tests train, and how much."""

    device: torch.device
    steps: int
    batch: int
    epochs: int
    val_size: int

    @property
    def exact(self) -> bool:
        """Whether sums are added up in the same order every time."""
        return self.device.type == "cpu"

    def random_state(self) -> Tensor:
        """Of the default generator."""
        return torch.get_rng_state() if self.exact else torch.cuda.get_rng_state(self.device)


GPU = Place(torch.device("cuda:0"), steps=10, batch=64, epochs=5, val_size=600)
CPU = Place(torch.device("cpu"), steps=6, batch=8, epochs=3, val_size=40)
WITHOUT_A_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
PLACES = [
    pytest.param(GPU, marks=WITHOUT_A_GPU, id="gpu"),
    pytest.param(CPU, marks=pytest.mark.slow, id="cpu"),
]


@pytest.fixture(scope="module", params=PLACES)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    with ExitStack() as stack:
        if request.param.exact:
            stack.enter_context(cuda_lanes_on_the_cpu())
            capture_optimizers(stack.enter_context(pytest.MonkeyPatch.context()))
        yield request.param


def capture_optimizers(patch: pytest.MonkeyPatch) -> None:
    """Build torch's optimizers as on a GPU, where their counts and rates are tensors that are never read."""

    def capturable(*arguments: Any) -> torch.optim.Optimizer:
        optimizer = build_optimizer(*arguments)
        for group in optimizer.param_groups:
            if "capturable" in group and not group.get("fused"):
                group["capturable"] = group["foreach"] = True
        return optimizer

    patch.setattr(engine, "build_optimizer", capturable)
    for module in (adadelta, rmsprop):
        patch.setattr(module, "_get_capturable_supported_devices", lambda **_: ["cpu"])


@pytest.fixture(scope="module")
def data(place: Place) -> ResidentData:
    """Noisy pictures of ten classes, each brighter in a place of its own."""
    generator = torch.Generator().manual_seed(0)
    labels_N = torch.randint(0, 10, (place.steps * place.batch + place.val_size,), generator=generator)
    images_NHWC = torch.randint(0, 160, (len(labels_N), 32, 32, 3), generator=generator)
    for label in range(10):
        images_NHWC[labels_N == label, 3 * label : 3 * label + 3, :, label % 3] += 90
    indices_N = torch.randperm(len(labels_N), generator=generator)
    return ResidentData(
        images_NHWC=images_NHWC.to(torch.uint8),
        labels_N=labels_N,
        train_indices=indices_N[place.val_size :],
        val_indices=indices_N[: place.val_size],
        mean_C=torch.full((3,), 0.33),
        std_C=torch.full((3,), 0.2),
        classes=tuple("0123456789"),
        hash="",
    ).to(place.device)


@pytest.fixture(scope="module")
def lane(place: Place) -> CudaLane:
    return CudaLane(place.device)


@pytest.fixture(scope="module")
def other_lane(place: Place) -> CudaLane:
    return CudaLane(place.device)


@pytest.fixture(scope="module")
def step_by_step(place: Place) -> CudaLane:
    return CudaLane(place.device, graphs=False)


def configuration(place: Place, **sections: Any) -> Configuration:
    """The same kernels every time, not the fastest; on a GPU the order of a few sums is left to chance."""
    training = {"epochs": place.epochs, "batch_size": place.batch, "log_every": 1, "deterministic": True}
    tree: dict[str, Any] = {
        "model": SMALL,
        "optimizer": {"name": "sgd", "lr": 0.01},
        "augmentation": {"shift": 2, "flip": 0.5},
        "training": training,
    }
    for name, section in sections.items():
        whole = name == "model" or "name" in section
        tree[name] = section if whole else tree.get(name, {}) | section
    if place.exact:
        tree["model"] = TINY.get(tree["model"]["name"], {}) | tree["model"]
    return Configuration.read(tree)


class Watched:
    """A run of which every batch is kept, as it enters the network, by operations of the step itself."""

    def __init__(
        self, config: Configuration, place: Place, data: ResidentData, lane: CudaLane, seed: int = 3
    ) -> None:
        self.place = place
        self.run = Run(config, data, place.device, seed, lane)
        self.batches_SBCHW = torch.zeros(place.steps, place.batch, 3, 32, 32, device=place.device)
        self.drawn: list[Tensor] = []
        augment, steps_done, batches_SBCHW = self.run._augment, self.run._steps_done, self.batches_SBCHW

        def keeping(images_NHWC: Tensor, indices_B: Tensor, targets_BK: Tensor, epoch: Tensor) -> Any:
            images_NCHW, targets_BK = augment(images_NHWC, indices_B, targets_BK, epoch)
            batches_SBCHW.index_copy_(0, steps_done % place.steps, images_NCHW[None].contiguous())
            return images_NCHW, targets_BK

        keeping.images = augment.images  # type: ignore[attr-defined]
        self.run._augment = keeping  # type: ignore[assignment]

    def begin(self) -> None:
        self.run.begin_epoch()

    def end(self) -> None:
        self.run.end_epoch()
        self.drawn += [self.run._order_SB.clone(), self.batches_SBCHW.clone()]

    def train(self, epochs: int | None = None) -> Watched:
        for _ in range(epochs or self.place.epochs):
            self.begin()
            self.end()
        return self

    @property
    def losses(self) -> Tensor:
        """Of every step, and of every validation."""
        steps = [loss for report in self.run.history for _, loss, _ in report.steps]
        return torch.tensor(steps + [report.val_loss for report in self.run.history])

    @property
    def state(self) -> list[Tensor]:
        """Of the network and of its averages."""
        networks = [self.run.network, *(average.network for average in self.run._averages)]
        return [value for network in networks for value in network.state_dict().values()]


def assert_captured(run: Run, judged: bool = True) -> None:
    assert run._graphed_steps
    for work in [*run._graphed_steps.values(), run._graphed_judgement][: None if judged else -1]:
        assert isinstance(work, Graphed)
        assert work.eager == ""
        assert work._graph is not None


def assert_same(one: Watched, other: Watched) -> None:
    for mine, its in zip(one.drawn, other.drawn, strict=True):
        assert torch.equal(mine, its)
    assert one.losses.isfinite().all()
    if one.place.exact:
        assert torch.equal(one.losses, other.losses)
        assert all(map(torch.equal, one.state, other.state))
    else:
        torch.testing.assert_close(one.losses, other.losses, **TOLERANCE)


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_whole_catalogue_trains_as_step_by_step(
    place: Place, data: ResidentData, lane: CudaLane, step_by_step: CudaLane, name: str
) -> None:
    config = configuration(place, **CATALOGUE[name])
    captured = Watched(config, place, data, lane).train()
    assert_captured(captured.run, judged=captured.run._phase.epochs > 1)
    eager = Watched(config, place, data, step_by_step).train()
    assert eager.run.eager == "CUDA graphs are off"
    assert_same(captured, eager)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_every_augmentation_draws_as_step_by_step(
    place: Place, data: ResidentData, lane: CudaLane, step_by_step: CudaLane, name: str
) -> None:
    config = configuration(place, augmentation=dict(CONFIGURATIONS[name]), training={"epochs": 2})
    captured = Watched(config, place, data, lane).train(2)
    assert_captured(captured.run)
    assert_same(captured, Watched(config, place, data, step_by_step).train(2))


def test_steps_are_no_copies_of_the_one_that_was_captured(
    place: Place, data: ResidentData, lane: CudaLane
) -> None:
    one_place = data.train_indices[:1].expand(len(data.train_indices)).contiguous()
    same = ResidentData(**vars(data) | {"train_indices": one_place})
    config = configuration(place, augmentation={"shift": 4, "flip": 0.0}, training={"epochs": 2})
    batches_SBCHW = Watched(config, place, same, lane).train(2).drawn[3]
    differing = [not torch.equal(batches_SBCHW[0], batches_SBCHW[step]) for step in range(1, place.steps)]
    assert all(differing)


CONTRAST = {"name": "supervised-contrastive", "pretraining": 0.5, "head": 8, "classifier_lr": 0.01}


def test_both_phases_of_contrast_are_captured(
    place: Place, data: ResidentData, lane: CudaLane, step_by_step: CudaLane
) -> None:
    training = {"epochs": 6, "ema": 0.9}
    config = configuration(place, loss=CONTRAST, training=training)
    captured = Watched(config, place, data, lane).train(3)
    assert captured.run._phase.name == "features"
    assert_captured(captured.run)
    captured.train(3)
    assert captured.run._phase.name == "classes"
    assert_captured(captured.run)
    assert_same(captured, Watched(config, place, data, step_by_step).train(6))


def test_steps_are_captured_anew_where_a_layer_is_fixed(
    place: Place, data: ResidentData, lane: CudaLane, step_by_step: CudaLane
) -> None:
    model = {"name": "airbench", "widths": [8, 8], "whitening_bias_epochs": 1}
    config = configuration(place, model=model, optimizer={"lookahead_steps": 3})
    captured = Watched(config, place, data, lane).train(1)
    first = list(captured.run._graphed_steps.values())
    assert_captured(captured.run, judged=False)
    captured.train(2)
    assert_captured(captured.run)
    assert len(first) == len(captured.run._graphed_steps) == 2
    assert not set(first) & set(captured.run._graphed_steps.values())
    assert_same(captured, Watched(config, place, data, step_by_step).train(3))


LIVELY = {
    "model": SMALL | {"dropout": 0.2},
    "augmentation": {"shift": 2, "flip": 0.5, "rotation": 10.0, "mixup": 0.2},
    "optimizer": {"name": "adamw", "lr": 3e-4, "weight_decay": 0.1},
}


def test_two_lanes_at_once_give_the_same_as_one_after_the_other(
    place: Place, data: ResidentData, lane: CudaLane, other_lane: CudaLane
) -> None:
    configs = [configuration(place, **LIVELY), configuration(place, training={"ema": 0.9})]
    alone = [Watched(config, place, data, lane, seed).train() for seed, config in enumerate(configs)]
    before = place.random_state()
    beside = [
        Watched(config, place, data, where, seed)
        for seed, (config, where) in enumerate(zip(configs, (lane, other_lane), strict=True))
    ]
    for _ in range(place.epochs):
        for each in beside:
            each.begin()
        for each in beside:
            each.end()
    assert torch.equal(place.random_state(), before)
    for one, other in zip(alone, beside, strict=True):
        assert_captured(other.run)
        assert_same(one, other)


def ask(_network: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """What nothing captured can do: let the host know what was computed."""
    assert inputs[0].mean().item() < 1e9


def test_what_cannot_be_captured_goes_on_step_by_step_with_the_same_numbers(
    place: Place, data: ResidentData, lane: CudaLane, step_by_step: CudaLane
) -> None:
    config = configuration(place, **LIVELY)
    runs = [Watched(config, place, data, where) for where in (lane, step_by_step)]
    for each in runs:
        each.run.network.register_forward_pre_hook(ask)
        each.train()
    assert "captur" in runs[0].run.eager
    assert_same(*runs)
    torch.cuda.empty_cache()
    assert_same(assert_lane_works(place, data, lane), Watched(config, place, data, step_by_step).train())


def assert_lane_works(place: Place, data: ResidentData, lane: CudaLane) -> Watched:
    captured = Watched(configuration(place, **LIVELY), place, data, lane).train()
    assert_captured(captured.run)
    return captured


@pytest.mark.parametrize("work", ["_step", "_judge"])
@pytest.mark.parametrize("times", [1, 2])
def test_a_capture_that_does_not_fit_is_tried_again_with_an_empty_cache(
    place: Place,
    data: ResidentData,
    lane: CudaLane,
    step_by_step: CudaLane,
    monkeypatch: pytest.MonkeyPatch,
    work: str,
    times: int,
) -> None:
    function, failures = getattr(Run, work), []

    def too_much(run: Run, *due: Any) -> None:
        function(run, *due)
        if torch.cuda.is_current_stream_capturing() and len(failures) < times:
            failures.append(1)
            raise torch.OutOfMemoryError("CUDA out of memory")

    config = configuration(place, **LIVELY)
    with monkeypatch.context() as patch:
        patch.setattr(Run, work, too_much)
        watched = Watched(config, place, data, lane)
        if times == 1:
            watched.train()
            assert_captured(watched.run)
            assert_same(watched, Watched(config, place, data, step_by_step).train())
        else:
            with pytest.raises(torch.OutOfMemoryError):
                watched.train()
    assert len(failures) == times
    torch.cuda.empty_cache()
    assert_lane_works(place, data, lane)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("full"), RuntimeError("captured it cannot be")], ids=str
)
def test_no_gradient_is_left_of_a_capture_that_failed_behind_them(
    place: Place,
    data: ResidentData,
    lane: CudaLane,
    step_by_step: CudaLane,
    monkeypatch: pytest.MonkeyPatch,
    error: RuntimeError,
) -> None:
    """They were never computed; whatever comes next must not add to them."""
    hand_over, failures = WeightCopies.hand_over_gradients, []

    def failing(copies: WeightCopies) -> None:
        if torch.cuda.is_current_stream_capturing() and not failures:
            failures.append(1)
            raise error
        hand_over(copies)

    config = configuration(place, training={"precision": "bf16"})
    with monkeypatch.context() as patch:
        patch.setattr(WeightCopies, "hand_over_gradients", failing)
        watched = Watched(config, place, data, lane).train()
    assert failures
    assert_same(watched, Watched(config, place, data, step_by_step).train())


def test_a_validation_that_cannot_be_captured_leaves_the_steps_as_they_are(
    place: Place, data: ResidentData, lane: CudaLane, step_by_step: CudaLane, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = Run._judge

    def waiting(run: Run) -> None:
        judge(run)
        assert run._judged_4.sum().item() >= 0

    config = configuration(place, **LIVELY)
    with monkeypatch.context() as patch:
        patch.setattr(Run, "_judge", waiting)
        watched = Watched(config, place, data, lane).train()
    assert "captur" in watched.run.eager
    assert_captured(watched.run, judged=False)
    assert_same(watched, Watched(config, place, data, step_by_step).train())


def only_with_memory_of_its_own(place: Place) -> None:
    if place.exact:
        pytest.skip("only a GPU has an allocator of memory that can be looked at and bounded")


def test_a_run_that_does_not_fit_leaves_the_lane_usable(
    place: Place, data: ResidentData, lane: CudaLane
) -> None:
    only_with_memory_of_its_own(place)
    gc.collect()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(place.device).total_memory
    try:
        torch.cuda.set_per_process_memory_fraction(
            (torch.cuda.memory_reserved(place.device) + 64 * 2**20) / total, place.device
        )
        large = {"name": "wide-resnet", "depth": 16, "widening": 4}
        with pytest.raises(torch.OutOfMemoryError):
            Run(
                configuration(place, model=large, training={"batch_size": 512}), data, place.device, 0, lane
            ).train_epoch()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, place.device)
    gc.collect()
    torch.cuda.empty_cache()
    assert_lane_works(place, data, lane)


def test_one_run_after_the_other_takes_no_more_memory(
    place: Place, data: ResidentData, lane: CudaLane
) -> None:
    only_with_memory_of_its_own(place)
    gc.collect()
    held = []
    for _ in range(10):
        run = Run(configuration(place, **LIVELY), data, place.device, 0, lane)
        for _ in range(2):
            run.train_epoch()
        run.finish()
        assert_captured(run)
        del run
        held.append((torch.cuda.memory_allocated(place.device), torch.cuda.memory_reserved(place.device)))
    assert held[-1] == held[2]  # at once, without any collection of garbage


def test_a_run_continued_from_its_state_goes_on_the_same(
    place: Place, data: ResidentData, lane: CudaLane, other_lane: CudaLane, tmp_path: Path
) -> None:
    config = configuration(place, **LIVELY, training={"epochs": 5, "ema": 0.9, "patience": 5})
    whole = Watched(config, place, data, lane).train(2)
    torch.save(whole.run.state_dict(), tmp_path / "state.pt")
    whole.train(3)
    second = Watched(config, place, data, other_lane, seed=99)
    second.run.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    second.train(3)
    assert_captured(second.run)
    second.drawn = whole.drawn[:4] + second.drawn
    assert_same(whole, second)
    assert second.run.finish().epoch == whole.run.finish().epoch


def test_times_are_those_of_the_device(place: Place, data: ResidentData, lane: CudaLane) -> None:
    run = Run(configuration(place), data, place.device, 0, lane)
    for _ in range(2):
        run.begin_epoch()
        lane.wait()
        report = run.end_epoch()
        assert 0 < place.steps * place.batch / report.images_per_second < report.seconds < 60
    result = run.finish()
    assert result.value == report.val_accuracy
    assert sum(map(sum, run.confusion())) == place.val_size
