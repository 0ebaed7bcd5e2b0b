"""Optimisers and what surrounds them: how networks are run, clipping, loss scaling, and restored optimiser states."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..config import TrainConfig
from ..distributed.sharded_state import Pieces, placed
from ..models.compilation import compile_blocks
from ..models.recomputed_blocks import recompute_blocks
from ..utils.packages import not_installed
from ..utils.step_parts import UPDATES, step_part
from .momentum_free_adam import MomentumFreeAdam

FIRST_SCALE, LARGEST_SCALE = 2.0**16, 2.0**24
DOUBLE_AFTER = 2000
"""Updates without an overflow after which the loss scale is doubled."""

MARGIN = 1e-6
"""What torch adds to a norm before it divides by it."""


def apply_network_options(network: nn.Module, config: TrainConfig, family: object) -> None:
    """Run a network as the settings ask: recomputed blocks, channels-last convolutions, compiled blocks. Activations
    are in place where no graph is kept.

    Args:
        network: a generator's, an assistant's or a reference's.
        config: `gradient_checkpointing`, `channels_last` and `compile` are read.
        family: of the network's pipeline; None where there is none.

    Raises:
        RequestError: the network cannot recompute its blocks.
    """
    from ..models.in_place_activations import use_in_place_activations

    use_in_place_activations(network)
    if config.channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if config.gradient_checkpointing:  # of the reference too: where no term differentiates through it, nothing changes
        recompute_blocks(network, family)
    if config.compile in ("on", "graphs"):
        compile_blocks(network, config.compile)


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
        kind: `"adam"`, fused where the device can, `"fused"`, which insists on it, or `"8bit"` for bitsandbytes' Adam
            with 8-bit states, of which it keeps both.

    Raises:
        PluginError: bitsandbytes is not installed.
    """
    check_optimizer(kind)
    if kind == "8bit":
        import bitsandbytes

        optimizer: Any = bitsandbytes.optim.Adam8bit(list(parameters), lr=learning_rate, betas=(0.0, 0.999))
        return optimizer  # type: ignore[no-any-return]
    weights = list(parameters)
    # One kernel for all weights: on a CPU the plain one is a loop in Python, seven times as slow.
    fused = kind == "fused" or all(weight.device.type in ("cpu", "cuda") for weight in weights)
    return MomentumFreeAdam(weights, learning_rate, fused=fused or None)


@step_part(UPDATES)
def clipped_norm(parameters: Sequence[nn.Parameter], largest: float) -> Float[Tensor, ""]:
    """Clip the gradient of all parameters together to a norm; returns the norm it had.

    Sharded parameters count whole: the norm is that of the full gradient, the same in every process.
    """
    norm: Any = nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    whole: Tensor = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    # On a CPU the norm is known at once, and where torch would multiply by one (its margin included) no gradient need
    # be read and written again. On a GPU, reading the norm would make the host wait.
    if whole.device.type != "cpu" or not float(whole) + MARGIN <= largest:
        nn.utils.clip_grads_with_norm_(parameters, largest, norm)
    return whole


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load what `optimizer.state_dict()` gave, also where its parameters are sharded differently now.

    Args:
        optimizer: over the same parameters, in the same order.
        state: tensors of a parameter's shape go where the parameter is; others, such as counts, as they are. First
            moments, which runs kept before `MomentumFreeAdam`, are left out.
    """
    if isinstance(optimizer, MomentumFreeAdam):
        state = optimizer.own_state(state)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def put(value: Any, like: Tensor) -> Any:
        if isinstance(value, Pieces | Tensor) and tuple(value.shape) == tuple(like.shape) and like.ndim:
            return placed(value, like)
        return value

    kept = {
        index: {name: put(value, parameters[index]) for name, value in own.items()}
        for index, own in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": kept})


@dataclass
class LossScale:
    """The scale of one network's gradients under float16, where small ones would become 0 on their way.

    The rule is that of mixed-precision training (Micikevicius et al. 2018, arXiv 1710.03740, section 3.2): halve the
    scale and make no update where a gradient overflows, double it after many updates without one. It is ours because
    `torch.amp.GradScaler` decides inside its own `step`, while here the guard decides before anything moves, alike in
    every process, and the state is plain numbers in the checkpoint.

    Attributes:
        enabled: where False, the scale is 1 and nothing is done.
        scale: what gradients are multiplied by in the backward pass.
        sound: updates without an overflow since it last changed.
    """

    enabled: bool = False
    scale: float = FIRST_SCALE
    sound: int = 0

    @property
    def factor(self) -> float:
        """What to multiply the gradient by that a backward pass starts from."""
        return self.scale if self.enabled else 1.0

    @torch.no_grad()
    def unscale(self, parameters: Iterable[nn.Parameter]) -> None:
        """Divide the gradients by the scale."""
        if self.enabled:
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            torch._foreach_mul_(gradients, 1 / self.scale)

    def overflowed(self, finite: bool) -> bool:
        """Note how an update went; True where the scale was to blame for an overflow, and has been halved."""
        if not self.enabled:
            return False
        if finite:
            self.sound += 1
            if self.sound >= DOUBLE_AFTER:
                self.scale, self.sound = min(2 * self.scale, LARGEST_SCALE), 0
            return False
        if self.scale <= 1:
            return False
        self.scale, self.sound = self.scale / 2, 0
        return True

    def state_dict(self) -> dict[str, Any]:
        return {"scale": self.scale, "sound": self.sound}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)
