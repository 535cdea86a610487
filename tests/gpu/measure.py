"""Whole searches against what people write, on this GPU. At most 480 seconds.

    python tests/gpu/measure.py [SIDE_BY_SIDE] [--rehearse]

SIDE_BY_SIDE: trials on the GPU at once, auto or 1 to 16: the best number of the probe (default: auto). The
arms of ``tests/benchmarks/throughput.py`` one by one, what matters most first; each is kept as soon as it is
there. Results: ``$OUT`` (of a rehearsal ``$OUT/rehearsal``), ``throughput.json`` and a log of each arm. The
exit code is 1 if an arm failed.
"""

from __future__ import annotations

import sys
from pathlib import Path

from command import (
    ROOT,
    Parser,
    images_folder,
    parser,
    require_images,
    require_writable,
    set_aside,
    side_by_side,
)
from setting import Setting, setting_of
from stages import Stage, Stages, whole

SECONDS = 465
"""For all arms together; the rest is for starting, and for ending one that is late."""
LIMITS = {"ours": 80, "plain": 100, "fast-ours": 40, "fast-compiled": 140, "pruned": SECONDS}
"""Seconds for an arm, by how its name begins; the last one has all that is left."""
GRACE = 10
"""Seconds for a benchmark to write down what an arm came to that was cut off."""


def main() -> None:
    """Every arm that there is time for."""
    made = with_side_by_side()
    arguments = made.parse_args()
    setting = setting_of(made, arguments)
    require_images(made)
    require_writable(made, setting.out)
    if setting.rehearsing:  # in earnest, what was measured before is kept
        set_aside(results(setting))
    with Stages(setting.out, setting.seconds(SECONDS)) as stages:
        *others, last = arms(setting, arguments.side_by_side)
        for arm in others:
            stages.run(measured(setting, arm, stages.left, "--quiet"))
        stages.run(measured(setting, last, stages.left))  # with the tables of all
    print("measure: exit codes:", ", ".join(f"{arm} {code}" for arm, code in stages.codes.items()))
    sys.exit(stages.failed)


def with_side_by_side() -> Parser:
    made = parser(__doc__)
    made.add_argument("side_by_side", metavar="SIDE_BY_SIDE", nargs="?", default="auto", type=side_by_side)
    return made


def arms(setting: Setting, at_once: str) -> list[str]:
    """What matters most first."""
    full = [f"ours-{at_once}", "plain-8", "fast-ours", "fast-compiled", "pruned-50"]
    return setting.pick(full, ["ours-1", "plain-0"])


def measured(setting: Setting, arm: str, left: float, *options: str) -> Stage:
    """One arm, added to what was measured before."""
    limit = min(setting.seconds(next(time for name, time in LIMITS.items() if arm.startswith(name))), left)
    seconds = str(max(1, int(limit - GRACE)))
    program = [sys.executable, str(ROOT / "tests" / "benchmarks" / "throughput.py")]
    what = ["--images", images_folder(), "--arms", arm, "--output", str(results(setting))]
    limits = ["--arm-timeout", seconds, "--budget", seconds, "--continue"]
    full = ["--epochs", "8", "--plain-trials", "2"]
    tiny = ["--size", "40", "--val-size", "20", "--epochs", "1", "--trials", "2"]
    command = [*program, *what, *limits, *setting.pick(full, tiny), *options]
    return Stage(arm, command, limit, shown=whole)


def results(setting: Setting) -> Path:
    return setting.out / "throughput.json"


if __name__ == "__main__":
    main()
