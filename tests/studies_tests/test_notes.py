"""Notes: the dashboard's own, in which people's words and the generated part stay apart."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing

import optuna_dashboard
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from optuna.storages import RDBStorage
from test_summary import claim, make_study, run

from spaces.text import plain_letters
from studies import notes
from studies.notes import BEGIN, END, add_note, escape_markdown, note_of, set_generated, written_note
from studies.storage import open_storage
from studies.study import SearchStudy


@pytest.fixture
def storage(sqlite_url: str) -> Iterator[RDBStorage]:
    with closing(open_storage(sqlite_url, create=True)) as storage:
        yield storage


@pytest.fixture
def study(storage: RDBStorage) -> SearchStudy:
    study = make_study(storage, "s", 20)
    run(study, 0.5)
    return study


def test_a_note_is_what_the_dashboard_reads_and_writes(study: SearchStudy) -> None:
    assert note_of(study) == ""
    add_note(study, "first words")
    assert optuna_dashboard.get_note(study.optuna) == note_of(study)
    optuna_dashboard.save_note(study.optuna, "replaced in the browser")
    add_note(study, "more words")
    assert note_of(study).startswith("replaced in the browser\n\n**20")
    assert note_of(study).endswith(" UTC**\n\nmore words\n")


def test_notes_of_trials_and_of_the_study_are_apart(study: SearchStudy) -> None:
    running = claim(study).trial
    add_note(study, "of the trial", study.trials()[0])
    optuna_dashboard.save_note(running, "of the running one")
    assert note_of(study) == ""
    assert note_of(study, study.trials()[0]).endswith("of the trial\n")
    assert note_of(study, study.trials()[1]) == "of the running one"


def test_long_notes_are_kept_whole_on_every_database(database_url: str) -> None:
    with closing(open_storage(database_url, create=True)) as storage:
        study = make_study(storage, "s", 20)
        for length in (2044, 2045, 2046, 9000):
            text = "".join(chr(0x1F300 + index % 99) for index in range(length))
            optuna_dashboard.save_note(study.optuna, "")
            add_note(study, text)
            assert written_note(study).endswith("**\n\n" + text)
        optuna_dashboard.save_note(study.optuna, "short")
        assert note_of(study) == "short"


def test_the_generated_part_never_touches_what_people_wrote(study: SearchStudy) -> None:
    set_generated(study, "one")
    optuna_dashboard.save_note(study.optuna, f"above\n{note_of(study)}below")
    set_generated(study, "two\nlines")
    assert note_of(study) == f"above\n{BEGIN}\n\ntwo\nlines\n\n{END}\nbelow"
    assert written_note(study) == "above\n\nbelow"
    add_note(study, "later")
    set_generated(study, "three")
    assert written_note(study).startswith("above\n\nbelow\n\n**20")
    assert note_of(study).count(BEGIN) == note_of(study).count("three") == 1


@pytest.mark.parametrize(
    "broken", [f"{BEGIN}\nmine", f"mine\n{END}\nmine too", f"{END}\nmine\n{BEGIN}\nmine"]
)
def test_a_marker_that_lost_its_partner_swallows_nothing(study: SearchStudy, broken: str) -> None:
    optuna_dashboard.save_note(study.optuna, broken)
    for text in ("one", "two"):
        set_generated(study, text)
        assert note_of(study) == f"{broken}\n\n{BEGIN}\n\n{text}\n\n{END}\n"


def test_markers_within_the_generated_part_are_dropped(study: SearchStudy) -> None:
    set_generated(study, f"a\n{END}\nb\n{BEGIN}\nc")
    set_generated(study, "d")
    assert note_of(study) == f"{BEGIN}\n\nd\n\n{END}\n"


def test_what_has_not_changed_is_not_written_again(
    study: SearchStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_generated(study, "same")
    monkeypatch.setattr(notes, "save_note", pytest.fail)
    set_generated(study, "same")


@pytest.mark.parametrize("text", ["", " \n", "x" * 20_001, "a\0b", "\udcff", "\x1b[2J"])
def test_what_is_no_note_is_refused(study: SearchStudy, text: str) -> None:
    with pytest.raises(ValueError, match=r"^a note must "):
        add_note(study, text)
    assert note_of(study) == ""


def text_of(html: str) -> str:
    """What a page shows of a paragraph, or the HTML itself where it holds any element."""
    inner = re.fullmatch(r"<p>([^<>]*)</p>\n|", html)
    assert inner, html
    shown = inner[1] or ""
    for entity, sign in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&amp;", "&")):
        shown = shown.replace(entity, sign)
    return shown


NASTY = st.text(st.sampled_from("<>&\"'`*_[]()!#+-.=|~$:/@\\^{}\t 1aW\n") | st.characters(codec="utf-8"))


@given(NASTY)
def test_escaped_text_shows_itself_and_nothing_else(text: str) -> None:
    page = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    expected = " ".join(plain_letters(text).split())
    assert text_of(page.render(escape_markdown(text))) == expected


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("dropout 0.3, lr 5e-4", "dropout 0.3, lr 5e-4"),
        ("<img src=x onerror=alert(1)>", r"\<img src=x onerror=alert(1)\>"),
        ("a\n# b", "a # b"),
        ("1. a", r"1\. a"),
        ("https://a.b www.a.b a@b.c", r"https\://a.b www\.a.b a\@b.c"),
        ("$x$", r"\$x\$"),
    ],
)
def test_escapes_are_as_few_as_will_do(text: str, escaped: str) -> None:
    assert escape_markdown(text) == escaped
