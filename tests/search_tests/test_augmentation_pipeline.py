"""The whole pipeline: order, pairing, repeatability, and that a CUDA graph could hold it."""

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from search.training.augmentation import Augmenter, build_scaling, plain_batch, policy, preview_batch
from search.training.augmentation.colour import adjust_brightness, adjust_contrast, random_hue
from search.training.augmentation.draws import draw_factors
from search.training.augmentation.gather import alternating_flips, draw_corners, gather_moved
from search.training.augmentation.geometry import Ranges, random_affine
from search.training.augmentation.sharpness import random_sharpness
from search.training.augmentation.tonal import random_tones
from spaces.config import Augmentation, Configuration, Data

SCALINGS = ["unit", "standardize", "symmetric", "imagenet", "per-image"]
EVERYTHING = Augmentation(
    flip=0.5,
    shift=2,
    policy="randaugment",
    rotation=15.0,
    scale=0.1,
    shear=5.0,
    shear_y=5.0,
    translation=0.1,
    brightness=0.3,
    brightness_probability=0.8,
    contrast=0.3,
    contrast_probability=0.8,
    saturation=0.3,
    saturation_probability=0.8,
    hue=0.1,
    hue_probability=0.8,
    grayscale=0.2,
    posterize=0.3,
    solarize=0.3,
    autocontrast=0.3,
    equalize=0.3,
    sharpen=0.5,
    sharpen_probability=0.8,
    cutout=0.4,
    erasing=0.5,
    mixup=0.4,
    cutmix=1.0,
)
MODIFIERS = {"padding", "randaugment_layers", "randaugment_magnitude", "posterize_bits", "solarize_threshold"}
"""Fields that do nothing alone; so do those that end in _probability, _smallest or _largest."""
PARTS = {
    name: Augmentation(**{name: value})
    for name, value in EVERYTHING
    if name not in MODIFIERS and not name.endswith(("_probability", "_smallest", "_largest"))
    and name not in ("policy", "alternating_flip")
}  # fmt: skip
PARTS |= {
    "randaugment": Augmentation(policy="randaugment"),
    "trivialaugment": Augmentation(policy="trivialaugment"),
    "alternating": Augmentation(alternating_flip=True, shift=1),
}
COLOURS = {"saturation", "hue", "grayscale"}
PADDED = {mode: EVERYTHING.model_copy(update={"padding": mode}) for mode in ("zero", "reflect", "edge")}
CONFIGURATIONS = {"nothing": Augmentation(), **PARTS, **PADDED}
EPOCH = torch.tensor([0])


@cache
def make_data(n: int, shape_HWC: tuple[int, int, int]) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, *shape_HWC), dtype=torch.uint8, generator=generator)


def build(config: Augmentation, shape_HWC: tuple[int, int, int], kind: str = "standardize") -> Augmenter:
    channels = shape_HWC[2]
    scaling = build_scaling(kind, torch.full((channels,), 0.4), torch.full((channels,), 0.25))
    return Augmenter(config, shape_HWC, scaling)


SYNCHRONIZING = {
    "_local_scalar_dense",  # .item(), bool(), int()
    "nonzero",
    "masked_select",
    "_unique2",
    "lift_fresh",  # torch.tensor(...): a constant from the host
}


