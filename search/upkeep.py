"""The commands that change a study as a whole: told to stop, deleted, renamed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from search.options import DEFAULT_STORAGE
from search.output import agree, say
from search.tables import command_line
from spaces.text import within
from studies.base import Study
from studies.opening import open_existing
from studies.storage import open_storage
from studies.study import SearchStudy, check_name
from studies.upkeep import delete, refuse_work_on, rename, with_repetitions, work_on


def stop_study(storage_url: str, name: str) -> None:
    """Tell all who work on a study and its repetitions to leave, and say who they are.

    Raises:
        ValueError: there is no such study.
    """
    with _opened(storage_url, name) as studies:
        idle = True
        for study in studies:
            study.request_stop()
            if (work := work_on(study)).trials:
                idle = False
                say(
                    f"study {study.name!r}: {work.trials} running trial(s) of {', '.join(work.commands)} are "
                    "put back at the end of the epoch, and who works on it leaves"
                )
    if idle:
        say(f"study {name!r}: no trial is running. Commands that start later are not stopped")


def delete_study(storage_url: str, name: str, yes: bool) -> None:
    """Delete a study and its repetitions, if a person agrees.

    Raises:
        ValueError: there is no such study, somebody works on it, or nobody agrees.
    """
    with _opened(storage_url, name) as studies:
        for study in studies:
            refuse_work_on(study)
        what = ", ".join(f"{each.name!r} with {len(each.trials())} trials" for each in studies)
        agree(f"delete study {what}?", yes)
        for study in reversed(studies):  # what is interrupted can be done again
            delete(study, storage_url)
    say(f"deleted study {what}")


def rename_study(storage_url: str, name: str, new: str) -> None:
    """Rename a search and its repetitions.

    Raises:
        ValueError: there is no such search, somebody works on it, or the new name cannot be given.
    """
    with within("NEW"):
        check_name(new)
        if new == name:
            raise ValueError(f"must be another name than the study has, but got {new!r}")
    with _opened(storage_url, name) as studies:
        if not isinstance(studies[0], SearchStudy):
            raise ValueError(f"{name!r} holds repetitions, which are called after their search: rename that")
        for study in studies:
            refuse_work_on(study)
        with within("NEW"):
            rename(studies, new)
    say(f"study {name!r} is called {new!r} now" + (", and its repetitions after it" if studies[1:] else ""))
    say(f"  {command_line(['show', new], storage_url, DEFAULT_STORAGE)}")


@contextmanager
def _opened(storage_url: str, name: str) -> Iterator[list[Study]]:
    """The study of this name, then the repetitions that belong to it."""
    with within("--storage"):
        storage = open_storage(storage_url, create=False, write=True)
    with closing(storage):
        yield with_repetitions(open_existing(storage, name))
