"""The report: what it says of real studies, that it loads nothing, and that no text in it becomes markup."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import RDBStorage
from test_summary import SPACE, claim, end, run

from spaces.space import Space
from studies.notes import add_note
from studies.record import CONFUSION, DataRecord, SplitRecord, StudyRecord
from studies.report import make_report, render, write_tables
from studies.report.commands import Commands
from studies.report.content import unique_slugs
from studies.report.journal import note_html
from studies.storage import open_storage
from studies.study import SearchStudy, open_study

EVIL = ["<script>alert(1)</script>", "</script><img src=x onerror=alert(2)>", '"onload="alert(3)', "{{7*7}}'"]
URL = "sqlite:///there.db"


@pytest.fixture
def storage(sqlite_url: str) -> Iterator[RDBStorage]:
    with closing(open_storage(sqlite_url, create=True)) as storage:
        yield storage


def make_evil_study(storage: RDBStorage, name: str, question: str = "What?") -> SearchStudy:
    """A search in which everything that users name is an attempt to inject something."""
    text = SPACE.replace("question: What?", f"question: {json.dumps(question)}")
    space = Space.read(text, "mine", "mine")
    split = SplitRecord(seed=0, val_size=0.1, train_size=None, hash="s", train_images=900, val_images=100)
    data = DataRecord(name=EVIL[0], hash="d", classes=(EVIL[1], EVIL[2]), shape=(8, 8, 1), source=EVIL[3])
    described = StudyRecord(
        space_name=EVIL[0], space=space.to_yaml(), space_fingerprint=space.fingerprint(), data=data,
        split=split, epochs=10, precision="fp32", seed=0, sampler="random", pruner="none", changes=(EVIL[1],),
    )  # fmt: skip
    return open_study(storage, name, described, 20)


@pytest.fixture
def evil(storage: RDBStorage) -> SearchStudy:
    study = make_evil_study(storage, EVIL[0], EVIL[1])
    end(study, claim(study), "error", message=EVIL[1], epochs=2)
    of = claim(study)
    storage.set_trial_user_attr(of.trial_id, CONFUSION, [[40, 10], [5, 45]])
    end(study, of, "finished", device=EVIL[2], versions={EVIL[0]: EVIL[1]})
    run(study, 0.6)
    study.add_notice(EVIL[0])
    for text in EVIL:
        add_note(study, f"{text} ![x](http://evil/x.png) [go](javascript:alert(4)) <b>bold</b>")
        add_note(study, text, study.trials()[0])
    return study


class Page(HTMLParser):
    """All elements of a page and its text outside of scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._within = ""
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._within = tag

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within == "script":
            self.scripts.append((self.elements[-1][1], data))
        elif self._within != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


ELEMENTS = {
    "html", "head", "meta", "title", "style", "body", "header", "p", "h1", "h2", "h3", "h4", "nav",
    "ul", "li", "a", "section", "dl", "dt", "dd", "pre", "figure", "div", "script", "figcaption",
    "table", "caption", "thead", "tr", "th", "tbody", "td", "details", "summary", "article", "span",
    "svg", "polyline", "noscript", "footer", "strong", "em", "code",
}  # fmt: skip


def test_nothing_that_users_wrote_is_markup_or_script(storage: RDBStorage, evil: SearchStudy) -> None:
    page = Page(render(make_report(storage, [evil.name], URL, URL, resamples=2)))
    assert {tag for tag, _ in page.elements} <= ELEMENTS
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        assert not (attributes.get("href") or "#").lower().startswith(("javascript", "data")), attributes
    assert "{{7*7}}" in page.text  # and not what a second rendering would make of it
    for text in EVIL[:3]:
        assert text in page.text
    runnable = [text for attributes, text in page.scripts if attributes.get("type") != "application/json"]
    assert len(runnable) == 2
    assert not any(
        word in text for word in ("alert(1)", "alert(2)", "alert(3)", "alert(4)") for text in runnable
    )


def test_the_page_loads_nothing_and_only_its_own_scripts_may_run(
    storage: RDBStorage, evil: SearchStudy
) -> None:
    html = render(make_report(storage, [evil.name], URL, URL, resamples=2))
    page = Page(html)
    for tag, attributes in page.elements:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form"), tag
        assert "src" not in attributes
        assert tag == "a" or "href" not in attributes
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert style
    assert not re.search(r"url\(|@import", style[1])
    policy = next(a["content"] or "" for tag, a in page.elements if a.get("http-equiv"))
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    allowed = set(re.findall(r"'sha256-([^']+)'", policy))
    runnable = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    hashes = {base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in runnable}
    assert hashes == allowed
    assert sum("Plotly" in text and len(text) > 10**6 for text in runnable) == 1  # embedded once