class Operations(TorchDispatchMode):
    """Records which operations would wait for the device, and the size of the largest new tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: set[str] = set()
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in SYNCHRONIZING or (name.startswith("index") and has_mask(args)):
            self.waiting.add(name)
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and not func.is_view:
            self.largest = max(self.largest, result.numel())
        return result


def has_mask(args: tuple[Any, ...]) -> bool:
    lists = [arg for arg in args if isinstance(arg, list)]
    return any(isinstance(part, Tensor) and part.dtype == torch.bool for parts in lists for part in parts)


HABITS = {
    "item": lambda values: values.max().item(),
    "branch": lambda values: values if values.sum() > 0 else None,
    "mask": lambda values: values[values > 0.5],
    "assignment": lambda values: values.__setitem__(values > 0.5, torch.ones(())),
    "where": lambda values: torch.where(values > 0.5),
    "constant": lambda values: values * torch.tensor([2.0]),
}


@pytest.mark.parametrize("habit", HABITS.values(), ids=HABITS)
def test_the_record_sees_what_waits(habit):
    with Operations() as operations:
        habit(torch.rand(5))
    assert operations.waiting


SCALED = {
    **{f"{name}-standardize": (config, "standardize") for name, config in CONFIGURATIONS.items()},
    **{f"everything-{kind}": (EVERYTHING, kind) for kind in SCALINGS if kind != "standardize"},
}


@pytest.mark.parametrize("shape_HWC", [(32, 32, 3), (8, 8, 1)])
@pytest.mark.parametrize(("config", "kind"), SCALED.values(), ids=SCALED)
def test_nothing_waits_for_the_device_or_copies_the_data(config, kind, shape_HWC):
    data_NHWC, indices_B, targets_BK = make_data(2000, shape_HWC), torch.arange(4), torch.eye(4)
    augment = build(config, shape_HWC, kind)
    with Operations() as operations:
        augment(data_NHWC, indices_B, targets_BK, EPOCH)
    assert not operations.waiting
    assert operations.largest * 100 < data_NHWC.numel()


@pytest.mark.parametrize("config", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_shapes_do_not_depend_on_values(config):
    """On the meta device there are no values: whatever would read one fails."""
    meta = torch.device("meta")
    data_NHWC = torch.empty(50, 32, 32, 3, dtype=torch.uint8, device=meta)
    indices_B = torch.empty(6, dtype=torch.long, device=meta)
    targets_BK = torch.empty(6, 10, device=meta)
    scaling = build_scaling("imagenet", torch.empty(3, device=meta), torch.empty(3, device=meta))
    epoch = torch.empty(1, dtype=torch.long, device=meta)
    images_NCHW, mixed_BK = Augmenter(config, (32, 32, 3), scaling)(data_NHWC, indices_B, targets_BK, epoch)
    assert (images_NCHW.device, images_NCHW.shape) == (meta, (6, 3, 32, 32))
    assert (mixed_BK.device, mixed_BK.shape) == (meta, (6, 10))


@pytest.mark.parametrize("shape_HWC", [(32, 32, 3), (8, 8, 1), (9, 12, 3)])
@pytest.mark.parametrize("config", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_result_is_float_channels_last_and_finite(config, shape_HWC):
    height, width, channels = shape_HWC
    torch.manual_seed(0)
    images_NCHW, targets_BK = build(config, shape_HWC)(
        make_data(20, shape_HWC), torch.arange(10), torch.eye(10), EPOCH
    )
    assert images_NCHW.shape == (10, channels, height, width)
    assert images_NCHW.dtype == targets_BK.dtype == torch.float32
    assert images_NCHW.permute(0, 2, 3, 1).is_contiguous()
    assert images_NCHW.isfinite().all()
    torch.testing.assert_close(targets_BK.sum(1), torch.ones(10))


@pytest.mark.parametrize("config", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_same_seed_same_result_and_another_seed_another(config):
    data_NHWC, indices_B, targets_BK = make_data(30, (32, 32, 3)), torch.arange(20), torch.eye(20)
    augment = build(config, (32, 32, 3))
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(augment(data_NHWC, indices_B, targets_BK, EPOCH)[0])
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2]) == (config == Augmentation())


@pytest.mark.parametrize("kind", SCALINGS)
def test_nothing_enabled_is_the_plain_batch_and_draws_nothing(kind):
    data_NHWC, indices_B, targets_BK = make_data(30, (8, 8, 3)), torch.tensor([3, 29, 3]), torch.eye(3)
    scaling = build_scaling(kind, torch.full((3,), 0.4), torch.full((3,), 0.25))
    state = torch.get_rng_state()
    images_NCHW, same_BK = Augmenter(Augmentation(), (8, 8, 3), scaling)(data_NHWC, indices_B, targets_BK)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images_NCHW, plain_batch(data_NHWC, indices_B, scaling))
    assert same_BK is targets_BK


@pytest.mark.parametrize("name", sorted(COLOURS))
def test_colours_of_grey_images_draw_nothing(name):
    state = torch.get_rng_state()
    build(PARTS[name], (8, 8, 1))(make_data(5, (8, 8, 1)), torch.arange(5), torch.eye(5))
    assert torch.equal(torch.get_rng_state(), state)


OFF = {
    "probability 0": Augmentation(
        brightness=0.5, brightness_probability=0.0, contrast=0.5, contrast_probability=0.0, saturation=0.5,
        saturation_probability=0.0, hue=0.5, hue_probability=0.0, sharpen=0.5, sharpen_probability=0.0,
    ),
    "no layers": Augmentation(policy="randaugment", randaugment_layers=0, randaugment_magnitude=20),
    "strengths without a probability": Augmentation(
        posterize_bits=1, solarize_threshold=3, erasing_smallest=0.2, erasing_largest=0.5
    ),
}  # fmt: skip


@pytest.mark.parametrize("config", OFF.values(), ids=OFF)
def test_what_is_off_costs_nothing(config):
    data_NHWC, indices_B = make_data(20, (8, 8, 3)), torch.arange(20)
    state = torch.get_rng_state()
    images_NCHW = build(config, (8, 8, 3)).images(data_NHWC, indices_B)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images_NCHW, build(Augmentation(), (8, 8, 3)).images(data_NHWC, indices_B))


@pytest.mark.parametrize("name", [name for name in PARTS if name not in ("mixup", "cutmix")])
def test_every_part_changes_pictures(name):
    torch.manual_seed(0)
    # away from black and white, and with levels above the one that solarizing starts with
    data_NHWC, indices_B = make_data(60, (32, 32, 3)) // 2 + 64, torch.arange(60)
    images_NCHW = build(PARTS[name], (32, 32, 3)).images(data_NHWC, indices_B, EPOCH)
    plain_NCHW = build(Augmentation(), (32, 32, 3)).images(data_NHWC, indices_B)
    changed_N = ((images_NCHW - plain_NCHW).abs() > 0.01).flatten(1).any(1)
    assert changed_N.sum() > 5


@pytest.mark.parametrize(
    ("name", "probability"),
    [("brightness", 0.25), ("contrast", 0.25), ("saturation", 0.25), ("hue", 0.25), ("sharpen", 0.25)],
)
def test_probabilities_reach_their_own_part(name, probability):
    torch.manual_seed(0)
    data_NHWC, indices_B = make_data(2000, (8, 8, 3)), torch.arange(2000)
    config = Augmentation(**{name: 0.5, f"{name}_probability": probability})
    images_NCHW = build(config, (8, 8, 3), "unit").images(data_NHWC, indices_B)
    differences_N = (images_NCHW - plain_batch(data_NHWC, indices_B, lambda i: i)).abs().amax((1, 2, 3))
    assert abs((differences_N > 1e-3).float().mean() - probability) < 0.04


def test_strengths_reach_their_own_part():
    """A level of 125 becomes what bits, threshold and area say."""
    level_NHWC, indices_B = torch.full((300, 32, 32, 3), 125, dtype=torch.uint8), torch.arange(300)

    def levels(**settings: float) -> Tensor:
        torch.manual_seed(0)
        images_NCHW = build(Augmentation(**settings), (32, 32, 3), "unit").images(level_NHWC, indices_B)
        return (images_NCHW * 255).round()

    assert levels(posterize=1.0, posterize_bits=3).unique().tolist() == [96]
    assert levels(posterize=1.0).unique().tolist() == [112]
    assert levels(solarize=1.0, solarize_threshold=125).unique().tolist() == [130]
    assert levels(solarize=1.0, solarize_threshold=126).unique().tolist() == [125]
    erased_N = (levels(erasing=1.0, erasing_smallest=0.2, erasing_largest=0.3) == 0).float().mean((1, 2, 3))
    assert erased_N.min() > 0.17
    assert erased_N.max() < 0.33


def test_policies_take_their_settings():
    """Layers and magnitude are RandAugment's; TrivialAugment has one layer and all magnitudes."""
    data_NHWC, indices_B = make_data(40, (32, 32, 3)), torch.arange(40)
    plain_NCHW = plain_batch(data_NHWC, indices_B, lambda images: images)
    for config, layers, magnitude, ranges in [
        (Augmentation(policy="randaugment"), 2, 9, policy.randaugment_ranges(32, 32)),
        (
            Augmentation(policy="randaugment", randaugment_layers=3, randaugment_magnitude=25),
            3,
            25,
            policy.randaugment_ranges(32, 32),
        ),
        (Augmentation(policy="trivialaugment"), 1, None, policy.wide_ranges()),
    ]:
        torch.manual_seed(1)
        images_NCHW = build(config, (32, 32, 3), "unit").images(data_NHWC, indices_B)
        torch.manual_seed(1)
        expected = policy.random_layers(plain_NCHW, layers=layers, magnitude=magnitude, ranges=ranges)
        assert torch.equal(images_NCHW, expected)


