"""Several lanes in one worker: exactly the slots owed, the same search each time, and nothing lost."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.trial import FrozenTrial, TrialState

from search import driver, objective
from search.data.request import DataRequest
from search.data.sources import ImageData, load
from search.data.split import Split, make_split
from search.driver import Driver
from search.objective import TrialRun
from search.prepare import StudyData, adapt, data_record, split_record
from search.training.engine import Run
from search.training.lanes import CpuLane, Mark
from search.watchdog import Watchdog
from spaces.space import Space
from studies import live
from studies.processes import process_name
from studies.record import Drawing, StudyRecord, curve_of, reason_of, slot_of
from studies.storage import open_storage
from studies.study import SearchStudy, open_study

CPU = torch.device("cpu")
LANES = 3
SPACE = """
question: A test?
base:
  model: {name: vgg, widths: [4], convolutions: 1, head: 0}
  training: {epochs: 3, batch_size: 32}
pruning_warmup: 0.3
parameters:
  optimizer.lr: {float: [1e-4, 1.0], log: true, role: nuisance}
  model.widths: {choice: {narrow: [4], wide: [8]}, role: scientific}
"""


@pytest.fixture(scope="module")
def request_of_data(tmp_path_factory: pytest.TempPathFactory) -> DataRequest:
    return DataRequest("digits", tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def digits(request_of_data: DataRequest) -> tuple[ImageData, Split]:
    data = load(request_of_data)
    return data, make_split(data.labels_N, data.n_train, 0.1, 100, seed=0)


Make = Callable[..., SearchStudy]


@pytest.fixture
def make(tmp_path: Path, digits: tuple[ImageData, Split]) -> Iterator[Make]:
    """Studies of one space, all in one database."""
    data, split = digits
    adapted = adapt(Space.read(SPACE, "tiny.yaml", "tiny"), data, None, "fp32").space
    with closing(open_storage(f"sqlite:///{tmp_path / 'studies.db'}", create=True)) as storage:

        def made(
            name: str, total: int, sampler: str = "random", pruner: str = "none", batch_size: int = 32
        ) -> SearchStudy:
            space = adapted.with_base({"training.batch_size": batch_size})
            record = StudyRecord(
                space_name="tiny", space=space.to_yaml(), space_fingerprint=space.fingerprint(),
                data=data_record(data, DataRequest("digits")), split=split_record(split), epochs=3,
                precision="fp32", seed=0, sampler=sampler, pruner=pruner,
            )  # fmt: skip
            return open_study(storage, name, record, total)

        yield made


@pytest.fixture
def drive(request_of_data: DataRequest) -> Callable[..., None]:
    def driven(
        study: SearchStudy,
        lanes: int = LANES,
        ahead: int = 1,
        stopping: Callable[[], bool] = lambda: False,
        lane: type[CpuLane] = CpuLane,
    ) -> None:
        data = StudyData(request_of_data, study.data, CPU)
        drawing = Drawing(sampler=study.record.sampler, parallel=lanes, ahead=ahead)
        where = [lane(CPU) for _ in range(lanes)]
        Driver(study, data, where, process_name(os.getpid()), drawing).drive(stopping)

    return driven


def told(trial: FrozenTrial) -> dict[str, Any]:
    """What a search comes to in one trial."""
    return {
        "slot": slot_of(trial),
        "params": trial.params,
        "state": trial.state,
        "reason": reason_of(trial),
        "curve": curve_of(trial),
        "value": trial.value,
    }


def by_slot(study: SearchStudy) -> dict[int | None, dict[str, Any]]:
    return {slot_of(trial): told(trial) for trial in study.trials()}


def test_exactly_the_slots_that_are_owed_are_closed(make: Make, drive: Callable[..., None]) -> None:
    study = make("s", 7)
    drive(study)
    assert sorted(by_slot(study)) == list(range(7))
    assert [trial.state for trial in study.trials()] == [TrialState.COMPLETE] * 7
    study.set_total(8)
    drive(study)
    assert len(study.trials()) == study.slots().closed() == 8


@pytest.mark.slow
def test_a_search_is_the_same_each_time_however_long_reports_wait(
    make: Make, drive: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    searches = []
    for name, every in (("one", 0.0), ("other", 1e9)):
        monkeypatch.setattr(live, "EVERY", every)
        study = make(name, 15, sampler="tpe", pruner="asha")
        drive(study)
        searches.append([told(trial) for trial in study.trials()])
    assert searches[0] == searches[1]
    states = {trial["state"] for trial in searches[0]}
    assert states == {TrialState.COMPLETE, TrialState.PRUNED}


def test_all_epochs_but_the_first_of_a_worker_are_expected_to_take_the_usual_time(
    make: Make, drive: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected: list[float | None] = []
    watching = Watchdog.watching

    def noted(self: Watchdog, usual: float | None) -> AbstractContextManager[None]:
        expected.append(usual)
        return watching(self, usual)

    monkeypatch.setattr(Watchdog, "watching", noted)
    drive(make("s", 3), lanes=1, ahead=0)
    each = 3  # it is begun, queued, and waited for
    first, others = expected[:each], expected[each:]
    assert first == [None] * each
    assert len(others) == each * (3 * 3 - 1)
    assert all(usual is not None and usual > 0 for usual in others)


def test_a_trial_does_not_depend_on_its_neighbours(make: Make, drive: Callable[..., None]) -> None:
    alone, beside = make("alone", 6), make("beside", 6)
    drive(alone, lanes=1, ahead=0)
    drive(beside)
    assert by_slot(alone) == by_slot(beside)
    assert len({str(trial["curve"]) for trial in by_slot(alone).values()}) > 1


def test_one_slot_is_drawn_ahead_and_all_are_put_back_when_stopped(
    make: Make, drive: Callable[..., None]
) -> None:
    study = make("s", 9)
    running: list[int] = []

    def stopping() -> bool:
        running.append(sum(trial.state == TrialState.RUNNING for trial in study.trials()))
        return len(running) == 6

    drive(study, stopping=stopping)
    assert max(running) == running[-1] == LANES + 1
    assert not any(trial.state == TrialState.RUNNING for trial in study.trials())
    interrupted = [trial for trial in study.trials() if reason_of(trial) == "interrupted"]
    assert len(interrupted) == LANES + 1
    assert any(not curve_of(trial) for trial in interrupted)
    assert not any(study.slots().is_closed(slot_of(trial) or 0) for trial in interrupted)
    drive(study)
    closed = [slot_of(trial) for trial in study.trials() if trial.state == TrialState.COMPLETE]
    assert sorted(closed) == list(range(9))
    unbroken = make("unbroken", 9)
    drive(unbroken)
    finished = {slot: trial for slot, trial in by_slot(study).items() if trial["reason"] == "finished"}
    assert finished == by_slot(unbroken)


class Queue:
    """What was queued for the runs of a worker, in order; the second slice is one too many for the memory, if
    there is an error that says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error: Exception | None = None
        self.order: list[Run] = []
        queue = Run.queue

        def noted(run: Run, steps: int) -> bool:
            self.order.append(run)
            if self.error and len(self.order) == 2:
                raise self.error
            return queue(run, steps)

        monkeypatch.setattr(objective.Run, "queue", noted)


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    return Queue(monkeypatch)


