"""Spearman's rank correlation of two lists of numbers."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def rank_correlation(a: Float[Tensor, " count"], b: Float[Tensor, " count"]) -> float:
    """Spearman's rho, ties at their mean rank, in [-1, 1]; 0 where one side is constant."""
    from scipy.stats import rankdata

    ranks = torch.from_numpy(rankdata(torch.stack([a, b]).double().cpu().numpy(), axis=1))
    centred = ranks - ranks.mean(1, keepdim=True)
    lengths = centred.norm(dim=1).prod().item()
    return (centred[0] @ centred[1]).item() / lengths if lengths > 0 else 0.0
