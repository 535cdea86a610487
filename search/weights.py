"""A network's weights in a file: safetensors, which can hold nothing but tensors."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_model, save
from torch import nn

from studies.files import whole


def save_weights(network: nn.Module, path: Path) -> None:
    """Write all parameters and buffers; the file is either whole or not there."""
    content = save({name: tensor.contiguous() for name, tensor in network.state_dict().items()})
    with whole(path) as file:
        file.write(content)


def load_weights(network: nn.Module, path: Path) -> None:
    """Read all parameters and buffers into the network.

    Raises:
        ValueError: if the file is not there, is no safetensors file, or holds another network.
    """
    try:
        missing, unexpected = load_model(network, str(path), strict=False)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path}: {str(error).splitlines()[0]}") from None
    # files of earlier versions count the batches that normalizations have seen, which nothing uses
    unexpected = [name for name in unexpected if not name.endswith(".num_batches_tracked")]
    for names, what in ((missing, "lacks"), (unexpected, "holds what the network has not:")):
        if names:
            raise ValueError(f"{path}: another network's weights: {what} {', '.join(sorted(names))}")
