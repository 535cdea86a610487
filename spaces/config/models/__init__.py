"""Networks. Their builders are in ``search.training.models``, under the same names."""

from typing import Annotated

from pydantic import Field

from spaces.config.models.airbench import Airbench
from spaces.config.models.blocks import VGG, AlexNet, ConvNet, LeNet, Tutorial
from spaces.config.models.common import BlockNetwork, DropoutNetwork, Network, ResidualNetwork
from spaces.config.models.pretrained import Torchvision
from spaces.config.models.residual import ResNet, ResNet9, WideResNet

__all__ = [
    "VGG",
    "Airbench",
    "AlexNet",
    "BlockNetwork",
    "ConvNet",
    "DropoutNetwork",
    "LeNet",
    "Model",
    "Network",
    "ResNet",
    "ResNet9",
    "ResidualNetwork",
    "Torchvision",
    "Tutorial",
    "WideResNet",
]

Model = Annotated[
    Tutorial | LeNet | ConvNet | AlexNet | VGG | ResNet | ResNet9 | WideResNet | Airbench | Torchvision,
    Field(discriminator="name"),
]
