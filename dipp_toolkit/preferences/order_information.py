r"""How much a vote would say about which of two images is better.

With the posterior $d \sim N(\mu, v)$ of the difference of two ratings, the vote $y$ says about the order $d > 0$

$$I = H(P(y)) - P(d > 0)\, H(P(y \mid d > 0)) - P(d < 0)\, H(P(y \mid d < 0))$$

bits. Houlsby, Huszar, Ghahramani and Lengyel (2011) take $H(E\,p) - E\,H(p)$, what $y$ says about $d$, which also asks
how much better a clear winner is; ratings that only have to order images do without that. What a vote is worth is
$I \min(P(d > 0), P(d < 0))$: what it says of the order, times the chance that the order is wrong as it stands.
`benchmarks/vote_picking/results.md` has the votes that all three need.

The logistic of a voter is replaced by the normal distribution function of the variance $s^2 = 8 / \pi$, which has its
slope at 0. Then $P(y) = \Phi(k)$, $k = \mu / \sqrt{v + s^2}$, and as $d$ and the vote are the signs of two normal
variables, $P(y, d > 0) = \tfrac12 (\Phi(h) + \Phi(k)) - T(k, s / \sqrt v)$ with $h = \mu / \sqrt v$ and Owen's (1956)
function $T$.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

VARIANCE = 8 / math.pi
"""$s^2$ of the formula."""
_LEAST = 1e-12


def order_worth(
    means: Float[np.ndarray, "*pairs"], variances: Float[np.ndarray, "*pairs"]
) -> Float[np.ndarray, "*pairs"]:
    """What a vote says of a pair's order, in bits, times the chance that the order is wrong as it stands.

    Args:
        means: of the difference of the two ratings.
        variances: of the difference, 0 or more.

    Returns:
        From 0 to one half.
    """
    from scipy.special import ndtr

    wrong = ndtr(-np.abs(means) / np.sqrt(np.maximum(variances, _LEAST)))
    return wrong * order_information(means, variances)


def order_information(
    means: Float[np.ndarray, "*pairs"], variances: Float[np.ndarray, "*pairs"]
) -> Float[np.ndarray, "*pairs"]:
    """Bits that a vote on each pair says about its order.

    Args:
        means: of the difference of the two ratings.
        variances: of the difference, 0 or more.

    Returns:
        From 0 to 1.
    """
    from scipy.special import ndtr, owens_t

    deviations = np.sqrt(np.maximum(variances, _LEAST))
    voted = ndtr(means / np.sqrt(variances + VARIANCE))
    better = ndtr(means / deviations)
    both = (better + voted) / 2 - owens_t(means / np.sqrt(variances + VARIANCE), math.sqrt(VARIANCE) / deviations)
    told = better * _entropy(both / np.maximum(better, _LEAST))
    told += (1 - better) * _entropy((voted - both) / np.maximum(1 - better, _LEAST))
    return np.clip(_entropy(voted) - told, 0, 1)


def difference_information(
    means: Float[np.ndarray, "*pairs"], variances: Float[np.ndarray, "*pairs"]
) -> Float[np.ndarray, "*pairs"]:
    """Bits that a vote on each pair says about the difference of its ratings, by Houlsby et al.'s formula for $\\Phi$.

    Args:
        means: of the difference of the two ratings.
        variances: of the difference, 0 or more.
    """
    from scipy.special import ndtr

    means, variances = means / math.sqrt(VARIANCE), variances / VARIANCE
    known = math.pi * math.log(2) / 2
    expected = math.sqrt(known) * np.exp(-(means**2) / (2 * (variances + known))) / np.sqrt(variances + known)
    return np.clip(_entropy(ndtr(means / np.sqrt(variances + 1))) - expected, 0, 1)


def _entropy(chance: np.ndarray) -> np.ndarray:
    from scipy.special import entr

    chance = np.clip(chance, 0, 1)
    return (entr(chance) + entr(1 - chance)) / math.log(2)
