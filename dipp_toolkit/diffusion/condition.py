"""What a network is conditioned on: encoded prompts, whatever the architecture calls them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils.weak import WeakIdKeyDictionary

from ..utils.device import sent
from ..utils.host_waits import awaited

_LENGTHS = WeakIdKeyDictionary()  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Condition:
    """A batch of encoded prompts.

    Attributes:
        prompts: the texts, one a row; rewards read them.
        tensors: what the network reads, by the network's own argument names (`encoder_hidden_states`,
            `encoder_attention_mask`, ...), each `(batch, ...)`.
        size: height and width of the latents that it is for, where these are not the networks' own.
    """

    prompts: tuple[str, ...]
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    size: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, rows: Sequence[int] | slice) -> Condition:
        """The chosen rows, in the order given."""
        index = list(range(len(self)))[rows] if isinstance(rows, slice) else [int(row) for row in rows]
        prompts, places = tuple(self.prompts[row] for row in index), torch.tensor(index, dtype=torch.int64)
        # Sent once to each device: as a list, every tensor's index would be a copy that the host waits for.
        there = {device: sent(places, device) for device in {tensor.device for tensor in self.tensors.values()}}
        tensors = {name: tensor[there[tensor.device]] for name, tensor in self.tensors.items()}
        return Condition(prompts, tensors, self.size)

    def to(self, *args: Any, **kwargs: Any) -> Condition:
        """Like `Tensor.to`; a dtype is applied to floating tensors alone."""
        device, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
        moved = {
            name: tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None)
            for name, tensor in self.tensors.items()
        }
        return Condition(self.prompts, moved, self.size)

    def latent_shape(self, own: Sequence[int]) -> tuple[int, ...]:
        """The shape of one latent: the networks' own, or with the size that this is for."""
        return tuple(own) if self.size is None else (own[0], *self.size)

    @staticmethod
    def cat(parts: Sequence[Condition]) -> Condition:
        """Rows of all parts, one after the other. The parts hold the same tensors, of the same trailing shapes,
        and are for latents of one size."""
        names = parts[0].tensors
        return Condition(
            tuple(prompt for part in parts for prompt in part.prompts),
            {name: torch.cat([part.tensors[name] for part in parts]) for name in names},
            parts[0].size,
        )


def row_lengths(mask: Int[Tensor, "batch tokens"]) -> list[int]:
    """How many tokens each row of a mask keeps, for networks that take sequences as long as they are.

    Reading them off a device makes the host wait, so they are remembered as long as the mask lives. In a dry run
    tensors have no numbers; rows keep all their tokens there.

    Args:
        mask: 1 for a token that is kept, which the first ones of a row are, and 0 for padding.
    """
    if isinstance(mask, FakeTensor):
        return [mask.shape[1]] * len(mask)
    if mask not in _LENGTHS:
        with awaited(mask.device):
            _LENGTHS[mask] = mask.sum(1).tolist()
    lengths: list[int] = _LENGTHS[mask]
    return lengths
