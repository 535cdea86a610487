"""Which errors say that memory ran out, and how many images are evaluated at a time, so that it does not."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from search.training.evaluation import BATCH, GPU_BATCH, GPU_MEMORY, batch_for
from search.training.models import Shape, largest_layer
from search.training.models.table import models
from search.training.shortage import is_shortage, may_be_shortage
from spaces.config import Configuration

CIFAR = Shape(3, 32, 32, 10)
GPU = torch.device("cuda:0")
CERTAIN = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 99 bytes."),
]
POSSIBLE = [
    RuntimeError("GET was unable to find an engine to execute this computation"),
    RuntimeError("FIND was unable to find an engine to execute this computation"),
]
OTHERS = [
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("Given groups=1, weight of size [8, 3, 3, 3], expected input to have 3 channels"),
    ValueError("out of memory"),
    KeyError("not enough memory"),
]


def test_shortages_are_told_from_other_errors() -> None:
    assert [is_shortage(error) for error in CERTAIN] == [True] * len(CERTAIN)
    assert [is_shortage(error) for error in POSSIBLE + OTHERS] == [False] * len(POSSIBLE + OTHERS)
    assert [may_be_shortage(error) for error in CERTAIN + POSSIBLE] == [True] * len(CERTAIN + POSSIBLE)
    assert [may_be_shortage(error) for error in OTHERS] == [False] * len(OTHERS)


def test_what_torch_itself_raises_on_this_machine_is_seen() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**62, dtype=torch.uint8)
    assert is_shortage(raised.value)


def configuration(model: dict[str, Any]) -> Configuration:
    return Configuration.read({"model": model})


def test_the_largest_layer_is_counted_by_hand() -> None:
    config = configuration({"name": "vgg", "widths": [8, 16], "convolutions": 1, "head": 16})
    from search.training.features import bare_network

    convolution, normalization = (3 + 8) * 32 * 32, (8 + 8) * 32 * 32
    counted = largest_layer(lambda: bare_network(config, CIFAR), CIFAR)
    assert counted == max(convolution, normalization)


def test_a_gpu_takes_large_batches_of_what_is_small_and_small_ones_of_what_is_large() -> None:
    small = configuration({"name": "vgg"})
    large = configuration({"name": "torchvision", "architecture": "vgg16", "input_size": 224})
    assert batch_for(small, CIFAR, GPU) == GPU_BATCH
    assert batch_for(large, CIFAR, GPU) == GPU_MEMORY // (4 * 2 * 64 * 224 * 224)
    assert batch_for(small, CIFAR, torch.device("cpu")) == BATCH


@pytest.mark.parametrize("name", models)
def test_every_network_has_a_batch(name: str) -> None:
    assert 1 <= batch_for(configuration({"name": name}), CIFAR, GPU) <= GPU_BATCH


def test_an_image_that_does_not_fit_is_evaluated_alone() -> None:
    huge = Shape(3, 8192, 8192, 10)
    assert batch_for(configuration({"name": "vgg"}), huge, GPU) == 1
