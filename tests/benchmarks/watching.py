"""What a measured command and its machine did meanwhile: memory, idle device, neighbours. Linux only."""

from __future__ import annotations

import os
import re
import signal
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

EVERY = 0.5
"""Seconds between two looks at the processes."""
MEMORY_EVERY = 4
"""Looks from one at the memory, which takes the kernel a while, to the next."""
KILLING_TAKES = 30.0
"""Seconds, at most: a process that is killed first gives its memory on the GPU back."""
TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Ran:
    """A command that has ended."""

    code: int
    begin: float
    end: float
    """Seconds since 1970."""
    output: str
    errors: str
    figures: dict[str, Any]
    """idle_share, peak_memory_mib, others_share; None where this machine does not tell."""
    idle: Sequence[tuple[float, float]]
    """Moments, and the share of the time since the one before in which the device was idle."""
    cut_off: bool = False
    """Whether it was ended because it took too long."""

    @property
    def seconds(self) -> float:
        return self.end - self.begin

    def idle_share(self, begin: float, end: float) -> float | None:
        """Share of a part of the time in which the device was idle; None where this machine does not tell."""
        return mean(share for moment, share in self.idle if begin <= moment <= end)


def mean(values: Iterable[float]) -> float | None:
    known = list(values)
    return statistics.fmean(known) if known else None


def never() -> bool:
    return False


def watch(command: Sequence[str], folder: Path, device: str, is_over: Callable[[], bool] = never) -> Ran:
    """Run a command in an empty folder, in a session of its own, and look at it from outside; all processes
    of the session are ended as soon as ``is_over`` says so."""
    machine, processes, gpu = Machine(), Processes(), Gpu() if device == "cuda" else None
    begin = time.time()
    with (folder / "stdout").open("w") as stdout, (folder / "stderr").open("w") as stderr:
        child = subprocess.Popen(
            command, cwd=folder, env=environment(), stdout=stdout, stderr=stderr, start_new_session=True
        )
        try:
            cut_off = not _ends_by_itself(child, is_over, processes, machine)
        finally:
            end = time.time()
            end_session(child)
    machine.look()
    idle = gpu.end() if gpu else machine.idle
    figures = {
        "idle_share": mean(share for _, share in idle),
        "others_share": machine.others_share(processes.cpu_seconds),
        "peak_memory_mib": gpu.most_memory if gpu else processes.most_memory / 2**10,
    }
    texts = [(folder / name).read_text(errors="replace") for name in ("stdout", "stderr")]
    return Ran(child.returncode, begin, end, *texts, figures, idle, cut_off)


def _ends_by_itself(
    child: subprocess.Popen[bytes], is_over: Callable[[], bool], processes: Processes, machine: Machine
) -> bool:
    """Look at it until it has ended, or until its time is over."""
    while child.poll() is None:
        if is_over():
            return False
        processes.look(child.pid)
        machine.look()
        with suppress(subprocess.TimeoutExpired):
            child.wait(EVERY)
    return True


def end_session(leader: subprocess.Popen[bytes]) -> None:
    """Kill what is left of a session, orphans and other process groups too, and wait until it is gone."""
    last = time.monotonic() + KILLING_TAKES
    while (members := list(session_members(leader.pid))) and time.monotonic() < last:
        for process in members:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.05)
    with suppress(subprocess.TimeoutExpired):
        leader.wait(max(0.0, last - time.monotonic()))


def session_members(session: int) -> Iterator[int]:
    """Its processes, without those that are dead, with all of their threads, and have not been waited for."""
    for path, fields in _process_stats():
        state, threads = fields[0], int(fields[17])
        if int(fields[3]) == session and not (state == "Z" and threads <= 1):
            yield int(path.name)


