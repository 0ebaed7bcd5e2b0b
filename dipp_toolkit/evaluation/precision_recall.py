r"""Fidelity and variety by nearest neighbours.

Around every real image lies a ball that reaches to its k-th nearest real neighbour; the balls together are the real
manifold. With $B(x)$ the ball around $x$, N real images $x_i$ and M made ones $y_j$:

- precision: share of made images in at least one real ball; recall: share of real images in at least one made ball
  (Kynkäänniemi et al. 2019, arXiv 1904.06991);
- density $\frac{1}{kM} \sum_j \sum_i [y_j \in B(x_i)]$, how many real balls hold a made image, over k;
  coverage: share of real balls that hold a made image (Naeem et al. 2020, arXiv 2002.09797), both robust to outliers.

Balls are open, and the k-th neighbour does not count the image itself. In a set that is drawn with replacement an image
that is there twice has its copy as a neighbour, at distance 0, which draws recall and coverage a little low.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import RequestError

DISTANCES_AT_ONCE = 16_000_000
"""Pairs of a block: what bounds the memory."""
_NEAREST = 8
"""Neighbours that are looked at before all are, times k: drawn images are 0.63 of a set, so k of them are among 2 k."""


def neighbour_radii(features: Float[Tensor, "images dimensions"], k: int) -> Float[Tensor, " images"]:
    """Distance of each image to its k-th nearest other image, float64.

    Raises:
        RequestError: there are not more than k images, or k is below 1.
    """
    if k < 1:
        raise RequestError(f"The number of neighbours is {k}; expected a number from 1.")
    if len(features) <= k:
        raise RequestError(f"{k} neighbours need at least {k + 1} images; there are {len(features)}.")
    features = features.detach().cpu().double()
    radii = []
    for start in range(0, len(features), _rows(len(features))):
        part = features[start : start + _rows(len(features))]
        distances = _distances(part, features)
        own = torch.arange(len(part))
        distances[own, start + own] = 0.0
        radii.append(distances.kthvalue(k + 1, dim=1).values)
    return torch.cat(radii)


@dataclass(frozen=True)
class Neighbourhood:
    """What neighbours say of a made set.

    Attributes:
        precise: of each made image, 1 where it lies on the real manifold, else 0, `(M,)`.
        dense: of each made image, the real balls that hold it, over k, `(M,)`.
        recall: share of real images on the made manifold.
        coverage: share of real balls that hold a made image.
    """

    precise: Float[Tensor, " made"]
    dense: Float[Tensor, " made"]
    recall: float
    coverage: float


def neighbourhood(
    real: Float[Tensor, "images dimensions"],
    made: Float[Tensor, "made dimensions"],
    k: int = 5,
    real_radii: Float[Tensor, " images"] | None = None,
) -> Neighbourhood:
    """Compare a made set of features with a real one.

    Args:
        real: `(N, D)`, N above k.
        made: `(M, D)`, M above k.
        k: neighbours.
        real_radii: `neighbour_radii(real, k)` where they are known already.

    Raises:
        RequestError: a set holds too few images, the widths differ, or k is below 1.
    """
    if real.ndim != 2 or made.ndim != 2 or real.shape[1] != made.shape[1]:
        raise RequestError(
            "Nearest neighbours need features of shape (images, dimensions), the same dimensions in both "
            f"sets; got {tuple(real.shape)} and {tuple(made.shape)}."
        )
    real, made = real.detach().cpu().double(), made.detach().cpu().double()
    radii = neighbour_radii(real, k) if real_radii is None else real_radii
    made_radii = neighbour_radii(made, k)
    inside, recalled, covered = torch.zeros(len(made), dtype=torch.float64), 0, 0
    for start in range(0, len(real), _rows(len(made))):
        rows = slice(start, start + _rows(len(made)))
        distances = _distances(real[rows], made)
        inside += (distances < radii[rows, None]).sum(0)
        recalled += int((distances < made_radii).any(1).sum())
        covered += int((distances.amin(1) < radii[rows]).sum())
    return Neighbourhood((inside > 0).double(), inside / k, recalled / len(real), covered / len(real))


def resampled_neighbourhood(
    real: Float[Tensor, "images dimensions"],
    made: Float[Tensor, "made dimensions"],
    counts: Float[Tensor, "resamples made"],
    k: int = 5,
    real_radii: Float[Tensor, " images"] | None = None,
) -> tuple[Float[Tensor, " resamples"], Float[Tensor, " resamples"]]:
    """Recall and coverage of the made set drawn again and again, with every distance taken once.

    Args:
        real: `(N, D)`.
        made: `(M, D)`.
        counts: how often each draw has each made image; a draw has M in all, M above k.
        k: neighbours.
        real_radii: `neighbour_radii(real, k)` where they are known already.

    Returns:
        Recall and coverage, one of each a draw, float64.

    Raises:
        RequestError: as in `neighbour_radii`.
    """
    real, made = real.detach().cpu().double(), made.detach().cpu().double()
    radii = neighbour_radii(real, k) if real_radii is None else real_radii
    weights = counts.float()
    drawn = weights > 0
    made_radii = _resampled_radii(made, weights, k)
    largest = made_radii.amax(0)
    recalled, covered = torch.zeros(len(weights)), torch.zeros(len(weights))
    for start in range(0, len(real), _rows(len(made))):
        rows = slice(start, start + _rows(len(made)))
        distances = _distances(real[rows], made)
        covered += ((distances < radii[rows, None]).float() @ weights.T > 0).sum(0)
        # Beyond an image's largest ball of all draws nothing is recalled, which leaves few pairs.
        real_index, made_index = (distances < largest).nonzero(as_tuple=True)
        near = distances[real_index, made_index]
        for number in range(len(weights)):
            inside = drawn[number, made_index] & (near < made_radii[number, made_index])
            recalled[number] += len(real_index[inside].unique_consecutive())
    return recalled.double() / len(real), covered.double() / len(real)


def _resampled_radii(made: Tensor, weights: Tensor, k: int) -> Float[Tensor, "resamples made"]:
    """`neighbour_radii` of each draw; what it says of images that a draw does not have, means nothing."""
    if len(made) <= k:
        raise RequestError(f"{k} neighbours need at least {k + 1} images; there are {len(made)}.")
    most = min(_NEAREST * k + 1, len(made))
    radii = torch.empty(len(weights), len(made), dtype=torch.float64)
    for start in range(0, len(made), _rows(len(made))):
        part = made[start : start + _rows(len(made))]
        distances = _distances(part, made)
        own = torch.arange(len(part))
        distances[own, start + own] = -1.0  # an image is the first of its own neighbours, before what is equal to it
        nearest, order = distances.topk(most, largest=False)
        nearest[:, 0] = 0.0
        for number, weight in enumerate(weights):
            reached = weight[order].cumsum(1) > k  # the image itself is one of those counted
            place = reached.int().argmax(1)
            radius = nearest.gather(1, place[:, None]).squeeze(1)
            for row in (~reached[:, -1] & (weight[start : start + len(part)] > 0)).nonzero().flatten().tolist():
                everything, everywhere = distances[row].clamp(min=0).sort()
                radius[row] = everything[int((weight[everywhere].cumsum(0) > k).int().argmax())]
            radii[number, start : start + len(part)] = radius
    return radii


def _rows(columns: int) -> int:
    return max(1, DISTANCES_AT_ONCE // columns)


def _distances(x: Tensor, y: Tensor) -> Tensor:
    squared = x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T
    return squared.clamp(min=0).sqrt()
