"""Whole searches against what people write, on this GPU. At most 480 seconds.

    python tests/gpu/measure.py [SIDE_BY_SIDE] [--rehearse]

SIDE_BY_SIDE: trials on the GPU at once, the best number of the probe (default: auto). The arms of
``tests/benchmarks/throughput.py`` one by one, what matters most first; each is kept as soon as it is there.
Results: ``$OUT``, ``throughput.json`` and a log of each arm.
"""

from __future__ import annotations

import argparse
import sys

from setting import ROOT, Setting, images_folder, out, parser
from stages import Stage, Stages

SECONDS = 470
LIMITS = {"ours": 90, "plain": 130, "fast-ours": 60, "fast-compiled": 150, "pruned": 110}
"""Seconds for an arm, by how its name begins."""
GRACE = 10
"""Seconds for a benchmark to write down what an arm came to that was cut off."""


def main() -> None:
    """Every arm that there is time for."""
    arguments = with_side_by_side().parse_args()
    setting = Setting(arguments.rehearse)
    stages = Stages(out(), setting.seconds(SECONDS))
    arms = setting.pick(
        [f"ours-{arguments.side_by_side}", "plain-8", "fast-ours", "fast-compiled", "pruned-50"],
        ["ours-1", "plain-0"],
    )
    codes = [stages.run(measured(setting, arm, stages.left)) for arm in arms]
    print("measure: exit codes", dict(zip(arms, codes, strict=True)))
    sys.exit(max(map(abs, codes)))


def with_side_by_side() -> argparse.ArgumentParser:
    made = parser(__doc__)
    made.add_argument("side_by_side", metavar="SIDE_BY_SIDE", nargs="?", default="auto")
    return made


def measured(setting: Setting, arm: str, left: float) -> Stage:
    """One arm, added to what was measured before."""
    limit = setting.seconds(next(time for name, time in LIMITS.items() if arm.startswith(name)))
    seconds = str(max(1, int(min(limit, left) - GRACE)))
    program = [sys.executable, str(ROOT / "tests" / "benchmarks" / "throughput.py")]
    what = ["--images", images_folder(), "--arms", arm, "--output", str(out().absolute() / "throughput.json")]
    limits = ["--arm-timeout", seconds, "--budget", seconds, "--continue"]
    full = ["--epochs", "8", "--plain-trials", "2"]
    tiny = ["--size", "40", "--val-size", "20", "--epochs", "1", "--trials", "2"]
    return Stage(arm, [*program, *what, *limits, *setting.pick(full, tiny)], limit)


if __name__ == "__main__":
    main()
