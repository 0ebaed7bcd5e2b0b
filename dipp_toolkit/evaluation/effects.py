r"""Whether a difference is large enough to matter, beside how much scores differ from prompt to prompt.

Enough prompts make any difference certain, also one that nobody can see. Its size is Cohen's (1988) d with the
two groups' own spread, $d = \bar\Delta / \sqrt{(s_a^2 + s_b^2) / 2}$, $s$ the standard deviations over prompts
($d_{av}$ of Cumming 2012): that of paired differences is left out on purpose, since a change that is tiny and the same
for every prompt would be large by it.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

LEAST_EFFECT = 0.1
"""Least size of a difference that is called better or worse, in standard deviations over prompts.

Half of what Cohen calls small, and what a judge has to fall by before over-optimisation is warned of."""


def effect_size(before: Float[Tensor, "prompts *seeds"], after: Float[Tensor, "prompts *seeds"]) -> float:
    """The mean difference `after - before` in standard deviations over prompts.

    Args:
        before: one value a prompt, `(P,)`, or one a prompt and noise, `(P, S)`, averaged over S first.
        after: of the same prompts.

    Returns:
        0 where nothing differs or there is a single prompt, which has no spread; infinite where the means differ and
        neither side varies from prompt to prompt.
    """
    start, end = (torch.as_tensor(values).double().reshape(len(values), -1).mean(1) for values in (before, after))
    difference = (end - start).mean().item()
    if len(start) < 2 or not difference:
        return 0.0
    spread = math.sqrt((start.var().item() + end.var().item()) / 2)
    return difference / spread if spread else math.copysign(math.inf, difference)


def matters(effect: float) -> bool:
    """Whether a difference of this size is large enough to be called better or worse."""
    return abs(effect) >= LEAST_EFFECT
