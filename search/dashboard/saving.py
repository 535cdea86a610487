"""Notes that people save in the browser, one at a time with all that write notes elsewhere.

optuna-dashboard compares the version of a note with the one that the browser has seen, and then writes
version and text in transactions of their own. In between somebody else may write a note that is overwritten,
or may read a text with the version of another.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from studies.storage import Storage, study_lock

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_NOTE = re.compile(r"/api/studies/([0-9]{1,18})(?:/[0-9]+)?/note")


class NoteSaver:
    """A WSGI application around optuna-dashboard's."""

    def __init__(self, app: WSGIApplication, storage: Storage) -> None:
        """Let ``app`` save notes in ``storage``, which it must use itself."""
        self._app = app
        self._storage = storage

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request; one that saves a note under the study's lock and in one transaction."""
        note = _NOTE.fullmatch(environ.get("PATH_INFO", ""))
        if environ["REQUEST_METHOD"] != "PUT" or note is None:
            return self._app(environ, start_response)
        with study_lock(self._storage, int(note[1])), self._storage.together():
            return list(self._app(environ, start_response))
