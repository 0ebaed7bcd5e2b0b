"""How well a reward's preferences agree with a judge's: over prompts, and over pairs of generators.

Neither looks at images: both take scores of the same prompts, averaged over noises. A reward that ranks prompts as the
judge does may still prefer the other of two generators, so the two questions are asked apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import RequestError
from ..utils.rank_correlation import rank_correlation
from .intervals import Interval, share_interval


@dataclass(frozen=True)
class RankAgreement:
    """Rank correlations over prompts, each in [-1, 1], with bootstrap intervals over prompts.

    Attributes:
        spearman: Spearman's rho, the correlation of the ranks.
        kendall: Kendall's tau-b, pairs ordered alike less pairs ordered otherwise, ties accounted for.
        prompts: how many.
    """

    spearman: Interval
    kendall: Interval
    prompts: int


@dataclass(frozen=True)
class PairAgreement:
    """On how many prompts reward and judge prefer the same of two generators.

    Attributes:
        share: of the decided prompts, with Wilson's interval.
        decided: prompts on which both prefer one.
        ties: prompts on which one of them, or both, prefer neither; they are left out.
    """

    share: Interval
    decided: int
    ties: int


def rank_agreement(
    reward: Float[Tensor, " prompts"],
    judge: Float[Tensor, " prompts"],
    seed: int = 0,
    level: float = 0.95,
    resamples: int = 1000,
) -> RankAgreement:
    """Spearman's and Kendall's rank correlation of two scores of the same prompts.

    The intervals are percentiles over prompts drawn with replacement; draws in which one score is constant have no
    correlation and are drawn in vain.

    Args:
        reward: one score a prompt.
        judge: the judge's, of the same prompts.
        seed: of the bootstrap.
        level: of the intervals.
        resamples: draws.

    Raises:
        RequestError: the shapes differ, there are fewer than three prompts, a score is not finite, or one of the two
            is the same for all prompts.
    """
    from scipy.stats import kendalltau

    first, second = _checked(reward, judge)
    if len(first) < 3:
        raise RequestError(f"A rank correlation needs at least three prompts; got {len(first)}.")
    for name, scores in (("reward", first), ("judge", second)):
        if np.ptp(scores) == 0:
            raise RequestError(f"The {name} scores every prompt the same, so it has no ranking to compare.")
    rows = np.random.default_rng(seed).integers(len(first), size=(resamples, len(first)))
    drawn_first, drawn_second = first[rows], second[rows]
    varied = (np.ptp(drawn_first, axis=1) > 0) & (np.ptp(drawn_second, axis=1) > 0)
    drawn_first, drawn_second = drawn_first[varied], drawn_second[varied]

    pairs = list(zip(drawn_first, drawn_second, strict=True))
    rhos = np.array([rank_correlation(torch.from_numpy(a), torch.from_numpy(b)) for a, b in pairs])
    taus = np.array([kendalltau(a, b).statistic for a, b in pairs])
    return RankAgreement(
        _interval(rank_correlation(reward, judge), rhos, level),
        _interval(kendalltau(first, second).statistic, taus, level),
        len(first),
    )


def pairwise_agreement(
    reward_a: Float[Tensor, " prompts"],
    reward_b: Float[Tensor, " prompts"],
    judge_a: Float[Tensor, " prompts"],
    judge_b: Float[Tensor, " prompts"],
    level: float = 0.95,
) -> PairAgreement:
    """Share of prompts on which reward and judge prefer the same generator, a or b.

    A half is chance. The interval is Wilson's (1927), which stays inside [0, 1] and has a width at 0 and at 1.

    Raises:
        RequestError: the shapes differ, a score is not finite, or no prompt is decided.
    """
    reward = np.sign(np.subtract(*_checked(reward_a, reward_b)))
    judge = np.sign(np.subtract(*_checked(judge_a, judge_b)))
    if reward.shape != judge.shape:
        raise RequestError(f"The reward scored {len(reward)} prompts and the judge {len(judge)}; expected the same.")
    decided = (reward != 0) & (judge != 0)
    count = int(decided.sum())
    if not count:
        raise RequestError("Reward and judge both prefer one generator on no prompt, so there is nothing to compare.")
    share = share_interval(torch.from_numpy((reward == judge)[decided]).double(), level)
    return PairAgreement(share, count, len(reward) - count)


def _checked(a: Tensor, b: Tensor) -> tuple[np.ndarray, np.ndarray]:
    if a.ndim != 1 or a.shape != b.shape:
        raise RequestError(
            f"Agreement compares one score a prompt with one a prompt; got shapes {tuple(a.shape)} and "
            f"{tuple(b.shape)}. Average over noises first."
        )
    if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
        raise RequestError("Agreement needs finite scores; at least one is NaN or infinite.")
    return a.detach().cpu().double().numpy(), b.detach().cpu().double().numpy()


def _interval(value: float, drawn: np.ndarray, level: float) -> Interval:
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value), float(low), float(high))
