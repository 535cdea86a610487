"""The dashboard: who may call it, what our studies show on it, and that nothing else is touched."""

from __future__ import annotations

import io
import json
import logging
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.request import urlopen
from wsgiref.util import setup_testing_defaults

import optuna
import optuna_dashboard
import plotly.graph_objects as go
import pytest
import typer
import warm
import yaml
from asked import asked
from dashboard_studies import EVIL, add_trial, everything, make_foreign, make_plan, make_search
from optuna.trial import TrialState

from search.cli import app as cli
from search.dashboard import content, refresh
from search.dashboard.graphs import CARD_HEIGHT, LARGEST, compact, save_graph
from search.dashboard.guard import Guard, as_in_url, is_this_machine_only, names_of_machine
from search.dashboard.notes import study_note, trial_note
from search.dashboard.refresh import NOTED, Refresher, noted
from search.dashboard.server import DashboardRequest, guarded_app, make_server, run_dashboard
from search.interrupts import Interrupts
from spaces.config import Configuration
from studies import record
from studies.artifacts import Artifact, ArtifactStore, artifact_folder, attach
from studies.export import read_export
from studies.notes import note_of, set_generated, written_note
from studies.record import Drawing, History, Outcome
from studies.storage import Storage, open_storage
from studies.study import SearchStudy

ROOT = Path(__file__).parents[2]
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take most of the time: where there is nothing to see of them, none are drawn."""
    monkeypatch.setattr(content, "TOP", 0)
    monkeypatch.setattr(content, "MOST_ENTRIES", 0)
    monkeypatch.setattr(content, "RESAMPLES", 2)
    monkeypatch.setattr(refresh, "REST", 0)


@pytest.fixture
def pictures(_no_pictures: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of the best trial."""
    monkeypatch.setattr(content, "TOP", 1)
    monkeypatch.setattr(content, "MOST_ENTRIES", 1)


@pytest.fixture
def storage(sqlite_url: str) -> Iterator[Storage]:
    with closing(open_storage(sqlite_url, create=True)) as storage:
        yield storage


def call(
    app: Any, path: str, method: str = "GET", body: object = None, **variables: str
) -> tuple[int, dict[str, str], bytes]:
    """Send a request to a WSGI application: status, headers in small letters, body."""
    sent = b"" if body is None else json.dumps(body).encode()
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method, "PATH_INFO": path, "HTTP_HOST": "127.0.0.1:8000",
        "CONTENT_LENGTH": str(len(sent)), "CONTENT_TYPE": "application/json", "wsgi.input": io.BytesIO(sent),
        "HTTP_ACCEPT_ENCODING": "", **variables,
    }  # fmt: skip
    setup_testing_defaults(environ)
    answer: dict[str, Any] = {}

    def start(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> None:
        answer.update(status=int(status.split()[0]), headers={k.lower(): v for k, v in headers})

    parts = app(environ, start)
    content = b"".join(parts)
    if hasattr(parts, "close"):
        parts.close()
    return answer["status"], answer["headers"], content


def refreshed(storage: Storage, url: str) -> list[str]:
    """What a new refresher writes and says in one look."""
    said: list[str] = []
    Refresher(url, artifact_folder(url), said.append).refresh(storage)
    return said


def shown(storage: Storage, url: str, study_id: int) -> dict[str, Any]:
    """What optuna-dashboard tells a browser of a study."""
    app = guarded_app(storage, artifact_folder(url), "127.0.0.1", url, read_only=False)
    status, _, content = call(app, f"/api/studies/{study_id}")
    assert status == 200
    return json.loads(content)


# --- who may call it


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200), ("localhost:8000", 200), ("LOCALHOST.", 200), ("[::1]:8000", 200),
        ("192.0.2.7", 200), ("studies.example", 200), ("evil.example", 403), ("evil.example:8000", 403),
        ("localhost.evil.example", 403), ("127.0.0.1.evil.example", 403), ("", 403), ("[", 403),
        ("localhost@evil.example", 403), ("evil.example/localhost", 403),
    ],
)  # fmt: skip
def test_only_its_own_names_and_addresses_in_digits_are_answered(host: str, status: int) -> None:
    app = Guard(_hello, ["studies.example"], read_only=False)
    assert call(app, "/", HTTP_HOST=host)[0] == status


