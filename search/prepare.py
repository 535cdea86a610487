"""What a search and its workers do before the first trial: data, split, the space fitted to them, device."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch

from search.data.request import DataRequest
from search.data.sources import SOURCES, ImageData, load
from search.data.split import Split, make_fold, make_split
from search.training.engine import Run
from search.training.models import Shape, cost
from search.training.resident import ResidentData, make_resident, with_split
from search.training.shortage import is_shortage
from spaces.config import Configuration
from spaces.space import Space
from spaces.text import unknown
from studies.record import DataRecord, SplitRecord, SplitSpec

KEPT_SPLITS = 8
"""Splits that a worker keeps at hand."""


def resolve_device(name: str) -> torch.device:
    """The device called ``name``: auto (CUDA if there is one), cpu, cuda or cuda:N.

    Raises:
        ValueError: if there is no such device, listing those that there are.
    """
    there = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if name == "auto":
        return torch.device("cuda:0" if len(there) > 1 else "cpu")
    if name == "cuda" and len(there) > 1:
        return torch.device("cuda:0")
    if name not in there:
        raise ValueError(f"--device: {unknown('device', name, ['auto', *there])}")
    return torch.device(name)


def resolve_devices(name: str) -> list[torch.device]:
    """The devices that workers share: of auto and cuda every GPU there is, else the one called ``name``.

    Raises:
        ValueError: if there is no such device.
    """
    first = resolve_device(name)
    if first.type == "cpu" or name not in ("auto", "cuda"):
        return [first]
    return [torch.device(f"cuda:{index}") for index in range(torch.cuda.device_count())]


def resolve_precision(precision: str, device: torch.device) -> str:
    """What "auto" means on this device: bf16 on CUDA, fp32 on a CPU.

    Raises:
        ValueError: for an unknown precision.
    """
    if precision not in ("auto", "fp32", "bf16"):
        raise ValueError(f"--precision: {unknown('precision', precision, ['auto', 'fp32', 'bf16'])}")
    if precision != "auto":
        return precision
    return "bf16" if device.type == "cuda" else "fp32"


@dataclass(frozen=True)
class Adapted:
    """A space fitted to a data set and a command, and what was changed for it."""

    space: Space
    changes: tuple[str, ...]


MIRRORING: dict[str, dict[str, object]] = {
    "flips are": {"augmentation.flip": 0.0, "augmentation.alternating_flip": False},
    "test-time augmentation is": {"training.test_time_augmentation": "none"},
}
"""What mirrors images, and the settings without it."""


def adapt(space: Space, data: ImageData, epochs: int | None, precision: str) -> Adapted:
    """Fit a space to the data: no mirroring where that changes labels; and to the command's settings."""
    changes = []
    settings: dict[str, object] = {"training.precision": precision}
    if epochs is not None:
        settings["training.epochs"] = epochs
    space = space.with_base(settings)
    for what, settings in MIRRORING.items() if not data.mirrors else ():
        without = space.without(settings)
        if without.fingerprint() != space.fingerprint():
            changes.append(f"{what} fixed off: mirroring an image of {data.name} can change its label")
            space = without
    return Adapted(space, tuple(changes))


def check_fit(configuration: Configuration, data: ImageData, split: Split) -> None:
    """Refuse a base configuration that cannot be trained on these data.

    Raises:
        ValueError: with the reason.
    """
    tiny = make_resident(data, split, torch.device("cpu"))
    cost(configuration.model, tiny.shape)
    try:
        Run(configuration, tiny, torch.device("cpu"), seed=0, prepare=False)
    except (RuntimeError, MemoryError) as error:
        if not is_shortage(error):
            raise
        raise ValueError(f"the base configuration does not fit into memory: {error}") from None


def shape_of(data: ImageData) -> Shape:
    """What a network for these data takes in and tells apart."""
    _, height, width, channels = data.images_NHWC.shape
    return Shape(channels, height, width, len(data.classes))


def data_record(data: ImageData, request: DataRequest) -> DataRecord:
    """The data set as a study keeps it."""
    _, height, width, channels = data.images_NHWC.shape
    named = request.dataset in SOURCES
    return DataRecord(
        name=data.name,
        hash=data.hash,
        classes=data.classes,
        shape=(height, width, channels),
        source=request.dataset if named else str(request.folder),
        image_size=request.image_size,
    )


def file_hashes(space: Space) -> dict[str, str]:
    """By path, 16 digits of the SHA-256 of each file that the space's trials read besides images.

    Raises:
        ValueError: if one cannot be read.
    """
    hashes = {}
    for name in space.files():
        try:
            with Path(name).open("rb") as file:
                hashes[name] = hashlib.file_digest(file, "sha256").hexdigest()[:16]
        except OSError as error:
            raise ValueError(f"{name}: cannot be read ({error.strerror or error})") from None
    return hashes


def split_record(split: Split) -> SplitRecord:
    """The split as a study keeps it."""
    return SplitRecord(
        seed=split.seed,
        val_size=split.val_size,
        train_size=split.train_size,
        hash=split.hash,
        train_images=len(split.train_indices),
        val_images=len(split.val_indices),
    )


def split_of(spec: SplitSpec, data: ImageData) -> Split:
    """The split that a record describes.

    Where a data set's own validation images are pooled with the training images, as many validate unless
    another size was asked for.

    Raises:
        ValueError: if the sizes do not fit the data, or the images are not those that were recorded.
    """
    split = _divide(spec, data)
    if isinstance(spec, SplitRecord) and spec.hash != split.hash:
        raise ValueError(
            f"the split recorded is {spec.hash}, but these data and this version make it {split.hash}"
        )
    return split


def _divide(spec: SplitSpec, data: ImageData) -> Split:
    if spec.folds is not None and spec.fold is not None:
        return make_fold(data.labels_N, spec.fold, spec.folds, spec.train_size, spec.seed, data.classes)
    n_train, val_size = data.n_train, spec.val_size
    if spec.pooled and n_train < len(data.labels_N):
        val_size = len(data.labels_N) - n_train if val_size is None else val_size
        n_train = len(data.labels_N)
    return make_split(data.labels_N, n_train, val_size, spec.train_size, spec.seed, data.classes)


def check_recorded(data: ImageData, record: DataRecord, source: str) -> None:
    """Refuse data that are not those recorded.

    Raises:
        ValueError: with both hashes.
    """
    if data.hash != record.hash:
        raise ValueError(
            f"--dataset: the study's images, those of {record.name}, have the hash {record.hash[:12]}, but "
            f"{source} here has {data.hash[:12]}: they must be the same"
        )


class StudyData:
    """A study's images on a device, divided anew for each trial that asks for another split."""

    def __init__(self, request: DataRequest, record: DataRecord, device: torch.device) -> None:
        """Load them.

        Raises:
            ValueError: if the data found here are not those of the study.
        """
        self._data = load(request)
        check_recorded(self._data, record, request.dataset)
        self._device = device
        self._divided: dict[SplitSpec, ResidentData] = {}

    def divided(self, spec: SplitSpec) -> ResidentData:
        """The images with this split; the last few are kept."""
        if spec not in self._divided:
            split = split_of(spec, self._data)
            earlier = next(iter(self._divided.values()), None)
            if len(self._divided) == KEPT_SPLITS:
                del self._divided[next(iter(self._divided))]
            self._divided[spec] = (
                with_split(earlier, self._data, split)
                if earlier
                else make_resident(self._data, split, self._device)
            )
        return self._divided[spec]
