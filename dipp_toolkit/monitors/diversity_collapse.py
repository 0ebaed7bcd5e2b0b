r"""Diversity collapse: different noises give nearly the same image of a prompt.

With $d_p$ the root-mean-square difference between two noises' images of prompt $p$, mean over pairs, the warning is
raised where the upper end of the 95 % bootstrap interval over prompts of

$$\frac{\sum_p d_p^{now}}{\sum_p d_p^{start}}$$

lies below 0.8. It is a ratio of sums, not a mean of ratios: a prompt whose images were alike at the start weighs
little.
"""

from __future__ import annotations

import torch

from ..bench.rows import Warned
from .names import DIVERSITY_COLLAPSE as NAME
from .snapshot import Snapshot

KEPT = 0.8
"""Share of the start's diversity that is enough.

Aligning costs some: what people like less is what goes. The emoji world's recommended run keeps 0.99."""
RESAMPLES = 2000


def diversity_collapse(now: Snapshot, start: Snapshot) -> Warned | None:
    """The warning, or None, also where there was one noise a prompt.

    Args:
        now: the generator in question.
        start: what its training started from.
    """
    if now.diversity is None or start.diversity is None or not float(start.diversity.sum()) > 0:
        return None
    random = torch.Generator().manual_seed(0)
    count = len(now.diversity)
    rows = torch.randint(count, (RESAMPLES, count), generator=random)
    ratios = now.diversity[rows].sum(1) / start.diversity[rows].sum(1).clamp(min=1e-12)
    low, high = torch.quantile(ratios, torch.tensor([0.025, 0.975], dtype=ratios.dtype)).tolist()
    if high >= KEPT:
        return None
    ratio = float(now.diversity.sum() / start.diversity.sum())
    return Warned(
        name=NAME,
        text=f"Diversity is {ratio:.2f} of the start's ({low:.2f} to {high:.2f}): different noises give nearly the "
        "same image. Lower reward_scale or guidance, or train fewer steps.",
    )
