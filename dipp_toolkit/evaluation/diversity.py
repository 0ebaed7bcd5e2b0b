r"""How much a generator's images of one prompt differ from each other.

$$\mathrm{diversity}_p = \frac{2}{S(S-1)} \sum_{s < s'} \sqrt{\mathrm{mean}\,(x_{p,s} - x_{p,s'})^2}$$

over pairs of noises of a prompt $p$, the inner mean over features: all channels and pixels, or those of small images. A
generator that ignores its noise has 0. Over pixels it is a plain measure: compare it with the start or with the
reference at the same prompts, never across image sizes or worlds.

The Vendi score (Friedman and Dieng 2022, arXiv 2210.02410) is the effective number of different images. With $K_{st} =
\cos(x_s, x_t)$ and $\lambda$ the eigenvalues of $K / S$, which add up to 1,

$$\mathrm{VS} = \exp\Big(-\sum_s \lambda_s \log \lambda_s\Big),$$

1 where all S images are alike and S where all are orthogonal.
"""

from __future__ import annotations

from itertools import combinations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..errors import RequestError
from ..utils.images import Images

SIDE = 64
"""Pixels of the longer side above which `pixel_features` averages."""


def seed_diversity(images: Float[Tensor, "prompts seeds 3 height width"]) -> float:
    """Root mean square difference between two noises' images of one prompt, averaged over pairs and prompts.

    Args:
        images: in [0, 1], `(P, S, 3, H, W)`, S at least 2.

    Raises:
        RequestError: there is one image a prompt, so there is nothing to compare.
    """
    return _differences(images.flatten(2)).mean().item()


def pairwise_spread(features: Float[Tensor, "prompts seeds dimensions"]) -> Float[Tensor, " prompts"]:
    """Root mean square difference of two images of a prompt, averaged over pairs, float64.

    Raises:
        RequestError: there is one image a prompt, so there is nothing to compare.
    """
    return _differences(features.detach().cpu()).mean(0)


def _differences(features: Float[Tensor, "prompts seeds dimensions"]) -> Float[Tensor, "pairs prompts"]:
    if features.shape[1] < 2:
        raise RequestError("Diversity compares images of one prompt; it needs at least two noises a prompt.")
    pairs = combinations(range(features.shape[1]), 2)
    return torch.stack([(features[:, a].double() - features[:, b].double()).square().mean(1).sqrt() for a, b in pairs])


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


def pixel_features(images: Images, side: int = SIDE) -> Float[Tensor, "batch pixels"]:
    """All pixels of each image in one row, float32, `(B, 3 * h * w)`.

    An image whose longer side is more than `side` is first averaged over areas until it is `side`, the shorter one in
    proportion: differences in grain then count less than differences in what is shown.

    Raises:
        RequestError: the images are not `(batch, 3, height, width)`, or the side is below 1.
    """
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape[2:]:
        raise RequestError(
            f"Pixels are taken from images of shape (batch, 3, height, width), not {tuple(images.shape)}."
        )
    if side < 1:
        raise RequestError(f"The side of the small images is {side}; expected a number of pixels from 1.")
    images = images.detach().float()
    height, width = images.shape[-2:]
    longer = max(height, width)
    if longer > side:
        size = (max(1, round(height * side / longer)), max(1, round(width * side / longer)))
        images = F.interpolate(images, size=size, mode="area")
    return images.flatten(1)
