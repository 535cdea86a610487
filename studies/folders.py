"""The folders beside a storage, for what does not belong into a database."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from pathlib import Path

from sqlalchemy.engine import URL

from studies.urls import check_url, masked

CHECKPOINTS = "checkpoints"
SHARED = "CIFAR_SEARCH_SHARED"
"""Environment variable: a folder that all workers of a database on a server share."""


def folder_of(url: str | URL, kind: str) -> Path:
    """Where files of this kind lie: beside an SQLite file; of a database on a server in the folder that
    ``CIFAR_SEARCH_SHARED`` names, else in the user's data folder. It need not exist."""
    parsed = check_url(url)
    if parsed.get_backend_name() == "sqlite":
        file = Path(parsed.database or "").resolve()
        return file.with_name(f"{file.name}.{kind}")
    key = hashlib.sha256(masked(parsed).encode()).hexdigest()[:16]
    shared = os.environ.get(SHARED)
    return (Path(shared) if shared else _of_user()) / kind / key


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


def _of_user() -> Path:
    from platformdirs import user_data_path

    return Path(user_data_path("cifar-search"))
