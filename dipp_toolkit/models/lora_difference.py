r"""What a training in full changed, as a LoRA: the best approximation of every layer's change by a product of rank r.

With the singular value decomposition $W_1 - W_0 = U S V^T$ it is $B A$ with $B = U_r S_r^{1/2}$ and
$A = S_r^{1/2} V_r^T$ (Eckart and Young 1936). What of the change it keeps, as a share of the sum of squares over the
whole network, is said beside it: biases, norms and other weights that are no layer's matrix are in no LoRA.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import RequestError

POWER_ITERATIONS = 4
"""Of the randomised decomposition, which is taken where the rank is small beside the matrix."""
MUCH_SMALLER = 8
"""Times that a matrix is wider than the rank for that."""


@dataclass(frozen=True)
class LoraDifference:
    """A LoRA of what changed between two networks.

    Attributes:
        rank: of every layer.
        tensors: `LAYER.lora_A.weight` and `LAYER.lora_B.weight`, by peft's names without its prefix.
        kept: share of the change's squares that it keeps, over all layers' matrices and kernels.
        outside: share of the change's squares that is in weights which are in no LoRA.
    """

    rank: int
    tensors: dict[str, Tensor]
    kept: float
    outside: float

    @property
    def layers(self) -> list[str]:
        """Names of the layers that it changes."""
        return sorted({name.rpartition(".lora_")[0] for name in self.tensors})


@torch.no_grad()
def lora_difference(trained: nn.Module, base: Mapping[str, Tensor], rank: int) -> LoraDifference:
    """The LoRA that comes closest to what a training changed.

    Args:
        trained: the network after it.
        base: the weights before it, by the network's names.
        rank: of the product, the same for all layers; of layers that are narrower the rest are zeros.

    Raises:
        RequestError: the weights are of another network, or nothing has changed.
    """
    state = trained.state_dict()
    misfits = [name for name, tensor in state.items() if name not in base or base[name].shape != tensor.shape]
    if misfits:
        raise RequestError(
            f"The start weights are not of this network: {misfits[0]} is missing there or has another shape (one of "
            f"{len(misfits)}). Name those that the training began from with --base."
        )
    matrices = {
        f"{name}.weight": name
        for name, layer in trained.named_modules()
        if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)
    }
    tensors: dict[str, Tensor] = {}
    changed, kept, outside = 0.0, 0.0, 0.0
    for name, after in state.items():
        if not after.is_floating_point():
            continue
        change = after.float() - base[name].float()
        squares = float(change.double().square().sum())
        if squares == 0:
            continue
        if name not in matrices:
            outside += squares
            continue
        changed += squares
        down, up = factors(change, rank)
        kept += squares - float((change - up_down(down, up, change)).double().square().sum())
        tensors[f"{matrices[name]}.lora_A.weight"], tensors[f"{matrices[name]}.lora_B.weight"] = down, up
    if not tensors:
        raise RequestError("No layer differs from the start weights, so there is nothing for a LoRA to hold.")
    return LoraDifference(rank, tensors, kept / changed, outside / (changed + outside))


def factors(change: Float[Tensor, "out in ..."], rank: int) -> tuple[Float[Tensor, "rank in ..."], Tensor]:
    """A and B of the best product of a rank, `(rank, in, ...)` and `(out, rank, ...)`, with zeros where it has fewer.

    Args:
        change: of a linear layer's or a convolution's weight.
        rank: of the product.
    """
    matrix = change.flatten(1)
    if min(matrix.shape) > MUCH_SMALLER * rank:
        with torch.random.fork_rng(devices=[]):  # the same factors in every process
            torch.manual_seed(0)
            left, values, right = torch.svd_lowrank(matrix, q=2 * rank, niter=POWER_ITERATIONS)
    else:
        left, values, transposed = torch.linalg.svd(matrix, full_matrices=False)
        right = transposed.T
    count = min(rank, len(values))
    roots = values[:count].sqrt()
    up, down = matrix.new_zeros(len(matrix), rank), matrix.new_zeros(rank, matrix.shape[1])
    up[:, :count], down[:count] = left[:, :count] * roots, (right[:, :count] * roots).T
    kernel = change.shape[2:]
    return down.reshape(rank, change.shape[1], *kernel), up.reshape(len(matrix), rank, *(1 for _ in kernel))


def up_down(down: Tensor, up: Tensor, like: Tensor) -> Tensor:
    """The product of two factors in the shape of the weight that they are of."""
    return (up.flatten(1) @ down.flatten(1)).reshape(like.shape)
