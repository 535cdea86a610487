"""One training as an object that is started, trains an epoch when told, and gives or takes its whole state.

A step is a function of tensors on the device alone: which images, which learning rate and how they are
augmented are all looked up or drawn there, shapes never change, and metrics are summed there. The host reads
once an epoch.

Shapes: S steps of an epoch, B images of a batch, N images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import copy
import math
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from search.training.augmentation.pipeline import Augmenter, plain_batch
from search.training.augmentation.scaling import build_scaling
from search.training.losses import training_loss
from search.training.models import build_model
from search.training.optimizers import build_optimizer
from search.training.randomness import RandomStream
from search.training.resident import ResidentData
from search.training.schedules import schedule_table
from spaces.config import Configuration

VALIDATION_BATCH = 500
"""Images validated at a time: bounds memory and has no influence on the result."""


@dataclass(frozen=True)
class EpochReport:
    """What is known after an epoch. Training figures are of the augmented batches, while weights changed."""

    epoch: int
    """Epochs trained so far, from 1."""
    train_loss: float
    train_accuracy: float
    """Share of augmented images whose heaviest label was predicted."""
    val_loss: float
    """Cross-entropy without label smoothing, on clean images."""
    val_accuracy: float
    lr: float
    """The learning rate of the epoch's last step."""
    seconds: float
    """Training and validation together."""
    images_per_second: float
    """Images trained on, over the time of training alone."""

    @property
    def diverged(self) -> bool:
        """Whether a loss is no longer a finite number."""
        return not (math.isfinite(self.train_loss) and math.isfinite(self.val_loss))


@dataclass(frozen=True)
class Result:
    """What a run came to."""

    value: float
    """Validation accuracy (0 to 1) of the last epoch, or of the one that early stopping returned to."""
    epoch: int
    """The epoch that ``value`` belongs to."""
    best_accuracy: float
    best_epoch: int
    """The highest validation accuracy on the way and its epoch: for the record, never the value."""


