"""The one host that an SQLite database serves, remembered beside it in the file ``DATABASE.host``.

SQLite's write-ahead log is shared memory: processes of one kernel see it, those of another do not, although a
network file system shows both the same files. A copy of the database alone remembers nothing, and serves the
host that next opens it to write.
"""

from __future__ import annotations

import socket
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from studies.files import whole
from studies.urls import StorageError

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_MACHINE = Path("/etc/machine-id")


class Host(BaseModel):
    """What tells one host from another."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    name: str
    machine: str = ""
    """The machine-id of its system; empty where there is none."""
    boot: str = ""
    """This start of its kernel, which all its containers share; empty where it cannot be told."""

    def is_same(self, other: Host) -> bool:
        """Whether both are one host. Names alone may differ between containers, and a machine-id alone may
        be that of an image from which a whole cluster was started."""
        if self.boot and self.boot == other.boot:
            return True
        return (self.name, self.machine) == (other.name, other.machine)


def this_host() -> Host:
    """The host that this process runs on."""
    return Host(name=socket.gethostname(), machine=_text(_MACHINE), boot=_text(_BOOT))


def host_file(database: Path) -> Path:
    """The file that remembers the database's host."""
    return database.with_name(f"{database.name}.host")


def check_host(database: Path) -> None:
    """Refuse a database that serves another host; changes nothing.

    Raises:
        StorageError: naming both hosts, and how the database is moved.
    """
    here, there = this_host(), _remembered(database)
    if there is not None and not there.is_same(here):
        raise StorageError(
            f"serves the host {there.name!r}, but this is {here.name!r}: several hosts cannot write to one "
            "SQLite file, since its write-ahead log does not hold on network file systems; use PostgreSQL or "
            f"MySQL, or, if it was moved here for good, delete {host_file(database)}"
        )


def serves_this_host(database: Path) -> bool:
    """Whether it is this host that the database serves, and no other may be at work on it."""
    there = _remembered(database)
    return there is not None and there.is_same(this_host())


def remember_host(database: Path) -> None:
    """From now on the database serves this host. Checks first, as ``check_host``."""
    check_host(database)
    here = this_host()
    if _remembered(database) == here:
        return
    with whole(host_file(database)) as file:  # so that no process reads half of it
        file.write(here.model_dump_json().encode())


def _remembered(database: Path) -> Host | None:
    try:
        return Host.model_validate_json(host_file(database).read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError:
        raise StorageError(f"{host_file(database)} does not name a host: delete it") from None


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
