"""The benchmark's one command, on a handful of images: every arm of a search leaves a whole record."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "throughput.py"
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


@pytest.mark.slow
def test_both_sides_of_the_benchmark_run_the_same_search_and_leave_a_whole_record(tmp_path):
    output = tmp_path / "throughput.json"
    sizes = ("--images", "synthetic", "--size", "40", "--val-size", "20", "--epochs", "1", "--trials", "2")
    command = [sys.executable, SCRIPT, *sizes, "--output", output, "--arms", "ours-1", "plain-0"]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    stored = json.loads(output.read_text())
    assert [one["arm"] for one in stored["measurements"]] == ["ours-1", "plain-0"]
    for one in stored["measurements"]:
        assert "error" not in one
        assert one["trials_measured"] == 2
        assert all(one[figure] >= 0 for figure in FIGURES)
        assert 0 < one["first_result_seconds"] < one["wall_seconds"]
    ours, _ = stored["measurements"]
    assert ours["split"] == stored["settings"]["split"]
    assert stored["settings"]["train_images"] == 40
    assert "ours-1 / plain-0" in ran.stdout
    assert output.with_suffix(".png").stat().st_size > 5000
