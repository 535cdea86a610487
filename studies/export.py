"""An exported configuration: a YAML file with all that is needed to train one configuration again, anywhere.

It is written from a study (``of_trial``, ``of_best``, ``of_confirmed``), and read without one. A file that
was edited by hand is checked in the same way; it knows the fingerprint of what its runs trained.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import textwrap
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from optuna.trial import FrozenTrial, TrialState
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from spaces.config import Configuration
from spaces.config.section import Seed
from spaces.problems import describe
from spaces.text import brief, dump_yaml, load_yaml, plain, plain_letters, read_text, unknown, within
from studies.files import write_text
from studies.finalists import Finalists
from studies.plan import PlanStudy, Results
from studies.record import (
    DataRecord,
    SplitRecord,
    SplitSpec,
    decided_setup_of,
    flaw_of,
    history_of,
    outcome_of,
    reason_of,
    setup_of,
)
from studies.study import SearchStudy
from studies.summary import Entry, ranked
from studies.urls import masked

FIRST_LINE = "# cifar-search: an exported configuration"
TRAINED = "trained"
"""The key that ``retrain`` adds in the ``config.yaml`` of its folders, which are exports, too."""
Accuracy = Annotated[float, Field(ge=0, le=1)]
Model = TypeVar("Model", bound=BaseModel)


class ExportRecord(BaseModel):
    """Base of what an export holds."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True, allow_inf_nan=False)


def _written_time(value: Any) -> Any:
    """A time as it is written, in ISO 8601; numbers are no times."""
    if isinstance(value, datetime):
        return value
    try:
        return datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise ValueError(f"must be a time such as 2026-11-21T20:00:00Z, but got {brief(value)}") from None


class Score(ExportRecord):
    """Validation accuracy (0 to 1) of the configuration: over how many runs, and how sure."""

    kind: Literal[
        "one run of the search", "mean of n runs of the search", "repeated hold-out", "cross-validation"
    ]
    n: Annotated[int, Field(ge=1)]
    mean: Accuracy
    spread: Annotated[float, Field(ge=0)] | None = None
    """Standard deviation over the runs."""
    low: float | None = None
    """The interval of the mean, where the runs justify one."""
    high: float | None = None
    confidence: Annotated[float, Field(gt=0, lt=1)] | None = None


def _can_be(split: SplitRecord) -> SplitRecord:
    """What any study could have recorded; whether it fits the data is seen when they are loaded."""
    if not 0 <= split.seed < 2**63:
        raise ValueError(f"seed: must be a whole number from 0 on, below 2**63, but got {brief(split.seed)}")
    if (split.fold is None) != (split.folds is None):
        raise ValueError(
            f"fold and folds: must be given together, but got fold={split.fold}, folds={split.folds}"
        )
    if split.fold is not None and split.folds is not None and not 0 <= split.fold < split.folds:
        raise ValueError(
            f"fold: must be from 0 to {split.folds - 1} (folds is {split.folds}), but got {split.fold}"
        )
    return split


