"""Attributes and names of any length and spelling, on every database.

MySQL's text columns hold 64 KiB. So the JSON of a longer value is cut, on all databases alike: under the
attribute's own key stands how many pieces there are, and each piece is an attribute beside it. They are
written in one transaction, read in one statement, and never seen by whoever reads through this storage.

MySQL compares names without regard to case, accents or blanks at the end, and takes any two emoji for equal.
Its index allows one study for all such spellings; this storage gives it out by its own alone.

Uses of Optuna's internals, held by a test: ``RDBStorage._set_trial_attr_without_commit`` and
``scoped_session``, ``storage._create_scoped_session``, and the models of studies and attributes.
"""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import sqlalchemy as sa
from optuna.exceptions import DuplicatedStudyError, StorageInternalError
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial

from spaces.text import brief
from studies.dashboard_attributes import sensible
from studies.urls import GoneError, StorageError, masked

TOKEN = "cifar-search:token"
"""System attribute of a trial: who made it, or started it from the queue. Random for each such call."""
LONGEST = 60_000
"""Characters of JSON (all of them ASCII) that one row holds."""
_PIECE = 25_000
"""Characters of a piece, of which JSON may write each as two."""
FIXED = "fixed_params"
"""System attribute of a trial by which ``Study.enqueue_trial`` says what is known of its parameters."""
UNREAD = "cifar-search:unread"
"""System attribute that is never stored: of a trial that was read, those parameters that another program must
have written, each with what is wrong with it. The trial is without them."""
PIECES = "cifar-search:piece "
"""Beginning of the keys of pieces."""
_COUNT = "cifar-search:pieces"
_NO_SUCH_CHARACTER = {"22P05", 1267, 1366, 3854, 3988}
"""How PostgreSQL and MySQL say that a character is none of the database's, in a comparison or a new row."""
_TOO_LONG = {"22001", 1406}
"""How they say that a text is too long; without an encoding PostgreSQL counts bytes."""


def rows_of(key: str, value: Any) -> dict[str, Any]:
    """The attributes by which a value is stored: itself, or its pieces and their number."""
    text = json.dumps(value)
    if len(text) <= LONGEST:
        return {key: value}
    pieces = [text[start : start + _PIECE] for start in range(0, len(text), _PIECE)]
    rows: dict[str, Any] = {_piece_key(key, index): piece for index, piece in enumerate(pieces)}
    return rows | {key: {_COUNT: len(pieces)}}


def value_of(text: str) -> Any:
    """What a row of an attribute says. Of one that another program wrote and that is no JSON, the text."""
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return text


