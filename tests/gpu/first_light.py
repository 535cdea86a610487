"""Whether it works on this GPU, and what a step costs. At most 270 seconds.

    python tests/gpu/first_light.py [--rehearse]

A smoke test, which stops everything if it fails; a search, beside the tests of CUDA graphs; the probe.
Results: ``$OUT``, a log of each stage and ``probe.jsonl``.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from setting import ROOT, Setting, out, parser
from stages import Stage, Stages

SECONDS = 262
"""For all stages together; the rest is for starting them."""
HERE = Path(__file__).parent


def main() -> None:
    """Everything in order; the exit code is that of the smoke test."""
    setting = Setting(parser(__doc__).parse_args().rehearse)
    stages = Stages(out(), setting.seconds(SECONDS))
    broken = stages.run(smoke(setting))
    with tempfile.TemporaryDirectory() as folder:
        for beside in [] if broken else groups(setting, Path(folder)):
            for started in [stages.start(stage) for stage in beside]:
                stages.finish(started)
    print("STOPPED: the smoke test failed" if broken else "first light: done")
    sys.exit(broken)


def groups(setting: Setting, folder: Path) -> list[list[Stage]]:
    """What comes after the smoke test; the stages of a group run beside each other."""
    probes = [probe(setting, "probe", 85), probe(setting, "autotuned", 30, "--autotuned")]
    return [[search(setting, folder), capture(setting)], *([each] for each in probes), [card()]]


def smoke(setting: Setting) -> Stage:
    return Stage("smoke", [sys.executable, str(HERE / "smoke.py"), *setting.options], setting.seconds(70))


def search(setting: Setting, folder: Path) -> Stage:
    """A whole search in a new database."""
    where = setting.pick(["--device", "cuda", "--per-gpu", "2"], ["--device", "cpu", "--workers", "1"])
    size = setting.pick(["--trials", "4", "--epochs", "3"], ["--trials", "1", "--epochs", "1"])
    program = [sys.executable, "-m", "search.cli", "run", "--space", "regularization", "--dataset", "digits"]
    storage = ["--storage", f"sqlite:///{folder / 'first.db'}"]
    return Stage("search", [*program, *size, *where, *storage], setting.seconds(50), folder)


def capture(setting: Setting) -> Stage:
    """The tests of CUDA graphs; of the slow ones for a CPU, a rehearsal takes one."""
    chosen = setting.pick(["-n", "6"], ["-n", "0", "-m", "slow", "-k", "no_copies"])
    tests = str(ROOT / "tests" / "search_tests" / "test_capture.py")
    program = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rfE"]
    return Stage("capture", [*program, *chosen, tests], setting.seconds(110))


def probe(setting: Setting, name: str, seconds: float, *options: str) -> Stage:
    """Cases of the probe, of which none begins in the last quarter of its time."""
    script = [sys.executable, str(HERE / "probe.py"), str(out().absolute() / "probe.jsonl"), *options]
    budget = ["--budget", str(setting.seconds(0.75 * seconds))]
    return Stage(name, [*script, *budget, *setting.options], setting.seconds(seconds))


def card() -> Stage:
    """What the driver says; no more than a line that fails where there is none."""
    query = "nvidia-smi --query-gpu=name,memory.used,utilization.gpu --format=csv,noheader"
    return Stage("card", ["sh", "-c", query], 10)


if __name__ == "__main__":
    main()
