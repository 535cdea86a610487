"""What the scripts for a GPU share: the device, the images, the configurations, and their sizes.

A rehearsal does the same on a CPU at a tiny size, with CUDA graphs that are recorded (``recorded_graph.py``).
Both go through the same lines; what differs is chosen by ``Setting.pick``.
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from command import ROOT, Parser, images_folder

sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from recorded_graph import cuda_lanes_on_the_cpu  # noqa: E402

from search.data.request import DataRequest  # noqa: E402
from search.data.sources import load  # noqa: E402
from search.data.split import make_split  # noqa: E402
from search.training.lanes import CudaLane  # noqa: E402
from search.training.resident import ResidentData, make_resident  # noqa: E402
from spaces.config import Configuration  # noqa: E402
from spaces.space import Space  # noqa: E402

Choice = TypeVar("Choice")


@dataclass(frozen=True)
class Setting:
    """Whether all is done in earnest or rehearsed, and what follows from that."""

    rehearsing: bool

    def pick(self, full: Choice, tiny: Choice) -> Choice:
        return tiny if self.rehearsing else full

    def seconds(self, limit: float) -> float:
        """A time limit; a rehearsal may be one of many things that a machine does."""
        return self.pick(1, 5) * limit

    @property
    def device(self) -> torch.device:
        return torch.device(self.pick("cuda:0", "cpu"))

    @property
    def out(self) -> Path:
        """The folder of the results; those of a rehearsal are kept apart. The full path, since stages run in
        folders of their own."""
        return Path(os.environ.get("OUT", "."), self.pick("", "rehearsal")).absolute()

    @property
    def options(self) -> list[str]:
        """What the scripts that are called from here are told."""
        return self.pick([], ["--rehearse"])

    def lanes_possible(self) -> AbstractContextManager[None]:
        """Lanes of a GPU can be made and used meanwhile."""
        return cuda_lanes_on_the_cpu() if self.rehearsing else nullcontext()

    def lane(self, graphs: bool = True) -> CudaLane:
        return CudaLane(self.device, graphs)


def setting_of(made: Parser, arguments: argparse.Namespace) -> Setting:
    """As the command line says; what is meant in earnest is refused where there is no GPU."""
    if not (arguments.rehearse or torch.cuda.is_available()):
        made.error("torch finds no GPU here; --rehearse does the same on a CPU")
    return Setting(arguments.rehearse)


def real_images(setting: Setting) -> ResidentData:
    """The images of the folder, a tenth of them to validate on."""
    data = load(DataRequest(images_folder()))
    val_size, train_size = setting.pick((None, None), (16, 48))
    split = make_split(data.labels_N, data.n_train, val_size, train_size, 0, data.classes)
    return make_resident(data, split, setting.device)


def made_images(setting: Setting) -> ResidentData:
    """Ten classes of one pattern each under noise; as many to train as to validate on."""
    generator, count = torch.Generator().manual_seed(0), setting.pick(5120, 80)
    labels_N = torch.randint(0, 10, (2 * count,), generator=generator)
    patterns_KHWC = torch.randint(60, 190, (10, 32, 32, 3), generator=generator)
    noise_NHWC = torch.randn(2 * count, 32, 32, 3, generator=generator) * 60
    images_NHWC = (patterns_KHWC[labels_N] + noise_NHWC).clamp(0, 255).to(torch.uint8)
    indices_N = torch.arange(2 * count)
    return ResidentData(
        images_NHWC=images_NHWC,
        labels_N=labels_N,
        train_indices=indices_N[:count],
        val_indices=indices_N[count:],
        mean_C=torch.full((3,), 0.48),
        std_C=torch.full((3,), 0.25),
        classes=tuple("0123456789"),
        hash="made",
    ).to(setting.device)


def vgg(
    setting: Setting, batch: int, training: dict[str, Any] | None = None, **sections: Any
) -> Configuration:
    """The three-block VGG of the benchmark with other ``sections`` and settings of training."""
    size = setting.pick({"widths": [32, 64, 128], "head": 128}, {"widths": [8, 8, 8], "head": 8})
    tree = {
        "model": {"name": "vgg", "convolutions": 2, "dropout": 0.1} | size,
        "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4},
        "augmentation": {"flip": 0.5, "shift": 4},
        "loss": {"name": "cross-entropy", "label_smoothing": 0.05},
        "training": {"epochs": 6, "batch_size": setting.pick(batch, 16)} | (training or {}),
    }
    model = tree["model"] | sections.pop("model", {})
    return Configuration.read(tree | {"model": model} | sections)


def resnet(setting: Setting) -> Configuration:
    """A ResNet-18; the smallest of its kind in a rehearsal."""
    tree = vgg(setting, 128).tree()
    return Configuration.read(tree | {"model": {"name": "resnet", "depth": setting.pick(18, 8)}})


def fast_94(setting: Setting, bias_epochs: int = 0, **training: Any) -> Configuration:
    """The base of the space ``fast-94`` with other settings of training. The whitening's bias learns for so
    many epochs: by default none, so that no epoch that is timed captures anew."""
    tree = Space.load("fast-94").base.tree()
    tree["model"] |= setting.pick({}, {"widths": [4, 8, 8]}) | {"whitening_bias_epochs": bias_epochs}
    tree["training"] |= setting.pick({}, {"batch_size": 16}) | training
    return Configuration.read(tree)
