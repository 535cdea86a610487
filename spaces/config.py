"""The typed configuration: every setting that decides the result of one training.

A configuration is a tree of frozen sections that round-trips through YAML unchanged. A section that has
variants (model, optimizer, schedule) is told apart by its ``name``. Reading an unknown key, a wrong
type or a value out of range raises ``ValueError`` naming the field's path, the rule and the value.

Adding a variant: write its section here, add it to the section's union, and register its builder in
``search.training`` under the same name.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from spaces.problems import describe
from spaces.text import digest

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Rate = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class Section(BaseModel):
    """Base of every part of a configuration: frozen, strictly typed, and without unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Data(Section):
    """How pixels enter the network."""

    scaling: Literal["unit", "standardize", "symmetric", "imagenet", "per-image"] = "standardize"
    """unit: [0, 1]; standardize: each channel to mean 0 and deviation 1 over the training images;
    symmetric: [-1, 1]; imagenet: by ImageNet's channel mean and deviation; per-image: each image to
    mean 0 and deviation 1 over its channels and positions."""


class Augmentation(Section):
    """Random changes of the training images, drawn anew for every image. Zero switches each one off."""

    flip: Share = 0.0
    """Probability of mirroring left to right."""
    shift: Annotated[int, Field(ge=0, le=64)] = 0
    """Largest translation in pixels, by padding that much and cropping at random."""
    padding: Literal["zero", "reflect", "edge"] = "zero"
    """What a shift brings in: black, the mirrored border, or the repeated border pixel."""
    rotation: Annotated[float, Field(ge=0.0, le=180.0)] = 0.0
    """Largest rotation in degrees: the angle is uniform in [-rotation, rotation]."""
    scale: Rate = 0.0
    """Largest relative change of size: the factor is uniform in [1 - scale, 1 + scale]."""
    shear: Annotated[float, Field(ge=0.0, le=60.0)] = 0.0
    """Largest shear along x in degrees: uniform in [-shear, shear]."""
    brightness: NonNegative = 0.0
    """The image is multiplied by a factor uniform in [max(0, 1 - brightness), 1 + brightness]."""
    contrast: NonNegative = 0.0
    """The image is blended with its mean grey by a factor uniform in [max(0, 1 - contrast), 1 + contrast]."""
    saturation: NonNegative = 0.0
    """The image is blended with its grey version, factor as for contrast. No effect on grey images."""
    cutout: Rate = 0.0
    """Side of the square that is blanked out, as a share of the image's side (0.5: 16 of 32 pixels)."""
    erasing: Share = 0.0
    """Probability of random erasing: a rectangle of 2 to 33 % of the area is blanked out."""
    mixup: NonNegative = 0.0
    """Alpha of MixUp: images and labels are blended by a weight from Beta(alpha, alpha)."""
    cutmix: NonNegative = 0.0
    """Alpha of CutMix: a rectangle whose share is 1 - Beta(alpha, alpha) comes from another image.
    With MixUp on as well, each image gets one of the two, by a fair draw."""


Normalization = Literal["batch", "layer", "instance", "group", "none"]
Activation = Literal["relu", "leaky-relu", "tanh", "elu", "gelu", "silu"]


