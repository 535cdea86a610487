"""MixUp and CutMix against NumPy loops, and their draws against the Beta distribution."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from search.training.augmentation import mixing

CPU = torch.device("cpu")


def make_batch(n: int, classes: int, *shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images_NCHW = torch.randn(n, *shape, dtype=torch.float64, generator=generator)
    targets_BK = torch.rand(n, classes, dtype=torch.float64, generator=generator)
    return images_NCHW, targets_BK / targets_BK.sum(1, keepdim=True)


def test_mixup_equals_the_formula():
    images_NCHW, targets_BK = make_batch(5, 4, 3, 6, 7)
    weights = [0.0, 0.25, 0.5, 0.9, 1.0]
    weights_B111 = torch.tensor(weights, dtype=torch.float64)[:, None, None, None]
    mixed_NCHW, mixed_BK = mixing.mix(images_NCHW, targets_BK, weights_B111)
    for n, weight in enumerate(weights):
        image = weight * images_NCHW[n] + (1 - weight) * images_NCHW[n - 1]
        target = weight * targets_BK[n] + (1 - weight) * targets_BK[n - 1]
        torch.testing.assert_close(mixed_NCHW[n], image)
        torch.testing.assert_close(mixed_BK[n], target)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (8, 8), (5, 9)])
def test_cutmix_equals_the_loop(height, width):
    n = 40
    images_NCHW, targets_BK = make_batch(n, 4, 3, height, width)
    generator = torch.Generator().manual_seed(1)
    kept_B = torch.rand(n, dtype=torch.float64, generator=generator)
    kept_B[0], kept_B[1] = 0, 1
    rows_B = torch.randint(0, height, (n,), generator=generator)
    columns_B = torch.randint(0, width, (n,), generator=generator)
    weights_B1HW = mixing.cutmix_weights(kept_B, rows_B, columns_B, height, width)
    mixed_NCHW, mixed_BK = mixing.mix(images_NCHW, targets_BK, weights_B1HW)
    for i in range(n):
        box_height = round(height * math.sqrt(1 - kept_B[i]))
        box_width = round(width * math.sqrt(1 - kept_B[i]))
        top, left = int(rows_B[i]) - box_height // 2, int(columns_B[i]) - box_width // 2
        rows = slice(max(top, 0), max(min(top + box_height, height), 0))
        columns = slice(max(left, 0), max(min(left + box_width, width), 0))
        image = images_NCHW[i].clone()
        image[:, rows, columns] = images_NCHW[i - 1][:, rows, columns]
        area = (rows.stop - rows.start) * (columns.stop - columns.start)
        kept = 1 - area / (height * width)
        assert torch.equal(mixed_NCHW[i], image)
        torch.testing.assert_close(mixed_BK[i], kept * targets_BK[i] + (1 - kept) * targets_BK[i - 1])
    assert torch.equal(mixed_NCHW[1], images_NCHW[1])  # everything kept


@pytest.mark.parametrize("n", [1, 2, 5])
def test_partners_are_the_entries_before(n):
    images_NCHW, targets_BK = make_batch(n, 4, 3, 6, 7)
    for batch_B in (images_NCHW, targets_BK):
        assert torch.equal(mixing.partners(batch_B), batch_B.roll(1, 0))


def test_mixing_keeps_channels_last():
    images_NCHW, targets_BK = make_batch(5, 4, 3, 6, 7)
    last_NCHW = images_NCHW.contiguous(memory_format=torch.channels_last)
    weights_B111 = torch.rand(5, 1, 1, 1, dtype=torch.float64)
    mixed_NCHW, _ = mixing.mix(last_NCHW, targets_BK, weights_B111)
    for batch_NCHW in (mixing.partners(last_NCHW), mixed_NCHW):
        assert batch_NCHW.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(mixed_NCHW, mixing.mix(images_NCHW, targets_BK, weights_B111)[0])


@pytest.mark.parametrize("alpha", [0.01, 0.2, 0.5, 1.0, 4.0, 100.0])
def test_symmetric_beta_has_the_beta_distribution(alpha):
    torch.manual_seed(0)
    draws_B = mixing.draw_beta(20_000, alpha, CPU).double().numpy()
    assert draws_B.min() >= 0
    assert draws_B.max() <= 1
    assert abs(draws_B.mean() - 0.5) < 0.012
    assert draws_B.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)
    points = np.linspace(0.02, 0.98, 49)
    shares = (draws_B[:, None] <= points).mean(0)
    np.testing.assert_allclose(shares, stats.beta.cdf(points, alpha, alpha), rtol=0, atol=0.012)


@pytest.mark.parametrize("alpha", [1e-3, 1.0, 1e4])
def test_symmetric_beta_is_finite_at_the_ends_of_its_draws(alpha):
    ends = torch.tensor([0.0, 2**-24, 0.25, 0.5, 0.75, 1 - 2**-24])
    draws = mixing.symmetric_beta(alpha, ends.repeat_interleave(6), ends.repeat(6))
    assert draws.isfinite().all()
    assert ((draws >= 0) & (draws <= 1)).all()


def encoded_batch(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images whose every pixel is the image's number, with that number's one-hot target."""
    return torch.arange(n).float()[:, None, None, None].expand(n, 3, 16, 16), torch.eye(n)


DRAWS = {
    "mixup": lambda *size: mixing.draw_mixup_weights(*size, alpha=0.7),
    "cutmix": lambda *size: mixing.draw_cutmix_weights(*size, alpha=0.7),
    "either": lambda *size: mixing.draw_either_weights(*size, mixup=0.7, cutmix=0.7),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_targets_follow_the_pixels(draw):
    """The mean pixel is the expected number under the mixed target: both hold the same shares."""
    torch.manual_seed(0)
    mixed_NCHW, mixed_BK = mixing.random_mix(*encoded_batch(50), draw=draw)
    expected_B = mixed_BK @ torch.arange(50.0)
    torch.testing.assert_close(mixed_NCHW.mean((1, 2, 3)), expected_B, rtol=0, atol=1e-4)
    torch.testing.assert_close(mixed_BK.sum(1), torch.ones(50))
    rows, columns = torch.arange(50), (torch.arange(50) - 1) % 50
    assert ((mixed_BK > 0).sum(1) <= 2).all()
    assert (mixed_BK[rows, rows] + mixed_BK[rows, columns] > 1 - 1e-5).all()
    assert len(mixed_BK[rows, rows].unique()) > 25  # a draw for each image


def test_either_is_a_fair_draw_between_the_two():
    torch.manual_seed(0)
    weights_B1HW = mixing.draw_either_weights(2000, 16, 16, CPU, mixup=1.0, cutmix=1.0)
    flat_B = weights_B1HW.flatten(1)
    fractional_B = ((flat_B > 0) & (flat_B < 1)).all(1)
    binary_B = ((flat_B == 0) | (flat_B == 1)).all(1)
    assert (fractional_B | binary_B).all()
    assert 900 < fractional_B.sum() < 1100
    constant_B = (flat_B == flat_B[:, :1]).all(1)
    assert constant_B[fractional_B].all()
