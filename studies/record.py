"""What a study keeps beside Optuna's own columns, typed, and where in its attributes.

Of the study: what it searches and on which data (``StudyRecord``). Of a trial: its slot, attempt and worker
from the moment that it begins, its ``Setup`` once its parameters are drawn, its ``Outcome`` and its curves
(``History``) when it ends.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeGuard, TypeVar, get_args

from optuna.trial import FrozenTrial, TrialState
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from spaces.config import first_problem
from spaces.text import brief

STUDY = "cifar-search"
PLAN = "cifar-search plan"
TOTAL = "trials"
NOTICES = "notices"
STOPS = "stops"
STOP_REQUESTS = "stop requests"
SLOT = "slot"
ATTEMPT = "attempt"
WORKER = "worker"
"""The process that trains an attempt."""
LEADER = "leader"
"""The process of the command that leads the worker; missing for one that is led by none."""
CLAIM = "claim"
"""Random for each claim: the uid of its attempt. A claim that lost the lock finds by it what it had begun."""
QUEUED = "queued"
"""Whether a person queued the attempt."""
SETUP = "setup"
OUTCOME = "outcome"
HISTORY = "history"
CONFUSION = "confusion"
CONFIGURATION = "configuration"
"""The part of a setup that says all that was to be run."""
LARGEST_CONFUSION = 100
"""Classes up to which a confusion matrix fits the text column of every database."""

Reason = Literal[
    "finished",
    "stopped early",
    "pruned",
    "diverged",
    "interrupted",
    "out of memory",
    "crowded out",
    "invalid",
    "error",
    "killed",
    "lost",
]
"""Why an attempt ended. interrupted: it was stopped from outside, alone or with all that ran beside it.
killed: its worker was seen to have died alone. lost: its worker fell silent. crowded out: there was no memory
left beside the trials that shared its device; its slot is tried again beside fewer."""

FINAL_REASONS: frozenset[Reason] = frozenset({"out of memory", "invalid"})
"""Failures that would repeat themselves: they close a slot at once."""


_REASONS = frozenset(get_args(Reason))
_NOT_FAILED: frozenset[Reason] = frozenset({"finished", "stopped early", "pruned", "diverged"})
_WITH_OUTCOME = (TrialState.COMPLETE, TrialState.PRUNED)
"""States in which an attempt is ended by its worker alone."""
_MOST = 2**32
"""More than any number or seed of ours."""
T = TypeVar("T", bound=BaseModel)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True, allow_inf_nan=False)


class SplitSpec(_Record):
    """What decides which images train and which validate."""

    seed: int
    val_size: float | int | None = None
    """Share or number of validation images; None: the data set's own validation part, or else a tenth."""
    train_size: int | None = None
    """How many of the other images train; None: all."""
    fold: int | None = None
    """The part of ``folds`` equal ones that validates, from 0; None: no cross-validation."""
    folds: int | None = None
    pooled: bool = False
    """Whether a data set's own validation images are put together with the training images first."""


class SplitRecord(SplitSpec):
    """How the training images were divided."""

    hash: str
    train_images: int
    val_images: int

    @property
    def spec(self) -> SplitSpec:
        """What decided it, without what came of it."""
        return SplitSpec.model_validate(self.model_dump(include=set(SplitSpec.model_fields)))


class DataRecord(_Record):
    """The data set, by content."""

    name: str
    hash: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    """Height, width, channels."""
    source: str = ""
    """What ``--dataset`` says to load it: a registered name, or a folder's full path."""
    image_size: int | None = None
    """What ``--image-size`` said."""


class StudyRecord(_Record):
    """What a study searches, on which data, by which method. Does not change once the study exists."""

    format: Literal[1] = 1
    space_name: str
    space: str
    """The space's YAML, as adapted to the data and the command."""
    space_fingerprint: str
    data: DataRecord
    split: SplitRecord
    epochs: int
    precision: str
    seed: int
    sampler: str
    pruner: str
    repeat: int = 1
    """Slots for each point of a grid."""
    mark: str = ""
    """Random; tells this study from a later one of the same name."""
    files: dict[str, str] = {}
    """By the path of each file that trials read besides images, the beginning of its SHA-256."""
    changes: tuple[str, ...] = ()
    """How the space was adapted, for people to read."""