def joined(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes as they were set, from those stored. One of which a piece is missing, as only another
    program leaves it, is what stands under its own key."""
    return {key: _whole(stored, key, value) for key, value in stored.items() if _is_seen(key)}


def _whole(stored: Mapping[str, Any], key: str, value: Any) -> Any:
    if not (isinstance(value, dict) and value.keys() == {_COUNT}):
        return value
    count = value[_COUNT]
    if type(count) is not int or not 0 < count <= len(stored):
        return value
    pieces = [stored.get(_piece_key(key, index)) for index in range(count)]
    texts = [piece for piece in pieces if isinstance(piece, str)]
    return value_of("".join(texts)) if len(texts) == count else value


def misfits_of(trial: FrozenTrial) -> dict[str, str]:
    """By the name of each parameter that a trial is read without, what is wrong with it."""
    return dict(trial.system_attrs.get(UNREAD, {}))


def _is_seen(key: str) -> bool:
    return not key.startswith(PIECES) and key not in (TOKEN, UNREAD)


def _piece_key(key: str, index: int) -> str:
    return f"{PIECES}{index} {key}"


@dataclass(frozen=True)
class _Setting:
    """An attribute of a study that is to be set."""

    study_id: int
    owner: Mapping[str, Any]
    """User attributes that the study must have."""
    kind: Any
    """The model of user or of system attributes."""
    key: str
    value: Any


@dataclass(frozen=True)
class Renaming:
    """A study that is to have another name."""

    study_id: int
    owner: Mapping[str, Any]
    """User attributes that the study must have."""
    name: str
    attributes: Mapping[str, Any]
    """User attributes that it is to have with the new name."""


class AttributeStorage(RDBStorage):
    """An ``RDBStorage`` whose attributes may be long, and whose names are spelt as they were given."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        """As ``RDBStorage``."""
        super().__init__(*arguments, **named)
        self._waiting = threading.local()

    def get_study_id_from_name(self, study_name: str) -> int:
        """The study of exactly this name.

        Raises:
            KeyError: there is none.
            StorageError: there is none, and there can be none beside one that the database takes for it.
        """
        study = models.StudyModel
        query = sa.select(study.study_id, study.study_name).where(study.study_name == study_name)
        try:
            with _create_scoped_session(self.scoped_session) as session:
                found = session.execute(query).first()
        except (UnicodeEncodeError, StorageInternalError) as error:
            if not _is_of_characters(error):
                raise
            found = None
        if found is None:
            raise GoneError(f"storage {masked(self.engine.url)}: there is no study {brief(study_name)}")
        if found.study_name != study_name:
            raise StorageError(
                f"storage {masked(self.engine.url)}: holds the study {found.study_name!r}, whose name this "
                f"database takes for the same as {study_name!r}: write it as it is, or choose another name"
            )
        return int(found.study_id)

    def create_whole_study(
        self,
        directions: Sequence[StudyDirection],
        study_name: str,
        user_attrs: Mapping[str, Any],
        system_attrs: Mapping[str, Any],
    ) -> int:
        """Make a study together with its attributes: all of it is stored, or nothing.

        Raises:
            DuplicatedStudyError: there is one of this name.
            StorageError: the database cannot hold the name, for its characters or its length.
        """
        try:
            with _create_scoped_session(self.scoped_session) as session:
                kinds = [
                    models.StudyDirectionModel(objective=objective, direction=direction)
                    for objective, direction in enumerate(directions)
                ]
                study = models.StudyModel(study_name=study_name, directions=kinds)
                session.add(study)
                session.flush()
                study_id = cast(int, study.study_id)
                _set_all(session, models.StudyUserAttributeModel, study_id, user_attrs)
                _set_all(session, models.StudySystemAttributeModel, study_id, system_attrs)
        except sa.exc.IntegrityError:
            raise DuplicatedStudyError(f"there is a study {study_name!r} already") from None
        except (UnicodeEncodeError, StorageInternalError) as error:
            self._refuse_name(error, study_name, "choose another one by --study NAME")
            raise
        return study_id

    def _refuse_name(self, error: Exception, name: str, remedy: str) -> None:
        """Say of an error that it is due to the name of a study, if it is."""
        if not (_is_of_characters(error) or _codes(error) & _TOO_LONG):
            return
        reason = "its character set cannot hold" if _is_of_characters(error) else "it has no room for"
        raise StorageError(
            f"storage {masked(self.engine.url)}: {reason} the name {brief(name)}: {remedy}, or keep the "
            "studies in a UTF-8 database"
        ) from None

    def rename_studies(self, renamings: Sequence[Renaming]) -> None:
        """Give studies new names, and what goes with these: to all of them, or to none.

        Raises:
            DuplicatedStudyError: another study has one of the names.
            StorageError: another study has one that the database takes for it, or it cannot hold a name.
            GoneError: one of them is not there any more.
        """
        name = ""
        try:
            with _create_scoped_session(self.scoped_session) as session:
                for each in sorted(renamings, key=lambda each: each.study_id):
                    name = each.name
                    check_owner(hold(session, each.study_id), each.owner)
                    models.StudyModel.find_or_raise_by_id(each.study_id, session).study_name = name
                    _set_all(session, models.StudyUserAttributeModel, each.study_id, each.attributes)
                    session.flush()
        except sa.exc.IntegrityError:
            self.get_study_id_from_name(name)  # raises where the other one is spelt otherwise
            raise DuplicatedStudyError(f"there is a study {name!r} already: choose another name") from None
        except (UnicodeEncodeError, StorageInternalError) as error:
            self._refuse_name(error, name, "choose another one")
            raise

    def check_parameters(self, names: Sequence[str]) -> None:
        """Refuse names of parameters that no trial could be stored with.

        Raises:
            StorageError: naming the first that the database's character set cannot hold.
        """
        parameter = models.TrialParamModel
        for name in (name for name in names if not name.isascii()):
            query = sa.select(parameter.param_id).where(parameter.param_name == name).limit(1)
            try:
                with _create_scoped_session(self.scoped_session) as session:
                    session.execute(query)
            except (UnicodeEncodeError, StorageInternalError) as error:
                if not _is_of_characters(error):
                    raise
                raise StorageError(
                    f"storage {masked(self.engine.url)}: its character set cannot hold the parameter "
                    f"{brief(name)}: name its options otherwise in the space, or keep the studies in a UTF-8 "
                    "database"
                ) from None

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self._set_study_attr(_Setting(study_id, {}, models.StudyUserAttributeModel, key, value))

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._set_study_attr(_Setting(study_id, {}, models.StudySystemAttributeModel, key, value))

    def set_attribute_of(
        self, study_id: int, owner: Mapping[str, Any], key: str, value: Any, *, system: bool
    ) -> None:
        """Set an attribute of a study, provided that the study has all the user attributes ``owner``.

        Raises:
            GoneError: it has not, as when the study was deleted and its id given to another.
        """
        kind = models.StudySystemAttributeModel if system else models.StudyUserAttributeModel
        self._set_study_attr(_Setting(study_id, owner, kind, key, value))

    @contextmanager
    def together(self) -> Iterator[None]:
        """Write what this thread sets of studies within the ``with`` block in one transaction, at its end;
        nothing, if it ends with an error. Within it, what was set is not read yet."""
        self._waiting.settings = []
        try:
            yield
            settings = self._waiting.settings
        finally:
            self._waiting.settings = None
        if settings:
            self._write_settings(settings)

    def _set_study_attr(self, setting: _Setting) -> None:
        waiting = getattr(self._waiting, "settings", None)
        if waiting is None:
            self._write_settings([setting])
        else:
            waiting.append(setting)

    def _write_settings(self, settings: Sequence[_Setting]) -> None:
        with _create_scoped_session(self.scoped_session) as session:
            for study_id in sorted({setting.study_id for setting in settings}):
                there = hold(session, study_id)
                for setting in (each for each in settings if each.study_id == study_id):
                    check_owner(there, setting.owner)
                    _set_all(session, setting.kind, study_id, {setting.key: setting.value})
                    session.flush()

    def _set_trial_attr_without_commit(
        self, session: Any, model_cls: Any, trial_id: int, key: str, value: Any
    ) -> None:
        for row_key, row in rows_of(key, value).items():
            super()._set_trial_attr_without_commit(session, model_cls, trial_id, row_key, row)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._attributes_of(models.StudyUserAttributeModel, study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return sensible(self._attributes_of(models.StudySystemAttributeModel, study_id))

    def _attributes_of(self, kind: Any, study_id: int) -> dict[str, Any]:
        with _create_scoped_session(self.scoped_session) as session:
            models.StudyModel.find_or_raise_by_id(study_id, session)
            return _from_rows(kind.where_study_id(study_id, session))

    def get_trial_user_attrs(self, trial_id: int) -> dict[str, Any]:
        return self.get_trial(trial_id).user_attrs

    def get_trial_system_attrs(self, trial_id: int) -> dict[str, Any]:
        return self.get_trial(trial_id).system_attrs

    def get_all_studies(self) -> list[FrozenStudy]:
        tables = (
            models.StudyDirectionModel,
            models.StudyUserAttributeModel,
            models.StudySystemAttributeModel,
        )
        with _create_scoped_session(self.scoped_session) as session:
            studies = session.query(models.StudyModel).order_by(models.StudyModel.study_id).all()
            directions, user, system = (_by_study(session.query(table).all()) for table in tables)
            return [
                FrozenStudy(
                    study_name=str(study.study_name),
                    direction=None,
                    directions=[row.direction for row in directions[int(study.study_id)]],
                    user_attrs=_from_rows(user[int(study.study_id)]),
                    system_attrs=sensible(_from_rows(system[int(study.study_id)])),
                    study_id=int(study.study_id),
                )
                for study in studies
            ]


def _by_study(rows: Iterable[Any]) -> dict[int, list[Any]]:
    by_study: dict[int, list[Any]] = defaultdict(list)
    for row in rows:
        by_study[row.study_id].append(row)
    return by_study


def _from_rows(rows: Iterable[Any]) -> dict[str, Any]:
    return joined({row.key: value_of(row.value_json) for row in rows if isinstance(row.key, str)})


def _is_of_characters(error: BaseException) -> bool:
    """Whether an error says that a text has characters that the database cannot hold."""
    if isinstance(error, UnicodeEncodeError):
        return True
    return bool(_codes(error) & _NO_SUCH_CHARACTER)


def _codes(error: BaseException) -> set[Any]:
    """What the driver's error is called by."""
    cause = getattr(error.__cause__, "orig", None)
    return {getattr(cause, "sqlstate", None), *(cause.args[:1] if cause else ())}


def hold(session: Any, study_id: int) -> dict[str, Any]:
    """Keep others from writing a study until the session's transaction ends; return its user attributes."""
    models.StudyModel.find_or_raise_by_id(study_id, session, for_update=True)
    return _from_rows(models.StudyUserAttributeModel.where_study_id(study_id, session))


def check_owner(attributes: Mapping[str, Any], owner: Mapping[str, Any]) -> None:
    """Refuse a study whose user attributes are not those that tell it from all others.

    Raises:
        GoneError: it is another study.
    """
    if any(attributes.get(key) != value for key, value in owner.items()):
        raise GoneError("its id is another study's now")


def _set_all(session: Any, kind: Any, study_id: int, attributes: Mapping[str, Any]) -> None:
    """Set attributes of a study, in the session's transaction."""
    rows = {k: row for key, value in attributes.items() for k, row in rows_of(key, value).items()}
    known = session.query(kind).filter(kind.study_id == study_id, kind.key.in_(rows)).all()
    there = {row.key: row for row in known}
    for key, value in rows.items():
        text = json.dumps(value)
        if key in there:
            there[key].value_json = text
        else:
            session.add(kind(study_id=study_id, key=key, value_json=text))