def _process_stats() -> Iterator[tuple[Path, list[str]]]:
    """Every process's folder in /proc, and the fields of its ``stat`` from its state on (man 5 proc)."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        if fields := _text(path).rpartition(")")[2].split():
            yield path.parent, fields


def environment() -> dict[str, str]:
    """This process's, without what would change a command's database or number of threads."""
    dropped = ("CIFAR_SEARCH_STORAGE", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    return {name: value for name, value in os.environ.items() if name not in dropped}


class Processes:
    """Memory and processor time of a session's processes, those of orphans among them."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}
        self._looks = 0
        self.most_memory = 0
        """KiB: the largest sum of proportional set sizes (a page of several processes is shared out)."""

    @property
    def cpu_seconds(self) -> float:
        """Of all processes seen, until they were last seen."""
        return sum(self._seconds.values())

    def look(self, session: int) -> None:
        own = []
        for path, fields in _process_stats():
            if int(fields[3]) == session:
                own.append(path)
                self._seconds[int(path.name)] = (int(fields[11]) + int(fields[12])) / TICK
        if self._looks % MEMORY_EVERY == 0:
            self.most_memory = max(self.most_memory, sum(map(_memory, own)))
        self._looks += 1


def _memory(process: Path) -> int:
    """Its proportional set size in KiB."""
    found = re.search(r"^Pss: +(\d+)", _text(process / "smaps_rollup"), re.MULTILINE)
    return int(found[1]) if found else 0


def _text(path: Path) -> str:
    """Nothing, if the process has ended meanwhile."""
    try:
        return path.read_text()
    except OSError:
        return ""


class Machine:
    """How busy all cores are."""

    def __init__(self) -> None:
        self._first = self._last = self._now()
        self.idle: list[tuple[float, float]] = []

    def look(self) -> None:
        whole, idle = (now - then for now, then in zip(self._now(), self._last, strict=True))
        if whole:
            self.idle.append((time.time(), idle / whole))
            self._last = self._now()

    def others_share(self, own_seconds: float) -> float:
        """Share of all time that other programs took."""
        whole, idle = (now - then for now, then in zip(self._last, self._first, strict=True))
        return max(0.0, (whole - idle - own_seconds) / whole)

    @staticmethod
    def _now() -> tuple[float, float]:
        """Seconds of all cores, and those in which they waited."""
        ticks = [int(field) for field in Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]]
        return sum(ticks) / TICK, (ticks[3] + ticks[4]) / TICK


class Gpu:
    """Utilization and memory of the first visible GPU, as ``nvidia-smi`` samples them ten times a second."""

    def __init__(self) -> None:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or "0"
        query = "--query-gpu=timestamp,utilization.gpu,memory.used"
        command = ["nvidia-smi", "-i", visible.split(",")[0], query, "--format=csv,noheader,nounits"]
        self._before = _samples(subprocess.run(command, capture_output=True, text=True).stdout)
        self.most_memory: float | None = None
        """MiB beyond what was in use before, once ended."""
        self._heard = b""
        master, slave = os.openpty()  # a program that is stopped keeps the lines that it has not yet flushed
        self._process = subprocess.Popen([*command, "-lms", "100"], stdout=slave)
        os.close(slave)
        self._listener = threading.Thread(target=self._listen, args=(master,), daemon=True)
        self._listener.start()

    def _listen(self, master: int) -> None:
        with suppress(OSError):  # the end of a terminal
            while part := os.read(master, 4096):
                self._heard += part
        os.close(master)

    def end(self) -> list[tuple[float, float]]:
        """Moments, and the share of the time before each in which no kernel ran."""
        self._process.terminate()
        self._process.wait()
        self._listener.join()
        samples = _samples(self._heard.decode())
        if samples and self._before:
            self.most_memory = max(memory for *_, memory in samples) - self._before[0][2]
        return [(moment, 1 - busy / 100) for moment, busy, _ in samples]


def _samples(text: str) -> list[tuple[float, float, float]]:
    """Moment, utilization in per cent and memory in MiB; lines without them (a GPU in parts) are left out."""
    found = re.findall(r"^(\d+/\S+ [\d:.]+), (\d+), (\d+)\s*$", text, re.MULTILINE)
    return [
        (datetime.strptime(moment, "%Y/%m/%d %H:%M:%S.%f").timestamp(), float(busy), float(memory))
        for moment, busy, memory in found
    ]
