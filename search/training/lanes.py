"""Where a run computes: on the CPU, or on a GPU in a CUDA stream whose work the host queues without waiting.

On a GPU the function of a step is called a few times, which is what warms it up, and captured in a CUDA graph
that every later step replays: hundreds of kernels by one launch, with no host in between. The first calls are
training steps like all others, so that nothing has to be put back before the capture, and lazily made state
(an optimizer's first step, libraries' workspaces) is there by then. Sources: PyTorch's notes on CUDA graphs;
Ng et al., "Accelerating PyTorch with CUDA graphs" (2021).

Each lane has a stream and a memory pool of its own, because graphs captured on one stream share the matrix
library's workspace. One thread drives all lanes of a GPU, so that captures come one at a time.
"""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Protocol

import torch

from search.training.randomness import RandomStream
from search.training.shortage import is_shortage, may_be_shortage

_FAILED: list[torch.cuda.CUDAGraph] = []
"""Graphs whose capture could not be ended, for as long as the process lives: in torch 2.11 the allocator of
pinned memory goes on asking them whether it may release what it has."""

Work = Callable[[], None]
"""A function of tensors that stay where they are: it reads and writes them in place, and returns nothing."""


class Mark(Protocol):
    """A point in a lane's work."""

    def seconds_since(self, earlier: Mark) -> float:
        """Time that the device spent between two marks that it has reached."""

    def reached(self) -> bool:
        """Whether the device has done all that was queued before the mark."""


class Repeated(Protocol):
    """Work that is done again and again."""

    eager: str
    """Why it is not captured; empty while it is, and where there is nothing to capture with."""

    def __call__(self, work: Work) -> None: ...


class Lane(Protocol):
    """Where one run after another computes."""

    device: torch.device

    def active(self) -> AbstractContextManager[None]:
        """Let what is called meanwhile compute here."""

    def mark(self) -> Mark:
        """A mark behind all work so far."""

    def repeated(self, random: RandomStream, warm_up: int, /) -> Repeated:
        """A way to do one piece of work again and again, of which ``warm_up`` times before any capture."""

    def wait(self) -> None:
        """Wait until everything is done."""


def make_lane(device: torch.device, graphs: bool = True) -> Lane:
    """A new lane on ``device``; without ``graphs`` every step is launched operation by operation."""
    return CudaLane(device, graphs) if device.type == "cuda" else CpuLane(device)


