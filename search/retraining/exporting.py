"""The command ``export``: configurations of a study, written to files."""

from __future__ import annotations

import shlex
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from optuna.storages import RDBStorage

from search.data.request import DataRequest
from spaces.text import within
from studies.export import (
    ExportedConfiguration,
    names_of,
    of_best,
    of_confirmed,
    of_trial,
    write_export,
)
from studies.finalists import finalists_of
from studies.record import DataRecord, SplitRecord, SplitSpec
from studies.storage import open_storage
from studies.study import SearchStudy
from studies.text import percent


@dataclass(frozen=True)
class ExportRequest:
    """What a user asks for with ``cifar-search export``."""

    study: str
    output: Path
    trial: int | None = None
    top: int | None = None
    confirmed: bool = False
    storage_url: str = ""
    dataset: str | None = None
    data_dir: Path | None = None


def export_study(request: ExportRequest) -> list[str]:
    """Write the files; return what to tell people.

    Raises:
        ValueError: for whatever a user can get wrong.
    """
    asked = [request.trial is not None, request.top is not None, request.confirmed]
    if sum(asked) > 1:
        raise ValueError("--trial, --top, --confirmed: at most one of them can be given")
    if request.output.suffix not in (".yaml", ".yml"):
        raise ValueError(f"-o: must end in .yaml or .yml, but got {str(request.output)!r}")
    with within("--storage"):
        storage = open_storage(request.storage_url, create=False)
    with closing(storage):
        exports = _exports(storage, SearchStudy(storage, request.study), request)
    lines = []
    for path, export in zip(names_of(request.output, len(exports)), exports, strict=True):
        lines += _written(write_export(export, path), path)
    return lines


def _exports(storage: RDBStorage, study: SearchStudy, request: ExportRequest) -> list[ExportedConfiguration]:
    if request.confirmed:
        return [_confirmed(storage, study, request)]
    if request.trial is not None:
        return [of_trial(study, request.storage_url, request.trial)]
    return of_best(study, request.storage_url, request.top or 1)


def _written(export: ExportedConfiguration, path: Path) -> list[str]:
    score = export.score
    spread = f" ± {100 * score.spread:.2f}" if score.spread is not None else ""
    return [
        f"{path}: trial {export.trial}, {percent(score.mean)}{spread} validation accuracy ({score.kind}, "
        f"n = {score.n})",
        f"  next: {export.command}",
        f"        cifar-search verify {shlex.quote(str(path))}",
    ]


def _confirmed(storage: RDBStorage, study: SearchStudy, request: ExportRequest) -> ExportedConfiguration:
    """The finalist with the best mean."""
    found = finalists_of(storage, study.name)
    if found is None or not found.finalists:
        raise ValueError(
            f"--confirmed: study {study.name!r} has no confirmed finalists: cifar-search confirm "
            f"{shlex.quote(study.name)}"
        )
    return of_confirmed(study, found, request.storage_url, Splits(study.data, request).record)


class Splits:
    """Makes the records of splits, which plans keep without the images' hash, from the data themselves."""

    def __init__(self, data: DataRecord, request: ExportRequest) -> None:
        """Load the training images.

        Raises:
            ValueError: if they are not there, or are not those of the study.
        """
        from search.data.sources import load
        from search.prepare import check_recorded

        with within("--confirmed needs the data"):
            source = request.dataset or data.source or data.name
            self._data = load(DataRequest(source, request.data_dir, data.image_size))
            check_recorded(self._data, data, source)

    def record(self, spec: SplitSpec) -> SplitRecord:
        """The split with what it came to."""
        from search.prepare import split_of

        split = split_of(spec, self._data)
        return SplitRecord(
            **spec.model_dump(include=set(SplitSpec.model_fields)),
            hash=split.hash,
            train_images=len(split.train_indices),
            val_images=len(split.val_indices),
        )
