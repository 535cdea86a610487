"""CIFAR's archives: stand-ins in their real format, without a network, and with files nobody may open."""

from __future__ import annotations

import hashlib
import os
import pickle
import socket
import tarfile
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision.datasets import CIFAR10, CIFAR100

from search.data import archives
from search.data.sources import DataRequest, DataUnavailable, load, load_test

RNG = np.random.default_rng(0)
TRAIN = [(RNG.integers(0, 256, (4, 3072), dtype=np.uint8), [0, 2, 1, 2]) for _ in range(5)]
TEST = (RNG.integers(0, 256, (2, 3072), dtype=np.uint8), [1, 0])
CLASSES = ["airplane", "automobile", "bird"]


class Opens:
    """Unpickling it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def write_pickle(path: Path, content: object) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder, and a URL at which nobody answers."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
    for dataset in (CIFAR10, CIFAR100):
        monkeypatch.setattr(dataset, "url", f"{address}/{dataset.filename}")
    return tmp_path / "data"


@pytest.fixture
def cifar10(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small stand-in for CIFAR-10, unpacked in the data folder, with its own checksums."""
    folder = root / CIFAR10.base_folder
    batches = {f"data_batch_{index + 1}": batch for index, batch in enumerate(TRAIN)}
    checksums = [
        [name, write_pickle(folder / name, {"data": data, "labels": labels})]
        for name, (data, labels) in batches.items()
    ]
    monkeypatch.setattr(CIFAR10, "train_list", checksums)
    test_md5 = write_pickle(folder / "test_batch", {"data": TEST[0], "labels": TEST[1]})
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", test_md5]])
    meta_md5 = write_pickle(folder / "batches.meta", {"label_names": CLASSES})
    monkeypatch.setitem(CIFAR10.meta, "md5", meta_md5)
    return root


