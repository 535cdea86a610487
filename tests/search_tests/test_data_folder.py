"""Folders of images: what is read, in what order, and what is refused by name."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from search.data import decode
from search.data.files import IMAGE_SUFFIXES
from search.data.sources import DataRequest, ImageData, load, load_test

RNG = np.random.default_rng(0)


def pixels(height: int = 6, width: int = 6) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


def write(path: Path, image_HWC: np.ndarray | None = None) -> np.ndarray:
    image_HWC = pixels() if image_HWC is None else image_HWC
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image_HWC).save(path)
    return image_HWC


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes with three training and two test images each."""
    root = tmp_path / "pets"
    for name in ("dog", "cat"):
        for number in range(3):
            write(root / "train" / name / f"{number}.png")
        for number in range(2):
            write(root / "test" / name / f"{number}.png")
    return root


def request_for(root: Path, image_size: int | None = None) -> DataRequest:
    return DataRequest(str(root), root.parent / "data", image_size)


def read(root: Path, image_size: int | None = None) -> ImageData:
    return load(request_for(root, image_size))


def refusal(root: Path) -> str:
    with pytest.raises(ValueError, match=str(root)) as caught:
        read(root)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_images_labels_and_paths_belong_together_in_sorted_order(folder: Path) -> None:
    written = {
        name: write(folder / "train" / name, pixels()) for name in ("dog/b.png", "cat/a.bmp", "cat/Z.PNG")
    }
    data = read(folder)
    assert data.name == "pets"
    assert data.classes == ("cat", "dog")
    assert data.paths == (
        *(f"train/cat/{name}" for name in ("0.png", "1.png", "2.png", "Z.PNG", "a.bmp")),
        *(f"train/dog/{name}" for name in ("0.png", "1.png", "2.png", "b.png")),
    )
    assert data.labels_N.tolist() == [0] * 5 + [1] * 4
    assert data.labels_N.dtype == np.int64
    assert data.n_train == 9
    assert data.mirrors
    assert data.has_test
    for name, image_HWC in written.items():
        np.testing.assert_array_equal(data.images_NHWC[data.paths.index(f"train/{name}")], image_HWC)


def test_own_validation_images_follow_the_training_images(folder: Path) -> None:
    dog, cat = write(folder / "val/dog/x.png"), write(folder / "val/cat/x.png")
    data = read(folder)
    assert data.n_train == 6
    assert data.paths[6:] == ("val/cat/x.png", "val/dog/x.png")
    assert data.labels_N[6:].tolist() == [0, 1]
    np.testing.assert_array_equal(data.images_NHWC[6:], [cat, dog])


def test_test_images_are_a_part_of_their_own(folder: Path) -> None:
    data = load_test(request_for(folder))
    assert data.paths == ("test/cat/0.png", "test/cat/1.png", "test/dog/0.png", "test/dog/1.png")
    assert data.labels_N.tolist() == [0, 0, 1, 1]
    assert data.n_train == 0
    with Image.open(folder / "test/dog/1.png") as image:
        np.testing.assert_array_equal(data.images_NHWC[3], np.asarray(image))


OPENED: list[str] | None = None


def watch(event: str, arguments: tuple[object, ...]) -> None:
    if OPENED is not None and event in ("open", "os.scandir", "os.listdir"):
        OPENED.append(str(arguments[0]))


sys.addaudithook(watch)


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """All files opened and folders listed by this process while the test runs."""
    global OPENED
    OPENED = []
    yield OPENED
    OPENED = None


def test_loading_for_training_opens_no_test_image(folder: Path, opened: list[str]) -> None:
    (folder / "test/cat/0.png").write_bytes(b"no image")
    opened.clear()
    assert read(folder).has_test
    assert any(path.startswith(str(folder / "train")) for path in opened)
    assert not [path for path in opened if path.startswith(str(folder / "test") + os.sep)]
    with pytest.raises(ValueError, match=r"test/cat/0\.png: must be an image"):
        load_test(request_for(folder))