class Drawing(_Record):
    """How a worker draws slots."""

    sampler: str
    parallel: int = 1
    """How many trials run at once, of all workers of its command: the sampler "auto" goes by it."""
    ahead: int = 0
    """How many slots it may hold that it has no place for yet."""


class Setup(_Record):
    """What an attempt is about to run."""

    seed: int
    repeat: int
    """How many earlier slots run the same configuration."""
    fingerprint: str
    configuration: dict[str, Any]
    sampler: str
    pruner: str
    split: SplitSpec | None = None
    """None: the study's own."""
    parallel: int = 1
    """How many trials ran at once, of all workers of its command."""
    ahead: int = 0
    """How many of them could be drawn before there was a place for them."""


class Outcome(_Record):
    """How an attempt ended."""

    reason: Reason
    message: str = ""
    epoch: int = 0
    """The epoch that the value belongs to."""
    reached: int = 0
    """Epochs that were reported when its worker died."""
    best_accuracy: float | None = None
    best_epoch: int | None = None
    tta_accuracy: float | None = None
    """Validation accuracy with test-time augmentation, of the weights that the value belongs to."""
    seconds: float = Field(default=0.0, ge=0, le=1e12)
    images_per_second: float | None = None
    peak_memory: int | None = None
    """Bytes: of the device's allocator on CUDA, else of the whole process."""
    parameters: int | None = None
    multiply_adds: int | None = None
    """Of one image's forward pass."""
    device: str = ""
    eager: str = ""
    """Why its steps were not captured in a CUDA graph; empty where they were, and on a CPU."""
    versions: dict[str, str] = {}

    @property
    def software(self) -> str:
        """The versions, for people."""
        return ", ".join(f"{name} {number}" for name, number in self.versions.items())


class History(_Record):
    """An attempt's curves, one entry an epoch. Validation accuracy is Optuna's own intermediate value.

    Columns that do not apply to an attempt are empty.
    """

    train_loss: tuple[float | None, ...] = ()
    train_accuracy: tuple[float | None, ...] = ()
    val_loss: tuple[float | None, ...] = ()
    lr: tuple[float, ...] = ()
    seconds: tuple[float, ...] = ()
    memorized: tuple[float | None, ...] = ()
    """Of training images whose given label is wrong, the share for which it is predicted."""
    corrected: tuple[float | None, ...] = ()
    """Of the same images, the share for which the true label is predicted."""
    step: tuple[int, ...] = ()
    """Steps done at each of the finer points that ``training.log_every`` asks for."""
    step_loss: tuple[float | None, ...] = ()
    """Mean training loss of the steps since the point before."""
    step_accuracy: tuple[float | None, ...] = ()
    """Mean training accuracy of those steps."""

    def pieces(self, size: int = 500) -> list[dict[str, Sequence[float | None]]]:
        """Cut into spans of entries, so that each fits the text column of every database (MySQL: 64 KiB)."""
        columns = self.model_dump(exclude_defaults=True)
        longest = max(map(len, columns.values()), default=0)
        return [
            {name: values[start : start + size] for name, values in columns.items() if len(values) > start}
            for start in range(0, longest, size)
        ]

    @classmethod
    def joined(cls, pieces: Sequence[Mapping[str, Sequence[Any]]]) -> History:
        """Put spans of entries together again."""
        names = cls.model_fields
        return cls(**{name: tuple(v for piece in pieces for v in piece.get(name, ())) for name in names})


def read_study(attributes: Mapping[str, Any], name: str) -> StudyRecord:
    """The record of a study.

    Raises:
        ValueError: if the study was not made by this program, or by a version with another format.
    """
    if PLAN in attributes:
        raise ValueError(
            f"study {name!r} holds repetitions: name the search that they belong to, "
            f"{_parent_in(attributes[PLAN])!r}"
        )
    if STUDY not in attributes:
        raise ValueError(f"study {name!r} was not made by cifar-search")
    try:
        return StudyRecord.model_validate(attributes[STUDY])
    except ValidationError as error:
        raise ValueError(f"study {name!r} cannot be read: {first_problem(error)}") from None


