"""Rotation, size, shear and translation against torchvision's affine, image by image, in float64."""

import math

import pytest
import torch
from torchvision.transforms.v2 import InterpolationMode, functional

from search.training.augmentation.geometry import Affine, Ranges, affine, draw_affine, random_affine

CPU = torch.device("cpu")
RANGES = {"rotation": 40.0, "scale": 0.9, "shear": 40.0, "shear_y": 40.0, "translation": 0.5}
PARTS = {
    "rotation": ("angles_B",),
    "scale": ("factors_B",),
    "shear": ("slopes_x_B",),
    "shear_y": ("slopes_y_B",),
    "translation": ("right_B", "down_B"),
}


def make_images(n: int, channels: int, height: int, width: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.rand(n, channels, height, width, dtype=dtype, generator=torch.Generator().manual_seed(0))


def draw_parts(n: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Angles, factors, shears and translations, as torchvision takes them."""
    generator = torch.Generator().manual_seed(1)
    u = torch.rand(6, n, dtype=dtype, generator=generator) * 2 - 1
    return {
        "angle": u[0] * 180,
        "scale": u[1] * 0.75 + 1.05,
        "shear_x": u[2] * 60,
        "shear_y": u[3] * 60,
        "right": u[4] * 5,
        "down": u[5] * 5,
    }


def reference(image: torch.Tensor, angle=0.0, scale=1.0, shear_x=0.0, shear_y=0.0, right=0.0, down=0.0):
    return functional.affine(
        image,
        angle=angle,
        translate=[right, down],
        scale=scale,
        shear=[shear_x, shear_y],
        interpolation=InterpolationMode.BILINEAR,
    )


def as_affine(parts: dict[str, torch.Tensor]) -> Affine:
    def slopes(name: str) -> torch.Tensor | None:
        return torch.tan(torch.deg2rad(parts[name])) if name in parts else None

    return Affine(
        slopes_x_B=slopes("shear_x"),
        slopes_y_B=slopes("shear_y"),
        factors_B=parts.get("scale"),
        angles_B=parts.get("angle"),
        right_B=parts.get("right"),
        down_B=parts.get("down"),
    )


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 8, 8), (3, 9, 14)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@pytest.mark.parametrize(
    "names",
    [
        ("angle", "scale", "shear_x", "shear_y", "right", "down"),
        ("angle",),
        ("scale",),
        ("shear_x",),
        ("shear_y",),
        ("right", "down"),
        ("shear_x", "shear_y"),
        ("scale", "shear_y", "down"),
    ],
    ids="+".join,
)
def test_affine_equals_torchvision(names, shape, dtype, tolerance):
    n = 24
    images_NCHW = make_images(n, *shape, dtype)
    parts = {name: draws_B for name, draws_B in draw_parts(n, dtype).items() if name in names}
    expected = torch.stack(
        [
            reference(image, **{name: draws_B[i].item() for name, draws_B in parts.items()})
            for i, image in enumerate(images_NCHW)
        ]
    )
    result = affine(images_NCHW, as_affine(parts))
    torch.testing.assert_close(result, expected, rtol=0, atol=tolerance)


def test_affine_of_a_quarter_turn_is_clockwise():
    images_NCHW = make_images(1, 3, 6, 6, torch.float64)
    result = affine(images_NCHW, Affine(angles_B=torch.full((1,), 90.0, dtype=torch.float64)))
    torch.testing.assert_close(result, images_NCHW.rot90(-1, (2, 3)))


def test_affine_moves_right_and_down():
    images_NCHW = make_images(1, 1, 6, 7, torch.float64)
    result = affine(images_NCHW, Affine(right_B=torch.full((1,), 2.0), down_B=torch.full((1,), 1.0)))
    torch.testing.assert_close(result[:, :, 1:, 2:], images_NCHW[:, :, :-1, :-2])
    assert result[:, :, 0].max() < 1e-12
    assert result[:, :, :, :2].max() < 1e-12


def test_affine_at_zero_settings_is_the_identity():
    images_NCHW = make_images(4, 3, 32, 32, torch.float32)
    nothing, zeros = Affine(), [torch.zeros(4)] * 6
    for parts in (nothing, Affine(*zeros)._replace(factors_B=torch.ones(4))):
        torch.testing.assert_close(affine(images_NCHW, parts), images_NCHW, rtol=0, atol=1e-5)


@pytest.mark.parametrize("part", RANGES)
def test_every_image_has_its_own_draw(part):
    torch.manual_seed(0)
    images_NCHW = make_images(1, 3, 16, 16, torch.float32).expand(20, 3, 16, 16)
    result = random_affine(images_NCHW, ranges=Ranges(**{part: RANGES[part]}))
    assert len(result.flatten(1).unique(dim=0)) == 20


def test_draws_are_uniform_in_their_ranges():
    torch.manual_seed(0)
    draws = draw_affine(20_000, Ranges(15.0, 0.2, 40.0, 20.0, 0.25), 8, 12, CPU)
    angles = {
        "slopes_x_B": (-40, 40, lambda slopes: torch.rad2deg(torch.atan(slopes))),
        "slopes_y_B": (-20, 20, lambda slopes: torch.rad2deg(torch.atan(slopes))),
        "factors_B": (0.8, 1.2, None),
        "angles_B": (-15, 15, None),
        "right_B": (-3, 3, None),
        "down_B": (-2, 2, None),
    }
    for name, (low, high, convert) in angles.items():
        drawn_B = getattr(draws, name)
        drawn_B = convert(drawn_B) if convert else drawn_B
        assert drawn_B.min() >= low - 1e-4
        assert drawn_B.max() <= high + 1e-4
        counts = torch.histc(drawn_B.clamp(low, high), 10, low, high)
        assert ((counts - 2000).abs() < 250).all()
    assert torch.corrcoef(torch.stack((draws.right_B, draws.down_B)))[0, 1].abs() < 0.05


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_is_off_draws_nothing(part):
    torch.manual_seed(0)
    draws = draw_affine(50, Ranges(**{part: RANGES[part]}), 8, 8, CPU)
    assert [name for name, value in draws._asdict().items() if value is not None] == [
        name for name in Affine._fields if name in PARTS[part]
    ]
    state = torch.get_rng_state()
    assert draw_affine(50, Ranges(), 8, 8, CPU) == Affine()
    assert torch.equal(torch.get_rng_state(), state)


def test_slopes_are_tangents_of_degrees():
    torch.manual_seed(0)
    steep = draw_affine(5000, Ranges(shear=60.0), 8, 8, CPU).slopes_x_B
    assert steep.abs().max() == pytest.approx(math.tan(math.radians(60)), rel=0.01)
