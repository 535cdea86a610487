"""What people see: numbers, curves, the live view, plain lines, and the commands to type next."""

import io

import pytest
from rich.console import Console

from search.screen import PlainScreen, live_view
from search.tables import closing_lines, next_commands, summary_view
from studies.progress import Ended, Progress, Running
from studies.summary import Entry, GivenUp, Level, Summary
from studies.text import duration, percent, settings, sparkline

DEFAULT = "sqlite:///cifar-search.db"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (4.21, "4.2 s"), (59.4, "59 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_durations_are_said_as_people_say_them(seconds, text):
    assert duration(seconds) == text


def test_a_sparkline_is_higher_where_values_are_and_no_wider_than_asked():
    assert sparkline([0.0, 0.5, 1.0]) == "▁▅█"
    assert sparkline([]) == ""
    long = sparkline([i / 99 for i in range(100)], width=20)
    assert len(long) == 20
    assert list(long) == sorted(long)
    assert (long[0], long[-1]) == ("▁", "█")


def test_settings_are_named_by_the_last_part_of_their_path():
    shown = settings({"optimizer.lr@sgd": 0.0512345, "model.dropout": 0.3, "augmentation": "flip"})
    assert shown == "lr@sgd 0.0512, dropout 0.3, augmentation flip"
    assert percent(0.98765) == "98.77 %"
    assert percent(None) == "-"


ENDED = Ended(1, 4, "finished", 0.91, 30, 61.0, {"optimizer.lr": 0.1}, "")
PRUNED = Ended(2, 5, "pruned", 0.95, 10, 20.0, {"optimizer.lr": 0.2}, "")


EARLIER: frozenset[int] = frozenset()


def progress(*ended: Ended, left: float | None = 90.0) -> Progress:
    running = (Running(7, {"optimizer.lr": 0.3}, (0.1, 0.5), "lab-3:4711"),)
    return Progress(total=10, epochs=30, running=running, ended=ended, earlier=EARLIER, seconds_left=left)


def rendered(view: object) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(view)
    return console.file.getvalue()


def test_the_live_view_shows_progress_running_trials_counts_and_the_best():
    shown = rendered(live_view(progress(ENDED, PRUNED), False, "12:00:00"))
    for part in (
        "2/10",
        "about 1 min 30 s left",
        "#7",
        "lab-3:4711",
        "2/30",
        "50.00 %",
        "lr 0.3",
        "1 finished, 1 pruned",
    ):
        assert part in shown
    assert "best 91.00 % (trial 4" in shown
    assert "stopping at the end of the epoch" in rendered(live_view(progress(), True, ""))


def test_off_a_terminal_each_trial_is_a_line_and_the_estimate_comes_once():
    screen = PlainScreen(Console(file=io.StringIO(), width=40))
    screen.update(progress(left=None), False)
    screen.update(progress(), False)
    screen.update(progress(ENDED), False)
    screen.update(progress(ENDED, PRUNED), False)
    lines = screen.console.file.getvalue().splitlines()
    assert lines[0] == "about 1 min 30 s to go, by the first epochs"
    assert lines[1].startswith("[1/10, 1 min 30 s left] trial 4 finished at epoch 30, 91.00 %")
    assert lines[2].startswith("[2/10, 1 min 30 s left] trial 5 pruned at epoch 10")
    assert len(lines) == 3


def test_the_end_of_a_search_names_repeated_attempts_and_the_slots_given_up():
    lines = closing_lines(SUMMARY)
    assert "further attempts: 2 killed" in lines
    assert "trial 7 makes no sense, and is left out: its slot must be a whole number, but is 'x'" in lines
    assert (
        "trial 1 counts without its parameter model.dropout, which makes no sense: must be a number, but got "
        "'x'"
    ) in lines
    assert "2 trial(s) of other programs are left out" in lines
    given_up = "slot 2 was given up after 3 attempt(s), the last one trial 4: error: "
    assert f"{given_up}IndexError: list index out of range" in lines


SUMMARY = Summary(
    name="it's mine",
    space="tiny",
    question="Why?",
    dataset="digits",
    train_images=100,
    val_images=400,
    epochs=30,
    total=3,
    closed=3,
    ended={"finished": 2, "pruned": 1},
    repeated={"killed": 2},
    given_up=(GivenUp(2, 4, 3, "error", "IndexError: list index out of range"),),
    senseless={7: "its slot must be a whole number, but is 'x'"},
    misfits={1: {"model.dropout": "must be a number, but got 'x'"}},
    foreign=2,
    eager=(),
    attempts=4,
    leaderboard=(Entry(0.9, 2, 0.01, (1, 3), {"model.dropout": 0.25}, 61.0, "f"),),
    levels=(Level("model.dropout", "0.25", 3, 1, 0.91, 0.9),),
    importances={"model.dropout": 0.75},
    seconds_trained=130.0,
    seconds_saved=42.0,
    device=("CPU",),
    environments={},
    notices=("continued elsewhere",),
)


def test_the_summary_says_of_how_many_runs_and_how_sure():
    shown = rendered(summary_view(SUMMARY))
    for part in ("90.00 % ± 1.00", "1, 3", "400 images", "1.50 points", "described, not tested", "75 %"):
        assert part in shown
    for part in (
        "3 of 3 trials closed: 2 finished, 1 pruned",
        "pruning saved about 42 s",
        "continued elsewhere",
    ):
        assert part in shown


def test_next_commands_can_be_typed_and_never_hold_a_password():
    assert next_commands(SUMMARY, DEFAULT, DEFAULT)[0] == "cifar-search show 'it'\"'\"'s mine'"
    typed = next_commands(SUMMARY, "postgresql://me:hidden@host/db", DEFAULT)
    assert typed[-1] == 'cifar-search dashboard --storage "$CIFAR_SEARCH_STORAGE"'
    assert all(line.endswith('--storage "$CIFAR_SEARCH_STORAGE"') for line in typed)
    assert "hidden" not in " ".join(typed)