def _parent_in(plan: object) -> object:
    return plan.get("parent", "") if isinstance(plan, dict) else ""


def total_in(attributes: Mapping[str, Any]) -> int | None:
    """Slots that a study owes; None: as many as fit its time."""
    total = attributes.get(TOTAL)
    return total if _is_count(total) else None


def flaw_of(trial: FrozenTrial) -> str | None:
    """Why a trial makes no sense as an attempt of ours, so that it is none; None where it does, or where it
    says nothing of itself, as a trial of another program does.

    What is read is what everybody can write who reaches the database.
    """
    attributes = trial.user_attrs
    slot, setup, outcome = (attributes.get(key) for key in (SLOT, SETUP, OUTCOME))
    if slot is not None and not _is_count(slot):
        return f"its slot must be a whole number, but is {brief(slot)}"
    if SETUP in attributes and not is_setup(setup):
        return f"its setup is none of ours: {brief(setup)}"
    if OUTCOME in attributes and not _is_outcome(outcome):
        return f"its outcome is none of ours: {brief(outcome)}"
    if slot is not None and trial.state in _WITH_OUTCOME and outcome is None:
        return f"another program told that it is {trial.state.name.lower()}"
    if slot is not None and trial.state == TrialState.FAIL and outcome and outcome["reason"] in _NOT_FAILED:
        return f"another program told that it failed, or took its value, but it {outcome['reason']}"
    if slot is not None and trial.state in _WITH_OUTCOME and not _has_accuracy(trial):
        return f"its value must be one accuracy, but is {brief(trial.values)}"
    return None


def is_foreign(trial: FrozenTrial) -> bool:
    """Whether another program made and began the trial."""
    ours = (SLOT, SETUP, OUTCOME)
    return trial.state != TrialState.WAITING and not any(key in trial.user_attrs for key in ours)


def is_evidence(trial: FrozenTrial) -> bool:
    """Whether samplers and pruners may go by the trial: no other program wrote it, or into its record."""
    return not is_foreign(trial) and flaw_of(trial) is None