class ExportedRun(ExportRecord):
    """One of the trainings that made the score."""

    trial: Annotated[int, Field(ge=0)]
    seed: Seed
    split: Annotated[SplitRecord, AfterValidator(_can_be)]
    accuracy: Accuracy
    epoch: Annotated[int, Field(ge=0)]
    """The epoch that the accuracy belongs to."""
    seconds: float | None = None
    device: str = ""
    versions: dict[str, str] = {}
    train_loss: tuple[float | None, ...] = ()
    """The mean training loss of every epoch, to five significant digits, None where it was no finite number;
    empty where it was not recorded."""

    @model_serializer(mode="wrap")
    def _without_empty_curve(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What is not recorded is not written either, so that a file may lack it."""
        tree: dict[str, Any] = handler(self)
        return tree if self.train_loss else {key: tree[key] for key in tree if key != "train_loss"}


def _no_truth_value(value: Any) -> Any:
    # to pydantic, true is the literal 1
    return repr(value) if isinstance(value, bool) else value


class ExportedConfiguration(ExportRecord):
    """A configuration, what it scored, and how to train it again."""

    format: Annotated[Literal[1], BeforeValidator(_no_truth_value)] = 1
    command: str
    exported: Annotated[AwareDatetime, BeforeValidator(_written_time)]
    question: str
    space: str
    space_fingerprint: str
    study: str
    storage: str
    """Where the study is; never with a password."""
    trial: int | None
    """The study's trial; None for a configuration that was repeated outside of the search."""
    chosen: str
    """How it was picked."""
    data: DataRecord
    precision: Annotated[str, Field(pattern="^(fp32|bf16)$")]
    score: Score
    runs: Annotated[tuple[ExportedRun, ...], Field(min_length=1)]
    fingerprint: str
    """Of the configuration that the runs trained."""
    base: dict[str, Any] | None = None
    """The space's base configuration."""
    configuration: dict[str, Any]

    @model_validator(mode="after")
    def _data_can_be(self) -> ExportedConfiguration:
        if len(self.data.classes) < 2 or len(set(self.data.classes)) < len(self.data.classes):
            raise ValueError(f"data.classes: must be two names or more, all different, but got "
                             f"{brief(self.data.classes)}")  # fmt: skip
        if min(self.data.shape) < 1 or self.data.shape[2] not in (1, 3):
            raise ValueError(
                f"data.shape: must be height, width and 1 or 3 channels, but got {list(self.data.shape)}"
            )
        return self

    @property
    def settings(self) -> Configuration:
        """The configuration, typed."""
        return Configuration.read(self.configuration)

    @property
    def base_settings(self) -> Configuration | None:
        """The space's base configuration, typed."""
        return None if self.base is None else Configuration.read(self.base, "base")

    @property
    def is_edited(self) -> bool:
        """Whether the configuration is another than the runs trained: edited by hand, or read by a version of
        this program that knows other settings."""
        return self.settings.fingerprint() != self.fingerprint


def of_best(study: SearchStudy, storage_url: str, top: int = 1) -> list[ExportedConfiguration]:
    """The ``top`` best configurations of a search, best mean first.

    Raises:
        ValueError: if fewer have completed.
    """
    entries = ranked(study)
    if len(entries) < top:
        rule = f"study {study.name!r} has {len(entries)} completed configuration(s)"
        raise ValueError(f"--top: {rule}, but got {top}" if entries else f"{rule}: nothing to export")
    chosen = f"of {len(entries)} completed configurations of the search, by the mean validation accuracy"
    return [
        _of_entry(study, storage_url, entry, entry.trials[0], f"rank {rank} {chosen}")
        for rank, entry in enumerate(entries[:top], start=1)
    ]


def of_trial(study: SearchStudy, storage_url: str, number: int) -> ExportedConfiguration:
    """The configuration of one trial, with all completed runs that the search made of it.

    Raises:
        ValueError: if there is no such trial, or it did not complete, or makes no sense.
    """
    trial = _trial(study, number)
    if flaw := flaw_of(trial):
        raise ValueError(f"--trial: trial {number} makes no sense: {flaw}")
    if trial.state != TrialState.COMPLETE:
        state = reason_of(trial) if trial.state.is_finished() else trial.state.name.lower()
        raise ValueError(f"--trial: must be a trial that completed, but trial {number} did not: {state}")
    for entry in ranked(study):
        if number in entry.trials:
            return _of_entry(study, storage_url, entry, number, f"trial {number}, by hand")
    raise ValueError(f"--trial: trial {number} belongs to no slot of the study")


def of_confirmed(
    study: SearchStudy,
    found: Finalists,
    storage_url: str,
    recorded: Callable[[SplitSpec], SplitRecord],
) -> ExportedConfiguration:
    """The finalist with the best mean, with its runs on the complete blocks.

    Args:
        study: the search.
        found: its finalists.
        storage_url: where the studies are.
        recorded: makes the record of a split, which plans keep without the images' hash.
    """
    best, interval = found.finalists[0], found.finalists[0].interval
    setups = [decided_setup_of(_trial(study, finalist.trials[0])) for finalist in found.finalists]
    plan = PlanStudy(study.storage, found.plan)
    results = Results(plan, [setup.fingerprint for setup in setups])
    chosen = setups[0]
    runs = [
        _run(trial, recorded(made.split or study.record.split))
        for trial in results.trials(chosen.fingerprint)
        if (made := setup_of(trial)) is not None
    ]
    score = Score(
        kind="repeated hold-out" if found.folds is None else "cross-validation",
        n=len(best.accuracies),
        mean=best.mean,
        spread=best.spread,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        confidence=found.confidence if interval else None,
    )
    how = f"the best mean of {len(found.finalists)} finalists in {found.plan!r}, on fresh seeds and splits"
    return _export(study, storage_url, best.trials[0], how, score, runs, chosen.configuration)


def _of_entry(
    study: SearchStudy, storage_url: str, entry: Entry, number: int, chosen: str
) -> ExportedConfiguration:
    """A configuration of the search; the run of trial ``number`` comes first."""
    numbers = sorted(entry.trials, key=lambda other: other != number)
    trials = [_trial(study, one) for one in numbers]
    setup = setup_of(trials[0])
    if setup is None:
        raise ValueError(f"trial {number} has no configuration: another program ran it")
    score = Score(
        kind="one run of the search" if entry.runs == 1 else "mean of n runs of the search",
        n=entry.runs,
        mean=entry.accuracy,
        spread=entry.spread,
    )
    runs = [_run(trial, study.record.split) for trial in trials]
    return _export(study, storage_url, number, chosen, score, runs, setup.configuration)


def _export(
    study: SearchStudy,
    storage_url: str,
    trial: int,
    chosen: str,
    score: Score,
    runs: list[ExportedRun],
    configuration: dict[str, Any],
) -> ExportedConfiguration:
    settings = Configuration.read(configuration, f"trial {trial}")
    return ExportedConfiguration(
        command="",
        exported=datetime.now(UTC).replace(microsecond=0),
        question=study.space.question,
        space=study.record.space_name,
        space_fingerprint=study.record.space_fingerprint,
        study=study.name,
        storage=_place(storage_url),
        trial=trial,
        chosen=chosen,
        data=study.record.data,
        precision=study.record.precision,
        score=score,
        runs=tuple(runs),
        fingerprint=settings.fingerprint(),
        base=study.space.base.tree(),
        configuration=settings.tree(),
    )


def _run(trial: FrozenTrial, split: SplitRecord) -> ExportedRun:
    setup, outcome = decided_setup_of(trial), outcome_of(trial)
    assert trial.value is not None, "a completed trial has a value"
    try:
        return ExportedRun(
            trial=trial.number,
            seed=setup.seed,
            split=split,
            accuracy=trial.value,
            epoch=outcome.epoch if outcome else len(trial.intermediate_values),
            seconds=outcome.seconds if outcome else None,
            device=outcome.device if outcome else "",
            versions=outcome.versions if outcome else {},
            train_loss=history_of(trial).train_loss,
        )
    except ValidationError as error:  # what another program wrote in the place of ours
        raise ValueError(f"trial {trial.number} cannot be exported: {describe(error, ExportedRun)}") from None


def _trial(study: SearchStudy, number: int) -> FrozenTrial:
    found = study.whole_trials([number])
    if not found:
        count = study.storage.get_n_trials(study.study_id)
        rule = f"trials are numbered 0 to {count - 1}" if count else "there is none"
        raise ValueError(f"--trial: must be a trial of study {study.name!r} ({rule}), but got {number}")
    return found[0]


def _place(storage_url: str) -> str:
    """The storage as it is found from any folder, without a password."""
    path = re.fullmatch(r"sqlite(?:\+\w+)?:///(.+)", storage_url)
    return f"sqlite:///{os.path.abspath(path[1])}" if path else masked(storage_url)  # noqa: PTH100


def write_export(export: ExportedConfiguration, path: Path) -> ExportedConfiguration:
    """Write the file, whole or not at all; return what it holds, now with the command that retrains it.

    An export that is there already is replaced.

    Raises:
        ValueError: if another file is there, or none can be written.
    """
    folder = path.with_name(path.stem)
    command = (
        f"cifar-search retrain {shlex.quote(str(path))} --seeds 3 -o {shlex.quote(f'runs/{folder.name}')}"
    )
    export = export.model_copy(update={"command": command})
    if path.exists() and not _is_export(path):
        raise ValueError(f"-o: {path} is there already and is no exported configuration: choose another name")
    write_text(path, as_yaml(export))
    return export


def as_yaml(export: ExportedConfiguration, added: Mapping[str, Any] | None = None) -> str:
    """The file's text: a comment for people, then all fields, ``added`` keys, and the configuration last."""
    tree = export.model_dump(mode="json")
    configuration = tree.pop("configuration")
    return _header(export) + dump_yaml({**tree, **(added or {}), "configuration": configuration})


def _header(export: ExportedConfiguration) -> str:
    score = export.score
    sure = f" (standard deviation {100 * score.spread:.2f} points)" if score.spread is not None else ""
    if score.low is not None and score.high is not None:
        level = f"{100 * score.confidence:g} % " if score.confidence else ""
        sure += f", {level}interval {100 * score.low:.2f} to {100 * score.high:.2f} %"
    picked = " Picked for its score in a search, it is likely to do a little worse."
    if not score.kind.endswith("the search"):
        picked = " The interval is of its own runs, and does not pay for its having been picked by them."
    lines = [
        f"question: {export.question}",
        f"answer: study {export.study!r}, {export.chosen}",
        f"score: {100 * score.mean:.2f} % validation accuracy, {score.kind}, n = {score.n}{sure}." + picked,
        f"again: {export.command}",
        "Settings may be edited; they are checked when the file is read.",
    ]
    wrapped = [
        part for line in lines for part in textwrap.wrap(_printable(line), 106, break_on_hyphens=False)
    ]
    return "\n".join([FIRST_LINE, *(f"# {line}" for line in wrapped)]) + "\n\n"


def _printable(text: str) -> str:
    return " ".join(plain_letters(text).split())


def _is_export(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(FIRST_LINE)) == FIRST_LINE.encode()
    except OSError:
        return False


def read_export(path: Path) -> ExportedConfiguration:
    """Read and check an exported configuration.

    Raises:
        ValueError: the file, the place in it, the rule and the value.
    """
    tree = read_tree(path)
    tree.pop(TRAINED, None)
    return check_tree(ExportedConfiguration, tree, path)


def read_tree(path: Path) -> dict[str, Any]:
    """A file's plain content, if it looks like an export at all.

    Raises:
        ValueError: the file, and what is wrong with it.
    """
    try:
        text = read_text(path)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error})") from None
    tree = load_yaml(text, str(path))
    if not isinstance(tree, dict) or "format" not in tree or "configuration" not in tree:
        raise ValueError(
            f"{path}: must be a file written by cifar-search export, with format and configuration"
        )
    return tree


