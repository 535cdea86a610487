"""A network seen as features and a classifier on them.

The classifier is the last ``nn.Linear`` of a network, or the perceptron that was put in its place, and the
features are what enters it. So any network will do whose output comes from one linear layer.

Shapes: N images, C channels, H height, W width, F features, K classes.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from search.training.models import Cost, Shape, build_model, cost_of
from search.training.models.table import models
from search.training.precision import FullPrecisionLinear
from spaces import config


class Perceptron(nn.Sequential):
    """A classifier with one hidden layer: linear, ReLU, linear."""

    def __init__(self, features: int, hidden: int, classes: int) -> None:
        super().__init__(nn.Linear(features, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, classes))


def build_network(configuration: config.Configuration, shape: Shape) -> nn.Module:
    """The untrained network of a configuration, initialized from the default CPU generator: its model, with
    the classifier that its loss asks for, which computes in float32.

    Raises:
        ValueError: if the network does not fit images of this shape.
    """
    return _with_classifier(build_model(configuration.model, shape), configuration.loss, shape)


def network_cost(configuration: config.Configuration, shape: Shape) -> Cost:
    """What the network that ``build_network`` makes costs to run, counted without making it."""
    return cost_of(lambda: bare_network(configuration, shape), shape)


def bare_network(configuration: config.Configuration, shape: Shape) -> nn.Module:
    """The network that ``build_network`` makes, with PyTorch's first weights."""
    model = configuration.model
    return _with_classifier(models[model.name](model, shape), configuration.loss, shape)


def _with_classifier(network: nn.Module, loss: config.Loss, shape: Shape) -> nn.Module:
    """The network with the classifier that the loss asks for: its own, or a perceptron."""
    if isinstance(loss, config.SupervisedContrastive) and loss.head:
        path, classifier = _classifier(network)
        network.set_submodule(path, Perceptron(feature_count(classifier), loss.head, shape.classes))
    path, last = _last_linear(network)
    network.set_submodule(path, FullPrecisionLinear.of(last))
    _count_no_batches(network)
    return network


def _count_no_batches(network: nn.Module) -> None:
    """Batch normalization counts batches for an average over all of them, which none of ours takes: on a GPU
    a kernel for each layer in each step."""
    for module in network.modules():
        if isinstance(module, _BatchNorm) and module.momentum is not None:
            module.num_batches_tracked = None


def classifier_of(network: nn.Module) -> nn.Module:
    """The part of the network that takes features_NF to logits_NK."""
    return _classifier(network)[1]


def feature_count(classifier: nn.Module) -> int:
    """How many features a classifier takes."""
    first = classifier[0] if isinstance(classifier, Perceptron) else classifier
    assert isinstance(first, nn.Linear)
    return first.in_features


def features(
    network: nn.Module, images_NCHW: Tensor, run: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """What enters the network's classifier, features_NF; gradients flow through it.

    ``run`` calls the network's modules in a way of its own; None: the network itself does.
    """
    seen: list[Tensor] = []

    def see(_module: nn.Module, inputs: tuple[Tensor]) -> None:
        seen.append(inputs[0])

    hook = classifier_of(network).register_forward_pre_hook(see)
    try:
        (run or network)(images_NCHW)
    finally:
        hook.remove()
    return seen[0]


def _classifier(network: nn.Module) -> tuple[str, nn.Module]:
    """The classifier and its path in the network."""
    perceptrons = [(path, part) for path, part in network.named_modules() if isinstance(part, Perceptron)]
    return perceptrons[-1] if perceptrons else _last_linear(network)


def _last_linear(network: nn.Module) -> tuple[str, nn.Linear]:
    """What computes the logits, and its path in the network."""
    return [(path, part) for path, part in network.named_modules() if isinstance(part, nn.Linear)][-1]
