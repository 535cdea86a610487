"""What becomes of a study when its processes are killed, stopped, hung or told to leave, at chosen points."""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.trial import FrozenTrial, TrialState
from rigging import SMALL, Fault, Rig, rigged_worker
from safetensors.torch import load_file

from search.checkpoints import Checkpoints
from search.data.request import DataRequest
from search.data.sources import load
from search.data.split import make_split
from search.objective import Kept, TrialRun, rounded
from search.placement import Placement
from search.prepare import adapt, data_record, split_record
from search.training.resident import ResidentData, make_resident
from search.workers import WorkerOrder, prepare_workers
from spaces.space import Space
from studies.base import Claim
from studies.folders import checkpoint_folder
from studies.record import Drawing, StudyRecord, history_of, outcome_of, slot_of
from studies.slots import Slots
from studies.storage import open_storage
from studies.study import SearchStudy, open_study

CPU = torch.device("cpu")
EPOCHS = 4
SPACE = f"""
question: A test?
base:
  augmentation: {{shift: 1}}
  model: {{name: vgg, widths: [16], convolutions: 1, head: 0, dropout: 0.2}}
  optimizer: {{name: sgd, lr: 0.05, momentum: 0.9, nesterov: true}}
  schedule: {{name: cosine}}
  training: {{epochs: {EPOCHS}, batch_size: 32, ema: 0.9}}
parameters:
  optimizer.lr: {{float: [1e-3, 1e-1], log: true, role: nuisance}}
"""
PATIENCE = 60
"""Seconds to wait for anything at all on a busy machine."""
Begin = Callable[..., BaseProcess]
Results = dict[int, tuple[object, ...]]


@dataclass(frozen=True)
class Digits:
    """The data of all these tests."""

    record: StudyRecord
    resident: ResidentData
    request: DataRequest


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    request = DataRequest("digits", tmp_path_factory.mktemp("data"))
    data = load(request)
    split = make_split(data.labels_N, data.n_train, 0.1, 200, seed=0)
    space = adapt(Space.read(SPACE, "tiny.yaml", "tiny"), data, None, "fp32").space
    record = StudyRecord(
        space_name="tiny",
        space=space.to_yaml(),
        space_fingerprint=space.fingerprint(),
        data=data_record(data, request),
        split=split_record(split),
        epochs=EPOCHS,
        precision="fp32",
        seed=0,
        sampler="random",
        pruner="none",
        mark="m",
    )
    return Digits(record, make_resident(data, split, CPU), request)


@pytest.fixture
def study(digits: Digits, sqlite_url: str) -> Iterator[SearchStudy]:
    """A study that owes two slots."""
    storage = open_storage(sqlite_url, create=True)
    yield open_study(storage, "s", digits.record, 2)
    storage.close()


