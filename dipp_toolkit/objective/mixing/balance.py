r"""Balancing: what becomes of rewards whose gradients disagree. Each sample is balanced by itself.

Every function takes weighted gradients, `(rewards, batch, dims)`, and returns those that are added up, of the same
shape, so that what a reward still contributes can be seen.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ...distributed.shared_draws import shared_by_all

Balance = Literal["sum", "normalised", "pcgrad", "mgda"]
Gradients = Float[Tensor, "rewards batch dims"]

RIDGE = 1e-12
"""Times the trace, added to a Gram matrix, so that parallel gradients have a solution."""


def unchanged(gradients: Gradients, random: torch.Generator) -> Gradients:
    """`sum` and `normalised`: the gradients as they are weighted."""
    return gradients


def pcgrad(gradients: Gradients, random: torch.Generator) -> Gradients:
    r"""Gradient surgery: no reward works against another.

    Where $g_i \cdot g_j < 0$, $g_i$ loses its part along $g_j$: $g_i \leftarrow g_i - \frac{g_i \cdot g_j}{\|g_j\|^2}
    g_j$, for all $j \ne i$ in random order, the $g_j$ being the original ones (Yu et al., "Gradient surgery for
    multi-task learning", 2020, arXiv 2001.06782, algorithm 1).

    Args:
        gradients: weighted.
        random: source of the order.
    """
    lengths = gradients.square().sum(-1).clamp_min(torch.finfo(gradients.dtype).tiny)
    projected, order = gradients.clone(), shared_by_all(random)
    for i in range(len(gradients)):
        for j in torch.randperm(len(gradients), generator=order, device=order.device).tolist():
            if i != j:
                conflict = (projected[i] * gradients[j]).sum(-1).clamp_max(0)
                projected[i] -= (conflict / lengths[j])[:, None] * gradients[j]
    return projected


def mgda(gradients: Gradients, random: torch.Generator) -> Gradients:
    r"""Multiple-gradient descent: the direction along which every reward improves, or 0 where none exists.

    $d = \sum_i \lambda_i g_i$ with $\lambda$ on the simplex and $\|d\|$ least, so that $g_i \cdot d \ge \|d\|^2$ for
    all $i$ (Désidéri, "Multiple-gradient descent algorithm", 2012; Sener and Koltun, 2018, arXiv 1810.04650, algorithm
    2). Returned is $n \lambda_i g_i$ for $n$ rewards: where all count alike, that is the plain sum. The minimum is
    found exactly, among the least-norm combinations of every subset of rewards: runs have few.
    """
    count = len(gradients)
    gram = torch.einsum("ibd,jbd->bij", gradients, gradients).double()
    shares = torch.zeros(gram.shape[:2], dtype=gram.dtype, device=gram.device)
    least = torch.full_like(shares[:, 0], torch.inf)
    for size in range(1, count + 1):
        for chosen in combinations(range(count), size):
            candidate = torch.zeros_like(shares)
            # By slices: a list as an index is copied to the device, and waited for.
            among = torch.stack([torch.stack([gram[:, i, j] for j in chosen], -1) for i in chosen], -2)
            for place, share in zip(chosen, _least_norm_affine(among).unbind(1), strict=True):
                candidate[:, place] = share
            norm = torch.einsum("bi,bij,bj->b", candidate, gram, candidate)
            better = (candidate >= 0).all(1) & (norm < least)
            shares = torch.where(better[:, None], candidate, shares)
            least = torch.where(better, norm, least)
    return gradients * (count * shares.T[..., None]).to(gradients)


def _least_norm_affine(gram: Tensor) -> Tensor:
    """Shares that sum to 1, of either sign, whose combination has the least norm: proportional to the solution of
    `gram @ shares = 1`."""
    count = gram.shape[-1]
    ridge = RIDGE * gram.diagonal(dim1=1, dim2=2).sum(1)[:, None, None] + torch.finfo(gram.dtype).tiny
    ones = torch.ones(len(gram), count, dtype=gram.dtype, device=gram.device)
    solved = torch.linalg.solve(gram + ridge * torch.eye(count, dtype=gram.dtype, device=gram.device), ones)
    return solved / solved.sum(1, keepdim=True)


BALANCES: dict[str, Callable[[Gradients, torch.Generator], Gradients]] = {
    "sum": unchanged,
    "normalised": unchanged,
    "pcgrad": pcgrad,
    "mgda": mgda,
}
"""By the name of the setting `balance`."""
