"""Looks at the test split: what ``retrain`` saw there, kept in the study whose configuration it trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from studies.storage import locked
from studies.study import SearchStudy

LOOKS = "test looks"
PIECE = 100
"""Looks in one attribute of the study: with room to spare, what every database's text column holds."""


class Look(BaseModel):
    """One evaluation of trained networks on the test images."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    date: AwareDatetime
    folder: str
    """Name of the folder of the trained networks, without the way to it."""
    seeds: tuple[int, ...]
    accuracies: tuple[float, ...]
    """Test accuracy (0 to 1) of each seed's network, on clean images."""
    fingerprint: str
    """Of the configuration."""
    version: str
    """Of this program."""


def looks_of(study: SearchStudy) -> tuple[Look, ...]:
    """All looks that were recorded, oldest first."""
    attributes = study.optuna.user_attrs
    looks: list[Look] = []
    for piece in range(len(attributes)):
        if _key(piece) not in attributes:
            break
        looks += _read(attributes[_key(piece)])
    return tuple(looks)


def _read(stored: object) -> Iterator[Look]:
    """Those that are looks; another program may have written the others."""
    for look in stored if isinstance(stored, list) else []:
        with suppress(ValidationError):
            yield Look.model_validate(look)


def add_looks(study: SearchStudy, looks: Sequence[Look]) -> int:
    """Record the looks that are not recorded yet; return how many those were.

    Raises:
        StorageError: (a ValueError) if the storage cannot be written to.
    """

    def add() -> int:
        known = list(looks_of(study))
        new = [look for look in dict.fromkeys(looks) if look not in known]
        together = [look.model_dump(mode="json") for look in known + new]
        for piece in range(len(known) // PIECE, -(-len(together) // PIECE) if new else 0):
            study.optuna.set_user_attr(_key(piece), together[PIECE * piece : PIECE * (piece + 1)])
        return len(new)

    return locked(study.storage, study.study_id, add)


def _key(piece: int) -> str:
    return LOOKS if piece == 0 else f"{LOOKS} {piece}"
