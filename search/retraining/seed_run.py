"""One training of ``retrain``, in a process of its own: trained, looked at the test images, and written down.

The folder of a seed is written under another name and renamed when complete: it is there whole or not at all.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import secrets
import shutil
import signal
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from search.data.images import Images, Labels
from search.data.request import DataRequest
from search.data.sources import load_test
from search.data.split import Split
from search.hardware import device_name, versions
from search.memory import shortage_line
from search.pictures.confusion import draw_confusion_matrix
from search.pictures.curves import Curves, draw_learning_curves
from search.pictures.feature_map import chosen_images, draw_feature_map
from search.pictures.tiles import draw_filters, draw_misclassified
from search.retraining.exported import exported_split, load_exported
from search.retraining.measures import accuracy_of, confusion, loss_of, per_class
from search.retraining.trained import METRICS, WEIGHTS, TrainedConfiguration, TrainedModel, write_config
from search.training.engine import Run
from search.training.reports import EpochReport, Result
from search.training.resident import make_resident
from search.training.shortage import is_shortage
from search.weights import save_weights
from studies.text import percent

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
Tell = Callable[[str, Any], None]
"""Tells the command what happened: a kind, and what belongs to it."""


@dataclass(frozen=True)
class SeedOrder:
    """Everything that the process of one training needs to know."""

    config: TrainedConfiguration
    data: DataRequest
    has_test: bool
    device: str
    folder: Path
    """Of all seeds."""
    index: int
    """From 1."""
    seed: int

    @property
    def name(self) -> str:
        """Of this seed's folder."""
        return f"seed-{self.index}"


@dataclass(frozen=True)
class Judged:
    """Images and what the network said of them."""

    split: str
    """test or validation."""
    images_NHWC: Images
    labels_N: Labels
    log_p_NK: np.ndarray[Any, np.dtype[np.float32]]
    tta_accuracy: float | None

    @property
    def predicted_N(self) -> Labels:
        predicted: Labels = self.log_p_NK.argmax(1)
        return predicted


def joined(split: Split) -> Split:
    """The split whose validation images train, too."""
    both = np.union1d(split.train_indices, split.val_indices)
    return Split(split.seed, split.val_size, split.train_size, both, split.val_indices)


def main(order: SeedOrder, pipe: Connection) -> None:
    """The life of the process: its messages are epoch, done, and refused or failed with a reason."""
    for number in (signal.SIGINT, signal.SIGHUP):  # the command gets them too, and ends us
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
    parent = multiprocessing.parent_process()

    def tell(kind: str, what: Any) -> None:
        if parent and not parent.is_alive():
            raise BrokenPipeError
        pipe.send((kind, what))

    try:
        train_seed(order, tell)
        tell("done", None)
    except BrokenPipeError:  # nobody waits for us any more
        return
    except ValueError as error:
        tell("refused", str(error))
    except Exception as error:
        if is_shortage(error):
            tell("failed", shortage_line(error))
            return
        tell("failed", traceback.format_exc(limit=-8))


def train_seed(order: SeedOrder, tell: Tell) -> None:
    """Train, judge once, and write the seed's folder.

    Raises:
        ValueError: if data, configuration or device do not allow it.
    """
    torch.set_num_threads(1)
    device = torch.device(order.device)
    data = load_exported(order.data, order.config)
    split = exported_split(order.config.runs[0], data)
    kept = order.config.trained.keep_validation
    resident = make_resident(data, split if kept else joined(split), device)
    run = Run(order.config.trained_settings, resident, device, order.seed)
    while not run.finished:
        report = run.train_epoch()
        tell("epoch", report)
        if report.diverged:
            break
    result = run.finish()
    model = TrainedModel.of_run(run)
    held_out = (data.images_NHWC[split.val_indices], data.labels_N[split.val_indices]) if kept else None
    judged = _judge(model, order, held_out)
    _publish(order, run, result, model, judged)


def _judge(model: TrainedModel, order: SeedOrder, held_out: tuple[Images, Labels] | None) -> Judged | None:
    """The one look at the test images; without any, at the validation images if they did not train."""
    if order.has_test:
        test = load_test(order.data)
        return _judged(model, "test", test.images_NHWC, test.labels_N)
    return _judged(model, "validation", *held_out) if held_out else None


def _judged(model: TrainedModel, split: str, images_NHWC: Images, labels_N: Labels) -> Judged:
    log_p_NK = model.log_probabilities(images_NHWC).numpy()
    augmented = model.augmented_log_probabilities(images_NHWC)
    tta = None if augmented is None else accuracy_of(labels_N, augmented.numpy().argmax(1))
    return Judged(split, np.asarray(images_NHWC), labels_N, log_p_NK, tta)


