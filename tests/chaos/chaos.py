"""A search whose processes and database are ended at random, again and again: nothing may be lost or doubled.

    python tests/chaos/chaos.py --database postgresql --slots 100 --seed 0 [--ray]

Four workers train small networks on scikit-learn's digits, in a study on a database server that is started
for this alone, for root behind a network of its own that can be severed; with ``--ray`` they are actors on a
Ray cluster of two nodes, of which the second is killed and replaced too. Every few seconds something happens
to them, in an order that the seed decides (when it happens, the machine does). At the end the rows of the
database are counted with plain SQL, results are compared with trainings that nothing disturbed, and the
figures are stored in ``tests/chaos/results/``.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))  # what tests share

from benchmarks.recording import Table, load, store
from networks import Network, NoNetworkError, network
from private_servers import SERVERS, MissingError, PrivateServer, private_server
from ray_cluster import RayCluster, ray_cluster
from verdict import Verdict
from victims import PATIENCE, RIG, RaySearch, Search

RESULTS = Path(__file__).parent / "results"
WORKERS = 4
KINDS = {
    "worker killed (SIGKILL)": 6,
    "worker stopped beyond the grace period (SIGSTOP, SIGCONT)": 3,
    "worker told to leave (SIGTERM)": 1,
    "coordinator killed (SIGKILL) and started again": 1,
    "coordinator told to leave (SIGTERM) and started again": 1,
    "everything killed at once (workers, coordinator, database) and started again": 2,
    "process that holds the study's lock stopped for a while (SIGSTOP, SIGCONT)": 1,
    "database crashed and started again": 2,
    "network that swallowed all packets, both ways": 1,
    "node killed (SIGKILL to all its processes) and another started": 2,
}
"""How often each comes in a round, whose order is drawn. Before the first round each comes once."""
KILL, STOP, TERM, COORDINATOR, COORDINATOR_TERM, EVERYTHING, LOCK, DATABASE, NETWORK, NODE = KINDS
MORE = 10
FROZEN = (3.0, 10.0)
"""Least and most seconds for which the holder of the lock is stopped."""
PAUSE = (0.5, 3.5)
"""Least and most seconds between two faults."""
HOLE = (1.0, 8.0)
"""Least and most seconds for which the network swallows packets: shorter and longer than connections hold."""
RAY_PAUSE = (2.0, 10.0)
"""The same with Ray."""
COMPARED = 20
"""Slots at most that are trained again, those first that took several attempts."""


@dataclass
class Outcome:
    """What a run came to."""

    faults: dict[str, int]
    slots: int
    closed: int
    given_up: list[int]
    """Slots closed without a result after the failures that the program documents; counted as closed."""
    lost: list[int]
    twice: list[int]
    beyond: list[int | None]
    unfinished: list[int]
    attempts: int
    reasons: dict[str, int]
    compared: int
    differing: list[int]
    processes_left: int
    checkpoints_left: list[str]
    refused: int
    """Starts of the coordinator while the database was away, which refuse and are repeated."""
    unexpected: list[str]
    """Other ends of the coordinator that nobody asked for."""
    seconds: float

    def problems(self) -> dict[str, Any]:
        """Whatever must not be."""
        never = (
            *("lost", "twice", "beyond", "unfinished", "differing"),
            *("processes_left", "checkpoints_left", "unexpected"),
        )
        found = {name: getattr(self, name) for name in never if getattr(self, name)}
        return found | ({"closed": self.closed} if self.closed != self.slots else {})

    def table(self, title: str) -> Table:
        rows = [(kind, str(count)) for kind, count in self.faults.items()]
        rows += [
            ("faults in all", str(sum(self.faults.values()))),
            ("slots asked for and closed", f"{self.slots} and {self.closed}"),
            ("slots lost", str(len(self.lost))),
            ("slots closed twice", str(len(self.twice))),
            ("slots given up after failures", str(len(self.given_up))),
            (
                "attempts",
                f"{self.attempts} ({', '.join(f'{n} {r}' for r, n in sorted(self.reasons.items()))})",
            ),
            ("starts refused since the database was away", str(self.refused)),
            ("results compared with undisturbed trainings", f"{self.compared}, {len(self.differing)} differ"),
            ("running, waiting, processes, checkpoints left", str(self._left())),
            ("wall time", f"{self.seconds:.0f} s"),
        ]
        return Table(title, ("what", "count"), rows)

    def _left(self) -> int:
        return len(self.unfinished) + self.processes_left + len(self.checkpoints_left)


class Chaos:
    """Faults, one after the other."""

    def __init__(
        self,
        search: Search,
        server: PrivateServer | None,
        network: Network | None,
        cluster: RayCluster | None,
        seed: int,
    ) -> None:
        """``server`` is what is crashed, ``network`` what is severed, and ``cluster`` what loses nodes; None:
        there is no such fault."""
        self._search = search
        self._server = server
        self._network = network
        self._cluster = cluster
        self._pause = RAY_PAUSE if cluster else PAUSE
        self._random = random.Random(seed)
        self._stopped: dict[int, float] = {}
        without = {DATABASE: not server, NETWORK: not network, NODE: not cluster}
        self.faults = Counter({kind: 0 for kind in KINDS if not without.get(kind)})
        self._round = self._random.sample(list(self.faults), len(self.faults))  # at first one of each
        self.refused = 0
        self.unexpected: list[str] = []

    def run(self, deadline: float) -> None:
        """Until the search has ended by itself, or ``deadline`` is over (by ``time.monotonic``)."""
        self._search.start()
        kind = self._next()
        while not self._has_ended(deadline):
            if self._act(kind):
                self.faults[kind] += 1
                kind = self._next()
        self._wake(float("inf"))

    def _has_ended(self, deadline: float) -> bool:
        """Wait until it is time for the next fault, or the search has ended; see that it goes on."""
        due = time.monotonic() + self._random.uniform(*self._pause)
        while time.monotonic() < due:
            self._wake(time.monotonic())
            code = self._search.coordinator.poll()
            if code == 0 and all(self.faults.values()):
                return True
            if time.monotonic() > deadline:
                self.unexpected.append("not complete in time")
                return True
            if code is not None:
                self._go_on_after(code)
            time.sleep(0.1)
        return False

    def _go_on_after(self, code: int) -> None:
        """Start again; if all slots are closed before everything has happened once, with more of them."""
        if code == 0:
            self._search.slots += MORE
        else:
            self._count_end(code)
        self._search.start()

    def _count_end(self, code: int) -> None:
        """A command that begins while the database is away refuses in one line: it has not begun anything."""
        lines = self._search.said().splitlines()
        if code == 2 and len(lines) == 1 and "storage" in lines[0]:
            self.refused += 1
        else:
            self.unexpected.append(f"exit code {code}: {' '.join(lines[-1:])}")

    def _next(self) -> str:
        if not self._round:
            self._round = [kind for kind, often in KINDS.items() if kind in self.faults for _ in range(often)]
            self._random.shuffle(self._round)
        return self._round.pop()

    def _wake(self, now: float) -> None:
        for pid in [pid for pid, due in self._stopped.items() if due <= now]:
            del self._stopped[pid]
            signalled(pid, signal.SIGCONT)

    def _act(self, kind: str) -> bool:
        """Let a fault happen; false if there is nothing for it to happen to."""
        acts = {
            DATABASE: self._crash_database,
            NETWORK: self._sever_network,
            NODE: self._kill_node,
            EVERYTHING: self._kill_everything,
            LOCK: self._stop_lock_holder,
        }
        if act := acts.get(kind):
            return act()
        if kind in (COORDINATOR, COORDINATOR_TERM):
            return self._end_coordinator(signal.SIGKILL if kind == COORDINATOR else signal.SIGTERM)
        workers = sorted(set(self._search.workers()) - self._stopped.keys())
        if not workers:
            return False
        pid = self._random.choice(workers)
        if kind == STOP:
            self._stopped[pid] = time.monotonic() + RIG.grace + self._random.uniform(1, 3)
        return signalled(pid, {KILL: signal.SIGKILL, STOP: signal.SIGSTOP, TERM: signal.SIGTERM}[kind])

    def _crash_database(self) -> bool:
        assert self._server is not None
        self._server.crash()
        time.sleep(self._random.uniform(0, 2))
        self._server.start()
        return True

    def _stop_lock_holder(self) -> bool:
        def wait() -> None:
            self._wake(time.monotonic())

        pid = self._search.freeze_lock_holder(wait, time.monotonic() + PATIENCE)
        if pid is None:
            return False
        self._stopped[pid] = time.monotonic() + self._random.uniform(*FROZEN)
        return True

    def _kill_everything(self) -> bool:
        """As a power cut does, of the one machine or of all of the cluster's but its first."""
        if not self._search.workers():
            return False
        self._search.kill()
        if self._server:
            self._crash_database()
        if self._cluster:
            self._kill_node()
        self._stopped.clear()
        self._search.coordinator.wait()
        self._search.start()
        return True

    def _sever_network(self) -> bool:
        assert self._network is not None
        self._network.sever()
        time.sleep(self._random.uniform(*HOLE))
        self._network.restore()
        return True

    def _kill_node(self) -> bool:
        assert self._cluster is not None
        self._cluster.nodes.pop().kill()
        time.sleep(self._random.uniform(0, 2))
        self._cluster.add_node()
        return True

    def _end_coordinator(self, number: signal.Signals) -> bool:
        """At any time of its life, its start among them."""
        coordinator = self._search.coordinator
        coordinator.send_signal(number)
        while coordinator.poll() is None:
            self._wake(time.monotonic())
            time.sleep(0.1)
        expected = {signal.SIGKILL: (-number,), signal.SIGTERM: (130, -number)}[number]
        if coordinator.returncode == 0:
            return False  # it had just ended
        if coordinator.returncode not in expected:
            self._count_end(coordinator.returncode)
        self._search.start()
        return True


