"""Blocks whose insides are computed again on the way back, in networks that diffusers does not do it for, or not right.

diffusers has gradient checkpointing for most of its networks, and it is used where there is one. For HunyuanDiT's it
has none, and at 1024 pixels its forty blocks keep more than most devices hold; Chroma's computes something else, which
its family says. Which is why these lines are ours.
"""

from __future__ import annotations

from functools import cache
from typing import Any, cast

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..errors import RequestError
from .compilation import repeated_blocks
from .family import FaultyCheckpointing


def recompute_blocks(network: nn.Module, family: object) -> None:
    """Have the blocks of a network keep their inputs alone for the way back. Weights and their names stay as they are.

    Args:
        network: of diffusers; adapters come before.
        family: of its pipeline, which says whether the network's own checkpointing is right; None where there is none.

    Raises:
        RequestError: it has no blocks that could be recomputed.
    """
    blocks: list[nn.Module] = []
    try:
        if not (isinstance(family, FaultyCheckpointing) and family.faulty_checkpointing):
            cast(Any, network).enable_gradient_checkpointing()
            return
        blocks = repeated_blocks(network)
    except AttributeError:  # not a network of diffusers
        pass
    except ValueError:  # one that diffusers does not do it for
        blocks = repeated_blocks(network)
    if not blocks:
        raise RequestError(f"{type(network).__name__} cannot recompute its blocks. Leave gradient_checkpointing out.")
    for block in blocks:
        if not isinstance(block, Recomputed):
            block.__class__ = _recomputed(cast(Any, type(block)))


class Recomputed(nn.Module):
    """A block of which nothing but its inputs is kept for the way back."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return super().forward(*args, **kwargs)
        return checkpoint(super().forward, *args, use_reentrant=False, **kwargs)


@cache
def _recomputed(kind: type[Any]) -> type[nn.Module]:
    """The class of recomputed blocks of a class, under its name. An instance's own attribute would not do: a copy of
    the block would compute with the weights of the first."""
    return type(kind.__name__, (Recomputed, kind), {"__module__": kind.__module__})
