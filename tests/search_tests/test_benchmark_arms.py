"""The benchmark's arms: their commands, what is read from one that was cut off, and what is shown of it."""

import ast
import json
import os
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest
import typer
from benchmark_scripts import BENCHMARKS, script
from optuna.trial import FrozenTrial, TrialState

from search.cli import app
from spaces.space import Space
from studies.record import Outcome

arms, guarding, report = map(script, ("arms", "guarding", "throughput_report"))
throughput, watching = map(script, ("throughput", "watching"))
SIZES = ("--images", "synthetic", "--size", "40", "--val-size", "20")
BEGIN = 1_800_000_000.0


@pytest.fixture
def on_cuda(tmp_path, monkeypatch):
    """The arms of a GPU, and all that their commands read."""
    monkeypatch.setenv("CIFAR_SEARCH_DATA", str(tmp_path / "data"))
    arguments = throughput.parse("cuda", SIZES)
    _, arms_of_gpu, _ = throughput.set_up(arguments, "cuda", tmp_path)
    return arms_of_gpu


def test_on_a_gpu_what_matters_most_comes_first(on_cuda):
    assert [arm.name for arm in on_cuda] == [
        *("ours-auto", "plain-8", "fast-ours", "fast-compiled", "pruned-50"),
        *("ours-1", "ours-1-eager", "ours-4", "ours-8", "ours-2", "plain-0"),
        *("accuracy-ours", "accuracy-plain"),
    ]


def test_every_command_of_a_gpu_is_one_that_its_program_takes(on_cuda):
    for arm in on_cuda:
        python, *words = arm.command
        assert python == sys.executable
        if words[:2] == ["-m", "search.cli"]:
            check_search(words[2:])
        else:
            check_script(*words)


def search_options(words):
    name, *options = words
    return typer.main.get_command(app).commands[name].make_context(name, options).params


def check_search(words):
    given = search_options(words)
    assert given["device"] == "cuda:0"
    assert Path(given["dataset"]).is_dir()
    assert Space.load(given["space"])


def check_script(path, *words):
    options = script(Path(path).stem).parse(words)
    assert options.device == "cuda"
    assert (options.data / "train_images_NHWC.npy").exists()
    file = options.space if hasattr(options, "space") else options.configuration
    assert file.exists()


def test_a_folder_of_images_is_found_from_every_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    absolute = script("bench_data").absolute
    assert absolute("images") == str(tmp_path.resolve() / "images")
    assert [absolute(name) for name in ("cifar10", "synthetic")] == ["cifar10", "synthetic"]


def test_no_script_chooses_cudnns_algorithms_otherwise_than_the_engine():
    chosen = {}
    for path in BENCHMARKS.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).endswith("cudnn.benchmark"):
                chosen[path.name] = ast.unparse(node.value)
    assert chosen == {"plain_search.py": "AUTOTUNE", "airbench.py": "AUTOTUNE"}
    assert script("plain_search").AUTOTUNE is script("search.training.kernels").AUTOTUNE


# A command that is cut off.


def test_a_command_that_is_cut_off_leaves_no_process_and_keeps_what_it_said(tmp_path):
    child = "import os, time; os.setpgid(0, 0); open('child', 'w').write(str(os.getpid())); time.sleep(600)"
    program = f"""
import subprocess, sys, time
print('{{"a": 1}}', flush=True)
subprocess.Popen([sys.executable, "-c", {child!r}])
time.sleep(600)
"""
    file = tmp_path / "child"
    command = [sys.executable, "-c", program]
    with guarding.Guard() as guard:
        is_over = lambda: file.exists() and file.read_text() != ""  # noqa: E731
        ran = watching.watch(command, tmp_path, "cpu", guard, is_over)
    assert ran.cut_off
    assert arms.lines(ran) == [{"a": 1}]
    assert not is_alive(int(file.read_text()))


