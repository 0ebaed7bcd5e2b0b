r"""Frechet distances of many sets to one reference set, whose moments and square root are computed once.

With $\bar X$ and $\bar Y$ the centred features of the two sets, over the roots of their counts less one, $\Sigma =
\bar X^T \bar X$, and the last term of the distance, $\mathrm{tr}\,(\Sigma_r^{1/2} \Sigma \Sigma_r^{1/2})^{1/2}$, is the
nuclear norm of $\bar X \bar Y^T$, or of $\bar X \Sigma_r^{1/2}$: roots of the eigenvalues of a matrix as small as the
least of both counts and the dimensions. It equals `dipp_toolkit.evaluation.frechet.frechet_distance`, and is what a
bootstrap of some hundred draws can afford.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import RequestError


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
        if features.ndim == 2 and features.shape[1] != len(self.mean):
            raise RequestError(f"The reference has {len(self.mean)} features an image; got {features.shape[1]}.")
        mean, centred = _centred(features)
        turned = centred @ self.factor
        gram = turned @ turned.T if len(turned) < turned.shape[1] else turned.T @ turned
        cross = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt().sum()
        distance = (mean - self.mean).square().sum() + self.trace + centred.square().sum() - 2 * cross
        return max(distance.item(), 0.0)


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
