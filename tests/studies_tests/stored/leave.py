"""Leaves in a database what no command leaves by itself when all goes well. Run as a program with the URL of
the database, the name of a study and one of the words in ``WAYS``."""

from __future__ import annotations

import os
import sys

import optuna

from studies.processes import process_name
from studies.record import Drawing
from studies.storage import open_storage
from studies.study import SearchStudy

STORAGE, NAME, WAY = sys.argv[1:]


def main() -> None:
    storage = open_storage(STORAGE, create=False, write=True)
    if WAY == "foreign":
        _foreign(optuna.create_study(study_name=NAME, storage=storage, directions=["minimize", "maximize"]))
        return
    study = SearchStudy(storage, NAME)
    if WAY == "queued":
        study.optuna.enqueue_trial({"optimizer.lr": 0.05, "model.dropout": 0.2})
        return
    claimed = study.claim(process_name(os.getpid()), Drawing(sampler="random"))
    assert claimed is not None
    if WAY == "interrupted":
        study.put_back(claimed.trial_id)
    storage.close()


def _foreign(study: optuna.Study) -> None:
    def objective(trial: optuna.Trial) -> tuple[float, float]:
        x = trial.suggest_float("x", -1, 1)
        kind = trial.suggest_categorical("kind", ["a", None, True, 2.5])
        trial.set_user_attr("kind", kind)
        return x**2, float("inf") if trial.number == 2 else -x

    study.sampler = optuna.samplers.RandomSampler(seed=0)
    study.set_user_attr("purpose", "of another program")
    study.optimize(objective, n_trials=3)


WAYS = ("interrupted", "killed", "queued", "foreign")
if __name__ == "__main__":
    assert WAY in WAYS, WAY
    main()
