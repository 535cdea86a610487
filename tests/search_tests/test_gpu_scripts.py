"""The scripts for a GPU (``tests/gpu``) where there is none: each line is run, all they name exists, what is
wrong is refused at once, and nothing of them outlives them."""

from __future__ import annotations

import ast
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import typer
from running import as_in_a_shell

from search.cli import app

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "tests" / "gpu").glob("*.py"))
BUSY = 60
"""Seconds to wait for a process on a busy machine."""
FIGURES = ("epoch_wall", "same_bits", "learning", "replayed")
"""Of which each case of the probe has one."""


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Something in the place of images, where none is decoded."""
    (tmp_path / "images" / "train" / "cat").mkdir(parents=True)
    (tmp_path / "images" / "train" / "cat" / "1.png").touch()
    return tmp_path / "images"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Path) -> Iterator[dict[str, ModuleType]]:
    """Imported as where they are run."""
    monkeypatch.setenv("CIFAR_SEARCH_TEST_IMAGES", str(images))
    monkeypatch.setenv("OUT", str(tmp_path))
    for folder in ("gpu", "benchmarks", ""):
        monkeypatch.syspath_prepend(ROOT / "tests" / folder)
    before = set(sys.modules)
    yield {path.stem: importlib.import_module(path.stem) for path in SCRIPTS}
    for name in {path.stem for path in SCRIPTS} - before:
        del sys.modules[name]


def dotted_names(path: Path) -> set[str]:
    """Every name of torch that a file imports or reaches by dots."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("torch"):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Attribute) and ast.unparse(node).startswith("torch."):
            names.add(ast.unparse(node).partition("(")[0])
    return names


@pytest.mark.parametrize("path", [*SCRIPTS, ROOT / "tests" / "recorded_graph.py"], ids=lambda path: path.name)
def test_what_the_scripts_name_of_torch_exists(path: Path) -> None:
    for name in dotted_names(path):
        value: Any = torch
        for attribute in name.split(".")[1:]:
            value = getattr(value, attribute)


def arguments_of(command: list[str], script: str) -> list[str]:
    position = next(number for number, word in enumerate(command) if word.endswith(script))
    return command[position + 1 :]


@pytest.mark.parametrize("rehearsing", [False, True], ids=["full", "rehearsal"])
def test_first_light_gives_its_stages_options_that_they_have(
    scripts: dict[str, ModuleType], tmp_path: Path, rehearsing: bool
) -> None:
    light, setting = scripts["first_light"], scripts["setting"].Setting(rehearsing)
    smoke = arguments_of(light.smoke(setting).command, "smoke.py")
    assert scripts["command"].parser("").parse_args(smoke).rehearse == rehearsing
    words = arguments_of(light.search(setting, tmp_path).command, "search.cli")
    search = typer.main.get_command(app).make_context("cifar-search", words, resilient_parsing=False)
    with search:
        command = search.command.get_command(search, words[0])
        parsed = command.make_context(words[0], words[1:]).params
    assert parsed["device"] == ("cpu" if rehearsing else "cuda")
    assert str(tmp_path) in parsed["storage"]


@pytest.mark.parametrize("rehearsing", [False, True], ids=["full", "rehearsal"])
def test_both_probes_of_first_light_append_to_one_file_apart_from_a_rehearsals(
    scripts: dict[str, ModuleType], tmp_path: Path, rehearsing: bool
) -> None:
    setting = scripts["setting"].Setting(rehearsing)
    stages = scripts["stages"].Stages(tmp_path, 1000.0)
    groups = [*scripts["first_light"].groups(setting, tmp_path, stages)]
    probes = [stage for group in groups for stage in group if stage.name in ("probe", "autotuned")]
    parser = scripts["probe"].with_cases()
    given = [parser.parse_args(arguments_of(stage.command, "probe.py")) for stage in probes]
    assert [each.autotuned for each in given] == [False, True]
    folder = tmp_path / "rehearsal" if rehearsing else tmp_path
    assert [each.out for each in given] == 2 * [folder / "probe.jsonl"]
    for each, stage in zip(given, probes, strict=True):
        assert (each.rehearse, each.budget) == (rehearsing, pytest.approx(0.75 * stage.limit))


