"""Workers on a Ray cluster: real ones, of one node and of two."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from commands import called, refused
from optuna.trial import TrialState
from ray_cluster import ray_cluster
from running import PATIENCE, Command, closed_exactly, pid_of, run_words, soon, start, training, trials_of
from sqlalchemy.engine import make_url

from search.cluster.connection import Cluster, connected
from search.cluster.crews import RayCrews
from search.cluster.request import RayRequest
from search.data.request import DataRequest
from search.interrupts import Interrupts
from search.placement import Placement, Resources
from search.session import HOPELESS, REFUSED, Session
from search.workers import WorkerOrder
from studies.record import outcome_of
from studies.storage import open_storage
from studies.study import SearchStudy

__all__ = ["start"]
DIGITS = ("run", "--space", "regularization", "--dataset", "digits")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty working folder."""
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


@pytest.fixture(autouse=True)
def _data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIFAR_SEARCH_DATA", str(tmp_path / "data"))


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--ray", "head:6379"], ["--storage", "SQLite serves one host", "--ray local"]),
        (["--ray", "ray://head:10001"], ["--ray", "HOST:PORT", "'ray://head:10001'"]),
        (["--ray", "local", "--gpus-per-worker", "1.5"], ["--gpus-per-worker", "0 to 1", "'1.5'"]),
        (["--ray", "local", "--workers", "0"], ["--workers", "at least 1", "got 0"]),
        (["--ray", "local", "--device", "cuda:1"], ["--device", "auto with --ray", "'cuda:1'"]),
        (["--gpus-per-worker", "0.5"], ["--gpus-per-worker", "goes with --ray", "0.5"]),
    ],
)
def test_what_ray_cannot_do_is_refused(folder: Path, words: list[str], parts: list[str]) -> None:
    line = refused(folder, *DIGITS, *words)
    for part in parts:
        assert part in line


def test_a_password_on_the_command_line_is_refused_where_ray_would_show_it(
    folder: Path, postgres_url: str
) -> None:
    url = make_url(postgres_url).set(password="hidden").render_as_string(hide_password=False)
    line = refused(folder, *DIGITS, "--ray", "127.0.0.1:9", "--storage", url)
    assert "$CIFAR_SEARCH_STORAGE" in line
    assert "hidden" not in line
    line = refused(folder, *DIGITS, "--ray", "127.0.0.1:9", CIFAR_SEARCH_STORAGE=url)
    assert line.startswith("cifar-search: --ray 127.0.0.1:9: no cluster answers there")


def test_ray_has_what_is_used_of_its_internals() -> None:
    ray = pytest.importorskip("ray")
    from ray._private import ray_constants, services
    from ray._raylet import GcsClient

    assert callable(ray._private.worker.print_to_stdstream)
    assert callable(services.canonicalize_bootstrap_address)
    assert callable(GcsClient)
    assert str(ray_constants.NUM_REDIS_GET_RETRIES) == os.environ["RAY_NUM_REDIS_GET_RETRIES"]


def test_workers_are_as_many_as_the_cluster_has_cores_and_shares_of_gpus_for() -> None:
    def room(share: float | None, gpus: float) -> str:
        crews = RayCrews(Resources(), RayRequest("local", share), Cluster("local", 8, gpus))
        return f"{crews._room()} on {crews.device()}"

    assert room(0.25, 1) == "4 on cuda:0"
    assert room(None, 2) == "2 on cuda:0"
    assert room(0.0, 2) == room(None, 0) == "8 on cpu"
    with pytest.raises(ValueError, match=r"needs 1 core and 0.5 GPU .* has 8 cores and 0 GPUs"):
        room(0.5, 0)


def test_a_study_can_be_made_for_others_to_work_on(folder: Path) -> None:
    url = f"sqlite:///{folder / 'a.db'}"
    words = (*DIGITS, "--study", "for others", "--trials", "2", "--storage", url, "--workers", "0")
    code, output, error = called(folder, *words)
    assert (code, error) == (0, "")
    assert f"  cifar-search worker 'for others' --storage {url}" in output.splitlines()
    with closing(open_storage(url, create=False)) as storage:
        study = SearchStudy(storage, "for others")
        assert (study.total(), study.trials()) == (2, [])


@pytest.mark.slow
def test_a_local_ray_restarts_a_killed_worker_and_ctrl_c_puts_its_trials_back(
    start: Callable[..., Command], sqlite_url: str
) -> None:
    words = [*run_words(sqlite_url, 8, 2), "--ray", "local"]
    first = start(*words)
    assert soon(lambda: len(training(sqlite_url)) == 2), first.output
    killed = training(sqlite_url)[0]
    os.kill(pid_of(killed), signal.SIGKILL)
    assert soon(lambda: len(workers_of(sqlite_url)) == 3), first.output
    assert first.output.count("1 worker(s) died; their trials are put back") == 1
    assert soon(lambda: training(sqlite_url)), first.output
    first.interrupt()
    assert first.ended() == 130, first.output
    assert "The same command continues the study" in first.output
    assert "Traceback" not in first.output
    assert "raylet" not in first.output
    assert first.leaves_nothing_behind()
    reasons = {trial.number: outcome_of(trial).reason for trial in trials_of(sqlite_url)}
    assert reasons[killed.number] == "killed"
    assert "interrupted" in reasons.values()

    second = start(*words)
    assert second.ended() == 0, second.output
    assert closed_exactly(sqlite_url, 8)
    assert second.leaves_nothing_behind()


