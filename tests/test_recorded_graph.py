"""That graphs recorded on a CPU behave as captured ones: what is frozen, forbidden and left alone."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from recorded_graph import RecordedGraph, cuda_lanes_on_the_cpu
from torch import Tensor, nn

from search.training.lanes import CudaLane, Graphed
from search.training.randomness import RandomStream

CPU = torch.device("cpu")


def captured(work: Callable[[], object]) -> RecordedGraph:
    graph = RecordedGraph()
    graph.capture_begin()
    work()
    graph.capture_end()
    return graph


def test_numbers_of_the_host_are_frozen_and_those_of_tensors_are_not() -> None:
    rate, rates, moved = 1.0, torch.ones(()), torch.zeros(2)

    def step() -> None:
        moved.add_(torch.stack([rates * rate, rates]))

    graph = captured(step)
    graph.replay()
    rate = 100.0
    rates.fill_(100.0)
    graph.replay()
    assert moved.tolist() == [101.0, 101.0]  # the tensor's 1 and then 100, the host's 1 both times
    step()
    assert moved[0] == 101.0 + 100.0 * 100.0


def test_nothing_outside_changes_during_a_capture() -> None:
    values = torch.arange(4.0)
    many = [torch.ones(2), torch.ones(3)]
    given, before, norm = torch.zeros(4), torch.get_rng_state(), nn.BatchNorm1d(4)

    def work() -> None:
        values.mul_(2)
        values[1:].fill_(7)
        torch._foreach_add_(many, 1.0)
        torch.add(values, 1, out=given)
        torch.rand(9)
        values.uniform_()
        norm(torch.rand(8, 4))
        values[values > 5] = 0.0

    graph = captured(work)
    assert values.tolist() == [0, 1, 2, 3]
    assert [each.unique().tolist() for each in many] == [[1], [1]]
    assert given.tolist() == [0] * 4
    assert norm.running_mean.tolist() == [0] * 4
    assert norm.num_batches_tracked == 0
    assert torch.equal(torch.get_rng_state(), before)
    graph.replay()
    assert [each.unique().tolist() for each in many] == [[2], [2]]
    assert given.tolist() == [1, 8, 8, 8]
    assert norm.running_mean.abs().min() > 0
    assert norm.num_batches_tracked == 1


def test_memory_that_was_freed_is_missed_at_the_next_replay() -> None:
    kept, others = torch.zeros(2), [torch.ones(2)]

    def work() -> None:
        kept.add_(others[0])

    graph = captured(work)
    graph.replay()
    others.clear()
    with pytest.raises(RuntimeError, match="freed"):
        graph.replay()
    assert kept.tolist() == [1, 1]


def test_draws_go_on_from_replay_to_replay_as_without_a_graph() -> None:
    drawn_3 = torch.zeros(3)
    mask_9 = torch.zeros(9)

    def draw() -> None:
        drawn_3.copy_(torch.rand(3) + torch.empty(3).uniform_())
        mask_9.copy_(nn.functional.dropout(torch.ones(9), 0.5))

    def thrice(do: Callable[[], None]) -> list[float]:
        torch.manual_seed(3)
        drawn: list[float] = []
        for _ in range(3):
            do()
            drawn += drawn_3.tolist() + mask_9.tolist()
        return drawn

    assert thrice(captured(draw).replay) == thrice(draw)


READS: dict[str, Callable[[Tensor], object]] = {
    "item": lambda values: values.sum().item(),
    "float": lambda values: float(values.sum()),
    "branch": lambda values: 1 if values.sum() > 0 else 0,
    "tolist": lambda values: values.tolist(),
    "numpy": lambda values: values.numpy(),
    "to the host": lambda values: values.cpu(),
    "nonzero": lambda values: values.nonzero(),
    "masked_select": lambda values: values.masked_select(values > 0),
    "mask": lambda values: values[values > 0],
    "assignment by a mask": lambda values: values.__setitem__(
        values > 1, torch.zeros(2, device=values.device)
    ),
    "equal": lambda values: torch.equal(values, values),
    "unique": lambda values: values.unique(),
    "constant": lambda values: values * torch.tensor([1.0, 2.0, 3.0, 4.0]),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_what_the_host_would_wait_for_is_refused_and_spoils_the_capture(
    read: Callable[[Tensor], object],
) -> None:
    values, graph = torch.arange(4.0), RecordedGraph()
    graph.capture_begin(capture_error_mode="thread_local")
    with pytest.raises(RuntimeError, match="not permitted when stream is capturing"):
        read(values)
    with pytest.raises(RuntimeError, match="previous error"):
        graph.capture_end()
    read(values)
    with pytest.raises(RuntimeError, match="without a preceding successful capture"):
        graph.replay()


def test_replays_write_to_the_memory_of_the_capture() -> None:
    values, seen = torch.arange(6.0).reshape(2, 3), []

    def work() -> None:
        doubled = values.t() * 2
        seen[:] = [doubled, doubled[1:], doubled.contiguous().sum()]

    graph = captured(work)
    kept = list(seen)
    for scale in (1, 10):
        values.copy_(torch.arange(6.0).reshape(2, 3) * scale)
        graph.replay()
        assert torch.equal(kept[0], values.t() * 2)
        assert torch.equal(kept[1], kept[0][1:])
        assert kept[2] == 30 * scale
    assert kept[0].stride() == (values.t() * 2).stride()


def test_one_capture_at_a_time_and_none_after_a_reset() -> None:
    earlier, graph, other = captured(lambda: None), RecordedGraph(), RecordedGraph()
    graph.capture_begin(pool=earlier.pool())
    for forbidden in (other.capture_begin, graph.replay, earlier.replay, graph.pool):
        with pytest.raises(RuntimeError):
            forbidden()
    graph.capture_end()
    assert graph.pool() == earlier.pool() != captured(lambda: None).pool()
    graph.replay()
    graph.reset()
    with pytest.raises(RuntimeError, match="without a preceding"):
        graph.replay()


def test_one_hot_labels_are_not_checked_as_on_a_gpu() -> None:
    labels_N, one_hot_NK = torch.tensor([2, 0]), torch.zeros(2, 3, dtype=torch.int64)
    graph = captured(lambda: one_hot_NK.copy_(nn.functional.one_hot(labels_N, 3)))
    labels_N.copy_(torch.tensor([1, 2]))
    graph.replay()
    assert torch.equal(one_hot_NK, nn.functional.one_hot(labels_N, 3))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    pooled = nn.Sequential(convolution, nn.BatchNorm2d(4), nn.GELU(), nn.MaxPool2d(2), nn.Flatten())
    return nn.Sequential(*pooled, nn.Dropout(0.3), nn.Linear(36, 5))


OPTIMIZERS: dict[str, Callable[[list[nn.Parameter], Tensor], torch.optim.Optimizer]] = {
    "sgd": lambda weights, lr: torch.optim.SGD(weights, lr, momentum=0.9, nesterov=True, fused=True),
    "adam": lambda weights, lr: torch.optim.Adam(weights, lr, fused=True),
    "sgd, for each": lambda weights, _lr: torch.optim.SGD(weights, 0.05, momentum=0.9, foreach=True),
}


class Training:
    """A network that learns noise, by a step of tensors alone."""

    def __init__(self, optimizer: str, autocast: bool) -> None:
        self.network = network()
        self.lr = torch.tensor(0.05)
        self.optimizer = OPTIMIZERS[optimizer](list(self.network.parameters()), self.lr)
        self.autocast = torch.autocast("cpu", torch.bfloat16, enabled=autocast, cache_enabled=False)
        self.loss = torch.zeros(())

    def step(self) -> None:
        images_NCHW, labels_N = torch.rand(8, 3, 8, 8), torch.randint(0, 5, (8,))
        with self.autocast:
            logits_NK = self.network(images_NCHW)
        loss = nn.functional.cross_entropy(logits_NK.float(), labels_N, label_smoothing=0.1)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.loss.copy_(loss.detach())
        self.lr.mul_(0.9)

    def state(self) -> list[Tensor]:
        return [value.clone() for value in (*self.network.state_dict().values(), self.loss, self.lr)]


@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_step_of_training_repeated_from_a_recording_has_the_same_bits(
    optimizer: str, autocast: bool
) -> None:
    plain, recorded = Training(optimizer, autocast), Training(optimizer, autocast)
    with RandomStream(5, CPU).active():
        losses = [(plain.step(), plain.loss.item())[1] for _ in range(8)]
    with cuda_lanes_on_the_cpu():
        lane, random = CudaLane(CPU), RandomStream(5, CPU)
        repeated = lane.repeated(random, 2)
        assert isinstance(repeated, Graphed)
        again = []
        for _ in range(8):
            with lane.active(), random.active():
                repeated(recorded.step)
            again.append(recorded.loss.item())
    assert repeated.eager == ""
    assert isinstance(repeated._graph, RecordedGraph)
    assert again == losses
    assert len(set(losses)) == 8
    assert all(map(torch.equal, recorded.state(), plain.state()))


def test_a_step_counter_of_the_host_is_seen_to_stand_still() -> None:
    """What a wrong step looks like: the recording repeats the share of the step that was captured."""
    weight, steps = torch.zeros(()), [0]

    def step() -> None:
        steps[0] += 1
        weight.add_(1.0 / steps[0])

    graph = captured(step)
    for _ in range(3):
        graph.replay()
    assert steps == [1]
    assert weight == 3.0


def test_the_lane_goes_on_with_new_graphs_after_work_that_cannot_be_captured() -> None:
    with cuda_lanes_on_the_cpu():
        lane, random, values = CudaLane(CPU), RandomStream(5, CPU), torch.zeros(3)
        expected = copy.deepcopy(random.state)

        def reading() -> None:
            values.add_(torch.rand(3))
            assert values.sum().item() >= 0

        repeated = lane.repeated(random, 0)
        with lane.active(), random.active():
            repeated(reading)
        assert "capturing" in repeated.eager
        random.state, once = expected, values.clone()
        with random.active():
            assert torch.equal(torch.rand(3), once)  # the failed capture drew nothing
        with lane.active():
            graph = lane.capture(lambda: values.fill_(2.0))
        graph.replay()
        assert values.tolist() == [2.0] * 3
        assert not torch.cuda.is_current_stream_capturing()
