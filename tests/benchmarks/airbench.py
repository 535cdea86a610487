"""The fastest published kind of training, compiled: airbench94's method, from its paper (arXiv:2404.00498).

    python airbench.py --data FOLDER --configuration FILE.yaml --runs 5 --device cuda

What a script for a single configuration does: weights in half precision (float32 on a CPU), the network
through torch.compile with max-autotune (on a CPU its default mode), Inductor's cache empty, the whole epoch
augmented at once (reflected 2-pixel shifts, alternating flip), the loss summed over the batch, Nesterov SGD
in its decoupled form, Lookahead with a cubic decline, one evaluation at the end with test-time augmentation.
Network and settings are the configuration's (the base of ``fast-94``); the learning rate per batch is the
paper's, lr / (1 + 1 / (1 - momentum)). All epochs are whole and the whitening's bias learns in all of them
(paper: 9.9 epochs, and 3).

A first pass of three steps compiles the network and is timed apart; then the weights are put back. The last
line that it prints is JSON.

Shapes: N images, B of a batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from typing import Any

FOLDER = tempfile.TemporaryDirectory()
os.environ["TORCHINDUCTOR_CACHE_DIR"] = (
    FOLDER.name
)  # before torch is imported: nothing compiled earlier is found
os.environ["TRITON_CACHE_DIR"] = f"{FOLDER.name}/triton"

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
import yaml  # noqa: E402
from bench_data import Arrays, resident  # noqa: E402
from ours_runs import parse, synchronize  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from search.training.augmentation.gather import random_gather  # noqa: E402
from search.training.augmentation.pipeline import plain_batch  # noqa: E402
from search.training.augmentation.scaling import build_scaling  # noqa: E402
from search.training.augmentation.test_time import averaged_logits  # noqa: E402
from search.training.models import Prepared, build_model  # noqa: E402
from search.training.models.airbench import ShiftNorm  # noqa: E402
from search.training.resident import ResidentData  # noqa: E402
from search.training.schedules import schedule_table  # noqa: E402
from spaces.config import SGD, Configuration, CrossEntropy  # noqa: E402

COMPILING_STEPS = 3
"""A compiled step runs once plainly and once while CUDA graphs are recorded, before it runs at full speed."""
PREPARATION_IMAGES = 5000


class Training:
    """The network, compiled once, and trained anew from each seed."""

    def __init__(self, configuration: Configuration, data: ResidentData) -> None:
        self.config, self.data, self.device = configuration, data, data.device
        self.dtype = torch.half if self.device.type == "cuda" else torch.float32
        self.batch = configuration.training.batch_size
        self.steps = len(data.train_indices) // self.batch
        self.scaling = build_scaling("standardize", data.mean_C, data.std_C)
        self.network = self._fresh(0)
        mode = "max-autotune" if self.device.type == "cuda" else "default"
        self.compiled = torch.compile(self.network, mode=mode)

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
        synchronize(self.device)
        start = time.perf_counter()
        weights = {name: value.clone() for name, value in self.network.state_dict().items()}
        images_NCHW, labels_N = self._epoch(0)
        for _ in range(COMPILING_STEPS):
            self._loss(images_NCHW[: self.batch], labels_N[: self.batch]).backward()
        self.network.zero_grad(set_to_none=True)
        self.network.load_state_dict(weights)
        synchronize(self.device)
        return time.perf_counter() - start

    def run(self, seed: int) -> dict[str, Any]:
        """Train from a seed and evaluate."""
        synchronize(self.device)
        start = time.perf_counter()
        self.network.load_state_dict(self._fresh(seed).state_dict())
        optimizer, rates = self._optimizer()
        slow = Slow(self.network, len(rates))
        self.network.train()
        for epoch in range(self.config.training.epochs):
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
        slow.finish()
        accuracy, tta_accuracy = self._accuracy("none"), self._accuracy("mirror-shift")
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "accuracy": accuracy, "tta_accuracy": tta_accuracy}

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
        """SGD, and its rate at every step; a gradient is a sum over the batch."""
        settings = self.config.optimizer
        assert isinstance(settings, SGD)
        rate = settings.lr / (1024 * (1 + 1 / (1 - settings.momentum)))
        table = schedule_table(self.config.schedule, self.config.training.epochs, self.steps)
        optimizer = torch.optim.SGD(
            [parameter for parameter in self.network.parameters() if parameter.requires_grad],
            lr=rate,
            momentum=settings.momentum,
            nesterov=settings.nesterov,
            weight_decay=settings.weight_decay * self.batch / settings.lr,
        )
        return optimizer, (rate * table).tolist()

    @torch.no_grad()
    def _accuracy(self, kind: str) -> float:
        """On the validation images, by the network uncompiled, since compiling that too would not pay."""
        self.network.eval()
        correct = torch.zeros((), dtype=torch.int64, device=self.device)
        for indices_B in torch.split(self.data.val_indices, 2000):
            correct += (self._logits(indices_B, kind).argmax(1) == self.data.labels_N[indices_B]).sum()
        return correct.item() / len(self.data.val_indices)

    def _logits(self, indices_B: Tensor, kind: str) -> Tensor:
        def network(images_BCHW: Tensor) -> Tensor:
            logits_BK: Tensor = self.network(images_BCHW.to(self.dtype))
            return logits_BK

        if kind == "none":
            return network(plain_batch(self.data.images_NHWC, indices_B, self.scaling))
        return averaged_logits(network, self.data.images_NHWC, indices_B, kind, self.scaling)


class Slow:
    """Lookahead: every five steps the slow weights move towards the network's, which go on from there."""

    def __init__(self, network: nn.Module, steps: int) -> None:
        self._fast = [value for value in network.state_dict().values() if value.is_floating_point()]
        self._slow = [value.clone() for value in self._fast]
        self._steps = steps

    def update(self, done: int) -> None:
        if done % 5 == 0:
            self._move(1 - 0.95**5 * (done / self._steps) ** 3)

    def finish(self) -> None:
        """The network becomes the slow weights."""
        self._move(0.0)

    @torch.no_grad()
    def _move(self, share: float) -> None:
        for slow, fast in zip(self._slow, self._fast, strict=True):
            slow.lerp_(fast, share)
            fast.copy_(slow)


def main() -> None:
    options = parse(__doc__)
    device = torch.device(options.device)
    torch.backends.cudnn.benchmark = True
    configuration = Configuration.read(yaml.safe_load(options.configuration.read_text(encoding="utf-8")))
    training = Training(configuration, resident(Arrays.read(options.data), device))
    compiling = training.compile()
    runs = [training.run(seed) for seed in range(options.runs)]
    print(json.dumps({"compile_seconds": compiling, "runs": runs, "threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main()