class Run:
    """The training of one configuration, from a seed, on one device."""

    def __init__(self, config: Configuration, data: ResidentData, device: torch.device, seed: int) -> None:
        """Build everything; nothing is trained yet.

        Raises:
            ValueError: if the configuration does not fit the data.
        """
        self.config = config
        self.data = data.to(device)
        self.device = device
        self.history: list[EpochReport] = []
        self._steps = self._steps_per_epoch()
        initialization, training = np.random.SeedSequence(seed).generate_state(2, np.uint64) >> np.uint64(1)
        self._random = RandomStream(int(training), self.device)
        with RandomStream(int(initialization), torch.device("cpu")).active():
            network = build_model(config.model, data.shape)
        self.network = network.to(self.device)
        self._build_step()
        self._kept: dict[str, Any] | None = None

    def _steps_per_epoch(self) -> int:
        images, batch = len(self.data.train_indices), self.config.training.batch_size
        if images < batch:
            raise ValueError(
                f"training.batch_size: must not exceed the {images} training images, but got {batch}"
            )
        return images // batch

    def _build_step(self) -> None:
        config, data = self.config, self.data
        self._scaling = build_scaling(config.data.scaling, data.mean_C, data.std_C)
        shape_HWC = (data.shape.height, data.shape.width, data.shape.channels)
        self._augment = Augmenter(config.augmentation, shape_HWC, self._scaling)
        self._rates = config.optimizer.lr * schedule_table(
            config.schedule, self._steps * config.training.epochs
        )
        self._lr_T = torch.tensor(self._rates, dtype=torch.float32, device=self.device)
        self._lr = torch.zeros((), device=self.device)
        self._optimizer = build_optimizer(config.optimizer, self.network, self._lr)
        self._order_SB = torch.zeros(
            self._steps, config.training.batch_size, dtype=torch.int64, device=self.device
        )
        self._steps_done = torch.zeros(1, dtype=torch.int64, device=self.device)
        self._classes_K = torch.arange(len(data.classes), device=self.device)
        self._train_sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        precision = config.training.precision
        bf16 = precision == "bf16" or (precision == "auto" and self.device.type == "cuda")
        self._autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=bf16, cache_enabled=False)

    @property
    def epoch(self) -> int:
        """Epochs trained so far."""
        return len(self.history)

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, training diverged, or early stopping has run out of patience."""
        return bool(self.history) and (
            self.epoch == self.config.training.epochs or self.history[-1].diverged or self._out_of_patience
        )

    @property
    def _out_of_patience(self) -> bool:
        patience = self.config.training.patience
        return bool(patience) and self.epoch - self._watched_best().epoch >= patience

    def _watched_best(self) -> EpochReport:
        """The first epoch with the best of the figure that early stopping watches."""
        if self.config.training.monitor == "loss":
            return min(self.history, key=lambda report: report.val_loss)
        return max(self.history, key=lambda report: report.val_accuracy)

    def train_epoch(self) -> EpochReport:
        """Train one epoch, validate, and return what there is to know: the one time that the host waits."""
        start = time.perf_counter()
        self.network.train()
        self._train_sums.zero_()
        with self._random.active():
            self._shuffle()
            for _ in range(self._steps):
                self._step()
        trained = self._elapsed(start)
        val_sums = self._validate()
        sums = torch.cat([self._train_sums, val_sums]).tolist()
        self.history.append(self._report(sums, trained, time.perf_counter() - start))
        self._keep_if_best()
        return self.history[-1]

    def _elapsed(self, start: float) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - start

    def _shuffle(self) -> None:
        """A new order of the training images; the last, partial batch is left out."""
        order_N = torch.randperm(len(self.data.train_indices), device=self.device)
        chosen = order_N[: self._order_SB.numel()]
        self._order_SB.copy_(self.data.train_indices[chosen].view_as(self._order_SB))

    def _step(self) -> None:
        """One optimizer step. Reads and writes tensors on the device alone: no host input, no wait."""
        indices_B = self._order_SB.index_select(0, self._steps_done % self._steps).squeeze(0)
        self._lr.copy_(self._lr_T.index_select(0, self._steps_done).squeeze(0))
        labels_B = self.data.labels_N.index_select(0, indices_B)
        targets_BK = (labels_B[:, None] == self._classes_K).float()
        images_BCHW, targets_BK = self._augment(self.data.images_NHWC, indices_B, targets_BK)
        with self._autocast:
            logits_BK = self.network(images_BCHW)
        loss = training_loss(self.config.loss, logits_BK, targets_BK).mean()
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        correct = (logits_BK.argmax(1) == targets_BK.argmax(1)).double().mean()
        self._train_sums += torch.stack([loss.detach().double(), correct])
        self._steps_done += 1

    @torch.no_grad()
    def _validate(self) -> Tensor:
        """Sums over the validation images: loss and correct predictions, shape (2,)."""
        self.network.eval()
        sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        for indices_B in torch.split(self.data.val_indices, VALIDATION_BATCH):
            images_BCHW = plain_batch(self.data.images_NHWC, indices_B, self._scaling)
            labels_B = self.data.labels_N.index_select(0, indices_B)
            with self._autocast:
                logits_BK = self.network(images_BCHW)
            losses_B = F.cross_entropy(logits_BK.float(), labels_B, reduction="none").double()
            sums += torch.stack([losses_B.sum(), (logits_BK.argmax(1) == labels_B).double().sum()])
        return sums

    def _report(self, sums: list[float], trained: float, seconds: float) -> EpochReport:
        train_loss, train_accuracy, val_loss, val_accuracy = sums
        epoch, validated = self.epoch + 1, len(self.data.val_indices)
        return EpochReport(
            epoch=epoch,
            train_loss=train_loss / self._steps,
            train_accuracy=train_accuracy / self._steps,
            val_loss=val_loss / validated,
            val_accuracy=val_accuracy / validated,
            lr=float(self._rates[epoch * self._steps - 1]),
            seconds=seconds,
            images_per_second=self._order_SB.numel() / trained,
        )

    def _keep_if_best(self) -> None:
        if self.config.training.patience and self._watched_best().epoch == self.epoch:
            self._kept = copy.deepcopy(self.network.state_dict())

    def finish(self) -> Result:
        """Return to the epoch that early stopping chose, if it is on, and say what the run came to."""
        if self._kept is not None:
            self.network.load_state_dict(self._kept)
        last = self._watched_best() if self._kept is not None else self.history[-1]
        best = max(self.history, key=lambda report: report.val_accuracy)
        return Result(last.val_accuracy, last.epoch, best.val_accuracy, best.epoch)

    def state_dict(self) -> dict[str, Any]:
        """Everything that a run of the same configuration and data needs to go on from here."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "steps_done": self._steps_done,
            "random": self._random.state,
            "kept": self._kept,
            "history": [asdict(report) for report in self.history],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where another run of the same configuration and data gave its state."""
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._lr = self._optimizer.param_groups[0]["lr"]
        for group in self._optimizer.param_groups:
            group["lr"] = self._lr
        self._steps_done.copy_(state["steps_done"])
        self._random.state = state["random"].cpu()
        self._kept = state["kept"]
        self.history = [EpochReport(**report) for report in state["history"]]


def fit(
    config: Configuration,
    data: ResidentData,
    device: torch.device,
    seed: int,
    on_epoch: Callable[[EpochReport], bool] = lambda report: False,
) -> tuple[Run, Result]:
    """Train to the end, or until ``on_epoch`` returns true; return the run and what it came to."""
    run = Run(config, data, device, seed)
    while not run.finished:
        if on_epoch(run.train_epoch()):
            break
    return run, run.finish()


def peak_memory(device: torch.device) -> int:
    """Most bytes in use so far: on CUDA of the device's allocator, else of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
