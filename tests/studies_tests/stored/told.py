"""All that the program tells of the studies of a database, as plain data, by the functions that its commands
use. Run as a program with the URL of a database it prints that as JSON.

It is run by the version that made the stored databases and by every later one: what is called here is what
later versions have to keep, or to have here another way to the same words.
"""

from __future__ import annotations

import json
import sys
from contextlib import closing
from dataclasses import asdict
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

from studies.ablation import ablation_of
from studies.finalists import finalists_of
from studies.listing import list_studies
from studies.looks import looks_of
from studies.notes import note_of
from studies.opening import open_existing
from studies.storage import open_storage
from studies.study import SearchStudy
from studies.summary import as_json

DIGITS = 9
"""Of numbers after the point: the last ones of an interval depend on the version of SciPy."""


def told(url: str) -> dict[str, Any]:
    """What is told of every study, by its name, and the list of all."""
    with closing(open_storage(url, create=False)) as storage:
        listed = list_studies(storage)
        studies = {each.name: _told(storage, each.name) for each in listed}
    content = {"listed": [asdict(each) for each in listed], "studies": studies}
    return read(json.dumps(content, default=str))


def read(text: str) -> dict[str, Any]:
    """Stored words, as ``told`` gives them."""
    content: dict[str, Any] = json.loads(
        text, parse_float=lambda number: round(float(number), DIGITS), parse_constant=str
    )
    return content


def _told(storage: RDBStorage, name: str) -> dict[str, Any]:
    try:
        study = open_existing(storage, name)
    except ValueError as error:
        foreign = optuna.load_study(study_name=name, storage=storage)
        return {"refusal": str(error), "trials": [_trial(trial) for trial in foreign.get_trials()]}
    of_search = _of_search(storage, study) if isinstance(study, SearchStudy) else _of_plan(study)
    return {
        "record": study.record.model_dump(mode="json"),
        "mark": study.mark,
        "total": study.total(),
        "closed": study.slots().closed(),
        "notices": study.notices(),
        "note": note_of(study),
        "trial notes": [note_of(study, trial) for trial in study.trials()],
        "trials": [_trial(trial) for trial in study.trials()],
        **of_search,
    }


def _of_search(storage: RDBStorage, study: SearchStudy) -> dict[str, Any]:
    finalists, ablation = finalists_of(storage, study.name), ablation_of(storage, study.name)
    return {
        "summary": json.loads("".join(as_json(study))),
        "looks": [look.model_dump(mode="json") for look in looks_of(study)],
        "finalists": finalists and asdict(finalists),
        "ablation": ablation and asdict(ablation),
    }


def _of_plan(study: Any) -> dict[str, Any]:
    return {"entries": [entry.model_dump(mode="json") for entry in study.entries()], "cells": study.cells()}


def _trial(trial: FrozenTrial) -> dict[str, Any]:
    return {
        "number": trial.number,
        "state": trial.state.name,
        "values": trial.values,
        "params": trial.params,
        "distributions": {name: repr(each) for name, each in trial.distributions.items()},
        "user attributes": trial.user_attrs,
        "reports": trial.intermediate_values,
    }


if __name__ == "__main__":
    print(json.dumps(told(sys.argv[1]), indent=1, sort_keys=True))  # noqa: T201 (a program of its own)
