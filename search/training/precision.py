"""What is computed in bf16, and what is not, where autocast is on.

Shapes: N images, C channels, H height, W width.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call


class FullPrecisionLinear(nn.Linear):
    """A linear layer that computes in float32 under autocast, too.

    As a classifier: logits in bf16 have eight binary digits, so that the largest two of an image are often
    equal, and the class that comes first wins.
    """

    @classmethod
    def of(cls, layer: nn.Linear) -> FullPrecisionLinear:
        """The same layer: its parameters are shared, and none is drawn."""
        with torch.device("meta"):
            full = cls(layer.in_features, layer.out_features, bias=layer.bias is not None)
        full.weight, full.bias = layer.weight, layer.bias
        return full

    def forward(self, inputs: Tensor) -> Tensor:
        if inputs.is_meta:  # counted and not computed: autocast knows no such device
            return super().forward(inputs)
        with torch.autocast(inputs.device.type, enabled=False):
            return super().forward(inputs.float())


class _Weight(NamedTuple):
    """A parameter that autocast casts."""

    name: str
    full: nn.Parameter
    half: Tensor


class WeightCopies:
    """bf16 copies of a network's weights, all renewed by one operation.

    Autocast casts each weight at every use, and its gradient back, by a small kernel each. Here the network
    computes with copies; their gradients are cast all at once, and so are the weights after each step. The
    numbers are the same to the last bit, as long as a layer is called once in a pass: that of a layer which
    is called twice would be summed in bf16. So layers that share a weight are left to autocast.
    """

    def __init__(self, network: nn.Module, bf16: bool) -> None:
        """Without ``bf16`` there is nothing to copy, and the network computes with its own weights."""
        self.network = network
        self._weights = _cast_weights(network) if bf16 else []
        self.follow_training()

    def follow_training(self) -> None:
        """Let those copies have gradients whose weights learn now. They stay where they are: a validation
        that was captured goes on reading them."""
        for weight in self._weights:
            weight.half.requires_grad_(weight.full.requires_grad)
        self._trained = [weight for weight in self._weights if weight.full.requires_grad]

    def __call__(self, images_NCHW: Tensor) -> Tensor:
        """What the network makes of the images."""
        if not self._weights:
            return self.network(images_NCHW)  # type: ignore[no-any-return]
        halves = {weight.name: weight.half for weight in self._weights}
        return functional_call(self.network, halves, (images_NCHW,))  # type: ignore[no-any-return]

    def forget_gradients(self) -> None:
        """Drop what gradients there are: those of a capture that failed were never computed."""
        for weight in self._trained:
            weight.half.grad = None

    def hand_over_gradients(self) -> None:
        """Give the weights the gradients that their copies have."""
        reached = [(weight, weight.half.grad) for weight in self._trained if weight.half.grad is not None]
        if not reached:
            return
        gradients = [torch.empty_like(weight.full) for weight, _ in reached]
        torch._foreach_copy_(gradients, [gradient for _, gradient in reached])
        for (weight, _), gradient in zip(reached, gradients, strict=True):
            weight.full.grad, weight.half.grad = gradient, None

    def renew(self, trained_only: bool = False) -> None:
        """Make the copies those of the present weights."""
        weights = self._trained if trained_only else self._weights
        if weights:
            with torch.no_grad():
                torch._foreach_copy_([weight.half for weight in weights], [weight.full for weight in weights])


def _cast_weights(network: nn.Module) -> list[_Weight]:
    """The float32 parameters of convolutions and linear layers, but for those that several layers share."""
    uses = Counter(id(parameter) for _, parameter in network.named_parameters(remove_duplicate=False))
    return [
        _Weight(f"{path}.{name}" if path else name, parameter, _half(parameter))
        for path, module in network.named_modules()
        if type(module) in (nn.Conv2d, nn.Linear)
        for name, parameter in module.named_parameters(recurse=False)
        if uses[id(parameter)] == 1 and parameter.dtype == torch.float32
    ]


def _half(parameter: nn.Parameter) -> Tensor:
    return parameter.detach().to(torch.bfloat16)
