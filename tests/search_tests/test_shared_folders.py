"""Files that are written in folders where others may write too: links laid there are not followed."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from search.checkpoints import Checkpoints
from search.data.preview import draw_grid
from search.pictures.canvas import new_figure, save
from search.weights import load_weights, save_weights
from studies.files import whole, write_text

PRECIOUS = "somebody's thesis"


def preview(path: Path) -> None:
    draw_grid(np.zeros((1, 8, 8, 3), np.uint8), np.zeros(1, np.int64), ["0"], path)


def checkpoint(path: Path) -> None:
    assert path.name == "3.checkpoint"
    Checkpoints(path.parent).save(3, "a training", {"epoch": 1})


WRITERS: dict[str, Callable[[Path], object]] = {
    "e.yaml": lambda path: write_text(path, "text"),
    "e.png": lambda path: save(new_figure(1, 1), path),
    "e.safetensors": lambda path: save_weights(nn.Linear(2, 2), path),
    "preview.png": preview,
    "3.checkpoint": checkpoint,
}


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "victim"
    path.write_text(PRECIOUS)
    return path


@pytest.mark.parametrize("name", WRITERS)
def test_no_link_that_somebody_laid_is_written_through(tmp_path: Path, victim: Path, name: str) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    guesses = [f".{name}.{os.getpid()}", f".3.{os.getpid()}.checkpoint", name]
    for guess in guesses:
        (folder / guess).symlink_to(victim)
    WRITERS[name](folder / name)
    assert victim.read_text() == PRECIOUS
    assert not (folder / name).is_symlink(), "a link at the place itself is replaced"
    assert (folder / name).stat().st_size
    assert {path.name for path in folder.iterdir()} == set(guesses), "nothing else is left"


def test_a_link_laid_at_the_very_name_of_the_draft_is_an_error(
    tmp_path: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda _: "guessed")
    (tmp_path / ".e.yaml.guessed").symlink_to(victim)
    with pytest.raises(ValueError, match=r"e\.yaml: cannot be written \(File exists\)"):
        write_text(tmp_path / "e.yaml", "text")
    assert victim.read_text() == PRECIOUS
    assert (tmp_path / ".e.yaml.guessed").is_symlink(), "what is not ours is not deleted"


def test_a_file_is_whole_or_as_it_was_and_has_the_permissions_of_any_other(tmp_path: Path) -> None:
    path, usual = tmp_path / ("e" * 250 + ".yaml"), tmp_path / "usual"
    usual.touch()
    write_text(path, "first\n")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(usual.stat().st_mode)
    with pytest.raises(TypeError), whole(path) as file:
        file.writelines([b"half", "of it"])  # type: ignore[list-item]
    assert path.read_text() == "first\n"
    assert set(tmp_path.iterdir()) == {path, usual}


def test_weights_are_read_as_they_were_written_in_whatever_layout(tmp_path: Path) -> None:
    network = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    save_weights(network, tmp_path / "w.safetensors")
    other = nn.Conv2d(3, 4, 3)
    load_weights(other, tmp_path / "w.safetensors")
    assert torch.equal(other.weight, network.weight)