def test_a_probe_that_begins_late_has_a_budget_of_what_is_left(scripts: dict[str, ModuleType]) -> None:
    stage = scripts["first_light"].probe(scripts["setting"].Setting(False), "probe", 20.0, 85)
    assert stage.limit == 20
    assert stage.command[-1] == "15.0"


def test_the_search_is_shown_without_commands_for_a_study_that_is_gone(
    scripts: dict[str, ModuleType],
) -> None:
    shown = scripts["first_light"].last_words
    assert shown(["a", "trials closed", "next:", "  cifar-search show"]) == ["a", "trials closed"]
    assert shown([str(number) for number in range(90)])[-1] == "89"


@pytest.mark.slow
def test_the_tests_of_graphs_are_found_with_the_options_of_first_light(
    scripts: dict[str, ModuleType],
) -> None:
    for rehearsing in (False, True):
        command = scripts["first_light"].capture(scripts["setting"].Setting(rehearsing)).command
        options = {"cwd": ROOT, "env": {**os.environ, "PYTEST_ADDOPTS": ""}, "capture_output": True}
        found = subprocess.run([*command, "--collect-only"], text=True, **options)
        assert found.returncode == 0, found.stdout + found.stderr
        count = found.stdout.count("::test_")
        assert (count == 1) if rehearsing else (count > 50)


@pytest.mark.parametrize(
    "arm", ["ours-auto", "ours-1", "ours-3", "ours-16", "plain-8", "fast-ours", "fast-compiled", "pruned-50"]
)
def test_measure_gives_the_benchmark_options_and_arms_that_it_has(
    scripts: dict[str, ModuleType], tmp_path: Path, arm: str
) -> None:
    stage = scripts["measure"].measured(scripts["setting"].Setting(False), arm, 60.0, "--quiet")
    options = importlib.import_module("throughput_options")
    parsed = options.parse("cuda", arguments_of(stage.command, "throughput.py"))
    assert (parsed.arms, Path(parsed.output)) == ([arm], tmp_path / "throughput.json")
    assert parsed.resume
    assert parsed.quiet
    assert stage.limit <= 60
    assert 0 < parsed.arm_timeout < stage.limit


def test_all_arms_fit_into_what_measure_has_time_for(scripts: dict[str, ModuleType]) -> None:
    measure, setting = scripts["measure"], scripts["setting"].Setting(False)
    left = measure.SECONDS
    for arm in measure.arms(setting, "4"):
        limit = measure.measured(setting, arm, left).limit
        left -= limit
    assert left == 0
    assert (arm, limit >= 100) == ("pruned-50", True)
    assert measure.SECONDS + 2 * scripts["stages"].PATIENCE <= 480
    assert scripts["first_light"].SECONDS + 2 * scripts["stages"].PATIENCE <= 270


# What is refused.


def run_main(monkeypatch: pytest.MonkeyPatch, script: ModuleType, *words: str) -> int | str | bool | None:
    """The exit code of a script in this process."""
    monkeypatch.setattr(sys, "argv", [f"{script.__name__}.py", *words])
    with pytest.raises(SystemExit) as ended:
        script.main()
    return ended.value.code


