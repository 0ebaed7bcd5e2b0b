r"""How far Flux.2's pipelines shift their times: by the number of tokens, and by the number of steps.

A stock call hands `compute_empirical_mu`'s $\mu$ to its scheduler, whose times are $e^\mu t / (1 + (e^\mu - 1) t)$. It
is a straight line in the number of steps through two lines in the number of tokens, one for 10 steps and one for 200;
of images of more than 4300 tokens, 1050 pixels a side, it is the second line alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dipp_toolkit.models.stock_call import StockCall

FEW, MANY = 10, 200
"""Steps that the two lines belong to."""

FEW_LINE, MANY_LINE = (8.73809524e-05, 1.89833333), (0.00016927, 0.45666666)
"""Slope and intercept of each, as published (github.com/black-forest-labs/flux2, `sampling.py`)."""

LARGE = 4300
"""Tokens above which steps are not looked at."""

STEPS = 50
"""Of the stock call where nobody says how many; the times of a training are shifted as its are."""


def empirical_mu(tokens: int, steps: int) -> float:
    r"""The shift $\mu$ of a stock call.

    Args:
        tokens: of an image, one for 16 by 16 pixels.
        steps: how many are taken.
    """
    few, many = (slope * tokens + intercept for slope, intercept in (FEW_LINE, MANY_LINE))
    if tokens > LARGE:
        return many
    return many + (many - few) / (MANY - FEW) * (steps - MANY)


class Flux2StockCall(StockCall):
    """What Flux.2's pipelines do with their scheduler."""

    def mu(self, config: Mapping[str, Any], latent_shape: tuple[int, ...], steps: int) -> float:
        return empirical_mu(latent_shape[-2] * latent_shape[-1], steps)

    def given_latents(self, noise: Tensor) -> Tensor:
        """The noise itself: the pipeline makes tokens of it."""
        return noise

    def understood(self, scheduler: Any) -> dict[str, Any]:
        """Its configuration, with the shift of a stock call in the place of the line that it has and nobody reads.

        The times of a training are shifted by it, as those of `STEPS` steps are. `dynamic_mu` draws the line, by
        tokens of two by two positions, and here a position is a token; of more than `LARGE` tokens it is an
        approximation.
        """
        config = super().understood(scheduler)
        if not config.get("use_dynamic_shifting"):
            return config
        low, high = 256, 4096
        return config | {
            "base_image_seq_len": low // 4,
            "max_image_seq_len": high // 4,
            "base_shift": empirical_mu(low, STEPS),
            "max_shift": empirical_mu(high, STEPS),
        }