def test_alternating_flip_follows_the_epoch():
    data_NHWC, indices_B = make_data(50, (8, 8, 3)), torch.arange(50)
    augment = build(Augmentation(alternating_flip=True), (8, 8, 3), "unit")
    even, odd, again = (augment.images(data_NHWC, indices_B, torch.tensor([epoch])) for epoch in (4, 5, 6))
    assert torch.equal(even, odd.flip(3))
    assert torch.equal(even, again)
    flips_B = alternating_flips(indices_B, torch.tensor([4]))
    assert torch.equal(even, gather_moved(data_NHWC, indices_B, flips_B=flips_B))


def test_stages_run_in_the_documented_order():
    """Shift, then brightness, then contrast, then scaling, on the same draws."""
    data_NHWC, indices_B = make_data(9, (8, 8, 3)), torch.arange(9)
    config = Augmentation(shift=2, padding="edge", brightness=0.8, contrast=0.8)
    torch.manual_seed(3)
    images_NCHW = build(config, (8, 8, 3)).images(data_NHWC, indices_B)
    torch.manual_seed(3)
    cpu = torch.device("cpu")
    expected = gather_moved(data_NHWC, indices_B, corners=draw_corners(9, 2, cpu), padding="edge")
    expected = adjust_brightness(expected, draw_factors(9, 0.8, 1.0, cpu))
    expected = adjust_contrast(expected, draw_factors(9, 0.8, 1.0, cpu))
    torch.testing.assert_close(images_NCHW, (expected - 0.4) / 0.25)


