"""Notes that are saved in the browser while others are written elsewhere: none is lost."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

from dashboard_studies import make_search

from search.dashboard.server import guarded_app
from studies.notes import add_note, note_of
from studies.storage import open_storage
from studies.study import SearchStudy

EACH = 10
"""Notes that each side writes."""


def asked(app: Callable[..., Any], method: str, path: str, content: object = None) -> tuple[int, Any]:
    """The status and the content of the app's answer."""
    body = json.dumps(content).encode()
    where, _, query = path.partition("?")
    environ: dict[str, Any] = {"PATH_INFO": where, "QUERY_STRING": query, "REQUEST_METHOD": method}
    environ["CONTENT_TYPE"] = "application/json"
    environ |= {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
    setup_testing_defaults(environ)
    status: list[str] = []
    answer = b"".join(app(environ, lambda line, *_: status.append(line)))
    return int(status[0].split()[0]), json.loads(answer) if answer else None


def save_in_the_browser(app: Callable[..., Any], study_id: int) -> None:
    """As a person does: add a line to the note that is shown, again where it has changed meanwhile."""
    for number in range(EACH):
        saved = False
        while not saved:
            _, shown = asked(app, "GET", f"/api/studies/{study_id}?after=0")
            note = shown["note"]
            changed = {"body": f"{note['body']}\nbrowser {number}.", "version": note["version"] + 1}
            saved = asked(app, "PUT", f"/api/studies/{study_id}/note", changed)[0] == 204


def test_no_note_is_lost_between_a_browser_and_the_command_line(database_url: str, tmp_path: Path) -> None:
    with (
        closing(open_storage(database_url, create=True)) as storage,
        closing(open_storage(database_url, create=True)) as other,
        ThreadPoolExecutor() as threads,
    ):
        study = make_search(storage, "s", 1)
        app = guarded_app(storage, tmp_path, "127.0.0.1", database_url, read_only=False)
        browser = threads.submit(save_in_the_browser, app, study.study_id)
        elsewhere = SearchStudy(other, study.name)
        for number in range(EACH):
            add_note(elsewhere, f"line {number}." + " long" * 200)
        browser.result()
        lines = note_of(study).split()
        for side in ("browser", "line"):
            said = [lines[at + 1] for at, word in enumerate(lines) if word == side]
            assert said == [f"{number}." for number in range(EACH)]
