r"""How much a generator's images of one prompt differ from each other.

$$\mathrm{diversity} = \frac1P \sum_p \frac{2}{S(S-1)} \sum_{s < s'}
  \sqrt{\mathrm{mean}\,(x_{p,s} - x_{p,s'})^2}$$

over prompts $p$ and pairs of noises, the inner mean over channels and pixels. A generator that ignores its noise has 0.
It is a plain measure in pixels: compare it with the start or with the reference at the same prompts, never across
image sizes or worlds.
"""

from __future__ import annotations

from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import RequestError


def seed_diversity(images: Float[Tensor, "prompts seeds 3 height width"]) -> float:
    """Root mean square difference between two noises' images of one prompt, averaged over pairs and prompts.

    Args:
        images: in [0, 1], `(P, S, 3, H, W)`, S at least 2.

    Raises:
        RequestError: there is one image a prompt, so there is nothing to compare.
    """
    if images.shape[1] < 2:
        raise RequestError("Diversity compares images of one prompt; it needs at least two noises a prompt.")
    pairs = [
        (images[:, a].double() - images[:, b].double()).square().flatten(1).mean(1).sqrt()
        for a, b in combinations(range(images.shape[1]), 2)
    ]
    return torch.stack(pairs).mean().item()
