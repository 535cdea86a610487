"""The least that must work on a GPU: a captured and an eager run of one seed, compared. A minute at most.

    python tests/gpu/smoke.py [--rehearse]

Also says what is installed, and whether Triton would find what it needs to build its launchers.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import sysconfig
import time
from pathlib import Path

import torch
from command import parser
from setting import Setting, made_images, setting_of, vgg

from search.training.engine import Run
from search.training.reports import EpochReport
from search.training.resident import ResidentData

EPOCHS = 4
TOLERANCE = 0.05
"""Of an epoch's training loss, between captured and eager."""


def main() -> None:
    """Compare, and end with 1 where the two differ or nothing was captured."""
    made = parser(__doc__)
    setting = setting_of(made, made.parse_args())
    torch.set_num_threads(1)  # as a worker has
    print(platform.python_version(), torch.__version__, device_name(), flush=True)
    print("for Triton:", for_triton(), flush=True)
    with setting.lanes_possible():
        data = made_images(setting)
        captured, eager = (trained(setting, data, graphs) for graphs in (True, False))
    pairs = zip(captured, eager, strict=True)
    difference = max(abs(one.train_loss - other.train_loss) for one, other in pairs)
    print("largest difference of training loss:", difference)
    sys.exit(0 if difference < TOLERANCE else f"it must be below {TOLERANCE}")


def device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def for_triton() -> dict[str, str | bool | None]:
    """A C compiler, and Python's headers."""
    compilers = [os.environ.get("CC"), "cc", "gcc"]
    found = (shutil.which(name) for name in compilers if name)
    headers = Path(sysconfig.get_path("include"), "Python.h").exists()
    return {"compiler": next(filter(None, found), None), "headers": headers}


def trained(setting: Setting, data: ResidentData, graphs: bool) -> list[EpochReport]:
    """The reports of a run. A capture that failed ends the script: nothing else would show it."""
    begin = time.perf_counter()
    epochs = setting.pick(EPOCHS, 3)
    configuration = vgg(setting, 512, {"epochs": epochs})
    run = Run(configuration, data, setting.device, 0, setting.lane(graphs))
    reports = [run.train_epoch() for _ in range(epochs)]
    short = [(round(each.train_loss, 4), each.val_accuracy, round(each.seconds, 4)) for each in reports]
    print("captured:" if graphs else "eager:", short, f"{time.perf_counter() - begin:.1f} s", flush=True)
    assert not (graphs and run.eager), f"nothing was captured: {run.eager}"
    return reports


if __name__ == "__main__":
    main()