def test_a_folder_without_test_images_says_so(folder: Path) -> None:
    shutil.rmtree(folder / "test")
    assert not read(folder).has_test
    with pytest.raises(ValueError, match="no test split"):
        load_test(request_for(folder))


def test_test_images_must_have_the_size_of_the_training_images(folder: Path) -> None:
    write(folder / "test/cat/0.png", pixels(6, 7))
    read(folder)
    with pytest.raises(ValueError, match=r"cat/0\.png.* 7x6 and the first training image 6x6"):
        load_test(request_for(folder))


def test_hidden_files_and_files_that_are_no_images_are_left_out(folder: Path) -> None:
    write(folder / "train/cat/.hidden.png")
    (folder / "train/cat/notes.txt").write_text("no image")
    (folder / "train/readme.md").write_text("no class")
    write(folder / "train/.cache/a.png")
    assert len(read(folder).labels_N) == 6


def test_other_modes_become_rgb_and_are_counted(folder: Path) -> None:
    image = Image.fromarray(pixels())
    palette = image.convert("P")
    cat = folder / "train/cat"
    image.convert("L").save(cat / "grey.png")
    image.convert("LA").save(cat / "grey-alpha.png")
    palette.save(cat / "palette.png")
    palette.save(cat / "see-through.png", transparency=bytes(range(256)))
    image.convert("RGBA").save(cat / "alpha.png")
    image.convert("CMYK").save(cat / "print.tiff")
    image.convert("1").save(cat / "ink.png")
    data = read(folder)
    assert data.converted == {"L": 1, "LA": 1, "P": 2, "RGBA": 1, "CMYK": 1, "1": 1}
    expected = {
        "grey.png": np.asarray(image.convert("L"))[:, :, None].repeat(3, axis=2),
        "grey-alpha.png": np.asarray(image.convert("L"))[:, :, None].repeat(3, axis=2),
        "palette.png": np.array(palette.getpalette()).reshape(-1, 3)[np.asarray(palette)],
        "see-through.png": np.array(palette.getpalette()).reshape(-1, 3)[np.asarray(palette)],
        "alpha.png": np.asarray(image),
        "print.tiff": np.asarray(image),
        "ink.png": np.asarray(image.convert("1"))[:, :, None].repeat(3, axis=2) * 255,
    }
    for name, image_HWC in expected.items():
        np.testing.assert_array_equal(data.images_NHWC[data.paths.index(f"train/cat/{name}")], image_HWC)


def triangle_resize(image_HWC: np.ndarray, size: int) -> np.ndarray:
    """Bilinear resampling whose triangle widens with the reduction, one axis after the other."""
    for axis in (0, 1):
        length = image_HWC.shape[axis]
        scale = length / size
        width = max(scale, 1.0)
        weights = np.zeros((size, length))
        for target in range(size):
            center = (target + 0.5) * scale
            for source in range(length):
                weights[target, source] = max(0.0, 1 - abs(source + 0.5 - center) / width)
        weights /= weights.sum(axis=1, keepdims=True)
        image_HWC = np.moveaxis(np.tensordot(weights, image_HWC.astype(np.float64), (1, axis)), 0, axis)
    return image_HWC


@pytest.mark.parametrize("size", [4, 9])
def test_image_size_resizes_with_antialiasing(folder: Path, size: int) -> None:
    odd = write(folder / "train/cat/odd.png", pixels(12, 20))
    data = read(folder, image_size=size)
    assert data.images_NHWC.shape == (7, size, size, 3)
    resized = data.images_NHWC[data.paths.index("train/cat/odd.png")]
    np.testing.assert_allclose(resized, triangle_resize(odd, size), atol=1.01)
    assert load_test(request_for(folder, size)).images_NHWC.shape == (4, size, size, 3)


def test_images_need_not_be_square(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / "pets/train" / name / "0.png", pixels(4, 7))
    assert read(tmp_path / "pets").images_NHWC.shape == (2, 4, 7, 3)