NO_ENGINE = "GET was unable to find an engine to execute this computation"
FULL = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: out of memory"),
]


@pytest.mark.parametrize("error", [*FULL, RuntimeError(NO_ENGINE)], ids=str)
def test_a_trial_that_is_crowded_out_costs_a_lane_and_is_tried_again(
    make: Make, drive: Callable[..., None], queue: Queue, error: Exception
) -> None:
    queue.error = error
    study = make("s", 5)
    running: list[int] = []

    def stopping() -> bool:
        running.append(sum(trial.state == TrialState.RUNNING for trial in study.trials()))
        return False

    drive(study, stopping=stopping, ahead=0)
    assert [reason_of(trial) for trial in study.trials()].count("crowded out") == 1
    assert [reason_of(trial) for trial in study.trials()].count("finished") == 5
    assert [reason_of(trial) for trial in study.slots().attempts[1]] == ["crowded out", "finished"]
    assert max(running[2:]) == LANES - 1


@pytest.mark.parametrize("error", FULL, ids=str)
def test_a_trial_that_does_not_fit_alone_is_given_up(
    make: Make, drive: Callable[..., None], queue: Queue, error: Exception
) -> None:
    queue.error = error
    study = make("s", 3)
    drive(study, lanes=1)
    reasons = [reason_of(trial) for trial in study.trials()]
    assert reasons == ["out of memory", "finished", "finished"]
    assert study.slots().failed_for_good(0)
    assert study.is_complete()


def test_a_missing_algorithm_is_no_lack_of_memory_where_a_trial_is_alone(
    make: Make, drive: Callable[..., None], queue: Queue
) -> None:
    queue.error = RuntimeError(NO_ENGINE)
    study = make("s", 1)
    drive(study, lanes=1)
    assert [reason_of(trial) for trial in study.trials()] == ["error", "finished"]


def test_epochs_are_queued_in_slices_by_turns(
    make: Make, drive: Callable[..., None], queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "SLICE", 2)
    study = make("s", LANES, batch_size=8)  # 12 steps an epoch
    drive(study)
    names = {id(run): name for name, run in zip("abc", dict.fromkeys(queue.order), strict=True)}
    order = "".join(names[id(run)] for run in queue.order)
    assert order.startswith("abc" * 5)
    assert all(order.count(name) == 3 * 6 for name in "abc")
    sliced = by_slot(study)
    monkeypatch.setattr(driver, "SLICE", 1000)
    whole = make("whole", LANES, batch_size=8)
    drive(whole)
    assert by_slot(whole) == sliced


class Slow(CpuLane):
    """A lane whose epochs are never over before they are waited for."""

    def mark(self) -> Mark:
        mark = super().mark()
        mark.reached = lambda: False  # type: ignore[method-assign]
        return mark


def test_an_epoch_that_is_over_is_settled_before_the_others_are_queued(
    make: Make, drive: Callable[..., None], queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled: list[int] = []
    settle = TrialRun.settle

    def noted(run: TrialRun) -> bool:
        settled.append(len(queue.order))
        return settle(run)

    monkeypatch.setattr(TrialRun, "settle", noted)
    monkeypatch.setattr(driver, "SLICE", 2)
    drive(make("done", 2, batch_size=8), lanes=2)
    before = len(queue.order)
    assert settled[0] == 2 * 6 - 1  # the second one's last slice is not queued yet
    settled.clear()
    drive(make("waiting", 2, batch_size=8), lanes=2, lane=Slow)
    assert settled[0] - before == 2 * 6
