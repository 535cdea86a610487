"""The command ``retrain``: one configuration trained for keeps, on several seeds, and judged on test images.

Everything is in one folder, which a later call of the same command continues: a seed whose folder is complete
is neither trained nor tested again.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import torch

from search.data.describe import statistics_of
from search.data.images import ImageData
from search.data.request import DataRequest
from search.data.sources import load_test
from search.hardware import device_name, versions
from search.interrupts import EXIT_CODE, Interrupts
from search.options import DEFAULT_STORAGE
from search.pictures.confusion import draw_confusion_matrix
from search.pictures.curves import Curves, draw_learning_curves
from search.placement import processes_on
from search.prepare import check_fit, resolve_precision
from search.retraining.exported import device_for, exported_split, load_exported, request_of
from search.retraining.look_keeper import LookKeeper
from search.retraining.measures import SHARE, over_seeds, per_class_over_seeds
from search.retraining.screen import RetrainScreen
from search.retraining.seed_run import SeedOrder, joined, main
from search.retraining.trained import (
    CONFIG,
    METRICS,
    WEIGHTS,
    Trained,
    TrainedConfiguration,
    read_config,
    write_config,
)
from search.workers import prepare_workers
from studies.base import RETRAINING, derived_seed
from studies.export import ExportedConfiguration, read_export
from studies.files import whole, write_text
from studies.text import duration, percent

POLL = 0.5
"""Seconds between two looks at Ctrl-C."""


@dataclass(frozen=True)
class RetrainRequest:
    """What a user asks for with ``cifar-search retrain``."""

    file: Path
    folder: Path
    seeds: int = 3
    keep_validation: bool = False
    dataset: str | None = None
    data_dir: Path | None = None
    device: str = "auto"
    precision: str = "recorded"
    """recorded, auto, fp32 or bf16."""
    workers: int | None = None
    """Trainings at a time; None: as many as the device carries."""
    storage_url: str = DEFAULT_STORAGE
    """Of the study, which records the test evaluation too."""


def retrain(request: RetrainRequest, screen: RetrainScreen, interrupts: Interrupts) -> int:
    """Train what is missing of the folder; return the exit code.

    Raises:
        ValueError: for whatever a user can get wrong, before anything is made.
    """
    interrupts.raise_from_now_on()
    export = read_export(request.file)
    source = request_of(export, request.dataset, request.data_dir)
    device = device_for(request.device, export.runs[0])
    prepare_workers()
    data = load_exported(source, export, screen.decoding)
    config = _config(request, export, data, device)
    if data.has_test or data.test_fault:  # a bad test split shows before hours of training
        _check_test(source, export)
    with _folder(request.folder, config):
        return _Session(request, config, source, data.has_test, device, screen, interrupts).run()


def _config(
    request: RetrainRequest, export: ExportedConfiguration, data: ImageData, device: torch.device
) -> TrainedConfiguration:
    """What will be trained, checked against the data."""
    settings, run = export.settings, export.runs[0]
    split = exported_split(run, data)
    training = split if request.keep_validation else joined(split)
    check_fit(settings, data, training)
    mean_C, std_C = statistics_of(data, training.train_indices)
    asked = settings.training.precision if request.precision == "recorded" else request.precision
    trained = Trained(
        seeds=tuple(derived_seed(run.seed, RETRAINING, index) for index in range(_count(request))),
        keep_validation=request.keep_validation,
        epochs=settings.training.epochs,
        patience=settings.training.patience if request.keep_validation else 0,
        precision=resolve_precision(asked, device),
        train_images=len(training.train_indices),
        val_images=len(split.val_indices) if request.keep_validation else 0,
        mean=tuple(mean_C.astype(np.float32).tolist()),
        std=tuple(std_C.astype(np.float32).tolist()),
        device=device_name(device),
        versions=versions(),
    )
    return TrainedConfiguration.model_validate({**export.model_dump(), "trained": trained.model_dump()})


def _count(request: RetrainRequest) -> int:
    """How many seeds the folder is about: those asked for, and those that it has already."""
    there = [path.name.removeprefix("seed-") for path in request.folder.glob("seed-*")]
    return max([request.seeds, *(int(index) for index in there if index.isdecimal())])


def _check_test(source: DataRequest, export: ExportedConfiguration) -> None:
    test = load_test(source)
    if (test.classes, test.images_NHWC.shape[1:]) != (export.data.classes, export.data.shape):
        raise ValueError(
            f"--dataset: the test images must have the classes and the shape {list(export.data.shape)} of "
            f"the training images, but have {list(test.images_NHWC.shape[1:])} or other classes"
        )


@contextmanager
def _folder(folder: Path, config: TrainedConfiguration) -> Iterator[None]:
    """The folder, made or continued, and nobody else's while the ``with`` block runs.

    Raises:
        ValueError: if it holds anything else, or another command works in it.
    """
    _check_folder(folder, config)
    lock = filelock.FileLock(folder / ".lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout:
        raise ValueError(f"-o: another retrain is working in {folder}") from None
    except OSError as error:
        raise ValueError(f"-o: {folder} cannot be written ({error.strerror or error})") from None
    try:
        for left in folder.glob(".seed-*"):  # of a training that was killed
            shutil.rmtree(left, ignore_errors=True)
        yield
    finally:
        lock.release()


def _check_folder(folder: Path, config: TrainedConfiguration) -> None:
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"-o: must be a folder, but {folder} is a file")
    if not folder.exists() or all(path.name.startswith(".") for path in folder.iterdir()):
        return
    if not (folder / CONFIG).is_file():
        raise ValueError(f"-o: must be a new or empty folder, or one that retrain began, but {folder} is not")
    there, here = _identity(read_config(folder)), _identity(config)
    differing = [
        f"{key} is {there[key]} there, but {here[key]} now" for key in here if there[key] != here[key]
    ]
    if differing:
        raise ValueError(
            f"-o: {folder} holds another training: {'; '.join(differing)} (choose another folder)"
        )


def _identity(config: TrainedConfiguration) -> dict[str, Any]:
    return {
        "the configuration": config.settings.fingerprint(),
        "the hash of the data set": config.data.hash[:12],
        "the split": config.runs[0].split.hash,
        "the first seed": config.trained.seeds[0],
        "keeping the validation images": config.trained.keep_validation,
        "the precision": config.trained.precision,
    }


class _Session:
    """The trainings of one command, watched until they are done or told to stop."""

    def __init__(
        self,
        request: RetrainRequest,
        config: TrainedConfiguration,
        source: DataRequest,
        has_test: bool,
        device: torch.device,
        screen: RetrainScreen,
        interrupts: Interrupts,
    ) -> None:
        self._request, self._config = request, config
        self._screen, self._interrupts = screen, interrupts
        self._has_test = has_test
        self._workers = request.workers or processes_on(device.type)
        self._orders = [
            SeedOrder(config, source, has_test, str(device), request.folder, index, seed)
            for index, seed in enumerate(config.trained.seeds, start=1)
        ]
        self._living: dict[connection.Connection, tuple[SeedOrder, BaseProcess]] = {}
        self._failed: list[tuple[str, str]] = []
        self._keeper = LookKeeper(config, request.folder.resolve().name, request.storage_url)

    def run(self) -> int:
        """Train the seeds that are not finished; return the exit code."""
        open_orders = [order for order in self._orders if not (order.folder / order.name).is_dir()]
        self._announce(len(open_orders))
        write_config(self._config, self._request.folder)
        self._sum_up()
        with self._interrupts.held():
            try:
                self._watch(deque(open_orders))
            finally:
                self._kill()
                self._screen.close()
        return self._finish()

    def _announce(self, missing: int) -> None:
        trained, screen, total = self._config.trained, self._screen, len(self._orders)
        held_out = ", those of validation among them"
        if trained.keep_validation:
            held_out = f", {trained.val_images} held out for validation"
        screen.say(f"question: {self._config.question}")
        screen.say(
            f"{missing} training(s) to do, {total - missing} of {total} finished before: {trained.epochs} "
            f"epochs on {trained.train_images} images{held_out}; "
            f"{self._workers} at a time on {trained.device}, {trained.precision}"
        )
        patience = self._config.settings.training.patience
        if patience and not trained.keep_validation:
            screen.say(
                f"note: early stopping (patience {patience}) is off, since no images are held out: all "
                f"{trained.epochs} epochs train (--keep-validation keeps it)"
            )
        if not self._has_test:
            where = "the validation images" if trained.keep_validation else "nothing"
            screen.say(f"note: {self._config.data.name} has no test images; networks are judged on {where}")
        if self._config.is_edited:
            screen.say("note: the configuration is not the one that the recorded runs trained: it was edited")
        screen.say(self._keeper.outlook() if self._has_test else "no look at test images is to be recorded")
        if missing:
            screen.say(self._estimate(missing))

    def _estimate(self, missing: int) -> str:
        run = self._config.runs[0]
        if not run.seconds:
            return "how long it takes will be said after the first epoch"
        one = run.seconds * self._config.trained.train_images / max(run.split.train_images, 1)
        rounds = -(-missing // self._workers)
        return f"about {duration(one * rounds)}, by the recorded run on {run.device or 'an unknown device'}"

    def _watch(self, waiting: deque[SeedOrder]) -> None:
        trained = self._config.trained
        self._screen.begin(len(waiting), trained.epochs, self._workers, trained.keep_validation)
        while (self._living or (waiting and not self._failed)) and not self._interrupts.count:
            while waiting and not self._failed and len(self._living) < self._workers:
                self._start(waiting.popleft())
            for pipe in connection.wait(list(self._living), POLL):
                assert isinstance(pipe, connection.Connection)
                self._hear(pipe)

    def _start(self, order: SeedOrder) -> None:
        context = multiprocessing.get_context("forkserver")
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=main, args=(order, there), daemon=True)
        process.start()
        there.close()
        self._living[here] = order, process

    def _hear(self, pipe: connection.Connection) -> None:
        order, process = self._living[pipe]
        try:
            kind, what = pipe.recv()
        except (EOFError, OSError):
            process.join()
            kind, what = "failed", f"its process ended with code {process.exitcode}"
        if kind == "epoch":
            self._screen.epoch(order.index, what)
            return
        del self._living[pipe]
        pipe.close()
        if kind == "done":
            process.join()
            self._screen.done(order.index, _read(order.folder / order.name))
            self._sum_up()
        else:
            self._failed.append((kind, f"seed {order.index}: {what}"))

    def _kill(self) -> None:
        for _, process in self._living.values():
            process.kill()
        for pipe, (_, process) in self._living.items():
            process.join()
            pipe.close()
        self._living.clear()

    def _finished(self) -> list[dict[str, Any]]:
        folders = (self._request.folder / order.name for order in self._orders)
        runs = [_read(folder) for folder in folders if folder.is_dir()]
        return [run for run in runs if run["judged_on"] == runs[0]["judged_on"]]

    def _sum_up(self) -> None:
        """Bring the folder, and the study's looks, up to what is finished."""
        runs = self._finished()
        if not runs:
            return
        first = self._request.folder / "seed-1" / WEIGHTS
        if first.is_file():
            _copy(first, self._request.folder / WEIGHTS)
        write_text(self._request.folder / METRICS, json.dumps(summary(runs, self._config), indent=2))
        self._keeper.keep([look for run in runs for look in run["test_looks"]])

    def _finish(self) -> int:
        runs = self._finished()
        if runs:
            draw_all(runs, self._config, self._request.folder)
            for line in result_lines(summary(runs, self._config)):
                self._screen.say(line)
            if self._has_test:
                self._screen.say(self._keeper.outcome())
        for kind, what in self._failed:
            if kind == "refused":
                raise ValueError(what)
            self._screen.say(what)
            return 1
        if self._interrupts.count and len(runs) < len(self._orders):
            self._screen.say(f"interrupted; {len(runs)} of {len(self._orders)} seeds are finished. The same "
                             "command continues")  # fmt: skip
            return EXIT_CODE
        self._screen.say(f"written to {self._request.folder}; next: cifar-search predict "
                         f"{self._request.folder} IMAGE")  # fmt: skip
        return 0


