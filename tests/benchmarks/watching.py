"""What a measured command and its machine did meanwhile: memory, idle device, neighbours. Linux only."""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from guarding import Guard, end_session, process_stats, text_of

EVERY = 0.5
"""Seconds between two looks at the processes."""
MEMORY_EVERY = 4
"""Looks from one at the memory, which takes the kernel a while, to the next."""
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


def watch(
    command: Sequence[str], folder: Path, device: str, guard: Guard, is_over: Callable[[], bool] = never
) -> Ran:
    """Run a command in an empty folder, in a session of its own, and look at it from outside; all processes
    of the session are ended as soon as ``is_over`` says so, and by ``guard`` if this process is gone."""
    machine, processes = Machine(), Processes()
    gpu = Gpu(guard) if device == "cuda" else None
    begin = time.time()
    with (folder / "stdout").open("w") as stdout, (folder / "stderr").open("w") as stderr:
        child = subprocess.Popen(
            command, cwd=folder, env=environment(), stdout=stdout, stderr=stderr, start_new_session=True
        )
        guard.add(child.pid)
        try:
            cut_off = not _ends_by_itself(child, is_over, processes, machine)
        finally:
            end = time.time()
            end_session(child.pid)
    child.wait()
    guard.drop(child.pid)
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
        for path, fields in process_stats():
            if int(fields[3]) == session:
                own.append(path)
                self._seconds[int(path.name)] = (int(fields[11]) + int(fields[12])) / TICK
        if self._looks % MEMORY_EVERY == 0:
            self.most_memory = max(self.most_memory, sum(map(_memory, own)))
        self._looks += 1


def _memory(process: Path) -> int:
    """Its proportional set size in KiB."""
    found = re.search(r"^Pss: +(\d+)", text_of(process / "smaps_rollup"), re.MULTILINE)
    return int(found[1]) if found else 0


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
    """Utilization and memory of the first visible GPU, as ``nvidia-smi`` samples them ten times a second;
    nothing where that program is missing."""

    def __init__(self, guard: Guard) -> None:
        self.most_memory: float | None = None
        """MiB beyond what was in use before, once ended; None: not known."""
        self._guard = guard
        self._before: list[tuple[float, float, float]] = []
        self._heard = b""
        self._process: subprocess.Popen[bytes] | None = None
        if shutil.which("nvidia-smi"):
            self._begin()

    def _begin(self) -> None:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or "0"
        query = "--query-gpu=timestamp,utilization.gpu,memory.used"
        command = ["nvidia-smi", "-i", visible.split(",")[0], query, "--format=csv,noheader,nounits"]
        self._before = _samples(subprocess.run(command, capture_output=True, text=True).stdout)
        master, slave = os.openpty()  # a program that is stopped keeps the lines that it has not yet flushed
        # a session of its own: neither Ctrl-C nor a closed terminal ends it before the last sample is read
        self._process = subprocess.Popen([*command, "-lms", "100"], stdout=slave, start_new_session=True)
        self._guard.add(self._process.pid)
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
        if self._process:
            self._process.terminate()
            self._process.wait()
            self._guard.drop(self._process.pid)
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
