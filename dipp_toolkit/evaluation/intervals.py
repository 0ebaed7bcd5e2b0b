"""Bootstrap intervals over prompts.

Scores vary far more from prompt to prompt than from noise to noise, and a claim is about prompts nobody has tried, so a
prompt is the unit that is drawn: the mean over its noises comes first, then prompts are resampled with replacement
(Efron and Tibshirani 1993, chapter 13, percentile intervals).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float
from torch import Tensor

_DRAWS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Interval:
    """A mean and its interval, `low <= high`."""

    mean: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """`{"mean", "low", "high"}`, as `summary.json` holds it."""
        return asdict(self)

    def overlaps(self, other: Interval) -> bool:
        """Whether the two intervals share a point."""
        return self.low <= other.high and other.low <= self.high

    def contains(self, value: float) -> bool:
        """Whether `value` lies inside, ends included."""
        return self.low <= value <= self.high


def bootstrap_interval(
    per_prompt_values: Float[Tensor, "prompts *seeds"], seed: int = 0, level: float = 0.95, resamples: int = 2000
) -> Interval:
    r"""Percentile bootstrap interval of the mean over prompts.

    With prompt means $v_1, \dots, v_P$ the interval runs between the $(1 \mp \mathrm{level})/2$ quantiles of
    $\frac1P \sum_i v_{I_i}$, $I_i$ uniform in $1..P$. With a single prompt it is a point, and says nothing.

    Args:
        per_prompt_values: one value a prompt, `(P,)`, or one a prompt and noise, `(P, S)`, averaged over S first.
        seed: of the resampling; equal seeds draw equal prompts.
        level: coverage, in (0, 1).
        resamples: number of bootstrap samples.

    Raises:
        ValueError: there are no values, one is not finite, or the level is out of range.
    """
    values = torch.as_tensor(per_prompt_values).detach().cpu().double()
    if values.ndim == 0 or values.numel() == 0:
        raise ValueError("An interval needs at least one prompt's value.")
    if not torch.isfinite(values).all():
        raise ValueError("An interval needs finite values; at least one is NaN or infinite.")
    if not 0 < level < 1:
        raise ValueError(f"The level of an interval lies between 0 and 1; got {level}.")
    values = values.reshape(len(values), -1).mean(1)
    random = torch.Generator().manual_seed(seed)
    rows = max(1, _DRAWS_AT_ONCE // len(values))
    means = torch.cat(
        [
            values[torch.randint(len(values), (min(rows, resamples - start), len(values)), generator=random)].mean(1)
            for start in range(0, resamples, rows)
        ]
    )
    low, high = torch.quantile(means, torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=means.dtype)).tolist()
    return Interval(values.mean().item(), low, high)


def paired_interval(
    before: Float[Tensor, "prompts *seeds"],
    after: Float[Tensor, "prompts *seeds"],
    seed: int = 0,
    level: float = 0.95,
    resamples: int = 2000,
) -> Interval:
    """Bootstrap interval of the mean change `after - before`, prompt by prompt.

    Both hold the same prompts (and noises), so what makes one prompt score higher than another cancels: the interval
    is narrower than what the two separate intervals allow.

    Raises:
        ValueError: the shapes differ, or as in `bootstrap_interval`.
    """
    before, after = torch.as_tensor(before), torch.as_tensor(after)
    if before.shape != after.shape:
        raise ValueError(
            f"Paired values have one shape; got {tuple(before.shape)} before and {tuple(after.shape)} after."
        )
    return bootstrap_interval(after.double() - before.double(), seed, level, resamples)