@pytest.fixture
def archive(cifar10: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in packed, outside the data folder, which is empty."""
    packed = tmp_path / "elsewhere" / CIFAR10.filename
    packed.parent.mkdir()
    with tarfile.open(packed, "w:gz") as tar:
        tar.add(cifar10 / CIFAR10.base_folder, CIFAR10.base_folder)
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(packed.read_bytes()).hexdigest())
    cifar10.rename(tmp_path / "unpacked")
    return packed


def as_images(rows: np.ndarray) -> np.ndarray:
    """CIFAR's rows: 1,024 red values, then the green and the blue ones, each row after row."""
    images_NHWC = np.zeros((len(rows), 32, 32, 3), np.uint8)
    for number, row in enumerate(rows):
        for y in range(32):
            for x in range(32):
                images_NHWC[number, y, x] = [row[channel * 1024 + y * 32 + x] for channel in range(3)]
    return images_NHWC


def test_training_images_come_as_they_were_stored(cifar10: Path) -> None:
    data = load(DataRequest("cifar10", cifar10))
    np.testing.assert_array_equal(data.images_NHWC, as_images(np.concatenate([rows for rows, _ in TRAIN])))
    assert data.labels_N.tolist() == [0, 2, 1, 2] * 5
    assert data.labels_N.dtype == np.int64
    assert data.classes == tuple(CLASSES)
    assert data.n_train == 20
    assert data.mirrors
    assert data.has_test
    assert data.paths == ()


def test_test_images_come_as_they_were_stored(cifar10: Path) -> None:
    data = load_test(DataRequest("cifar10", cifar10))
    np.testing.assert_array_equal(data.images_NHWC, as_images(TEST[0]))
    assert data.labels_N.tolist() == [1, 0]
    assert data.n_train == 0


def test_cifar100_has_fine_labels(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = root / CIFAR100.base_folder
    content = {"data": TRAIN[0][0], "fine_labels": [7, 1, 0, 7], "coarse_labels": [1, 1, 1, 1]}
    monkeypatch.setattr(CIFAR100, "train_list", [["train", write_pickle(folder / "train", content)]])
    meta = {"fine_label_names": [f"class {index}" for index in range(8)], "coarse_label_names": ["a", "b"]}
    monkeypatch.setitem(CIFAR100.meta, "md5", write_pickle(folder / "meta", meta))
    data = load(DataRequest("cifar100", root))
    assert data.labels_N.tolist() == [7, 1, 0, 7]
    assert data.classes[7] == "class 7"


def test_loading_for_training_does_without_the_test_file(cifar10: Path) -> None:
    (cifar10 / CIFAR10.base_folder / "test_batch").unlink()
    assert len(load(DataRequest("cifar10", cifar10)).labels_N) == 20
    with pytest.raises(DataUnavailable):
        load_test(DataRequest("cifar10", cifar10))


def test_once_cached_the_archive_is_not_needed(cifar10: Path) -> None:
    before = load(DataRequest("cifar10", cifar10))
    (cifar10 / CIFAR10.base_folder).rename(cifar10 / "gone")
    after = load(DataRequest("cifar10", cifar10))
    np.testing.assert_array_equal(after.images_NHWC, before.images_NHWC)


def test_images_can_be_resized(cifar10: Path) -> None:
    assert load(DataRequest("cifar10", cifar10, image_size=16)).images_NHWC.shape == (20, 16, 16, 3)


@pytest.mark.parametrize("dataset", [CIFAR10, CIFAR100])
def test_without_a_network_one_line_says_what_to_do(root: Path, dataset: type[CIFAR10]) -> None:
    with pytest.raises(DataUnavailable) as caught:
        load(DataRequest(dataset.__name__.lower(), root))
    message = str(caught.value)
    assert "\n" not in message
    for part in (dataset.url, "Connection refused", str(root / dataset.filename), "digits", "train/CLASS"):
        assert part in message
    assert "checksum" not in message


def test_an_archive_put_there_by_hand_is_used(archive: Path, cifar10: Path) -> None:
    cifar10.mkdir()
    archive.rename(cifar10 / archive.name)
    assert len(load(DataRequest("cifar10", cifar10)).labels_N) == 20


def test_a_wrong_archive_put_there_by_hand_is_refused(archive: Path, cifar10: Path) -> None:
    cifar10.mkdir()
    (cifar10 / archive.name).write_bytes(archive.read_bytes() + b"more")
    with pytest.raises(DataUnavailable, match=r"cifar-10-python.tar.gz, in place of .* checksum is wrong"):
        load(DataRequest("cifar10", cifar10))
    assert not (cifar10 / CIFAR10.base_folder).exists()


@pytest.mark.parametrize("name", ["data_batch_3", "batches.meta"])
def test_a_file_with_another_checksum_is_never_unpickled(cifar10: Path, tmp_path: Path, name: str) -> None:
    write_pickle(cifar10 / CIFAR10.base_folder / name, Opens(tmp_path / "opened"))
    with pytest.raises(DataUnavailable):
        load(DataRequest("cifar10", cifar10))
    assert not (tmp_path / "opened").exists()


@pytest.fixture
def server(archive: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An HTTP server from which the stand-in can be downloaded."""

    class Quiet(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(archive.parent))

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as running:
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{running.server_port}/{CIFAR10.filename}")
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield
        running.shutdown()
        thread.join()


@pytest.mark.usefixtures("server")
def test_a_download_is_checked_and_unpacked(cifar10: Path) -> None:
    assert len(load(DataRequest("cifar10", cifar10)).labels_N) == 20


@pytest.mark.usefixtures("server")
def test_a_download_that_is_not_the_published_file_is_refused(archive: Path, cifar10: Path) -> None:
    archive.write_bytes(b"the page of a hotel's network")
    with pytest.raises(DataUnavailable, match="corrupted"):
        load(DataRequest("cifar10", cifar10))


def test_a_server_that_never_answers_is_given_up(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "SILENCE_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{silent.getsockname()[1]}/file")
        with pytest.raises(DataUnavailable, match="timed out"):
            load(DataRequest("cifar10", root))
    assert socket.getdefaulttimeout() is None