def _hello(environ: Any, start: Any) -> list[bytes]:
    start("200 OK", [("Content-Type", "text/plain"), ("Access-Control-Allow-Origin", "*")])
    return [b"hello"]


@pytest.mark.parametrize(
    ("variables", "status"),
    [
        ({}, 200),
        ({"HTTP_ORIGIN": "http://127.0.0.1:8000"}, 200),
        ({"HTTP_ORIGIN": "http://127.0.0.1:8000", "HTTP_SEC_FETCH_SITE": "same-origin"}, 200),
        ({"HTTP_ORIGIN": "http://evil.example"}, 403),
        ({"HTTP_ORIGIN": "http://127.0.0.1:9000"}, 403),
        ({"HTTP_ORIGIN": "null"}, 403),
        ({"HTTP_SEC_FETCH_SITE": "cross-site"}, 403),
        ({"HTTP_SEC_FETCH_SITE": "same-site"}, 403),
    ],
)
def test_pages_of_other_sites_change_nothing(variables: dict[str, str], status: int) -> None:
    app = Guard(_hello, [], read_only=False)
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert call(app, "/", method, **variables)[0] == status


def test_an_artifact_is_served_without_rights(storage: Storage, sqlite_url: str) -> None:
    study = make_search(storage, "s", 1)
    store = ArtifactStore(artifact_folder(sqlite_url))
    page = Artifact("page.html", "text/html", 1, lambda: b"<script>alert(1)</script>")
    attach(study, store, study.trials()[0]._trial_id, page)
    app = guarded_app(storage, store.folder, "127.0.0.1", sqlite_url, read_only=False)
    artifact = shown(storage, sqlite_url, study.study_id)["trials"][0]["artifacts"][0]
    path = f"/artifacts/{study.study_id}/{study.trials()[0]._trial_id}/{artifact['artifact_id']}"
    status, headers, content = call(app, path)
    assert (status, content) == (200, b"<script>alert(1)</script>")
    policy = headers["content-security-policy"].split("; ")
    assert "sandbox" in policy
    assert "default-src 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in headers


def test_reading_only_refuses_all_changes_and_shows_everything(sqlite_url: str) -> None:
    with closing(open_storage(sqlite_url, create=True)) as storage:
        study = make_search(storage, "s", 2)
    with closing(open_storage(sqlite_url, create=False)) as reading:
        before = everything(reading, study.study_id)
        app = guarded_app(reading, artifact_folder(sqlite_url), "127.0.0.1", sqlite_url, read_only=True)
        assert call(app, f"/api/studies/{study.study_id}")[0] == 200
        note = {"version": 1, "body": "mine"}
        assert call(app, f"/api/studies/{study.study_id}/note", "PUT", note)[0] == 403
        assert call(app, f"/api/studies/{study.study_id}", "DELETE", {})[0] == 403
        assert everything(reading, study.study_id) == before


def test_addresses_are_told_apart() -> None:
    assert all(map(is_this_machine_only, ("127.0.0.1", "127.0.0.2", "::1", "localhost")))
    assert not any(map(is_this_machine_only, ("0.0.0.0", "::", "192.0.2.7", "studies.example")))
    assert as_in_url("::1") == "[::1]"
    assert as_in_url("192.0.2.7") == "192.0.2.7"
    assert "::" not in as_in_url("::")
    assert names_of_machine("127.0.0.1") == set()
    assert "studies.example" in names_of_machine("studies.example")


@pytest.mark.parametrize(
    ("changed", "parts"),
    [
        ({"host": "0.0.0.0"}, ["--host 0.0.0.0", "no login", "--allow-network"]),
        ({"storage_url": "sqlite:///none.db"}, ["--storage", "none.db", "does not exist"]),
        ({"storage_url": "mysql://root:hidden@127.0.0.1:9/test"}, ["--storage", "root:***@"]),
        ({"artifacts": Path(__file__)}, ["--artifacts", "must be a folder", "test_dashboard.py"]),
        ({"host": "203.0.113.1", "allow_network": True}, ["--host 203.0.113.1", "cannot listen"]),
        ({"port": 70000}, ["--port 70000", "cannot listen"]),
    ],
)
def test_a_mistake_is_refused_with_rule_and_value(
    storage: Storage, sqlite_url: str, changed: dict[str, Any], parts: list[str]
) -> None:
    request = DashboardRequest(**{"storage_url": sqlite_url, **changed})
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 (its parts are looked at below)
        run_dashboard(request, _Never(), lambda line: None)
    for part in parts:
        assert part in str(refusal.value)
    assert "hidden" not in str(refusal.value)


