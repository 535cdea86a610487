"""One configuration trained by this engine, once for each seed, in one process: seconds and accuracy.

    python ours_runs.py --data FOLDER --configuration FILE.yaml --runs 5 --device cuda

The time of a run is from its configuration to its accuracy: building, capturing, training, validating each
epoch, and test-time augmentation where the configuration asks for it. Imports, the device's start and the
upload of the images come before, as they do in ``airbench.py``. All runs share one CUDA stream and its
memory, as the trials of a search do. Each run is a line of JSON, printed as soon as it is done.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from bench_data import Arrays, resident

from search.training.engine import fit
from search.training.lanes import Lane, make_lane
from search.training.resident import ResidentData
from spaces.config import Configuration


def main() -> None:
    options = parse()
    device = torch.device(options.device)
    configuration = Configuration.read(yaml.safe_load(options.configuration.read_text(encoding="utf-8")))
    data = resident(Arrays.read(options.data), device)
    lane = make_lane(device)
    for seed in range(options.runs):
        tell(one_run(configuration, data, lane, seed))


def one_run(configuration: Configuration, data: ResidentData, lane: Lane, seed: int) -> dict[str, Any]:
    """Train from a seed: seconds, accuracies, and why steps were not captured in CUDA graphs, if so."""
    synchronize(data.device)
    start = time.perf_counter()
    run, result = fit(configuration, data, data.device, seed, lane=lane)
    synchronize(data.device)
    return {
        "seconds": time.perf_counter() - start,
        "accuracy": result.value,
        "tta_accuracy": result.tta_accuracy,
        "eager": run.eager,
    }


def tell(figures: dict[str, Any]) -> None:
    """Print a line of JSON that is there even if the script is killed right afterwards."""
    print(json.dumps(figures), flush=True)


def parse(words: Sequence[str] | None = None, text: str | None = __doc__) -> argparse.Namespace:
    """What this script and ``airbench.py`` are told; ``words`` None: on the command line."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--configuration", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args(words)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
