"""How hard the rewards pull at a run's first update, said before time is spent on a scale that changes nothing."""

from __future__ import annotations

from dataclasses import dataclass

MOST = 100.0
"""Either way. Two terms that differ more are one term: a hundredth of a gradient changes nothing that one sees.

The emoji world's recommended run has 2.8, with `reward_scale=1e5` 3300."""

USUAL = 0.7
"""A ratio to begin with: at it the emoji world's rewards rise and the divergence still holds; up to 2.8 did so too."""


def healthy(ratio: float) -> bool:
    """Whether neither side decides alone."""
    return 1 / MOST <= ratio <= MOST


@dataclass(frozen=True)
class FirstPull:
    """How hard the rewards pull at the first update, and what would change it.

    Attributes:
        ratio: norm of the rewards' joint gradient on the samples over the divergence's, above 0.
        scale: the run's `reward_scale`, above 0.
    """

    ratio: float
    scale: float

    @property
    def healthy(self) -> bool:
        """Whether neither side decides alone."""
        return healthy(self.ratio)

    @property
    def usual_scale(self) -> float:
        """The `reward_scale` at which the ratio would be about `USUAL`, to two digits: the pull is linear in it."""
        return float(f"{self.scale * USUAL / self.ratio:.1e}")

    def __str__(self) -> str:
        times = f"{self.ratio:.2g}" if self.ratio < 100 else f"{float(f'{self.ratio:.1e}'):,.0f}"
        begin = f"The rewards pull {times} times as hard as the divergence (reward_scale {self.scale:g})"
        if self.healthy:
            return f"{begin}."
        outcome = "will change next to nothing" if self.ratio < 1 else "decide alone, and the divergence holds nothing"
        return f"{begin}: they {outcome}. --reward-scale {_plain(self.usual_scale)} would make it {USUAL:g}."


def _plain(number: float) -> str:
    """A number as one types it, without an exponent."""
    return f"{number:.0f}" if number >= 10 else f"{number:g}"
