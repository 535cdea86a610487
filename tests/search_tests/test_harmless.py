"""What comes from elsewhere commands no terminal, and no message shows a password that was typed."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import optuna
import pytest
import warm
from made_studies import GRID, make_study, run_all
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text
from running import Command, start

from search.console import HarmlessConsole
from search.harmless import secrets_of, without_commands, without_secrets
from spaces.text import brief
from studies.storage import open_storage

__all__ = ["start"]

EVIL = "a\x1b]0;mine\x07\x1b[2J\x9b31m\x1b]8;;http://evil\x1b\\b\x7f\u202ec\rd"
"""Sets a terminal's title, clears it, colours, makes a link, and reverses and overwrites the line."""
COLOURS = re.compile(r"\x1b\[[0-9;]*m|\r\n")
"""What Rich and the terminal itself put into what is shown."""
Start = Callable[..., Command]


def shown(command: Command) -> str:
    """All that the terminal got, but for colours and the ends of lines."""
    command.ended()
    return COLOURS.sub("\n", command.output)


def is_harmless(text: str) -> bool:
    return not re.search(r"[\0-\x08\x0b-\x1f\x7f-\x9f\u202e]", text) and "\x1b" not in text


@pytest.mark.parametrize(
    "words",
    [
        ["show", EVIL],
        [EVIL],
        [f"--{EVIL}"],
        ["run", "--space", EVIL],
        ["verify", f"{EVIL}.yaml"],
        ["predict", EVIL, EVIL],
        ["studies", "--storage", f"sqlite:///{EVIL}.db"],
        ["studies", "--storage", f"mysql://{EVIL}@h/d"],
    ],
    ids=lambda words: " ".join(words).encode("unicode_escape").decode().replace("\\", "")[:30],
)
def test_no_argument_reaches_the_terminal_as_a_command(start: Start, words: list[str]) -> None:
    command = start(*words, terminal=True)
    text = shown(command)
    assert command.ended() == 2
    assert text.startswith("cifar-search: ")
    assert is_harmless(text), repr(text)


def test_no_name_in_a_database_or_folder_reaches_the_terminal_as_a_command(
    start: Start, tmp_path: Path
) -> None:
    url, name = f"sqlite:///{tmp_path}/cifar-search.db", EVIL.replace("/", "")
    optuna.create_study(storage=url, study_name=EVIL)
    with closing(open_storage(url, create=True)) as storage:
        run_all(make_study(storage, GRID, 2, "s"), lambda drawn: 0.5)
    (tmp_path / name / "train" / "cat").mkdir(parents=True)
    for words in (["studies"], ["data", name], ["report", "s", "-o", f"{name}.html"]):
        text = shown(start(*words, terminal=True))
        assert "c" in text
        assert is_harmless(text), repr(text)


def test_a_table_shows_a_replacement_for_each_character_that_commands() -> None:
    table = Table("name", "value")
    table.add_row(Text(f"x{EVIL}"), "1")
    console = HarmlessConsole(file=io.StringIO(), width=100, force_terminal=True, color_system="truecolor")
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    text = COLOURS.sub("", console.file.getvalue())
    assert is_harmless(text), repr(text)
    assert "xa\N{REPLACEMENT CHARACTER}]0;mine" in text
    widths = {cell_len(line) for line in text.splitlines()}
    assert len(widths) == 1, text


def test_text_stays_as_it_is_and_progress_bars_of_downloads_move(tmp_path: Path) -> None:
    usual = "naïve\tシ\N{ZERO WIDTH JOINER}é\n"
    assert without_commands(usual) == usual
    assert without_commands("\x1b[0m\x9b\u202e") == r"\x1b[0m\x9b\u202e"
    script = tmp_path / "script.py"
    script.write_text(
        r"from search.output import open_streams; open_streams(); print('\r 5%|#', end=''); print('a\rb')"
    )
    done = warm.run([], cwd=tmp_path, script=str(script))
    assert done.stdout == "\n 5%|#a\\rb\n", "read with the return as the end of a line"


SECRET = "ge%40heim"
URLS = [
    f"mysql://u:{SECRET}@h/d",
    f"postgresql+psycopg://u:{SECRET}@h:5432/d?sslmode=require",
    f"mysql://h/d?user=u&password={SECRET}",
    "mysql://u:geheim@x@h/d",
    "mysql://u:ge/heim@h/d",
    "mysql://u:ge heim@h/d",
    "mysql://u:ge'heim\\@h/d",
    f"mysql://u:{'geheim' * 20}@h/d",
    "mysql://u:geheim",
]
MESSAGES = [
    lambda url: f"No such command '{url}'.",
    lambda url: f"--space: unknown space {brief(url)}: known are a, b",
    lambda url: f"{Path(url)}: cannot be read",
    lambda url: f"Got unexpected extra argument ({url})",
    lambda url: f"No such option: --{url}",
]
LEFT = re.compile("heim|%40|@x|:ge[/ ']")
"""Of a password."""


@pytest.mark.parametrize("url", URLS)
def test_no_form_of_a_password_is_shown(url: str) -> None:
    for message in MESSAGES:
        for word in (url, f"--option={url}"):
            text = without_secrets(message(url), secrets_of(["show", word]))
            assert not LEFT.search(text), text
            assert "***" in text


@pytest.mark.parametrize(
    "words",
    [["{}"], ["ablate", "--", "{}"], ["show", "--stor={}", "s"], ["verify", "{}"], ["show", "s", "{}"]],
    ids=" ".join,
)
def test_a_password_typed_in_a_wrong_place_is_not_shown(tmp_path: Path, words: list[str]) -> None:
    done = warm.run([word.format(URLS[0]) for word in words], cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert not LEFT.search(done.stderr), done.stderr


def test_only_passwords_are_masked() -> None:
    secrets = secrets_of(["run", "--storage=mysql://u:a@h/d", "sqlite:///a.db", "http://[::1]:80/x", "u:b@c"])
    assert secrets == ("a",)
    text = "a study named a, at mysql://u:a@h/d, http://127.0.0.1:8080/"
    assert without_secrets(text, secrets) == "a study named a, at mysql://u:***@h/d, http://127.0.0.1:8080/"
