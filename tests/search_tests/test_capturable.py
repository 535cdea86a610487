"""A step and a judgement on a GPU that is not there: nothing waits, nothing comes from the host.

torch's fake tensors have a device, here a GPU, and no memory, and refuse to tell the host what they hold. So
a run is built and called as on a GPU, but for what its driver would have to answer: gradients are made up
there, and operations that torch knows no shapes of are only looked at. A fake CPU computes gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytest
import torch
from test_augmentation_pipeline import EVERYTHING
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from search.training import engine
from search.training.engine import Run
from search.training.lanes import CpuLane
from search.training.layers import activations, map_normalizations
from search.training.losses import losses
from search.training.models.table import models
from search.training.optimizers import optimizers
from search.training.registry import Registry
from search.training.resident import ResidentData
from search.training.schedules import schedules
from spaces.config import Configuration

pytestmark = pytest.mark.skipif(
    not torch.backends.cuda.is_built(), reason="this build of torch knows no GPU, not even a fake one"
)
GPU, CPU = torch.device("cuda:0"), torch.device("cpu")
SMALL = {"name": "vgg", "widths": [8, 16], "convolutions": 1, "head": 16}
DROPPING = SMALL | {"dropout": 0.1, "head_dropout": 0.1}
WITHOUT_SHAPES = ("_fused_sgd_", "_fused_adam_", "_fused_adamw_")
"""Operations that write in place and return nothing."""


class Passed(TorchDispatchMode):
    """Leaves out the operations that torch cannot run on fake tensors."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return None if function.overloadpacket.__name__ in WITHOUT_SHAPES else function(*args, **kwargs or {})


class OnTheDevice(TorchDispatchMode):
    """Refuses operations that bring anything from the host, or take it there."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        result = function(*args, **kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
        hosts = {tensor.device for tensor in tensors} - {GPU}
        assert not hosts, f"{name} has tensors on {hosts}"
        assert name != "lift_fresh", "a constant comes from the host"
        return result


class Undrawn:
    """In the place of a generator, of which a GPU that is not there has none."""

    def __init__(self, *_: object) -> None:
        self.active: Callable[[], AbstractContextManager[None]] = nullcontext


def unfaked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, which knows nothing of fake tensors."""

    def called(*args: Any) -> Any:
        with unset_fake_temporarily():
            return function(*args)

    return called


def put_on(device: torch.device, build: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """What ``build`` makes, really and on the CPU, with fake tensors of the same shapes on the device."""

    def moved(tensor: Tensor) -> Tensor:
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)

    def built(*args: Any) -> nn.Module:
        with unset_fake_temporarily():
            network = build(*args)
        for module in network.modules():
            for name, parameter in module.named_parameters(recurse=False):
                replaced = nn.Parameter(moved(parameter), requires_grad=parameter.requires_grad)
                setattr(module, name, replaced)
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, moved(buffer))
        network.to = lambda _device: network  # type: ignore[assignment, method-assign]
        return network

    return built


def make_data(device: torch.device) -> ResidentData:
    """520 images to train and 2,520 to validate: batches of validation of unlike size."""
    indices_N = torch.zeros(2520, dtype=torch.int64, device=device)
    return ResidentData(
        images_NHWC=torch.zeros(3040, 32, 32, 3, dtype=torch.uint8, device=device),
        labels_N=torch.zeros(3040, dtype=torch.int64, device=device),
        train_indices=indices_N[:520],
        val_indices=indices_N,
        mean_C=torch.zeros(3, device=device),
        std_C=torch.zeros(3, device=device),
        classes=tuple("0123456789"),
        hash="",
    )


@contextmanager
def a_fake(device: torch.device) -> Iterator[pytest.MonkeyPatch]:
    mode = FakeTensorMode()
    mode.__deepcopy__ = lambda _memo: mode  # type: ignore[attr-defined]
    with mode, Passed(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "RandomStream", Undrawn)
        # without a GPU autocast would be off
        patch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
        patch.setattr(engine, "batch_for", unfaked(engine.batch_for))
        patch.setattr(engine, "watched_images", lambda data, _labels: data.train_indices[:7])
        for build in ("build_network", "build_projection"):
            patch.setattr(engine, build, put_on(device, getattr(engine, build)))
        yield patch


