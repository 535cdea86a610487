"""What a step costs on this GPU, and which switches change it: one process, one case after another.

    python tests/gpu/probe.py OUT.jsonl [--autotuned] [--only NAME ...] [--budget SECONDS] [--rehearse]

Each answer is appended to the file, a line of JSON, as soon as it is there. A case that fails says so, and
the rest goes on; none begins after the budget.
"""

from __future__ import annotations

import argparse
import json
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any
from unittest import mock

import torch
from setting import Setting, fast_94, parser, real_images, resnet, vgg
from timing import Figures, bias_epochs, kernels, same_bits, timed

from search.training import kernels as kernel_choice
from search.training.resident import ResidentData

Case = Callable[[], Figures]
SHOWN = 600
"""Characters of an answer that are printed."""
DETERMINISTIC = {"deterministic": True}


class Answer:
    """The figures of a case, or what it failed with; whichever it is, the next case follows."""

    def __init__(self) -> None:
        self.figures: Figures = {}
        self._begin = time.monotonic()

    def __enter__(self) -> Answer:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> bool:
        where = "".join(traceback.format_exception(error, limit=-4))[-1500:]
        self.figures |= {"error": repr(error)[:300], "where": where} if error else {}
        self.figures["took"] = time.monotonic() - self._begin
        return isinstance(error, Exception)


def main() -> None:
    """Every case that is wanted and that there is time for."""
    begin, arguments = time.monotonic(), with_cases().parse_args()
    torch.set_num_threads(1)  # as a worker has
    setting = Setting(arguments.rehearse)
    with setting.lanes_possible():
        cases = (autotuned if arguments.autotuned else all_cases)(setting, real_images(setting))
        for name in arguments.only or cases:
            late = time.monotonic() - begin > arguments.budget
            keep(arguments.out, name, {"skipped": "out of time"} if late else answered(cases[name]))


def with_cases() -> argparse.ArgumentParser:
    made = parser(__doc__)
    made.add_argument("out", type=Path, metavar="OUT.jsonl")
    made.add_argument("--autotuned", action="store_true", help="what cuDNN's own choice of kernels gains")
    made.add_argument("--only", nargs="+", metavar="NAME", help="only these cases")
    made.add_argument("--budget", type=float, default=150, metavar="SECONDS")
    return made


def answered(case: Case) -> Figures:
    with Answer() as answer:
        answer.figures |= case()
    return answer.figures


def keep(out: Path, name: str, figures: Figures) -> None:
    """Append to the file, and print what is short."""
    with out.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"name": name, **figures}) + "\n")
    short = {key: round(value, 4) if isinstance(value, float) else value for key, value in figures.items()}
    print(name, json.dumps(short)[:SHOWN], flush=True)


def all_cases(setting: Setting, data: ResidentData) -> dict[str, Case]:
    """By name, what matters most first."""
    return {
        **networks(setting, data),
        **side_by_side(setting, data),
        **cudnn(setting, data),
        **in_slices(setting, data),
        **methods(setting, data),
        **kernels_by_name(setting, data),  # behind what is timed: the profiler may stay attached
    }


def networks(setting: Setting, data: ResidentData) -> dict[str, Case]:
    """One trial at a time."""
    time_it = partial(timed, setting, data)
    return {
        "vgg512": partial(time_it, vgg(setting, 512)),
        "vgg128": partial(time_it, vgg(setting, 128), epochs=3),
        "resnet18-128": partial(time_it, resnet(setting), epochs=1),
        "fast94": partial(time_it, fast_94(setting), epochs=3),
        "fast94 bias epochs": partial(bias_epochs, setting, data, fast_94(setting, bias_epochs=3)),
        "vgg512 eager": partial(time_it, vgg(setting, 512), epochs=1, graphs=False),
    }


def kernels_by_name(setting: Setting, data: ResidentData) -> dict[str, Case]:
    return {
        "vgg512 kernels": partial(kernels, setting, data, vgg(setting, 512)),
        "fast94 kernels": partial(kernels, setting, data, fast_94(setting)),
    }


def side_by_side(setting: Setting, data: ResidentData) -> dict[str, Case]:
    """Several trials on one GPU."""
    time_it = partial(timed, setting, data)
    return {
        **{f"vgg512 x{n}": partial(time_it, vgg(setting, 512), epochs=2, lanes=n) for n in (2, 3, 4, 8)},
        **{f"vgg128 x{n}": partial(time_it, vgg(setting, 128), epochs=1, lanes=n) for n in (2, 4, 6, 8)},
        "fast94 x2": partial(time_it, fast_94(setting), epochs=2, lanes=2),
    }


def cudnn(setting: Setting, data: ResidentData) -> dict[str, Case]:
    """Deterministic kernels; and whether bits repeat."""
    deterministic = vgg(setting, 512, DETERMINISTIC)
    time_it = partial(timed, setting, data)
    return {
        "same bits, default": partial(same_bits, setting, data, vgg(setting, 512)),
        "same bits, deterministic": partial(same_bits, setting, data, deterministic),
        "vgg512 deterministic": partial(time_it, deterministic),
        "fast94 deterministic": partial(time_it, fast_94(setting, **DETERMINISTIC), epochs=3),
    }


def autotuned(setting: Setting, data: ResidentData) -> dict[str, Case]:
    """With ``cudnn.benchmark``. In a process of their own: cuDNN's plans are kept by shape, and one that was
    made without timing would not be timed any more."""
    time_it = partial(timed, setting, data)
    cases = {
        "vgg512 autotuned": partial(time_it, vgg(setting, 512)),
        "fast94 autotuned": partial(time_it, fast_94(setting), epochs=3),
        "resnet18-128 autotuned": partial(time_it, resnet(setting), epochs=1),
    }
    return {name: partial(tried_out, case) for name, case in cases.items()}


def tried_out(case: Case) -> Figures:
    with mock.patch.object(kernel_choice, "AUTOTUNE", True):
        return case()


def in_slices(setting: Setting, data: ResidentData) -> dict[str, Case]:
    """Four trials whose epochs are queued some steps at a time, by turns."""
    config = vgg(setting, 128)
    return {
        f"vgg128 x4, slices of {steps}": partial(
            timed, setting, data, config, epochs=1, lanes=4, slice=setting.pick(steps, max(1, steps // 50))
        )
        for steps in (50, 200, 1000)
    }


def methods(setting: Setting, data: ResidentData) -> dict[str, Case]:
    """What may make a step slow."""
    changes: dict[str, dict[str, Any]] = {
        **{name: {"optimizer": {"name": name}} for name in ("muon", "nadam", "radam", "adamax")},
        "randaugment": {"augmentation": {"policy": "randaugment"}},
        "group norm": {"model": {"normalization": "group"}},
    }
    tf32 = vgg(setting, 512, {"precision": "fp32"})
    return {
        **{
            f"vgg128 {name}": partial(timed, setting, data, vgg(setting, 128, **change), epochs=1)
            for name, change in changes.items()
        },
        "vgg512 fp32 (tf32 convolutions)": partial(timed, setting, data, tf32, epochs=1),
    }


if __name__ == "__main__":
    main()
