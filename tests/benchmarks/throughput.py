"""Images trained per second: this engine beside a plain PyTorch loop with torchvision's transforms.

    python tests/benchmarks/throughput.py [--images FOLDER|cifar10] [--rounds 5] [--output FILE.json]

Every arm trains the same three-block VGG on the same images with the same optimizer, flips and 4-pixel
shifts. Each measurement is a fresh process: it starts, trains a warm-up epoch, then one that counts. The arms
take turns, round by round, and ratios are taken within a round, so that what slows the machine for a
while slows both sides of a ratio. Cost: about two minutes a round on two cores.

Shapes: N images, H height, W width, C channels.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recording import Neighbours, Spread, Table, load, publish, store, usable_cores

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

    from search.training.resident import ResidentData

SYNTHETIC = "synthetic"
VALIDATION_IMAGES = 100
BATCH = 128
SHIFT = 4
SEED = 0
CONFIGURATION = {
    "augmentation": {"flip": 0.5, "shift": SHIFT},
    "model": {"name": "vgg", "widths": [32, 64, 128], "convolutions": 2, "head": 128},
    "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4},
    "schedule": {"name": "constant"},
    "training": {"epochs": 2, "batch_size": BATCH, "precision": "fp32"},
}


@dataclass(frozen=True)
class Arm:
    """One way to train: how many processes side by side, and what each is."""

    name: str
    description: str
    processes: int = 1
    engine: bool = False
    threads: int | None = None
    """None: as many as torch takes by itself."""
    loader_workers: int = 0


def arms() -> list[Arm]:
    """All arms, in the order in which a round runs them."""
    cores = usable_cores()
    return [
        Arm("ours", "this engine, one worker of one thread", engine=True, threads=1),
        Arm("ours-all", f"this engine, {cores} workers of one thread (`--workers auto`)", cores, True, 1),
        Arm("plain", "plain loop, DataLoader without workers"),
        Arm("plain-2", "plain loop, DataLoader with 2 persistent workers", loader_workers=2),
        Arm("plain-1-thread", "plain loop, DataLoader without workers, one thread", threads=1),
    ]


OURS = ("ours", "ours-all")
PLAIN = ("plain", "plain-2", "plain-1-thread")


def main() -> None:
    """Run the rounds, or, as a child, one arm."""
    arguments = parse()
    if arguments.arm:
        run_arm(next(arm for arm in arms() if arm.name == arguments.arm), arguments.images, arguments.size)
        return
    load_before = load()
    images = prepare_images(arguments.images)
    settings = {"images": images, "train_images": arguments.size, "load_before": load_before}
    rounds = []
    for number in range(arguments.rounds):
        rounds.append({arm.name: measure(arm, arguments) for arm in arms()})
        speeds = [f"{name} {figures['images_per_second']:.0f}" for name, figures in rounds[-1].items()]
        print(f"round {number + 1} of {arguments.rounds}, images/s: {', '.join(speeds)}", flush=True)
    report(settings, rounds, arguments.output)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--images",
        default=SYNTHETIC,
        help="cifar10, or a folder of images (train/CLASS/*); default: random images of 32x32 in colour",
    )
    parser.add_argument("--size", type=int, default=2560, help="images of an epoch (default 2560)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each arm (default 5)")
    parser.add_argument("--output", type=Path, help="JSON file (default: results/throughput.json)")
    parser.add_argument("--arm", choices=[arm.name for arm in arms()], help=argparse.SUPPRESS)
    return parser.parse_args()


# The parent: starts an arm's processes, lets them begin the epoch that counts together, and collects.


def measure(arm: Arm, arguments: argparse.Namespace) -> dict[str, float]:
    """One measurement of an arm."""
    neighbours = Neighbours()
    start = time.perf_counter()
    children = [start_child(arm, arguments) for _ in range(arm.processes)]
    ready = [answer(child) for child in children]
    start_up = time.perf_counter() - start
    for child in children:
        answer(child)  # its warm-up epoch is over
    for child in children:
        child.stdin.write("go\n")  # type: ignore[union-attr]
        child.stdin.flush()  # type: ignore[union-attr]
    epochs = [answer(child) for child in children]
    for child in children:
        child.communicate()
    return {
        "images_per_second": sum(epoch["images"] for epoch in epochs)
        / max(epoch["seconds"] for epoch in epochs),
        "start_up_seconds": start_up,
        "others_share": neighbours.share(),
        "peak_memory_mib": sum(epoch["peak_memory"] for epoch in epochs) / 2**20,
        "threads": ready[0]["threads"],
    }


def start_child(arm: Arm, arguments: argparse.Namespace) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--arm", arm.name]
    command += ["--images", arguments.images, "--size", str(arguments.size)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def answer(child: subprocess.Popen[str]) -> dict[str, Any]:
    """The next line that a child says."""
    line = child.stdout.readline()  # type: ignore[union-attr]
    if not line:
        raise SystemExit(f"an arm ended with {child.wait()} before its epoch was measured")
    spoken: dict[str, Any] = json.loads(line)
    return spoken


def prepare_images(images: str) -> str:
    """Decode once, so that no arm has to; return the data set's name."""
    if images == SYNTHETIC:
        return SYNTHETIC

    from search.data.sources import DataRequest
    from search.data.sources import load as load_images

    return str(load_images(DataRequest(images)).name)


