"""RandAugment and TrivialAugment against torchvision's own operations and tables, image by image."""

import math

import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, RandAugment, TrivialAugmentWide
from torchvision.transforms.autoaugment import _apply_op
from torchvision.transforms.v2 import functional

from search.training.augmentation import policy
from search.training.augmentation.policy import OPERATIONS, STRONGEST, Amounts, apply_layer, draw_amounts

CPU = torch.device("cpu")
THEIR_NAMES = (
    "Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast",
    "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize",
)  # fmt: skip
TONAL = ("Posterize", "Solarize", "AutoContrast", "Equalize")
SIGNED = THEIR_NAMES[1:10]


def make_images(n: int, channels: int, height: int, width: int) -> Tensor:
    """uint8 images with smooth parts and noise, some of low contrast."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(n, channels, height, width, generator=generator)
    smooth = torch.linspace(0, 1, height)[:, None] * torch.linspace(0.2, 1, width)
    spans = torch.rand(n, channels, 1, 1, generator=generator)
    return ((noise * 0.5 + smooth * 0.5) * spans * 255).to(torch.uint8)


def their_table(kind: str, height: int, width: int) -> dict[str, tuple[Tensor, bool]]:
    if kind == "randaugment":
        return RandAugment()._augmentation_space(STRONGEST + 1, (height, width))
    return TrivialAugmentWide()._augmentation_space(STRONGEST + 1)


def our_ranges(kind: str, height: int, width: int) -> policy.Ranges:
    return policy.randaugment_ranges(height, width) if kind == "randaugment" else policy.wide_ranges()


def their_magnitude(name: str, table: dict[str, tuple[Tensor, bool]], level: int, sign: int) -> float:
    magnitudes, signed = table[name]
    magnitude = float(magnitudes[level]) if magnitudes.ndim else 0.0
    if name.startswith("Translate"):
        magnitude = round(magnitude, 4)  # float32 makes 15.999999 of 16 pixels, which is then cut to 15
    return magnitude * (sign if signed else 1)


def theirs(image: Tensor, name: str, magnitude: float) -> Tensor:
    """Tonal operations work on grey levels, by torchvision's v2 functions; the rest in floating point."""
    if name not in TONAL:
        floating = image / 255
        return _apply_op(floating, name, magnitude, InterpolationMode.BILINEAR, None)
    if name == "AutoContrast":
        return functional.autocontrast(image) / 255
    return _apply_op(image, name, magnitude, InterpolationMode.BILINEAR, None) / 255


def all_draws() -> tuple[Tensor, Tensor, Tensor]:
    """Every operation with several magnitudes and both signs."""
    levels = (0, 7, 15, 30)
    draws = [(k, level, sign) for k in range(len(OPERATIONS)) for level in levels for sign in (-1, 1)]
    operations, magnitudes, signs = zip(*draws, strict=True)
    return torch.tensor(operations), torch.tensor(magnitudes).float(), torch.tensor(signs).float()


