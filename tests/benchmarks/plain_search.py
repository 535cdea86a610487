"""A search as people write it: Optuna's loop around torchvision's transforms, a DataLoader and a training.

    python plain_search.py --data FOLDER --space FILE.yaml --trials 20 --workers 8 --device cuda

No pruning, Optuna's default sampler, its storage in memory. The images are decoded arrays in memory, the
loaders live as long as the search, and on CUDA it does what PyTorch's tuning guide says: pinned memory,
copies that do not block, bf16 autocast, channels last. On a CPU all is torch's default, and cuDNN chooses its
algorithms as it does for the engine. With ``--fixed`` it trains the space's base configuration, once for each
seed.

Each trial or seed is a line of JSON, printed as soon as it is done.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import torch
import yaml
from bench_data import Arrays
from ours_runs import tell
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from search.training.kernels import AUTOTUNE
from search.training.models import Shape, build_model
from spaces.config import VGG


class Images(Dataset[Any]):
    """Arrays with a transform of each image."""

    def __init__(self, images_NHWC: Any, labels_N: Any, transform: Any) -> None:
        self._images, self._labels, self._transform = images_NHWC, labels_N.tolist(), transform

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(self._images[index]), self._labels[index]


class Plain:
    """The loaders, and the training of one configuration on them."""

    def __init__(self, data: Path, base: dict[str, Any], workers: int, device: str) -> None:
        self.base, self.device = base, torch.device(device)
        self.cuda = device == "cuda"
        arrays = Arrays.read(data)
        normalize = [
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(arrays.mean_C.tolist(), arrays.std_C.tolist()),
        ]
        side = arrays.train_images_NHWC.shape[1]
        augmentation = base["augmentation"]
        change = [
            v2.RandomCrop(side, padding=augmentation["shift"]),
            v2.RandomHorizontalFlip(augmentation["flip"]),
        ]
        options = {"num_workers": workers, "persistent_workers": workers > 0, "pin_memory": self.cuda}
        self.train_loader = DataLoader(
            Images(
                arrays.train_images_NHWC,
                arrays.train_labels_N,
                v2.Compose([v2.ToImage(), *change, *normalize]),
            ),
            batch_size=base["training"]["batch_size"],
            shuffle=True,
            drop_last=True,
            **options,
        )
        self.val_loader = DataLoader(
            Images(arrays.val_images_NHWC, arrays.val_labels_N, v2.Compose([v2.ToImage(), *normalize])),
            batch_size=500,
            **options,
        )
        self.shape = Shape(3, side, side, int(arrays.train_labels_N.max()) + 1)

    def train(self, values: dict[str, float], seed: int) -> float:
        """Train with these values of parameters; the validation accuracy of the last epoch."""
        self.epoch_speeds: list[float] = []
        torch.manual_seed(seed)
        layout = torch.channels_last if self.cuda else torch.contiguous_format
        model = VGG(**self.base["model"] | {"dropout": values["model.dropout"]})
        self.network = build_model(model, self.shape).to(self.device, memory_format=layout)
        decayed = [parameter for parameter in self.network.parameters() if parameter.ndim > 1]
        spared = [parameter for parameter in self.network.parameters() if parameter.ndim <= 1]
        optimizer = torch.optim.SGD(
            [
                {"params": decayed, "weight_decay": values["optimizer.weight_decay"]},
                {"params": spared, "weight_decay": 0.0},
            ],
            lr=values["optimizer.lr"],
            momentum=values["optimizer.momentum"],
            nesterov=True,
        )
        epochs = self.base["training"]["epochs"]
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(self.train_loader))
        loss_of = nn.CrossEntropyLoss(label_smoothing=values["loss.label_smoothing"])
        for _ in range(epochs):
            self.train_epoch(optimizer, schedule, loss_of)
            accuracy = self.validate()
        return accuracy

    def train_epoch(self, optimizer: Any, schedule: Any, loss_of: nn.Module) -> None:
        start = time.perf_counter()
        self.network.train()
        total = torch.zeros((), device=self.device)
        for images_NCHW, labels_N in self.train_loader:
            images_NCHW, labels_N = self.put(images_NCHW), labels_N.to(self.device, non_blocking=True)
            optimizer.zero_grad()
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.cuda):
                loss = loss_of(self.network(images_NCHW), labels_N)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.detach()
        total.item()
        images = len(self.train_loader) * self.base["training"]["batch_size"]
        self.epoch_speeds.append(images / (time.perf_counter() - start))

    @torch.no_grad()
    def validate(self) -> float:
        self.network.eval()
        correct = torch.zeros((), dtype=torch.int64, device=self.device)
        for images_NCHW, labels_N in self.val_loader:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.cuda):
                logits_NK = self.network(self.put(images_NCHW))
            correct += (logits_NK.argmax(1) == labels_N.to(self.device, non_blocking=True)).sum()
        return correct.item() / len(self.val_loader.dataset)  # type: ignore[arg-type]

    def put(self, images_NCHW: Tensor) -> Tensor:
        """A batch on the device."""
        if not self.cuda:
            return images_NCHW
        return images_NCHW.to(self.device, non_blocking=True, memory_format=torch.channels_last)


def told(plain: Plain, train: Callable[[], float]) -> float:
    """Train, and tell of it: when it ended, seconds, accuracy, and images a second in each epoch."""
    start = time.perf_counter()
    accuracy = train()
    seconds = time.perf_counter() - start
    tell({"ended": time.time(), "seconds": seconds, "accuracy": accuracy, "epoch_speeds": plain.epoch_speeds})
    return accuracy


def search(plain: Plain, parameters: dict[str, Any], trials: int, seed: int) -> None:
    """The trials in turn."""

    def objective(trial: optuna.Trial) -> float:
        values = {
            path: trial.suggest_float(path, *domain["float"], log=domain.get("log", False))
            for path, domain in parameters.items()
        }
        return plain.train(values, seed)

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    study.optimize(lambda trial: told(plain, partial(objective, trial)), n_trials=trials)


def repeat(plain: Plain, values: dict[str, float], seeds: int) -> None:
    """One configuration with several seeds."""
    for seed in range(seeds):
        told(plain, partial(plain.train, values, seed))


def at(tree: dict[str, Any], path: str) -> Any:
    """The value at a dotted path; a dropout that is not written is none."""
    section, _, name = path.partition(".")
    return tree[section].get(name, 0.0)


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """``words`` None: on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--space", type=Path, required=True)
    parser.add_argument("--trials", type=int, required=True)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fixed", action="store_true", help="as many seeds of the base configuration")
    return parser.parse_args(words)


def main() -> None:
    options = parse()
    torch.backends.cudnn.benchmark = AUTOTUNE
    space = yaml.safe_load(options.space.read_text(encoding="utf-8"))
    plain = Plain(options.data, space["base"], options.workers, options.device)
    if options.fixed:
        repeat(plain, {path: at(space["base"], path) for path in space["parameters"]}, options.trials)
    else:
        search(plain, space["parameters"], options.trials, options.seed)


if __name__ == "__main__":
    main()
