"""Searches with results made up by a function, stored as real ones are: opened, claimed, closed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import TrialState

from spaces.space import Space
from studies.base import Claim, Study
from studies.record import DataRecord, Drawing, History, Outcome, Reason, SplitRecord, StudyRecord
from studies.study import SearchStudy, open_study

EPOCHS = 4
BALANCED = """
question: Which optimizer?
base: {training: {epochs: 4}}
balance: optimizer.name
parameters:
  optimizer.name: {choice: [sgd, adam, rmsprop], role: scientific}
  optimizer.lr: {float: [1e-4, 1.0], log: true, role: nuisance, each: optimizer.name}
"""
FREE = """
question: What helps?
base: {training: {epochs: 4}}
parameters:
  model.normalization: {choice: [batch, none], role: scientific}
  model.dropout: {float: [0.0, 0.2], step: 0.1, role: scientific}
  optimizer.lr: {float: [1e-3, 1.0], log: true, role: nuisance}
"""
GRID = """
question: How much dropout, with which normalization?
base: {training: {epochs: 4}}
parameters:
  model.normalization: {choice: [batch, none], role: scientific}
  model.dropout: {float: [0.0, 0.2], step: 0.1, role: scientific}
"""


def make_study(
    storage: RDBStorage,
    space: str,
    total: int | None,
    name: str = "s",
    sampler: str = "random",
    seed: int = 0,
    mark: str = "",
) -> SearchStudy:
    """A search without trials, of 100 validation images; ``mark`` is as random as a command makes it."""
    read = Space.read(space, "mine", "mine")
    split = SplitRecord(seed=0, val_size=0.1, train_size=None, hash="s", train_images=900, val_images=100)
    data = DataRecord(name="digits", hash="d", classes=("0", "1"), shape=(8, 8, 1))
    described = StudyRecord(
        space_name="mine", space=read.to_yaml(), space_fingerprint=read.fingerprint(), data=data, split=split,
        epochs=EPOCHS, precision="fp32", seed=seed, sampler=sampler, pruner="none", mark=mark,
    )  # fmt: skip
    return open_study(storage, name, described, total)


def claim(study: SearchStudy, sampler: str | None = None) -> Claim:
    """The next slot, with parameters as the study's sampler (or the one given) draws them."""
    claimed = study.claim("somewhere:x:1:2", Drawing(sampler=sampler or study.record.sampler))
    assert claimed is not None
    return claimed


def end(study: SearchStudy, of: Claim, reason: Reason, value: float = 0.5, epochs: int = EPOCHS) -> None:
    """Close an attempt whose curve rises to ``value`` in a straight line."""
    for epoch in range(1, epochs + 1):
        of.trial.report(value * epoch / epochs, epoch)
    states = {"finished": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "diverged": TrialState.PRUNED}
    outcome = Outcome(reason=reason, epoch=epochs, seconds=float(epochs))
    state = states.get(reason, TrialState.FAIL)
    study.close(of.trial_id, state, outcome, History(), value if reason == "finished" else None)


def run_all(
    study: SearchStudy, accuracy: Callable[[Mapping[str, Any]], float], sampler: str | None = None
) -> None:
    """Complete all the slots that the study owes, with accuracies that follow from the parameters."""
    while not study.is_complete():
        claimed = claim(study, sampler)
        end(study, claimed, "finished", accuracy(claimed.trial.params))


def forge(
    study: Study, key: str, value: Any, number: int, kind: Any = models.TrialUserAttributeModel
) -> None:
    """Write into a trial's record as another program on the database can, ended or not."""
    attributes = kind.__table__
    trial_id, text = study.trials()[number]._trial_id, json.dumps(value)
    with study.storage.engine.begin() as connection:
        connection.execute(
            attributes.delete().where(attributes.c.trial_id == trial_id, attributes.c.key == key)
        )
        connection.execute(attributes.insert().values(trial_id=trial_id, key=key, value_json=text))