def _is_count(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < _MOST


def is_setup(setup: object) -> TypeGuard[dict[str, Any]]:
    """Whether it has what attempts are told apart by; the rest is looked at where it is used."""
    if not isinstance(setup, dict):
        return False
    texts, counts = ("fingerprint", "sampler", "pruner"), ("seed", "repeat")
    return all(isinstance(setup.get(key), str) for key in texts) and all(
        _is_count(setup.get(key)) for key in counts
    )


def _is_outcome(outcome: object) -> bool:
    reason = outcome.get("reason") if isinstance(outcome, dict) else None
    return isinstance(reason, str) and reason in _REASONS


def _has_accuracy(trial: FrozenTrial) -> bool:
    """A pruned trial needs none."""
    values = trial.values or []
    return (len(values) == 1 and _is_accuracy(values[0])) or (trial.state == TrialState.PRUNED and not values)


def _is_accuracy(value: float) -> bool:
    return 0 <= value <= 1


def slot_of(trial: FrozenTrial) -> int | None:
    """The slot that a trial is an attempt of; None also for one that makes no sense."""
    slot: int | None = trial.user_attrs.get(SLOT)
    return None if slot is None or flaw_of(trial) else slot


def uid_of(trial: FrozenTrial) -> str | None:
    """What tells the attempt from a later one of the same id; None for one that no worker of ours took."""
    uid = trial.user_attrs.get(CLAIM)
    return uid if isinstance(uid, str) else None


def worker_of(trial: FrozenTrial) -> str:
    """The process that trains an attempt; empty where there is none."""
    return text_of(trial, WORKER)


def leader_of(trial: FrozenTrial) -> str:
    """The process of the command that leads an attempt's worker; empty where there is none."""
    return text_of(trial, LEADER)


def text_of(trial: FrozenTrial, key: str) -> str:
    """A user attribute that is a text; empty where there is none."""
    text = trial.user_attrs.get(key)
    return text if isinstance(text, str) else ""


def setup_of(trial: FrozenTrial) -> Setup | None:
    """What the trial set out to run; None if it ended before that was decided, or makes no sense."""
    return _read(Setup, trial, SETUP)


def decided_setup_of(trial: FrozenTrial) -> Setup:
    """As ``setup_of``, of a trial that has one.

    Raises:
        ValueError: another program wrote in its place.
    """
    setup = setup_of(trial)
    if setup is None:
        raise ValueError(f"trial {trial.number} has no configuration that makes sense")
    return setup


def fingerprint_of(trial: FrozenTrial) -> str | None:
    """Of the configuration that the trial set out to run; as ``setup_of``, also of a trial read in brief."""
    stored = trial.user_attrs.get(SETUP)
    return stored["fingerprint"] if is_setup(stored) else None


def sampler_of(trial: FrozenTrial) -> str | None:
    """By which the trial's parameters were drawn; as ``fingerprint_of``."""
    stored = trial.user_attrs.get(SETUP)
    return stored["sampler"] if is_setup(stored) else None


def outcome_of(trial: FrozenTrial) -> Outcome | None:
    """How the trial ended; None while it runs. Of what makes no sense beside the reason nothing is known."""
    outcome = _read(Outcome, trial, OUTCOME)
    if outcome is None and OUTCOME in trial.user_attrs and not flaw_of(trial):
        return Outcome(reason=trial.user_attrs[OUTCOME]["reason"])
    return outcome


def _read(kind: type[T], trial: FrozenTrial, key: str) -> T | None:
    try:
        return kind.model_validate(trial.user_attrs[key]) if key in trial.user_attrs else None
    except ValidationError:
        return None


def reason_of(trial: FrozenTrial) -> Reason:
    """Why an ended trial ended; of one that another program ended, nothing is known but that it is lost."""
    outcome = outcome_of(trial)
    return outcome.reason if outcome else "lost"


def reached_by(trial: FrozenTrial) -> int:
    """How many epochs an attempt had reported when its worker died."""
    outcome = outcome_of(trial)
    return outcome.reached if outcome else 0


def confusion_of(trial: FrozenTrial) -> list[list[int]] | None:
    """Validation images by true class (rows) and predicted class; None where it was not recorded."""
    stored = trial.user_attrs.get(CONFUSION)
    rows = stored if isinstance(stored, list) else []
    square = all(isinstance(row, list) and len(row) == len(rows) for row in rows)
    return rows if rows and square and all(_is_count(count) for row in rows for count in row) else None


def history_key(piece: int) -> str:
    """The attribute that holds the given span of epochs."""
    return HISTORY if piece == 0 else f"{HISTORY} {piece}"


def accuracy_of(trial: FrozenTrial) -> float | None:
    """The accuracy that the trial was told with; None where there is none, or what another program told."""
    return trial.values[0] if trial.values and _has_accuracy(trial) else None


def curve_of(trial: FrozenTrial) -> list[float]:
    """The trial's validation accuracy after each epoch, as ``reports_of``."""
    return list(reports_of(trial).values())


def reports_of(trial: FrozenTrial) -> dict[int, float]:
    """The trial's validation accuracy by epoch, up to the first that can be none."""
    in_order = sorted(trial.intermediate_values.items())
    return dict(itertools.takewhile(lambda report: _is_accuracy(report[1]), in_order))


def history_of(trial: FrozenTrial) -> History:
    """The trial's curves, as far as they were recorded."""
    pieces: list[Mapping[str, Any]] = []
    while history_key(len(pieces)) in trial.user_attrs:
        pieces.append(trial.user_attrs[history_key(len(pieces))])
    try:
        return History.joined(pieces)
    except (AttributeError, TypeError, ValidationError):  # none of ours
        return History()
