"""Imagenette: a stand-in in its real layout, without a network."""

from __future__ import annotations

import hashlib
import socket
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import Imagenette

from search.data import imagenette
from search.data.sources import DataRequest, DataUnavailable, load, load_test

CLASSES = ("n01440764", "n02102040", "n02979186")


def write_images(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 3), ("val", 2)):
        for name in CLASSES:
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (20 + number, 24, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{name}_{number}.JPEG")


@pytest.fixture
def packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in packed, and a URL at which nobody answers."""
    write_images(tmp_path / "imagenette2-160")
    archive = tmp_path / "imagenette2-160.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "imagenette2-160", "imagenette2-160")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/{archive.name}"
    checksum = hashlib.md5(archive.read_bytes()).hexdigest()
    monkeypatch.setitem(Imagenette._ARCHIVES, imagenette.VERSION, (url, checksum))
    return archive


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def test_an_archive_put_there_by_hand_is_unpacked_and_read(packed: Path, data_dir: Path) -> None:
    packed.rename(data_dir / packed.name)
    data = load(DataRequest("imagenette", data_dir))
    assert data.images_NHWC.shape == (15, imagenette.SIDE, imagenette.SIDE, 3)
    assert data.name == "imagenette"
    assert data.classes == CLASSES
    assert data.n_train == 9
    assert data.paths[0] == "train/n01440764/n01440764_0.JPEG"
    assert data.paths[-1] == "val/n02979186/n02979186_1.JPEG"
    assert not data.has_test
    assert sorted(path.name for path in data_dir.iterdir() if path.name.startswith("tmp")) == []
    assert load(DataRequest("imagenette", data_dir, image_size=16)).images_NHWC.shape == (15, 16, 16, 3)


def test_there_is_no_test_split(packed: Path, data_dir: Path) -> None:
    packed.rename(data_dir / packed.name)
    with pytest.raises(ValueError, match="has no test split"):
        load_test(DataRequest("imagenette", data_dir))


def test_without_a_network_one_line_says_what_to_do(packed: Path, data_dir: Path) -> None:
    with pytest.raises(DataUnavailable) as caught:
        load(DataRequest("imagenette", data_dir))
    message = str(caught.value)
    assert "\n" not in message
    for part in ("http://127.0.0.1", "Connection refused", str(data_dir / packed.name), "digits"):
        assert part in message


def test_an_archive_with_another_checksum_is_never_unpacked(packed: Path, data_dir: Path) -> None:
    (data_dir / packed.name).write_bytes(packed.read_bytes() + b"more")
    with pytest.raises(DataUnavailable):
        load(DataRequest("imagenette", data_dir))
    assert not (data_dir / "imagenette2-160").exists()


def test_a_cut_archive_is_told_to_be_replaced(packed: Path, data_dir: Path) -> None:
    (data_dir / packed.name).write_bytes(packed.read_bytes()[:-100])
    with pytest.raises(DataUnavailable, match=r"imagenette2-160.tgz, in place of .* checksum is wrong"):
        load(DataRequest("imagenette", data_dir))
    assert not (data_dir / "imagenette2-160").exists()


def test_a_cut_archive_whose_checksum_is_right_leaves_nothing(
    packed: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = data_dir / packed.name
    cut.write_bytes(packed.read_bytes()[:-100])
    accept(cut, monkeypatch)
    with pytest.raises(DataUnavailable, match="ended before the end-of-stream"):
        load(DataRequest("imagenette", data_dir))
    assert [path.name for path in data_dir.iterdir() if not path.name.startswith(".")] == [packed.name]


def accept(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the archive have the published checksum."""
    url = Imagenette._ARCHIVES[imagenette.VERSION][0]
    checksum = hashlib.md5(archive.read_bytes()).hexdigest()
    monkeypatch.setitem(Imagenette._ARCHIVES, imagenette.VERSION, (url, checksum))


@pytest.mark.parametrize(
    ("name", "kind", "link"),
    [
        ("../../escaped", tarfile.REGTYPE, ""),
        ("/tmp/escaped", tarfile.REGTYPE, ""),
        ("imagenette2-160/../../escaped", tarfile.REGTYPE, ""),
        ("imagenette2-160/a", tarfile.SYMTYPE, "b"),
        ("imagenette2-160/a", tarfile.SYMTYPE, "/etc"),
        ("imagenette2-160/a", tarfile.LNKTYPE, "imagenette2-160/../../../escaped"),
        ("imagenette2-160/a", tarfile.CHRTYPE, ""),
        ("imagenette2-160/a", tarfile.FIFOTYPE, ""),
    ],
)
def test_an_archive_that_could_write_elsewhere_is_refused_before_anything_is_unpacked(
    data_dir: Path, packed: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: bytes, link: str
) -> None:
    climbing = data_dir / packed.name
    with tarfile.open(packed) as good, tarfile.open(climbing, "w:gz") as tar:
        for member in good:
            tar.addfile(member, good.extractfile(member) if member.isfile() else None)
        evil = tarfile.TarInfo(name)
        evil.type, evil.linkname = kind, link
        tar.addfile(evil)
    accept(climbing, monkeypatch)
    with pytest.raises(
        ValueError, match=rf"only files and folders below its own, but got {name!r}: delete it"
    ):
        load(DataRequest("imagenette", data_dir))
    assert not (data_dir.parent.parent / "escaped").exists()
    assert not (data_dir / "imagenette2-160").exists()
