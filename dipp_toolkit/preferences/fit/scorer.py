"""Fitted networks as one score: each in units of its own, their mean, and how far they disagree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .network import PreferenceNetwork

ROUND = 1e-12
"""Added to a variance, so that members that agree to the bit have a gradient."""


class FittedScorer(nn.Module):
    r"""$r = (\frac1K \sum_k (r_k - m_k) / d_k - m) / d$, where all means and deviations are over the images of the fit.

    So a fitted reward has mean 0 and deviation 1 over the images that were voted on, and a `reward_scale` means the
    same for it as for another that is standardised.

    Args:
        networks: the members, whose prompts are read alike.

    Attributes:
        units: $m_k$ and $d_k$, one row a member.
        whole: $m$ and $d$.
        odds: log-odds in a unit of the score: the first of two images is preferred with
            $\sigma(\mathrm{odds}\,(r_1 - r_2))$.
    """

    def __init__(self, networks: Sequence[PreferenceNetwork]):
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.units: Tensor
        self.whole: Tensor
        self.odds: Tensor
        self.register_buffer("units", torch.tensor([[0.0, 1.0]] * len(networks)))
        self.register_buffer("whole", torch.tensor([0.0, 1.0]))
        self.register_buffer("odds", torch.tensor(1.0))

    @property
    def first(self) -> Any:
        """One of the members, which reads prompts for all."""
        return self.networks[0]

    @property
    def shares_backbone(self) -> bool:
        """Whether all members see by the same network."""
        return len({id(network.backbone) for network in self.networks}) == 1

    def read(self, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch embedding"]:
        """Embeddings of prompts."""
        embeddings: Tensor = self.first.read(ids)
        return embeddings

    def see(self, pixels: Float[Tensor, "batch 3 size size"]) -> list[Float[Tensor, "batch features"]]:
        """Features of images, a member's each."""
        if self.shares_backbone:
            return [self.first.image_features(pixels)] * len(self.networks)
        networks: Any = self.networks
        return [network.image_features(pixels) for network in networks]

    def raw(
        self, seen: Sequence[Float[Tensor, "batch features"]], texts: Float[Tensor, "batch embedding"]
    ) -> Float[Tensor, "members batch"]:
        """Each member's log-odds."""
        networks: Any = self.networks
        return torch.stack(
            [
                network(features=features, texts=texts).logits[:, 0]
                for network, features in zip(networks, seen, strict=True)
            ]
        )

    def standardised(self, raw: Float[Tensor, "members batch"]) -> Float[Tensor, "members batch"]:
        """Each member's scores, in units of the whole score."""
        own = (raw - self.units[:, :1]) / self.units[:, 1:]
        return (own - self.whole[0]) / self.whole[1]

    def forward(
        self, pixels: Float[Tensor, "batch 3 size size"], texts: Float[Tensor, "batch embedding"]
    ) -> Float[Tensor, " batch"]:
        """Scores of prepared pixels."""
        return self.standardised(self.raw(self.see(pixels), texts)).mean(0)

    def doubt(
        self, pixels: Float[Tensor, "batch 3 size size"], texts: Float[Tensor, "batch embedding"]
    ) -> Float[Tensor, " batch"]:
        """How far two or more members disagree: the deviation of their scores."""
        return (self.standardised(self.raw(self.see(pixels), texts)).var(0) + ROUND).sqrt()

    @torch.no_grad()
    def set_units(self, raw: Float[Tensor, "members images"]) -> None:
        """Take the units from the members' log-odds of the images of the fit."""
        spread = raw.std(1).clamp(min=torch.finfo(raw.dtype).eps)
        self.units.copy_(torch.stack([raw.mean(1), spread], 1))
        mean = ((raw - raw.mean(1, keepdim=True)) / spread[:, None]).mean(0)
        self.whole.copy_(torch.stack([mean.mean(), mean.std().clamp(min=torch.finfo(raw.dtype).eps)]))
        self.odds.copy_(self.whole[1] * spread.mean())