def _publish(order: SeedOrder, run: Run, result: Result, model: TrainedModel, judged: Judged | None) -> None:
    draft = order.folder / f".{order.name}.{secrets.token_hex(8)}"
    try:
        draft.mkdir()
        save_weights(run.network, draft / WEIGHTS)
        trained = order.config.trained.model_copy(update={"seeds": (order.seed,)})
        write_config(order.config.model_copy(update={"trained": trained}), draft)
        try:
            pictures: Any = _draw(order, run, model, judged, draft)
        except Exception as error:  # whatever goes wrong in a picture, the network and the look are kept
            pictures = f"not all could be drawn: {error}"
        metrics = {**_metrics(order, run, result, judged), "pictures": pictures}
        (draft / METRICS).write_text(json.dumps(metrics, indent=2, allow_nan=False), encoding="utf-8")
        draft.rename(order.folder / order.name)
    except OSError as error:
        raise ValueError(f"{order.folder}: cannot be written ({error.strerror or error})") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _metrics(order: SeedOrder, run: Run, result: Result, judged: Judged | None) -> dict[str, Any]:
    kept = order.config.trained.keep_validation
    return {
        "seed": order.seed,
        "epochs": run.epoch,
        "epoch": result.epoch,
        "diverged": run.history[-1].diverged,
        "seconds": sum(report.seconds for report in run.history),
        "device": device_name(run.device),
        "versions": versions(),
        "training_images": len(run.data.train_indices),
        "validation_images": len(run.data.val_indices) if kept else 0,
        "validation_accuracy": result.value if kept else None,
        **_judgement(judged, run.data.classes),
        "test_looks": _looks(order, judged),
        "curves": asdict(curves_of(run.history, kept)),
    }


def _judgement(judged: Judged | None, classes: tuple[str, ...]) -> dict[str, Any]:
    if judged is None:
        return {"judged_on": None}
    labels_N, predicted_N = judged.labels_N, judged.predicted_N
    return {
        "judged_on": judged.split,
        f"{judged.split}_images": len(labels_N),
        "accuracy": accuracy_of(labels_N, predicted_N),
        "loss": loss_of(labels_N, judged.log_p_NK),
        "tta_accuracy": judged.tta_accuracy,
        "per_class": per_class(labels_N, predicted_N, classes),
        "confusion_matrix": confusion(labels_N, predicted_N, len(classes)).tolist(),
    }


def _looks(order: SeedOrder, judged: Judged | None) -> list[dict[str, Any]]:
    if judged is None or judged.split != "test":
        return []
    accuracy = accuracy_of(judged.labels_N, judged.predicted_N)
    now = datetime.now(UTC).replace(microsecond=0).isoformat()
    return [{"date": now, "seed": order.seed, "accuracy": accuracy}]


def curves_of(history: list[EpochReport], validated: bool) -> Curves:
    """The curves of a run, with no value where none is finite."""

    def column(name: str) -> list[float | None]:
        values = [float(getattr(report, name)) for report in history]
        return [value if math.isfinite(value) else None for value in values]

    return Curves(
        train_loss=column("train_loss"),
        train_accuracy=column("train_accuracy"),
        val_loss=column("val_loss") if validated else [],
        val_accuracy=column("val_accuracy") if validated else [],
        first_of_classes=1 + sum(report.phase == "features" for report in history),
    )


def _draw(
    order: SeedOrder, run: Run, model: TrainedModel, judged: Judged | None, folder: Path
) -> dict[str, str]:
    """Draw what can be drawn; say of each picture its file, or why there is none."""
    kept = order.config.trained.keep_validation
    name = f"{order.config.study}, seed {order.index}"
    draw_learning_curves(
        [curves_of(run.history, kept)], folder / "learning-curves.png", f"Learning curves: {name}",
        f"one training on {len(run.data.train_indices)} images, {run.epoch} epochs",
    )  # fmt: skip
    pictures = {"learning curves": "learning-curves.png", "filters": _draw_filters(model, folder, name)}
    return pictures | (_draw_judged(model, judged, folder, name) if judged else {})


def _draw_filters(model: TrainedModel, folder: Path, name: str) -> str:
    filters_OCHW = model.first_filters()
    if filters_OCHW is None:
        return "none: the first layer is no convolution over several pixels"
    if not np.isfinite(filters_OCHW).all():
        return "none: the weights are not finite"
    draw_filters(filters_OCHW, folder / "filters.png", f"First-layer filters: {name}")
    return "filters.png"


def _draw_judged(model: TrainedModel, judged: Judged, folder: Path, name: str) -> dict[str, str]:
    labels_N, predicted_N = judged.labels_N, judged.predicted_N
    score = percent(accuracy_of(labels_N, predicted_N))
    draw_confusion_matrix(
        confusion(labels_N, predicted_N, len(model.classes)), model.classes, folder / "confusion-matrix.png",
        f"Confusion matrix: {name}", f"{len(labels_N)} {judged.split} images, one training, accuracy {score}",
    )  # fmt: skip
    pictures = {"confusion matrix": "confusion-matrix.png"}
    if not np.isfinite(judged.log_p_NK).all():
        return pictures | {"misclassified": "none: the outputs are not finite"}
    wrong = draw_misclassified(
        judged.images_NHWC, labels_N, predicted_N, np.exp(judged.log_p_NK.max(1).astype(np.float64)),
        model.classes, folder / "misclassified.png", f"Misclassified {judged.split} images: {name}",
    )  # fmt: skip
    chosen_M = chosen_images(labels_N)
    features_MF = model.features(judged.images_NHWC[chosen_M])
    mapped = draw_feature_map(
        features_MF, labels_N[chosen_M], model.classes, folder / "features.png",
        f"Penultimate features: {name}", f"{judged.split} images",
    )  # fmt: skip
    return pictures | {
        "misclassified": "misclassified.png" if wrong else "none: no image was misclassified",
        "features": "features.png" if mapped else "none: too few images, or features that are not finite",
    }