class _Never(Interrupts):
    def __init__(self) -> None:
        self.count = 0

    def raise_from_now_on(self) -> None:
        raise AssertionError("the server was about to start")


def test_a_port_that_is_taken_is_refused() -> None:
    with closing(_Closing(make_server(_hello, "127.0.0.1", 0))) as first:
        port = first.server.server_port
        with pytest.raises(ValueError, match="cannot listen there"):
            make_server(_hello, "127.0.0.1", port)


class _Closing:
    def __init__(self, server: Any) -> None:
        self.server = server

    def close(self) -> None:
        self.server.server_close()


def test_errors_of_the_dashboard_are_a_line_without_a_password(
    storage: Storage, sqlite_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    guarded_app(storage, Path("none"), "127.0.0.1", "mysql://me:hidden@host/db", read_only=False)
    logging.getLogger("optuna_dashboard._bottle_util").error("Exception: no hidden here\nTraceback ...")
    assert capsys.readouterr().err == "optuna-dashboard: Exception: no *** here\n"


# --- notes


def test_a_search_says_what_it_asks_and_how_to_go_on(storage: Storage) -> None:
    study = make_search(storage, "it's mine", 1)
    note = study_note(study, "sqlite:///a b.db")
    assert "**Question:** Which optimizer, and how much dropout?" in note
    cells = ("optimizer.momentum", "uniform 0.5 to 0.99", "nuisance", "optimizer.name is sgd", "0.9")
    assert "".join(f"<td>{cell}</td>\n" for cell in cells) in _rendered(note)
    run = _commands(note)[0]
    assert run[:2] == ["cifar-search", "run"]
    parsed = typer.main.get_command(cli).commands["run"].make_context("run", run[2:-2])  # type: ignore[attr-defined]
    expected = {
        "space": "mine.yaml", "study": "it's mine", "dataset": "digits", "val_size": 0.1, "train_size": None,
        "epochs": 6, "seed": 0, "precision": "fp32", "sampler": "random", "pruner": "asha", "repeat": 1,
        "storage": "sqlite:///a b.db",
    }  # fmt: skip
    assert {key: parsed.params[key] for key in expected} == expected
    others = {tuple(words[1:3]) for words in _commands(note)[1:]}
    assert others == {
        (verb, "it's mine") for verb in ("show", "effects", "confirm", "ablate", "export", "report")
    }


def _commands(note: str) -> list[list[str]]:
    block = note.split("```sh\n")[1].split("\n```")[0]
    return [shlex.split(line) for line in block.replace("\\\n", "").splitlines()]


def test_a_password_is_not_in_a_note(storage: Storage) -> None:
    study = make_search(storage, "s", 1)
    assert "--storage" not in study_note(study, "postgresql://me:hidden@host/db")
    assert "--storage postgresql://me@host/db" in study_note(study, "postgresql://me@host/db")


def test_a_trial_says_how_it_ended_and_what_differs_from_the_base(storage: Storage) -> None:
    study = make_search(storage, "s", 5)
    finished, pruned = study.trials()[0], study.trials()[4]
    note = trial_note(study, finished, ["a plateau_here"])
    assert finished.value is not None
    assert f"**finished** with {100 * finished.value:.2f} % validation accuracy (one run)" in note
    assert "at epoch 6 of 6" in note
    assert "- a plateau\\_here" in note
    told = {row.split(" | ")[0].strip("| ").replace("\\", "") for row in note.splitlines() if row[:1] == "|"}
    stored = Configuration.read(finished.user_attrs[record.SETUP]["configuration"]).tree()
    differing = {
        f"{section}.{key}"
        for section, settings in study.space.base.tree().items()
        for key in {*settings, *stored[section]}
        if settings.get(key, "none") != stored[section].get(key, "none")
    }
    assert differing
    assert told - {"setting that differs", "---"} - {"--- --- ---"} >= differing
    reached = f"at {100 * pruned.intermediate_values[3]:.2f} % validation accuracy"
    assert f"**pruned** after epoch 3 of 6, {reached}" in trial_note(study, pruned)


def test_text_of_others_is_shown_as_text(storage: Storage) -> None:
    study = make_search(storage, EVIL, 1, class_name=EVIL, question=EVIL)
    add_trial(study, 1, message=f"ValueError: {EVIL}\n```\n<b>")
    rendered = _rendered(study_note(study, "sqlite:///x.db")) + _rendered(
        trial_note(study, study.trials()[1])
    )
    assert "javascript:alert" in rendered  # as text
    for markup in ("<img", "<b ", "<b>", "<a ", "href"):
        assert markup not in rendered


def _rendered(markdown: str) -> str:
    from markdown_it import MarkdownIt

    return str(MarkdownIt("commonmark", {"html": True, "linkify": False}).enable("table").render(markdown))


def test_the_best_trials_get_a_note_where_there_are_many() -> None:
    create = optuna.trial.create_trial
    finished = {record.SLOT: 0, record.OUTCOME: {"reason": "finished"}}
    trials = [create(value=(index * 37 % 1009) / 1009, user_attrs=finished) for index in range(NOTED + 50)]
    for number, trial in enumerate(trials):
        trial.number = number
    failed = create(state=TrialState.FAIL, user_attrs={record.SLOT: 0})
    running = create(state=TrialState.RUNNING, user_attrs={record.SLOT: 0})
    foreign, told = create(value=1.0), create(value=1.0, user_attrs={record.SLOT: 0})
    chosen = noted([failed, running, foreign, told, *trials])
    assert len(chosen) == NOTED
    assert {t.value for t in chosen} == set(sorted((t.value for t in trials), reverse=True)[:NOTED])
    assert noted([running, failed]) == [failed]


# --- what is written, and when


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize(
    "database_url",
    ["sqlite", *(pytest.param(name, marks=pytest.mark.slow) for name in ("postgres", "mysql"))],
    indirect=True,
)
def test_all_databases_show_notes_pictures_and_exports(database_url: str, tmp_path: Path) -> None:
    with closing(open_storage(database_url, create=True)) as storage:
        study = make_search(storage, "s", 7)
        said: list[str] = []
        Refresher(database_url, tmp_path / "artifacts", said.append).refresh(storage)
        app = guarded_app(storage, tmp_path / "artifacts", "127.0.0.1", database_url, read_only=False)
        detail = json.loads(call(app, f"/api/studies/{study.study_id}")[2])
        assert said == []
        assert "**Question:**" in detail["note"]["body"]
        assert all(
            "validation accuracy" in t["note"]["body"] for t in detail["trials"] if t["state"] == "Complete"
        )
        best = max(study.trials(), key=lambda t: t.value or 0)
        of_best = {a["filename"]: a for a in detail["trials"][best.number]["artifacts"]}
        assert set(of_best) == {"learning-curves.png", "confusion-matrix.png", f"trial-{best.number}.yaml"}
        for name, artifact in of_best.items():
            path = f"/artifacts/{study.study_id}/{best._trial_id}/{artifact['artifact_id']}"
            status, headers, content = call(app, path)
            assert status == 200
            if name.endswith(".png"):
                assert headers["content-type"] == "image/png"
                assert content.startswith(PNG)
            else:
                assert headers["content-type"].startswith("text/plain")
                (tmp_path / name).write_bytes(content)
                exported = read_export(tmp_path / name)
                assert exported.runs[0].accuracy == best.value
        worst = min(study.trials(), key=lambda t: t.value or 0)
        assert detail["trials"][worst.number]["artifacts"] == []
        assert optuna.load_study(study_name="s", storage=storage).best_trial.number == best.number


@pytest.mark.slow
@pytest.mark.usefixtures("pictures")
def test_the_same_is_written_once(storage: Storage, sqlite_url: str) -> None:
    study = make_search(storage, "s", 3)
    make_plan(storage, study, top=1)
    assert refreshed(storage, sqlite_url) == []
    once = _all(storage), _files(sqlite_url)
    assert refreshed(storage, sqlite_url) == []
    assert (_all(storage), _files(sqlite_url)) == once


def _all(storage: Storage) -> list[object]:
    return [everything(storage, each._study_id) for each in storage.get_all_studies()]


def _files(url: str) -> dict[str, tuple[int, int]]:
    folder = artifact_folder(url)
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.iterdir()}


