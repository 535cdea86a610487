"""What a user asks of Ray, and what is refused before Ray is imported."""

from __future__ import annotations

import importlib.util
import re
import sys
from dataclasses import dataclass

from search.placement import Resources
from studies.storage import check_url, masked


@dataclass(frozen=True)
class RayRequest:
    """``--ray`` and ``--gpus-per-worker``."""

    address: str
    """local: a Ray of this command alone; auto: the one that runs on this machine; or HOST:PORT."""
    gpus_per_worker: float | None = None
    """0 to 1; 0 trains on CPUs. None: 1 where the cluster has GPUs, else 0."""


def ray_request(address: str | None, gpus_per_worker: float | None) -> RayRequest | None:
    """The request that the options make; None without ``--ray``.

    Raises:
        ValueError: for ``--gpus-per-worker`` alone.
    """
    if address is not None:
        return RayRequest(address, gpus_per_worker)
    if gpus_per_worker is not None:
        raise ValueError(
            f"--gpus-per-worker: goes with --ray, but got {gpus_per_worker:g} without it: --device and "
            "--per-gpu place local workers"
        )
    return None


def check_request(request: RayRequest, resources: Resources, storage_url: str) -> None:
    """Refuse what cannot work, or would show the storage's password to the whole cluster.

    Raises:
        ValueError: with the rule, the value and the remedy.
    """
    if importlib.util.find_spec("ray") is None:
        raise ValueError('--ray: needs Ray: pip install -e ".[ray]"')
    if request.address not in ("local", "auto") and not re.fullmatch(r"[^:/@\s]+:\d{1,5}", request.address):
        raise ValueError(
            f"--ray: must be local, auto or the HOST:PORT of a cluster that this machine belongs to, "
            f"but got {request.address!r}"
        )
    if resources.workers == 0:
        raise ValueError("--workers: must be at least 1 or auto with --ray, but got 0")
    if resources.device != "auto":
        raise ValueError(
            f"--device: must be auto with --ray, where --gpus-per-worker says what a worker gets, but got "
            f"{resources.device!r}"
        )
    if request.address != "local" and check_url(storage_url).get_backend_name() == "sqlite":
        raise ValueError(
            f"--storage: SQLite serves one host, but --ray {request.address} may use several: "
            f"use PostgreSQL or MySQL, or --ray local, in place of {storage_url}"
        )
    if masked(storage_url) != storage_url and any(storage_url in word for word in sys.argv):
        raise ValueError(
            f"--storage: with --ray a URL with a password must come from $CIFAR_SEARCH_STORAGE, since Ray "
            f"shows its jobs' command lines to the whole cluster, but got {masked(storage_url)}"
        )
