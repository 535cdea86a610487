"""The benchmark's commands, on a handful of images: whole records, and those of arms that were cut off."""

import json
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from benchmark_scripts import BENCHMARKS, script

FIGURES = (
    "trials_per_hour",
    "images_per_second",
    "epoch_images_per_second",
    "first_result_seconds",
    "idle_share",
    "others_share",
    "peak_memory_mib",
    "best_accuracy",
)
IMAGES = ("--images", "synthetic", "--size", "40", "--val-size", "20")
SIZES = (*IMAGES, "--epochs", "1", "--trials", "2")


def run_script(name, *options, code=0):
    ran = subprocess.run([sys.executable, BENCHMARKS / name, *options], capture_output=True, text=True)
    assert ran.returncode == code, ran.stderr
    return ran.stdout


@pytest.mark.slow
def test_both_sides_of_the_benchmark_run_the_same_search_and_leave_a_whole_record(tmp_path):
    output = tmp_path / "throughput.json"
    shown = run_script("throughput.py", *SIZES, "--output", output, "--arms", "ours-1", "plain-0")
    stored = json.loads(output.read_text())
    assert [one["arm"] for one in stored["measurements"]] == ["ours-1", "plain-0"]
    for one in stored["measurements"]:
        assert "error" not in one
        assert one["trials_measured"] == 2
        assert not one["cut_off"]
        assert all(one[figure] >= 0 for figure in FIGURES)
        assert 0 < one["first_result_seconds"] < one["wall_seconds"]
    ours, _ = stored["measurements"]
    assert ours["split"] == stored["settings"]["split"]
    assert stored["settings"]["train_images"] == 40
    assert "ours-1 / plain-0" in shown
    assert output.with_suffix(".png").stat().st_size > 5000


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ours-1", "plain-0", "accuracy-ours", "accuracy-plain"])
def test_an_arm_that_is_cut_off_keeps_what_it_has_finished(tmp_path, monkeypatch, name):
    monkeypatch.setenv("CIFAR_SEARCH_DATA", str(tmp_path / "data"))
    throughput, watching = script("throughput"), script("watching")
    long = ("--epochs", "1", "--accuracy-epochs", "40", "--trials", "10000")
    _, arms, setup = throughput.set_up(throughput.parse("cpu", (*IMAGES, *long)), "cpu", tmp_path)
    (arm,) = (arm for arm in arms if arm.name == name)
    folder = tmp_path / "arm"
    folder.mkdir()
    with script("guarding").Guard() as guard:
        ran = watching.watch(arm.command, folder, "cpu", guard, lambda: finished(folder) >= 2)
    figures = throughput.figures_of(arm, setup, ran, folder)
    assert figures["cut_off"]
    if arm.group == "accuracy":
        assert 2 <= len(figures["accuracies"]) < 5
    else:
        assert 2 <= figures["trials_measured"] < 10_000
        assert figures["search_seconds"] > figures["wall_seconds"]
        assert figures["trials_per_hour"] > 0


def finished(folder):
    """Trials or runs that a command has told of or stored."""
    if told := (folder / "stdout").read_text().count('{"'):
        return told
    if not (folder / "cifar-search.db").exists():
        return 0
    with closing(sqlite3.connect(folder / "cifar-search.db")) as database:
        try:
            (count,) = database.execute("SELECT count(*) FROM trials WHERE state = 'COMPLETE'").fetchone()
        except sqlite3.OperationalError:  # not made yet, or locked
            return 0
    return count


@pytest.mark.slow
def test_what_the_time_did_not_suffice_for_is_named_and_measured_later(tmp_path):
    output = tmp_path / "throughput.json"
    options = (*SIZES, "--output", output, "--arms", "plain-0", "ours-1")
    shown = run_script("throughput.py", *options, "--budget", "0", code=1)
    assert (
        "left out, for want of time (--continue measures them): ours-1 (round 1), plain-0 (round 1)" in shown
    )
    assert not output.exists()

    run_script("throughput.py", *options, "--arm-timeout", "0.1", code=1)
    errors = [one["error"] for one in json.loads(output.read_text())["measurements"]]
    assert len(errors) == 2
    assert all(error.startswith("cut off after ") for error in errors)

    shown = run_script("throughput.py", *options, "--continue", "--budget", "3600", "--quiet")
    assert [line.partition(":")[0] for line in shown.splitlines()] == ["round 1, ours-1", "round 1, plain-0"]
    assert output.with_suffix(".png").exists()
    stored = json.loads(output.read_text())["measurements"]
    assert [(one["arm"], one["trials_measured"], one["cut_off"]) for one in stored] == [
        ("ours-1", 2, False),
        ("plain-0", 2, False),
    ]


@pytest.mark.slow
def test_a_trial_is_profiled(tmp_path):
    output = tmp_path / "profile.json"
    shown = run_script("profile_trial.py", *IMAGES, "--output", output)
    stored = json.loads(output.read_text())
    assert {"forward", "backward", "optimizer", "validation"} <= set(stored["phases"])
    assert all(seconds > 0 for seconds in stored["epoch_seconds"].values())
    assert "aten::" in shown