def is_alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_command_that_ends_by_itself_is_not_cut_off(tmp_path):
    with guarding.Guard() as guard:
        ran = watching.watch([sys.executable, "-c", "print(1)"], tmp_path, "cpu", guard)
    assert (ran.code, ran.output, ran.cut_off) == (0, "1\n", False)


@pytest.mark.parametrize(
    ("budget", "arm_timeout", "command_over", "arm_over"),
    [(None, None, False, False), (1e6, 1e6, False, False), (0, None, True, True), (1e6, 0, False, True)],
)
def test_an_arm_is_over_after_its_own_time_or_that_of_the_command(
    budget, arm_timeout, command_over, arm_over
):
    clock = throughput.Clock(time.monotonic(), budget, arm_timeout)
    assert clock.is_over() is command_over
    assert clock.of_arm()() is arm_over


def a_run(*output, seconds=100.0, cut_off=True):
    text = "".join(json.dumps(line) + "\n" for line in output)
    code = -9 if cut_off else 0
    return watching.Ran(code, BEGIN, BEGIN + seconds, text, "", {"idle_share": 0.5}, [], cut_off)


def a_setup(trials=20):
    sizes = {"train_images": 100, "epochs": 2, "batch_size": 40, "trials": trials}
    return arms.Setup("cpu", "digits", None, None, folder=Path(), **sizes)


def plain_trial(ended, seconds):
    return {"ended": BEGIN + ended, "seconds": seconds, "accuracy": 0.5, "epoch_speeds": [10.0, 30.0]}


def test_the_missing_trials_of_a_plain_search_that_was_cut_off_are_added():
    # 10 seconds of start, three trials of 30, 20 and 20 seconds, and one that was cut off
    ran = a_run(plain_trial(40, 30), plain_trial(60, 20), plain_trial(80, 20))
    figures = arms.read_plain(a_setup(), ran, Path())
    assert figures["trials_measured"] == 3
    assert figures["cut_off"]
    assert figures["wall_seconds"] == 100
    assert figures["search_seconds"] == pytest.approx(80 + 17 * 20)
    assert figures["trials_per_hour"] == pytest.approx(3600 * 20 / 420)
    assert figures["images_per_second"] == pytest.approx(20 * 2 * 80 / 420)
    assert figures["epoch_images_per_second"] == 20


def test_a_plain_search_that_measures_fewer_trials_and_is_not_cut_off_counts_its_end():
    figures = arms.read_plain(a_setup(), a_run(plain_trial(40, 30), cut_off=False), Path())
    assert not figures["cut_off"]
    assert figures["search_seconds"] == pytest.approx(100 + 19 * 30)


def closed_trial(number, start, end, eager=""):
    trial = FrozenTrial(
        number=number,
        state=TrialState.COMPLETE,
        value=0.1 * number,
        datetime_start=datetime.fromtimestamp(BEGIN + start),
        datetime_complete=datetime.fromtimestamp(BEGIN + end),
        params={},
        distributions={},
        user_attrs={},
        system_attrs={},
        intermediate_values={},
        trial_id=number,
    )
    return trial, Outcome(reason="finished", images_per_second=5.0, eager=eager)


def test_the_missing_trials_of_our_search_take_the_mean_time_of_all_slots():
    # two slots side by side: two trials end after 30 seconds, two after 50, and two are cut off at work
    done = [closed_trial(n, *times) for n, times in enumerate([(10, 30), (10, 30), (30, 50), (30, 50)])]
    trials, outcomes = zip(*done, strict=True)
    figures = arms.Closed(None, trials, outcomes).figures(a_run(seconds=60), 20, 160)
    assert figures["trials_measured"] == 4
    assert figures["search_seconds"] == pytest.approx(50 + 16 * 10)
    assert figures["first_result_seconds"] == pytest.approx(30)
    assert figures["best_accuracy"] == pytest.approx(0.3)


