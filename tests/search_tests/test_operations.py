"""What a step launches: operations are counted, since each is a kernel or more on a GPU."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from digit_runs import CPU, configuration, digits_of
from torch.utils._python_dispatch import TorchDispatchMode

from search.training.averaging import Lookahead
from search.training.engine import Run
from search.training.resident import ResidentData


class Counted(TorchDispatchMode):
    """Counts operations by name."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls[function.overloadpacket.__name__] += 1
        return function(*args, **kwargs or {})


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> ResidentData:
    return digits_of(tmp_path_factory.mktemp("data"))


def prepared(data: ResidentData, **sections: Any) -> Run:
    """A run whose optimizer has made its first step."""
    run = Run(configuration(**sections), data, CPU, 0)
    run.start_epoch()
    run.queue(1)
    return run


def step_of(run: Run, *due: Any) -> Counter[str]:
    with Counted() as counted, run._random.active():
        run._step(due)
    return counted.calls


BF16 = {"precision": "bf16"}


def test_weights_are_cast_by_one_operation_however_many_there_are(digits: ResidentData) -> None:
    casts = []
    for convolutions in (1, 3):
        model = {"convolutions": convolutions, "normalization": "none"}
        calls = step_of(prepared(digits, model=model, training=BF16))
        casts.append(calls["_to_copy"])
        assert calls["_foreach_copy_"] == 2  # gradients, and weights
    assert casts[0] == casts[1]


def test_a_validation_casts_no_weight_for_each_batch(digits: ResidentData) -> None:
    counts = []
    for batch in (500, 60):
        run = prepared(digits, training=BF16)
        object.__setattr__(run._evaluation, "batch", batch)
        with Counted() as counted:
            run._judge()
        batches = len(run._evaluation.chunks(digits.val_indices))
        counts.append((counted.calls["_to_copy"], batches))
        assert counted.calls["_foreach_copy_"] == 1
    (few, one), (many, several) = counts
    assert several > one
    per_batch = (many - few) / (several - one)
    assert per_batch <= 8  # pixels, features and logits; 8 weights and biases would come on top


def test_batches_are_not_counted(digits: ResidentData) -> None:
    run = prepared(digits, model={"convolutions": 3})
    assert step_of(run)["add_"] == 1  # the count of steps
    assert not any("num_batches_tracked" in name for name in run.network.state_dict())


def test_lookahead_costs_nothing_between_two_meetings(digits: ResidentData) -> None:
    run = prepared(digits, optimizer={"lookahead_steps": 5})
    (lookahead,) = run._averages
    assert isinstance(lookahead, Lookahead)
    plain = step_of(prepared(digits))
    assert step_of(run) == plain
    assert sum(step_of(run, lookahead).values()) > sum(plain.values())


def test_labels_are_searched_for_in_targets_only_where_they_are_mixed(digits: ResidentData) -> None:
    mixed, plain = (step_of(prepared(digits, augmentation={"mixup": mixup})) for mixup in (0.2, 0.0))
    assert (mixed["argmax"], plain["argmax"]) == (2, 1)
