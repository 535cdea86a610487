"""What a lane promises where nothing can be captured, and when work is called, captured and replayed.

Captures themselves are in ``test_capture.py``, which needs a GPU. Here a graph is the work itself.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from recorded_graph import RecordedGraph, cuda_lanes_on_the_cpu
from torch import Tensor

from search.data.request import DataRequest
from search.data.sources import load
from search.data.split import make_split
from search.training.engine import WARM_UP, Run
from search.training.lanes import CpuLane, CudaLane, CudaMark, Direct, Graphed, Repeated, Work, make_lane
from search.training.randomness import RandomStream
from search.training.resident import ResidentData, make_resident
from spaces.config import Configuration

CPU = torch.device("cpu")


class Replaying(CpuLane):
    """A lane on which whatever is to be repeated is captured in its way, or fails as it is told to."""

    def __init__(self, *failures: Exception) -> None:
        super().__init__(CPU)
        self.failures = list(failures)
        self.captured: list[str] = []
        self.replayed = 0
        self.draws = Draws()

    def repeated(self, random: RandomStream, warm_up: int, /) -> Repeated:
        return Graphed(self, random, warm_up)  # type: ignore[arg-type]

    def capture(self, work: Work) -> SimpleNamespace:
        if self.failures:
            self.draws.state += 100
            raise self.failures.pop(0)
        self.captured.append(getattr(work, "func", work).__name__)

        def replay() -> None:
            self.replayed += 1
            work()

        return SimpleNamespace(replay=replay)


class Draws:
    """A generator's state, which a capture that fails leaves anywhere."""

    state = 0


def repeat(lane: Replaying, times: int, warm_up: int) -> tuple[Graphed, list[int]]:
    """Repeat a piece of work that draws; also what it drew."""
    graphed, drawn = Graphed(lane, lane.draws, warm_up), []  # type: ignore[arg-type]

    def draw() -> None:
        lane.draws.state += 1
        drawn.append(lane.draws.state)

    for _ in range(times):
        graphed(draw)
    return graphed, drawn


def test_work_is_called_captured_once_and_replayed() -> None:
    lane = Replaying()
    graphed, drawn = repeat(lane, times=10, warm_up=3)
    assert (len(drawn), len(lane.captured), lane.replayed) == (10, 1, 7)
    assert graphed.eager == ""


def test_work_that_cannot_be_captured_is_called_for_good_from_the_same_draws() -> None:
    lane = Replaying(RuntimeError("not while capturing\nand much more"))
    graphed, drawn = repeat(lane, times=10, warm_up=3)
    assert (lane.captured, lane.replayed) == ([], 0)
    assert graphed.eager == "not while capturing"
    assert drawn == list(range(1, 11))


NO_ENGINE = RuntimeError("GET was unable to find an engine to execute this computation")
FULL = [
    torch.OutOfMemoryError("full"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
]


@pytest.mark.parametrize("error", [*FULL, NO_ENGINE], ids=str)
def test_a_capture_that_does_not_fit_is_tried_once_more(error: Exception) -> None:
    lane = Replaying(error)
    graphed, drawn = repeat(lane, times=5, warm_up=1)
    assert (len(lane.captured), lane.replayed) == (1, 4)
    assert drawn == list(range(1, 6))
    assert graphed.eager == ""


@pytest.mark.parametrize("error", FULL, ids=str)
def test_a_capture_that_never_fits_fails(error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)):
        repeat(Replaying(error, error), times=5, warm_up=1)


def test_what_no_algorithm_captures_is_called() -> None:
    lane = Replaying(NO_ENGINE, NO_ENGINE)
    graphed, drawn = repeat(lane, times=5, warm_up=1)
    assert (lane.captured, drawn) == ([], list(range(1, 6)))
    assert graphed.eager == str(NO_ENGINE)


def test_a_failure_without_words_is_told_by_its_type() -> None:
    graphed, drawn = repeat(Replaying(RuntimeError()), times=5, warm_up=1)
    assert (graphed.eager, len(drawn)) == ("RuntimeError", 5)


def note_graphs(patch: pytest.MonkeyPatch, made: list[weakref.ref[object]]) -> None:
    """Keep a weak reference to every graph that is made."""

    class Noted(RecordedGraph):
        def __init__(self) -> None:
            super().__init__()
            made.append(weakref.ref(self))

    patch.setattr(torch.cuda, "CUDAGraph", Noted)


def test_graphs_whose_capture_failed_live_as_long_as_the_process() -> None:
    """In torch 2.11 the allocator of pinned memory goes on asking them."""
    made: list[weakref.ref[object]] = []

    def waiting() -> None:
        torch.ones(1).item()

    with cuda_lanes_on_the_cpu(), pytest.MonkeyPatch.context() as patch:
        note_graphs(patch, made)
        lane = CudaLane(CPU)
        graphed = lane.repeated(RandomStream(0, CPU), 1)
        for _ in range(3):
            graphed(waiting)
        assert "not permitted" in graphed.eager
        anchor, failed, second_anchor = made
        del lane, graphed
        gc.collect()
    assert failed() is not None
    assert anchor() is None
    assert second_anchor() is None