def test_studies_of_others_are_left_as_they_are(storage: Storage, sqlite_url: str) -> None:
    theirs = make_foreign(storage, "theirs")
    broken = optuna.create_study(study_name="of another version", storage=storage)
    broken.set_user_attr(record.STUDY, {"format": 99})
    before = _all(storage)
    make_search(storage, "s", 2)
    said = refreshed(storage, sqlite_url)
    assert _all(storage)[:2] == before
    assert len(said) == 1
    assert "of another version" in said[0]
    assert shown(storage, sqlite_url, theirs._study_id)["trials"][0]["note"]["body"] == ""


def test_what_a_person_wrote_in_the_browser_stays(storage: Storage, sqlite_url: str) -> None:
    study = make_search(storage, "s", 2)
    refreshed(storage, sqlite_url)
    app = guarded_app(storage, artifact_folder(sqlite_url), "127.0.0.1", sqlite_url, read_only=False)
    for place, trial in (("", None), (f"/{study.trials()[0]._trial_id}", study.trials()[0])):
        path = f"/api/studies/{study.study_id}{place}/note"
        there = optuna_dashboard._note.get_note_from_system_attrs(
            storage.get_study_system_attrs(study.study_id), trial._trial_id if trial else None
        )
        body = f"my own words\n\n{there['body']}\nand more"
        assert call(app, path, "PUT", {"version": there["version"] + 1, "body": body})[0] == 204
        set_generated(study, "an older text of ours", trial)
        refreshed(storage, sqlite_url)
        assert written_note(study, trial) == "my own words\n\nand more"
        assert "an older text" not in note_of(study, trial)


