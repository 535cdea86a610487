"""A network that lets packets vanish and tells nobody: what a worker asks of its database is done once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any

import optuna
import pytest
from networks import Network
from private_servers import SERVERS, MissingError, PrivateServer, private_server
from test_storage_ends import CALLS, begun, picture

from studies.storage import Storage, open_storage

optuna.logging.set_verbosity(optuna.logging.WARNING)
HOLE = 6.0
"""Seconds for which everything vanishes; longer than each side is patient here."""
LIMITS = {"CONNECT_TIMEOUT": 2, "VANISHED": 2, "KEEPALIVE": (1, 1, 2), "IDLE": 3}


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, cable: Network) -> Iterator[PrivateServer]:
    """One at the other end of the cable."""
    try:
        with private_server(request.param, network=cable) as started:
            yield started
    except MissingError as error:
        pytest.skip(str(error))


class Hole:
    """A hole that opens when so many threads have come to a certain point, and closes by itself."""

    def __init__(self, cable: Network, threads: int, *, answers: bool = False) -> None:
        self._sever = lambda: cable.sever(answers=answers)
        self._closing = threading.Timer(HOLE, cable.restore)
        self.come = threading.Barrier(threads, self._open, timeout=60).wait

    def _open(self) -> None:
        self._sever()
        self._closing.start()

    def open_at_commit(self, storage: Storage) -> None:
        """Come to the point when the storage commits for the first time."""
        dialect = storage.engine.dialect
        commit = dialect.do_commit

        def come_and_commit(connection: Any) -> None:
            dialect.do_commit = commit
            self.come()
            commit(connection)

        dialect.do_commit = come_and_commit


@pytest.mark.slow
def test_calls_survive_a_network_that_swallows_packets(
    server: PrivateServer, cable: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in LIMITS.items():
        monkeypatch.setattr(f"studies.connections.{name}", value)
    for moment in ("before the statement", "before the commit", "before its answer"):
        check(server.url, cable, moment)


def check(url: str, cable: Network, moment: str) -> None:
    """Let all calls, each by a thread and a storage of its own, come to the moment, and open the hole."""
    hole = Hole(cable, len(CALLS), answers=moment == "before its answer")
    with ExitStack() as stack, ThreadPoolExecutor(len(CALLS)) as threads:
        calls = []
        for name, call in CALLS.items():
            storage = stack.enter_context(closing(open_storage(url, create=True)))
            studies = [begun(storage, f"{name} {moment} {number}") for number in range(2)]
            calls.append((storage, call, studies[0], studies[1]))
        expected = [call(*undisturbed) for _, call, undisturbed, _ in calls]

        def disturbed(storage: Storage, call: Callable[..., Any], made: Any) -> Any:
            if moment == "before the statement":
                hole.come()
            else:
                hole.open_at_commit(storage)
            return call(*made)

        running = [threads.submit(disturbed, storage, call, made) for storage, call, _, made in calls]
        assert [call.result() for call in running] == expected, moment
        for _, _, undisturbed, made in calls:
            assert picture(made[0]) == picture(undisturbed[0]), moment