def test_trials_that_were_not_captured_in_graphs_are_counted():
    done = [closed_trial(n, 0, 10, reason) for n, reason in enumerate(["", "no memory", "an operator", ""])]
    trials, outcomes = zip(*done, strict=True)
    figures = arms.Closed(None, trials, outcomes).figures(a_run(), 4)
    assert (figures["eager"], figures["eager_reason"]) == (2, "no memory")


def test_runs_that_were_done_before_the_end_are_kept():
    run = {"seconds": 3.0, "accuracy": 0.9, "tta_accuracy": 0.94}
    figures = arms.read_runs(a_setup(), a_run({"compile_seconds": 60.0}, run, run), Path())
    assert figures["compile_seconds"] == 60
    assert figures["run_seconds"] == [3.0, 3.0]
    assert figures["tta_accuracies"] == [0.94, 0.94]
    assert "eager" not in figures
    ours = arms.read_runs(a_setup(), a_run(run | {"eager": ""}, run | {"eager": "why"}), Path())
    assert (ours["eager"], ours["eager_reason"]) == (1, "why")


def test_a_line_that_was_not_finished_is_left_out():
    ran = a_run({"accuracy": 0.5})
    cut = watching.Ran(-9, BEGIN, BEGIN + 9, ran.output + '{"accuracy": 0.', "", {}, [], cut_off=True)
    assert arms.lines(cut) == [{"accuracy": 0.5}]


@pytest.mark.parametrize(
    ("name", "ran"),
    [
        ("ours-1", a_run()),
        ("pruned-50", a_run()),
        ("plain-0", a_run()),
        ("fast-compiled", a_run({"compile_seconds": 60.0})),
        ("accuracy-plain", a_run()),
    ],
)
def test_an_arm_that_was_cut_off_with_nothing_finished_says_so(on_cuda, tmp_path, name, ran):
    (arm,) = (arm for arm in on_cuda if arm.name == name)
    figures = throughput.figures_of(arm, a_setup(), ran, tmp_path)
    assert figures == {"error": "cut off after 100 s, with nothing finished"}


def test_a_file_is_continued_with_the_arms_that_have_no_figures(tmp_path, on_cuda):
    by_name = {arm.name: arm for arm in on_cuda}
    file, settings = tmp_path / "stored.json", {"trials": 20, "load_before": [0.0]}
    done = [
        {"arm": "ours-auto", "round": 1, "cut_off": True, "trials_measured": 3},
        {"arm": "plain-8", "round": 1, "error": "cut off after 9 s, with nothing finished"},
    ]
    done = [one | {"group": "search"} for one in done]
    stored = {"benchmark": "throughput-cuda", "settings": settings, "measurements": done}
    file.write_text(json.dumps(stored))
    measurements = throughput.earlier(file, settings)
    due = [
        name
        for name in ("ours-auto", "plain-8", "ours-1")
        if throughput.is_due(by_name[name], 1, measurements)
    ]
    assert due == ["plain-8", "ours-1"]


# What is shown.


def measured(arm, group="search", **figures):
    counts = {"trials_measured": 20, "trials_wanted": 20, "cut_off": False, "search_seconds": 60.0}
    speeds = {"trials_per_hour": 1200.0, "first_result_seconds": 9.0, "best_accuracy": 0.9}
    one = {"arm": arm, "group": group, "round": 1, "description": "a search, fast", "wall_seconds": 60.0}
    return one | counts | speeds | {"eager": 0, "eager_reason": ""} | figures


SETTINGS = {"trials": 20, "epochs": 8, "train_images": 45000, "images": "cifar10", "batch_size": 512}


def row_of(table, arm):
    (row,) = (row for row in table.rows if row[0].startswith(arm))
    return dict(zip(table.columns, row, strict=True))