class VGG(Section):
    """VGG-style blocks (Simonyan and Zisserman 2015): 3x3 convolutions, then 2x2 max pooling, then a head."""

    name: Literal["vgg"] = "vgg"
    widths: Annotated[tuple[Count, ...], Field(min_length=1), BeforeValidator(_as_tuple)] = (32, 64, 128)
    """Filters of each block; their number is the number of blocks."""
    convolutions: Annotated[int, Field(ge=1, le=8)] = 2
    """3x3 convolutions in each block."""
    head: Annotated[int, Field(ge=0)] = 128
    """Units of the fully connected layer before the classifier; 0: no such layer."""
    activation: Activation = "relu"
    """The nonlinearity after every convolution and hidden layer."""
    normalization: Normalization = "batch"
    """Over what activations are normalized; layer: over channels and positions of one image. In the head,
    instance and group fall back to none, since they are not defined there."""
    groups: Count = 8
    """Groups of group normalization; must divide every width."""
    order: Literal["norm-dropout", "dropout-norm", "norm", "dropout", "neither"] = "norm-dropout"
    """Where dropout acts in a block's last convolution and in the head. norm-dropout: after normalization,
    activation and pooling; dropout-norm: right before normalization; the rest leave one or both out."""
    dropout: Rate = 0.0
    """Dropout rate of the last block; 0: none."""
    dropout_profile: Literal["constant", "rising"] = "constant"
    """constant: the same rate in every block; rising: growing linearly, dropout * i / blocks."""
    dropout_kind: Literal["element", "channel"] = "element"
    """element: each activation alone; channel: whole feature maps (Tompson et al. 2015)."""
    head_dropout: Rate = 0.0
    """Dropout rate in the head; 0: none."""

    @model_validator(mode="after")
    def _groups_divide(self) -> VGG:
        if self.normalization == "group" and any(width % self.groups for width in self.widths):
            raise ValueError(
                f"groups must divide every width, but got groups={self.groups}, widths={self.widths}"
            )
        return self


Model = VGG


class _Optimizer(Section):
    lr: Positive
    """Learning rate per batch, as written: never scaled silently."""
    weight_decay: NonNegative = 0.0
    """Weight decay; L2 penalty in the gradient, decoupled in AdamW. 0: none."""
    decay_norms_and_biases: bool = False
    """Whether weight decay also pulls at normalization weights and biases."""


class SGD(_Optimizer):
    """Stochastic gradient descent (torch.optim.SGD)."""

    name: Literal["sgd"] = "sgd"
    lr: Positive = 0.05
    momentum: Rate = 0.9
    nesterov: bool = True
    """Nesterov's momentum; has no effect, and must be off, without momentum."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> SGD:
        if self.nesterov and self.momentum == 0:
            raise ValueError(f"nesterov needs momentum > 0, but got momentum={self.momentum}")
        return self


class _Adaptive(_Optimizer):
    lr: Positive = 1e-3
    beta1: Rate = 0.9
    """Decay of the running mean of gradients."""
    beta2: Rate = 0.999
    """Decay of the running mean of squared gradients (of the infinity norm, in Adamax)."""
    eps: Positive = 1e-8


class Adam(_Adaptive):
    """Kingma and Ba 2015 (torch.optim.Adam)."""

    name: Literal["adam"] = "adam"


class AdamW(_Adaptive):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    name: Literal["adamw"] = "adamw"


class NAdam(_Adaptive):
    """Adam with Nesterov momentum (Dozat 2016)."""

    name: Literal["nadam"] = "nadam"


class Adamax(_Adaptive):
    """Adam by the infinity norm (Kingma and Ba 2015, section 7.1)."""

    name: Literal["adamax"] = "adamax"


class RMSprop(_Optimizer):
    """Hinton's RMSprop (torch.optim.RMSprop)."""

    name: Literal["rmsprop"] = "rmsprop"
    lr: Positive = 1e-3
    alpha: Rate = 0.99
    """Decay of the running mean of squared gradients."""
    momentum: Rate = 0.0
    eps: Positive = 1e-8


Optimizer = Annotated[SGD | Adam | AdamW | NAdam | Adamax | RMSprop, Field(discriminator="name")]


class _Schedule(Section):
    warmup: Rate = 0.0
    """Share of the run in which the learning rate first rises linearly from nearly 0; 0: none."""


class Constant(_Schedule):
    name: Literal["constant"] = "constant"


