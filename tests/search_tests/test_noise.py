"""Wrong labels: their rates, their pairs, their files, and that nothing else depends on them."""

import gzip
import lzma
from dataclasses import replace

import numpy as np
import pytest
import torch

from search.data.split import make_split
from search.training.noise import WATCHED, asymmetric, symmetric, table_labels, watched_images, with_noise
from search.training.resident import ResidentData
from spaces.config import Data

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def resident(n: int = 5000, classes: tuple[str, ...] = CIFAR10) -> ResidentData:
    labels = torch.arange(n) % len(classes)
    return ResidentData(
        images_NHWC=torch.zeros(n, 1, 1, 1, dtype=torch.uint8),
        labels_N=labels,
        train_indices=torch.arange(n // 5, n),
        val_indices=torch.arange(n // 5),
        mean_C=torch.zeros(1),
        std_C=torch.ones(1),
        classes=classes,
        hash="",
        paths=tuple(f"train/{classes[label]}/{i:04}.jpg" for i, label in enumerate(labels.tolist())),
    )


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.8, 1.0])
def test_symmetric_noise_goes_to_every_other_class_alike(rate):
    true = np.arange(90_000) % 10
    given = symmetric(true, 10, rate, seed=0)
    assert (given != true).mean() == pytest.approx(rate, abs=0.005)
    confusion = np.zeros((10, 10))
    np.add.at(confusion, (true, given), 1 / 9000)
    off = confusion[~np.eye(10, dtype=bool)]
    np.testing.assert_allclose(off, rate / 9, atol=0.012)


def test_asymmetric_noise_follows_the_pairs_of_cifar10():
    true = np.arange(50_000) % 10
    given = asymmetric(true, CIFAR10, 0.4, seed=0)
    pairs = {"truck": "automobile", "bird": "airplane", "deer": "horse", "cat": "dog", "dog": "cat"}
    for label, name in enumerate(CIFAR10):
        shares = np.bincount(given[true == label], minlength=10) / 5000
        assert shares[label] == pytest.approx(0.6 if name in pairs else 1.0, abs=0.03)
        assert shares[CIFAR10.index(pairs.get(name, name))] > 0.35


def test_asymmetric_noise_elsewhere_goes_to_the_next_class():
    true = np.arange(3000) % 3
    given = asymmetric(true, ("a", "b", "c"), 1.0, seed=0)
    np.testing.assert_array_equal(given, (true + 1) % 3)


def test_a_seed_repeats_the_noise_and_a_higher_rate_adds_to_a_lower_one():
    true = np.arange(2000) % 10
    low, high = symmetric(true, 10, 0.2, seed=3), symmetric(true, 10, 0.5, seed=3)
    np.testing.assert_array_equal(low, symmetric(true, 10, 0.2, seed=3))
    assert (low != symmetric(true, 10, 0.2, seed=4)).any()
    np.testing.assert_array_equal(high[low != true], low[low != true])


@pytest.mark.parametrize("noisy_validation", [False, True])
def test_only_training_labels_are_worse_unless_asked_and_the_split_stays(noisy_validation):
    data = resident()
    before = data.labels_N.clone()
    section = Data(noise="symmetric", noise_rate=0.3, noisy_validation=noisy_validation)
    given = with_noise(section, data)
    wrong = given.labels_N != before
    assert wrong[data.train_indices].float().mean() == pytest.approx(0.3, abs=0.03)
    assert wrong[data.val_indices].any() == noisy_validation
    torch.testing.assert_close(data.labels_N, before)
    assert given.train_indices is data.train_indices
    assert given.val_indices is data.val_indices


