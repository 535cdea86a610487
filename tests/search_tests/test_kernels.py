"""How cuDNN is told to choose, which is seen on a machine without it, too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from digit_runs import CPU, configuration, digits_of
from torch.backends import cudnn

from search.training import kernels
from search.training.engine import Run
from search.training.kernels import chosen_kernels
from search.training.resident import ResidentData


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> ResidentData:
    return digits_of(tmp_path_factory.mktemp("data"))


def chosen() -> tuple[bool, bool]:
    return cudnn.benchmark, cudnn.deterministic


@pytest.fixture(params=[(False, False), (True, True)], ids=["defaults", "a user's own"])
def before(request: pytest.FixtureRequest) -> Iterator[tuple[bool, bool]]:
    former = chosen()
    cudnn.benchmark, cudnn.deterministic = request.param
    yield request.param
    cudnn.benchmark, cudnn.deterministic = former


def seen_by(run: Run) -> set[tuple[bool, bool]]:
    """What holds whenever the run's network is called: in training, validation and at the end."""
    seen: set[tuple[bool, bool]] = set()

    def see(*_: Any) -> None:
        seen.add(chosen())

    run.network.register_forward_hook(see)
    run.train_epoch()
    run.finish()
    run.confusion()
    return seen


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_run_is_computed_as_its_configuration_says_and_leaves_the_choice_as_it_was(
    digits: ResidentData, before: tuple[bool, bool], deterministic: bool
) -> None:
    config = configuration(training={"deterministic": deterministic, "test_time_augmentation": "mirror"})
    assert seen_by(Run(config, digits, CPU, 0)) == {(kernels.AUTOTUNE, deterministic)}
    assert chosen() == before


def test_runs_side_by_side_choose_each_for_itself(digits: ResidentData) -> None:
    runs = [Run(configuration(training={"deterministic": each}), digits, CPU, 0) for each in (True, False)]
    seen = []
    for run in runs:
        run.network.register_forward_hook(lambda *_: seen.append(cudnn.deterministic))
        run.start_epoch()
    for _ in range(2):
        for run in runs:
            run.queue(1)
    assert seen == [True, False, True, False]


def test_what_is_deterministic_is_never_autotuned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "AUTOTUNE", True)
    with chosen_kernels(deterministic=False):
        assert chosen() == (True, False)
    with chosen_kernels(deterministic=True):
        assert chosen() == (False, True)


def test_the_choice_is_put_back_after_an_error() -> None:
    former = chosen()
    with pytest.raises(KeyError), chosen_kernels(deterministic=True):
        raise KeyError
    assert chosen() == former
