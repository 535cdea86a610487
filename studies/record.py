"""What a study keeps beside Optuna's own columns, typed, and where in its attributes.

Of the study: what it searches and on which data (``StudyRecord``). Of a trial: its slot, attempt and worker
from the moment that it begins, its ``Setup`` once its parameters are drawn, its ``Outcome`` and its curves
(``History``) when it ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from optuna.trial import FrozenTrial
from pydantic import BaseModel, ConfigDict, ValidationError

from spaces.config import first_problem

STUDY = "cifar-search"
PLAN = "cifar-search plan"
TOTAL = "trials"
NOTICES = "notices"
STOPS = "stops"
SLOT = "slot"
ATTEMPT = "attempt"
WORKER = "worker"
CLAIM = "claim"
"""Random for each claim, which so finds again what it had begun when it lost the lock."""
SETUP = "setup"
OUTCOME = "outcome"
HISTORY = "history"
CONFUSION = "confusion"
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
"""Why an attempt ended. killed: its worker was seen to have died. lost: its worker fell silent. crowded out:
there was no memory left beside the trials that shared its device; its slot is tried again beside fewer."""

FINAL_REASONS: frozenset[Reason] = frozenset({"out of memory", "invalid"})
"""Failures that would repeat themselves: they close a slot at once."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)


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
    best_accuracy: float | None = None
    best_epoch: int | None = None
    tta_accuracy: float | None = None
    """Validation accuracy with test-time augmentation, of the weights that the value belongs to."""
    seconds: float = 0.0
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
            f"{attributes[PLAN].get('parent', '')!r}"
        )
    if STUDY not in attributes:
        raise ValueError(f"study {name!r} was not made by cifar-search")
    try:
        return StudyRecord.model_validate(attributes[STUDY])
    except ValidationError as error:
        raise ValueError(f"study {name!r} cannot be read: {first_problem(error)}") from None


def slot_of(trial: FrozenTrial) -> int | None:
    """The slot that a trial is an attempt of."""
    return trial.user_attrs.get(SLOT)


def setup_of(trial: FrozenTrial) -> Setup | None:
    """What the trial set out to run; None if it ended before that was decided."""
    stored = trial.user_attrs.get(SETUP)
    return Setup.model_validate(stored) if stored else None


def outcome_of(trial: FrozenTrial) -> Outcome | None:
    """How the trial ended; None while it runs."""
    stored = trial.user_attrs.get(OUTCOME)
    return Outcome.model_validate(stored) if stored else None


def reason_of(trial: FrozenTrial) -> Reason:
    """Why an ended trial ended; of one that another program ended, nothing is known but that it is lost."""
    outcome = outcome_of(trial)
    return outcome.reason if outcome else "lost"


def confusion_of(trial: FrozenTrial) -> list[list[int]] | None:
    """Validation images by true class (rows) and predicted class; None where it was not recorded."""
    stored: list[list[int]] | None = trial.user_attrs.get(CONFUSION)
    return stored


def history_key(piece: int) -> str:
    """The attribute that holds the given span of epochs."""
    return HISTORY if piece == 0 else f"{HISTORY} {piece}"


def curve_of(trial: FrozenTrial) -> list[float]:
    """The trial's validation accuracy after each epoch."""
    return [trial.intermediate_values[step] for step in sorted(trial.intermediate_values)]


def history_of(trial: FrozenTrial) -> History:
    """The trial's curves, as far as they were recorded."""
    pieces: list[Mapping[str, Any]] = []
    while history_key(len(pieces)) in trial.user_attrs:
        pieces.append(trial.user_attrs[history_key(len(pieces))])
    return History.joined(pieces)
