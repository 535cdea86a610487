"""Names on every database: each spelling a study of its own, or refused with the one that is there."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import closing
from multiprocessing.synchronize import Barrier
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from charsets import KINDS, database_of
from made_studies import FREE, claim, end, make_study
from servers import MYSQL, administer
from sqlalchemy.engine import make_url

from studies.locks import database_lock
from studies.notes import add_note, note_of
from studies.opening import open_existing
from studies.plan import PlanRecord, PlanStudy, find_plan, open_plan
from studies.record import Drawing, SplitSpec
from studies.storage import Storage, StorageError, open_storage
from studies.study import LONGEST_NAME, SearchStudy, check_continuation, check_name

optuna.logging.set_verbosity(optuna.logging.ERROR)
SPELLINGS = {
    "case": ("digits", "Digits"),
    "accent": ("digits", "dígits"),
    "two accents": ("dígits", "dìgits"),
    "blank": ("digits", "digits "),
    "emoji": ("trial 🙂", "trial 🚀"),
    "wide blank": ("日本", "日本 "),
    "sharp s": ("große", "grose"),
}
"""Names that MySQL's and MariaDB's usual collation takes for the same."""
forkserver = multiprocessing.get_context("forkserver")
forkserver.set_forkserver_preload(["studies.study", "pytest", "psycopg", "pymysql", "alembic.script"])
pytestmark = pytest.mark.slow  # a minute in all


@pytest.fixture(scope="module", params=["sqlite", "postgres", "mysql"])
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    """A storage on each kind of database, that a module's tests share."""
    if request.param == "sqlite":
        file = tmp_path_factory.mktemp("names") / "a.db"
        with closing(open_storage(f"sqlite:///{file}", create=True)) as storage:
            yield storage
        return
    with database_of(request.param) as url, closing(open_storage(url, create=True)) as storage:
        yield storage


@pytest.fixture
def storage(opened: Storage) -> Storage:
    """One without studies."""
    for study in opened.get_all_studies():
        opened.delete_study(study._study_id)
    return opened


def tells_apart(storage: Storage) -> bool:
    return storage.engine.name != "mysql"


def names(storage: Storage) -> list[str]:
    return sorted(study.study_name for study in storage.get_all_studies())


def make_plan(storage: Storage, name: str, parent: SearchStudy) -> PlanStudy:
    record = PlanRecord(
        kind="confirm", parent=parent.name, question="", data=parent.data,
        split=SplitSpec(seed=0, val_size=0.1), folds=None, epochs=4,
    )  # fmt: skip
    return open_plan(storage, name, record)


@pytest.mark.parametrize("spellings", SPELLINGS.values(), ids=SPELLINGS)
def test_each_spelling_is_a_study_of_its_own_or_refused(storage: Storage, spellings: tuple[str, str]) -> None:
    there, other = spellings
    study = make_study(storage, FREE, 2, there)
    ways: dict[str, Callable[[], Any]] = {
        "open_study": lambda: make_study(storage, FREE, 2, other),
        "check_continuation": lambda: check_continuation(storage, other, study.record),
        "open_existing": lambda: open_existing(storage, other).name,
        "search": lambda: SearchStudy(storage, other).name,
        "find_plan": lambda: find_plan(storage, other),
        "optuna": lambda: optuna.load_study(study_name=other, storage=storage).study_name,
        "id": lambda: storage.get_study_id_from_name(other) != study.study_id,
        "load_if_exists": lambda: (
            optuna.create_study(study_name=other, storage=storage, load_if_exists=True).study_name
        ),
    }
    if tells_apart(storage):
        for way in ways.values():
            assert way() is not False
        claim(SearchStudy(storage, other))
        assert names(storage) == sorted(spellings)
        assert [len(SearchStudy(storage, name).trials()) for name in spellings] == [0, 1]
        return
    for name, way in ways.items():
        with pytest.raises(StorageError) as refusal:
            way()
        assert f"holds the study {there!r}" in str(refusal.value), name
        assert repr(other) in str(refusal.value), name
    assert names(storage) == [there]
    assert study.trials() == []


