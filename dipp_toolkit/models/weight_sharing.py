"""Networks that share weights: several modules, one set of tensors.

The three roles of a LoRA-shared run are three separate module trees over the same frozen tensors, each with its own
adapter. Nothing is switched on and off between passes, so there is no state to get wrong: not in a backward pass that
recomputes a block, not under `torch.compile`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..distributed.sharded_state import Pieces, placed
from ..errors import RunError


def weight_sharing_copy(network: nn.Module) -> nn.Module:
    """A module of its own whose parameters and buffers are those of `network`, not copies of them."""
    shared: dict[int, Any] = {id(tensor): tensor for tensor in [*network.parameters(), *network.buffers()]}
    return copy.deepcopy(network, shared)


def trainable_parameters(network: nn.Module) -> list[nn.Parameter]:
    """The parameters that are trained, in the network's order."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def trainable_state(network: nn.Module) -> dict[str, Tensor]:
    """`state_dict` without the frozen parameters: everything a resumed run cannot load from elsewhere."""
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    return {name: value for name, value in network.state_dict().items() if name not in frozen}


def load_trainable_state(network: nn.Module, state: Mapping[str, Tensor | Pieces]) -> None:
    """The inverse of `trainable_state`.

    Raises:
        RunError: the state is of another network.
    """
    expected = trainable_state(network)
    if expected.keys() != state.keys():
        odd = sorted(expected.keys() ^ state.keys())
        raise RunError(f"The saved weights do not fit the network: {len(odd)} names differ, such as '{odd[0]}'.")
    network.load_state_dict({name: placed(value, expected[name]) for name, value in state.items()}, strict=False)