def test_later_stages_run_in_the_documented_order():
    """Policy, geometry, hue, tones, sharpness, on the same draws."""
    data_NHWC, indices_B = make_data(30, (16, 16, 3)), torch.arange(30)
    config = Augmentation(
        policy="trivialaugment", shear_y=20.0, hue=0.3, equalize=0.5, solarize=0.5, sharpen=0.9
    )
    torch.manual_seed(3)
    images_NCHW = build(config, (16, 16, 3), "unit").images(data_NHWC, indices_B)
    torch.manual_seed(3)
    expected = plain_batch(data_NHWC, indices_B, lambda images: images)
    expected = policy.random_layers(expected, layers=1, magnitude=None, ranges=policy.wide_ranges())
    expected = random_affine(expected, ranges=Ranges(shear_y=20.0))
    expected = random_hue(expected, strength=0.3)
    expected = random_tones(expected, solarizing=0.5, threshold=128, equalizing=0.5)
    expected = random_sharpness(expected, strength=0.9)
    assert torch.equal(images_NCHW, expected)


def test_blanked_pixels_are_zero_after_scaling():
    torch.manual_seed(0)
    white_NHWC = torch.full((5, 8, 8, 3), 255, dtype=torch.uint8)
    images_NCHW = build(Augmentation(cutout=0.5), (8, 8, 3)).images(white_NHWC, torch.arange(5))
    assert images_NCHW.unique().tolist() == pytest.approx([0, 0.6 / 0.25])


