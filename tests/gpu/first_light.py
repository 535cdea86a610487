"""Whether it works on this GPU, and what a step costs. At most 270 seconds.

    python tests/gpu/first_light.py [--rehearse]

A smoke test, which stops everything if it fails; a search, beside the tests of CUDA graphs; the probe.
Results: ``$OUT`` (of a rehearsal ``$OUT/rehearsal``), a log of each stage and ``probe.jsonl``. The exit code
is 1 if a stage failed or a case of the probe had an error.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import answers
from command import ROOT, parser, require_images, require_writable, set_aside
from setting import Setting, setting_of
from stages import Lines, Stage, Stages, last_lines, whole

SECONDS = 255
"""For all stages together; the rest is for starting, and for ending one that is late."""
HERE = Path(__file__).parent


def main() -> None:
    """Everything in order."""
    made = parser(__doc__)
    setting = setting_of(made, made.parse_args())
    require_images(made)
    require_writable(made, setting.out)
    set_aside(answers_file(setting))
    with tempfile.TemporaryDirectory() as folder, Stages(setting.out, setting.seconds(SECONDS)) as stages:
        if stages.run(smoke(setting)):
            print("STOPPED: the smoke test failed")
        else:
            go_on(setting, Path(folder), stages)
    print(last_line(stages.codes, answers.read(answers_file(setting))))
    sys.exit(stages.failed)


def go_on(setting: Setting, folder: Path, stages: Stages) -> None:
    """What comes after the smoke test."""
    for beside in groups(setting, folder, stages):
        for started in [stages.start(stage) for stage in beside]:
            stages.finish(started)
    found = answers.read(answers_file(setting))
    print(*answers.table(found), answers.best(found), sep="\n")


def groups(setting: Setting, folder: Path, stages: Stages) -> Iterator[list[Stage]]:
    """The stages of a group run beside each other; a group is made when the one before has ended."""
    yield [search(setting, folder), capture(setting)]
    yield [probe(setting, "probe", stages.left, 85)]
    yield [probe(setting, "autotuned", stages.left, 30, "--autotuned")]
    yield [card()]


def last_line(codes: dict[str, int], found: list[answers.Answer]) -> str:
    ends = ", ".join(f"{name} {code}" for name, code in codes.items())
    return f"first light: exit codes: {ends}; cases of the probe: {answers.counts(found)}"


def smoke(setting: Setting) -> Stage:
    command = [sys.executable, str(HERE / "smoke.py"), *setting.options]
    return Stage("smoke", command, setting.seconds(70), shown=whole)


def search(setting: Setting, folder: Path) -> Stage:
    """A whole search in a new database."""
    where = setting.pick(["--device", "cuda", "--per-gpu", "2"], ["--device", "cpu", "--workers", "1"])
    size = setting.pick(["--trials", "4", "--epochs", "3"], ["--trials", "1", "--epochs", "1"])
    program = [sys.executable, "-m", "search.cli", "run", "--space", "regularization", "--dataset", "digits"]
    storage = ["--storage", f"sqlite:///{folder / 'first.db'}"]
    command = [*program, *size, *where, *storage]
    return Stage("search", command, setting.seconds(50), folder, shown=last_words)


def last_words(lines: Lines) -> Lines:
    """Of a search, without the commands for its study, which goes with the folder it is in."""
    end = lines.index("next:") if "next:" in lines else len(lines)
    return last_lines(lines[:end])


def capture(setting: Setting) -> Stage:
    """The tests of CUDA graphs; of the slow ones for a CPU, a rehearsal takes one."""
    chosen = setting.pick(["-n", "6"], ["-n", "0", "-m", "slow", "-k", "no_copies"])
    tests = str(ROOT / "tests" / "search_tests" / "test_capture.py")
    program = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rfE"]
    return Stage("capture", [*program, *chosen, tests], setting.seconds(110))


def probe(setting: Setting, name: str, left: float, seconds: float, *options: str) -> Stage:
    """Cases of the probe, of which none begins in the last quarter of its time."""
    limit = min(setting.seconds(seconds), left)
    script = [sys.executable, str(HERE / "probe.py"), str(answers_file(setting)), *options]
    command = [*script, "--budget", str(0.75 * limit), *setting.options]
    return Stage(name, command, limit, shown=answers.without_table)


def answers_file(setting: Setting) -> Path:
    return setting.out / "probe.jsonl"


def card() -> Stage:
    """What the driver says; no more than a line where there is none."""
    query = "nvidia-smi --query-gpu=name,memory.used,utilization.gpu --format=csv,noheader"
    return Stage("card", ["sh", "-c", f"{query} || echo there is no nvidia-smi"], 10)


if __name__ == "__main__":
    main()