def test_an_images_label_does_not_depend_on_which_others_train():
    data, section = resident(), Data(noise="symmetric", noise_rate=0.3)
    few = replace(data, train_indices=data.train_indices[::7])
    chosen = few.train_indices
    torch.testing.assert_close(
        with_noise(section, few).labels_N[chosen], with_noise(section, data).labels_N[chosen]
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_equal_seeds_do_not_tie_the_noise_to_the_split(seed):
    data = resident()
    split = make_split(data.labels_N.numpy(), len(data.labels_N), 0.5, 1000, seed=seed)
    wrong = symmetric(data.labels_N.numpy(), 10, 0.4, seed) != data.labels_N.numpy()
    for part in (split.train_indices, split.val_indices):
        assert wrong[part].mean() == pytest.approx(0.4, abs=0.05)


def test_without_noise_the_data_are_the_same_object():
    data = resident()
    assert with_noise(Data(), data) is data


@pytest.mark.parametrize(("rate", "count"), [(0.0, 0), (0.01, None), (0.9, WATCHED)])
def test_a_bounded_number_of_wrong_training_images_is_watched(rate, count):
    data = resident()
    given = with_noise(Data(noise="symmetric", noise_rate=rate, noisy_validation=True), data)
    watched = watched_images(given, data.labels_N)
    wrong = (given.labels_N != data.labels_N)[data.train_indices].sum()
    assert len(watched) == len(watched.unique()) == (count if count is not None else wrong)
    assert (given.labels_N[watched] != data.labels_N[watched]).all()
    assert set(watched.tolist()) <= set(data.train_indices.tolist())


IMAGENETTE = "path,noisy_labels_0,noisy_labels_25,is_valid\n"


def write(path, text):
    opener = {".xz": lzma.open, ".gz": gzip.open}.get(path.suffix, open)
    with opener(path, "wt", encoding="utf-8") as file:
        file.write(text)
    return path


@pytest.mark.parametrize("name", ["noise.csv", "noise.csv.gz", "noise.csv.xz"])
def test_a_table_gives_labels_by_path_and_column(tmp_path, name):
    rows = "train/a/2.jpg,a,b,False\nval/b/1.jpg,b,b,True\ntrain/b/1.jpg,b,a,False\ntrain/a/1.jpg,a,c,False\n"
    file = write(tmp_path / name, IMAGENETTE + rows)
    paths = ["train/a/1.jpg", "train/a/2.jpg", "train/b/1.jpg"]
    assert table_labels(file, "noisy_labels_25", paths, ("a", "b", "c")).tolist() == [2, 1, 0]
    assert table_labels(file, "noisy_labels_0", paths, ("a", "b", "c")).tolist() == [0, 0, 1]


def test_a_table_changes_what_trains_and_leaves_validation_clean(tmp_path):
    data = resident(50)
    lines = [f"{path},frog\n" for path in data.paths]
    file = write(tmp_path / "labels.csv", "path,worst\n" + "".join(lines))
    given = with_noise(Data(noise="file", noise_file=str(file), noise_column="worst"), data)
    assert given.labels_N[data.train_indices].tolist() == [6] * 40
    torch.testing.assert_close(given.labels_N[data.val_indices], data.labels_N[data.val_indices])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,worse\ntrain/a/1.jpg,a\n", "unknown column 'worst'.*did you mean 'worse'"),
        ("file,worst\ntrain/a/1.jpg,a\n", "unknown column 'path'"),
        ("", "unknown column 'path'"),
        ("path,worst\ntrain/a/2.jpg,a\n", r"must have a row for every image, but lacks train/a/1\.jpg"),
        ("path,worst\ntrain/a/1.jpg,z\n", r"train/a/1\.jpg: unknown class 'z'"),
    ],
)
def test_tables_that_do_not_fit_are_refused(tmp_path, text, message):
    file = write(tmp_path / "labels.csv", text)
    with pytest.raises(ValueError, match=f"^data.noise_file: {file}.*{message}"):
        table_labels(file, "worst", ["train/a/1.jpg"], ("a", "b"))


def test_files_that_cannot_be_read_are_refused(tmp_path):
    broken = tmp_path / "broken.csv.xz"
    broken.write_bytes(b"not packed")
    binary = tmp_path / "image.csv"
    binary.write_bytes(b"\xff\xfe\x00\x80")
    for file in (tmp_path / "absent.csv", broken, binary, tmp_path):
        with pytest.raises(ValueError, match=f"^data.noise_file: {file} cannot be read: ") as error:
            table_labels(file, "worst", [], ("a", "b"))
        assert "\n" not in str(error.value)


def test_a_table_needs_a_folder_of_images(tmp_path):
    section = Data(noise="file", noise_file=str(tmp_path / "x.csv"), noise_column="worst")
    with pytest.raises(ValueError, match=r"data\.noise: a file of labels needs images from a folder"):
        with_noise(section, replace(resident(), paths=()))


def test_a_table_must_be_named():
    with pytest.raises(ValueError, match="noise=file needs noise_file and noise_column"):
        Data(noise="file", noise_file="labels.csv")
