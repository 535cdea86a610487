"""The typed configuration: every setting that decides the result of one training.

A configuration is a tree of frozen sections that round-trips through YAML unchanged. A section that has
variants (model, optimizer, schedule) is told apart by its ``name``. Reading an unknown key, a wrong
type or a value out of range raises ``ValueError`` naming the field's path, the rule and the value.

Adding a variant: write its section in the file of its kind, add it to the union there, and register its
builder in ``search.training`` under the same name.
"""

from spaces.config.augmentation import Augmentation
from spaces.config.configuration import Configuration, first_problem
from spaces.config.data import Data
from spaces.config.losses import (
    CrossEntropy,
    Focal,
    GeneralizedCrossEntropy,
    Loss,
    SupervisedContrastive,
)
from spaces.config.models import (
    VGG,
    Airbench,
    AlexNet,
    BlockNetwork,
    ConvNet,
    DropoutNetwork,
    LeNet,
    Model,
    Network,
    ResidualNetwork,
    ResNet,
    ResNet9,
    Torchvision,
    Tutorial,
    WideResNet,
)
from spaces.config.optimizers import (
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    Muon,
    NAdam,
    Optimizer,
    RAdam,
    RMSprop,
)
from spaces.config.schedules import (
    Constant,
    Cosine,
    CosineRestarts,
    OneCycle,
    Polynomial,
    Schedule,
    Step,
    Triangular,
)
from spaces.config.section import Section
from spaces.config.training import Training

__all__ = [
    "SGD",
    "VGG",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Airbench",
    "AlexNet",
    "Augmentation",
    "BlockNetwork",
    "Configuration",
    "Constant",
    "ConvNet",
    "Cosine",
    "CosineRestarts",
    "CrossEntropy",
    "Data",
    "DropoutNetwork",
    "Focal",
    "GeneralizedCrossEntropy",
    "LeNet",
    "Loss",
    "Model",
    "Muon",
    "NAdam",
    "Network",
    "OneCycle",
    "Optimizer",
    "Polynomial",
    "RAdam",
    "RMSprop",
    "ResNet",
    "ResNet9",
    "ResidualNetwork",
    "Schedule",
    "Section",
    "Step",
    "SupervisedContrastive",
    "Torchvision",
    "Training",
    "Triangular",
    "Tutorial",
    "WideResNet",
    "first_problem",
]
