"""How pixels enter the network, and whether labels are made worse."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from spaces.config.section import FileName, Section, Seed, Share


class Data(Section):
    """How pixels enter the network, and whether labels are made worse."""

    scaling: Literal["unit", "standardize", "symmetric", "imagenet", "per-image"] = "standardize"
    """unit: [0, 1]; standardize: each channel to mean 0 and deviation 1 over the training images;
    symmetric: [-1, 1]; imagenet: by ImageNet's channel mean and deviation; per-image: each image to
    mean 0 and deviation 1 over its channels and positions."""
    noise: Literal["none", "symmetric", "asymmetric", "file"] = "none"
    """Wrong labels for training images. symmetric: any other class, all equally likely; asymmetric: a similar
    class (CIFAR-10: truck to automobile, bird to airplane, deer to horse, cat and dog to each other, Patrini
    et al. 2017; elsewhere the next class); file: labels from a table."""
    noise_rate: Share = 0.0
    """Probability that an image gets a wrong label, if its class has one; not for a file. 0: none."""
    noise_seed: Seed = 0
    """Decides which images get which wrong label. A higher rate adds to those of a lower one."""
    noise_file: FileName = ""
    """Table of labels, CSV with a header, also packed as .gz or .xz: a column ``path`` (train/CLASS/FILE, as
    in the folder of images) and columns of class names. Imagenette's and CIFAR-10N's form."""
    noise_column: str = ""
    """The table's column to take labels from."""
    noisy_validation: bool = False
    """Whether validation labels are made worse, too. They are clean otherwise."""

    @model_validator(mode="after")
    def _file_is_named(self) -> Data:
        if self.noise == "file" and not (self.noise_file and self.noise_column):
            raise ValueError(
                "noise=file needs noise_file and noise_column, but got "
                f"noise_file={self.noise_file!r}, noise_column={self.noise_column!r}"
            )
        return self