def report(settings: dict[str, Any], rounds: list[dict[str, dict[str, float]]], output: Path | None) -> None:
    """Store, print and publish."""
    figures = {
        arm.name: {key: Spread.of([done[arm.name][key] for done in rounds]) for key in rounds[0][arm.name]}
        for arm in arms()
    }
    ratios = {
        f"{ours} / {plain}": Spread.of(
            [done[ours]["images_per_second"] / done[plain]["images_per_second"] for done in rounds]
        )
        for ours in OURS
        for plain in PLAIN
    }
    descriptions = {arm.name: arm.description for arm in arms()}
    path = store(
        "throughput",
        output,
        settings | {"rounds": len(rounds), "configuration": CONFIGURATION, "arms": descriptions},
        {"arms": figures, "ratios": ratios, "rounds": rounds},
    )
    tables = [speeds_table(settings, figures), ratios_table(ratios, len(rounds))]
    for table in tables:
        table.show()
    publish("throughput", tables, path)
    print(f"stored in {path}")


def speeds_table(settings: dict[str, Any], figures: dict[str, dict[str, Spread]]) -> Table:
    rows = [
        (
            arm.name,
            arm.description,
            f"{arm.processes} x {figures[arm.name]['threads'].median:.0f}",
            figures[arm.name]["images_per_second"].text(0),
            figures[arm.name]["start_up_seconds"].text(1, " s"),
            f"{figures[arm.name]['peak_memory_mib'].median:.0f} MiB",
            f"{100 * figures[arm.name]['others_share'].most:.0f} %",
        )
        for arm in arms()
    ]
    columns = (
        "arm",
        "what it is",
        "processes x threads",
        "images/s",
        "start-up",
        "memory",
        "others took (most)",
    )
    return Table(f"Training epochs of {settings['train_images']} {settings['images']} images", columns, rows)


def ratios_table(ratios: dict[str, Spread], rounds: int) -> Table:
    rows = [(name, spread.text(2)) for name, spread in ratios.items()]
    return Table("Ratios of images/s within a round", ("arms", f"median (range) of {rounds} rounds"), rows)


# A child: one process of an arm.


def run_arm(arm: Arm, images: str, size: int) -> None:
    """Set up, train an epoch, wait to be told, train the epoch that counts."""
    import torch

    from search.training.engine import peak_memory

    if arm.threads:
        torch.set_num_threads(arm.threads)
    data = resident(images, size)
    train_epoch = engine(data) if arm.engine else plain_loop(data, arm.loader_workers)
    say(threads=torch.get_num_threads())
    train_epoch()
    say(warm=True)
    sys.stdin.readline()
    seconds = train_epoch()
    say(
        images=size // BATCH * BATCH,
        seconds=seconds,
        peak_memory=peak_memory(torch.device("cpu")),
    )