@contextmanager
def a_look_at_the_rate() -> Iterator[None]:
    """Optimizers make sure, when they are built, that the rate is not negative; a fake one does not tell."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "__lt__", lambda _rate, _bound: False, raising=False)
        patch.setattr(Tensor, "__ge__", lambda _rate, _bound: True, raising=False)
        yield


def built(name: str, device: torch.device) -> Run:
    tree: dict[str, Any] = {
        "model": SMALL,
        "optimizer": {"name": "sgd"},
        "training": {"batch_size": 16, "epochs": 2, "precision": "fp32"},
    }
    for section, settings in CATALOGUE[name].items():
        tree[section] = settings if section == "model" else tree.get(section, {}) | settings
    with a_look_at_the_rate():
        return Run(Configuration.read(tree), make_data(device), device, 0, CpuLane(device))


def each(registry: Registry[Any], section: str) -> dict[str, dict[str, Any]]:
    """One configuration for each name of a registry."""
    return {f"{section} {name}": {section: {"name": name}} for name in registry}


AUGMENTATIONS = {
    "everything": EVERYTHING,
    "reflect, trivialaugment": EVERYTHING.model_copy(
        update={"padding": "reflect", "policy": "trivialaugment", "cutmix": 0.0}
    ),
    "edge, alternating": EVERYTHING.model_copy(
        update={"padding": "edge", "flip": 0.0, "alternating_flip": True, "mixup": 0.0}
    ),
}
NORMALIZATIONS = [*map_normalizations, "none"]
CATALOGUE: dict[str, dict[str, Any]] = {
    **each(optimizers, "optimizer"),
    "sgd without momentum": {"optimizer": {"name": "sgd", "momentum": 0.0, "nesterov": False}},
    **each(schedules, "schedule"),
    **each(losses, "loss"),
    "label smoothing": {"loss": {"name": "cross-entropy", "label_smoothing": 0.1}},
    **{f"augmentation {name}": {"augmentation": dict(section)} for name, section in AUGMENTATIONS.items()},
    **{
        f"scaling {scaling}": {"data": {"scaling": scaling}}
        for scaling in ("unit", "symmetric", "imagenet", "per-image")
    },
    **{
        f"model {name}": {"model": {"name": name}, "data": {"scaling": "unit"}}
        for name in models
        if name != "torchvision"
    },
    **{
        f"normalization {name}": {
            "model": SMALL | {"normalization": name, "dropout": 0.1, "head_dropout": 0.1}
        }
        for name in NORMALIZATIONS
    },
    **{f"activation {name}": {"model": SMALL | {"activation": name}} for name in activations},
    "ghosts, whole channels": {"model": DROPPING | {"ghost_batches": 3, "dropout_kind": "channel"}},
    "branches that may be skipped": {
        "model": {"name": "resnet", "depth": 8, "stochastic_depth": 0.2, "squeeze_excite": 4}
    },
    "a bias that is fixed": {
        "model": {"name": "airbench", "widths": [8], "whitening_bias_epochs": 1},
        "data": {"scaling": "unit"},
    },
    "a bias that is fixed, bf16": {
        "model": {"name": "airbench", "widths": [8], "whitening_bias_epochs": 2},
        "data": {"scaling": "unit"},
        "training": {"precision": "bf16", "epochs": 4},
    },
    "bf16": {"model": DROPPING, "training": {"precision": "bf16"}},
    "bf16, averaged": {
        "optimizer": {"lookahead_steps": 3, "clip": 0.5},
        "training": {"precision": "bf16", "ema": 0.9},
    },
    "decay, clip": {"optimizer": {"name": "adagrad", "weight_decay": 0.1, "clip": 0.5}},
    "lookahead": {"optimizer": {"lookahead_steps": 3}, "training": {"log_every": 2}},
    "lookahead and ema": {
        "optimizer": {"lookahead_steps": 3, "lookahead_decline": "cubic"},
        "training": {"ema": 0.9},
    },
}


GRADIENTS = [name for name in CATALOGUE if CATALOGUE[name].keys() & {"model", "loss", "training"}]
"""Those that change what is differentiated, or the averages that come after it."""


def train_and_judge(run: Run) -> None:
    """As in an epoch: the first step makes what an optimizer keeps, and is never captured."""
    run._step()
    with OnTheDevice():
        run._step()
        run._judge()


@pytest.mark.slow
@pytest.mark.parametrize("name", CATALOGUE)
def test_nothing_captured_waits_or_touches_the_host(name: str) -> None:
    with a_fake(GPU) as patch:
        run = built(name, GPU)
        patch.setattr(Tensor, "backward", lambda _loss: make_gradients(run))
        train_and_judge(run)
        if len(run._phases) == 2:
            with a_look_at_the_rate():
                run._begin_next_phase()
            train_and_judge(run)


def make_gradients(run: Run) -> None:
    for parameter in run._clipped:
        parameter.grad = torch.empty_like(parameter)


@pytest.mark.slow
@pytest.mark.parametrize("name", GRADIENTS)
def test_nothing_waits_for_gradients(name: str) -> None:
    with a_fake(CPU):
        run = built(name, CPU)
        run._step()
        assert all(parameter.grad is not None for parameter in run._clipped)


OURS = ("nadam", "adamax", "radam", "adagrad", "muon")
"""Optimizers that are not torch's, and know of nothing else than to be captured."""


@pytest.mark.parametrize("name", optimizers)
def test_optimizers_of_a_gpu_are_built_to_be_captured(name: str) -> None:
    with a_fake(GPU) as patch:
        run = built(f"optimizer {name}", GPU)
        patch.setattr(Tensor, "backward", lambda _loss: make_gradients(run))
        for group in run._optimizer.param_groups:
            assert group["lr"] is run._lr
            assert group.get("capturable", name in ("sgd", *OURS))
            assert group.get("fused", False) == (name in ("sgd", "adam", "adamw"))
        run._step()
        kept = tree_leaves(run._optimizer.state_dict())
        assert {leaf.device for leaf in kept if isinstance(leaf, Tensor)} == {GPU}


HABITS: dict[str, Callable[[Tensor], object]] = {
    "item": lambda values: values.max().item(),
    "branch": lambda values: values if values.sum() > 0 else None,
    "mask": lambda values: values[values > 0.5],
    "constant": lambda values: values * torch.tensor([2.0], device=GPU),
    "from the host": lambda values: torch.arange(3).to(GPU),
    "to the host": lambda values: values.cpu(),
}


@pytest.mark.parametrize("habit", HABITS.values(), ids=HABITS)
def test_what_cannot_be_captured_is_seen(habit: Callable[[Tensor], object]) -> None:
    with FakeTensorMode():
        values = torch.zeros(5, device=GPU)
        with pytest.raises((AssertionError, RuntimeError)), OnTheDevice():
            habit(values)
