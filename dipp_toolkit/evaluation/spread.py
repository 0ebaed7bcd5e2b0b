r"""How far a prompt's images lie from each other, prompt by prompt.

$$d_p = \frac{2}{S(S-1)} \sum_{s < s'} \sqrt{\mathrm{mean}\,(x_{p,s} - x_{p,s'})^2}$$

the inner mean over the features. With all pixels as features, its mean over prompts is
`dipp_toolkit.evaluation.diversity.seed_diversity`.
"""

from __future__ import annotations

from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import RequestError


def pairwise_spread(features: Float[Tensor, "prompts seeds dimensions"]) -> Float[Tensor, " prompts"]:
    """Root mean square difference of two images of a prompt, averaged over pairs, float64.

    Raises:
        RequestError: there is one image a prompt, so there is nothing to compare.
    """
    if features.shape[1] < 2:
        raise RequestError("Diversity compares images of one prompt; it needs at least two noises a prompt.")
    features = features.detach().cpu()
    pairs = [
        (features[:, a].double() - features[:, b].double()).square().mean(1).sqrt()
        for a, b in combinations(range(features.shape[1]), 2)
    ]
    return torch.stack(pairs).mean(0)
