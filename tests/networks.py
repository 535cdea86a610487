"""A network of a test's own, whose packets can be made to vanish: a cable from here to a namespace.

Both ends know by heart at which station the other one is. When the network is severed, each is told of a
station that does not exist: what is sent is lost, both ways, and nobody is told.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NOBODY = "02:00:00:00:00:99"
CABLES = 60
"""Most that there are at a time. Each has four addresses of 198.51.100.0/24, which is for examples."""
_NEW_NETWORK = 0x40000000


class NoNetworkError(Exception):
    """No network can be made here."""


class Network:
    """A cable. Servers that are started ``inside`` have the address ``server``; this side has ``client``."""

    def __init__(self) -> None:
        """Lay it.

        Raises:
            NoNetworkError: this process may not, or cannot.
        """
        if os.getuid() != 0 or shutil.which("ip") is None:
            raise NoNetworkError("a network of one's own takes root and the program ip (iproute2)")
        number = self._claim()
        self._space, self._near, self._far = f"cable{number}", f"cable{number}a", f"cable{number}b"
        self.client, self.server = (f"198.51.100.{4 * number + end}" for end in (1, 2))
        self._inside = ["netns", "exec", self._space, "ip"]
        _ip("netns", "add", self._space)
        _ip("link", "set", self._far, "netns", self._space)
        for where, end, address in (([], self._near, self.client), (self._inside, self._far, self.server)):
            _ip(*where, "address", "add", f"{address}/30", "dev", end)
            _ip(*where, "link", "set", end, "up")
        _ip(*self._inside, "link", "set", "lo", "up")
        self.restore()

    @staticmethod
    def _claim() -> int:
        """The number of a cable that nobody else has laid: its name can be given once."""
        for number in range(CABLES):
            ends = f"cable{number}a", f"cable{number}b"
            words = ["ip", "link", "add", ends[0], "type", "veth", "peer", "name", ends[1]]
            made = subprocess.run(words, capture_output=True, text=True)
            if made.returncode == 0:
                return number
            if "exists" not in made.stderr:
                raise NoNetworkError(f"no cable can be laid here: {made.stderr.strip()}")
        raise NoNetworkError(f"{CABLES} cables are laid already")

    def sever(self, *, answers: bool = False) -> None:
        """From now on let everything vanish, or what comes from the other end alone."""
        if not answers:
            self._tell([], self.server, NOBODY, self._near)
        self._tell(self._inside, self.client, NOBODY, self._far)

    def restore(self) -> None:
        """Let everything arrive."""
        self._tell([], self.server, _station(self._inside, self._far), self._near)
        self._tell(self._inside, self.client, _station([], self._near), self._far)

    @staticmethod
    def _tell(where: list[str], address: str, station: str, end: str) -> None:
        known = address, "lladdr", station, "nud", "permanent", "dev", end
        _ip(*where, "neighbour", "replace", *known)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Let this thread, and the processes that it starts, be at the other end of the cable."""
        with (
            Path("/proc/thread-self/ns/net").open() as here,
            Path(f"/run/netns/{self._space}").open() as there,
        ):
            _enter(there.fileno())
            try:
                yield
            finally:
                _enter(here.fileno())

    def close(self) -> None:
        """Take it away."""
        _ip("link", "delete", self._near)
        _ip("netns", "delete", self._space)


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


def _station(where: list[str], end: str) -> str:
    found: list[dict[str, Any]] = json.loads(_ip(*where, "-json", "link", "show", end))
    return str(found[0]["address"])


def _enter(descriptor: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, _NEW_NETWORK):
        raise OSError(ctypes.get_errno(), "setns")


@contextmanager
def network() -> Iterator[Network]:
    """A network as long as the ``with`` block runs.

    Raises:
        NoNetworkError: none can be made here.
    """
    cable = Network()
    try:
        yield cable
    finally:
        cable.close()


@pytest.fixture
def cable() -> Iterator[Network]:
    """A network of the test's own; the test is skipped where there can be none."""
    try:
        with network() as laid:
            yield laid
    except NoNetworkError as error:
        pytest.skip(str(error))
