r"""Maximum mean discrepancy under a Gaussian kernel (Gretton et al. 2012, JMLR 13, eq. 5):

$$\mathrm{MMD}^2 = \overline{k(x, x')} + \overline{k(y, y')} - 2\,\overline{k(x, y)},\qquad
  k(x, y) = e^{-|x - y|^2 / 2\sigma^2},$$

means over all pairs, an image with itself included: the biased estimate, of the least variance, which is never
negative. Over unit CLIP embeddings with $\sigma = 10$ and times 1000 it is the CMMD of Jayasumana et al. 2024 (arXiv
2401.09603). Unlike a Frechet distance it assumes no Gaussian, and a few thousand images are enough.

A bootstrap draws image $i$ of $n$ some $w_i$ times, $\sum_i w_i = n$. The drawn set's means over pairs are
$w^T K w / n^2$ and $w^T k / n$, with $K$ the kernels of the images with themselves and $k_i$ the mean kernel of image
$i$ with $y$. So kernels are taken once for all draws; an image drawn twice has kernel 1 with its copy, $K_{ii}$, as it
has with itself.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import RequestError

CMMD_SIGMA = 10.0
CMMD_SCALE = 1000.0
KERNELS_AT_ONCE = 16_000_000
"""Pairs of a block: what bounds the memory. The mean does not depend on it but for rounding."""


def kernel_mean(
    x: Float[Tensor, "images_x dimensions"], y: Float[Tensor, "images_y dimensions"], sigma: float = CMMD_SIGMA
) -> float:
    """Mean of the Gaussian kernel over all pairs, in float64, in blocks that keep memory small."""
    x, y = x.detach().cpu().double(), y.detach().cpu().double()
    return sum(kernels.sum().item() for _, kernels in _kernel_rows(x, y, sigma)) / (len(x) * len(y))


def gaussian_mmd(
    x: Float[Tensor, "images_x dimensions"],
    y: Float[Tensor, "images_y dimensions"],
    sigma: float = CMMD_SIGMA,
    y_mean: float | None = None,
) -> float:
    """Squared maximum mean discrepancy of two feature sets, biased, in [0, 2].

    Args:
        x: features of one set, `(N, D)`.
        y: features of the other, `(M, D)`.
        sigma: the kernel's width.
        y_mean: `kernel_mean(y, y, sigma)` where it is known already.

    Raises:
        RequestError: a set is empty, of another width, or holds a value that is not finite; or sigma is not above 0.
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or not len(x) or not len(y):
        raise RequestError(
            f"Features have shape (images, dimensions), the same dimensions in both sets; got {tuple(x.shape)} and "
            f"{tuple(y.shape)}."
        )
    if not torch.isfinite(x).all() or not torch.isfinite(y).all():
        raise RequestError("The discrepancy needs finite features; at least one is NaN or infinite.")
    if not sigma > 0:
        raise RequestError(f"The kernel's width sigma is {sigma}; expected a number above 0.")
    of_y = kernel_mean(y, y, sigma) if y_mean is None else y_mean
    return max(kernel_mean(x, x, sigma) + of_y - 2 * kernel_mean(x, y, sigma), 0.0)


def resampled_mmd(
    x: Float[Tensor, "images_x dimensions"],
    y: Float[Tensor, "images_y dimensions"],
    counts: Float[Tensor, "resamples images_x"],
    sigma: float = CMMD_SIGMA,
    y_mean: float | None = None,
) -> Float[Tensor, " resamples"]:
    """`gaussian_mmd` of `x` drawn again and again, with every kernel taken once.

    Args:
        x: features of one set, `(N, D)`.
        y: features of the other, `(M, D)`.
        counts: how often each draw has each row of `x`; a draw has N in all.
        sigma: the kernel's width.
        y_mean: `kernel_mean(y, y, sigma)` where it is known already.

    Returns:
        One number a draw, float64.
    """
    x, y = x.detach().cpu().double(), y.detach().cpu().double()
    weights = counts.double().T
    within = torch.zeros(weights.shape[1], dtype=torch.float64)
    for start, kernels in _kernel_rows(x, x, sigma, upper=True):
        stop = start + len(kernels)
        # What is left of the block below the diagonal stands above it in another one, so those count twice.
        drawn = kernels[:, : stop - start] @ weights[start:stop]
        if stop < len(x):
            drawn.addmm_(kernels[:, stop - start :], weights[stop:], alpha=2)
        within += (weights[start:stop] * drawn).sum(0)
    between = torch.cat([kernels.mean(1) for _, kernels in _kernel_rows(x, y, sigma)])
    of_y = kernel_mean(y, y, sigma) if y_mean is None else y_mean
    return (within / len(x) ** 2 + of_y - 2 * between @ weights / len(x)).clamp(min=0)


def _kernel_rows(x: Tensor, y: Tensor, sigma: float, upper: bool = False) -> Iterator[tuple[int, Tensor]]:
    """Kernels of some rows of x with all of y, and the first row's number; with `upper`, of x with itself, only with
    those rows of y that do not come before."""
    gamma = 1 / (2 * sigma**2)
    x_norms, y_norms = x.square().sum(1), y.square().sum(1)
    size = max(1, KERNELS_AT_ONCE // len(y))
    for start in range(0, len(x), size):
        rows, columns = slice(start, start + size), slice(start if upper else 0, None)
        squared = torch.addmm(x_norms[rows, None], x[rows], y[columns].T, alpha=-2).add_(y_norms[columns])
        yield start, squared.clamp_(min=0).mul_(-gamma).exp_()