@pytest.fixture
def refusal(
    scripts: dict[str, ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Callable[..., str]:
    """The one line with which a script refuses, before any stage has a log."""

    def refused(name: str, *words: str) -> str:
        assert run_main(monkeypatch, scripts[name], *words) == 2
        assert not [*tmp_path.rglob("*.log")]
        told = capsys.readouterr()
        assert told.out == ""
        (line,) = told.err.splitlines()
        assert line.startswith(f"{name}.py: ")
        return line

    return refused


@pytest.mark.parametrize("name", ["first_light", "measure", "probe", "smoke"])
def test_without_a_gpu_only_rehearsals_run(
    refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    words = [str(tmp_path / "p.jsonl")] if name == "probe" else []
    assert "no GPU" in refusal(name, *words)
    assert not (tmp_path / "p.jsonl").exists()


@pytest.mark.parametrize("name", ["first_light", "measure", "probe"])
def test_images_are_looked_at_before_anything_begins(
    refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    words = ["--rehearse", *([str(tmp_path / "p.jsonl")] if name == "probe" else [])]
    for folder in (tmp_path / "not there", tmp_path / "images" / "train"):
        monkeypatch.setenv("CIFAR_SEARCH_TEST_IMAGES", str(folder))
        line = refusal(name, *words)
        assert "train/CLASS/*" in line
        assert str(folder) in line
    monkeypatch.delenv("CIFAR_SEARCH_TEST_IMAGES")
    assert "CIFAR_SEARCH_TEST_IMAGES" in refusal(name, *words)


@pytest.mark.parametrize("name", ["first_light", "measure"])
def test_a_folder_of_results_that_cannot_be_written_is_refused(
    refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("OUT", str(tmp_path / "file" / "results"))
    assert str(tmp_path / "file") in refusal(name, "--rehearse")


@pytest.mark.parametrize("number", ["0", "17", "-1", "2.5", "many", "04"])
def test_a_number_side_by_side_that_the_benchmark_has_no_arm_for_is_refused(
    refusal: Callable[..., str], number: str
) -> None:
    line = refusal("measure", "--rehearse", number)
    assert number in line


def test_numbers_side_by_side_are_those_of_the_benchmark(scripts: dict[str, ModuleType]) -> None:
    assert scripts["command"].MOST_SIDE_BY_SIDE == importlib.import_module("arms").MOST_SLOTS
    for number in ("auto", "1", "3", "16"):
        assert scripts["measure"].with_side_by_side().parse_args([number]).side_by_side == number


@pytest.mark.parametrize("budget", ["-1", "nan", "-inf", "soon"])
def test_a_budget_that_is_no_time_is_refused(
    refusal: Callable[..., str], tmp_path: Path, budget: str
) -> None:
    assert "--budget" in refusal("probe", "--rehearse", str(tmp_path / "p.jsonl"), f"--budget={budget}")


def test_unknown_cases_are_refused_with_those_that_there_are(
    refusal: Callable[..., str], tmp_path: Path
) -> None:
    out = str(tmp_path / "p.jsonl")
    line = refusal("probe", "--rehearse", out, "--only", "vgg512", "vgg513")
    assert "vgg512 x2, " in line
    assert line.endswith("got vgg513")
    assert "resnet18-128 autotuned" in refusal("probe", "--rehearse", out, "--autotuned", "--only", "vgg512")


def test_answers_that_cannot_be_written_are_refused_at_the_start(
    refusal: Callable[..., str], tmp_path: Path
) -> None:
    out = tmp_path / "not there" / "p.jsonl"
    assert str(out) in refusal("probe", "--rehearse", str(out))


# What is kept of earlier runs, and what is told at the end.


def test_earlier_answers_are_set_aside(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    for text in ("first", "second"):
        (tmp_path / "probe.jsonl").write_text(text)
        scripts["command"].set_aside(tmp_path / "probe.jsonl")
    scripts["command"].set_aside(tmp_path / "probe.jsonl")
    kept = {path.name: path.read_text() for path in tmp_path.glob("*.jsonl")}
    assert kept == {"probe-1.jsonl": "first", "probe-2.jsonl": "second"}


class Light:
    """``first_light.py`` with small stages in the place of its own."""

    def __init__(self, scripts: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self._script, self._monkeypatch = scripts["first_light"], monkeypatch
        self._stage, self.answers = scripts["stages"].Stage, folder / "rehearsal" / "probe.jsonl"

    def shell(self, name: str, text: str) -> Any:
        return self._stage(name, ["sh", "-c", text], 60.0)

    def run(self, smoke: str, *groups: dict[str, str]) -> int | str | bool | None:
        """``groups``: by name, what the shell does at each stage."""
        made = [[self.shell(*each) for each in group.items()] for group in groups]
        self._monkeypatch.setattr(self._script, "smoke", lambda _setting: self.shell("smoke", smoke))
        self._monkeypatch.setattr(self._script, "groups", lambda *_: iter(made))
        return run_main(self._monkeypatch, self._script, "--rehearse")

    def answering(self, *found: dict[str, Any]) -> str:
        """What a probe that answers this does."""
        lines = "".join(json.dumps(one) + "\n" for one in found)
        return f"cat >> {self.answers} <<'END'\n{lines}END"


@pytest.fixture
def light(scripts: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Light:
    return Light(scripts, monkeypatch, tmp_path)


def test_a_smoke_test_that_fails_stops_first_light(light: Light, capsys: pytest.CaptureFixture[str]) -> None:
    assert light.run("echo broken; exit 4", {"search": "true"}) == 1
    told = capsys.readouterr().out.splitlines()
    assert told[1:3] == ["== smoke: 4, 0 s", "broken"]
    assert "STOPPED" in told[-2]
    assert told[-1].startswith("first light: exit codes: smoke 4; ")


def test_first_light_ends_with_every_exit_code_and_counts_the_answers(
    light: Light, capsys: pytest.CaptureFixture[str]
) -> None:
    good, slow = {"name": "vgg512", "per_trial_epoch": 2.0, "eager": ""}, {"name": "b", "skipped": "late"}
    light.answers.parent.mkdir()
    light.answers.write_text('{"name": "old", "error": "of an earlier run"}\n')
    ends = light.run("true", {"search": "exit 0"}, {"probe": light.answering(good, slow)})
    told = capsys.readouterr().out.splitlines()
    assert ends == 0, told
    counts = "1 with figures, 0 error, 1 skipped, 0 not captured"
    assert told[-1] == f"first light: exit codes: smoke 0, search 0, probe 0; cases of the probe: {counts}"
    assert told[-2] == "best: python tests/gpu/measure.py 1"
    assert "old" in light.answers.with_name("probe-1.jsonl").read_text()
    assert light.run("true", {"search": "exit 3", "capture": "true"}) == 1
    assert "search 3, capture 0;" in capsys.readouterr().out.splitlines()[-1]


def test_a_case_that_fails_makes_the_probe_fail_and_the_rest_goes_on(
    scripts: dict[str, ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    probe, out = scripts["probe"], tmp_path / "p.jsonl"
    cases = {
        "vgg512": lambda _data: 1 / 0,
        "vgg512 x2": lambda _data: {"per_trial_epoch": 1.0, "eager": "no"},
    }
    monkeypatch.setattr(probe, "all_cases", lambda _setting: cases)
    monkeypatch.setattr(probe, "real_images", scripts["setting"].made_images)
    monkeypatch.setattr(torch, "set_num_threads", lambda _count: None)
    assert run_main(monkeypatch, probe, "--rehearse", str(out)) == 1
    told = capsys.readouterr().out.splitlines()
    assert "1 with figures, 1 error, 0 skipped, 1 not captured" in told
    assert told[-1] == "best: python tests/gpu/measure.py 2"
    assert run_main(monkeypatch, probe, "--rehearse", str(out), "--only", "vgg512 x2") == 0
    assert run_main(monkeypatch, probe, "--rehearse", str(out), "--budget", "0") == 0
    kinds = [next(iter(one.keys() - {"name", "took", "where", "eager"})) for one in answers_in(out)]
    assert kinds == ["error", *2 * ["per_trial_epoch"], *2 * ["skipped"]]


def answers_in(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


ANSWERS = [
    {"name": "vgg512", "per_trial_epoch": 1.25, "images_per_second_all_lanes": 36000.4, "eager": ""},
    {"name": "vgg512 x2", "per_trial_epoch": 0.5, "images_per_second_all_lanes": 1e6, "eager": ""},
    {
        "name": "vgg512 x3",
        "per_trial_epoch": 0.75,
        "images_per_second_all_lanes": 9e5,
        "eager": "a\n" + 99 * "b",
    },
    {"name": "vgg512 x4", "error": 300 * "c", "took": 1.0},
    {"name": "vgg512 deterministic", "per_trial_epoch": 0.1, "eager": ""},
    {"name": "vgg512 eager", "per_trial_epoch": 0.1, "eager": "CUDA graphs are off"},
    {"name": "vgg128 x2", "skipped": "out of time"},
    {"name": "same bits, default", "same_bits": True, "eager": ""},
]


def test_the_table_says_what_a_person_wants_first_in_80_columns(scripts: dict[str, ModuleType]) -> None:
    lines = scripts["answers"].table(ANSWERS)
    assert max(map(len, lines)) == 80
    assert len("\n".join(lines).splitlines()) == 1 + len(ANSWERS)
    assert lines[1].split() == ["vgg512", "1.250", "36,000", "yes"]
    assert lines[3].split()[3:6] == ["900,000", "a", 25 * "b"]
    assert lines[4].split()[2:5] == ["-", "-", "error:"]
    assert lines[7].endswith("skipped: out of time")
    assert lines[8].split()[-3:] == ["-", "-", "yes"]


def test_the_best_number_side_by_side_has_the_shortest_epoch_of_a_trial(
    scripts: dict[str, ModuleType],
) -> None:
    best = scripts["answers"].best
    assert best(ANSWERS) == "best: python tests/gpu/measure.py 2"
    assert best([ANSWERS[0], ANSWERS[3], ANSWERS[5]]) == "best: python tests/gpu/measure.py 1"
    assert best(ANSWERS[3:]).endswith(
        "not known, no case of vgg512 has figures: python tests/gpu/measure.py auto"
    )


def test_cases_are_counted_by_how_they_ended(scripts: dict[str, ModuleType]) -> None:
    counts = scripts["answers"].counts(ANSWERS)
    assert counts == "6 with figures, 1 error, 1 skipped, 1 not captured"


def test_answers_of_a_probe_that_was_killed_are_read(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"name": "a"}\n{"name": "b", "per_tri')
    assert scripts["answers"].read(tmp_path / "p.jsonl") == [{"name": "a"}]
    assert scripts["answers"].read(tmp_path / "not there.jsonl") == []


def test_a_probe_shows_its_last_lines_only_where_it_came_to_no_table(scripts: dict[str, ModuleType]) -> None:
    shown = scripts["answers"].without_table
    assert shown(["{}", scripts["answers"].HEADING, "vgg512"]) == []
    assert shown([*map(str, range(20)), 100 * "x"])[-2:] == ["19", 79 * "x"]


# How stages end.

STUBBORN = """
trap 'echo told; exit 3' TERM
setsid sh -c 'trap "" TERM; echo below $$; while :; do sleep 0.2; done' &
while :; do sleep 0.2; done
"""
"""Ends when it is told to; the process below it, in a session of its own, does not."""
DEAF = "trap '' TERM; echo below $$; while :; do sleep 0.2; done"
SCRIPT = f"""
import sys
from pathlib import Path
import stages
stages.PATIENCE = 1.0
with stages.Stages(Path(sys.argv[1]), 300.0) as all_stages:
    beside = [
        all_stages.start(stages.Stage(name, ["sh", "-c", text], 200.0))
        for name, text in (("stubborn", {STUBBORN!r}), ("deaf", {DEAF!r}))
    ]
    for each in beside:
        all_stages.finish(each)
    all_stages.run(stages.Stage("next", ["true"], 1.0))
"""


def below(log: Path) -> int:
    """The process that a stage named, once it has."""
    last = time.monotonic() + BUSY
    while not (log.exists() and "below " in (text := log.read_text())):
        assert time.monotonic() < last, "no process started"
        time.sleep(0.05)
    return int(text.split("below ")[1].split()[0])


def is_alive(process: int) -> bool:
    """A zombie is not: whoever is to wait for it may never do so."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda one: one.name)
def test_a_script_that_is_told_to_end_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tests" / "gpu")}
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path)]
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=as_in_a_shell,
    ) as script:
        processes = [below(tmp_path / name) for name in ("stubborn.log", "deaf.log")]
        assert all(map(is_alive, processes))
        script.send_signal(number)
        told, _ = script.communicate(timeout=BUSY)
    assert script.returncode == 128 + number
    assert not any(map(is_alive, processes))
    assert "told" in (tmp_path / "stubborn.log").read_text()
    last = told.splitlines()[-1]
    assert last.startswith(f"ended by {number.name}; {tmp_path} keeps")
    assert not (tmp_path / "next.log").exists()


def test_no_stage_begins_after_a_script_was_told_to_end(
    scripts: dict[str, ModuleType], tmp_path: Path
) -> None:
    def run() -> None:
        with scripts["stages"].Stages(tmp_path, 60.0) as stages:
            os.kill(os.getpid(), signal.SIGTERM)
            stages.run(scripts["stages"].Stage("one", ["true"], 60.0))

    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == 143
    assert not (tmp_path / "one.log").exists()


def test_a_signal_that_is_ignored_from_the_start_stays_ignored(
    scripts: dict[str, ModuleType], tmp_path: Path
) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with scripts["stages"].Stages(tmp_path, 60.0) as stages:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stages.run(scripts["stages"].Stage("one", ["true"], 60.0)) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("text", "code"), [(STUBBORN, 3), (DEAF, -signal.SIGKILL)], ids=["told", "killed"])
def test_a_stage_over_its_limit_is_told_to_end_and_killed_later(
    scripts: dict[str, ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    text: str,
    code: int,
) -> None:
    monkeypatch.setattr(scripts["stages"], "PATIENCE", 1.0)
    with scripts["stages"].Stages(tmp_path, 60.0) as stages:
        assert stages.run(scripts["stages"].Stage("late", ["sh", "-c", text], 2.0)) == code
    assert not is_alive(below(tmp_path / "late.log"))
    assert f"== late: {code}, " in (told := capsys.readouterr().out)
    assert ", over its limit" in told
    assert stages.failed


def test_a_script_that_fails_ends_what_it_started(
    scripts: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(scripts["stages"], "PATIENCE", 0.5)
    stages = scripts["stages"].Stages(tmp_path, 60.0)

    def fail() -> None:
        with stages:
            stages.start(scripts["stages"].Stage("one", ["sh", "-c", STUBBORN], 60.0))
            below(tmp_path / "one.log")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not is_alive(below(tmp_path / "one.log"))


def test_a_stage_says_when_it_begins_and_how_it_ended(
    scripts: dict[str, ModuleType], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with scripts["stages"].Stages(tmp_path, 340.0) as stages:
        started = stages.start(scripts["stages"].Stage("plain-8", ["echo", "found"], 130.0))
        assert capsys.readouterr().out == "-> plain-8: at most 130 s, 340 s left\n"
        assert stages.finish(started) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["found"]
    assert stages.codes == {"plain-8": 0}
    assert not stages.failed


# All of it.


class Rehearsal:
    """The scripts on a handful of made images, with every line counted that they and their children run."""

    def __init__(self, folder: Path, images: Path) -> None:
        self.out, self._folder = folder / "out", folder
        self._settings = folder / "coverage.ini"
        data = f"data_file = {folder}/lines\nsource = {ROOT}/tests/gpu\n"
        self._settings.write_text(f"[run]\nparallel = true\npatch = subprocess\n{data}", encoding="utf-8")
        self._environment = os.environ | {
            "OUT": str(self.out),
            "CIFAR_SEARCH_TEST_IMAGES": str(images),
            "CIFAR_SEARCH_DATA": str(folder / "cache"),
        }

    def coverage(self, *words: str) -> str:
        command = [sys.executable, "-m", "coverage", words[0], f"--rcfile={self._settings}", *words[1:]]
        ran = subprocess.run(command, cwd=ROOT, env=self._environment, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    def run(self, script: str) -> str:
        return self.coverage("run", str(ROOT / "tests" / "gpu" / script), "--rehearse")

    def run_fast_tests(self) -> None:
        """Those above, of what a rehearsal that goes well does not come to."""
        self.coverage("run", "-m", "pytest", "-n0", "-p", "no:cacheprovider", "-m", "not slow", __file__)

    def missing(self) -> dict[str, list[int]]:
        """Lines that nothing ran, by script."""
        self.coverage("combine")
        self.coverage("json", "-o", str(self._folder / "lines.json"))
        files = json.loads((self._folder / "lines.json").read_text())["files"]
        assert {Path(name).name for name in files} == {path.name for path in SCRIPTS}
        return {Path(name).name: lines["missing_lines"] for name, lines in files.items()}


def ends(printed: str) -> dict[str, int]:
    """Exit codes of stages, as they are printed."""
    lines = [line[3:].split(": ") for line in printed.splitlines() if line.startswith("== ")]
    return {name: int(rest.split(",")[0]) for name, rest in lines}


@pytest.mark.slow
def test_a_rehearsal_runs_every_line_and_leaves_every_figure_apart_from_a_real_runs(
    scripts: dict[str, ModuleType], tmp_path: Path
) -> None:
    made = importlib.import_module("bench_data").make_synthetic(tmp_path / "made", 120)
    rehearsal = Rehearsal(tmp_path, made)
    rehearsal.out.mkdir()
    for name in ("probe.jsonl", "throughput.json"):
        (rehearsal.out / name).write_text("in earnest")
    light, apart = rehearsal.run("first_light.py"), rehearsal.out / "rehearsal"
    stages = ["smoke", "search", "capture", "probe", "autotuned", "card"]
    assert ends(light) == dict.fromkeys(stages, 0), light
    assert_probed(scripts, answers_in(apart / "probe.jsonl"))
    assert "1 passed" in (apart / "capture.log").read_text()
    (apart / "throughput.json").write_text("of an earlier rehearsal")
    measured = rehearsal.run("measure.py")
    assert ends(measured) == {"ours-1": 0, "plain-0": 0}, measured
    stored = json.loads((apart / "throughput.json").read_text())["measurements"]
    assert [(one["arm"], "error" in one) for one in stored] == [("ours-1", False), ("plain-0", False)]
    for name in ("probe.jsonl", "throughput.json"):
        assert (rehearsal.out / name).read_text() == "in earnest"
    rehearsal.run_fast_tests()
    assert not {name: lines for name, lines in rehearsal.missing().items() if lines}


def assert_probed(scripts: dict[str, ModuleType], found: list[dict[str, Any]]) -> None:
    """Every case has figures, and whatever is to be captured was."""
    setting, probe = scripts["setting"].Setting(True), scripts["probe"]
    assert [one["name"] for one in found] == [*probe.all_cases(setting), *probe.autotuned(setting)]
    for one in found:
        assert not one.keys() & {"error", "skipped"}, one
        assert any(figure in one for figure in FIGURES), one
        assert one["eager"] == ("CUDA graphs are off" if one["name"] == "vgg512 eager" else ""), one
    by_name = {one["name"]: one for one in found}
    assert by_name["same bits, default"]["same_bits_eager"]
    assert by_name["fast94 kernels"]["replayed"]["rows"]
    assert by_name["fast94 kernels"]["replayed"]["eager"] == ""