@pytest.mark.parametrize("spellings", SPELLINGS.values(), ids=SPELLINGS)
def test_plans_and_notes_are_of_one_spelling(storage: Storage, spellings: tuple[str, str]) -> None:
    there, other = (f"plan of {name}" for name in spellings)
    study = make_study(storage, FREE, 2, spellings[0])
    plan = make_plan(storage, there, study)
    add_note(plan, "of the first")
    if tells_apart(storage):
        assert find_plan(storage, other) is None
        second = make_plan(storage, other, make_study(storage, FREE, 2, spellings[1]))
        add_note(second, "of the second")
        assert "of the second" in note_of(second)
        assert "of the second" not in note_of(plan)
        assert second.study_id != plan.study_id
        return
    for way in (lambda: find_plan(storage, other), lambda: make_plan(storage, other, study)):
        with pytest.raises(StorageError, match="holds the study") as refusal:
            way()
        assert repr(there) in str(refusal.value)
    assert names(storage) == sorted([spellings[0], there])


def test_a_spelling_is_free_again_when_the_study_is_gone_or_renamed(storage: Storage) -> None:
    make_study(storage, FREE, 1, "digits")
    storage.delete_study(storage.get_study_id_from_name("digits"))
    again = make_study(storage, FREE, 1, "DIGITS")
    assert again.name == "DIGITS"
    assert names(storage) == ["DIGITS"]


def test_names_as_long_as_they_may_be_are_kept(storage: Storage) -> None:
    for character in ("🙂", "日", "é", "a"):
        name = character * LONGEST_NAME
        assert check_name(name) == name
        study = make_study(storage, FREE, 1, name)
        plan = make_plan(storage, f"{name}/confirm-10-fold", study)
        assert open_existing(storage, name).study_id == study.study_id
        assert open_existing(storage, plan.name).study_id == plan.study_id


# --- several processes


def claim_all(url: str, name: str) -> tuple[str, int]:
    """Open the study under this name and complete what it owes; its name as stored, and the attempts made."""
    made = 0
    with closing(open_storage(url, create=True)) as storage:
        study = make_study(storage, FREE, 12, name)
        while not study.is_complete():
            claimed = study.claim("somewhere:x:1:2", Drawing(sampler="random"))
            if claimed is not None:
                made += 1
                end(study, claimed, "finished")
        return storage.get_study_name_from_id(study.study_id), made


def together(url: str, spellings: tuple[str, ...]) -> list[Any]:
    """What comes of ``claim_all`` in processes that start at the same moment, each with a name of its own."""
    barrier, results = forkserver.Barrier(len(spellings)), forkserver.SimpleQueue()
    workers = [forkserver.Process(target=_call, args=(barrier, results, url, name)) for name in spellings]
    for worker in workers:
        worker.start()
    answers = [results.get() for _ in workers]
    for worker in workers:
        worker.join()
    return answers


def _call(barrier: Barrier, results: Any, url: str, name: str) -> None:
    barrier.wait()
    try:
        results.put(claim_all(url, name))
    except Exception as error:
        results.put(repr(error))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "postgres", "mysql"])
