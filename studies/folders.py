"""The folders beside a storage, for what does not belong into a database."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sqlalchemy.engine import URL

from studies.urls import check_url, masked

if TYPE_CHECKING:
    from studies.base import Study

CHECKPOINTS = "checkpoints"
SHARED = "CIFAR_SEARCH_SHARED"
"""Environment variable: a folder that all workers of a database on a server share."""


def folder_of(url: str | URL, kind: str) -> Path:
    """Where files of this kind lie: beside an SQLite file; of a database on a server in the folder that
    ``CIFAR_SEARCH_SHARED`` names, else in the user's data folder. It need not exist.

    Raises:
        ValueError: for a URL that cannot be served, and for a server if neither folder is known.
    """
    parsed = check_url(url)
    if parsed.get_backend_name() == "sqlite":
        file = Path(parsed.database or "").resolve()
        return file.with_name(f"{file.name}.{kind}")
    key = hashlib.sha256(masked(parsed).encode()).hexdigest()[:16]
    shared = os.environ.get(SHARED)
    return (Path(shared) if shared else of_user("data", f"let ${SHARED} name a folder")) / kind / key


def checkpoint_folder(url: str | URL, study: Study) -> Path:
    """Where a study's checkpoints lie, for all its workers."""
    return folder_of(url, CHECKPOINTS) / study.mark


def check_folder(url: str | URL, kind: str) -> None:
    """Refuse a place in which no files of this kind can ever be kept; leaves nothing there. A full disk is no
    reason: there may be room again.

    Raises:
        ValueError: if no folder can be made there.
    """
    folder = folder_of(url, kind)
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    try:
        Path(tempfile.mkdtemp(prefix=".", dir=existing)).rmdir()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return
        beside = check_url(url).get_backend_name() == "sqlite"
        raise ValueError(
            f"{kind}: must be kept in a folder that can be written, but {existing} is none "
            f"({error.strerror}): {'rename it' if beside else f'let ${SHARED} name another'}"
        ) from None


def of_user(kind: Literal["cache", "data"], remedy: str) -> Path:
    """The user's own folder for cached files or for data of this program. It need not exist.

    Raises:
        ValueError: with the remedy, if no home folder is known, as for a number that is no user's here.
    """
    import platformdirs

    try:
        return Path(getattr(platformdirs, f"user_{kind}_dir")("cifar-search"))
    except RuntimeError:
        raise ValueError(f"no home folder is known for this user: set $HOME, or {remedy}") from None
