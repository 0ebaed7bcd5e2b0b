"""How networks are run: recomputed blocks, memory order of convolutions, compilation, and the optimiser's kind."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from ..config import TrainConfig
from ..errors import RequestError
from ..utils.packages import not_installed


def apply_network_options(network: nn.Module, config: TrainConfig, *, trained: bool) -> None:
    """Make a network run as the settings ask for.

    Args:
        network: a generator's, an assistant's or a reference's.
        config: `gradient_checkpointing`, `channels_last` and `compile` are read.
        trained: whether gradients flow through its blocks.

    Raises:
        RequestError: the network cannot recompute its blocks.
    """
    if config.channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if trained and config.gradient_checkpointing:
        try:
            network.enable_gradient_checkpointing()  # type: ignore[operator]
        except (AttributeError, ValueError) as error:
            raise RequestError(
                f"{type(network).__name__} cannot recompute its blocks; leave gradient_checkpointing out."
            ) from error
    if config.compile:
        network.compile()


def check_optimizer(kind: str) -> None:
    """Refuse an optimiser whose package cannot be imported.

    Raises:
        PluginError: bitsandbytes is not installed, or fails.
    """
    if kind == "8bit":
        try:
            import bitsandbytes  # noqa: F401 -- whether it can be
        except ImportError as error:
            raise not_installed("The optimizer '8bit' needs", ["bitsandbytes"]) from error


def make_optimizer(parameters: Iterable[nn.Parameter], learning_rate: float, kind: str) -> torch.optim.Optimizer:
    """Adam with betas (0, 0.999), as the family's papers use.

    Args:
        parameters: what is trained.
        learning_rate: Adam's.
        kind: `"adam"`, fused where the device can, `"fused"`, which insists on it, or `"8bit"` for bitsandbytes' 8-bit
            states.

    Raises:
        PluginError: bitsandbytes is not installed.
    """
    betas = (0.0, 0.999)
    check_optimizer(kind)
    if kind == "8bit":
        import bitsandbytes

        made: Any = bitsandbytes.optim.Adam8bit(list(parameters), lr=learning_rate, betas=betas)
        return made  # type: ignore[no-any-return]
    listed = list(parameters)
    # One kernel for all weights: on a CPU the plain Adam is a loop in Python, seven times as slow.
    fused = kind == "fused" or all(one.device.type in ("cpu", "cuda") for one in listed)
    return torch.optim.Adam(listed, lr=learning_rate, betas=betas, fused=fused or None)
