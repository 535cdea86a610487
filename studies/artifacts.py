"""Where artifacts are kept, and how our own are attached to trials.

optuna-dashboard lists under a trial also those artifacts whose metadata is an attribute of the study, which
alone can still be written once a trial has ended. The identifier of ours is derived from what they show: the
same content is attached once, on whatever machine, and one that a person has deleted does not come back.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from optuna.artifacts import FileSystemArtifactStore
from optuna.artifacts.exceptions import ArtifactNotFound

from studies.files import whole
from studies.folders import folder_of

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from sqlalchemy.engine import URL

    from studies.base import Study

_NAMESPACE = uuid.UUID("5d1c7a0e-33f0-4c0b-9d36-6a1f0f4a1c55")
_PREFIXES = ("artifacts:", "dashboard:artifacts:")
"""Beginnings of the system attributes that hold the metadata of an artifact, by Optuna and its dashboard."""
_OURS = "cifar-search:artifact:"
"""Beginning of the study's system attributes that name the artifact of ours for a trial and a file name."""


class ArtifactStore(FileSystemArtifactStore):
    """A folder of artifacts, made when the first is written; deleting one that is not there is no error."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self.folder = folder

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Keep an artifact; it is there whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with whole(self.folder / artifact_id) as file:
            shutil.copyfileobj(content_body, file)

    def remove(self, artifact_id: str) -> None:
        """Delete an artifact."""
        try:
            super().remove(artifact_id)
        except ArtifactNotFound:
            return

    def has(self, artifact_id: str) -> bool:
        """Whether the artifact's bytes are in this folder."""
        return (self.folder / artifact_id).is_file()


def artifacts_of(study: Study) -> set[str]:
    """The identifiers of all artifacts of a study and its trials, whoever attached them."""
    of_study = study.optuna._storage.get_study_system_attrs(study.study_id)
    attributes = [of_study, *(trial.system_attrs for trial in study.trials())]
    keys = (key for each in attributes for key in each if key.startswith(_PREFIXES))
    return {key.rpartition(":")[2] for key in keys}


def artifact_folder(url: str | URL) -> Path:
    """Where the artifacts of a storage lie."""
    return folder_of(url, "artifacts")


@dataclass(frozen=True)
class Artifact:
    """A file to be attached to a trial."""

    filename: str
    mimetype: str
    source: object
    """Plain data that decides the content: where it is the same, the file is not made again."""
    make: Callable[[], bytes]


def attach(study: Study, store: ArtifactStore, trial_id: int, artifact: Artifact) -> bool:
    """Attach a file to a trial, ended or not, unless it has this very content already, or a person deleted
    it; an earlier content of the same name is replaced. The bytes are written before what points to them.

    Returns:
        Whether something was written.
    """
    digest = hashlib.sha256(json.dumps(artifact.source, sort_keys=True, default=str).encode()).hexdigest()
    storage, study_id = study.optuna._storage, study.study_id
    artifact_id = str(uuid.uuid5(_NAMESPACE, f"{study_id}:{trial_id}:{artifact.filename}:{digest}"))
    attributes = storage.get_study_system_attrs(study_id)
    known = _metadata_key(trial_id, artifact_id)
    if known in attributes and (attributes[known] == "null" or store.has(artifact_id)):
        return False
    store.write(artifact_id, io.BytesIO(artifact.make()))
    metadata = {
        "artifact_id": artifact_id,
        "filename": artifact.filename,
        "mimetype": artifact.mimetype,
        "encoding": None,
    }
    storage.set_study_system_attr(study_id, known, json.dumps(metadata))
    _replace(storage, store, study_id, trial_id, artifact.filename, artifact_id, attributes)
    return True


def _replace(
    storage: BaseStorage,
    store: ArtifactStore,
    study_id: int,
    trial_id: int,
    filename: str,
    artifact_id: str,
    attributes: Mapping[str, Any],
) -> None:
    """Note which artifact has the file name now, and take away the one that had it."""
    key = f"{_OURS}{trial_id}:{filename}"
    earlier = attributes.get(key)
    storage.set_study_system_attr(study_id, key, artifact_id)
    if isinstance(earlier, str) and earlier and earlier != artifact_id:
        storage.set_study_system_attr(study_id, _metadata_key(trial_id, earlier), "null")
        store.remove(earlier)


def _metadata_key(trial_id: int, artifact_id: str) -> str:
    return f"dashboard:artifacts:{trial_id}:{artifact_id}"


def attach_text(study: Study, store: ArtifactStore, trial_id: int, filename: str, text: str) -> None:
    """Attach a text to a trial, ended or not.

    Raises:
        OSError: it cannot be written.
    """
    artifact = Artifact(filename, "text/plain", text, text.encode)
    attach(study, store, trial_id, artifact)
