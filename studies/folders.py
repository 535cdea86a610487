"""The folders beside a storage, for what does not belong into a database."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from sqlalchemy.engine import URL

from studies.urls import check_url, masked

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


def _of_user() -> Path:
    from platformdirs import user_data_path

    return Path(user_data_path("cifar-search"))
