"""How ``throughput.py`` ends: by mistakes, signals and failures; what it does without ``nvidia-smi``."""

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from benchmark_scripts import BENCHMARKS, script
from running import as_in_a_shell

guarding, options = map(script, ("guarding", "throughput_options"))
throughput, watching = map(script, ("throughput", "watching"))
TINY = ("--images", "synthetic", "--size", "40", "--val-size", "20", "--epochs", "1")
PATIENCE = 180
"""Seconds to wait for anything at all on a busy machine."""


# Mistakes.


def refusal(capsys, *words, device="cpu"):
    """What is said of words that are a mistake, in one line."""
    with pytest.raises(SystemExit) as ended:
        options.parse(device, ("--images", "digits", *words))
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("throughput.py: ")


@pytest.mark.parametrize("value", ["-1", "nan", "soon"])
def test_a_budget_is_no_less_than_nothing(capsys, value):
    assert refusal(capsys, "--budget", value) == f"--budget: must be at least 0 seconds, but got {value}"


@pytest.mark.parametrize("value", ["-1", "0", "nan", "soon"])
def test_an_arm_has_some_time(capsys, value):
    expected = f"--arm-timeout: must be more than 0 seconds, but got {value}"
    assert refusal(capsys, "--arm-timeout", value) == expected


COUNTS = ("epochs", "trials", "size", "val-size", "rounds", "plain-trials", "accuracy-epochs")


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", ["0", "-3", "1.5", "many"])
def test_a_count_is_at_least_one(capsys, name, value):
    expected = f"--{name}: must be a whole number of at least 1, but got {value}"
    assert refusal(capsys, f"--{name}", value) == expected


def test_what_is_no_mistake_is_taken():
    counts = [word for name in COUNTS for word in (f"--{name}", "1")]
    limits = ("--budget", "0", "--arm-timeout", "0.5")
    given = options.parse("cpu", ("--images", "digits", *limits, *counts))
    assert (given.budget, given.arm_timeout) == (0, 0.5)
    assert [getattr(given, name.replace("-", "_")) for name in COUNTS] == [1] * len(COUNTS)


@pytest.mark.parametrize("images", ["nowhere/to/be/found", "", "x" * 5000])
def test_images_that_are_not_there_are_named_as_the_option_is(capsys, images):
    line = refusal(capsys, "--images", images)
    assert line.startswith("--images: must be a folder that exists, or one of synthetic, ")
    assert "cifar10, " in line


def test_synthetic_images_need_numbers(capsys):
    line = refusal(capsys, "--images", "synthetic", "--size", "40", device="cuda")
    assert line == "--images synthetic: --size and --val-size must be given, too"


@pytest.mark.parametrize(("device", "name"), [("cpu", "ours-2"), ("cuda", "ours-17"), ("cuda", "ours-0")])
def test_an_unknown_arm_is_told_the_known_ones(capsys, device, name):
    line = refusal(capsys, "--arms", "ours-1", name, device=device)
    known = line.removeprefix("--arms: must be some of ").removesuffix(f", but got {name}").split(", ")
    assert known == options.names_of_arms(device, options.DEFAULTS[device].plain_trials)
    assert ({f"ours-{slots}" for slots in range(1, 17)} <= set(known)) == (device == "cuda")
    assert {"ours-auto", "plain-0", "fast-compiled"} <= set(known)


def test_an_output_that_is_a_folder_or_cannot_be_made_is_refused_and_nothing_is_left(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert refusal(capsys, "--output", str(tmp_path)).endswith(f"{tmp_path} is a folder")
    assert "Not a directory" in refusal(capsys, "--output", str(tmp_path / "file" / "new" / "out.json"))
    assert "--output: must be a file that can be written" in refusal(capsys, "--output", "/proc/new/out.json")
    assert refusal(capsys, "--output", "/dev/null").startswith("--output: must be a file, but")
    assert refusal(capsys, "--output", "chart.png").startswith("--output: must not end in .png")
    given = options.parse("cpu", ("--images", "digits", "--output", str(tmp_path / "new" / "out.json")))
    assert given.output == tmp_path / "new" / "out.json"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"benchmark": "throu',
        "\x00\x01",
        "[]",
        '{"settings": {}, "measurements": []}',
        '{"benchmark": "scaling", "settings": {}, "measurements": []}',
        '{"benchmark": "throughput-cpu", "settings": {}, "measurements": [{"arm": "ours-1"}]}',
    ],
)
def test_a_file_that_is_damaged_or_something_else_is_not_continued(capsys, tmp_path, text):
    file = tmp_path / "out.json"
    file.write_text(text)
    line = refusal(capsys, "--continue", "--output", str(file))
    assert line.startswith(f"--continue: {file} is ")
    assert file.read_text() == text
    assert options.parse("cpu", ("--images", "digits", "--output", str(file))).output == file


