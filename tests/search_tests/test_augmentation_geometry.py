"""Rotation, size and shear against torchvision's affine, image by image, in float64."""

import pytest
import torch
from torchvision.transforms.v2 import InterpolationMode, functional

from search.training.augmentation.geometry import affine, draw_affine, random_affine


def make_images(n: int, channels: int, height: int, width: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.rand(n, channels, height, width, dtype=dtype, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 8, 8), (3, 9, 14)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_affine_equals_torchvision(shape, dtype, tolerance):
    n = 24
    images_NCHW = make_images(n, *shape, dtype)
    generator = torch.Generator().manual_seed(1)
    angles_B = (torch.rand(n, dtype=dtype, generator=generator) * 2 - 1) * 180
    factors_B = torch.rand(n, dtype=dtype, generator=generator) * 1.5 + 0.3
    shears_B = (torch.rand(n, dtype=dtype, generator=generator) * 2 - 1) * 60
    expected = torch.stack(
        [
            functional.affine(
                image,
                angle=angle.item(),
                translate=[0, 0],
                scale=factor.item(),
                shear=[shear.item(), 0.0],
                interpolation=InterpolationMode.BILINEAR,
            )
            for image, angle, factor, shear in zip(images_NCHW, angles_B, factors_B, shears_B, strict=True)
        ]
    )
    result = affine(images_NCHW, angles_B, factors_B, shears_B)
    torch.testing.assert_close(result, expected, rtol=0, atol=tolerance)


def test_affine_of_a_quarter_turn_is_clockwise():
    images_NCHW = make_images(1, 3, 6, 6, torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    result = affine(images_NCHW, 90 * one, one, 0 * one)
    torch.testing.assert_close(result, images_NCHW.rot90(-1, (2, 3)))


def test_affine_at_zero_settings_is_the_identity():
    images_NCHW = make_images(4, 3, 32, 32, torch.float32)
    result = affine(images_NCHW, torch.zeros(4), torch.ones(4), torch.zeros(4))
    torch.testing.assert_close(result, images_NCHW, rtol=0, atol=1e-5)


@pytest.mark.parametrize("part", ["rotation", "scale", "shear"])
def test_every_image_has_its_own_draw(part):
    torch.manual_seed(0)
    images_NCHW = make_images(1, 3, 16, 16, torch.float32).expand(20, 3, 16, 16)
    strengths = {"rotation": 0.0, "scale": 0.0, "shear": 0.0} | {part: 0.9 if part == "scale" else 40.0}
    result = random_affine(images_NCHW, **strengths)
    assert len(result.flatten(1).unique(dim=0)) == 20


def test_draws_are_uniform_in_their_ranges():
    torch.manual_seed(0)
    draws = draw_affine(20_000, 15.0, 0.2, 40.0, torch.device("cpu"))
    for draws_B, (low, high) in zip(draws, [(-15, 15), (0.8, 1.2), (-40, 40)], strict=True):
        assert draws_B.min() >= low
        assert draws_B.max() <= high
        counts = torch.histc(draws_B, 10, low, high)
        assert ((counts - 2000).abs() < 250).all()


def test_what_is_off_is_not_drawn_away_from_the_identity():
    angles_B, factors_B, shears_B = draw_affine(50, 0.0, 0.0, 0.0, torch.device("cpu"))
    assert (angles_B == 0).all()
    assert (factors_B == 1).all()
    assert (shears_B == 0).all()
