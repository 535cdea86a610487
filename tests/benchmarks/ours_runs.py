"""One configuration trained by this engine, once for each seed, in one process: seconds and accuracy.

    python ours_runs.py --data FOLDER --configuration FILE.yaml --runs 5 --device cuda

The time of a run is from its configuration to its accuracy: building, capturing, training, validating each
epoch, and test-time augmentation where the configuration asks for it. Imports, the device's start and the
upload of the images come before, as they do in ``airbench.py``. The last line that it prints is JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
import yaml
from bench_data import Arrays, resident

from search.training.engine import fit
from spaces.config import Configuration


def main() -> None:
    options = parse(__doc__)
    device = torch.device(options.device)
    configuration = Configuration.read(yaml.safe_load(options.configuration.read_text(encoding="utf-8")))
    data = resident(Arrays.read(options.data), device)
    runs = []
    for seed in range(options.runs):
        synchronize(device)
        start = time.perf_counter()
        _, result = fit(configuration, data, device, seed)
        synchronize(device)
        seconds = time.perf_counter() - start
        runs.append({"seconds": seconds, "accuracy": result.value, "tta_accuracy": result.tta_accuracy})
    print(json.dumps({"runs": runs, "threads": torch.get_num_threads()}))


def parse(text: str | None) -> argparse.Namespace:
    """What this script and ``airbench.py`` are told."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--configuration", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