def test_several_processes_decode_in_the_same_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_place = read(folder)
    monkeypatch.setattr(decode, "IN_PLACE", 0)
    monkeypatch.setattr(decode, "CHUNK", 1)
    monkeypatch.setattr(decode, "_cores", lambda: 2)
    paths = [folder / path for path in in_place.paths]
    chunks = [images_NHWC for images_NHWC, _ in decode.decode_all(paths, (6, 6), resize=False)]
    assert len(chunks) == 6
    np.testing.assert_array_equal(np.concatenate(chunks), in_place.images_NHWC)
    paths[4].write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"dog/1\.png: must be an image"):
        list(decode.decode_all(paths, (6, 6), resize=False))


def test_a_file_that_is_no_image_is_refused(folder: Path) -> None:
    (folder / "train/dog/1.png").write_bytes(b"no image at all")
    assert "dog/1.png: must be an image" in refusal(folder)


def test_an_image_that_would_start_a_program_is_refused(folder: Path) -> None:
    Image.fromarray(pixels()).save(folder / "train/dog/1.png", format="EPS")
    assert "dog/1.png: must be an image" in refusal(folder)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tif", "ppm"])
def test_a_truncated_image_is_refused(folder: Path, suffix: str) -> None:
    path = folder / f"train/dog/cut.{suffix}"
    write(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    assert f"dog/cut.{suffix}: " in refusal(folder)


def test_a_first_image_that_is_damaged_is_refused_too(folder: Path) -> None:
    (folder / "train/cat/0.png").write_bytes(b"")
    assert "cat/0.png: must be an image" in refusal(folder)


def test_differing_sizes_are_refused(folder: Path) -> None:
    write(folder / "train/dog/1.png", pixels(5, 6))
    message = refusal(folder)
    assert "dog/1.png: all images must have one size unless --image-size is given" in message
    assert "6x5" in message
    assert "6x6" in message


def test_an_image_above_pillows_limit_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder / "train/dog/1.png", pixels(30, 30))
    for limit in (800, 400):  # Pillow warns above the limit, and refuses above twice that
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        message = refusal(folder)
        assert "dog/1.png: the image cannot be read" in message
        assert "exceeds limit" in message


def test_more_than_8_bits_are_refused(folder: Path) -> None:
    Image.fromarray(np.zeros((6, 6), np.uint16)).save(folder / "train/dog/1.png")
    assert "dog/1.png: an image must have 8 bits a channel, but this one's mode is I;16" in refusal(folder)


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_several_pictures_in_a_file_are_refused(folder: Path, suffix: str) -> None:
    first, second = Image.fromarray(pixels()), Image.fromarray(pixels())
    first.save(folder / f"train/dog/film.{suffix}", save_all=True, append_images=[second])
    assert f"dog/film.{suffix}: an image must be a single picture, but this file holds 2" in refusal(folder)


def test_a_phones_extra_pictures_are_no_reason_to_refuse(folder: Path) -> None:
    first, second = Image.fromarray(pixels()), Image.fromarray(pixels())
    first.save(folder / "train/dog/phone.jpg", format="MPO", save_all=True, append_images=[second])
    assert len(read(folder).labels_N) == 7


def test_an_empty_class_is_refused(folder: Path) -> None:
    (folder / "train/emu").mkdir()
    (folder / "test/emu").mkdir()
    assert "train/emu: every class needs an image" in refusal(folder)


def test_a_single_class_is_refused(folder: Path) -> None:
    shutil.rmtree(folder / "train/dog")
    assert "at least two classes are needed, but there is only 'cat'" in refusal(folder)


def test_no_image_at_all_is_refused(folder: Path) -> None:
    for image in (folder / "train").rglob("*.png"):
        image.unlink()
    assert "train: there is no image at all" in refusal(folder)


def test_a_folder_without_training_images_is_refused(folder: Path) -> None:
    shutil.rmtree(folder / "train")
    assert "no folder train/" in refusal(folder)
    (folder / "train").mkdir()
    assert "no image at all" in refusal(folder)


