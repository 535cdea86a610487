"""Checkpoints of running trials, so that a trial whose worker is killed goes on at its epoch.

One file a slot: a line with the SHA-256 of the rest, then the state of the run as ``torch.save`` writes it.
A file that was cut short or changed, or that belongs to another training, is as good as none. Only plain
data and tensors are ever read from it.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from collections.abc import Container
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from studies.files import whole

EVERY = 10.0
"""Seconds between two checkpoints of a trial, at least."""
_FORMAT = b"cifar-search checkpoint 1"
_SUFFIX = ".checkpoint"


class Checkpoints:
    """Those of one study, in a folder that all its workers share."""

    def __init__(self, folder: Path, every: float = EVERY) -> None:
        """Take the study's own folder, which is made with the first checkpoint."""
        self.every = every
        self._folder = folder

    def save(self, slot: int, training: str, state: dict[str, Any]) -> None:
        """Keep a state in place of the slot's earlier one: all of it, or nothing.

        Args:
            slot: the slot's number.
            training: what decides the training: a hash.
            state: plain data and tensors.

        Raises:
            OSError: it cannot be written.
        """
        payload = io.BytesIO()
        torch.save({"training": training, "state": state}, payload)
        content = payload.getbuffer()
        self._folder.mkdir(parents=True, exist_ok=True)
        with whole(self._file(slot)) as file:
            file.write(b"%s %s\n" % (_FORMAT, hashlib.sha256(content).hexdigest().encode()))
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        _sync_folder(self._folder)

    def load(self, slot: int, training: str, device: torch.device) -> dict[str, Any] | None:
        """The slot's state, on a device; None if there is none that is whole and of this training."""
        try:
            header, _, content = self._file(slot).read_bytes().partition(b"\n")
        except OSError:
            return None
        if header != b"%s %s" % (_FORMAT, hashlib.sha256(content).hexdigest().encode()):
            return None
        try:
            kept = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError):
            return None
        if not isinstance(kept, dict) or kept.get("training") != training:
            return None
        state: dict[str, Any] | None = kept.get("state")
        return state

    def delete(self, slot: int) -> None:
        """Forget the slot's state, and what workers that were killed had written of it."""
        self._delete((slot,))

    def sweep(self, closed: Container[int]) -> None:
        """Forget the states of closed slots, which their workers did not live to do."""
        self._delete(closed)
        self._tidy()

    def _delete(self, slots: Container[int]) -> None:
        for file in self._folder.glob(f"*{_SUFFIX}*"):
            slot = file.name.removeprefix(".").partition(".")[0]
            if slot.isdecimal() and int(slot) in slots:
                with suppress(OSError):
                    file.unlink(missing_ok=True)

    def _tidy(self) -> None:
        """Take the folder away, and the one of all studies, if they are empty."""
        with suppress(OSError):
            self._folder.rmdir()
            self._folder.parent.rmdir()

    def _file(self, slot: int) -> Path:
        return self._folder / f"{slot}{_SUFFIX}"


def _sync_folder(folder: Path) -> None:
    """Make the renaming last through a loss of power."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
