"""The split: stratified, decided by its seed, and with validation that no training size can change."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest

from search.data.split import Split, make_split

EVEN = np.repeat(np.arange(10), 100)
UNEVEN = np.repeat(np.arange(4), [600, 250, 140, 10])


def shuffled(labels: np.ndarray) -> np.ndarray:
    return np.random.default_rng(5).permutation(labels)


def counts(labels: np.ndarray, indices: np.ndarray) -> list[int]:
    return np.bincount(labels[indices], minlength=labels.max() + 1).tolist()


def sainte_lague(sizes: list[int], seats: int) -> list[int]:
    """Seats given one after the other to whoever has most members per odd divisor, the first ones to all."""
    shares = [1] * len(sizes)
    for _ in range(seats - len(sizes)):
        shares[max(range(len(sizes)), key=lambda party: sizes[party] / (2 * shares[party] + 1))] += 1
    return shares


def test_a_tenth_validates_unless_said_otherwise() -> None:
    labels = shuffled(EVEN)
    split = make_split(labels, len(labels))
    assert counts(labels, split.val_indices) == [10] * 10
    assert counts(labels, split.train_indices) == [90] * 10
    assert np.sort(np.concatenate([split.train_indices, split.val_indices])).tolist() == list(range(1000))
    assert split.train_indices.dtype == split.val_indices.dtype == np.int64


@pytest.mark.parametrize(("size", "expected"), [(0.25, 250), (250, 250), (0.5, 500), (10, 10)])
def test_a_share_and_a_count(size: float | int, expected: int) -> None:
    split = make_split(EVEN, 1000, val_size=size)
    assert len(split.val_indices) == expected
    assert counts(EVEN, split.val_indices) == [expected // 10] * 10


@pytest.mark.parametrize("val_size", [4, 17, 100, 333])
@pytest.mark.parametrize("seed", [0, 1])
def test_uneven_classes_keep_their_proportions(val_size: int, seed: int) -> None:
    labels = shuffled(UNEVEN)
    split = make_split(labels, 1000, val_size=val_size, train_size=400, seed=seed)
    assert counts(labels, split.val_indices) == sainte_lague([600, 250, 140, 10], val_size)
    left = np.subtract([600, 250, 140, 10], counts(labels, split.val_indices))
    assert counts(labels, split.train_indices) == sainte_lague(left.tolist(), 400)


def test_validation_does_not_depend_on_the_training_size_and_subsets_are_nested() -> None:
    labels = shuffled(UNEVEN)
    splits = [make_split(labels, 1000, train_size=size, seed=3) for size in (None, 700, 200, 30, 4)]
    for larger, smaller in pairwise(splits):
        np.testing.assert_array_equal(larger.val_indices, smaller.val_indices)
        assert set(smaller.train_indices) < set(larger.train_indices)
    assert [len(split.train_indices) for split in splits] == [900, 700, 200, 30, 4]


def test_the_seed_decides() -> None:
    labels = shuffled(EVEN)
    first, again, other = (make_split(labels, 1000, train_size=500, seed=seed) for seed in (1, 1, 2**63))
    assert first.hash == again.hash
    np.testing.assert_array_equal(first.train_indices, again.train_indices)
    assert first.hash != other.hash
    assert len(set(first.val_indices) & set(other.val_indices)) < 30  # 10 are expected by chance


def test_every_image_is_as_likely_to_validate() -> None:
    labels = np.repeat([0, 1], [30, 10])
    times = np.zeros(40)
    for seed in range(2000):
        times[make_split(labels, 40, val_size=0.25, seed=seed).val_indices] += 1
    # by chance 500 of 2,000 (deviation 19), and in the minority 2 or 3 of 10, by a fair draw between them
    assert (np.abs(times - 500) < 100).all()


def test_the_split_of_a_study_stays_what_it_is() -> None:
    # recorded by studies: it must be the same in every later version of this code and of NumPy
    split = make_split(np.arange(60) % 3, 60, train_size=12, seed=7)
    assert split.val_indices.tolist() == [6, 23, 24, 32, 37, 52]
    assert split.train_indices.tolist() == [1, 12, 25, 28, 30, 31, 33, 36, 41, 50, 56, 59]
    assert split.hash == "06268840942aca32"


def test_an_own_validation_part_validates() -> None:
    labels = np.concatenate([EVEN, EVEN[::50]])
    split = make_split(labels, 1000, train_size=200, seed=1)
    assert split.val_indices.tolist() == list(range(1000, 1020))
    assert counts(labels, split.train_indices) == [20] * 10
    assert split.train_indices.max() < 1000


def test_a_given_size_takes_validation_from_the_training_images() -> None:
    labels = np.concatenate([EVEN, EVEN[::50]])
    split = make_split(labels, 1000, val_size=0.2)
    assert counts(labels, split.val_indices) == [20] * 10
    assert split.val_indices.max() < 1000
    assert len(split.train_indices) == 800


@pytest.mark.parametrize("size", [0, -1, 0.0, 1.0, -0.5, 2.5, float("nan")])
def test_a_validation_size_that_is_neither_share_nor_count_is_refused(size: float | int) -> None:
    with pytest.raises(ValueError, match=f"--val-size must be a share between 0 and 1 .* but got {size}"):
        make_split(EVEN, 1000, val_size=size)


@pytest.mark.parametrize("size", [1, 9, 0.001, 991, 1000, 5000, 0.999])
def test_a_validation_size_that_leaves_out_classes_is_refused(size: float | int) -> None:
    with pytest.raises(ValueError, match=f"--val-size must leave .* 10 classes .* but got {size}: .* 1000"):
        make_split(EVEN, 1000, val_size=size)


def test_a_class_with_nothing_left_to_train_on_is_refused_by_name() -> None:
    labels = np.repeat([0, 1, 2], [50, 1, 49])
    with pytest.raises(ValueError, match="left to train on, but class 'emu' has none"):
        make_split(labels, 100, classes=("cat", "emu", "dog"))
    with pytest.raises(ValueError, match="class '1' has none"):
        make_split(labels, 100)


@pytest.mark.parametrize("size", [-1, 0, 9, 901, 1000])
def test_a_training_size_that_cannot_be_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"--train-size must be .* 10 classes, .* 900 images .* got {size}"):
        make_split(EVEN, 1000, train_size=size)


def test_the_record_is_plain_and_says_what_was_asked_for() -> None:
    split = make_split(EVEN, 1000, val_size=0.2, train_size=100, seed=4)
    assert isinstance(split, Split)
    assert json.loads(json.dumps(split.describe())) == {
        "seed": 4,
        "val_size": 0.2,
        "train_size": 100,
        "train_images": 100,
        "val_images": 200,
        "hash": split.hash,
    }


def test_the_hash_tells_training_from_validation() -> None:
    split = make_split(EVEN, 1000, val_size=0.5)
    swapped = Split(0, 0.5, None, split.val_indices, split.train_indices)
    assert swapped.hash != split.hash