def test_the_lists_agree():
    for kind in ("randaugment", "trivialaugment"):
        table = their_table(kind, 32, 32)
        assert tuple(table) == THEIR_NAMES
        assert tuple(name for name, (_, signed) in table.items() if signed) == SIGNED
    assert len(OPERATIONS) == len(THEIR_NAMES)
    for our_name, their_name in zip(OPERATIONS, THEIR_NAMES, strict=True):
        assert our_name.replace("-", "").replace("saturation", "color") == their_name.lower()


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 8, 8), (3, 18, 25)])
@pytest.mark.parametrize("kind", ["randaugment", "trivialaugment"])
def test_a_layer_equals_torchvision(kind, shape):
    _, height, width = shape
    amounts = Amounts(*all_draws())
    images = make_images(len(amounts.operations_B), *shape)
    result = apply_layer(images / 255, amounts, our_ranges(kind, height, width))
    table = their_table(kind, height, width)
    for i, (operation, level, sign) in enumerate(zip(*(part.tolist() for part in amounts), strict=True)):
        name = THEIR_NAMES[operation]
        expected = theirs(images[i], name, their_magnitude(name, table, int(level), int(sign)))
        torch.testing.assert_close(result[i], expected, rtol=0, atol=2e-4, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("kind", ["randaugment", "trivialaugment"])
def test_a_layer_is_within_rounding_of_torchvision_on_bytes(kind):
    """torchvision cuts to whole levels within each operation, and saturation's grey version as well."""
    amounts = Amounts(*all_draws())
    images = make_images(len(amounts.operations_B), 3, 32, 32)
    result = apply_layer(images / 255, amounts, our_ranges(kind, 32, 32)) * 255
    table = their_table(kind, 32, 32)
    for i, (operation, level, sign) in enumerate(zip(*(part.tolist() for part in amounts), strict=True)):
        name = THEIR_NAMES[operation]
        magnitude = their_magnitude(name, table, int(level), int(sign))
        expected = _apply_op(images[i], name, magnitude, InterpolationMode.BILINEAR, None)
        assert (result[i] - expected).abs().max() <= 2.0, name


def test_posterize_and_solarize_hit_the_same_levels_at_every_magnitude():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
    for kind in ("randaugment", "trivialaugment"):
        table = their_table(kind, 16, 16)
        for name in ("Posterize", "Solarize"):
            amounts = Amounts(
                torch.full((31,), THEIR_NAMES.index(name)), torch.arange(31).float(), torch.ones(31)
            )
            result = apply_layer(levels.expand(31, 1, 16, 16) / 255, amounts, our_ranges(kind, 16, 16))
            for level in range(31):
                expected = theirs(levels, name, float(table[name][0][level]))
                assert torch.equal((result[level] * 255).round(), (expected * 255).round()), (name, level)


def test_what_an_image_does_not_draw_leaves_it_alone():
    """Identity, and every operation without a magnitude, however large those of its neighbours are."""
    images = make_images(28, 3, 32, 32) / 256  # no whole levels: rounding would show
    operations_B = torch.cat((torch.zeros(14, dtype=torch.long), torch.arange(14)))
    magnitudes_B = torch.cat((torch.full((14,), 30.0), torch.zeros(14)))
    result = apply_layer(images, Amounts(operations_B, magnitudes_B, torch.ones(28)), policy.wide_ranges())
    for image, before, operation in zip(result, images, operations_B.tolist(), strict=True):
        if OPERATIONS[operation] not in ("autocontrast", "equalize"):  # which have no magnitude
            rounds = OPERATIONS[operation] in ("posterize", "solarize")
            torch.testing.assert_close(image, before, rtol=0, atol=1 / 500 if rounds else 1e-5)


def test_draws_are_uniform():
    torch.manual_seed(0)
    operations_B, magnitudes_B, signs_B = draw_amounts(31_000, None, CPU)
    for draws_B, values in ((operations_B, 14), (magnitudes_B, 31), (signs_B, 2)):
        there, counts = draws_B.unique(return_counts=True)
        expected = 31_000 / values
        assert len(there) == values
        assert ((counts - expected).abs() < 5 * math.sqrt(expected)).all()
    assert sorted(signs_B.unique().tolist()) == [-1, 1]
    assert magnitudes_B.max() == STRONGEST
    correlations = torch.corrcoef(torch.stack((operations_B.float(), magnitudes_B, signs_B)))
    assert (correlations - torch.eye(3)).abs().max() < 0.03


def test_a_given_magnitude_is_every_images():
    assert (draw_amounts(50, 9, CPU).magnitudes_B == 9).all()


def test_layers_follow_one_another_with_draws_of_their_own():
    images = make_images(40, 3, 16, 16) / 255
    ranges = policy.randaugment_ranges(16, 16)
    torch.manual_seed(5)
    result = policy.random_layers(images, layers=3, magnitude=20, ranges=ranges)
    torch.manual_seed(5)
    expected = images
    for _ in range(3):
        expected = apply_layer(expected, draw_amounts(40, 20, CPU), ranges)
    assert torch.equal(result, expected)
    torch.manual_seed(5)
    once = policy.random_layers(images, layers=1, magnitude=20, ranges=ranges)
    assert not torch.allclose(once, expected)