def test_figures_in_the_page_are_those_of_the_charts(storage: RDBStorage, evil: SearchStudy) -> None:
    report = make_report(storage, [evil.name], URL, URL, resamples=2)
    html = render(report)
    page = Page(html)
    stored = {a["id"]: json.loads(t) for a, t in page.scripts if a.get("type") == "application/json"}
    charts = dict(report.charts())
    assert {f"{name}-data" for name in charts} == set(stored)
    for name, chart in charts.items():
        assert stored[f"{name}-data"] == json.loads(chart.figure.to_json()), name
    ids = [a["id"] for _, a in page.elements if a.get("id")]
    assert len(ids) == len(set(ids))
    links = [
        (a["href"] or "")[1:] for tag, a in page.elements if tag == "a" and (a["href"] or "").startswith("#")
    ]
    assert set(links) <= set(ids)


@pytest.fixture
def searched(storage: RDBStorage) -> SearchStudy:
    study = make_evil_study(storage, "s")
    run(study, 0.5)
    run(study, 0.7, model__dropout=0.1, optimizer__lr=0.2)
    end(study, claim(study, model__normalization="none"), "pruned", 0.3, 4, seconds=8.0)
    return study


def test_a_report_has_all_sections_and_says_what_would_fill_the_empty_ones(storage, searched) -> None:  # type: ignore[no-untyped-def]
    page = Page(render(make_report(storage, ["s"], URL, URL, resamples=2)))
    for title in (
        "In short", "Data and split", "Method", "Learning curves", "Leaderboard", "How the search went",
        "Effects", "Finalists", "Ablation", "Accuracy against cost", "Confusion matrix",
        "What pruning saved, and whom it hit", "Looks at the test split", "How to repeat it", "Journal",
    ):  # fmt: skip
        assert title in page.text
    for command in ("confirm s --top 5 --seeds 5", "ablate s --seeds 3", "export s", "retrain best.yaml"):
        assert f"cifar-search {command}" in page.text
    assert "70.00 % (trial 1, one run, on 100 validation images" in page.text
    assert "1 of 3 trials were pruned; they trained 4 epochs and were spared 6" in page.text
    assert "has not been looked at" in page.text


def test_the_journal_has_every_attempt_with_differences_results_observations_and_notes(
    storage, searched
) -> None:  # type: ignore[no-untyped-def]
    add_note(searched, "my *motivation*")
    add_note(searched, "surprising", searched.trials()[2])
    report = make_report(storage, ["s"], URL, URL, resamples=2)
    first, second, third = report.studies[0].journal
    assert (first.number, first.state, first.accuracy) == (0, "finished", "50.00 %")
    assert ("model.dropout", "0", "0.1") in second.differences
    assert "model.dropout" not in [path for path, _, _ in first.differences]
    assert "model.dropout" in first.same
    assert third.state == "pruned"
    assert third.observations[0].text == "pruned after epoch 4 at 30.0 %"
    assert "surprising" in third.note
    assert not first.note
    assert "<em>motivation</em>" in report.studies[0].note
    assert len(second.val_points.split()) == 10
    highest = min(float(point.split(",")[1]) for point in second.val_points.split())
    assert highest == pytest.approx(3)  # the best value of all reaches the top of the box


def test_the_commands_repeat_the_study_exactly(storage: RDBStorage, searched: SearchStudy) -> None:
    command = Commands(searched, URL, "sqlite:///other.db").run()
    assert command == (
        "cifar-search run --space '<script>alert(1)</script>.yaml' --dataset '{{7*7}}'\"'\"'' --val-size 0.1 "
        "--epochs 10 --trials 20 --seed 0 --sampler random --pruner none --precision fp32 --study s "
        "--storage sqlite:///there.db"
    )


def test_no_password_is_in_the_page(storage: RDBStorage, searched: SearchStudy) -> None:
    html = render(make_report(storage, ["s"], "postgresql://me:se%40cret@host/db", URL, resamples=2))
    assert "se%40cret" not in html
    assert "se@cret" not in html
    assert "postgresql://me:***@host/db" in html
    assert "--storage &#34;$CIFAR_SEARCH_STORAGE&#34;" in html


