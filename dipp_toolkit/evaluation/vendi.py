r"""The Vendi score (Friedman and Dieng 2022, arXiv 2210.02410): how many different images a set holds, in effect.

With $K_{st} = \cos(x_s, x_t)$ and $\lambda$ the eigenvalues of $K / S$, which add up to 1,

$$\mathrm{VS} = \exp\Big(-\sum_s \lambda_s \log \lambda_s\Big).$$

It is 1 where all S images are alike and S where all are orthogonal. It needs no other images to compare with.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import RequestError


def vendi_scores(features: Float[Tensor, "prompts seeds dimensions"]) -> Float[Tensor, " prompts"]:
    """Vendi score of each prompt's images, cosine kernel, float64, in [1, S].

    A row of zeros has no direction; such rows count as alike, and as orthogonal to every other.

    Args:
        features: `(P, S, D)`, S at least 2.

    Raises:
        RequestError: there is one image a prompt, so there is nothing to compare.
    """
    if features.shape[1] < 2:
        raise RequestError("The Vendi score compares images of one prompt; it needs at least two noises a prompt.")
    features = features.detach().cpu().double()
    norms = features.norm(dim=2, keepdim=True)
    zero = (norms == 0).double()
    unit = torch.cat([features / norms.where(norms > 0, torch.ones_like(norms)), zero], dim=2)
    values = torch.linalg.eigvalsh(unit @ unit.mT / features.shape[1]).clamp(min=0)
    return torch.special.entr(values).sum(1).exp()
