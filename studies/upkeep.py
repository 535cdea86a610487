"""A search together with the repetitions that belong to it: stopped, deleted and renamed.

What was kept in files (checkpoints, artifacts) goes with the study that is deleted. None of it is named after
the study, so that it stays where it is when that is renamed.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.exceptions import DuplicatedStudyError
from optuna.trial import TrialState

from studies import record
from studies.artifacts import ArtifactStore, artifact_folder, artifacts_of
from studies.attributes import AttributeStorage, Renaming
from studies.base import Study
from studies.finalists import belongs
from studies.folders import checkpoint_folder
from studies.plan import find_plan
from studies.processes import short_name
from studies.record import leader_of, worker_of
from studies.storage import again_if_lost, creation_lock, locked
from studies.study import SearchStudy, check_name


@dataclass(frozen=True)
class Work:
    """Who works on a study."""

    trials: int
    """That are running."""
    commands: tuple[str, ...]
    """Host and process of each command that leads or trains them."""


def with_repetitions(study: Study) -> list[Study]:
    """The study and, of a search, the repetitions that belong to it."""
    if not isinstance(study, SearchStudy):
        return [study]
    names = optuna.get_all_study_names(storage=study.storage)
    plans = [find_plan(study.storage, name) for name in names if name.startswith(f"{study.name}/")]
    return [study, *(plan for plan in plans if plan and belongs(plan, study))]


def work_on(study: Study) -> Work:
    """Who works on the study, as far as trials are running; those of the dead are put back first."""
    study.fail_lost()
    running = [trial for trial in study.trials() if trial.state == TrialState.RUNNING]
    names = (leader_of(trial) or worker_of(trial) or "another program" for trial in running)
    return Work(len(running), tuple(dict.fromkeys(map(short_name, names))))


def refuse_work_on(study: Study) -> None:
    """Refuse what cannot be done to a study on which somebody works.

    Raises:
        ValueError: with who does.
    """
    if (work := work_on(study)).trials:
        raise ValueError(
            f"study {study.name!r} must have no running trial, but has {work.trials} "
            f"(of {', '.join(work.commands)}): stop it first (cifar-search stop), and wait for the end of "
            "the epoch"
        )


def delete(study: Study, storage_url: str) -> None:
    """Delete a study with its trials, notes, checkpoints and artifacts.

    Raises:
        ValueError: somebody works on it.
    """
    artifacts, checkpoints = artifacts_of(study), checkpoint_folder(storage_url, study)

    def delete_unless_running() -> None:
        if any(trial.state == TrialState.RUNNING for trial in study.trials()):
            raise ValueError(f"study {study.name!r} has begun a trial meanwhile: it is not deleted")
        study.storage.delete_study(study.study_id)

    refuse_work_on(study)
    locked(study.storage, study.study_id, delete_unless_running)
    _delete_files(ArtifactStore(artifact_folder(storage_url)), artifacts, checkpoints)


def _delete_files(store: ArtifactStore, artifacts: set[str], checkpoints: Path) -> None:
    for artifact in artifacts:
        with suppress(OSError, ValueError):  # a database may name what is no file of the folder
            store.remove(artifact)
    shutil.rmtree(checkpoints, ignore_errors=True)
    with suppress(OSError):
        checkpoints.parent.rmdir()  # that of all studies, if it is empty


def rename(studies: Sequence[Study], name: str) -> None:
    """Give a search another name, and the repetitions that follow it in ``studies`` their names after it.

    Raises:
        ValueError: for a name that no study may have, or that another one has.
    """
    search = studies[0]
    assert isinstance(search.storage, AttributeStorage)
    rename_all = search.storage.rename_studies
    renamings = [_renaming(each, search, check_name(name)) for each in studies]
    try:
        again_if_lost(lambda: creation_lock(search.storage), lambda: rename_all(renamings))
    except DuplicatedStudyError as error:
        raise ValueError(str(error)) from None


def _renaming(study: Study, search: Study, name: str) -> Renaming:
    """What is kept by the study's mark stays with it, also where that was made from its name before."""
    attributes = {key: {**content, "mark": study.mark} for key, content in study.owner.items()}
    if record.PLAN in attributes:
        attributes[record.PLAN] |= {"parent": name, "parent_id": search.mark}
    return Renaming(study.study_id, study.owner, name + study.name.removeprefix(search.name), attributes)
