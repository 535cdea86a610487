"""The scripts for a GPU (``tests/gpu``) where there is none: each line is run, and all they name exists."""

from __future__ import annotations

import ast
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import typer

from search.cli import app

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "tests" / "gpu").glob("*.py"))
FIGURES = ("epoch_wall", "same_bits", "learning", "replayed")
"""Of which each case of the probe has one."""


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, ModuleType]]:
    """Imported as where they are run."""
    monkeypatch.setenv("CIFAR_SEARCH_TEST_IMAGES", str(tmp_path))
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
    assert scripts["setting"].parser("").parse_args(smoke).rehearse == rehearsing
    probe = scripts["probe"].with_cases().parse_args(arguments_of(light.probe(setting).command, "probe.py"))
    assert (probe.rehearse, probe.out) == (rehearsing, tmp_path / "probe.jsonl")
    words = arguments_of(light.search(setting, tmp_path).command, "search.cli")
    search = typer.main.get_command(app).make_context("cifar-search", words, resilient_parsing=False)
    with search:
        command = search.command.get_command(search, words[0])
        parsed = command.make_context(words[0], words[1:]).params
    assert parsed["device"] == ("cpu" if rehearsing else "cuda")
    assert str(tmp_path) in parsed["storage"]


@pytest.mark.slow
def test_the_tests_of_graphs_are_found_with_the_options_of_first_light(
    scripts: dict[str, ModuleType],
) -> None:
    for rehearsing in (False, True):
        command = scripts["first_light"].capture(scripts["setting"].Setting(rehearsing)).command
        found = subprocess.run([*command, "--collect-only"], cwd=ROOT, capture_output=True, text=True)
        assert found.returncode == 0, found.stdout + found.stderr
        count = found.stdout.count("::test_")
        assert (count == 1) if rehearsing else (count > 50)


@pytest.mark.parametrize("arm", ["ours-auto", "ours-4", "plain-8", "fast-ours", "fast-compiled", "pruned-50"])
def test_measure_gives_the_benchmark_options_and_arms_that_it_has(
    scripts: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arm: str
) -> None:
    arms, throughput = importlib.import_module("arms"), importlib.import_module("throughput")
    stage = scripts["measure"].measured(scripts["setting"].Setting(False), arm, 60.0)
    monkeypatch.setattr(sys, "argv", ["throughput.py", *arguments_of(stage.command, "throughput.py")])
    parsed = throughput.parse("cuda")
    assert (parsed.arms, parsed.output) == ([arm], tmp_path / "throughput.json")
    assert parsed.resume
    assert 0 < parsed.arm_timeout < min(stage.limit, 60)
    setup = arms.Setup("cuda", "cifar10", None, None, 45_000, 8, 512, 20, tmp_path)
    assert [each.name for each in throughput.chosen(arms.all_arms(setup, {0: 1, 8: 2}), parsed.arms)] == [arm]


def test_all_arms_together_are_those_that_measure_has_limits_for(scripts: dict[str, ModuleType]) -> None:
    measure = scripts["measure"]
    assert measure.with_side_by_side().parse_args(["4"]).side_by_side == "4"
    assert sum(measure.LIMITS.values()) > measure.SECONDS  # so the whole has a limit of its own
    assert measure.SECONDS + measure.GRACE <= 480


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="the smoke test is to fail")
def test_a_smoke_test_that_fails_stops_first_light(tmp_path: Path) -> None:
    environment = os.environ | {"OUT": str(tmp_path / "out")}
    script = [sys.executable, str(ROOT / "tests" / "gpu" / "first_light.py")]
    ran = subprocess.run(script, env=environment, capture_output=True, text=True)
    assert ran.returncode == 1, ran.stderr
    assert "there is no GPU" in ran.stdout
    assert "STOPPED" in ran.stdout
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["smoke.log"]


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
def test_a_rehearsal_runs_every_line_and_leaves_every_figure(
    scripts: dict[str, ModuleType], tmp_path: Path
) -> None:
    images = importlib.import_module("bench_data").make_synthetic(tmp_path / "images", 120)
    rehearsal = Rehearsal(tmp_path, images)
    light = rehearsal.run("first_light.py")
    assert ends(light) | {"card": 0} == dict.fromkeys(["smoke", "search", "capture", "probe", "card"], 0), (
        light
    )
    assert_probed(scripts, rehearsal.out / "probe.jsonl")
    assert "1 passed" in (rehearsal.out / "capture.log").read_text()
    measured = rehearsal.run("measure.py")
    assert ends(measured) == {"ours-1": 0, "plain-0": 0}, measured
    stored = json.loads((rehearsal.out / "throughput.json").read_text())["measurements"]
    assert [(one["arm"], "error" in one) for one in stored] == [("ours-1", False), ("plain-0", False)]
    assert not {name: lines for name, lines in rehearsal.missing().items() if lines}


def assert_probed(scripts: dict[str, ModuleType], answers: Path) -> None:
    """Every case has figures, and whatever is to be captured was."""
    setting = scripts["setting"].Setting(True)
    cases = scripts["probe"].all_cases(setting, scripts["setting"].made_images(setting))
    found = [json.loads(line) for line in answers.read_text().splitlines()]
    assert [one["name"] for one in found] == list(cases)
    for one in found:
        assert not one.keys() & {"error", "skipped"}, one
        assert any(figure in one for figure in FIGURES), one
        assert one.get("eager", "") == ("CUDA graphs are off" if one["name"] == "vgg512 eager" else ""), one
    by_name = {one["name"]: one for one in found}
    assert by_name["same bits, default"]["same_bits_eager"]
    assert by_name["fast94 kernels"]["replayed"]["rows"]
    assert by_name["fast94 kernels"]["replayed"]["eager"] == ""