def say(**figures: Any) -> None:
    print(json.dumps(figures), flush=True)


def resident(images: str, size: int) -> ResidentData:
    """The images of an arm, ``size`` of them to train on."""
    import torch

    from search.data.sources import DataRequest
    from search.data.sources import load as load_images
    from search.data.split import make_split
    from search.training.resident import make_resident

    if images == SYNTHETIC:
        return synthetic(size)
    data = load_images(DataRequest(images))
    split = make_split(data.labels_N, data.n_train, VALIDATION_IMAGES, size, SEED)
    return make_resident(data, split, torch.device("cpu"))


def synthetic(size: int) -> ResidentData:
    """Random pixels: they cost what real ones do, and need no download."""
    import numpy as np
    import torch

    from search.training.resident import ResidentData

    random = np.random.default_rng(SEED)
    count = size + VALIDATION_IMAGES
    images_NHWC = random.integers(0, 256, (count, 32, 32, 3), np.uint8)
    return ResidentData(
        images_NHWC=torch.from_numpy(images_NHWC),
        labels_N=torch.from_numpy(random.integers(0, 10, count)),
        train_indices=torch.arange(size),
        val_indices=torch.arange(size, count),
        mean_C=torch.full((3,), 0.5),
        std_C=torch.full((3,), 0.29),
        classes=tuple(str(label) for label in range(10)),
        hash=SYNTHETIC,
    )


def engine(data: ResidentData) -> Callable[[], float]:
    """This engine. An epoch returns its seconds of training, without the validation that follows."""
    import torch

    from search.training.engine import Run
    from spaces.config import Configuration

    run = Run(Configuration.read(CONFIGURATION), data, torch.device("cpu"), SEED)
    images = len(data.train_indices) // BATCH * BATCH
    return lambda: images / run.train_epoch().images_per_second


def plain_loop(data: ResidentData, workers: int) -> Callable[[], float]:
    """What people write: a Dataset, torchvision's transforms (v2), a DataLoader, a loop. Memory format and
    optimizer implementation are torch's defaults. An epoch returns its seconds."""
    import torch
    from torch import nn

    from search.training.models import build_model
    from spaces.config import SGD, Configuration

    torch.manual_seed(SEED)
    configuration = Configuration.read(CONFIGURATION)
    network = build_model(configuration.model, data.shape).to(memory_format=torch.contiguous_format)
    settings = configuration.optimizer
    assert isinstance(settings, SGD)
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=settings.lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay,
    )
    loss_of = nn.CrossEntropyLoss()
    loader = plain_loader(data, workers)

    def train_epoch() -> float:
        start = time.perf_counter()
        network.train()
        total = 0.0
        for images_NCHW, labels_N in loader:
            optimizer.zero_grad()
            loss = loss_of(network(images_NCHW), labels_N)
            loss.backward()
            optimizer.step()
            total += loss.item()
        return time.perf_counter() - start

    return train_epoch


def plain_loader(data: ResidentData, workers: int) -> DataLoader[Any]:
    """torchvision's transforms, image by image, from arrays that are decoded already."""
    import torch
    from torch.utils.data import DataLoader, Dataset
    from torchvision.transforms import v2

    transform = v2.Compose(
        [
            v2.ToImage(),
            v2.RandomCrop(32, padding=SHIFT),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(data.mean_C.tolist(), data.std_C.tolist()),
        ]
    )
    images_NHWC, labels_N = data.images_NHWC.numpy(), data.labels_N.tolist()
    chosen = data.train_indices.tolist()

    class Images(Dataset[Any]):
        def __len__(self) -> int:
            return len(chosen)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            return transform(images_NHWC[chosen[index]]), labels_N[chosen[index]]

    return DataLoader(
        Images(),
        batch_size=BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )


if __name__ == "__main__":
    main()