def test_processes_that_spell_a_name_in_four_ways_make_exactly_the_attempts_owed(
    kind: str, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(f"{kind}_url")
    spellings = ("digits", "Digits", "dígits", "digits ")
    answers = together(url, spellings)
    done = [answer for answer in answers if isinstance(answer, tuple)]
    if kind == "mysql":
        ((name, made),) = done
        assert made == 12
        refusals = [answer for answer in answers if answer not in done]
        assert all(f"holds the study {name!r}" in refusal for refusal in refusals)
    else:
        assert sorted(done) == sorted((name, 12) for name in spellings)
    with closing(open_storage(url, create=False)) as storage:
        for name, _ in done:
            study = SearchStudy(storage, name)
            assert len(study.trials()) == study.slots().closed() == 12
        assert len(storage.get_all_studies()) == len(done)


@pytest.mark.slow
def test_processes_that_spell_it_in_one_way_share_the_attempts(database_url: str) -> None:
    answers = together(database_url, ("digits",) * 4)
    assert {name for name, _ in answers} == {"digits"}
    assert sum(made for _, made in answers) == 12


# --- character sets

HELD = {
    "mysql": {"dígits", "日本", "🙂", "naïve œuvre"},
    "mysql-latin1": {"dígits", "naïve œuvre"},  # MySQL's latin1 is cp1252
    "mysql-utf8mb3": {"dígits", "日本", "naïve œuvre"},
    "postgres": {"dígits", "日本", "🙂", "naïve œuvre"},
    "postgres-latin1": {"dígits"},
    "postgres-ascii": {"dígits", "日本", "🙂", "naïve œuvre"},
}
"""By the kind of database: the names that its character set can hold."""


@pytest.fixture(scope="module", params=KINDS)
def of_kind(request: pytest.FixtureRequest) -> Iterator[tuple[set[str], Storage]]:
    """The names that a database can hold, and its storage."""
    with database_of(request.param) as url, closing(open_storage(url, create=True)) as storage:
        yield HELD[request.param], storage


@pytest.mark.parametrize("name", ["dígits", "日本", "🙂", "naïve œuvre"])
def test_a_name_is_kept_or_refused_before_anything_is_made(
    of_kind: tuple[set[str], Storage], name: str
) -> None:
    held, storage = of_kind
    before = names(storage)
    if name in held:
        study = make_study(storage, FREE, 1, name)
        assert open_existing(storage, name).study_id == study.study_id
        assert names(storage) == sorted([*before, name])
        return
    plain = make_study(storage, FREE, 1, "plain")
    check_continuation(storage, name, plain.record)
    makers: tuple[Callable[[], object], ...] = (
        lambda: make_study(storage, FREE, 1, name),
        lambda: make_plan(storage, f"{name}/confirm", plain),
    )
    for way in makers:
        with pytest.raises(StorageError) as refusal:
            way()
        assert "--study NAME" in str(refusal.value)
        assert name in str(refusal.value)
    with pytest.raises(ValueError, match="unknown study"):
        open_existing(storage, name)
    assert names(storage) == sorted({*before, "plain"})


def test_text_of_any_script_is_kept_whatever_the_character_set(of_kind: tuple[set[str], Storage]) -> None:
    _, storage = of_kind
    study = make_study(storage, FREE, 1, "of any script")
    study.add_notice("日本 🙂 'quoted' \\ \"twice\"")
    add_note(study, "犬と猫 🙂")
    claimed = claim(study)
    claimed.trial.set_user_attr("classes", ["犬", "🙂", "ß"])
    end(study, claimed, "finished")
    again = SearchStudy(storage, "of any script")
    assert again.notices() == ["日本 🙂 'quoted' \\ \"twice\""]
    assert "犬と猫 🙂" in note_of(again)
    assert again.trials()[0].user_attrs["classes"] == ["犬", "🙂", "ß"]


@pytest.mark.parametrize(
    ("query", "name"),
    [("charset=latin1", "日本"), ("charset=utf8", "🙂"), ("charset=ascii", "dígits")],
)
def test_a_name_that_the_connection_cannot_send_is_refused(mysql_url: str, query: str, name: str) -> None:
    with closing(open_storage(f"{mysql_url}?{query}", create=True)) as storage:
        with pytest.raises(StorageError, match="--study NAME"):
            make_study(storage, FREE, 1, name)
        assert names(storage) == []
        make_study(storage, FREE, 1, "plain")
    with closing(open_storage(mysql_url, create=False)) as storage:
        assert names(storage) == ["plain"]


@pytest.mark.parametrize("mode", ["", "ANSI_QUOTES", "NO_BACKSLASH_ESCAPES"])
def test_a_server_that_would_cut_or_change_text_keeps_it_whole_or_refuses(mysql_url: str, mode: str) -> None:
    url = make_url(mysql_url).update_query_dict({"init_command": f"SET sql_mode='{mode}'"})
    text = "\\ ' \" \n % {} é 🙂"
    with closing(open_storage(url, create=True)) as storage:
        study = make_study(storage, FREE, 1, "s")
        with pytest.raises(StorageError):
            storage.create_new_study([optuna.study.StudyDirection.MAXIMIZE], "n" * 600)
        with pytest.raises(StorageError):
            study.optuna.set_user_attr("k" * 600, "x")
        study.add_notice(text * 5000)
        assert names(storage) == ["s"]
    with closing(open_storage(mysql_url, create=False)) as storage:
        assert SearchStudy(storage, "s").notices() == [text * 5000]


# --- names of parameters

BY_LABEL = """
question: Which preset, each at its own learning rate?
base: {{training: {{epochs: 4}}}}
balance: preset
parameters:
  preset: {{choice: {{{one!r}: {{model.dropout: 0.1}}, {other!r}: {{model.dropout: 0.2}}}}, role: scientific}}
  optimizer.lr: {{float: [1e-3, 1.0], log: true, role: nuisance, each: preset}}
"""


@pytest.mark.parametrize("spellings", SPELLINGS.values(), ids=SPELLINGS)
def test_parameters_are_told_apart_by_any_spelling(storage: Storage, spellings: tuple[str, str]) -> None:
    study = make_study(storage, BY_LABEL.format(one=spellings[0], other=spellings[1]), 4, "s")
    while not study.is_complete():
        end(study, claim(study), "finished")
    drawn = [(trial.params["preset"], set(trial.params) - {"preset"}) for trial in study.trials()]
    assert drawn == [(name, {f"optimizer.lr@{name}"}) for name in (*spellings, *spellings)]


@pytest.mark.parametrize("kind", ["mysql-latin1", "postgres-latin1", "mysql-utf8mb3"])
def test_a_parameter_that_no_trial_could_be_stored_with_is_refused_before_the_study_is_made(
    kind: str,
) -> None:
    with database_of(kind) as url, closing(open_storage(url, create=True)) as storage:
        make_study(storage, BY_LABEL.format(one="é", other="è"), 2, "held")
        with pytest.raises(
            StorageError, match=r"cannot hold the parameter 'optimizer\.lr@🙂': name its options"
        ):
            make_study(storage, BY_LABEL.format(one="plain", other="🙂"), 2, "s")
        assert names(storage) == ["held"]


def test_a_parameter_with_a_label_of_any_length_is_stored_or_refused(storage: Storage) -> None:
    with pytest.raises(ValueError, match="at most 500 bytes"):
        make_study(storage, BY_LABEL.format(one="a", other="b" * 500), 2, "s")
    assert names(storage) == []
    study = make_study(storage, BY_LABEL.format(one="a", other="🙂" * 120), 2, "s")
    for _ in range(2):
        end(study, claim(study), "finished")
    assert study.trials()[1].params["preset"] == "🙂" * 120


def test_a_name_that_is_too_long_in_bytes_is_refused_with_the_option() -> None:
    with database_of("postgres-ascii") as url, closing(open_storage(url, create=True)) as storage:
        with pytest.raises(StorageError, match=r"no room for the name .*--study NAME"):
            make_study(storage, FREE, 1, "🙂" * LONGEST_NAME)
        assert names(storage) == []


# --- names of databases


def test_a_lock_is_one_by_whatever_spelling_the_server_takes_for_its_database(mysql_url: str) -> None:
    """Some servers take DATABASE and database for one; on this one two databases stand for it."""
    other = make_url(mysql_url).set(database=str(make_url(mysql_url).database).upper())
    first, second = (sa.create_engine(url) for url in (mysql_url, other))
    administer(MYSQL, f"CREATE DATABASE {other.database}")
    try:
        with (
            database_lock(first, "study 1"),
            pytest.raises(StorageError, match="was not free"),
            database_lock(second, "study 1", timeout=0.1),
        ):
            pass
    finally:
        first.dispose()
        second.dispose()
        administer(MYSQL, f"DROP DATABASE {other.database}")


def test_a_url_is_no_name_and_its_password_is_not_repeated() -> None:
    with pytest.raises(ValueError, match="must be a name, but got a URL") as refused:
        check_name("postgresql://u:secret@h/d")
    assert "secret" not in str(refused.value)
