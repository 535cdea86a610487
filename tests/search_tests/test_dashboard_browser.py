"""The dashboard in a real browser: Debian's chromium, driven through Selenium.

Set $CIFAR_SEARCH_TEST_SCREENSHOTS to a folder to keep a picture of every page that is looked at.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from dashboard_studies import EVIL, make_ablation, make_foreign, make_plan, make_search
from test_dashboard import dashboard

from search.dashboard import content
from search.dashboard.refresh import Refresher
from studies.artifacts import artifact_folder
from studies.notes import add_note
from studies.storage import open_storage

pytestmark = pytest.mark.slow
PATIENCE = 60
"""Seconds to wait for something to be shown."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A chromium without a window."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs Selenium: pip install selenium")
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (program and driver):
        why = "no browser: apt-get install chromium chromium-driver"
        (pytest.fail if os.environ.get("CIFAR_SEARCH_TEST_BROWSER") else pytest.skip)(why)
    options = webdriver.ChromeOptions()
    options.binary_location = program
    profile = tmp_path_factory.mktemp("profile")
    for word in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-dev-shm-usage",
        "window-size=1400,2400",
    ):
        options.add_argument(f"--{word}")
    options.add_argument(f"--user-data-dir={profile}")
    options.set_capability("unhandledPromptBehavior", "ignore")  # so that an alert would be noticed
    service = webdriver.ChromeService(executable_path=driver)
    started = webdriver.Chrome(options=options, service=service)
    try:
        yield started
    finally:
        started.quit()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A dashboard of four studies with all that they show: the first an ordinary one, the third made of text
    that would like to be markup."""
    folder = tmp_path_factory.mktemp("dashboard")
    url = f"sqlite:///{folder / 'a.db'}"
    with closing(open_storage(url, create=True)) as storage:
        study = make_search(storage, "digits-search", 12)
        add_note(study, "Why **this** question?")
        make_foreign(storage, "theirs")
        evil = make_search(storage, EVIL, 6, class_name=EVIL, question=EVIL, option=EVIL)
        add_note(evil, EVIL)
        make_plan(storage, study)
        make_plan(storage, evil)
        make_ablation(storage, study, blocks=2)
        said: list[str] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(content, "TOP", 1)  # pictures take long; the dashboard itself draws the others
            patch.setattr(content, "MOST_ENTRIES", 0)
            Refresher(url, artifact_folder(url), said.append).refresh(storage)
        assert said == []
    with dashboard(folder, "--storage", "sqlite:///a.db") as (process, shown_at):
        yield shown_at
        process.terminate()
        assert process.wait(30) == 0


def look(browser: Any, address: str, page: str, until: str) -> str:
    """Open a page, wait for a text, keep a picture of it if that is wanted, and return the page's text."""
    browser.get(address + page)
    body = lambda: str(browser.execute_script("return document.body.innerText"))  # noqa: E731
    _wait(lambda: until in body(), f"{until!r} on {page}: {body()[:2000]}")
    time.sleep(1)  # until pictures and figures are drawn, for the screenshot alone
    if folder := os.environ.get("CIFAR_SEARCH_TEST_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        name = page.replace("/", "-").replace("?", "-")
        browser.save_screenshot(str(Path(folder) / f"{name}.png"))
    return body()


def _wait(for_it: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not for_it():
        assert time.monotonic() < end, f"not shown: {what}"
        time.sleep(0.1)


def script(browser: Any, code: str) -> Any:
    """What JavaScript finds on the page."""
    return browser.execute_script(f"return {code}")


def assert_harmless(browser: Any) -> None:
    """No text of others has become a part of the page."""
    assert script(browser, "document.title") == "Optuna Dashboard"
    assert script(browser, "document.querySelectorAll('#planted, img[src=x], [onerror]').length") == 0
    assert script(browser, "[...document.links].filter(a => a.href.startsWith('javascript')).length") == 0


def test_the_list_has_all_studies(browser: Any, address: str) -> None:
    text = look(browser, address, "dashboard", "digits-search")
    for name in ("digits-search", "digits-search/confirm", "digits-search/ablate", "theirs"):
        assert name in text
    assert_harmless(browser)


def test_a_study_has_its_note_and_the_persons_words(browser: Any, address: str) -> None:
    text = look(browser, address, "dashboard/studies/1/note", "Which optimizer, and how much dropout?")
    assert "cifar-search confirm digits-search --top 5 --seeds 5" in text
    cells = script(browser, "[...document.querySelectorAll('td')].map(cell => cell.innerText)")
    assert {"optimizer.momentum", "optimizer.name is sgd", "nuisance"} <= set(cells)
    assert script(browser, "[...document.querySelectorAll('strong')].some(e => e.innerText == 'this')")


def test_a_trial_has_its_note_and_its_pictures(browser: Any, address: str) -> None:
    text = look(browser, address, "dashboard/studies/1/trials?numbers=3", "learning-curves.png")
    assert "finished with 89.49 % validation accuracy (one run) at epoch 6 of 6" in text
    assert "setting that differs" in text
    assert "confusion-matrix.png" in text
    assert "trial-3.yaml" in text
    drawn = "[...document.querySelectorAll('img[src*=artifacts]')].map(i => [i.complete, i.naturalWidth])"
    _wait(lambda: all(complete for complete, _ in script(browser, drawn)), "pictures")
    assert [width > 400 for _, width in script(browser, drawn)] == [True, True]


def test_a_study_has_our_figures(browser: Any, address: str) -> None:
    look(browser, address, "dashboard/studies/1", "Accuracy against cost")
    titles = "[...document.querySelectorAll('.gtitle')].map(title => title.textContent)"
    for beginning in ("Accuracy against cost", "Finalists", "Ablation", "Levels"):
        _wait(lambda b=beginning: any(t.startswith(b) for t in script(browser, titles)), beginning)
    points = script(browser, "document.querySelectorAll('.js-plotly-plot path.point').length")
    assert points > 12


def test_a_plan_has_a_note_and_its_result(browser: Any, address: str) -> None:
    text = look(browser, address, "dashboard/studies/4/note", "Finalists repeated")
    assert "cifar-search confirm digits-search --seeds N" in text
    look(browser, address, "dashboard/studies/4", "Finalists: n = 2 runs each")


@pytest.mark.parametrize("page", ["", "/note", "/trials?numbers=3", "/trialTable", "/analytics"])
def test_no_text_of_others_becomes_markup(browser: Any, address: str, page: str) -> None:
    waited = {
        "": "Accuracy against cost",
        "/note": "How to go on",
        "/trials?numbers=3": "confusion-matrix.png",
    }
    text = look(browser, address, f"dashboard/studies/3{page}", waited.get(page, "onerror"))
    assert_harmless(browser)
    assert "onerror" in text or page == ""


def test_a_study_of_others_has_no_note_of_ours(browser: Any, address: str) -> None:
    text = look(browser, address, "dashboard/studies/2/note", "theirs")
    assert "cifar-search" not in text


def test_a_persons_note_is_saved_from_the_browser(browser: Any, address: str) -> None:
    look(browser, address, "dashboard/studies/2/note", "theirs")
    saved = browser.execute_async_script(
        "const done = arguments[arguments.length - 1];"
        "fetch('/api/studies/2/note', {method: 'PUT', headers: {'Content-Type': 'application/json'},"
        " body: JSON.stringify({version: 1, body: 'saved here'})}).then(answer => done(answer.status))"
    )
    assert saved == 204
    assert "saved here" in look(browser, address, "dashboard/studies/2/note", "saved here")


def test_another_site_reaches_nothing(browser: Any, address: str, tmp_path: Path) -> None:
    page = tmp_path / "evil.html"
    page.write_text("<title>evil</title>")
    browser.get(page.as_uri())
    answers = browser.execute_async_script(
        "const done = arguments[arguments.length - 1], base = arguments[0];"
        "const ask = (path, options) =>"
        " fetch(base + path, options).then(a => a.type + a.status, e => 'failed');"
        "Promise.all([ask('api/studies'), ask('api/studies/2', {method: 'DELETE'}),"
        " ask('api/studies', {method: 'POST', mode: 'no-cors', body: '{}'})]).then(done)",
        address,
    )
    assert answers == ["failed", "failed", "opaque0"]
    assert "theirs" in look(browser, address, "dashboard", "theirs")
