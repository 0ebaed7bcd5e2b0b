r"""Frechet distance between two sets of features, under a Gaussian fit (Dowson and Landau 1982; Heusel et al. 2017):

$$d^2 = |\mu_1 - \mu_2|^2
  + \mathrm{tr}\big(\Sigma_1 + \Sigma_2 - 2 (\Sigma_1^{1/2} \Sigma_2 \Sigma_1^{1/2})^{1/2}\big).$$

The symmetric form needs two eigendecompositions of symmetric matrices and no square root of a general one, so it stays
real and accurate where covariances are singular, which they are with fewer features than dimensions.

The estimate is biased upwards for finite sets. `frechet_floor` says by how much: it is what a perfect generator scores.

Distances to one reference set share its mean and square root. With $\bar X$ and $\bar Y$ the centred features of two
sets, over the roots of their counts less one, $\Sigma = \bar X^T \bar X$, and the last term is the nuclear norm of
$\bar X \bar Y^T$, or of $\bar X \Sigma_r^{1/2}$: roots of the eigenvalues of a matrix as small as the least of both
counts and the dimensions.

How far the distance varies with the n drawn images needs no draws. With $t_i = \Sigma_r^{1/2} (x_i - \mu)$ and $M$
their covariance, the last term is $-2\,\mathrm{tr}\,M^{1/2}$, whose derivative is $-\mathrm{tr}\,(M^{-1/2}\,dM)$; so
the distance moves with the weight of image i by $I_i / n$, where up to a constant that makes $\sum_i I_i = 0$

$$I_i = 2 (\mu - \mu_r)^T (x_i - \mu) + \tfrac{n}{n - 1} \big(|x_i - \mu|^2 - t_i^T M^{-1/2} t_i\big),$$

and $\sqrt{\sum_i I_i^2} / n$ is its standard error: the infinitesimal jackknife (Jaeckel 1972; Efron and Tibshirani
1993, chapter 21), with $M^{-1/2}$ on the range of $M$. A bootstrap needs 200 eigendecompositions for what takes one
here, and its draws, which have fewer different images than the set, spread wider than sets do where images are not many
more than dimensions (`benchmarks/coverage/set_numbers.py`).

Two sets of images of the same prompts have their influences side by side, so the ratio of their distances to one
reference set moves with prompt i by $(I_i / d^2 - I'_i / d'^2) / n$ of itself: what makes a prompt hard for both
cancels, as in a paired difference.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import RequestError
from .intervals import Interval, student_quantile

_RANGE = 1e-12
"""Smallest eigenvalue of a covariance, as a share of its largest, that is not rounding."""


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
    mean_a, covariance_a, mean_b, covariance_b = (
        moment.double() for moment in (mean_a, covariance_a, mean_b, covariance_b)
    )
    values, vectors = torch.linalg.eigh(covariance_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ covariance_b @ root).clamp(min=0).sqrt().sum()
    distance = (mean_a - mean_b).square().sum() + covariance_a.trace() + covariance_b.trace() - 2 * cross
    return max(distance.item(), 0.0)


class ReferenceFrechet:
    """The reference set of a Frechet distance.

    Args:
        features: of the reference images, `(M, D)`, M at least 2.

    Raises:
        RequestError: there are fewer than two rows, or a value is not finite.
    """

    def __init__(self, features: Float[Tensor, "images dimensions"]):
        self.mean, centred = _centred(features)
        self.trace = centred.square().sum()
        if len(centred) < len(self.mean):
            self.factor = centred.T
        else:
            values, vectors = torch.linalg.eigh(centred.T @ centred)
            self.factor = vectors * values.clamp(min=0).sqrt() @ vectors.T

    def distance(self, features: Float[Tensor, "images dimensions"]) -> float:
        """Squared Frechet distance of a set to the reference, in float64.

        Raises:
            RequestError: there are fewer than two rows, they have another width, or a value is not finite.
        """
        mean, centred = self._centred_alike(features)
        turned = centred @ self.factor
        gram = turned @ turned.T if len(turned) < turned.shape[1] else turned.T @ turned
        cross = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt().sum()
        distance = (mean - self.mean).square().sum() + self.trace + centred.square().sum() - 2 * cross
        return max(distance.item(), 0.0)

    def standard_error(self, features: Float[Tensor, "prompts seeds dimensions"]) -> float:
        """How far the distance varies with the prompts that are drawn: the standard error of the module's formula.

        Args:
            features: `(P, S, D)`; the S images of a prompt are drawn together, so a prompt has the sum of their
                influences.

        Raises:
            RequestError: as in `distance`.
        """
        return self._influences(features).norm().item()

    def ratio(
        self,
        features: Float[Tensor, "prompts seeds dimensions"],
        to: Float[Tensor, "other_prompts other_seeds dimensions"],
        level: float = 0.95,
    ) -> Interval:
        r"""The distance of one set over that of another of the same prompts, with its interval over prompts.

        With the standard error $e$ of the module's last formula and Student's $t$ the ends are $r \exp(\mp t e)$, on
        the scale on which a ratio and its inverse are treated alike.

        Args:
            features: `(P, S, D)`, P at least 2.
            to: of the images that it is compared with, row by row of the same prompts.
            level: coverage, in (0, 1).

        Raises:
            RequestError: as in `distance`; or the prompts are not as many, or a distance is 0.
        """
        if len(features) != len(to) or len(features) < 2:
            raise RequestError(
                "A ratio of Frechet distances compares images of the same prompts, at least two; got "
                f"{len(features)} prompts and {len(to)}."
            )
        distances = [self.distance(rows.flatten(0, 1)) for rows in (features, to)]
        if not all(distances):
            raise RequestError("A ratio of Frechet distances needs both above 0; one of the sets is the reference set.")
        shares = self._influences(features) / distances[0] - self._influences(to) / distances[1]
        ratio, reach = distances[0] / distances[1], student_quantile(level, len(features)) * shares.norm().item()
        return Interval(ratio, ratio * math.exp(-reach), ratio * math.exp(reach))

    def _influences(self, features: Float[Tensor, "prompts seeds dimensions"]) -> Float[Tensor, " prompts"]:
        """What the distance moves by with each prompt: the sums of its images' influences, over their number."""
        prompts, seeds = features.shape[:2]
        mean, centred = self._centred_alike(features.flatten(0, 1))
        turned = centred @ self.factor
        # t_i' M^(-1/2) t_i, by the eigenvectors of whichever product is the smaller.
        if len(turned) < turned.shape[1]:
            values, vectors = torch.linalg.eigh(turned @ turned.T)
            leverage = vectors.square() @ values.clamp(min=0).sqrt()
        else:
            values, vectors = torch.linalg.eigh(turned.T @ turned)
            in_range = values > values.max() * _RANGE
            leverage = (turned @ vectors[:, in_range]).square() @ values[in_range].rsqrt()
        count = len(centred)
        influence = 2 * (count - 1) ** 0.5 / count * centred @ (mean - self.mean)
        influence += centred.square().sum(1) - leverage
        by_prompt = influence.reshape(prompts, seeds).sum(1)
        return by_prompt - by_prompt.mean()

    def _centred_alike(self, features: Tensor) -> tuple[Tensor, Tensor]:
        if features.ndim == 2 and features.shape[1] != len(self.mean):
            raise RequestError(f"The reference has {len(self.mean)} features an image; got {features.shape[1]}.")
        return _centred(features)


def frechet_distance(a: Float[Tensor, "images_a dimensions"], b: Float[Tensor, "images_b dimensions"]) -> float:
    """Squared Frechet distance between the Gaussian fits of two feature sets, in float64.

    Args:
        a: features of one set, `(N, D)`, N at least 2.
        b: features of the other, `(M, D)`.

    Raises:
        ValueError: a set is too small or of another shape, or holds a value that is not finite.
    """
    try:
        return ReferenceFrechet(torch.as_tensor(b)).distance(torch.as_tensor(a))
    except RequestError as error:
        raise ValueError(str(error)) from error


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


def _centred(features: Tensor) -> tuple[Tensor, Tensor]:
    """The mean, and the centred rows over the root of N - 1: their product with themselves is the covariance."""
    features = features.detach().cpu().double()
    if features.ndim != 2 or len(features) < 2:
        raise RequestError(
            f"Features have shape (images, dimensions), with at least two images; got {tuple(features.shape)}."
        )
    if not torch.isfinite(features).all():
        raise RequestError("The Frechet distance needs finite features; at least one is NaN or infinite.")
    mean = features.mean(0)
    return mean, (features - mean) / (len(features) - 1) ** 0.5
