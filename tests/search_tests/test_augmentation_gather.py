"""Selection, shift and mirroring against torchvision's pad, crop and flip, image by image."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad
from torchvision.transforms.v2 import functional

from search.training.augmentation.gather import (
    alternating_flips,
    draw_corners,
    gather_moved,
    gather_whole,
    random_gather,
)

PADDING_MODES = {"zero": "constant", "reflect": "reflect", "edge": "replicate"}
SHAPES = [(32, 32, 3), (8, 8, 1), (5, 9, 3)]


def make_images(n: int, shape: tuple[int, int, int]) -> Tensor:
    return torch.randint(0, 256, (n, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def reference(image_HWC: Tensor, top: int, left: int, flip: bool, padding: str, largest: int) -> Tensor:
    """Pad, crop, mirror: the operations of RandomCrop and RandomHorizontalFlip in float64."""
    image_CHW = image_HWC.permute(2, 0, 1).double() / 255
    padded = pad(image_CHW[None], [largest] * 4, mode=PADDING_MODES[padding])[0]
    cropped = functional.crop(padded, top + largest, left + largest, *image_CHW.shape[1:])
    return functional.horizontal_flip(cropped) if flip else cropped


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("padding", PADDING_MODES)
def test_gather_equals_pad_crop_and_flip(shape, padding):
    images_NHWC = make_images(7, shape)
    largest = min(shape[:2]) - 1
    steps = torch.arange(-largest, largest + 1)
    tops_B, lefts_B = (grid.flatten().repeat(2) for grid in torch.meshgrid(steps, steps, indexing="ij"))
    flips_B = torch.arange(len(tops_B)) < len(tops_B) // 2
    chosen = torch.randperm(len(tops_B), generator=torch.Generator().manual_seed(1))[:200]
    tops_B, lefts_B, flips_B = tops_B[chosen], lefts_B[chosen], flips_B[chosen]
    indices_B = torch.arange(len(chosen)) % 7
    images_NCHW = gather_moved(
        images_NHWC, indices_B, corners=(tops_B, lefts_B), flips_B=flips_B, padding=padding
    )
    expected = torch.stack(
        [
            reference(images_NHWC[i], int(top), int(left), bool(flip), padding, largest)
            for i, top, left, flip in zip(indices_B, tops_B, lefts_B, flips_B, strict=True)
        ]
    )
    # undoing the scaling gives whole grey levels, which have to agree exactly
    assert torch.equal((images_NCHW.double() * 255).round(), (expected * 255).round())
    torch.testing.assert_close(images_NCHW, expected.float())


def test_gather_flips_alone():
    images_NHWC = make_images(4, (8, 6, 3))
    flips_B = torch.tensor([True, False, True])
    indices_B = torch.tensor([3, 3, 0])
    moved = gather_moved(images_NHWC, indices_B, flips_B=flips_B)
    whole = gather_whole(images_NHWC, indices_B)
    assert torch.equal(moved, torch.where(flips_B[:, None, None, None], whole.flip(3), whole))


def test_gather_without_draws_takes_whole_images():
    images_NHWC = make_images(6, (8, 8, 3))
    indices_B = torch.tensor([5, 0, 5, 2])
    expected = images_NHWC[indices_B].permute(0, 3, 1, 2) / 255
    torch.testing.assert_close(gather_whole(images_NHWC, indices_B), expected)
    assert torch.equal(gather_moved(images_NHWC, indices_B), gather_whole(images_NHWC, indices_B))


def test_gather_covers_exactly_zero_to_one():
    levels_NHWC = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1)
    levels = gather_whole(levels_NHWC, torch.tensor([0])).flatten()
    assert levels[0] == 0
    assert levels[-1] == 1
    assert torch.equal((levels * 255).round(), torch.arange(256.0))


def test_corners_are_uniform_over_both_ends():
    torch.manual_seed(0)
    tops_B, lefts_B = draw_corners(14_000, 3, torch.device("cpu"))
    for draws_B in (tops_B, lefts_B):
        values, counts = draws_B.unique(return_counts=True)
        assert values.tolist() == [-3, -2, -1, 0, 1, 2, 3]
        assert ((counts - 2000).abs() < 250).all()
    assert torch.corrcoef(torch.stack((tops_B, lefts_B)).float())[0, 1].abs() < 0.05


@pytest.mark.parametrize(("flip", "low", "high"), [(1.0, 500, 500), (0.3, 110, 190)])
def test_flip_probability(flip, low, high):
    torch.manual_seed(0)
    images_NHWC = torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 2, 1)
    images_NCHW = random_gather(
        images_NHWC, torch.zeros(500, dtype=torch.long), shift=0, flip=flip, padding="zero"
    )
    assert low <= int((images_NCHW[:, 0, 0, 0] == 1).sum()) <= high


def test_alternating_flips_take_turns():
    indices_B = torch.arange(20_000)
    first, second, third = (alternating_flips(indices_B, torch.tensor([epoch])) for epoch in (0, 1, 2))
    assert torch.equal(second, ~first)
    assert torch.equal(third, first)


def test_alternating_flips_look_like_fair_draws():
    """As many of one kind as of the other, whatever is taken; and no rhythm in the indices."""
    bits_N = alternating_flips(torch.arange(2**16), torch.tensor([0])).double()
    assert abs(bits_N.mean() - 0.5) < 0.01
    for step in (1, 2, 3, 4, 8, 10, 16, 100, 128, 256, 1000, 5000, 32768):
        agreement = (bits_N[step:] == bits_N[:-step]).double().mean()
        assert abs(agreement - 0.5) < 0.02
    chunks = bits_N.view(64, 1024).mean(1)
    assert chunks.min() > 0.4
    assert chunks.max() < 0.6


def test_alternating_flips_belong_to_the_image_and_not_to_its_place_in_the_batch():
    indices_B = torch.randperm(50_000, generator=torch.Generator().manual_seed(0))
    epoch = torch.tensor([3])
    assert torch.equal(alternating_flips(indices_B, epoch)[:100], alternating_flips(indices_B[:100], epoch))


def test_alternating_gather_mirrors_every_image_in_every_other_epoch():
    images_NHWC, indices_B = make_images(40, (8, 6, 3)), torch.arange(40)
    state = torch.get_rng_state()
    even, odd = (random_gather(images_NHWC, indices_B, alternating=torch.tensor([epoch])) for epoch in (0, 1))
    assert torch.equal(torch.get_rng_state(), state)  # nothing was drawn
    whole = gather_whole(images_NHWC, indices_B)
    plain_N = (even == whole).flatten(1).all(1)
    assert 10 < plain_N.sum() < 30
    assert torch.equal(torch.where(plain_N[:, None, None, None], even, odd), whole)
    assert torch.equal(torch.where(plain_N[:, None, None, None], odd, even), whole.flip(3))
