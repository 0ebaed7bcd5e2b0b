r"""Bradley-Terry ratings of what was compared in pairs (Bradley and Terry 1952).

Item $i$ is preferred to item $j$ with probability $\sigma(r_i - r_j)$, $\sigma(t) = 1 / (1 + e^{-t})$. With $w_{ij}$
the times that $i$ was preferred to $j$, a tie being half a time of each, the ratings minimise

$$\sum_{ij} w_{ij} \log(1 + e^{r_j - r_i}) + \alpha \sum_i r_i^2,$$

which is convex, and their mean is 0. The penalty is that of `choix.opt_pairwise`, and a Gaussian prior of variance
$1 / 2\alpha$. Without it the ratings are finite exactly where every item can be reached from every other one by steps
from a winner to a loser (Ford 1957): nobody won everything, and the comparisons do not fall into parts.

Votes on images of one prompt go together, so that the prompt is the unit here as in `intervals`. With $g_p$ the
gradient of the log-likelihood of prompt $p$ among $P$, its $P$th of the penalty with it, and $H$ the Hessian of the sum
above, the values $r + P H^{-1} g_p$ have the mean $r$, and an interval of a rating is `mean_interval` of them: the
infinitesimal jackknife over prompts (Jaeckel 1972). `ratio_interval` does the same for a ratio. A bootstrap over
prompts would have infinite ratings in it, and is too narrow for few prompts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from ..errors import RequestError
from .intervals import Interval, mean_interval

ELO = 400 / math.log(10)
"""Elo points of a rating of 1: odds of 10 to 1 are 400 points."""
ALPHA = 0.05
"""A penalty that keeps ratings finite and moves them little: a prior of standard deviation 3.2, 549 Elo points."""
_GRADIENT = 1e-9
"""Largest gradient at the end, as a share of the comparisons."""


@dataclass(frozen=True)
class PairVotes:
    """Outcomes of comparisons, as numbers.

    Attributes:
        names: of the items.
        first: index of the first item of each comparison.
        second: index of the second.
        outcomes: 1 where the first was preferred, 0 where the second was, and one half of a tie.
        prompts: index of the prompt of each, from 0.
    """

    names: Sequence[str]
    first: Int[Tensor, " votes"]
    second: Int[Tensor, " votes"]
    outcomes: Float[Tensor, " votes"]
    prompts: Int[Tensor, " votes"]

    def wins(self) -> Float64[Tensor, "items items"]:
        """How often the item of a row was preferred to that of a column, ties half."""
        counts = torch.zeros(len(self.names), len(self.names), dtype=torch.float64)
        outcomes = self.outcomes.double()
        counts.index_put_((self.first, self.second), outcomes, accumulate=True)
        return counts.index_put_((self.second, self.first), 1 - outcomes, accumulate=True)


@dataclass(frozen=True)
class Ratings:
    """Bradley-Terry ratings with what their intervals are made of.

    Attributes:
        names: of the items.
        values: the ratings, natural log-odds, of mean 0.
        linearised: a row for each prompt, whose mean is `values`.
    """

    names: Sequence[str]
    values: Float64[Tensor, " items"]
    linearised: Float64[Tensor, "prompts items"]

    def interval(self, item: int, level: float = 0.95) -> Interval:
        """Of an item's rating over prompts, in Elo points; a point where there is one prompt."""
        return mean_interval(ELO * self.linearised[:, item], level)

    def difference(self, item: int, other: int, level: float = 0.95) -> Interval:
        """Of one rating less another, in Elo points: what the two share cancels."""
        return mean_interval(ELO * (self.linearised[:, item] - self.linearised[:, other]), level)

    def ranks(self, level: float = 0.95) -> list[int]:
        """1 plus the number of items that are measurably better, by Bonferroni's correction over all pairs."""
        count = len(self.names)
        each = 1 - (1 - level) / max(1, count * (count - 1) // 2)
        return [
            1 + sum(self.difference(other, item, each).low > 0 for other in range(count) if other != item)
            for item in range(count)
        ]


def bradley_terry(wins: Float[Tensor, "items items"], alpha: float = 0.0) -> Float64[Tensor, " items"]:
    """The ratings of mean 0 that make the comparisons most probable; see the module for the formula.

    Args:
        wins: how often the item of a row was preferred to that of a column, 0 or more; a tie is half of each.
        alpha: the penalty, 0 or more; 0 is maximum likelihood.

    Raises:
        RequestError: there is no penalty and a rating is infinite; `apart` says why.
        ValueError: the numbers of wins are no such matrix, or the penalty is negative.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    counts = np.asarray(wins.detach().cpu().double())
    if counts.shape[0] != counts.shape[1] or not np.isfinite(counts).all() or (counts < 0).any():
        raise ValueError("Wins are a square matrix of finite numbers that are not negative.")
    if not 0 <= alpha < math.inf:
        raise ValueError(f"The penalty of ratings is 0 or more; got {alpha}.")
    items = len(counts)
    if alpha == 0 and (reason := apart(wins, [f"item {item}" for item in range(items)])):
        raise RequestError(f"The ratings are infinite without a penalty. {reason}")
    met = counts + counts.T
    # Nothing but the penalty says where the mean is, and its minimum has it at 0.
    shift = np.full((items, items), 1 / items)

    def value(ratings: np.ndarray) -> tuple[float, np.ndarray]:
        gaps = ratings[:, None] - ratings[None, :]
        loss = (counts * np.logaddexp(0, -gaps)).sum() + alpha * (ratings**2).sum() + ratings @ shift @ ratings / 2
        slope = (met * expit(gaps) - counts).sum(1) + 2 * alpha * ratings + shift @ ratings
        return loss, slope

    def curvature(ratings: np.ndarray) -> np.ndarray:
        return _hessian(met, ratings, alpha) + shift

    found = minimize(
        value,
        np.zeros(items),
        method="trust-exact",
        jac=True,
        hess=curvature,
        options={"gtol": _GRADIENT * max(1.0, counts.sum()), "maxiter": 1000},
    )
    return torch.from_numpy(found.x - found.x.mean())


def _hessian(met: np.ndarray, ratings: np.ndarray, alpha: float) -> np.ndarray:
    from scipy.special import expit

    gaps = ratings[:, None] - ratings[None, :]
    weights = met * expit(gaps) * expit(-gaps)
    return np.diag(weights.sum(1)) - weights + 2 * alpha * np.eye(len(ratings))


def apart(wins: Float[Tensor, "items items"], names: Sequence[str]) -> str:
    """Why ratings without a penalty are infinite, as a sentence; empty where they are finite.

    Args:
        wins: as `bradley_terry` takes them.
        names: of the items.
    """
    from scipy.sparse.csgraph import connected_components

    beats = np.asarray(wins.detach().cpu().double()) > 0
    parts, part = connected_components(beats, directed=True, connection="weak")
    if parts > 1:
        groups = [[name for name, own in zip(names, part, strict=True) if own == number] for number in range(parts)]
        listed = "; ".join(_listed(group) for group in groups[:4]) + ("; and others" if parts > 4 else "")
        return f"No comparison links these to each other, so that nothing says how far apart they are: {listed}."
    circles, circle = connected_components(beats, directed=True, connection="strong")
    if circles < 2:
        return ""
    for number in range(circles):
        inside = circle == number
        if not beats[~inside][:, inside].any():
            group = [name for name, own in zip(names, inside, strict=True) if own]
            others = "the others" if len(group) < len(names) - 1 else "the other one"
            return (
                f"{_listed(group)} {'was' if len(group) == 1 else 'were'} preferred in every comparison with {others}, "
                "which says who is better and not by how much."
            )
    raise AssertionError("one of several strong components has no edge into it")


def _listed(names: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def rate(votes: PairVotes, alpha: float = ALPHA) -> Ratings:
    """Ratings with their intervals over prompts.

    Args:
        votes: at least one.
        alpha: the penalty, above 0 where `apart` has something to say.

    Raises:
        RequestError: there is no vote, or as in `bradley_terry`.
    """
    if not len(votes.first):
        raise RequestError("There is no vote to rate by.")
    wins = votes.wins()
    values = bradley_terry(wins, alpha)
    ratings = values.numpy()
    items, prompts = len(ratings), int(votes.prompts.max()) + 1
    surprise = votes.outcomes.double() - torch.sigmoid(values[votes.first] - values[votes.second])
    slopes = torch.zeros(prompts, items, dtype=torch.float64)
    slopes.index_put_((votes.prompts, votes.first), surprise, accumulate=True)
    slopes.index_put_((votes.prompts, votes.second), -surprise, accumulate=True)
    slopes -= 2 * alpha * values / prompts
    # The ratings' mean does not move, so that the inverse is that of the differences.
    inverse = np.linalg.pinv(_hessian((wins + wins.T).numpy(), ratings, alpha) + np.full((items, items), 1 / items))
    moved = prompts * slopes @ torch.from_numpy(inverse)
    return Ratings(votes.names, values, values + moved - moved.mean(1, keepdim=True))
