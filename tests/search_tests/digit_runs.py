"""What tests of runs share: handwritten digits, and a small network that learns them in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from search.data.request import DataRequest
from search.data.sources import load
from search.data.split import make_split
from search.training.resident import ResidentData, make_resident
from spaces.config import Configuration

CPU = torch.device("cpu")


def digits_of(folder: Path) -> ResidentData:
    """300 digits to train and a fifth of all to validate, decoded into a folder."""
    data = load(DataRequest("digits", folder))
    split = make_split(data.labels_N, data.n_train, 0.2, 300, seed=0)
    return make_resident(data, split, CPU)


def configuration(**sections: Any) -> Configuration:
    """That of the small network, with some settings of its sections replaced."""
    tree: dict[str, Any] = {
        "model": {"name": "vgg", "widths": [8, 16], "convolutions": 1, "head": 16, "dropout": 0.1},
        "optimizer": {"name": "sgd", "lr": 0.05},
        "augmentation": {"shift": 1, "rotation": 10.0, "mixup": 0.2, "cutout": 0.25},
        "training": {"epochs": 3, "batch_size": 32},
    }
    for name, section in sections.items():
        tree[name] = tree.get(name, {}) | section
    return Configuration.read(tree)