@pytest.fixture(scope="module")
def undisturbed(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What each slot's training comes to."""
    storage = open_storage(f"sqlite:///{tmp_path_factory.mktemp('undisturbed') / 's.db'}", create=True)
    study = open_study(storage, "s", digits.record, 2)
    while claim := claimed(study):
        finish(TrialRun(study, claim, digits.resident))
    storage.close()
    return results(study)


def claimed(study: SearchStudy) -> Claim | None:
    return study.claim("here", Drawing(sampler="random"))


def finish(run: TrialRun) -> None:
    while run.advance():
        pass


def results(study: SearchStudy) -> Results:
    """By slot, what does not depend on when and how often it was trained."""
    return {
        int(slot_of(trial) or 0): (
            trial.params,
            trial.value,
            trial.intermediate_values,
            history_of(trial).model_copy(update={"seconds": ()}),
        )
        for trial in Slots(study.trials()).closing_trials()
    }


def closed_once(study: SearchStudy) -> bool:
    """Whether each slot owed has one closing attempt, and nothing is left that runs, waits or is on disk."""
    trials = study.trials()
    closing = sorted(int(slot_of(t) or 0) for t in trials if t.state == TrialState.COMPLETE)
    return closing == list(range(study.total() or 0)) and all(t.state.is_finished() for t in trials)


def attempts(study: SearchStudy, slot: int = 0) -> list[FrozenTrial]:
    return Slots(study.trials()).attempts[slot]


def checkpoints(study: SearchStudy) -> Checkpoints:
    return Checkpoints(folder_of(study), every=0.0)


def folder_of(study: SearchStudy) -> Path:
    return checkpoint_folder(study.storage.engine.url, study)


def seconds_kept(study: SearchStudy, slot: int = 0) -> tuple[float | None, ...]:
    """How long the epochs in the slot's checkpoint took, as a study records it: no epoch takes the same time
    twice, so that this tells whether it was trained again."""
    file = folder_of(study) / f"{slot}.checkpoint"
    history = state_in(file)["state"]["history"] if file.exists() else []
    return tuple(rounded(report["seconds"]) for report in history)


def state_in(file: Path) -> dict[str, Any]:
    _, _, content = file.read_bytes().partition(b"\n")
    state: dict[str, Any] = torch.load(io.BytesIO(content), weights_only=True)
    return state


@pytest.fixture
def begin(digits: Digits, sqlite_url: str) -> Iterator[Begin]:
    """Start a worker process of the study, rigged; whatever still runs at the end of the test is killed."""
    order = WorkerOrder(sqlite_url, "s", digits.request, Placement(("cpu",), 1), "random", "none")
    prepare_workers()
    begun: list[BaseProcess] = []

    def begin(*faults: Fault, **times: float) -> BaseProcess:
        rig = Rig(faults=faults, **times)
        context = multiprocessing.get_context("forkserver")
        process = context.Process(target=rigged_worker, args=(rig, order, "cpu"), daemon=True)
        process.start()
        begun.append(process)
        return process

    yield begin
    for process in begun:
        process.kill()
        process.join()


def soon(happened: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def state_of(process: BaseProcess) -> str:
    """As the kernel calls it: T for one that is stopped."""
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]


def ended(process: BaseProcess) -> int:
    """Wait for the end; the exit code."""
    process.join(PATIENCE)
    assert process.exitcode is not None
    return process.exitcode


KILLS: dict[str, tuple[Fault, int, int]] = {
    "before the first sign of life": (Fault("studies.base:record_heartbeats", "kill"), 1, 0),
    "before it is drawn": (Fault("studies.study:SearchStudy._draw", "kill"), 1, 0),
    "before what was drawn is written": (Fault("studies.study:write_trial", "kill"), 1, 0),
    "right after the claim": (Fault("studies.base:Study.claim", "kill", after=True), 1, 0),
    "in training": (Fault("search.training.engine:Run.end_epoch", "kill", call=3), 1, 2),
    "in the middle of writing a checkpoint": (
        Fault("search.checkpoints:Checkpoints.save", "cut", call=2),
        1,
        1,
    ),
    "before a checkpoint is renamed": (Fault("pathlib:Path.replace", "kill", call=2), 1, 1),
    "after a checkpoint": (Fault("search.checkpoints:Checkpoints.save", "kill", call=2, after=True), 1, 2),
    "before the result": (Fault("studies.base:Study.close", "kill"), 1, EPOCHS - 1),
    "in the middle of writing the result": (
        Fault("optuna.storages:RDBStorage._set_trial_value_without_commit", "kill"),
        1,
        EPOCHS - 1,
    ),
}
"""Where a worker is killed in its first trial, the attempts that this costs, and the epochs kept."""


@pytest.mark.slow
@pytest.mark.parametrize("when", KILLS)
def test_after_a_kill_the_next_worker_goes_on_from_the_checkpoint(
    when: str, begin: Begin, study: SearchStudy, undisturbed: Results
) -> None:
    fault, failures, epochs = KILLS[when]
    assert ended(begin(fault)) == -(signal.SIGXFSZ if fault.act == "cut" else signal.SIGKILL)
    drafts = [file.stat().st_size for file in folder_of(study).glob(".*")]
    assert drafts == ([SMALL] if fault.act == "cut" else drafts)
    kept = seconds_kept(study)
    assert len(kept) == epochs

    assert ended(begin()) == 0
    assert closed_once(study)
    assert results(study) == undisturbed
    *failed, closing = attempts(study)
    assert [outcome_of(trial).reason for trial in failed] == ["killed"] * failures
    assert history_of(closing).seconds[:epochs] == kept  # they were not trained again
    assert not list(folder_of(study).iterdir())


@pytest.mark.slow
def test_a_worker_killed_after_its_result_has_closed_the_slot(
    begin: Begin, study: SearchStudy, undisturbed: Results
) -> None:
    assert ended(begin(Fault("studies.base:end_trial", "kill", after=True))) == -signal.SIGKILL
    assert seconds_kept(study)
    assert ended(begin()) == 0
    assert closed_once(study)
    assert results(study) == undisturbed
    assert len(study.trials()) == 2
    checkpoints(study).sweep({0, 1})
    assert not folder_of(study).exists()


@pytest.mark.slow
def test_a_worker_killed_between_failing_a_dead_ones_trial_and_its_retry_loses_neither(
    begin: Begin, study: SearchStudy, undisturbed: Results
) -> None:
    in_training = Fault("search.training.engine:Run.end_epoch", "kill", call=3)
    assert ended(begin(in_training)) == -signal.SIGKILL
    kept = seconds_kept(study)
    assert ended(begin(Fault("studies.base:end_trial", "kill", after=True))) == -signal.SIGKILL
    assert [trial.state for trial in study.trials()] == [TrialState.FAIL]
    assert ended(begin(Fault("studies.base:Study._new_attempt", "kill", after=True))) == -signal.SIGKILL
    assert [trial.state for trial in study.trials()] == [TrialState.FAIL, TrialState.RUNNING]
    assert ended(begin()) == 0
    assert closed_once(study)
    assert results(study) == undisturbed
    assert [outcome_of(trial).reason for trial in attempts(study)] == ["killed", "killed", "finished"]
    assert history_of(attempts(study)[2]).seconds[:2] == kept


@pytest.mark.slow
@pytest.mark.parametrize("at", ["search.training.engine:Run.end_epoch", "studies.base:Study.close"])
def test_a_worker_that_wakes_when_its_trial_was_given_away_writes_nothing_more(
    at: str, begin: Begin, study: SearchStudy, undisturbed: Results
) -> None:
    study.set_total(1)
    sleeper = begin(Fault(at, "stop", call=2 if "Run" in at else 1), interval=0.2)
    assert soon(lambda: state_of(sleeper) == "T")
    assert ended(begin(interval=0.2, grace=1)) == 0
    assert closed_once(study)
    before = [trial.__dict__ for trial in study.trials()]
    assert [outcome_of(trial).reason for trial in study.trials()] == ["lost", "finished"]

    os.kill(sleeper.pid, signal.SIGCONT)
    assert ended(sleeper) == 0
    assert [trial.__dict__ for trial in study.trials()] == before
    assert results(study) == {0: undisturbed[0]}
    assert not list(folder_of(study).iterdir())


@pytest.mark.slow
def test_a_worker_whose_epoch_hangs_is_ended_and_its_trial_goes_on_elsewhere(
    begin: Begin, study: SearchStudy, undisturbed: Results
) -> None:
    assert ended(begin(Fault("search.training.engine:Run.end_epoch", "hang", call=3), least=0.5)) == 1
    kept = seconds_kept(study)
    assert len(kept) == 2
    assert ended(begin()) == 0
    hung, closing = attempts(study)
    assert (outcome_of(hung).reason, outcome_of(closing).reason) == ("error", "finished")
    assert "are usual: its worker hung" in outcome_of(hung).message
    assert history_of(closing).seconds[:2] == kept
    assert closed_once(study)
    assert results(study) == undisturbed


@pytest.mark.slow
def test_sigterm_puts_the_trial_back_with_its_checkpoint(
    begin: Begin, study: SearchStudy, undisturbed: Results
) -> None:
    told = begin(Fault("search.training.engine:Run.end_epoch", "stop", call=2), every=PATIENCE)
    assert soon(lambda: state_of(told) == "T")
    assert not seconds_kept(study)  # none was due yet
    told.terminate()
    os.kill(told.pid, signal.SIGCONT)
    assert ended(told) == 0
    assert [outcome_of(trial).reason for trial in study.trials()] == ["interrupted"]
    kept = seconds_kept(study)
    assert len(kept) == 2
    assert ended(begin()) == 0
    assert history_of(attempts(study)[1]).seconds[:2] == kept
    assert results(study) == undisturbed


@pytest.mark.slow
def test_where_checkpoints_find_a_full_disk_trials_end_well_and_say_so(
    begin: Begin, study: SearchStudy, undisturbed: Results
) -> None:
    assert ended(begin(Fault("search.checkpoints:Checkpoints.save", "full", call=2))) == 0
    assert closed_once(study)
    assert results(study) == undisturbed
    message = "no checkpoint could be written: [Errno 27] File too large"
    assert [outcome_of(trial).message for trial in study.trials()] == [message] * 2
    assert not list(folder_of(study).iterdir())


def test_a_trial_that_goes_on_from_its_checkpoint_ends_with_the_weights_of_an_undisturbed_one(
    digits: Digits, study: SearchStudy, tmp_path: Path
) -> None:
    finish(TrialRun(study, replace(claimed(study), keep="whole"), digits.resident, kept=Kept(tmp_path)))
    again = open_study(study.storage, "again", digits.record, 1)
    for ends in range(1, EPOCHS):  # each of them with one epoch more
        killed = TrialRun(again, claimed(again), digits.resident, kept=Kept(None, checkpoints(again)))
        assert killed.advance()
        assert len(seconds_kept(again)) == ends
        again.fail_lost({"here": "interrupted"})
    last = replace(claimed(again), keep="interrupted")
    finish(TrialRun(again, last, digits.resident, kept=Kept(tmp_path, checkpoints(again))))
    assert results(again) == {0: results(study)[0]}
    whole, interrupted = (load_file(tmp_path / f"{name}.safetensors") for name in ("whole", "interrupted"))
    assert whole.keys() == interrupted.keys()
    assert all(torch.equal(whole[name], interrupted[name]) for name in whole)


@pytest.mark.parametrize("how", ["cut", "changed", "of another slot", "with code", "of another version"])
def test_a_checkpoint_that_is_spoilt_is_as_good_as_none(
    how: str, digits: Digits, study: SearchStudy, undisturbed: Results
) -> None:
    kept = Kept(None, checkpoints(study))
    for run in [TrialRun(study, claimed(study), digits.resident, kept=kept) for _ in range(2)]:
        assert run.advance()
        assert run.advance()
    before = [seconds_kept(study, slot) for slot in (0, 1)]
    spoil(how, folder_of(study))
    study.fail_lost({"here": "killed"})

    while claim := claimed(study):
        finish(TrialRun(study, claim, digits.resident, kept=kept))
    assert results(study) == undisturbed
    first, second = (history_of(attempts(study, slot)[1]).seconds[:2] for slot in (0, 1))
    assert first != before[0]
    assert second == before[1]
    assert not (folder_of(study) / "ran").exists()


class _Code:
    """Makes a file where it is unpickled."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self._file),)


def spoil(how: str, folder: Path) -> None:
    """Make the checkpoint of slot 0 one that must not be used."""
    file, other = folder / "0.checkpoint", folder / "1.checkpoint"
    content = file.read_bytes()
    if how == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif how == "changed":
        middle = len(content) // 2
        file.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    elif how == "of another slot":
        file.write_bytes(other.read_bytes())
    elif how == "with code":
        file.write_bytes(signed(pickle.dumps(_Code(folder / "ran"))))
    elif how == "of another version":
        kept, changed = state_in(file), io.BytesIO()
        del kept["state"]["optimizer"]
        torch.save(kept, changed)
        file.write_bytes(signed(changed.getvalue()))


def signed(content: bytes) -> bytes:
    return b"cifar-search checkpoint 1 " + hashlib.sha256(content).hexdigest().encode() + b"\n" + content
