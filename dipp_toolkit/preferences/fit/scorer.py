"""Fitted networks as one score: the mean of their log-odds, and how far they disagree."""

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
    r"""$r = \frac1K \sum_k (r_k - m_k)$: the members' log-odds, each less its mean over the images of the fit.

    The unit is Bradley and Terry's: of two images of one prompt the first is preferred with $\sigma(r_1 - r_2)$. In
    units of the deviation over all images, which is that between prompts, what tells images of one prompt apart would
    be a few hundredths, and how strongly a reward pulls would depend on how much its prompts differ. The mean is
    taken off so that a mix of rewards does not begin with an offset.

    Args:
        networks: the members, whose prompts are read alike.

    Attributes:
        level: $m_k$.
    """

    def __init__(self, networks: Sequence[PreferenceNetwork]):
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.level: Tensor
        self.register_buffer("level", torch.zeros(len(networks)))

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

    def centred(self, raw: Float[Tensor, "members batch"]) -> Float[Tensor, "members batch"]:
        """Each member's log-odds, less its mean over the images of the fit."""
        return raw - self.level[:, None]

    def forward(
        self, pixels: Float[Tensor, "batch 3 size size"], texts: Float[Tensor, "batch embedding"]
    ) -> Float[Tensor, " batch"]:
        """Scores of prepared pixels."""
        return self.centred(self.raw(self.see(pixels), texts)).mean(0)

    def doubt(
        self, pixels: Float[Tensor, "batch 3 size size"], texts: Float[Tensor, "batch embedding"]
    ) -> Float[Tensor, " batch"]:
        """How far two or more members disagree: the deviation of their scores."""
        return (self.centred(self.raw(self.see(pixels), texts)).var(0) + ROUND).sqrt()

    @torch.no_grad()
    def set_level(self, raw: Float[Tensor, "members images"]) -> None:
        """Take the means from the members' log-odds of the images of the fit."""
        self.level.copy_(raw.mean(1))