def test_several_studies_are_compared(storage: RDBStorage, searched: SearchStudy) -> None:
    run(make_evil_study(storage, "t"), 0.6)
    report = make_report(storage, ["s", "t"], URL, URL, resamples=2)
    assert report.comparison is not None
    assert [chart.name for chart in report.comparison.charts] == ["best-against-trials", "best-against-time"]
    [(_, table)] = report.comparison.tables
    assert [row[6] for row in table.rows] == [0.7, 0.6]
    page = Page(render(report))
    assert "2 studies compared" in page.text
    ids = [a["id"] for _, a in page.elements if a.get("id")]
    assert len(ids) == len(set(ids))


def test_a_study_without_trials_has_a_report_too(storage: RDBStorage) -> None:
    make_evil_study(storage, "empty")
    page = Page(render(make_report(storage, ["empty"], URL, URL, resamples=2)))
    assert "No trial has completed yet." in page.text
    assert "No trial yet." in page.text


def test_names_for_files_are_safe_and_no_two_alike() -> None:
    assert unique_slugs(["comparison"]) == ["comparison-2"]
    assert unique_slugs(["a/b", "a b", "A-B", "../../x", "..", "\u00e9", "x" * 200]) == [
        "a-b", "a-b-2", "A-B-3", "x", "study", "study-2", "x" * 60,
    ]  # fmt: skip


def test_tables_are_written_where_they_belong(storage: RDBStorage, evil: SearchStudy, tmp_path: Path) -> None:
    report = make_report(storage, [evil.name], URL, URL, resamples=2)
    files = write_tables(report, tmp_path / "figures")
    assert {file.name for file in (tmp_path / "figures").iterdir()} == {file.name for file in files}
    assert len(files) == len(report.charts()) > 4
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written to"):
        write_tables(report, tmp_path / "file")


@pytest.mark.parametrize(
    ("markdown", "html"),
    [
        ("**a** `b`", "<p><strong>a</strong> <code>b</code></p>\n"),
        ("<b>a</b>", "<p>&lt;b&gt;a&lt;/b&gt;</p>\n"),
        ("![x](http://e/x.png)", '<p>!<a href="http://e/x.png">x</a></p>\n'),
        ("[a](javascript:alert(1))", "<p>[a](javascript:alert(1))</p>\n"),
        ("", ""),
    ],
)
def test_notes_are_markdown_without_html_and_pictures(markdown: str, html: str) -> None:
    assert note_html(markdown) == html


def browser() -> str | None:
    return next(
        (path for name in ("chromium", "google-chrome", "chrome") if (path := shutil.which(name))), None
    )


@pytest.mark.slow
@pytest.mark.skipif(browser() is None, reason="no chromium, google-chrome or chrome on the PATH")
def test_a_browser_draws_every_figure_without_a_complaint(storage, evil, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    report = make_report(storage, [evil.name], URL, URL, resamples=2)
    (tmp_path / "report.html").write_text(render(report), encoding="utf-8")
    words: list[Any] = [
        browser(), "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom",
        "--virtual-time-budget=20000", f"--user-data-dir={tmp_path / 'profile'}",
        (tmp_path / "report.html").as_uri(),
    ]  # fmt: skip
    result = subprocess.run(words, capture_output=True, text=True, timeout=240, check=True)
    assert "CONSOLE" not in result.stderr, [line for line in result.stderr.splitlines() if "CONSOLE" in line]
    drawn = re.findall(r'<div class="figure js-plotly-plot" id="([^"]+)"', result.stdout)
    assert drawn == [name for name, _ in report.charts()]
    assert result.stdout.count('class="main-svg"') >= len(drawn)


@pytest.mark.slow
@pytest.mark.skipif(browser() is None, reason="no chromium, google-chrome or chrome on the PATH")
@pytest.mark.parametrize("kind", ["png", "svg"])
def test_pictures_are_drawn_by_a_browser(storage, searched, tmp_path: Path, kind: Any) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("kaleido", reason="kaleido is not installed")
    from studies.report import write_pictures

    files = write_pictures(make_report(storage, ["s"], URL, URL, resamples=2), tmp_path / "figures", kind)
    assert len(files) > 5
    for file in files:
        start = file.read_bytes()[:200]
        assert start.startswith(b"\x89PNG") if kind == "png" else b"<svg" in start