class Step(_Schedule):
    """The rate is multiplied by gamma at each milestone."""

    name: Literal["step"] = "step"
    milestones: Annotated[tuple[Share, ...], Field(min_length=1), BeforeValidator(_as_tuple)] = (0.5, 0.75)
    """Shares of the run, rising."""
    gamma: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1

    @model_validator(mode="after")
    def _rising(self) -> Step:
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones must rise, but got {self.milestones}")
        return self


class Cosine(_Schedule):
    """Half a cosine from the full rate down to final (Loshchilov and Hutter 2017)."""

    name: Literal["cosine"] = "cosine"
    final: Share = 0.0
    """The last rate, as a share of the full one."""


class CosineRestarts(_Schedule):
    """SGDR (Loshchilov and Hutter 2017): cosine annealing that starts again, each time for longer."""

    name: Literal["cosine-restarts"] = "cosine-restarts"
    cycles: Annotated[int, Field(ge=1, le=20)] = 3
    growth: Annotated[float, Field(ge=1.0, le=10.0)] = 2.0
    """How many times as long each cycle is as the one before."""
    final: Share = 0.0
    """The rate at the end of a cycle, as a share of the full one."""


class OneCycle(_Schedule):
    """Smith and Topin 2018: up to the full rate and far down again, both by half cosines. Only the learning
    rate cycles; momentum stays as it is."""

    name: Literal["one-cycle"] = "one-cycle"
    peak: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.3
    """Share of the run at which the full rate is reached."""
    start: Share = 0.04
    """The first rate, as a share of the full one."""
    final: Share = 4e-6
    """The last rate, as a share of the full one."""


class Triangular(_Schedule):
    """Straight up to the full rate and straight down again (Smith 2017)."""

    name: Literal["triangular"] = "triangular"
    peak: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.25
    """Share of the run at which the full rate is reached."""
    start: Share = 0.0
    """The first rate, as a share of the full one."""
    final: Share = 0.0
    """The last rate, as a share of the full one."""


Schedule = Annotated[
    Constant | Step | Cosine | CosineRestarts | OneCycle | Triangular, Field(discriminator="name")
]


class CrossEntropy(Section):
    name: Literal["cross-entropy"] = "cross-entropy"
    label_smoothing: Rate = 0.0
    """Share of the target spread evenly over all classes (Szegedy et al. 2016); 0: none."""


Loss = CrossEntropy


class Training(Section):
    epochs: Annotated[int, Field(ge=1, le=100_000)] = 30
    """Passes over the training images."""
    batch_size: Annotated[int, Field(ge=2, le=65_536)] = 128
    """Images in a step. The last, partial batch of an epoch is left out."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 autocast on CUDA, fp32 on a CPU."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Early stopping: epochs without improvement after which training stops and returns to its best
    epoch; 0: off."""
    monitor: Literal["accuracy", "loss"] = "accuracy"
    """The validation figure that early stopping watches."""


class Configuration(Section):
    """One training's complete settings."""

    data: Data = Data()
    augmentation: Augmentation = Augmentation()
    model: Model = VGG()
    optimizer: Optimizer = SGD()
    schedule: Schedule = Cosine()
    loss: Loss = CrossEntropy()
    training: Training = Training()

    @classmethod
    def read(cls, tree: object, source: str = "configuration") -> Configuration:
        """Check a plain tree (as YAML gives it) and return the configuration.

        Raises:
            ValueError: naming the field's path, the rule and the value, in one line.
        """
        try:
            return cls.model_validate(tree)
        except ValidationError as error:
            raise ValueError(f"{source}: {first_problem(error)}") from None

    def tree(self) -> dict[str, Any]:
        """The configuration as plain dicts, lists and scalars: what YAML and JSON write."""
        return self.model_dump(mode="json")

    def fingerprint(self) -> str:
        """A short hash that two configurations share exactly when all their settings agree."""
        return digest(self.tree())


def first_problem(error: ValidationError) -> str:
    """The first problem of reading a configuration as one line: path, rule and value."""
    return describe(error, Configuration)
