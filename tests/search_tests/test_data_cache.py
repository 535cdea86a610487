"""The cache of decoded images: found again, shared, and never half there; and the data sets by name."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import pickle
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from search.data.cache import cached
from search.data.images import Chunk, Contents, Part
from search.data.sources import DataRequest, ImageData, load, load_test

IMAGES_NHWC = np.random.default_rng(0).integers(0, 256, (10, 4, 4, 3), dtype=np.uint8)


def write_folder(root: Path) -> DataRequest:
    for number, image_HWC in enumerate(IMAGES_NHWC):
        path = root / "pets/train" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image_HWC).save(path)
    return DataRequest(str(root / "pets"), root / "data")


def contents(chunks: Iterator[Chunk] | None = None) -> Contents:
    return Contents(
        classes=("a", "b"),
        shape_NHWC=IMAGES_NHWC.shape,
        labels_N=np.arange(10) % 2,
        n_train=8,
        mirrors=False,
        chunks=chunks or iter([(IMAGES_NHWC[:6], Counter(L=2)), (IMAGES_NHWC[6:], Counter(L=1, P=1))]),
        paths=tuple(f"train/{number}" for number in range(10)),
    )


def part(identity: str = "this") -> Part:
    return Part("pets", identity, has_test=True, contents=contents)


def caches(directory: Path) -> list[Path]:
    return list((directory / "cache").iterdir())


def test_what_comes_back_is_what_went_in(tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    data = cached(part(), tmp_path, lambda done, total: steps.append((done, total)))
    np.testing.assert_array_equal(data.images_NHWC, IMAGES_NHWC)
    assert data.images_NHWC.dtype == np.uint8
    assert data.labels_N.tolist() == [0, 1] * 5
    assert (data.name, data.classes, data.n_train, data.mirrors) == ("pets", ("a", "b"), 8, False)
    assert data.converted == {"L": 3, "P": 1}
    values_NPC = IMAGES_NHWC.astype(np.int64).reshape(10, 16, 3)
    np.testing.assert_array_equal(data.sums_N2C, np.stack([values_NPC.sum(1), (values_NPC**2).sum(1)], 1))
    assert data.sums_N2C.dtype == np.int64
    assert data.paths == tuple(f"train/{number}" for number in range(10))
    assert steps == [(6, 10), (10, 10)]


def test_a_second_call_maps_what_the_first_wrote(tmp_path: Path) -> None:
    first = cached(part(), tmp_path)
    again = cached(Part("pets", "this", True, contents=lambda: pytest.fail("was read again")), tmp_path)
    assert isinstance(again.images_NHWC, np.memmap)
    np.testing.assert_array_equal(again.images_NHWC, first.images_NHWC)
    assert again.hash == first.hash


def test_the_mapped_images_can_be_written_to_without_changing_the_cache(tmp_path: Path) -> None:
    data = cached(part(), tmp_path)
    assert data.images_NHWC.flags.writeable  # PyTorch warns of arrays that are not
    data.images_NHWC[:] = 0
    np.testing.assert_array_equal(cached(part(), tmp_path).images_NHWC, IMAGES_NHWC)


def test_another_identity_is_another_cache(tmp_path: Path) -> None:
    cached(part("this"), tmp_path)
    cached(part("that"), tmp_path)
    assert len(caches(tmp_path)) == 2


def test_the_hash_is_of_images_labels_and_classes_alone(tmp_path: Path) -> None:
    request = write_folder(tmp_path / "here")
    moved = write_folder(tmp_path / "there")
    original = load(request).hash
    assert load(moved).hash == original
    image = Path(moved.dataset) / "train/a/2.png"
    changed = IMAGES_NHWC[2].copy()
    changed[3, 3, 2] ^= 1
    Image.fromarray(changed).save(image)
    pixel_changed = load(moved).hash
    image.rename(image.parents[1] / "b/2.png")
    label_changed = load(moved).hash
    (Path(moved.dataset) / "train/a").rename(Path(moved.dataset) / "train/A")
    class_changed = load(moved).hash
    assert len({original, pixel_changed, label_changed, class_changed}) == 4


def test_a_touched_file_is_read_again(tmp_path: Path) -> None:
    request = write_folder(tmp_path)
    before = load(request)
    image = Path(request.dataset) / "train/a/0.png"
    modified_ns = image.stat().st_mtime_ns
    Image.fromarray(255 - IMAGES_NHWC[0]).save(image)
    os.utime(image, ns=(modified_ns, modified_ns + 1_000_000))
    np.testing.assert_array_equal(load(request).images_NHWC[0], 255 - before.images_NHWC[0])


def test_a_folders_cache_is_found_by_the_key_that_earlier_versions_gave_it(tmp_path: Path) -> None:
    request = write_folder(tmp_path)
    root = Path(request.dataset)
    lines = [f"folder {root} (4, 4) None"]
    for image in sorted((root / "train").glob("*/*")):
        status = image.stat()
        lines.append(f"{image.relative_to(root)}\0{status.st_size}\0{status.st_mtime_ns}")
    identity = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    load(request)
    (folder,) = caches(tmp_path / "data")
    assert folder.name == hashlib.sha256(f"3 {identity}".encode()).hexdigest()[:32]


def test_an_interrupted_build_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> Iterator[Chunk]:
        yield IMAGES_NHWC[:6], Counter()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached(Part("pets", "this", True, lambda: contents(interrupted())), tmp_path)
    assert caches(tmp_path) == []
    np.testing.assert_array_equal(cached(part(), tmp_path).images_NHWC, IMAGES_NHWC)


def test_whoever_comes_second_uses_what_the_first_made(tmp_path: Path) -> None:
    def overtaken() -> Contents:
        cached(part(), tmp_path)
        return contents()

    data = cached(Part("pets", "this", True, overtaken), tmp_path)
    np.testing.assert_array_equal(data.images_NHWC, IMAGES_NHWC)
    assert len(caches(tmp_path)) == 1


def test_processes_that_build_at_once_end_well(tmp_path: Path) -> None:
    request = write_folder(tmp_path)
    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("spawn")) as pool:
        hashes = {future.result() for future in [pool.submit(content_hash, request) for _ in range(3)]}
    assert hashes == {load(request).hash}
    assert len(caches(tmp_path / "data")) == 1


def content_hash(request: DataRequest) -> str:
    return load(request).hash


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ValueError, match=r"cannot be written .Not a directory.: choose another .* --data-dir"
    ):
        cached(part(), tmp_path / "file")


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, limits[1]))
    try:
        with pytest.raises(ValueError, match=r"cannot be written .File too large."):
            cached(part(), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caches(tmp_path) == []


@pytest.mark.parametrize("name", ["images.npy", "labels.npy", "sums.npy", "meta.json"])
@pytest.mark.parametrize("damage", ["emptied", "cut", "gone"])
def test_a_damaged_cache_is_named(tmp_path: Path, name: str, damage: str) -> None:
    cached(part(), tmp_path)
    file = next((tmp_path / "cache").iterdir()) / name
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[: 0 if damage == "emptied" else -5])
    with pytest.raises(ValueError, match=f"image cache {file.parent} cannot be read .*: delete that folder"):
        cached(part(), tmp_path)


def test_nothing_in_the_cache_is_a_pickle(tmp_path: Path) -> None:
    cached(part(), tmp_path)
    labels = next((tmp_path / "cache").iterdir()) / "labels.npy"
    with labels.open("wb") as file:
        np.save(file, np.array([print], object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        cached(part(), tmp_path)


def digits(tmp_path: Path, image_size: int | None = None) -> tuple[ImageData, ImageData]:
    request = DataRequest("digits", tmp_path, image_size)
    return load(request), load_test(request)


def test_digits_are_split_into_fifths_of_every_class(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    train, test = digits(tmp_path)
    counts = np.bincount(load_digits().target)
    assert (np.abs(np.bincount(test.labels_N) - counts / 5) < 1).all()
    assert (np.bincount(train.labels_N) + np.bincount(test.labels_N)).tolist() == counts.tolist()
    assert (train.n_train, test.n_train) == (len(train.labels_N), 0)


def test_digits_keep_their_values_and_labels(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    original = load_digits()
    expected = Counter(
        (int(label), bytes(int(value * 255 / 16 + 0.5) for value in image.ravel()))
        for image, label in zip(original.images, original.target, strict=True)
    )
    found = Counter(
        (int(label), image.tobytes())
        for data in digits(tmp_path)
        for image, label in zip(data.images_NHWC, data.labels_N, strict=True)
    )
    assert found == expected


def test_digits_say_what_they_are(tmp_path: Path) -> None:
    train, test = digits(tmp_path)
    assert train.images_NHWC.shape[1:] == test.images_NHWC.shape[1:] == (8, 8, 1)
    assert train.classes == tuple("0123456789")
    assert not train.mirrors
    assert train.has_test
    assert train.paths == ()
    # studies are held to this hash: neither a release of ours nor of scikit-learn may change it
    assert train.hash.startswith("8eeee500c2c6c4f7")


def test_digits_can_be_resized(tmp_path: Path) -> None:
    data, _ = digits(tmp_path, image_size=16)
    assert data.images_NHWC.shape == (1438, 16, 16, 1)
    own_size = load(DataRequest("digits", tmp_path)).images_NHWC[7, :, :, 0]
    expected = Image.fromarray(own_size).resize((16, 16), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(data.images_NHWC[7, :, :, 0], np.asarray(expected))


def test_a_name_that_is_neither_known_nor_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'cifar1': known are .*digits.*'cifar10'.*existing folder"):
        load(DataRequest("cifar1", tmp_path / "data"))
    assert not (tmp_path / "data").exists()


def test_an_image_size_below_one_pixel_is_refused() -> None:
    with pytest.raises(ValueError, match="--image-size must be 1 to 1024 pixels, but got 0"):
        DataRequest("digits", image_size=0)


def test_the_data_directory_is_the_option_then_the_variable_then_the_users_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIFAR_SEARCH_DATA", str(tmp_path / "variable"))
    assert DataRequest("digits", tmp_path / "option").directory == tmp_path / "option"
    assert DataRequest("digits").directory == tmp_path / "variable"
    monkeypatch.delenv("CIFAR_SEARCH_DATA")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert DataRequest("digits").directory.is_relative_to(tmp_path)
    assert DataRequest("digits").directory.name == "cifar-search"


def test_a_request_travels_to_other_processes() -> None:
    request = DataRequest("digits", Path("/somewhere"), 16)
    assert pickle.loads(pickle.dumps(request)) == request


def test_images_that_are_cached_cost_no_heavy_import(tmp_path: Path) -> None:
    load(DataRequest("digits", tmp_path))
    code = (
        "import sys, json; from search.data.sources import DataRequest, load; from pathlib import Path;"
        "load(DataRequest('digits', Path(sys.argv[1]))); print(json.dumps(list(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert not {"torch", "torchvision", "sklearn", "optuna"} & set(json.loads(run.stdout))