@pytest.mark.parametrize("mixing", [{}, {"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_images_and_labels_stay_paired(mixing):
    """Every pixel of image i holds i, its label is i: whatever is mixed, both say the same."""
    torch.manual_seed(0)
    data_NHWC = torch.arange(200, dtype=torch.uint8)[:, None, None, None].expand(200, 8, 8, 3).contiguous()
    indices_B = torch.randperm(200)[:64]
    targets_BK = torch.nn.functional.one_hot(indices_B, 200).float()
    config = Augmentation(flip=0.5, shift=3, padding="reflect", **mixing)
    images_NCHW, mixed_BK = build(config, (8, 8, 3), "unit")(data_NHWC, indices_B, targets_BK)
    torch.testing.assert_close(
        images_NCHW.mean((1, 2, 3)) * 255, mixed_BK @ torch.arange(200.0), rtol=0, atol=1e-3
    )


def test_augmenting_leaves_the_data_as_they_were():
    data_NHWC = make_data(40, (8, 8, 3))
    before = data_NHWC.clone()
    for config in CONFIGURATIONS.values():
        build(config, (8, 8, 3))(data_NHWC, torch.arange(20), torch.eye(20), EPOCH)
    assert torch.equal(data_NHWC, before)


def test_preview_is_in_the_unit_range():
    torch.manual_seed(0)
    data_NHWC = make_data(12, (16, 16, 3))
    shown_NCHW = preview_batch(EVERYTHING, data_NHWC, torch.arange(12))
    assert shown_NCHW.shape == (12, 3, 16, 16)
    assert shown_NCHW.min() >= 0
    assert shown_NCHW.max() <= 1
    plain_NCHW = preview_batch(Augmentation(), data_NHWC, torch.arange(12))
    torch.testing.assert_close(plain_NCHW, data_NHWC.permute(0, 3, 1, 2) / 255)


def test_shift_of_a_whole_side_is_refused():
    with pytest.raises(ValueError, match=r"shift must be smaller.*shift=8 for images of 20x8 pixels"):
        build(Augmentation(shift=8), (8, 20, 3))
    build(Augmentation(shift=7), (8, 20, 3))


def test_every_configured_scaling_can_be_built():
    for kind in Data.model_json_schema()["properties"]["scaling"]["enum"]:
        build_scaling(kind, torch.zeros(3), torch.ones(3))


REFUSED = [
    ({"flip": 0.5, "alternating_flip": True}, "alternating_flip and a random flip exclude.*flip=0.5"),
    ({"erasing_smallest": 0.4}, "erasing_smallest=0.4, erasing_largest=0.33"),
    ({"policy": "autoaugment"}, "augmentation.policy: .*autoaugment"),
    ({"randaugment_magnitude": 31}, "augmentation.randaugment_magnitude: .*31"),
    ({"randaugment_layers": -1}, "augmentation.randaugment_layers: .*-1"),
    ({"hue": 0.6}, "augmentation.hue: .*0.6"),
    ({"posterize_bits": 0}, "augmentation.posterize_bits: .*0"),
    ({"solarize_threshold": 256}, "augmentation.solarize_threshold: .*256"),
    ({"translation": 1.0}, "augmentation.translation: .*1.0"),
    ({"erasing_smallest": 0.0}, "augmentation.erasing_smallest: .*0.0"),
]


@pytest.mark.parametrize(("settings", "complaint"), REFUSED)
def test_settings_that_make_no_sense_are_refused(settings, complaint):
    with pytest.raises(ValueError, match=complaint):
        Configuration.read({"augmentation": settings})


def test_settings_of_what_is_off_are_no_mistake():
    tree = {"randaugment_layers": 0, "randaugment_magnitude": 30, "flip": 0.0, "alternating_flip": True}
    assert Configuration.read({"augmentation": tree}).augmentation.randaugment_layers == 0