def test_tables_say_what_was_cut_off_and_what_ran_without_graphs():
    cut = measured("ours-auto", trials_measured=7, cut_off=True, eager=2, eager_reason="no | memory")
    table = report.searches(report.Results([cut, measured("ours-1")], "cuda"), SETTINGS)
    assert row_of(table, "ours-auto")["trials measured"] == "7 (cut off)"
    table = report.loads(report.Results([cut, measured("ours-1")], "cuda"))
    assert row_of(table, "ours-auto")["without graphs"] == "2 of 7"
    assert row_of(table, "ours-1")["without graphs"] == "0 of 20"
    assert table.notes == ["ours-auto ran without CUDA graphs: no | memory"]
    assert table.markdown().endswith(f"\n\n{table.notes[0]}")
    label = report.label(report.Results([cut], "cuda"), "ours-auto")
    assert label == "a search\nfast (7 trials measured, cut off)"
    assert report.label(report.Results([measured("ours-1")], "cuda"), "ours-1") == "a search\nfast"


def test_nothing_is_said_of_graphs_where_there_are_none():
    table = report.loads(report.Results([measured("ours-1")], "cpu"))
    assert row_of(table, "ours-1")["without graphs"] == "-"


def test_no_header_is_broken_in_a_word_at_the_width_of_the_tables(capsys):
    most = {"trials_per_hour": 12345.6, "images_per_second": 123456.7, "epoch_images_per_second": 123456.7}
    shares = {"idle_share": 0.456, "searching_idle_share": 0.456, "peak_memory_mib": 12345.6}
    most |= shares | {"first_result_seconds": 123.4, "others_share": 0.123, "trials_measured": 13}
    least = {key: 0.97 * value for key, value in most.items()}
    first, second = most | {"cut_off": True}, least | {"round": 2, "trials_measured": 14, "cut_off": True}
    results = report.Results([measured("ours-1-eager", **one) for one in (first, second)], "cuda")
    tables = [report.searches(results, SETTINGS), report.loads(results)]
    for table in tables:
        table.show()
    words = capsys.readouterr().out.split()
    assert {word for table in tables for column in table.columns for word in column.split()} <= set(words)


@pytest.mark.parametrize("slots", [3, 5, 16])
def test_every_number_of_slots_can_be_asked_for_on_a_gpu(tmp_path, slots):
    setup = arms.Setup("cuda", "cifar10", None, None, 45_000, 8, 512, 20, tmp_path)
    (arm,) = throughput.chosen(arms.all_arms(setup, {0: 1}), [f"ours-{slots}"])
    assert arm.command[-2:] == ("--per-gpu", str(slots))
    assert search_options(arm.command[3:])["per_gpu"] == slots


def test_the_bar_of_the_pruned_search_says_that_its_time_is_an_estimate():
    cut = {"trials_measured": 31, "trials_wanted": 50, "cut_off": True, "search_seconds": 95.0, "pruned": 4}
    results = report.Results([measured("pruned-50", "pruned", **cut)], "cuda")
    bar = report.pruned_bar(results)
    assert bar.row() == (
        *("50 pruned trials of `regularization` (estimated from 31)", "at most 90 s", "95 s", "not met"),
    )
    row = row_of(report.pruned_searches(results), "pruned-50")
    assert (row["trials measured"], row["time"], row["without graphs"]) == ("31 (cut off)", "95 s", "0 of 31")


def test_runs_that_were_cut_off_after_the_first_give_only_the_bars_that_one_run_can_give():
    one = {"run_seconds": [4.0], "accuracies": [0.93], "tta_accuracies": [0.94], "trials_measured": None}
    ours = measured("fast-ours", "fast", **one)
    other = measured("fast-compiled", "fast", **one | {"compile_seconds": 60.0, "cut_off": True})
    results = report.Results([ours, other], "cuda")
    assert [bar.measured for bar in report.fast_bars(results)] == ["not measured", "16.0", "not measured"]
    trees = {"vgg": {"training": {"epochs": 8}}, "fast": {"training": {"epochs": 10}}}
    row = row_of(report.repeats(results, {"configurations": trees}), "fast-compiled")
    assert row["arm"] == "fast-compiled (cut off)"
    assert row["later runs (median)"] == "-"
