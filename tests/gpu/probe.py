"""What a step costs on this GPU, and which switches change it: one process, one case after another.

    python tests/gpu/probe.py OUT.jsonl [--autotuned] [--only NAME ...] [--budget SECONDS] [--rehearse]

Each answer is appended to the file, a line of JSON, as soon as it is there. A case that fails says so, and
the rest goes on; none begins after the budget. At the end a table, and exit code 1 if a case failed.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any
from unittest import mock

import answers
import torch
from command import Parser, parser, require_images, seconds
from setting import Setting, fast_94, real_images, resnet, setting_of, vgg
from timing import Figures, bias_epochs, kernels, same_bits, timed

from search.training import kernels as kernel_choice
from search.training.resident import ResidentData

Case = Callable[[ResidentData], Figures]
SHOWN = 600
"""Characters of an answer that are printed."""
DETERMINISTIC = {"deterministic": True}


class Outcome:
    """The figures of a case, or what it failed with; whichever it is, the next case follows."""

    def __init__(self) -> None:
        self.figures: Figures = {}
        self._begin = time.monotonic()

    def __enter__(self) -> Outcome:
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
    begin, made = time.monotonic(), with_cases()
    arguments = made.parse_args()
    setting = setting_of(made, arguments)
    cases = wanted(made, (autotuned if arguments.autotuned else all_cases)(setting), arguments.only)
    require_images(made)
    require_appendable(made, arguments.out)
    torch.set_num_threads(1)  # as a worker has
    with setting.lanes_possible():
        data, found = real_images(setting), []
        for name, case in cases.items():
            late = time.monotonic() - begin > arguments.budget
            found.append({"name": name, **({"skipped": "out of time"} if late else answered(case, data))})
            keep(arguments.out, found[-1])
    best = [] if arguments.autotuned else [answers.best(found)]
    print(*answers.table(found), answers.counts(found), *best, sep="\n")
    sys.exit(any("error" in answer for answer in found))


def with_cases() -> Parser:
    made = parser(__doc__)
    made.add_argument("out", type=Path, metavar="OUT.jsonl")
    made.add_argument("--autotuned", action="store_true", help="what cuDNN's own choice of kernels gains")
    made.add_argument("--only", nargs="+", metavar="NAME", help="only these cases")
    made.add_argument("--budget", type=seconds, default=150, metavar="SECONDS")
    return made


def wanted(made: Parser, cases: dict[str, Case], only: list[str] | None) -> dict[str, Case]:
    """The cases of the names, in their order; all if there are no names."""
    unknown = [name for name in only or [] if name not in cases]
    if unknown:
        made.error(f"--only: must be some of {', '.join(cases)}; but got {', '.join(unknown)}")
    return {name: cases[name] for name in only or cases}


def require_appendable(made: Parser, out: Path) -> None:
    try:
        out.open("a").close()
    except OSError as error:
        made.error(f"OUT.jsonl cannot be written: {error}")


def answered(case: Case, data: ResidentData) -> Figures:
    with Outcome() as outcome:
        outcome.figures |= case(data)
    return outcome.figures


def keep(out: Path, answer: answers.Answer) -> None:
    """Append to the file, and print what is short."""
    with out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(answer) + "\n")
    short = {key: round(value, 4) if isinstance(value, float) else value for key, value in answer.items()}
    print(json.dumps(short)[:SHOWN], flush=True)


def all_cases(setting: Setting) -> dict[str, Case]:
    """By name, what matters most first."""
    return {
        **networks(setting),
        **side_by_side(setting),
        **cudnn(setting),
        **in_slices(setting),
        **methods(setting),
        **kernels_by_name(setting),  # behind what is timed: the profiler may stay attached
    }


def networks(setting: Setting) -> dict[str, Case]:
    """One trial at a time."""
    time_it = partial(timed, setting)
    return {
        "vgg512": partial(time_it, vgg(setting, 512)),
        "vgg128": partial(time_it, vgg(setting, 128), epochs=3),
        "resnet18-128": partial(time_it, resnet(setting), epochs=1),
        "fast94": partial(time_it, fast_94(setting), epochs=3),
        "fast94 bias epochs": partial(bias_epochs, setting, fast_94(setting, bias_epochs=setting.pick(3, 2))),
        "vgg512 eager": partial(time_it, vgg(setting, 512), epochs=1, graphs=False),
    }


def kernels_by_name(setting: Setting) -> dict[str, Case]:
    return {
        "vgg512 kernels": partial(kernels, setting, vgg(setting, 512)),
        "fast94 kernels": partial(kernels, setting, fast_94(setting)),
    }


def side_by_side(setting: Setting) -> dict[str, Case]:
    """Several trials on one GPU."""
    time_it = partial(timed, setting)
    return {
        **{f"vgg512 x{n}": partial(time_it, vgg(setting, 512), epochs=2, lanes=n) for n in (2, 3, 4, 8)},
        **{f"vgg128 x{n}": partial(time_it, vgg(setting, 128), epochs=1, lanes=n) for n in (2, 4, 6, 8)},
        "fast94 x2": partial(time_it, fast_94(setting), epochs=2, lanes=2),
    }


def cudnn(setting: Setting) -> dict[str, Case]:
    """Deterministic kernels; and whether bits repeat."""
    deterministic = vgg(setting, 512, DETERMINISTIC)
    time_it = partial(timed, setting)
    return {
        "same bits, default": partial(same_bits, setting, vgg(setting, 512)),
        "same bits, deterministic": partial(same_bits, setting, deterministic),
        "vgg512 deterministic": partial(time_it, deterministic),
        "fast94 deterministic": partial(time_it, fast_94(setting, **DETERMINISTIC), epochs=3),
    }


def autotuned(setting: Setting) -> dict[str, Case]:
    """With ``cudnn.benchmark``. In a process of their own: cuDNN's plans are kept by shape, and one that was
    made without timing would not be timed any more."""
    time_it = partial(timed, setting)
    cases = {
        "vgg512 autotuned": partial(time_it, vgg(setting, 512)),
        "fast94 autotuned": partial(time_it, fast_94(setting), epochs=3),
        "resnet18-128 autotuned": partial(time_it, resnet(setting), epochs=1),
    }
    return {name: partial(tried_out, case) for name, case in cases.items()}


def tried_out(case: Case, data: ResidentData) -> Figures:
    with mock.patch.object(kernel_choice, "AUTOTUNE", True):
        return case(data)


def in_slices(setting: Setting) -> dict[str, Case]:
    """Four trials whose epochs are queued some steps at a time, by turns."""
    config = vgg(setting, 128)
    return {
        f"vgg128 x4, slices of {steps}": partial(
            timed, setting, config, epochs=1, lanes=4, slice=setting.pick(steps, max(1, steps // 50))
        )
        for steps in (50, 200, 1000)
    }


def methods(setting: Setting) -> dict[str, Case]:
    """What may make a step slow."""
    changes: dict[str, dict[str, Any]] = {
        **{name: {"optimizer": {"name": name}} for name in ("muon", "nadam", "radam", "adamax")},
        "randaugment": {"augmentation": {"policy": "randaugment"}},
        "group norm": {"model": {"normalization": "group"}},
    }
    tf32 = vgg(setting, 512, {"precision": "fp32"})
    return {
        **{
            f"vgg128 {name}": partial(timed, setting, vgg(setting, 128, **change), epochs=1)
            for name, change in changes.items()
        },
        "vgg512 fp32 (tf32 convolutions)": partial(timed, setting, tf32, epochs=1),
    }


if __name__ == "__main__":
    main()