LACKING, FLAT = ("dog/0.png",), ("0.png", "1.png")
ADDED, BOTH = ("cat/0.png", "dog/0.png", "wolf/0.png"), ("dog/0.png", "wolf/0.png")
DISAGREEING = [
    (LACKING, "lacks 'cat'"),
    (ADDED, "adds 'wolf'"),
    (BOTH, "lacks 'cat' and adds 'wolf'"),
    (FLAT, "has no folder {split}/CLASS/"),
    ((), "has no folder {split}/CLASS/"),
]


def rewrite_split(root: Path, split: str, names: tuple[str, ...]) -> None:
    shutil.rmtree(root / split, ignore_errors=True)
    (root / split).mkdir()
    for name in names:
        write(root / split / name)


@pytest.mark.parametrize(("names", "said"), DISAGREEING)
def test_validation_classes_that_differ_are_refused(folder: Path, names: tuple[str, ...], said: str) -> None:
    rewrite_split(folder, "val", names)
    message = refusal(folder)
    assert f"val: must have the same classes as train/, but {said.format(split='val')}: " in message
    assert message.endswith("or move val/ elsewhere to validate on a share of train/")


@pytest.mark.parametrize(("names", "said"), DISAGREEING)
def test_test_classes_that_differ_stop_no_search_and_are_refused_where_they_are_wanted(
    folder: Path, names: tuple[str, ...], said: str
) -> None:
    rewrite_split(folder, "test", names)
    data = read(folder)
    assert (len(data.labels_N), data.has_test) == (6, False)
    with pytest.raises(ValueError, match="must have the same classes") as caught:
        load_test(request_for(folder))
    assert str(caught.value) == data.test_fault
    assert data.test_fault.startswith(f"{folder / 'test'}: must have the same classes as train/, but ")
    assert f"but {said.format(split='test')}: " in data.test_fault
    assert data.test_fault.endswith("or move test/ elsewhere to retrain without a test split")


def test_many_lacking_classes_are_counted(folder: Path) -> None:
    for number in range(20):
        write(folder / f"train/class {number:02}/0.png")
    fault = read(folder).test_fault
    assert "lacks 'class 00', 'class 01', " in fault
    assert "'class 09' and 10 more: " in fault


def test_a_class_without_validation_images_is_refused(folder: Path) -> None:
    write(folder / "val/dog/0.png")
    (folder / "val/cat").mkdir()
    assert "val/cat: every class needs an image" in refusal(folder)


def test_a_test_folder_that_cannot_be_listed_stops_no_search(folder: Path) -> None:
    (folder / "test/gone").symlink_to("nowhere")
    data = read(folder)
    assert not data.has_test
    assert "test/gone: cannot be read (No such file or directory)" in data.test_fault


def test_an_empty_test_class_is_refused_where_it_is_wanted(folder: Path) -> None:
    for image in (folder / "test/cat").iterdir():
        image.unlink()
    read(folder)
    with pytest.raises(ValueError, match="test/cat: every class needs an image"):
        load_test(request_for(folder))


def test_a_folder_inside_a_class_is_refused(folder: Path) -> None:
    write(folder / "train/cat/tabby/0.png")
    assert "cat/tabby: a class must hold its images itself" in refusal(folder)


def test_link_loops_are_refused(folder: Path) -> None:
    (folder / "train/cat/3.png").symlink_to("3.png")
    assert "cat/3.png: cannot be read (Too many levels of symbolic links)" in refusal(folder)
    (folder / "train/cat/3.png").unlink()
    shutil.rmtree(folder / "test")
    (folder / "train/loop").symlink_to(".", target_is_directory=True)
    assert "loop: 3 files cannot be used: cat, dog, loop: a class must hold its images itself" in refusal(
        folder
    )


def test_what_is_no_regular_file_is_refused_and_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "train/cat/3.png")
    assert "cat/3.png: an image must be a regular file" in refusal(folder)


@pytest.mark.parametrize("name", [b"\xff.png", b"\x1b[31m.png"])
def test_names_that_cannot_be_shown_are_refused(folder: Path, name: bytes) -> None:
    write(folder / "train/cat/0.png")
    (folder / "train/cat/0.png").rename(os.fsdecode(os.fsencode(folder / "train/cat") + b"/" + name))
    message = refusal(folder)
    assert "a name must be printable text" in message
    assert message.isprintable()


