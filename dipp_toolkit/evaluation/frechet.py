r"""Frechet distance between two sets of features, under a Gaussian fit (Dowson and Landau 1982; Heusel et al. 2017):

$$d^2 = |\mu_1 - \mu_2|^2
  + \mathrm{tr}\big(\Sigma_1 + \Sigma_2 - 2 (\Sigma_1^{1/2} \Sigma_2 \Sigma_1^{1/2})^{1/2}\big).$$

The symmetric form needs two eigendecompositions of symmetric matrices and no square root of a general one, so it stays
real and accurate where covariances are singular, which they are with fewer features than dimensions.

The estimate is biased upwards for finite sets. `frechet_floor` says by how much: it is what a perfect generator scores.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    features = torch.as_tensor(features).detach().cpu().double()
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(
            f"Features have shape (images, dimensions), with at least two images; got {tuple(features.shape)}."
        )
    if not torch.isfinite(features).all():
        raise ValueError("The Frechet distance needs finite features; at least one is NaN or infinite.")
    mean = features.mean(0)
    centred = features - mean
    return mean, centred.T @ centred / (len(features) - 1)


def frechet_distance_of_gaussians(
    mean_a: Float[Tensor, " dimensions"],
    covariance_a: Float[Tensor, "dimensions dimensions"],
    mean_b: Float[Tensor, " dimensions"],
    covariance_b: Float[Tensor, "dimensions dimensions"],
) -> float:
    """Squared Frechet (2-Wasserstein) distance between two Gaussians; what the literature reports as FID.

    Args:
        mean_a: mean of the first, `(D,)`.
        covariance_a: its covariance, `(D, D)`, symmetric and positive semi-definite.
        mean_b: mean of the second.
        covariance_b: its covariance.
    """
    mean_a, covariance_a, mean_b, covariance_b = (one.double() for one in (mean_a, covariance_a, mean_b, covariance_b))
    values, vectors = torch.linalg.eigh(covariance_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ covariance_b @ root).clamp(min=0).sqrt().sum()
    distance = (mean_a - mean_b).square().sum() + covariance_a.trace() + covariance_b.trace() - 2 * cross
    return max(distance.item(), 0.0)


def frechet_distance(a: Float[Tensor, "images_a dimensions"], b: Float[Tensor, "images_b dimensions"]) -> float:
    """Squared Frechet distance between the Gaussian fits of two feature sets, in float64.

    Args:
        a: features of one set, `(N, D)`, N at least 2.
        b: features of the other, `(M, D)`.

    Raises:
        ValueError: a set is too small or of another shape, or holds a value that is not finite.
    """
    return frechet_distance_of_gaussians(*_moments(a), *_moments(b))


def frechet_floor(features: Float[Tensor, "images dimensions"], seed: int = 0, splits: int = 4) -> float:
    """The distance of a set to itself: between two random halves, averaged over `splits` splits.

    This is what finite samples alone cost at half the set's size. To read a distance against it, measure that distance
    with sets of the half's size too.

    Args:
        features: features of real images, `(N, D)`, N at least 4.
        seed: of the splits.
        splits: how many splits are averaged.

    Raises:
        ValueError: there are fewer than four features.
    """
    features = torch.as_tensor(features)
    half = len(features) // 2
    if half < 2:
        raise ValueError(f"Splitting in halves needs at least four features; got {len(features)}.")
    random = torch.Generator().manual_seed(seed)
    distances = []
    for _ in range(splits):
        order = torch.randperm(len(features), generator=random)
        distances.append(frechet_distance(features[order[:half]], features[order[half : 2 * half]]))
    return sum(distances) / len(distances)
