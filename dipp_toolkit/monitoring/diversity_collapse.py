r"""Diversity collapse: different noises give nearly the same image of a prompt.

With $d_p$ the root-mean-square difference between two noises' images of prompt $p$, mean over pairs, the warning is
raised where the upper end of the 95 % interval over prompts of

$$\frac{\sum_p d_p^{now}}{\sum_p d_p^{start}}$$

lies below 0.8. It is a ratio of sums, not a mean of ratios: a prompt whose images were alike at the start weighs
little. The interval is that of the mean of $R + (d_p^{now} - R\, d_p^{start}) / \overline{d^{start}}$, the ratio $R$
to first order in each prompt (Cochran 1977, section 6.3).
"""

from __future__ import annotations

from ..config import DIVERSITY_COLLAPSE as NAME
from ..evaluation.intervals import mean_interval
from ..events import Warned
from .snapshot import Snapshot

KEPT = 0.8
"""Share of the start's diversity that is enough.

Aligning costs some: what people like less is what goes. The emoji world's recommended run keeps 0.99."""


def diversity_collapse(now: Snapshot, start: Snapshot) -> Warned | None:
    """The warning, or None, also where there was one noise a prompt.

    Args:
        now: the generator in question.
        start: what its training started from.
    """
    if now.diversity is None or start.diversity is None or not float(start.diversity.sum()) > 0:
        return None
    ratio = float(now.diversity.sum() / start.diversity.sum())
    share = mean_interval(ratio + (now.diversity - ratio * start.diversity) / start.diversity.mean())
    if share.high >= KEPT:
        return None
    low = max(0.0, share.low)
    return Warned(
        name=NAME,
        text=f"Diversity is {ratio:.2f} of the start's ({low:.2f} to {share.high:.2f}): different noises give nearly "
        "the same image. Lower reward_scale or guidance, or train fewer steps.",
    )