@pytest.mark.slow
def test_a_cluster_that_loses_a_node_closes_exactly_the_total_for_those_with_the_token(
    start: Callable[..., Command], postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = make_url(postgres_url).set(password="unheard-of").render_as_string(hide_password=False)
    monkeypatch.setenv("CIFAR_SEARCH_STORAGE", url)
    with ray_cluster() as cluster:
        other = cluster.add_node()
        words = run_words(url, 6, 2, "--epochs", "1500", "--ray", cluster.address)
        del words[words.index("--storage") : words.index("--storage") + 2]
        stranger = start(*words)
        assert stranger.ended() == 2, stranger.output
        assert "refuses this command's token, or lack of one" in stranger.output
        assert "RAY_AUTH_MODE=token" in stranger.output
        assert len(stranger.output.splitlines()) == 1

        for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
            monkeypatch.setenv(name, cluster.environment[name])
        command = start(*words)
        assert soon(lambda: len(training(url)) == 2), command.output
        lost = [trial for trial in training(url) if other.runs(pid_of(trial))]
        assert len(lost) == 1
        other.kill()
        assert command.ended() == 0, command.output
        assert command.output.count("1 worker(s) died; their trials are put back") == 1
        assert closed_exactly(url, 6)
        again = {trial.number: trial for trial in trials_of(url)}[lost[0].number]
        assert (again.state, outcome_of(again).reason) == (TrialState.FAIL, "interrupted")
        assert command.leaves_nothing_behind()
        files = [path for path in cluster.folder.rglob("*") if path.is_file()]
        assert files
        assert not [path for path in files if b"unheard-of" in path.read_bytes()]
    assert "unheard-of" not in command.output


OPEN_CLUSTER = """
ip link set lo up && ip address add 10.77.0.1/32 dev lo || exit
export RAY_AUTH_MODE=disabled RAY_ADDRESS=127.0.0.1:6390
{ray} start --head --node-ip-address=10.77.0.1 --port=6390 --num-cpus=1 --object-store-memory=100000000 \\
    --include-dashboard=false --disable-usage-stats --temp-dir={folder} >/dev/null 2>&1 || exit
for address in 10.77.0.1:6390 127.0.0.1:6390 auto; do
    {python} -c "
from search.cluster.connection import connected
from search.interrupts import Interrupts
try:
    with connected('$address', 1, Interrupts()) as cluster:
        print('joined', cluster.address)
except ValueError as error:
    print(error)
" 2>/dev/null
done
"""


@pytest.mark.slow
@pytest.mark.skipif(
    subprocess.run(["unshare", "-rn", "ip", "link"], capture_output=True).returncode != 0
    if shutil.which("unshare")
    else True,
    reason="no network of its own for a cluster that is open to everybody: needs unshare -rn and ip",
)
def test_a_cluster_without_a_token_is_refused_unless_the_address_is_a_loopback_address() -> None:
    with tempfile.TemporaryDirectory(prefix="r") as folder:
        ray = Path(sys.executable).with_name("ray")
        script = OPEN_CLUSTER.format(ray=ray, python=sys.executable, folder=folder)
        words = ["unshare", "-rnpf", "--kill-child", "--mount-proc", "bash", "-c", script]
        done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE)
    refusal, *joined = done.stdout.splitlines()
    assert "must require a token" in refusal
    assert "10.77.0.1:6390 lets anyone run programs" in refusal
    assert "RAY_AUTH_MODE=token" in refusal
    assert joined == 2 * ["joined 127.0.0.1:6390"]


@pytest.fixture
def interrupts() -> Iterator[Interrupts]:
    """Interruptions of this process, which has its own handlers back afterwards."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield Interrupts()
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.slow
def test_workers_without_images_leave_with_one_line_and_those_without_a_place_when_all_is_done(
    folder: Path, sqlite_url: str, interrupts: Interrupts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "")
    called(folder, *DIGITS, "--study", "s", "--trials", "2", "--storage", sqlite_url, "--workers", "0")
    lines: list[str] = []
    order = WorkerOrder(
        sqlite_url, "s", DataRequest(str(folder / "gone")), Placement(("cpu",), 1), "tpe", "none"
    )
    with (
        closing(open_storage(sqlite_url, create=False, write=True)) as storage,
        connected("local", 1, interrupts) as cluster,
    ):
        study = SearchStudy(storage, "s")
        crews = RayCrews(Resources(), RayRequest("local"), cluster)
        screen = Silent(lines)

        def run() -> int:
            start = partial(crews.start, study=study, screen=screen)
            return Session(study, order, screen, interrupts, start=start).run()

        assert run() == REFUSED
        (said,) = lines
        order = replace(order, storage_url=f"sqlite:///{folder}/gone.db")
        assert run() == 1
        assert lines[-1] == "workers keep dying without finishing a trial; giving up"
        failures = [line for line in lines if line.startswith("a worker failed: ")]
        assert len(failures) == HOPELESS, lines
        assert all("gone.db: the file does not exist" in line for line in failures)
        take_the_only_core()
        study.set_total(0)
        assert run() == 0
    assert "a worker on " in said
    assert f"--dataset: unknown data set '{str(folder)[:30]}" in said  # long ones are cut


def take_the_only_core() -> None:
    """Let a program of somebody else have the core of the cluster."""
    import ray

    ray.remote(num_cpus=1)(lambda: time.sleep(PATIENCE)).remote()
    assert soon(lambda: not ray.available_resources().get("CPU"))


class Silent:
    """A screen that keeps its lines."""

    def __init__(self, lines: list[str]) -> None:
        self.say = lines.append

    def update(self, *_: object) -> None:
        """Show nothing."""


def workers_of(url: str) -> set[int]:
    """The processes that began attempts."""
    return {pid_of(trial) for trial in trials_of(url)}
