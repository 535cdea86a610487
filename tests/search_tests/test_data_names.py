"""Names of classes and files: of any script, of both Unicode spellings, and what is refused."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from search.data.sources import DataRequest, ImageData, load, load_test
from spaces.space import Space
from spaces.text import is_plain_text, plain, plain_letters

ORDINARY = [
    "Screenshot 2024-05-01 at 9.41.00\u202fAM",  # as macOS names them
    "10\u00a0000 Kč",
    "\u0645\u06cc\u200c\u0634\u0648\u062f",  # Persian, with a zero-width non-joiner
    "\u732b\u3000\u72ac",  # Japanese, with a wide space
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",  # emoji joined to one
    "left\u200eright",
    "caf\u00e9",
    "[red]x[/y]",
]
CONTROLS = [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
REFUSED = [*map(chr, CONTROLS), "\udcff", "\ud800"]


def write(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (value, 0, 0)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of two images."""
    root = tmp_path / "pets"
    for number, path in enumerate(("cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png")):
        write(root / "train" / path, number)
    return root


def read(root: Path) -> ImageData:
    return load(DataRequest(str(root), root.parent / "data"))


def refusal(root: Path) -> str:
    with pytest.raises(ValueError, match="pets") as caught:
        read(root)
    message = str(caught.value)
    assert is_plain_text(message)
    return message


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_names_of_any_script_are_plain(name: str) -> None:
    assert is_plain_text(name)
    assert plain(name) == plain_letters(name) == name


@pytest.mark.parametrize("letter", REFUSED)
def test_controls_overrides_and_undecodable_bytes_are_not_plain(letter: str) -> None:
    assert not is_plain_text(f"a{letter}b")
    assert plain(f"a{letter}b") == repr(f"a{letter}b")
    assert plain_letters(f"a{letter}b") == "a b"


@pytest.mark.parametrize("name", [name for name in ORDINARY if "/" not in name])
def test_ordinary_names_are_read(folder: Path, name: str) -> None:
    write(folder / "train" / name / f"{name}.png", 9)
    data = read(folder)
    assert unicodedata.normalize("NFC", name) in data.classes
    assert f"train/{name}/{name}.png" in data.paths


@pytest.mark.parametrize("name", [b"\xff", b"\x1b[31m", "\u202e".encode(), b"a\nb"])
def test_names_of_files_that_are_not_used_do_not_matter(folder: Path, name: bytes) -> None:
    before = read(folder).hash
    unused = os.fsencode(folder) + b"/train/cat/" + name
    Path(os.fsdecode(unused + b".txt")).write_text("no image")
    Path(os.fsdecode(os.fsencode(folder) + b"/train/" + name + b".png")).write_text("no class")
    (folder / "train/cat/link.txt").symlink_to("nowhere")
    data = read(folder)
    assert data.hash == before
    assert all(map(is_plain_text, data.notes))


@pytest.mark.parametrize("name", [b"\xff", b"\x1b[31m", "\u202e".encode(), b"a\nb"])
def test_names_of_images_and_classes_are_refused_where_they_cannot_be_shown(
    folder: Path, name: bytes
) -> None:
    image = Path(os.fsdecode(os.fsencode(folder) + b"/train/cat/" + name + b".png"))
    (folder / "train/cat/1.png").rename(image)
    assert "a name must be printable text" in refusal(folder)
    image.rename(folder / "train/cat/1.png")
    (folder / "train/cat").rename(os.fsdecode(os.fsencode(folder) + b"/train/" + name))
    assert "a name must be printable text" in refusal(folder)


def test_all_names_that_are_refused_are_named(folder: Path) -> None:
    for number in range(12):
        write(folder / f"train/cat/\u202e{number:02}.png")
    message = refusal(folder)
    assert "train/cat: 12 files cannot be used: " in message
    assert message.count("\\u202e") == 10
    assert message.endswith("; and 2 more")


def test_a_class_is_one_class_in_both_spellings_of_unicode(folder: Path) -> None:
    composed, decomposed = "\u00e9t\u00e9", "e\u0301te\u0301"
    write(folder / "train" / composed / "0.png", 7)
    for split in ("val", "test"):
        for name in ("cat", "dog", decomposed):
            write(folder / split / name / "0.png", 8)
    data = read(folder)
    assert data.classes == ("cat", "dog", composed)
    assert data.labels_N.tolist() == [0, 0, 1, 1, 2, 0, 1, 2]
    assert data.has_test
    assert load_test(DataRequest(str(folder), folder.parent / "data")).labels_N.tolist() == [0, 1, 2]


def test_classes_are_recorded_in_one_spelling_whatever_the_disk_says(tmp_path: Path) -> None:
    hashes = set()
    for form in ("NFC", "NFD"):
        root = tmp_path / form / "pets"
        for number, name in enumerate(("\u00e9t\u00e9", "hiver", "f\u00eate")):
            write(root / "train" / unicodedata.normalize(form, name) / "0.png", number)
        data = read(root)
        assert data.classes == ("f\u00eate", "hiver", "\u00e9t\u00e9")
        assert data.images_NHWC[:, 0, 0, 0].tolist() == [2, 1, 0]
        hashes.add(data.hash)
    assert len(hashes) == 1


def test_two_spellings_of_one_class_beside_each_other_are_refused(folder: Path) -> None:
    for name in ("\u00e9", "e\u0301"):
        write(folder / "train" / name / "0.png")
    message = refusal(folder)
    assert "a class must have one folder" in message
    assert r"'\xe9'" in message
    assert r"'e\u0301'" in message


def test_a_folder_whose_path_no_study_could_record_is_refused(folder: Path) -> None:
    """The message gives the whole path, however deep the folder lies."""
    deep = folder.parent / ("d" * 100)
    deep.mkdir()
    moved = folder.rename(os.fsdecode(os.fsencode(deep / "pets") + b"\xff"))
    message = refusal(moved)
    assert "the path of a folder must be UTF-8 text" in message
    assert repr(str(moved)) in message


def test_a_folder_of_plain_names_keeps_the_hash_that_earlier_versions_gave_it(tmp_path: Path) -> None:
    """Studies are held to it."""
    root = tmp_path / "pets"
    for label, name in enumerate(("cat", "f\u00eate")):
        for number in range(2):
            write(root / "train" / name / f"{number}.png", 10 * label + number)
    data = read(root)
    np.testing.assert_array_equal(data.images_NHWC[:, 0, 0, 0], [0, 1, 10, 11])
    assert data.hash == "d95b43af4ef114884bc94581c4c0c437e2b78c1f6f7319e85bacff60e83d86ba"


def space(name: str) -> str:
    return (
        f"question: 'Which {name}?'\nbase: {{training: {{epochs: 1}}, data: {{noise_file: '{name}.csv'}}}}\n"
        f"parameters:\n  model.activation@{name}: {{choice: {{'{name}': relu, b: tanh}}, role: scientific}}\n"
    )


@pytest.mark.parametrize("letter", ["\u202f", "\u200c", "\u00a0"])
def test_the_rule_holds_for_all_names_of_a_space(letter: str) -> None:
    read_space = Space.read(space(f"a{letter}b"), "f.yaml", "f")
    assert Space.read(read_space.to_yaml(), "back.yaml", "f") == read_space
