"""What lies in a folder of images and is not read: it is counted, named, and stops nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import called, refused
from PIL import Image

from search.data.describe import describe
from search.data.sources import DataRequest, ImageData, load, load_test
from search.data.split import make_split

SPACE = """
question: Which dropout?
base: {model: {name: vgg, widths: [4]}, training: {epochs: 1, batch_size: 4}}
parameters:
  model.dropout: {float: [0.0, 0.5], role: scientific}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder with a space and a folder of images, of two classes with twelve each."""
    here = tmp_path / "here"
    for split, count in (("train", 12), ("test", 2)):
        for name in ("cat", "dog"):
            (here / "pets" / split / name).mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (8, 8), (number, 9, 0)).save(here / f"pets/{split}/{name}/{number}.png")
    (here / "space.yaml").write_text(SPACE)
    return here


@pytest.fixture
def pets(folder: Path) -> Path:
    return folder / "pets"


def read(pets: Path) -> ImageData:
    return load(DataRequest(str(pets), pets.parents[1] / "data"))


def add_unread(pets: Path) -> None:
    image = Image.new("RGB", (8, 8))
    for name in ("train/loose.png", "train/cat/b.GIF", "train/cat/a.gif", "train/dog/c.avif"):
        image.save(pets / name)
    (pets / "train/cat/none").write_bytes(b"no suffix")
    shutil.copytree(pets / "train/dog", pets / "valid/dog")
    shutil.copytree(pets / "train/dog", pets / "Test/dog")
    (pets / "train/cat/.DS_Store").write_bytes(b"hidden")


UNREAD = [
    "left out: 2 .gif, 1 .png, 1 without a suffix, 1 .avif (such as train/loose.png, train/cat/a.gif, "
    "train/cat/b.GIF): only files in a class's folder with the suffix of an image are read",
    "valid/ is not read: name it val/",
    "Test/ is not read, since there is test/",
]


def test_what_is_left_out_is_counted_and_named(pets: Path) -> None:
    before = read(pets)
    assert (before.left_out, before.notes) == ({}, ())
    add_unread(pets)
    data = read(pets)
    assert data.hash == before.hash
    assert data.left_out == {".gif": 2, ".png": 1, "": 1, ".avif": 1}
    assert list(data.notes) == UNREAD
    described = describe(data, make_split(data.labels_N, data.n_train))
    assert json.loads(json.dumps(described)) == described
    assert (described["left_out"], described["notes"]) == (data.left_out, UNREAD)


def test_the_command_data_says_what_is_left_out(folder: Path, pets: Path) -> None:
    add_unread(pets)
    code, out, err = called(folder, "data", "pets")
    assert (code, err) == (0, "")
    assert [line for line in out.splitlines() if line.startswith("note:")] == [
        f"note:      {note}" for note in UNREAD
    ]
    assert json.loads(called(folder, "data", "pets", "--json")[1])["notes"] == UNREAD


def test_many_suffixes_are_cut(pets: Path) -> None:
    for number in range(20):
        (pets / f"train/cat/x.{number:03}").touch()
    (note,) = read(pets).notes
    assert note.startswith("left out: 1 .000, 1 .001, 1 .002, 1 .003, 1 .004, 15 more suffixes (such as ")


@pytest.mark.parametrize("name", ["valid", "validation", "Val", "DEV", "eval"])
def test_a_folder_that_is_almost_called_val_gets_a_hint(pets: Path, name: str) -> None:
    shutil.copytree(pets / "train", pets / name)
    data = read(pets)
    assert (len(data.labels_N), data.notes) == (24, (f"{name}/ is not read: name it val/",))
    shutil.copytree(pets / "train", pets / "val")
    assert read(pets).notes == (f"{name}/ is not read, since there is val/",)


def test_a_second_name_of_the_same_folder_gets_none(pets: Path) -> None:
    """As on disks where Train is also train."""
    (pets / "Train").symlink_to("train", target_is_directory=True)
    (pets / "valid").write_text("no folder")
    assert read(pets).notes == ()


def test_a_folder_that_is_almost_called_train_or_test_is_named_where_those_are_wanted(pets: Path) -> None:
    (pets / "test").rename(pets / "Testing")
    with pytest.raises(ValueError, match=r"no folder test/ in it \(Testing/ is not read: name it test/\)$"):
        load_test(DataRequest(str(pets), pets.parents[1] / "data"))
    (pets / "train").rename(pets / "Training")
    with pytest.raises(ValueError, match=r"no folder train/ \(Training/ is not read: name it train/\)$"):
        read(pets)


def test_a_folder_of_other_images_alone_says_what_there_is(pets: Path) -> None:
    for image in (pets / "train").rglob("*.png"):
        image.rename(image.with_suffix(".gif"))
    with pytest.raises(ValueError, match=r"train: there is no image at all \(.*\); left out: 24 \.gif$"):
        read(pets)


def test_a_jpeg_by_its_other_name_is_read(pets: Path) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8))
    image.save(pets / "train/cat/a.JFIF", format="JPEG")
    data = read(pets)
    with Image.open(pets / "train/cat/a.JFIF") as expected:
        np.testing.assert_array_equal(
            data.images_NHWC[data.paths.index("train/cat/a.JFIF")], np.asarray(expected)
        )
    assert data.notes == ()


def test_the_command_data_says_why_a_test_folder_cannot_serve(folder: Path, pets: Path) -> None:
    shutil.rmtree(pets / "test/dog")
    code, out, err = called(folder, "data", "pets")
    assert (code, err) == (0, "")
    (line,) = [line for line in out.splitlines() if line.startswith("test:")]
    assert line.startswith("test:      there, but retrain will refuse it: ")
    assert "pets/test: must have the same classes as train/, but lacks 'dog': " in line
    described = json.loads(called(folder, "data", "pets", "--json")[1])
    assert not described["has_test"]
    assert described["test_fault"] in line


@pytest.mark.slow
def test_a_search_does_without_a_test_folder_that_retrain_refuses(folder: Path, pets: Path) -> None:
    shutil.rmtree(pets / "test/dog")
    words = ("--space", "space.yaml", "--trials", "1", "--workers", "1", "--study", "s")
    (pets / "train/cat/film.gif").write_bytes(b"GIF89a")
    code, out, _ = called(folder, "run", *words, "--dataset", "pets")
    assert code == 0
    assert "note: left out: 1 .gif (such as train/cat/film.gif)" in out
    assert "pets/test: must have the same classes as train/, but lacks 'dog'" in " ".join(out.split())
    assert called(folder, "export", "s", "-o", "best.yaml")[0] == 0
    line = refused(folder, "retrain", "best.yaml", "-o", "trained")
    assert "pets/test: must have the same classes as train/, but lacks 'dog': " in line
    shutil.move(pets / "test", pets / "elsewhere")
    assert called(folder, "retrain", "best.yaml", "-o", "trained", "--seeds", "1")[0] == 0