def check_tree(model: type[Model], tree: Mapping[str, Any], path: Path) -> Model:
    """The tree as a model that has configurations in ``configuration`` and ``base``, all of it checked.

    Raises:
        ValueError: the file, the place in it, the rule and the value.
    """
    with within(str(path)):
        _refuse_infinite(tree)
        try:
            read = model.model_validate_json(json.dumps(tree, default=repr), strict=True)
        except ValidationError as error:
            raise ValueError(describe(error, model)) from None
        _refuse_unknown_keys(tree, read)
        _refuse_missing(tree, read.model_dump(mode="json"))
        for key in ("configuration", "base"):
            if tree.get(key) is not None:
                _refuse_missing(tree[key], Configuration.read(tree[key], key).tree(), key)
    return read


def _refuse_infinite(tree: Any, place: str = "") -> None:
    """JSON has no way of writing these, and nothing here may be one."""
    if isinstance(tree, float) and not abs(tree) < float("inf"):
        raise ValueError(f"{place}: must be a finite number, but got {tree}")
    items = tree.items() if isinstance(tree, Mapping) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        _refuse_infinite(value, f"{place}.{plain(key)}".lstrip("."))


def _refuse_missing(written: Any, read: Any, place: str = "") -> None:
    """What was taken out of the file would silently take its default."""
    items = read.items() if isinstance(read, dict) else enumerate(read) if isinstance(read, list) else ()
    for key, value in items:
        inner = f"{place}.{key}".lstrip(".")
        if isinstance(read, dict) and key not in written:
            default = "" if isinstance(value, dict) else f"; its default is {brief(value)}"
            raise ValueError(f"{inner}: must be given, as all that an export holds{default}")
        _refuse_missing(written[key], value, inner)


def _refuse_unknown_keys(tree: Any, read: object, place: str = "") -> None:
    if isinstance(read, tuple):
        for index, (part, value) in enumerate(zip(tree, read, strict=True)):
            _refuse_unknown_keys(part, value, f"{place}.{index}")
    if not isinstance(read, BaseModel):
        return
    for key, part in tree.items():
        known = type(read).model_fields
        if key not in known:
            raise ValueError(f"{place}: {unknown('key', key, known)}".lstrip(": "))
        _refuse_unknown_keys(part, getattr(read, key), f"{place}.{key}".lstrip("."))


def names_of(path: Path, count: int) -> list[Path]:
    """Where several exports go: NAME-1.yaml to NAME-K.yaml; one goes where it is told."""
    if count == 1:
        return [path]
    return [path.with_name(f"{path.stem}-{rank}{path.suffix}") for rank in range(1, count + 1)]
