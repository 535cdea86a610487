"""One training as an object that is started, trains an epoch when told, and gives or takes its whole state.

A step is a function of tensors on the device alone: which images, which learning rate and how they are
augmented are all looked up or drawn there, shapes never change, and metrics are summed there. The host queues
an epoch and its validation, and reads once, when they are done. On a GPU the step and the validation are
captured in CUDA graphs, a new one for each phase (``search.training.lanes``).

Shapes: S steps of an epoch, T steps of the run, B images of a batch, V views of them, P outputs of the
projection, N images, M watched images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import copy
import math
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from search.training.augmentation.pipeline import Augmenter, plain_batch
from search.training.augmentation.scaling import build_scaling
from search.training.augmentation.test_time import averaged_logits
from search.training.averaging import Average, Lookahead, RunningAverage
from search.training.contrastive import build_projection, contrast
from search.training.evaluation import Evaluation, Predict, batch_for
from search.training.features import build_network, classifier_of, features
from search.training.kernels import chosen_kernels
from search.training.lanes import Lane, Mark, Repeated, make_lane
from search.training.losses import training_loss
from search.training.models import Freezing, Prepared
from search.training.noise import watched_images, with_noise
from search.training.optimizers import build_optimizer
from search.training.phases import Phase, phases_of
from search.training.precision import WeightCopies
from search.training.randomness import RandomStream
from search.training.reports import EpochReport, Result, last_phase
from search.training.resident import ResidentData
from search.training.schedules import schedule_table
from search.training.steplog import StepLog
from spaces.config import Configuration, SupervisedContrastive

PREPARATION_IMAGES = 5000
"""Most training images that a network is prepared on (5,000 in airbench's code)."""
WARM_UP = 3
"""Steps of a phase before its graph is captured: an optimizer's first step differs from the rest."""


class Run:
    """The training of one configuration, from a seed, on one device."""

    def __init__(
        self,
        config: Configuration,
        data: ResidentData,
        device: torch.device,
        seed: int,
        lane: Lane | None = None,
        *,
        prepare: bool = True,
    ) -> None:
        """Build everything; nothing is trained yet.

        Args:
            config: what is trained.
            data: on any device; they are brought to this one.
            device: where it is trained.
            seed: of the initialization and of all draws.
            lane: of that device; None: one of its own.
            prepare: whether a network that wants to see images before it is trained sees them; false for a
                run that is not trained, or that gets its state from another.

        Raises:
            ValueError: if the configuration does not fit the data.
        """
        self._lane = lane or make_lane(device)
        self.config = config
        with self._computing():
            self._build(data, device, seed)
            if prepare:
                self._prepare()
            self._begin(self._phases[0])

    def _build(self, data: ResidentData, device: torch.device, seed: int) -> None:
        config = self.config
        self.data = with_noise(config.data, data.to(device))
        self._true_labels_N = data.labels_N.to(device)
        self._watched_M = watched_images(self.data, self._true_labels_N)
        self.device = device
        self.history: list[EpochReport] = []
        self._steps = self._steps_per_epoch()
        initialization, training = np.random.SeedSequence(seed).generate_state(2, np.uint64) >> np.uint64(1)
        self._random = RandomStream(int(training), self.device)
        with RandomStream(int(initialization), torch.device("cpu")).active():
            network = build_network(config, data.shape)
            projection = self._projection_of(network)
        self.network = network.to(self.device)
        self._projection = projection.to(self.device)
        self._trainable = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self._build_step()
        self._queued = 0
        self._marks: list[Mark] = []
        self._kept: dict[str, Any] | None = None

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Let what is called meanwhile compute on the lane, by the kernels that the configuration allows."""
        with self._lane.active(), chosen_kernels(self.config.training.deterministic):
            yield

    def _prepare(self) -> None:
        """Show clean training images to a network that wants to see some; the same ones for every seed."""
        if isinstance(self.network, Prepared):
            indices_N = self.data.train_indices[:PREPARATION_IMAGES]
            self.network.prepare_on(plain_batch(self.data.images_NHWC, indices_N, self._scaling))

    def _projection_of(self, network: nn.Module) -> nn.Module:
        loss = self.config.loss
        return build_projection(loss, network) if isinstance(loss, SupervisedContrastive) else nn.Identity()

    def _steps_per_epoch(self) -> int:
        images, batch = len(self.data.train_indices), self.config.training.batch_size
        if images < batch:
            raise ValueError(
                f"training.batch_size: must not exceed the {images} training images, but got {batch}: take "
                "more of them (--train-size), or set it lower in the space"
            )
        return images // batch

    def _build_step(self) -> None:
        config, data = self.config, self.data
        self._scaling = build_scaling(config.data.scaling, data.mean_C, data.std_C)
        shape_HWC = (data.shape.height, data.shape.width, data.shape.channels)
        self._augment = Augmenter(config.augmentation, shape_HWC, self._scaling)
        self._phases = phases_of(config)
        self._rates = np.concatenate(
            [phase.lr * schedule_table(config.schedule, phase.epochs, self._steps) for phase in self._phases]
        )
        self._lr_T = torch.tensor(self._rates, dtype=torch.float32, device=self.device)
        self._lr = torch.zeros((), device=self.device)
        self._order_SB = torch.zeros(
            self._steps, config.training.batch_size, dtype=torch.int64, device=self.device
        )
        self._steps_done = torch.zeros(1, dtype=torch.int64, device=self.device)
        self._classes_K = torch.arange(len(data.classes), device=self.device)
        self._figures_S2 = torch.zeros(self._steps, 2, dtype=torch.float64, device=self.device)
        self._judged_4 = torch.zeros(4, dtype=torch.float64, device=self.device)
        every = config.training.log_every
        self._log = StepLog(every, self._steps * config.training.epochs) if every else None
        precision = config.training.precision
        self._bf16 = precision == "bf16" or (precision == "auto" and self.device.type == "cuda")
        self._autocast = torch.autocast(
            self.device.type, torch.bfloat16, enabled=self._bf16, cache_enabled=False
        )
        self._mixes = bool(config.augmentation.mixup or config.augmentation.cutmix)
        batch = batch_for(config, data.shape, self.device)
        self._evaluation = Evaluation(self.data, self._scaling, self._autocast, batch)

    def _begin(self, phase: Phase) -> None:
        """Set what this phase trains, with a new optimizer and new averages."""
        self._phase = phase
        classifier = {id(parameter) for parameter in classifier_of(self.network).parameters()}
        for parameter in self._trainable:
            learns = len(self._phases) == 1 or (id(parameter) in classifier) == self._frozen
            parameter.requires_grad_(learns)
        modules = [self.network, self._projection] if phase.name == "features" else [self.network]
        self._optimizer = build_optimizer(self.config.optimizer, nn.ModuleList(modules), self._lr)
        self._clipped = [p for group in self._optimizer.param_groups for p in group["params"]]
        self._averages = self._build_averages()
        self._copies = WeightCopies(self.network, self._bf16)
        self._begin_steps()
        self._evaluated_copies = WeightCopies(self._evaluated, self._bf16) if self._averages else None
        self._graphed_judgement = self._lane.repeated(self._random, 1)

    def _begin_steps(self) -> None:
        """Capture steps anew: what learns is not what learnt before. What other graphs read or write must
        stay where it is."""
        self._copies.follow_training()
        self._graphed_steps: dict[tuple[Average, ...], Repeated] = {}
        """By the averages that are updated at the end of such a step."""

    @property
    def eager(self) -> str:
        """Why steps or validations are launched operation by operation; empty where they are captured, and on
        a CPU."""
        repeated = [*self._graphed_steps.values(), self._graphed_judgement]
        return next((work.eager for work in repeated if work.eager), "")

    @property
    def _frozen(self) -> bool:
        """Whether everything but the classifier stays as the phase of features left it."""
        return len(self._phases) == 2 and self._phase.name == "classes"

    def _build_averages(self) -> list[Average]:
        """Those that the configuration asks for; the last one is validated."""
        optimizer, decay = self.config.optimizer, self.config.training.ema
        averages: list[Average] = []
        if optimizer.lookahead_steps:
            steps = self._phase.epochs * self._steps
            settings = optimizer.lookahead_steps, optimizer.lookahead_share, optimizer.lookahead_decline
            averages.append(Lookahead(self.network, *settings, steps))
        if decay:
            averages.append(RunningAverage(self.network, decay))
        return averages

    @property
    def _evaluated(self) -> nn.Module:
        """The network that validates: the trained one or its average."""
        return self._averages[-1].network if self._averages else self.network

    def _begin_next_phase(self) -> None:
        """Learn classes on the features that the first phase ended with."""
        self.network.load_state_dict(self._evaluated.state_dict())
        self._begin(self._phases[1])

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
        last = self.history[-1].phase == "classes"
        return bool(patience) and last and self.epoch - self._watched_best().epoch >= patience

    def _watched_best(self) -> EpochReport:
        """The first epoch with the best of the figure that early stopping watches."""
        if self.config.training.monitor == "loss":
            return min(last_phase(self.history), key=lambda report: report.val_loss)
        return max(last_phase(self.history), key=lambda report: report.val_accuracy)

    def train_epoch(self) -> EpochReport:
        """Train one epoch, validate, and return what there is to know."""
        self.begin_epoch()
        return self.end_epoch()

    def begin_epoch(self) -> None:
        """Queue an epoch and its validation. A GPU works on while the caller does something else; a CPU is
        done when this returns."""
        self.start_epoch()
        while not self.is_queued:
            self.queue(self._steps)

    def start_epoch(self) -> None:
        """Get ready for an epoch, of which nothing is queued yet."""
        with self._computing():
            self._marks = [self._lane.mark()]
            if self._phase.name == "features" and self.epoch == self._phase.epochs:
                self._begin_next_phase()
            if isinstance(self.network, Freezing) and self.network.freeze_before(self.epoch):
                self._begin_steps()
            self._set_to_train()
            self._copies.renew()
            with self._random.active():
                self._shuffle()
        self._queued = 0

    def queue(self, steps: int) -> bool:
        """Queue so many steps more of the epoch started, or those that are left and then the validation;
        whether all is queued now.

        The first slice of a network that is new is short: it loads kernels and captures, and each kernel that
        is loaded waits until the device has done all that others have queued.
        """
        steps = min(steps, WARM_UP + 1) if self.is_new else steps
        with self._computing(), self._random.active():
            for _ in range(min(steps, self._steps - self._queued)):
                self._queue_step()
            if self._queued == self._steps and not self.is_queued:
                self._marks.append(self._lane.mark())
                self._graphed_judgement(self._judge)
                self._marks.append(self._lane.mark())
        return self.is_queued

    @property
    def is_new(self) -> bool:
        """Whether no step of the present phase has been queued, so that its kernels may not be loaded."""
        return not self._graphed_steps

    @property
    def is_queued(self) -> bool:
        """Whether all of the epoch started is queued, its validation too."""
        return len(self._marks) == 3

    @property
    def is_done(self) -> bool:
        """Whether the device has done all of the epoch started, so that ``end_epoch`` does not wait."""
        return self.is_queued and self._marks[-1].reached()

    def _queue_step(self) -> None:
        self._queued += 1
        before = sum(phase.epochs for phase in self._phases[: self._phases.index(self._phase)])
        done = (self.epoch - before) * self._steps + self._queued
        due = tuple(average for average in self._averages if done % average.every == 0)
        if due not in self._graphed_steps:  # of the first kind's steps some warm up what all have in common
            warm_up = 1 if self._graphed_steps else WARM_UP
            self._graphed_steps[due] = self._lane.repeated(self._random, warm_up)
        self._graphed_steps[due](partial(self._step, due))

    def end_epoch(self) -> EpochReport:
        """Wait for the epoch begun and return what there is to know: the one time that the host waits."""
        with self._computing():
            figures = torch.cat([self._judged_4, self._figures_S2.flatten()]).tolist()
            start, trained, judged = self._marks
            times = trained.seconds_since(start), judged.seconds_since(start)
            self.history.append(self._report(figures, *times))
            self._keep_if_best()
        return self.history[-1]

    def _set_to_train(self) -> None:
        self.network.train(not self._frozen)
        if self._frozen:
            classifier_of(self.network).train()

    def _shuffle(self) -> None:
        """A new order of the training images; the last, partial batch is left out."""
        order_N = torch.randperm(len(self.data.train_indices), device=self.device)
        chosen = order_N[: self._order_SB.numel()]
        self._order_SB.copy_(self.data.train_indices[chosen].view_as(self._order_SB))

    def _step(self, due: tuple[Average, ...] = ()) -> None:
        """One optimizer step, and an update of the averages that are due. Reads and writes tensors on the
        device alone: no host input, no wait."""
        indices_B = self._order_SB.index_select(0, self._steps_done % self._steps).squeeze(0)
        self._lr.copy_(self._lr_T.index_select(0, self._steps_done).squeeze(0))
        learn = self._contrast if self._phase.name == "features" else self._classify
        loss, correct = learn(indices_B)
        self._optimizer.zero_grad(set_to_none=True)
        self._copies.forget_gradients()
        loss.backward()  # type: ignore[no-untyped-call]
        self._copies.hand_over_gradients()
        if self.config.optimizer.clip:
            nn.utils.clip_grad_norm_(self._clipped, self.config.optimizer.clip)
        self._optimizer.step()
        for average in due:
            average.update()
        self._copies.renew(trained_only=not due)  # Lookahead moves what does not learn any more, too
        figures_12 = torch.stack([loss.detach().double(), correct])[None]
        self._figures_S2.index_copy_(0, self._steps_done % self._steps, figures_12)
        self._steps_done += 1

    @property
    def _epoch_now(self) -> Tensor:
        """Epochs trained so far, on the device, shape (1,)."""
        return self._steps_done // self._steps

    def _classify(self, indices_B: Tensor) -> tuple[Tensor, Tensor]:
        """The batch's mean loss, and the share of it that was classified as its heaviest label says."""
        labels_B = self.data.labels_N.index_select(0, indices_B)
        targets_BK = (labels_B[:, None] == self._classes_K).float()
        images_BCHW, targets_BK = self._augment(self.data.images_NHWC, indices_B, targets_BK, self._epoch_now)
        with self._autocast:
            logits_BK = self._copies(images_BCHW)
        loss = training_loss(self.config.loss, logits_BK, targets_BK).mean()
        heaviest_B = targets_BK.argmax(1) if self._mixes else labels_B
        return loss, (logits_BK.argmax(1) == heaviest_B).double().mean()

    def _contrast(self, indices_B: Tensor) -> tuple[Tensor, Tensor]:
        """The mean contrastive loss of two views of each image, and the share whose nearest view fits."""
        assert isinstance(self.config.loss, SupervisedContrastive)
        labels_B = self.data.labels_N.index_select(0, indices_B)
        views = [self._augment.images(self.data.images_NHWC, indices_B, self._epoch_now) for _ in range(2)]
        with self._autocast:
            points_VP = self._projection(features(self.network, torch.cat(views), self._copies))
        losses_V, fits_V = contrast(points_VP, labels_B.repeat(2), self.config.loss.temperature)
        return losses_V.mean(), fits_V.double().mean()

    def _judge(self) -> None:
        """Validate and watch the trained network: tensors on the device alone, as in a step."""
        by_logits = self._by_logits(self._evaluated_copies or self._copies)
        classes = self._phase.name == "classes"
        validated_2 = self._evaluation.validate(by_logits if classes else self._by_neighbours())
        watched_M = self._watched_M if classes else self._watched_M[:0]
        watched_2 = self._evaluation.agreement(by_logits, watched_M, self._true_labels_N)
        self._judged_4.copy_(torch.cat([validated_2, watched_2]))

    def _by_logits(self, copies: WeightCopies) -> Predict:
        """Predictions of a network as it is."""
        copies.network.eval()
        copies.renew()
        return self._evaluation.by_logits(copies)

    def _by_neighbours(self) -> Predict:
        """Predictions by the features of the evaluated network, whose copies are those of its weights."""
        assert isinstance(self.config.loss, SupervisedContrastive)
        copies = self._evaluated_copies or self._copies
        features_of = partial(features, copies.network, run=copies)
        return self._evaluation.by_neighbours(features_of, self.config.loss.neighbours)

    def _report(self, figures: list[float], trained: float, seconds: float) -> EpochReport:
        val_loss, val_accuracy, memorized, corrected, *steps = figures
        epoch, validated = self.epoch + 1, len(self.data.val_indices)
        watched = len(self._watched_M) if self._phase.name == "classes" else 0
        losses, accuracies = steps[::2], steps[1::2]
        return EpochReport(
            epoch=epoch,
            train_loss=math.fsum(losses) / self._steps,
            train_accuracy=math.fsum(accuracies) / self._steps,
            val_loss=val_loss / validated,
            val_accuracy=val_accuracy / validated,
            lr=float(self._rates[epoch * self._steps - 1]),
            seconds=seconds,
            images_per_second=self._order_SB.numel() / trained,
            phase=self._phase.name,
            memorized=memorized / watched if watched else None,
            corrected=corrected / watched if watched else None,
            steps=self._log.take(list(zip(losses, accuracies, strict=True))) if self._log else (),
        )

    def _keep_if_best(self) -> None:
        last = self._phase is self._phases[-1]
        if self.config.training.patience and last and self._watched_best().epoch == self.epoch:
            self._kept = copy.deepcopy(self._evaluated.state_dict())

    def finish(self) -> Result:
        """Say what the run came to. Its network becomes that of the epoch that early stopping chose, if it is
        on, and the averaged one where an average was validated."""
        with self._computing():
            result = self._finish()
        self._lane.wait()
        return result

    def _finish(self) -> Result:
        self.network.load_state_dict(self._evaluated.state_dict() if self._kept is None else self._kept)
        last = self._watched_best() if self._kept is not None else self.history[-1]
        best = max(last_phase(self.history), key=lambda report: report.val_accuracy)
        tta_accuracy = self._test_time_accuracy()
        return Result(last.val_accuracy, last.epoch, best.val_accuracy, best.epoch, tta_accuracy)

    def confusion(self) -> list[list[int]]:
        """Of the network as it is: validation images by true class (rows) and predicted class."""
        with self._computing():
            predict = self._by_logits(self._copies)
            counts: list[list[int]] = self._evaluation.confusion(predict).tolist()
        return counts

    @torch.no_grad()
    def _test_time_accuracy(self) -> float | None:
        """Of the finished network: once, since each epoch would pay for several validations."""
        kind = self.config.training.test_time_augmentation
        if kind == "none" or self._phase.name == "features":
            return None
        self.network.eval()
        self._copies.renew()
        correct = torch.zeros((), dtype=torch.int64, device=self.device)
        for indices_B in self._evaluation.chunks(self.data.val_indices):
            with self._autocast:
                logits_BK = averaged_logits(
                    self._copies, self.data.images_NHWC, indices_B, kind, self._scaling
                )
            correct += (logits_BK.argmax(1) == self.data.labels_N.index_select(0, indices_B)).sum()
        return correct.item() / len(self.data.val_indices)

    def state_dict(self) -> dict[str, Any]:
        """Everything that a run of the same configuration and data needs to go on from here."""
        self._lane.wait()  # whoever reads it need not know of the lane
        return {
            "phase": self._phase.name,
            "network": self.network.state_dict(),
            "projection": self._projection.state_dict(),
            "averages": [average.state_dict() for average in self._averages],
            "optimizer": self._optimizer.state_dict(),
            "steps_done": self._steps_done,
            "random": self._random.state,
            "kept": self._kept,
            "log": (self._log.waiting, self._log.done) if self._log else None,
            "history": [asdict(report) for report in self.history],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where another run of the same configuration and data gave its state."""
        with self._computing():
            self._load(state)
        self._lane.wait()  # then the state's memory may be used anew

    def _load(self, state: dict[str, Any]) -> None:
        self._begin(next(phase for phase in self._phases if phase.name == state["phase"]))
        self.network.load_state_dict(state["network"])
        self._projection.load_state_dict(state["projection"])
        for average, kept in zip(self._averages, state["averages"], strict=True):
            average.load_state_dict(kept)
        self._optimizer.load_state_dict(state["optimizer"])
        self._lr = self._optimizer.param_groups[0]["lr"]
        for group in self._optimizer.param_groups:
            group["lr"] = self._lr
        self._steps_done.copy_(state["steps_done"])
        self._random.state = state["random"].cpu()
        self._kept = state["kept"]
        if self._log:
            self._log.waiting, self._log.done = state["log"]
        self.history = [EpochReport(**report) for report in state["history"]]


def fit(
    config: Configuration,
    data: ResidentData,
    device: torch.device,
    seed: int,
    on_epoch: Callable[[EpochReport], bool] = lambda report: False,
    lane: Lane | None = None,
) -> tuple[Run, Result]:
    """Train to the end, or until ``on_epoch`` returns true; return the run and what it came to.

    ``lane``: of that device; several runs, one after another, share its stream and its memory. None: one of
    this run's own.
    """
    run = Run(config, data, device, seed, lane)
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