def signalled(pid: int, number: signal.Signals) -> bool:
    """Whether there was such a process to get the signal."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def soon(happened: Callable[[], object], seconds: float = PATIENCE) -> bool:
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@contextmanager
def database(kind: str, folder: Path) -> Iterator[tuple[str, PrivateServer | None, Network | None]]:
    """A database of its own, the server to crash, and the network to sever, where one can be made.

    Raises:
        MissingError: there is no such server here.
    """
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'studies.db'}", None, None
        return
    with ExitStack() as stack:
        cable = None
        with suppress(NoNetworkError):
            cable = stack.enter_context(network())
        server = stack.enter_context(private_server(kind, network=cable))
        yield server.url, server, cable


@contextmanager
def two_nodes() -> Iterator[RayCluster]:
    """A Ray cluster with room for all workers."""
    with ray_cluster(cpus=WORKERS // 2) as cluster:
        cluster.add_node()
        yield cluster


def run(
    kind: str,
    slots: int,
    seed: int,
    ray: bool = False,
    minutes: float = 15,
    train_size: int = 600,
    keep_log: Path | None = None,
) -> Outcome:
    """One chaos run.

    Raises:
        MissingError: there is no such database server here.
    """
    with (
        tempfile.TemporaryDirectory(prefix="cifar-search-chaos-") as name,
        database(kind, Path(name)) as (url, server, cable),
        two_nodes() if ray else nullcontext() as cluster,
    ):
        folder = Path(name)
        make = partial(RaySearch, cluster) if cluster else Search
        search = make(folder, url, slots, WORKERS, seed, train_size)
        chaos, begin = Chaos(search, server, cable, cluster, seed), time.monotonic()
        try:
            chaos.run(begin + 60 * minutes)
            seconds = time.monotonic() - begin
            soon(lambda: not search.left())
            return judged(Verdict(url, search.slots), chaos, len(search.left()), seconds, folder)
        finally:
            search.end()
            if keep_log:
                keep_log.write_text(search.said_by_all())


def judged(verdict: Verdict, chaos: Chaos, left: int, seconds: float, folder: Path) -> Outcome:
    """Count everything."""
    slots = verdict.slots
    with_result = [slot for slot in range(slots) if verdict.closing(slot)]
    retried = verdict.retried()
    compared = sorted(with_result, key=lambda slot: slot not in retried)[:COMPARED]
    return Outcome(
        faults=dict(chaos.faults),
        slots=slots,
        closed=len(with_result) + len(verdict.given_up()),
        given_up=verdict.given_up(),
        lost=verdict.lost(),
        twice=verdict.twice(),
        beyond=verdict.beyond(),
        unfinished=verdict.unfinished(),
        attempts=len(verdict.attempts),
        reasons=verdict.reasons(),
        compared=len(compared),
        differing=verdict.differing(compared, folder / "data"),
        processes_left=left,
        checkpoints_left=[
            str(file.relative_to(folder)) for file in folder.rglob("*.checkpoint*") if file.is_file()
        ],
        refused=chaos.refused,
        unexpected=chaos.unexpected,
        seconds=seconds,
    )


def main() -> int:
    """Run as the command says; return 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--database", choices=[*SERVERS, "sqlite"], required=True)
    parser.add_argument("--ray", action="store_true", help="workers are actors on a cluster of two nodes")
    parser.add_argument("--slots", type=int, default=100, help="more if not all has happened by then")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=15, help="give up after this time")
    parser.add_argument("--output", type=Path, help="where the figures are stored instead of results/")
    parser.add_argument("--log", type=Path, help="keep what the commands said")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # through what cleans up
    load_before = load()
    try:
        outcome = run(
            *(options.database, options.slots, options.seed, options.ray, options.minutes),
            keep_log=options.log,
        )
    except MissingError as error:
        print(f"chaos: cannot run here: {error}")
        return 2
    name = f"{options.database}{'-ray' if options.ray else ''}"
    outcome.table(f"{name}, seed {options.seed}").show()
    settings = {"database": options.database, "ray": options.ray, "seed": options.seed, "workers": WORKERS}
    settings |= {"rig": asdict(RIG), "load_before": load_before}
    path = store(
        "chaos",
        options.output or RESULTS / f"{name}.json",
        settings,
        {"outcome": asdict(outcome)},
    )
    print(f"stored in {path}")
    for name, found in outcome.problems().items():
        print(f"NOT AS IT SHOULD BE: {name}: {found}")
    return 1 if outcome.problems() else 0


if __name__ == "__main__":
    sys.exit(main())
