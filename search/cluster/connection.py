"""A connection to a Ray cluster that nobody without its token can use.

Whoever reaches the port of a Ray cluster without a token can run any program on it. So a cluster must refuse
those who have no token, which is tried, unless its address is a loopback address.

Uses of Ray's internals, held by a test: ``ray._raylet.GcsClient``, which asks a cluster something without
joining it; ``canonicalize_bootstrap_address``, which finds the cluster of this machine;
``ray._private.worker.print_to_stdstream``, which writes events of the cluster across our own output;
``RAY_NUM_REDIS_GET_RETRIES``, the seconds for which Ray waits for what it starts.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from search.interrupts import Interrupts
from search.sockets import OF_RAY, folder_for

PATIENCE = 20.0
"""Seconds in which a cluster must answer."""
STARTING = 90
"""Seconds in which a local Ray must have started; on a busy machine its own 20 do not suffice."""
_ASK = """
import sys
from ray._raylet import GcsClient
from ray.exceptions import AuthenticationError
try:
    GcsClient(address=sys.argv[1]).internal_kv_keys(b"", None, timeout=5)
except AuthenticationError:
    sys.exit(77)
"""
_OWN_TOKEN = secrets.token_hex(32)
_WITHOUT_TOKEN = {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": "", "RAY_AUTH_TOKEN_PATH": ""}
_REMEDY = (
    "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, to the same token for every "
    "`ray start` of the cluster and for this command (`ray get-auth-token --generate` makes one)"
)


@dataclass(frozen=True)
class Cluster:
    """What a cluster has."""

    address: str
    cpus: float
    gpus: float


@contextmanager
def connected(address: str, cpus: int, interrupts: Interrupts) -> Iterator[Cluster]:
    """A connection as long as the ``with`` block runs; a local Ray, of ``cpus`` cores, lives as long.

    Raises:
        ValueError: no cluster answers there, it refuses our token, or it needs none and is not a loopback
            address, or there is no place for a local Ray's sockets; one line.
    """
    if address == "local":
        _use_own_token()
        os.environ.setdefault("RAY_TMPDIR", folder_for(OF_RAY))
        os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", str(STARTING))
        options: dict[str, Any] = {"num_cpus": cpus, "object_store_memory": 100_000_000}
    else:
        address, options = _checked(address), {}
    import ray

    ray._private.worker.print_to_stdstream = _print_nothing
    try:
        _join(address, options, interrupts)
        resources = ray.cluster_resources()
        yield Cluster(address, resources.get("CPU", 0.0), resources.get("GPU", 0.0))
    finally:
        ray.shutdown()


def _use_own_token() -> None:
    """Give the Ray of this command a token that only this user's processes can read. Read when Ray is
    imported, by all that it starts, too."""
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=_OWN_TOKEN)


def _join(address: str, options: dict[str, Any], interrupts: Interrupts) -> None:
    import ray

    try:
        ray.init(address, include_dashboard=False, log_to_driver=False, logging_level="CRITICAL", **options)
    except SystemExit:  # Ray's own answer to SIGTERM
        raise KeyboardInterrupt from None
    except (ValueError, OSError, RuntimeError, ray.exceptions.RayError) as error:
        hint = "" if address == "local" else "; this machine must be a node of it: ray start --address="
        raise ValueError(f"--ray {address}: {_first_line(error)}{hint and hint + address}") from None
    finally:
        interrupts.listen()


def _print_nothing(*_: object, **__: object) -> None:
    pass


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _checked(address: str) -> str:
    """The HOST:PORT of a cluster that answers us, and is not open to strangers.

    Raises:
        ValueError: with what is wrong.
    """
    found = _running_here() if address == "auto" else address
    host, _, port = found.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), PATIENCE) as link:
            loopback = ipaddress.ip_address(link.getpeername()[0]).is_loopback
    except (OSError, OverflowError) as error:
        raise ValueError(f"--ray {found}: no cluster answers there ({error})") from None
    if not loopback and _answers(found, _WITHOUT_TOKEN):
        raise ValueError(
            f"--ray: a cluster must require a token unless its address is a loopback address, but {found} "
            f"lets anyone run programs: {_REMEDY}"
        )
    if not _answers(found, {}):
        raise ValueError(
            f"--ray {found}: the cluster refuses this command's token, or lack of one: {_REMEDY}"
        )
    return found


def _running_here() -> str:
    from ray._private.services import canonicalize_bootstrap_address

    try:
        found: str | None = canonicalize_bootstrap_address("auto")
    except (ConnectionError, ValueError):
        found = None
    if found is None:
        raise ValueError("--ray auto: no Ray runs on this machine: start it (ray start), or use --ray local")
    return found


def _answers(address: str, variables: dict[str, str]) -> bool:
    """Whether a cluster lets a process with these environment variables in; asked by another process, since
    Ray reads them once."""
    environment = {**os.environ, **variables}
    try:
        words = [sys.executable, "-c", _ASK, address]
        code = subprocess.run(words, env=environment, capture_output=True, timeout=PATIENCE).returncode
    except subprocess.TimeoutExpired:
        code = 1
    if code not in (0, 77):
        raise ValueError(f"--ray {address}: does not answer as a Ray cluster of this version does")
    return code == 0