def test_graphs_whose_capture_was_ended_go_with_their_memory() -> None:
    """As where memory runs out: a second attempt needs what the first one had."""
    made: list[weakref.ref[object]] = []

    def too_much() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with cuda_lanes_on_the_cpu(), pytest.MonkeyPatch.context() as patch:
        note_graphs(patch, made)
        lane = CudaLane(CPU)
        graphed = lane.repeated(RandomStream(0, CPU), 0)
        with pytest.raises(torch.OutOfMemoryError):
            graphed(too_much)
        first_anchor, failed, *_, last_anchor = made
        assert first_anchor() is None
        assert failed() is None
        assert last_anchor() is lane._anchor


def test_anchors_of_former_pools_stay_as_long_as_there_are_graphs() -> None:
    values = torch.zeros(1)

    def counting() -> None:
        values.add_(1)

    def waiting() -> None:
        values.item()

    with cuda_lanes_on_the_cpu():
        lane = CudaLane(CPU)
        captured = lane.repeated(RandomStream(0, CPU), 1)
        for _ in range(3):
            captured(counting)
        failing = lane.repeated(RandomStream(0, CPU), 0)
        failing(waiting)
        lane.repeated(RandomStream(0, CPU), 1)  # as when a layer is fixed: the validation's graph stays
        assert len(lane._aside) == 1
        captured(counting)
        assert values.item() == 4
        del captured
        lane.repeated(RandomStream(0, CPU), 1)
        assert lane._aside == []


def test_a_device_that_failed_is_told_of_by_whoever_waits_for_it() -> None:
    class Broken:
        def query(self) -> bool:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    assert CudaMark(Broken()).reached()  # type: ignore[arg-type]


def test_a_cpu_captures_nothing_and_has_done_what_is_called() -> None:
    lane = make_lane(CPU)
    work = lane.repeated(RandomStream(0, CPU), 3)
    assert isinstance(work, Direct)
    assert work.eager == ""
    before, done = lane.mark(), []
    with lane.active():
        work(lambda: done.append(1))
    after = lane.mark()
    assert done == [1]
    assert after.seconds_since(before) >= 0 >= before.seconds_since(after)


def test_streams_of_draws_leave_each_other_and_the_default_alone() -> None:
    def draw(stream: RandomStream, times: int) -> list[float]:
        with stream.active():
            return torch.rand(times).tolist()  # type: ignore[no-any-return]

    before = torch.get_rng_state()
    alone = draw(RandomStream(1, CPU), 4)
    one, other = RandomStream(1, CPU), RandomStream(2, CPU)
    parts = [draw(one, 2), draw(other, 2), draw(one, 2)]
    assert parts[0] + parts[2] == alone
    assert parts[1] != parts[0]
    assert torch.equal(torch.get_rng_state(), before)
    state = one.state
    again = draw(one, 3)
    other.state = state
    assert draw(other, 3) == again


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> ResidentData:
    data = load(DataRequest("digits", tmp_path_factory.mktemp("data")))
    return make_resident(data, make_split(data.labels_N, data.n_train, 0.1, 160, seed=0), CPU)


def configuration(**sections: Any) -> Configuration:
    return Configuration.read(
        {
            "model": {"name": "vgg", "widths": [4], "convolutions": 1, "head": 8, "dropout": 0.1},
            "augmentation": {"shift": 1},
            "training": {"epochs": 4, "batch_size": 32, "ema": 0.9},
            **sections,
        }
    )


CONTRAST = {"loss": {"name": "supervised-contrastive", "pretraining": 0.5}}
CASES: dict[str, dict[str, Any]] = {"classes": {}, "contrast": CONTRAST}


def trained(config: Configuration, data: ResidentData, lane: CpuLane) -> tuple[Run, Tensor]:
    run = Run(config, data, CPU, 0, lane)
    while not run.finished:
        run.train_epoch()
    run.finish()
    return run, torch.cat([value.flatten().double() for value in run.network.state_dict().values()])


@pytest.mark.parametrize("case", CASES)
def test_every_phase_of_a_run_is_captured_anew_and_comes_to_the_same(digits: ResidentData, case: str) -> None:
    config = configuration(**CASES[case])
    lane = Replaying()
    run, weights = trained(config, digits, lane)
    phases, steps = len(run._phases), 4 * 5
    assert lane.captured == ["_step", "_judge"] * phases
    assert lane.replayed == steps - phases * WARM_UP + 4 - phases
    assert run.eager == ""
    assert torch.equal(weights, trained(config, digits, CpuLane(CPU))[1])


@pytest.mark.parametrize("case", CASES)
def test_a_run_that_is_dropped_is_gone_at_once(digits: ResidentData, case: str) -> None:
    """Its memory is the next one's: no collection of garbage has to come between."""
    run, _ = trained(configuration(**CASES[case]), digits, CpuLane(CPU))
    left: list[Callable[[], object]] = [weakref.ref(run), *map(weakref.ref, run._trainable)]
    gc.disable()
    try:
        del run
        assert not any(reference() is not None for reference in left)
    finally:
        gc.enable()