def summary(runs: Sequence[Mapping[str, Any]], config: TrainedConfiguration) -> dict[str, Any]:
    """What ``metrics.json`` holds: all figures as mean and spread over seeds, and every run.

    Accuracies are 0 to 1, times in seconds.
    """
    judged = runs[0]["judged_on"]
    figures: dict[str, Any] = {}
    if judged:
        figures = {
            f"{judged}_images": runs[0][f"{judged}_images"],
            f"{judged}_accuracy": over_seeds([run["accuracy"] for run in runs], SHARE),
            f"{judged}_loss": over_seeds([run["loss"] for run in runs]),
            f"{judged}_accuracy_with_test_time_augmentation": over_seeds(
                [run["tta_accuracy"] for run in runs], SHARE
            ),
            "per_class": per_class_over_seeds([run["per_class"] for run in runs]),
            "confusion_matrix": np.sum([run["confusion_matrix"] for run in runs], axis=0).tolist(),
        }
    return {
        "study": config.study,
        "data": config.data.name,
        "classes": list(config.data.classes),
        "fingerprint": config.settings.fingerprint(),
        "model": f"{WEIGHTS} is the network of the first seed, {runs[0]['seed']}",
        "judged_on": judged,
        "training_images": runs[0]["training_images"],
        "validation_images": runs[0]["validation_images"],
        **figures,
        "seconds": over_seeds([run["seconds"] for run in runs]),
        "test_looks": [look for run in runs for look in run["test_looks"]],
        "runs": list(runs),
    }