class CpuLane:
    """The calling thread: what is called is done when the call returns."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def active(self) -> AbstractContextManager[None]:
        return nullcontext()

    def mark(self) -> Mark:
        return CpuMark(time.perf_counter())

    def repeated(self, _random: RandomStream, _warm_up: int, /) -> Repeated:
        return Direct()

    def wait(self) -> None:
        pass


class CpuMark:
    """A moment."""

    def __init__(self, moment: float) -> None:
        self._moment = moment

    def seconds_since(self, earlier: Mark) -> float:
        assert isinstance(earlier, CpuMark)
        return self._moment - earlier._moment

    def reached(self) -> bool:
        return True


class Direct:
    """Work that is called each time."""

    def __init__(self, eager: str = "") -> None:
        self.eager = eager

    def __call__(self, work: Work) -> None:
        work()


class CudaLane:
    """A stream of a GPU, and the pool in which the graphs captured on it keep what they compute."""

    def __init__(self, device: torch.device, graphs: bool = True) -> None:
        self.device = device
        self._graphs = graphs
        self._captured: weakref.WeakSet[torch.cuda.CUDAGraph] = weakref.WeakSet()
        self._aside: list[torch.cuda.CUDAGraph] = []
        """Failed graphs, and the anchors of their pools, which have to be kept as long as there are other
        graphs of the stream."""
        with torch.cuda.device(device):
            self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            self._begin_pool()

    def _begin_pool(self) -> None:
        # A pool ends with its last graph, and memory of an ended one comes back only when the whole cache is
        # emptied. So a graph of one operation keeps it, and each run takes over the memory of the one before.
        anchor = torch.cuda.CUDAGraph()
        with torch.cuda.stream(self._stream):
            anything = torch.zeros(1, device=self.device)
            anchor.capture_begin(capture_error_mode="thread_local")
            anything.zero_()
            anchor.capture_end()
        self._anchor = anchor

    @contextmanager
    def active(self) -> Iterator[None]:
        with torch.cuda.device(self.device), torch.cuda.stream(self._stream):
            # data are put on the device by the default stream
            self._stream.wait_stream(torch.cuda.default_stream(self.device))
            yield

    def mark(self) -> Mark:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(self._stream)
        return CudaMark(event)

    def repeated(self, random: RandomStream, warm_up: int, /) -> Repeated:
        self._drop_aside()
        return Graphed(self, random, warm_up) if self._graphs else Direct("CUDA graphs are off")

    def wait(self) -> None:
        self._stream.synchronize()

    def capture(self, work: Work) -> torch.cuda.CUDAGraph:
        """A graph of the work, which is not done by this. To be called while the lane is active.

        Raises:
            RuntimeError: the work cannot be captured, or, as ``OutOfMemoryError``, does not fit.
        """
        graph, pool = torch.cuda.CUDAGraph(), self._anchor.pool()
        try:
            with _no_garbage_collection():
                graph.capture_begin(pool=pool, capture_error_mode="thread_local")
                try:
                    work()
                except BaseException:
                    with suppress(RuntimeError):  # what went wrong is known already
                        graph.capture_end()
                    raise
                graph.capture_end()
        except BaseException:
            (self._aside if _has_ended(graph) else _FAILED).append(graph)
            self._leave(pool)
            raise
        self._captured.add(graph)
        return graph

    def _leave(self, pool: tuple[int, int]) -> None:
        """Go on with a new pool after a capture that failed.

        Where ``cudaStreamEndCapture`` fails, older releases of torch take the pool for one that is being
        recorded to: no cached memory is released any more, and emptying the cache raises. And with any graph
        of a stream they take the matrix library's workspace from all others (PyTorch issue 193402). The
        generator that is in its device's place draws again once another capture, the new pool's, went well.
        """
        with suppress(RuntimeError):  # torch has seen to it itself
            torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), pool)
            torch._C._cuda_releasePool(torch.cuda.current_device(), pool)
        self._aside.append(self._anchor)
        self._begin_pool()
        self._drop_aside()

    def _drop_aside(self) -> None:
        if not self._captured:
            self._aside.clear()


def _has_ended(graph: torch.cuda.CUDAGraph) -> bool:
    """Whether CUDA has ended the graph's capture, so that its memory comes back with the graph's own end."""
    try:
        graph.pool()
    except RuntimeError:
        return False
    return True


class CudaMark:
    """An event in a stream."""

    def __init__(self, event: torch.cuda.Event) -> None:
        self._event = event

    def seconds_since(self, earlier: Mark) -> float:
        assert isinstance(earlier, CudaMark)
        milliseconds: float = earlier._event.elapsed_time(self._event)
        return milliseconds / 1000

    def reached(self) -> bool:
        try:
            return bool(self._event.query())  # type: ignore[no-untyped-call]
        except RuntimeError:  # something failed on the device: whoever reads what it did is told
            return True


class Graphed:
    """Work that is called ``warm_up`` times, then captured, then replayed; called for good where it cannot be
    captured, which gives the same numbers."""

    def __init__(self, lane: CudaLane, random: RandomStream, warm_up: int) -> None:
        self.eager = ""
        self._lane = lane
        self._random = random
        self._left = warm_up
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, work: Work) -> None:
        if self._graph is None and not self.eager and self._left == 0:
            self._capture(work)
        if self._graph is not None:
            self._graph.replay()
            return
        self._left -= 1
        work()

    def _capture(self, work: Work) -> None:
        problem = self._try_to_capture(work)
        if problem and may_be_shortage(problem):
            torch.cuda.empty_cache()  # the memory of the first calls, which a capture cannot release
            problem = self._try_to_capture(work)
        if problem and is_shortage(problem):
            raise problem
        self.eager = (str(problem).partition("\n")[0] or type(problem).__name__) if problem else ""

    def _try_to_capture(self, work: Work) -> RuntimeError | None:
        """Capture, or say why not; the draws are then as before."""
        state = self._random.state
        try:
            self._graph = self._lane.capture(work)
        except RuntimeError as error:
            self._random.state = state
            return error.with_traceback(None)  # frames hold tensors of the capture
        return None


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Nothing on the device is freed by chance while a capture forbids it."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
