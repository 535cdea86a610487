"""The bridge between a study and training: what a real run stores, and how faults end one trial alone."""

import json
import math

import pytest
import torch
from optuna.trial import TrialState

from search import objective
from search.checkpoints import Checkpoints
from search.data.request import DataRequest
from search.data.sources import load
from search.data.split import make_split
from search.hardware import versions
from search.objective import NOTHING, Kept, TrialRun
from search.prepare import adapt, data_record, split_record
from search.training.models import Shape, cost
from search.training.resident import make_resident
from spaces.space import Space
from studies.artifacts import ArtifactStore
from studies.record import Drawing, StudyRecord, curve_of, history_of, outcome_of
from studies.slots import ATTEMPTS, Slots
from studies.storage import StorageError, open_storage
from studies.study import SearchStudy, open_study

SPACE = """
question: A test?
base:
  model: {name: vgg, widths: [4], convolutions: 1, head: 0}
  training: {epochs: 2, batch_size: 32}
parameters:
  optimizer.lr: {float: [1e-3, 1e-1], log: true, role: nuisance}
"""


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    data = load(DataRequest("digits", tmp_path_factory.mktemp("data")))
    return data, make_split(data.labels_N, data.n_train, 0.1, 200, seed=0)


@pytest.fixture
def study(digits, sqlite_url):
    data, split = digits
    adapted = adapt(Space.read(SPACE, "tiny.yaml", "tiny"), data, None, "fp32").space
    record = StudyRecord(
        space_name="tiny",
        space=adapted.to_yaml(),
        space_fingerprint=adapted.fingerprint(),
        data=data_record(data, DataRequest("digits")),
        split=split_record(split),
        epochs=2,
        precision="fp32",
        seed=0,
        sampler="random",
        pruner="none",
    )
    storage = open_storage(sqlite_url, create=True)
    yield open_study(storage, "s", record, 2)
    storage.close()


def started(study: SearchStudy, digits, kept: Kept = NOTHING) -> TrialRun:
    data, split = digits
    claim = study.claim("here", Drawing(sampler="random"))
    assert claim is not None
    return TrialRun(study, claim, make_resident(data, split, torch.device("cpu")), kept=kept)


def test_a_run_stores_its_curves_cost_speed_memory_device_and_versions(study, digits):
    run = started(study, digits)
    assert run.advance()
    assert not run.advance()
    (trial,) = study.trials()
    outcome, history = outcome_of(trial), history_of(trial)
    assert trial.state == TrialState.COMPLETE
    assert outcome.reason == "finished"
    assert outcome.epoch == 2
    assert trial.value == curve_of(trial)[-1]
    assert outcome.best_accuracy == max(curve_of(trial))
    expected = cost(study.space.base.model, Shape(1, 8, 8, 10))
    assert (outcome.parameters, outcome.multiply_adds) == (expected.parameters, expected.multiply_adds)
    assert outcome.images_per_second > 0
    assert outcome.peak_memory > 10_000_000
    assert outcome.device.startswith("CPU")
    assert outcome.versions["torch"] == torch.__version__.split("+")[0] or torch.__version__
    for column in (history.train_loss, history.train_accuracy, history.val_loss, history.lr, history.seconds):
        assert len(column) == 2
        assert all(math.isfinite(value) for value in column)
    assert math.isclose(outcome.seconds, sum(history.seconds), rel_tol=1e-3)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError("no memory")])