@pytest.mark.slow
def test_a_growing_study_is_followed(sqlite_url: str) -> None:
    with closing(open_storage(sqlite_url, create=True)) as storage:
        study = make_search(storage, "s", 2)
        refresher = Refresher(sqlite_url, artifact_folder(sqlite_url), lambda line: None, interval=0.05)
        refresher.start()
        try:
            _wait(lambda: note_of(study, study.trials()[1]))
            add_trial(study, 3)
            later = make_search(storage, "later", 1)
            _wait(lambda: note_of(study, study.trials()[2]) and note_of(later, later.trials()[0]))
            storage.delete_study(later.study_id)
            add_trial(study, 5)
            _wait(lambda: note_of(study, study.trials()[3]))
        finally:
            refresher.stop()


def _wait(until: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


def test_a_look_at_which_nothing_is_new_takes_three_statements_and_no_trials(
    storage: Storage, sqlite_url: str
) -> None:
    refresher = Refresher(sqlite_url, artifact_folder(sqlite_url), lambda line: None)
    studies = [make_search(storage, name, 1) for name in ("a", "a/b", "c")]
    refresher.refresh(storage)
    with asked() as at_rest:
        refresher.refresh(storage)
    assert len([text for text in at_rest.statements if text.startswith("SELECT")]) == 3
    add_trial(studies[2], 1)
    studies[0].add_notice("something new")
    with asked() as once:
        refresher.refresh(storage)
    assert len(once.statements) > len(at_rest.statements)
    assert note_of(studies[2], studies[2].trials()[1])


def test_a_study_in_the_place_of_another_gets_notes_of_its_own(storage: Storage, sqlite_url: str) -> None:
    refresher = Refresher(sqlite_url, artifact_folder(sqlite_url), lambda line: None)
    before = make_search(storage, "s", 2)
    refresher.refresh(storage)
    storage.delete_study(before.study_id)
    after = make_search(storage, "s", 1, question="What else?")
    assert after.study_id == before.study_id
    refresher.refresh(storage)
    assert "What else?" in note_of(after)
    assert note_of(after, after.trials()[0])


def test_one_trial_that_cannot_be_shown_keeps_no_other_from_it(storage: Storage, sqlite_url: str) -> None:
    study = make_search(storage, "s", 1)
    claimed = study.claim("somewhere:x:1:2", Drawing(sampler="random"))
    assert claimed is not None
    setup = study.trials()[0].user_attrs[record.SETUP]
    claimed.trial.set_user_attr(record.SETUP, {**setup, "configuration": {"loss": "none of ours"}})
    study.close(claimed.trial_id, TrialState.COMPLETE, Outcome(reason="finished"), History(), 0.9)
    add_trial(study, 2)
    said: list[str] = []
    refresher = Refresher(sqlite_url, artifact_folder(sqlite_url), said.append)
    refresher.refresh(storage)
    refresher.refresh(storage)
    assert note_of(study, study.trials()[0])
    assert note_of(study, study.trials()[2])
    assert len(said) == len(set(said)) > 0
    assert all("'s'" in line and "\n" not in line for line in said)


def test_a_database_that_went_away_is_waited_for(sqlite_url: str, tmp_path: Path) -> None:
    said: list[str] = []
    refresher = Refresher(sqlite_url, tmp_path / "artifacts", said.append, interval=0.05)
    refresher.start()
    try:
        _wait(lambda: said)
        with closing(open_storage(sqlite_url, create=True)) as storage:
            study = make_search(storage, "s", 1)
            _wait(lambda: note_of(study))
    finally:
        refresher.stop()
    assert len(said) == len(set(said))


# --- artifacts and figures


def test_an_artifact_is_made_once_and_replaced_when_it_is_stale(storage: Storage, tmp_path: Path) -> None:
    study = make_search(storage, "s", 1)
    trial_id = study.trials()[0]._trial_id
    here, elsewhere = ArtifactStore(tmp_path / "here"), ArtifactStore(tmp_path / "elsewhere")
    made: list[str] = []

    def artifact(content: str) -> Artifact:
        return Artifact("a.txt", "text/plain", content, lambda: (made.append(content), content.encode())[1])

    def attached(store: ArtifactStore, content: str) -> bool:
        return attach(study, store, trial_id, artifact(content))

    assert [attached(here, "old"), attached(here, "old")] == [True, False]
    assert attached(elsewhere, "old")  # another machine has the database, but not the file
    assert [path.read_text() for path in (tmp_path / "elsewhere").iterdir()] == ["old"]
    assert attached(here, "new")
    assert [path.read_text() for path in (tmp_path / "here").iterdir()] == ["new"]
    assert made == ["old", "old", "new"]
    listed = optuna_dashboard.artifact._backend.list_trial_artifacts(
        storage.get_study_system_attrs(study.study_id), {}, study.trials()[0]
    )
    assert [each["filename"] for each in listed] == ["a.txt"]


@pytest.mark.usefixtures("pictures")
def test_an_artifact_that_a_person_deleted_does_not_come_back(storage: Storage, sqlite_url: str) -> None:
    study = make_search(storage, "s", 2)
    refreshed(storage, sqlite_url)
    trial = study.optuna.best_trial
    listed = shown(storage, sqlite_url, study.study_id)["trials"][trial.number]["artifacts"]
    app = guarded_app(storage, artifact_folder(sqlite_url), "127.0.0.1", sqlite_url, read_only=False)
    gone = listed[0]["artifact_id"]
    call(app, f"/api/artifacts/{study.study_id}/{trial._trial_id}/{gone}", "DELETE")
    refreshed(storage, sqlite_url)
    left = shown(storage, sqlite_url, study.study_id)["trials"][trial.number]["artifacts"]
    assert {each["artifact_id"] for each in left} == {each["artifact_id"] for each in listed} - {gone}


@pytest.mark.usefixtures("pictures")
def test_a_study_is_deleted_with_its_artifacts_even_if_one_is_gone(storage: Storage, sqlite_url: str) -> None:
    study = make_search(storage, "s", 2)
    refreshed(storage, sqlite_url)
    next(artifact_folder(sqlite_url).iterdir()).unlink()
    app = guarded_app(storage, artifact_folder(sqlite_url), "127.0.0.1", sqlite_url, read_only=False)
    assert call(app, f"/api/studies/{study.study_id}", "DELETE", {})[0] == 204
    assert list(artifact_folder(sqlite_url).iterdir()) == []


def test_artifacts_lie_beside_an_sqlite_file_or_in_the_users_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert artifact_folder(f"sqlite:///{tmp_path}/a.db") == tmp_path / "a.db.artifacts"
    one, same, other = (
        artifact_folder(url)
        for url in ("mysql://me:one@host/a", "mysql://me:two@host/a", "mysql://me:one@host/b")
    )
    assert one == same != other
    assert one.is_relative_to(tmp_path / "data")
    assert "one" not in str(one)


def test_a_figure_is_shown_small_and_saved_only_when_it_changed(storage: Storage, sqlite_url: str) -> None:
    study = make_search(storage, "s", 1)
    figure = go.Figure(go.Scatter(x=[1 / 3, 2 / 3], y=[1, 2]))
    figure.update_layout(title="What?")
    assert [save_graph(study, "ours", figure), save_graph(study, "ours", figure)] == [True, False]
    graphs = {each["id"]: json.loads(each["graph_object"])
              for each in shown(storage, sqlite_url, study.study_id)["plotly_graph_objects"]}  # fmt: skip
    assert graphs["ours"]["data"][0]["x"] == pytest.approx([1 / 3, 2 / 3], abs=1e-6)
    assert "template" not in graphs["ours"]["layout"]
    figure.update_layout(title="That!")
    assert save_graph(study, "ours", figure)
    with pytest.raises(ValueError, match=f"at most {LARGEST}"):
        save_graph(study, "large", go.Figure(go.Scatter(x=list(range(LARGEST)))))


def test_a_figure_of_arrays_keeps_its_numbers() -> None:
    import numpy as np

    figure = go.Figure(go.Heatmap(z=np.array([[0.25, np.nan], [1.0, 2.0]]), x=np.array([1, 2])))
    data = json.loads(compact(figure))["data"][0]
    assert data["z"] == [[0.25, None], [1, 2]]
    assert data["x"] == [1, 2]


def test_a_figure_that_is_higher_than_its_place_is_lowered_with_smaller_words_beside_its_rows() -> None:
    def layout_of(height: int) -> dict[str, Any]:
        axes = {"yaxis": {"tickfont": {"size": 12}}, "xaxis": {"tickfont": {"size": 12}}}
        layout: dict[str, Any] = json.loads(compact(go.Figure(layout={"height": height, **axes})))["layout"]
        return layout

    high, low = layout_of(2 * CARD_HEIGHT), layout_of(CARD_HEIGHT)
    assert (high["height"], low["height"]) == (CARD_HEIGHT, CARD_HEIGHT)
    assert (high["yaxis"]["tickfont"]["size"], low["yaxis"]["tickfont"]["size"]) == (6, 12)
    assert high["xaxis"]["tickfont"]["size"] == 12


# --- the process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.slow
def test_the_command_serves_until_it_is_told_to_end(tmp_path: Path, number: int) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    with closing(open_storage(url, create=True)) as storage:
        study = make_search(storage, "s", 2)
    with dashboard(tmp_path, "--storage", "sqlite:///a.db") as (process, address):
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address)
        with urlopen(f"{address}api/studies") as answer:
            assert [each["study_name"] for each in json.load(answer)["study_summaries"]] == ["s"]
        with closing(open_storage(url, create=False)) as storage:
            _wait(lambda: note_of(SearchStudy(storage, "s"), study.trials()[1]))
        process.send_signal(number)
        assert process.wait(30) == 0
        assert process.stdout.read().splitlines()[-1] == "dashboard ended"
        assert process.stderr.read() == ""


