"""CUDA graphs on a CPU: what a capture freezes, forbids and repeats, without a GPU.

``RecordedGraph`` stands in for ``torch.cuda.CUDAGraph``. It records every operation between ``capture_begin``
and ``capture_end`` together with the memory of its tensors, and ``replay`` runs them again on that. As in a
real capture, nothing outside is changed meanwhile, results are not to be relied on before the first replay,
the host may read nothing, and what was a Python number stays that number in every replay. A graph keeps what
came up during its capture and nothing else: a replay that needs memory which was freed meanwhile is refused,
where a GPU would read and write whatever is there now.

It knows less than a GPU: constants from the host are seen only from one dimension on (a CPU cannot tell a
number of the host from one of the device), memory is that of ordinary tensors, and a replay draws from the
default generator as it is then.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

REFUSAL = "operation not permitted when stream is capturing (recorded)"
FREED = "an illegal memory access was encountered: a graph uses memory that was freed (recorded)"
READS = {Tensor.cpu, Tensor.numpy, Tensor.tolist, Tensor.__array__}
"""Ways to the host that dispatch nothing for a tensor which is there already."""
MASKED = ("index", "index_put", "index_put_", "_index_put_impl_")
UNDECLARED = {"native_batch_norm": ("running_mean", "running_var")}
"""Arguments that an operation writes to although its schema does not say so."""


class RecordedGraph:
    """In the place of ``torch.cuda.CUDAGraph``, with the methods of it that are called here."""

    capturing: RecordedGraph | None = None
    """The graph that is being captured, of all there are."""

    def __init__(self) -> None:
        self._calls: list[Call] | None = None
        self._pool = (id(self), 0)

    def capture_begin(self, pool: tuple[int, int] | None = None, capture_error_mode: str = "global") -> None:
        """Record until ``capture_end``; ``capture_error_mode`` means nothing where there is one thread."""
        if RecordedGraph.capturing:
            raise RuntimeError(REFUSAL)
        self._pool = pool or self._pool
        self._random = torch.get_rng_state()
        self._modes = Recorder(), Refusal()
        for mode in self._modes:
            mode.__enter__()
        RecordedGraph.capturing = self

    def capture_end(self) -> None:
        """Stop recording.

        Raises:
            RuntimeError: something was refused meanwhile, which spoils a capture as a whole.
        """
        for mode in reversed(self._modes):
            mode.__exit__(None, None, None)
        RecordedGraph.capturing = None
        torch.set_rng_state(self._random)
        if any(mode.refused for mode in self._modes):
            raise RuntimeError("operation failed due to a previous error during capture (recorded)")
        self._calls = self._modes[0].calls

    @torch.no_grad()
    def replay(self) -> None:
        """Do what was recorded, on the tensors that it was recorded with."""
        if self._calls is None:
            raise RuntimeError("replay without a preceding successful capture (recorded)")
        if RecordedGraph.capturing:
            raise RuntimeError(REFUSAL)
        with torch.autocast("cpu", enabled=False):  # casts are among what was recorded
            for call in self._calls:
                call.repeat()

    def reset(self) -> None:
        self._calls = None

    def pool(self) -> tuple[int, int]:
        if self._calls is None:
            raise RuntimeError("pool without a preceding successful capture (recorded)")
        return self._pool


class Outside:
    """A tensor that a graph uses and does not keep."""

    def __init__(self, tensor: Tensor) -> None:
        self._storage = StorageWeakRef(tensor.untyped_storage())
        self._dtype = tensor.dtype
        self._place = tensor.storage_offset(), tensor.size(), tensor.stride()

    def tensor(self) -> Tensor:
        """The same memory.

        Raises:
            RuntimeError: it was freed.
        """
        storage = torch.UntypedStorage._new_with_weak_ptr(self._storage.cdata)
        if storage is None:
            raise RuntimeError(FREED)
        return torch.empty(0, dtype=self._dtype).set_(storage, *self._place)


def there(leaf: Any) -> Any:
    return leaf.tensor() if isinstance(leaf, Outside) else leaf


@dataclass(frozen=True)
class Call:
    """An operation with its arguments, and the tensors that the capture made for its results."""

    function: Any
    args: Any
    kwargs: dict[str, Any]
    results: list[Tensor | None]
    """None: a number, or a tensor that shares its memory with an argument and needs no copy."""

    def repeat(self) -> None:
        args, kwargs = tree_map(there, (self.args, self.kwargs))
        results = tree_leaves(self.function(*args, **kwargs))
        for kept, new in zip(self.results, results[: len(self.results)], strict=True):
            if kept is not None:
                kept.copy_(new)


class Refusal(TorchFunctionMode):
    """Lets the host know nothing of what a tensor of the CPU holds, and torch check no more than on a GPU."""

    refused = False

    def __torch_function__(self, function: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in READS:
            self.refused = True
            raise RuntimeError(REFUSAL)
        if function is nn.functional.one_hot:
            return unchecked_one_hot(*args, **kwargs or {})
        return function(*args, **kwargs or {})


class Recorder(TorchDispatchMode):
    """Keeps operations, and does no more of them than their results' shapes need."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.refused = False
        self._made: set[int] = set()
        """Addresses of the memory that came up during the capture, which may be written to at once."""

    def __torch_dispatch__(self, function: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if is_read(function, args):
            self.refused = True
            raise RuntimeError(REFUSAL)
        if function.overloadpacket.__name__ == "lift_fresh":  # a number that the capture itself brings
            self._made |= addresses(args)
        if torch.Tag.inplace_view in function.tags:  # it changes a tensor's shape, not what is in memory
            return function(*args, **kwargs)
        written = written_arguments(function, args, kwargs)
        results = results_of(function, args, kwargs, {} if addresses(written) <= self._made else written)
        self._record(Call(function, args, kwargs, tree_leaves(results)), bool(written))
        return results

    def _record(self, call: Call, writes: bool) -> None:
        memory = addresses((call.args, call.kwargs))
        made = [
            leaf if isinstance(leaf, Tensor) and address(leaf) not in memory else None
            for leaf in call.results
        ]
        self._made |= addresses(made)
        is_empty = "empty" in call.function.overloadpacket.__name__  # nothing to be computed again
        if writes or (any(result is not None for result in made) and not is_empty):
            args, kwargs = tree_map(self._kept, (call.args, call.kwargs))
            self.calls.append(Call(call.function, args, kwargs, tree_map(alias, made)))

    def _kept(self, leaf: Any) -> Any:
        """What is recorded of an argument: memory of the capture itself is kept, no other."""
        if not isinstance(leaf, Tensor):
            return leaf
        return alias(leaf) if address(leaf) in self._made else Outside(leaf)


def unchecked_one_hot(labels: Tensor, num_classes: int = -1) -> Tensor:
    """As on a GPU: torch reads the labels on a CPU, to see that each is a class."""
    if num_classes < 0:
        raise RuntimeError(REFUSAL)
    return (labels[..., None] == torch.arange(num_classes, device=labels.device)).long()


def is_read(function: Any, args: Any) -> bool:
    """Whether the host has to wait for what the device holds."""
    name = function.overloadpacket.__name__
    if name in MASKED:
        masks = any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
        return masks and (name == "index" or args[2].numel() != 1)  # with one number it is a masked fill
    if name == "lift_fresh":
        return bool(args[0].ndim)
    return bool({torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(function.tags))


def written_arguments(function: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """The arguments whose memory the operation changes, by name."""
    undeclared = UNDECLARED.get(function.overloadpacket.__name__, ())
    written = {}
    for position, argument in enumerate(function._schema.arguments):
        alias_info = argument.alias_info
        if argument.name in undeclared or (alias_info and alias_info.is_write):
            value = kwargs.get(argument.name, args[position] if position < len(args) else None)
            if value is not None:
                written[argument.name] = value
    return written


def results_of(function: Any, args: Any, kwargs: Any, spared: dict[str, Any]) -> Any:
    """What the operation returns; the ``spared`` ones of the arguments that it writes to stay as they are."""
    aliases = [returned.alias_info for returned in function._schema.returns]
    if not spared:
        return function(*args, **kwargs)
    if all(info and info.is_write for info in aliases):
        results = [spared[name] for name in names_of_writing_returns(function)]
        return results[0] if len(results) == 1 else tuple(results) or None
    kept = addresses(spared)
    args, kwargs = tree_map(lambda leaf: copy_of(leaf, kept), (args, kwargs))
    return function(*args, **kwargs)


def names_of_writing_returns(function: Any) -> list[str]:
    """Of the arguments that an operation returns after it has written to them, in order."""
    names = {
        frozenset(argument.alias_info.before_set): argument.name
        for argument in function._schema.arguments
        if argument.alias_info and argument.alias_info.is_write
    }
    return [names[frozenset(returned.alias_info.before_set)] for returned in function._schema.returns]


def address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def addresses(tree: Any) -> set[int]:
    return {address(leaf) for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)}


def alias(leaf: Any) -> Any:
    """The same memory by a tensor that knows nothing of how it was computed, so that nothing else is kept."""
    return leaf.detach() if isinstance(leaf, Tensor) else leaf


def copy_of(leaf: Any, kept: set[int]) -> Any:
    return leaf.clone() if isinstance(leaf, Tensor) and address(leaf) in kept else leaf


class HostStream:
    """In the place of ``torch.cuda.Stream``: whatever is queued is done at once."""

    def wait_stream(self, other: HostStream) -> None:
        pass

    def synchronize(self) -> None:
        pass


class HostEvent:
    """In the place of ``torch.cuda.Event``: a moment of the host's clock."""

    def __init__(self, enable_timing: bool = False) -> None:
        self._timed = enable_timing

    def record(self, stream: HostStream | None = None) -> None:
        self._moment = time.perf_counter()

    def elapsed_time(self, later: HostEvent) -> float:
        """Milliseconds from this event to the later one."""
        if not (self._timed and later._timed):
            raise RuntimeError("events that are not created with enable_timing tell no times (recorded)")
        return 1000 * (later._moment - self._moment)

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        pass


def nothing(_device: int, _pool: tuple[int, int]) -> None:
    """In the place of what closes a pool of the device's memory."""


STAND_INS: dict[str, Any] = {
    "CUDAGraph": RecordedGraph,
    "Stream": HostStream,
    "Event": HostEvent,
    "stream": nullcontext,
    "device": nullcontext,
    "default_stream": lambda _device=None: HostStream(),
    "current_device": lambda: 0,
    "is_current_stream_capturing": lambda: RecordedGraph.capturing is not None,
}


@contextmanager
def cuda_lanes_on_the_cpu() -> Iterator[None]:
    """Meanwhile ``CudaLane(torch.device("cpu"))`` works, and captures what it repeats as on a GPU."""
    with ExitStack() as patches:
        for name, stand_in in STAND_INS.items():
            patches.enter_context(mock.patch.object(torch.cuda, name, stand_in))
        for name in ("_cuda_endAllocateToPool", "_cuda_releasePool"):
            patch = mock.patch.object(torch._C, name, nothing, create=True)
            patches.enter_context(patch)
        yield