def test_out_of_memory_closes_the_slot_at_once_and_the_study_goes_on(study, digits, error, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(objective.Run, "end_epoch", lambda _run: (_ for _ in ()).throw(error))
        assert not started(study, digits).advance()
    (trial,) = study.trials()
    assert outcome_of(trial).reason == "out of memory"
    assert "memory" in outcome_of(trial).message
    assert Slots(study.trials()).failed_for_good(0)
    run = started(study, digits)
    while run.advance():
        pass
    assert study.is_complete()


def test_another_fault_is_tried_three_times_and_keeps_its_traceback(study, digits, monkeypatch):
    monkeypatch.setattr(objective.Run, "end_epoch", lambda _run: [][1])
    for attempt in range(ATTEMPTS):
        assert not Slots(study.trials()).is_closed(0)
        assert not started(study, digits).advance()
        assert len(study.trials()) == attempt + 1
    assert Slots(study.trials()).failed_for_good(0)
    assert "IndexError" in outcome_of(study.trials()[0]).message
    assert {trial.params["optimizer.lr"] for trial in study.trials()} == {
        study.trials()[0].params["optimizer.lr"]
    }


def test_after_a_fault_the_next_attempt_goes_on_from_the_checkpoint_until_the_slot_is_given_up(
    study, digits, tmp_path, monkeypatch
):
    checkpoints, artifacts = Checkpoints(tmp_path / "checkpoints", every=0.0), ArtifactStore(tmp_path / "a")
    kept = Kept(checkpoints=checkpoints, artifacts=artifacts)
    assert started(study, digits, kept).advance()
    study.fail_lost({"here": "killed"})
    for attempt in range(2, ATTEMPTS + 1):
        run = started(study, digits, kept)
        with monkeypatch.context() as patch:
            patch.setattr(objective.Run, "end_epoch", lambda _run: [][1])
            assert not run.advance()
        trial = study.trials()[-1]
        assert len(history_of(trial).val_loss) == 1  # the first epoch, which was not trained again
        assert len(list((tmp_path / "checkpoints").glob("*"))) == (attempt < ATTEMPTS)
        of_trial = f"dashboard:artifacts:{trial._trial_id}:"
        attributes = study.storage.get_study_system_attrs(study.study_id)
        (file,) = [json.loads(text) for key, text in attributes.items() if key.startswith(of_trial)]
        assert (file["filename"], file["mimetype"]) == ("traceback.txt", "text/plain")
        with artifacts.open_reader(file["artifact_id"]) as text:
            assert b"IndexError: list index out of range" in text.read()
    assert Slots(study.trials()).failed_for_good(0)


def test_a_checkpoint_of_another_version_is_not_gone_on_from(study, digits, tmp_path, monkeypatch):
    kept = Kept(checkpoints=Checkpoints(tmp_path / "checkpoints", every=0.0))
    assert started(study, digits, kept).advance()
    study.fail_lost({"here": "killed"})
    with monkeypatch.context() as patch:
        patch.setattr(objective, "versions", lambda: versions() | {"cifar-search": "0.0.0+another"})
        assert started(study, digits, kept).advance()
        assert len(study.trials()[-1].intermediate_values) == 1
    study.fail_lost({"here": "killed"})
    run = started(study, digits, kept)
    run.launch()
    assert len(run._run.history) == 0  # what the other version left is not this one's


def test_an_epoch_begun_is_finished_when_a_trial_is_interrupted(study, digits):
    run = started(study, digits)
    run.launch()
    run.queue(1)
    assert not run.is_queued
    run.interrupt()
    (trial,) = study.trials()
    assert outcome_of(trial).reason == "interrupted"
    assert len(history_of(trial).val_loss) == 1


def test_what_goes_wrong_while_a_trial_is_interrupted_ends_it_alone(study, digits, monkeypatch):
    run = started(study, digits)
    run.launch()
    monkeypatch.setattr(objective.Run, "queue", lambda _run, _steps: [][1])
    run.interrupt()
    (trial,) = study.trials()
    assert outcome_of(trial).reason == "error"
    assert not Slots(study.trials()).is_closed(0)


def test_a_database_that_fails_is_not_the_trials_fault(study, digits, monkeypatch):
    run = started(study, digits)
    with monkeypatch.context() as patch:
        patch.setattr(study, "close", lambda *_: (_ for _ in ()).throw(StorageError("not free within 120 s")))
        run.advance()
        with pytest.raises(StorageError):
            run.advance()
    (trial,) = study.trials()
    assert trial.state == TrialState.RUNNING
    study.fail_lost({"here": "killed"})
    assert not Slots(study.trials()).is_closed(0)


def test_an_interrupted_trial_leaves_its_slot_open(study, digits):
    run = started(study, digits)
    run.advance()
    run.interrupt()
    assert outcome_of(study.trials()[0]).reason == "interrupted"
    assert not Slots(study.trials()).is_closed(0)


def test_a_study_that_exists_keeps_its_total_where_none_is_asked_for(study):
    again = open_study(study.storage, "s", study.record, 50, keep_total=True)
    assert again.total() == 2
    assert open_study(study.storage, "s", study.record, 50).total() == 50