def test_a_file_that_cannot_be_written_to_its_end_stays_as_it_was(tmp_path):
    program = """
import resource
from pathlib import Path
from recording import store
store("throughput-cpu", Path("out.json"), {}, {})
before = Path("out.json").read_text()
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    store("throughput-cpu", Path("out.json"), {}, {})
except OSError:
    print(Path("out.json").read_text() == before)
"""
    assert python(tmp_path, program).communicate()[0] == "True\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "program.py"]


# A whole command.


class Command:
    """``throughput.py`` with a folder for its temporary files."""

    def __init__(self, folder, *words):
        self.temporary, self.output = folder / "t", folder / "out.json"
        self.temporary.mkdir()
        self.process = subprocess.Popen(
            [sys.executable, BENCHMARKS / "throughput.py", *TINY, "--output", self.output, *words],
            env=os.environ | {"TMPDIR": str(self.temporary), "CIFAR_SEARCH_DATA": str(folder / "data")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=as_in_a_shell,
        )

    def folders(self):
        """Its own; the compiler makes one beside it, which is every program's of a user."""
        return list(self.temporary.glob("tmp*"))

    def arm_folders(self):
        return list(self.temporary.glob("tmp*/tmp*"))

    def processes(self):
        """Those at work in the temporary folder, be it there or not."""
        return [int(path.name) for path in Path("/proc").glob("[0-9]*") if self.has(path)]

    def has(self, process):
        with suppress(OSError):
            return str((process / "cwd").readlink()).startswith(str(self.temporary))
        return False

    def until(self, happened):
        """Wait for what happens while it runs."""
        soon(lambda: self.process.poll() is not None or happened())
        assert self.process.poll() is None, self.ended()

    def ended(self):
        """Its exit code, and what it said last."""
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out, err

    def stored(self):
        return json.loads(self.output.read_text())["measurements"]


@pytest.fixture
def start(tmp_path):
    commands = []

    def start(*words):
        commands.append(Command(tmp_path, *words))
        return commands[-1]

    yield start
    for command in commands:
        command.process.kill()
        command.ended()
        for pid in command.processes():
            os.kill(pid, signal.SIGKILL)


def soon(happened):
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def lines_told(command):
    return sum((folder / "stdout").read_text().count("\n") for folder in command.arm_folders())


SIGNALS = [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_signal_ends_the_arm_and_keeps_what_it_had_finished(start, number, code):
    command = start("--arms", "plain-0", "fast-ours", "--trials", "100000")
    command.until(lambda: lines_told(command) >= 2)
    command.process.send_signal(number)
    assert command.ended()[0] == code
    (one,) = command.stored()
    assert (one["arm"], one["cut_off"]) == ("plain-0", True)
    assert 2 <= one["trials_measured"] < 100_000
    assert not command.processes()
    assert not command.folders()


@pytest.mark.slow
def test_a_signal_before_an_arm_has_anything_leaves_the_file_as_it_was(start):
    command = start("--arms", "plain-0", "--trials", "100000")
    command.until(command.processes)
    command.process.terminate()
    code, out, err = command.ended()
    assert (code, out) == (143, "")
    assert err == "throughput.py: ended by SIGTERM: nothing was measured\n"
    assert not command.output.exists()
    assert not command.processes()
    assert not command.folders()


@pytest.mark.slow
def test_a_signal_ends_the_preparation(start):
    command = start("--arms", "plain-0", "--size", "100000")
    command.until(lambda: list(command.temporary.glob("tmp*/synthetic/train/9")))
    command.process.send_signal(signal.SIGINT)
    assert command.ended() == (130, "", "throughput.py: ended by SIGINT: nothing was measured\n")
    assert not command.folders()


@pytest.mark.slow
def test_nothing_outlives_a_command_that_was_killed(start):
    command = start("--arms", "ours-auto", "--trials", "100000")
    # the search, what its workers are forked from, and a worker
    command.until(lambda: len(command.processes()) >= 3)
    command.process.kill()
    assert command.ended()[0] == -9
    soon(lambda: not command.processes())
    soon(lambda: not command.folders())


@pytest.mark.slow
def test_an_arm_that_failed_makes_the_exit_code_one_and_the_others_go_on(start):
    command = start("--arms", "plain-0", "plain-2", "--trials", "1", "--quiet")
    command.until(lambda: plain_search(command))
    os.kill(plain_search(command), signal.SIGKILL)
    code, out, _ = command.ended()
    assert code == 1
    assert out.startswith("round 1, plain-0: it ended with -9\nround 1, plain-2: ")
    assert ["error" in one for one in command.stored()] == [True, False]


def plain_search(command):
    with suppress(OSError):
        for pid in command.processes():
            if b"plain_search.py" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
    return None


@pytest.mark.slow
def test_images_that_cannot_be_divided_are_named_by_this_scripts_options(start):
    command = start("--arms", "plain-0", "--size", "5", "--val-size", "55")
    code, out, err = command.ended()
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("throughput.py: --val-size must leave" if "val" in err else "throughput.py: --size")


@pytest.mark.parametrize(
    ("added", "wanted", "code"),
    [
        ([], 0, 0),  # all was there
        ([], 2, 1),  # all was left out
        ([{"cut_off": True}], 2, 0),
        ([{"cut_off": False}, {"error": "why"}], 2, 1),
        ([{"error": "why"}], 1, 1),
    ],
)
def test_the_exit_code_says_whether_an_arm_failed_or_none_was_measured(added, wanted, code):
    record = throughput.Record("throughput-cpu", Path(), {}, [{"arm": "earlier"}, *added], added)
    assert record.code(wanted) == code


# Signals in a program of its own.


def python(folder, program, **environment):
    path = os.pathsep.join([str(BENCHMARKS), str(BENCHMARKS.parents[1])])
    (folder / "program.py").write_text(program)
    return subprocess.Popen(
        [sys.executable, folder / "program.py"],
        env=os.environ | {"PYTHONPATH": path} | environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=as_in_a_shell,
    )


def test_a_second_signal_does_not_end_the_tidying_up(tmp_path):
    program = """
import os, signal
from stopping import Stop, Stopped
stop = Stop()
try:
    os.kill(os.getpid(), signal.SIGTERM)
except Stopped:
    os.kill(os.getpid(), signal.SIGINT)
    print("tidied up", stop.number.name)
"""
    assert python(tmp_path, program).communicate()[0] == "tidied up SIGTERM\n"


def test_what_the_caller_ignores_is_ignored(tmp_path):
    program = """
import os, signal
from stopping import Stop
signal.signal(signal.SIGHUP, signal.SIG_IGN)
stop = Stop()
os.kill(os.getpid(), signal.SIGHUP)
print(stop.came())
"""
    assert python(tmp_path, program).communicate()[0] == "False\n"


def test_a_terminal_that_was_closed_does_not_change_the_exit_code():
    master, slave = pty.openpty()
    program = "import sys; from stopping import tell; sys.stdin.read(1); tell('a'); tell('b'); sys.exit(129)"
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=BENCHMARKS, stdin=subprocess.PIPE, stdout=slave
    )
    os.close(slave)
    os.close(master)
    process.communicate(b"go")
    assert process.returncode == 129


# The GPU's figures.


STAND_IN = """#!/bin/sh
echo "2026/01/01 00:00:00.000, 25, 100"
case "$*" in *-lms*) echo $$ > "{file}"; exec sleep 600;; esac
"""


@pytest.fixture
def path_with_stand_in(tmp_path):
    """A search path on which ``nvidia-smi`` writes its number into a file, and does not end."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "nvidia-smi").write_text(STAND_IN.format(file=tmp_path / "number"))
    (folder / "nvidia-smi").chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def is_alive(pid):
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_figures_are_not_known_where_nvidia_smi_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with guarding.Guard() as guard:
        ran = watching.watch([sys.executable, "-c", ""], tmp_path, "cuda", guard)
    assert shutil.which("nvidia-smi") is None
    assert (ran.code, ran.figures["idle_share"], ran.figures["peak_memory_mib"]) == (0, None, None)
    assert ran.idle_share(ran.begin, ran.end) is None


def test_figures_are_read_where_it_is_there(tmp_path, monkeypatch, path_with_stand_in):
    monkeypatch.setenv("PATH", path_with_stand_in)
    number = tmp_path / "number"
    wait = f"import os, time\nwhile not os.path.exists({str(number)!r}): time.sleep(0.05)"
    with guarding.Guard() as guard:
        ran = watching.watch([sys.executable, "-c", wait], tmp_path, "cuda", guard)
    assert (ran.figures["idle_share"], ran.figures["peak_memory_mib"]) == (0.75, 0)
    assert not is_alive(int(number.read_text()))


def test_nvidia_smi_and_orphans_die_with_a_command_that_was_killed(tmp_path, path_with_stand_in):
    child = f"echo $$ > {tmp_path}/child; exec sleep 600"
    program = f"""
from pathlib import Path
from guarding import Guard
from watching import watch
with Guard() as guard:
    watch(["sh", "-c", {f"sh -c '{child}' & wait"!r}], Path(), "cuda", guard)
"""
    process = python(tmp_path, program, PATH=path_with_stand_in)
    files = [tmp_path / "number", tmp_path / "child"]
    soon(lambda: all(file.exists() and file.read_text() for file in files))
    numbers = [int(file.read_text()) for file in files]
    assert all(map(is_alive, numbers))
    os.killpg(process.pid, signal.SIGKILL)  # with all that a terminal's signals would reach
    process.communicate()
    soon(lambda: not any(map(is_alive, numbers)))