def test_the_suffixes_are_torchvisions_and_one_more_of_jpeg() -> None:
    from torchvision.datasets.folder import IMG_EXTENSIONS

    assert set(IMAGE_SUFFIXES) == {*IMG_EXTENSIONS, ".jfif"}


def bad_files(folder: Path) -> str:
    """Thirteen files of three kinds that cannot be used."""
    for number in range(3, 11):
        (folder / f"train/cat/{number:02}.png").write_bytes(b"no image")
    for number in range(3, 7):
        write(folder / f"train/dog/{number:02}.png", pixels(5, 6))
    write(folder / "train/dog/12.png", pixels(7, 6))
    return (
        f"{folder / 'train'}: 13 files cannot be used: "
        f"{', '.join(f'cat/{number:02}.png' for number in range(3, 11))}: must be an image (JPEG, PNG, PPM, "
        "BMP, TIFF, WEBP), but is none, or damaged; dog/03.png, dog/04.png: all images must have one size "
        "unless --image-size is given, but this one is 6x5 and the first training image 6x6 (width x "
        "height); and 3 more"
    )


def test_all_files_that_cannot_be_used_are_named_at_once(folder: Path) -> None:
    expected = bad_files(folder)
    assert refusal(folder) == expected


def test_several_processes_name_all_files_that_cannot_be_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = bad_files(folder)
    monkeypatch.setattr(decode, "IN_PLACE", 0)
    monkeypatch.setattr(decode, "CHUNK", 3)
    monkeypatch.setattr(decode, "_cores", lambda: 2)
    assert refusal(folder) == expected


def test_a_first_image_that_is_damaged_is_named_with_all_others(folder: Path) -> None:
    for name in ("cat/0", "dog/2"):
        (folder / f"train/{name}.png").write_bytes(b"no image")
    assert "train: 2 files cannot be used: cat/0.png, dog/2.png: must be an image" in refusal(folder)


def test_a_folder_without_one_image_that_can_be_read_names_ten(folder: Path) -> None:
    for number in range(20):
        (folder / f"train/cat/{number:02}.png").write_bytes(b"no image")
    for image in (folder / "train").rglob("*.png"):
        image.write_bytes(b"no image")
    message = refusal(folder)
    assert "26 files cannot be used: cat/0.png, cat/00.png, " in message
    assert message.endswith("; and 16 more")


def test_all_files_that_are_refused_for_what_they_are_are_named_at_once(folder: Path) -> None:
    os.mkfifo(folder / "train/cat/3.png")
    write(folder / "train/cat/tabby/0.png")
    (folder / "train/dog/3.png").symlink_to("nowhere")
    (folder / "train/emu").mkdir()
    message = refusal(folder)
    for part in (
        "train: 4 files cannot be used: cat/3.png: an image must be a regular file; ",
        "cat/tabby: a class must hold its images itself, but this is a folder; ",
        "dog/3.png: cannot be read (No such file or directory); ",
        "emu: every class needs an image, but this one has none",
    ):
        assert part in message


@pytest.mark.slow
def test_real_images(tmp_path: Path) -> None:
    root = os.environ.get("CIFAR_SEARCH_TEST_IMAGES")
    if root is None:
        pytest.skip("CIFAR_SEARCH_TEST_IMAGES names no folder with train/CLASS/*.jpg")
    request = DataRequest(root, tmp_path)
    data = load(request)
    assert data.images_NHWC.shape == (50_000, 32, 32, 3)
    assert np.bincount(data.labels_N).tolist() == [5000] * 10
    for index in (0, 12_345, 49_999):
        with Image.open(Path(root) / data.paths[index]) as image:
            np.testing.assert_array_equal(data.images_NHWC[index], np.asarray(image))
        assert data.paths[index].split("/")[1] == data.classes[data.labels_N[index]]
