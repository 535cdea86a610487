"""The command ``predict``: the class of image files, by a network that ``retrain`` has trained.

Shape suffixes: N images, H height, W width, C channels, K classes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from search.data.decode import decode
from search.data.files import IMAGE_SUFFIXES
from search.data.images import Images
from search.prepare import resolve_device
from search.retraining.trained import TrainedModel, read_config
from spaces.text import plain


@dataclass(frozen=True)
class Answer:
    """A class and its probability, 0 to 1."""

    name: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """What the network says of one image."""

    path: str
    top: tuple[Answer, ...]
    """The likeliest classes, best first."""


def predict(folder: Path, paths: Sequence[Path], top: int = 1, device: str = "cpu") -> Iterator[Prediction]:
    """Judge image files, in order; of a folder, all images in it and its subfolders, sorted.

    Every image is brought to the size and the colours that the network was trained on, as its data were.

    Args:
        folder: of ``retrain``.
        paths: of images and folders.
        top: how many classes to give, at most all.
        device: auto, cpu, cuda or cuda:N.

    Raises:
        ValueError: for a folder without a network, and for a file that is no image.
    """
    torch.set_num_threads(1)  # as in training, so that the same images give the same numbers
    shape_HWC = read_config(folder).data.shape
    model = TrainedModel.load(folder, resolve_device(device))
    files = [file for path in paths for file in _images(path)]
    for start in range(0, len(files), model.batch):
        span = files[start : start + model.batch]
        p_NK = model.log_probabilities(_pixels(span, shape_HWC)).double().exp().numpy()
        for file, p_K in zip(span, p_NK, strict=True):
            likeliest = np.argsort(-p_K, kind="stable")[:top].tolist()
            answers = tuple(Answer(model.classes[k], float(p_K[k])) for k in likeliest)
            yield Prediction(str(file), answers)


def _images(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = [
        file
        for file in sorted(path.rglob("*"))
        if file.suffix.lower() in IMAGE_SUFFIXES
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
    ]
    if not found:
        raise ValueError(f"{path}: there is no image in this folder ({', '.join(IMAGE_SUFFIXES)})")
    return found


def _pixels(files: Sequence[Path], shape_HWC: tuple[int, int, int]) -> Images:
    """Files as images_NHWC, uint8, of the network's size and number of channels."""
    images_NHWC = np.empty((len(files), *shape_HWC), np.uint8)
    for image_HWC, file in zip(images_NHWC, files, strict=True):
        rgb, _ = decode(file, shape_HWC[:2], resize=True)
        pixels = np.asarray(rgb if shape_HWC[2] == 3 else rgb.convert("L"))
        image_HWC[:] = pixels.reshape(shape_HWC)
    return images_NHWC


def as_line(prediction: Prediction) -> str:
    """A prediction for people: the file, then each class with its probability."""
    answers = ", ".join(f"{plain(answer.name)} {100 * answer.probability:.1f} %" for answer in prediction.top)
    return f"{plain(prediction.path)}: {answers}"


def as_json(predictions: Sequence[Prediction]) -> str:
    """Predictions for scripts: a list of files with their classes and probabilities."""
    return json.dumps(
        [
            {
                "path": prediction.path,
                "class": prediction.top[0].name,
                "probability": prediction.top[0].probability,
                "top": [asdict(answer) for answer in prediction.top],
            }
            for prediction in predictions
        ],
        indent=2,
        allow_nan=False,
    )