@pytest.mark.slow
def test_reading_only_is_said_and_leaves_no_trace(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    with closing(open_storage(url, create=True)) as storage:
        make_search(storage, "s", 2)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with dashboard(tmp_path, "--storage", "sqlite:///a.db", "--read-only") as (process, address):
        with urlopen(f"{address}api/studies/1") as answer:
            assert len(json.load(answer)["trials"]) == 2
        process.terminate()
        assert process.wait(30) == 0
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


class dashboard:
    """The command, running: the process and the address that it prints."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.folder, self.words = folder, words

    def __enter__(self) -> tuple[Any, str]:
        words = ["dashboard", *self.words]
        self.process = warm.Process(words, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self.process.stdout is not None
        self.said: list[str] = []
        for line in self.process.stdout:
            self.said.append(line)
            if found := re.search(r"http://\S+", line):
                return self.process, found[0]
        raise AssertionError(f"no address: {self.said} {self.process.stderr and self.process.stderr.read()}")

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.mark.usefixtures("pictures")
def test_exports_are_yaml_for_people(storage: Storage, sqlite_url: str) -> None:
    make_search(storage, "s", 1)
    refreshed(storage, sqlite_url)
    texts = [path.read_bytes() for path in artifact_folder(sqlite_url).iterdir()]
    (text,) = [text.decode() for text in texts if not text.startswith(PNG)]
    assert yaml.safe_load(text)["command"] == "cifar-search retrain trial-0.yaml --seeds 3 -o runs/trial-0"
