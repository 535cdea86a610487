"""The fastest published kind of training, compiled: airbench94's method, from its paper (arXiv:2404.00498).

    python airbench.py --data FOLDER --configuration FILE.yaml --runs 5 --device cuda

What a script for a single configuration does: weights in half precision (float32 on a CPU), the network
through torch.compile with max-autotune (on a CPU its default mode), Inductor's cache empty, the whole epoch
augmented at once (reflected 2-pixel shifts, alternating flip), the loss summed over the batch, Nesterov SGD
in its decoupled form, Lookahead with a cubic decline, the whitening's bias fixed after the configuration's
number of epochs. As the engine does, it validates the slow weights after each epoch, and once more at the end
with test-time augmentation. Network and settings are the configuration's (the base of ``fast-94``), whose
learning rate and weight decay mean what they mean to the engine. All epochs are whole (paper: 9.9 epochs).

A first pass of three steps compiles the network and is timed apart, and as many steps with the bias fixed;
then the weights are put back. It prints lines of JSON as soon as there is something to say: the seconds of
compiling, then each run.

Shapes: N images, B of a batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import copy
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from bench_data import Arrays, resident
from ours_runs import parse, synchronize, tell
from torch import Tensor, nn

from search.training.augmentation.gather import random_gather
from search.training.augmentation.pipeline import plain_batch
from search.training.augmentation.scaling import build_scaling
from search.training.augmentation.test_time import averaged_logits
from search.training.kernels import AUTOTUNE
from search.training.models import Prepared, build_model
from search.training.models.airbench import ShiftNorm
from search.training.optimizers import coupled_decay, full_rate
from search.training.resident import ResidentData
from search.training.schedules import schedule_table
from spaces.config import SGD, Airbench, Configuration, CrossEntropy, Optimizer

COMPILING_STEPS = 3
"""A compiled step runs once plainly and once while CUDA graphs are recorded, before it runs at full speed."""
PREPARATION_IMAGES = 5000


class Training:
    """The network, compiled once by ``compile``, and trained anew from each seed."""

    def __init__(
        self, configuration: Configuration, data: ResidentData, dtype: torch.dtype | None = None
    ) -> None:
        """``dtype`` None: half precision on CUDA, float32 on a CPU."""
        assert isinstance(configuration.model, Airbench)
        self.model = configuration.model
        self.config, self.data, self.device = configuration, data, data.device
        self.dtype = dtype or (torch.half if self.device.type == "cuda" else torch.float32)
        self.batch = configuration.training.batch_size
        self.steps = len(data.train_indices) // self.batch
        self.scaling = build_scaling("standardize", data.mean_C, data.std_C)
        self.network = self._fresh(0)
        self.compiled: Callable[[Tensor], Tensor] = self.network

    def _fresh(self, seed: int) -> nn.Module:
        """An untrained network: half precision, except for the normalizations."""
        torch.manual_seed(seed)
        network = build_model(self.config.model, self.data.shape).to(self.device)
        assert isinstance(network, Prepared)
        indices_N = self.data.train_indices[:PREPARATION_IMAGES]
        network.prepare_on(plain_batch(self.data.images_NHWC, indices_N, self.scaling))
        for module in network.modules():
            if not isinstance(module, ShiftNorm) and not list(module.children()):
                module.to(self.dtype)
        return network

    def compile(self) -> float:
        """Run forward and backward until everything is compiled; the seconds that it took."""
        mode = "max-autotune" if self.device.type == "cuda" else "default"
        self.compiled = torch.compile(self.network, mode=mode)
        synchronize(self.device)
        start = time.perf_counter()
        weights = {name: value.clone() for name, value in self.network.state_dict().items()}
        images_NCHW, labels_N = self._epoch(0)
        for epoch in self._epochs_that_differ():
            self._fix_bias(epoch)
            for _ in range(COMPILING_STEPS):
                self._loss(images_NCHW[: self.batch], labels_N[: self.batch]).backward()
                self.network.zero_grad(set_to_none=True)
        self.network.load_state_dict(weights)
        synchronize(self.device)
        return time.perf_counter() - start

    def _epochs_that_differ(self) -> list[int]:
        """The first epoch of the training, and the first one in which the whitening's bias is fixed."""
        return sorted({0, self.model.whitening_bias_epochs} & set(range(self.config.training.epochs)))

    def _fix_bias(self, epoch: int) -> None:
        """Let the whitening's bias learn in the first epochs, and then stay as it is."""
        bias = self.network.get_parameter("0.bias")
        bias.requires_grad_(not self.model.whitening or epoch < self.model.whitening_bias_epochs)

    def run(self, seed: int) -> dict[str, Any]:
        """Train from a seed, validate after each epoch, and evaluate."""
        synchronize(self.device)
        start = time.perf_counter()
        self.network.load_state_dict(self._fresh(seed).state_dict())
        self._fix_bias(0)
        optimizer, rates = self._optimizer()
        slow = Slow(self.network, self.config.optimizer, len(rates))
        for epoch in range(self.config.training.epochs):
            self._train_epoch(epoch, optimizer, rates, slow)
            accuracy = self._accuracy(slow.network, "none")
        tta_accuracy = self._accuracy(slow.network, self.config.training.test_time_augmentation)
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "accuracy": accuracy, "tta_accuracy": tta_accuracy}

    def _train_epoch(
        self, epoch: int, optimizer: torch.optim.Optimizer, rates: list[float], slow: Slow
    ) -> None:
        self._fix_bias(epoch)
        self.network.train()
        images_NCHW, labels_N = self._epoch(epoch)
        for step in range(self.steps):
            batch = slice(step * self.batch, (step + 1) * self.batch)
            done = epoch * self.steps + step
            for group in optimizer.param_groups:
                group["lr"] = rates[done]
            self._loss(images_NCHW[batch], labels_N[batch]).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            slow.update(done + 1)

    def _epoch(self, epoch: int) -> tuple[Tensor, Tensor]:
        """All training images in a new order, augmented, and their labels."""
        order_N = torch.randperm(len(self.data.train_indices), device=self.device)
        indices_N = self.data.train_indices[order_N][: self.steps * self.batch]
        now = torch.tensor([epoch], device=self.device)
        images_NCHW = random_gather(
            self.data.images_NHWC,
            indices_N,
            shift=self.config.augmentation.shift,
            padding=self.config.augmentation.padding,
            alternating=now,
        )
        return self.scaling(images_NCHW).to(self.dtype), self.data.labels_N[indices_N]

    def _loss(self, images_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        """Summed over the batch, so that half precision holds the gradients."""
        assert isinstance(self.config.loss, CrossEntropy)
        logits_BK = self.compiled(images_BCHW.contiguous(memory_format=torch.channels_last))
        smoothing = self.config.loss.label_smoothing
        return F.cross_entropy(logits_BK.float(), labels_B, label_smoothing=smoothing, reduction="sum")

    def _optimizer(self) -> tuple[torch.optim.Optimizer, list[float]]:
        """SGD of all that learns, norms and biases decayed like the rest, and its rate at every step."""
        settings = self.config.optimizer
        assert isinstance(settings, SGD)
        assert settings.decay_norms_and_biases
        rate = full_rate(settings, self.batch) / self.batch  # gradients are sums over the batch
        table = schedule_table(self.config.schedule, self.config.training.epochs, self.steps)
        optimizer = torch.optim.SGD(
            [parameter for parameter in self.network.parameters() if parameter.requires_grad],
            lr=rate,
            momentum=settings.momentum,
            nesterov=settings.nesterov,
            weight_decay=coupled_decay(settings) * self.batch,
        )
        return optimizer, (rate * table).tolist()

    @torch.no_grad()
    def _accuracy(self, network: nn.Module, kind: str) -> float:
        """On the validation images, by a network uncompiled, since compiling that too would not pay."""
        network.eval()
        correct = torch.zeros((), dtype=torch.int64, device=self.device)
        for indices_B in torch.split(self.data.val_indices, 2000):
            logits_BK = self._logits(network, indices_B, kind)
            correct += (logits_BK.argmax(1) == self.data.labels_N[indices_B]).sum()
        return correct.item() / len(self.data.val_indices)

    def _logits(self, network: nn.Module, indices_B: Tensor, kind: str) -> Tensor:
        def predict(images_BCHW: Tensor) -> Tensor:
            logits_BK: Tensor = network(images_BCHW.to(self.dtype))
            return logits_BK

        if kind == "none":
            return predict(plain_batch(self.data.images_NHWC, indices_B, self.scaling))
        return averaged_logits(predict, self.data.images_NHWC, indices_B, kind, self.scaling)


class Slow:
    """Lookahead: every few steps the slow weights move towards the network's, which go on from there; by a
    share that falls to nothing."""

    def __init__(self, network: nn.Module, settings: Optimizer, steps: int) -> None:
        assert settings.lookahead_decline == "cubic"
        self._every, self._share = settings.lookahead_steps, settings.lookahead_share
        self.network = copy.deepcopy(network)
        """Of the slow weights."""
        self._slow, self._fast = _averaged_values(self.network), _averaged_values(network)
        self._steps = steps

    @torch.no_grad()
    def update(self, done: int) -> None:
        """To be called after each step, with the number of steps done."""
        if done % self._every:
            return
        share = 1 - (1 - self._share) * (done / self._steps) ** 3
        for slow, fast in zip(self._slow, self._fast, strict=True):
            slow.lerp_(fast, share)
            fast.copy_(slow)


def _averaged_values(network: nn.Module) -> list[Tensor]:
    """Its weights, and the statistics of its normalizations."""
    return [value for value in network.state_dict().values() if value.is_floating_point()]


@contextmanager
def empty_compiler_cache() -> Iterator[None]:
    """Let the compiler find nothing that was compiled earlier. Inductor and Triton look for their folders
    only when they compile; in the working folder they are removed with it even if this process is killed."""
    with tempfile.TemporaryDirectory(dir=Path.cwd(), ignore_cleanup_errors=True) as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        os.environ["TRITON_CACHE_DIR"] = f"{folder}/triton"
        yield


def main() -> None:
    options = parse(text=__doc__)
    torch.backends.cudnn.benchmark = AUTOTUNE
    configuration = Configuration.read(yaml.safe_load(options.configuration.read_text(encoding="utf-8")))
    training = Training(configuration, resident(Arrays.read(options.data), torch.device(options.device)))
    with empty_compiler_cache():
        tell({"compile_seconds": training.compile()})
        for seed in range(options.runs):
            tell(training.run(seed))


if __name__ == "__main__":
    main()