def draw_all(runs: Sequence[Mapping[str, Any]], config: TrainedConfiguration, folder: Path) -> None:
    """The pictures of all seeds together: learning curves and confusion matrix."""
    trained = f"{len(runs)} training{'s' * (len(runs) > 1)} on {runs[0]['training_images']} images"
    curves = [Curves(**run["curves"]) for run in runs]
    draw_learning_curves(
        curves, folder / "learning-curves.png", f"Learning curves: {config.study}", f"{trained}, a line each"
    )
    judged = runs[0]["judged_on"]
    if judged:
        counts_KK = np.sum([run["confusion_matrix"] for run in runs], axis=0)
        share = percent(over_seeds([run["accuracy"] for run in runs])["mean"])  # type: ignore[index]
        below = f"{runs[0][f'{judged}_images']} {judged} images, {trained}, mean accuracy {share}"
        name = f"Confusion matrix: {config.study}"
        draw_confusion_matrix(counts_KK, config.data.classes, folder / "confusion-matrix.png", name, below)


def result_lines(metrics: Mapping[str, Any]) -> list[str]:
    """The figures of ``summary`` for people."""
    judged = metrics["judged_on"]
    names = {"accuracy": "accuracy", "accuracy_with_test_time_augmentation": "with test-time augmentation"}
    lines = []
    for key, name in names.items() if judged else ():
        figure = metrics[f"{judged}_{key}"]
        if figure is not None:
            images = metrics[f"{judged}_images"]
            lines.append(f"{judged} {name}: {figure_text(figure)} ({images} images)")
    diverged = sum(run["diverged"] for run in metrics["runs"])
    if diverged:
        lines.append(
            f"note: {diverged} of {len(metrics['runs'])} trainings diverged, and are counted as they are"
        )
    return lines


def figure_text(figure: Mapping[str, Any]) -> str:
    """Mean, spread, interval and number of seeds."""
    if figure["n"] == 1:
        return f"{percent(figure['mean'])}, one seed"
    sure = (
        f", 95 % interval over seeds {percent(max(figure['low'], 0))} to {percent(min(figure['high'], 1))}"
        if figure["low"] is not None
        else ""
    )
    spread = f"standard deviation of {figure['n']} seeds"
    return f"{percent(figure['mean'])} ± {100 * figure['spread']:.2f} ({spread}){sure}"


def _read(folder: Path) -> dict[str, Any]:
    """A finished seed's figures.

    Raises:
        ValueError: if they cannot be read.
    """
    try:
        read: dict[str, Any] = json.loads((folder / METRICS).read_text(encoding="utf-8"))
        read["accuracy" if read["judged_on"] else "seed"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(f"{folder / METRICS}: cannot be read: delete {folder} to train it again") from None
    return read


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as there, whole(target) as file:
        shutil.copyfileobj(there, file)
